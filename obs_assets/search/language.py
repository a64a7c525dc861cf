"""The query language: text ⇄ syntax tree.

A query is a list of terms. Terms side by side must all match; ``OR`` between terms means that one
suffices; ``NOT`` or ``-`` before a term turns it round; parentheses group. ``NOT`` binds closest, then
terms side by side (``AND`` may stand between them), then ``OR``.

=====================  ==============================================================================
``timeout``            a word: the message or the error holds it, in any case
``"connection lost"``  the same for a phrase; ``\\"`` and ``\\\\`` inside are a quote and a backslash
``level:error``        a field is equal to a value; a number equals the text of the same digits
``level:(error OR fatal)``  a field and a group of its values
``duration_ms:>500``   ``>``, ``>=``, ``<``, ``<=``: numbers with a number, texts with any other value
``cost_usd:[1 TO 5]``  from 1 to 5, both included
``trace:*``            the field has a value
``type:task_*``        the value begins with ``task_``
``usage.model:a``      a path of keys in the event's JSON; a list on the path matches by any element
``*``                  every event
=====================  ==============================================================================

Dashes, dots and slashes inside a word are plain characters.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from obs_assets.errors import ObsError

Operator: TypeAlias = Literal["=", ">", ">=", "<", "<="]

OPERATORS: tuple[Operator, ...] = (">=", "<=", ">", "<")
"""Comparisons as they are written; longer signs first, so that ``>=`` is not read as ``>``."""

MAX_CHARACTERS = 4_000
"""Characters of a query. A query that a person writes has a few hundred."""

MAX_DEPTH = 50
"""Parentheses and ``NOT`` inside one another; the parser calls itself for each."""


@dataclass(frozen=True)
class Text:
    """The message or the error contains this text; upper and lower case are ignored."""

    text: str


@dataclass(frozen=True)
class Compare:
    """A field compared with a value.

    Attributes:
        field: name of a column, an alias of it, or a path of keys joined by dots.
        operator: ``=`` or an order.
        value: the value as it was written.
    """

    field: str
    operator: Operator
    value: str


@dataclass(frozen=True)
class Prefix:
    """A field's text begins with this text."""

    field: str
    text: str


@dataclass(frozen=True)
class Exists:
    """A field has a value other than null."""

    field: str


@dataclass(frozen=True)
class Not:
    """The term does not match."""

    term: "Query"


@dataclass(frozen=True)
class And:
    """All terms match. ``And(())`` matches every event."""

    terms: tuple["Query", ...]


@dataclass(frozen=True)
class Or:
    """At least one term matches; there are two or more."""

    terms: tuple["Query", ...]


Query: TypeAlias = Text | Compare | Prefix | Exists | Not | And | Or

EVERYTHING = And(())
"""The query of an empty text: every event matches."""


class QuerySyntaxError(ObsError):
    """A query that cannot be read.

    Attributes:
        position: where in the text, in characters from 0.
        expected: which sign or word could stand there, in words.
    """

    def __init__(self, message: str, position: int, expected: str) -> None:
        super().__init__(f"{message} at character {position + 1}: expected {expected}")
        self.position = position
        self.expected = expected


# -- from text ---------------------------------------------------------------------------------------------------------

_Kind: TypeAlias = Literal["(", ")", "[", "]", ":", "-", "word", "phrase", "end"]


@dataclass(frozen=True)
class _Token:
    """A piece of the text.

    Attributes:
        kind: its sign, or its kind.
        text: the word, or the phrase without its quotes.
        start: position of its first character.
        end: position behind its last character.
    """

    kind: _Kind
    text: str
    start: int
    end: int


_PIECE = re.compile(
    r"""(?P<phrase>"(?:[^"\\]|\\.)*")
    |(?P<quote>")
    |(?P<sign>[()\[\]:])
    |(?P<word>[^\s()\[\]":]+)""",
    re.DOTALL | re.VERBOSE,
)
_WORD = re.compile(r'[^\s()\[\]":]+')
_FIELD = re.compile(r'[^\s()\[\]":*<>=-][^\s()\[\]":*<>=]*')
_SIGNS: dict[str, _Kind] = {"(": "(", ")": ")", "[": "[", "]": "]", ":": ":"}
_WORDS_OF_LOGIC = ("AND", "OR", "NOT", "TO")


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    for piece in _PIECE.finditer(text):
        start, end = piece.span()
        match piece.lastgroup:
            case "quote":
                raise QuerySyntaxError("a quote is not closed", start, "a second quote")
            case "phrase":
                tokens.append(_Token("phrase", _unescaped(piece[0][1:-1]), start, end))
            case "sign":
                tokens.append(_Token(_SIGNS[piece[0]], piece[0], start, end))
            case _:
                # A dash inside a word is a plain character; before a word it is a NOT.
                dashes = _dashes(piece[0]) if _may_be_turned(tokens, start) else 0
                places = range(start, start + dashes)
                tokens += [_Token("-", "-", place, place + 1) for place in places]
                if dashes < len(piece[0]):
                    tokens.append(_Token("word", piece[0][dashes:], start + dashes, end))
    return [*tokens, _Token("end", "", len(text), len(text))]


def _dashes(word: str) -> int:
    """How many dashes a word begins with."""
    return len(word) - len(word.lstrip("-"))


def _may_be_turned(tokens: list[_Token], position: int) -> bool:
    """Whether a dash at this position is a ``NOT``: behind a space or an opening parenthesis."""
    return not tokens or tokens[-1].end < position or tokens[-1].kind == "("


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def parse(text: str) -> Query:
    """Read a query.

    For example ``level:error -type:heartbeat`` is
    ``And((Compare("level", "=", "error"), Not(Compare("type", "=", "heartbeat"))))``.

    Raises:
        QuerySyntaxError: with the position and the signs that could stand there.
    """
    if len(text) > MAX_CHARACTERS:
        raise QuerySyntaxError(
            f"the query has {len(text):,} characters",
            MAX_CHARACTERS,
            f"at most {MAX_CHARACTERS:,}",
        )
    parser = _Parser(_tokens(text))
    if parser.token.kind == "end":
        return EVERYTHING
    query = parser.alternatives(parser.term)
    parser.take("end", "a term, OR or the end of the query")
    return query


class _Parser:
    """Recursive descent over the tokens; each method reads a part and stands behind it."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    @property
    def token(self) -> _Token:
        """The token that is read next."""
        return self._tokens[self._next]

    def take(self, kind: _Kind, expected: str) -> _Token:
        token = self.token
        if token.kind != kind:
            raise QuerySyntaxError(_found(token), token.start, expected)
        if kind != "end":
            self._next += 1
        return token

    def alternatives(self, term: Callable[[], Query]) -> Query:
        """Terms joined by ``OR``."""
        terms = [self._together(term)]
        while self._is_word("OR"):
            self._next += 1
            terms.append(self._together(term))
        return any_of(terms)

    def _together(self, term: Callable[[], Query]) -> Query:
        """Terms side by side, with or without ``AND``."""
        terms = [self._turned(term)]
        while not (self.token.kind in ("end", ")", "]") or self._is_word("OR")):
            if self._is_word("AND"):
                self._next += 1
            terms.append(self._turned(term))
        return all_of(terms)

    def _turned(self, term: Callable[[], Query]) -> Query:
        """A term, perhaps behind ``NOT`` or a dash."""
        if not (self._is_word("NOT") or self.token.kind == "-"):
            return term()
        self._descend()
        self._next += 1
        turned = self._turned(term)
        self._depth -= 1
        return negated(turned)

    def term(self) -> Query:
        """A group in parentheses, a field with its value, a word or a phrase."""
        if self.token.kind == "(":
            return self._group(self.term)
        if self.token.kind not in ("word", "phrase") or self._is_logic():
            raise QuerySyntaxError(_found(self.token), self.token.start, "a term")
        token = self._step()
        if self._is_colon_at(token.end):
            return self._of_field(token)
        if token.kind == "word" and token.text == "*":
            return EVERYTHING
        return Text(token.text)

    def _is_colon_at(self, position: int) -> bool:
        return self.token.kind == ":" and self.token.start == position

    def _of_field(self, name: _Token) -> Query:
        """The value, or the group of values, behind the name of a field and its colon."""
        if name.kind == "word" and not _FIELD.fullmatch(name.text):
            raise QuerySyntaxError(
                f"{name.text!r} is no name of a field",
                name.start,
                'a name, or a name in quotes: "my field":value',
            )
        self._next += 1
        return self._value(name.text)

    def _value(self, field: str) -> Query:
        """The value behind a field's colon, or a group of values."""
        if self.token.kind == "(":
            return self._group(lambda: self._value(field))
        if self.token.kind == "[":
            return self._range(field)
        if self.token.kind == "phrase":
            return Compare(field, "=", self._step().text)
        if self.token.kind != "word" or self._is_logic():
            raise QuerySyntaxError(
                _found(self.token), self.token.start, f"a value of {field!r}, for example *"
            )
        return self._written_value(field)

    def _written_value(self, field: str) -> Query:
        token = self._step()
        for operator in OPERATORS:
            if token.text.startswith(operator):
                return Compare(field, operator, self._bound(token, operator))
        text = self._with_colons(token)
        if text == "*":
            return Exists(field)
        if text.endswith("*") and "*" not in text[:-1]:
            return Prefix(field, text[:-1])
        return Compare(field, "=", text)

    def _bound(self, token: _Token, operator: Operator) -> str:
        """The value behind a comparison: in the same word, or a phrase right behind it."""
        written = token.text.removeprefix(operator)
        if written:
            return self._with_colons(
                _Token("word", written, token.start + len(operator), token.end)
            )
        if self.token.kind == "phrase" and self.token.start == token.end:
            return self._step().text
        raise QuerySyntaxError(
            f"nothing stands behind {operator}", token.end, "a number or a value"
        )

    def _with_colons(self, token: _Token) -> str:
        """A value with the colons inside it, for example the time ``2025-12-04T10:00:00Z``."""
        # Only without blanks around them: "a: b" is a field and its value.
        text, end = token.text, token.end
        while self.token.kind in (":", "word") and self.token.start == end:
            text, end = text + self.token.text, self.token.end
            self._next += 1
        return text

    def _range(self, field: str) -> Query:
        self.take("[", "[")
        # Both ends are in the range, as in the languages of Lucene and Kibana.
        least = self._end_of_range(field)
        if not self._is_word("TO"):
            raise QuerySyntaxError(_found(self.token), self.token.start, "TO")
        self._next += 1
        most = self._end_of_range(field)
        self.take("]", "]")
        return And((Compare(field, ">=", least), Compare(field, "<=", most)))

    def _end_of_range(self, field: str) -> str:
        if self.token.kind == "phrase":
            return self._step().text
        if self.token.kind != "word" or self._is_logic():
            expected = f"an end of the range of {field!r}: [1 TO 5]"
            raise QuerySyntaxError(_found(self.token), self.token.start, expected)
        return self._with_colons(self._step())

    def _group(self, term: Callable[[], Query]) -> Query:
        self._descend()
        self._next += 1
        query = self.alternatives(term)
        self.take(")", "a term, OR or a closing parenthesis")
        self._depth -= 1
        return query

    def _descend(self) -> None:
        # Python's own limit of recursion would end in an error without a position.
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise QuerySyntaxError(
                "the query is nested too deep", self.token.start, f"at most {MAX_DEPTH} levels"
            )

    def _step(self) -> _Token:
        token = self.token
        self._next += 1
        return token

    def _is_word(self, word: str) -> bool:
        return self.token.kind == "word" and self.token.text == word

    def _is_logic(self) -> bool:
        return self.token.kind == "word" and self.token.text in _WORDS_OF_LOGIC


def _found(token: _Token) -> str:
    if token.kind == "end":
        return "the query ends too early"
    return f"found {token.text!r}"


# -- building ----------------------------------------------------------------------------------------------------------


def all_of(terms: list[Query]) -> Query:
    """The terms as one query that matches where all match; an ``And`` among them is dissolved."""
    flat: list[Query] = []
    for term in terms:
        match term:
            case And(inner):
                flat += inner
            case _:
                flat.append(term)
    if len(flat) == 1:
        return flat[0]
    return And(tuple(flat))


def any_of(terms: list[Query]) -> Query:
    """The terms as one query that matches where one matches; an ``Or`` among them is dissolved."""
    flat: list[Query] = []
    for term in terms:
        match term:
            case Or(inner):
                flat += inner
            case _:
                flat.append(term)
    if len(flat) == 1:
        return flat[0]
    return Or(tuple(flat))


def negated(term: Query) -> Query:
    """The opposite of a term; two negations cancel each other."""
    match term:
        case Not(inner):
            return inner
        case _:
            return Not(term)


def fields_of(query: Query) -> set[str]:
    """The fields that a query names, as they are written."""
    match query:
        case Text():
            return set()
        case Compare(field) | Prefix(field) | Exists(field):
            return {field}
        case Not(term):
            return fields_of(term)
        case And(terms) | Or(terms):
            return set().union(*map(fields_of, terms))


def has_text(query: Query) -> bool:
    """Whether a query looks for a word or a phrase in messages and errors."""
    match query:
        case Text():
            return True
        case Compare() | Prefix() | Exists():
            return False
        case Not(term):
            return has_text(term)
        case And(terms) | Or(terms):
            return any(map(has_text, terms))


# -- to text -----------------------------------------------------------------------------------------------------------


def print_query(query: Query) -> str:
    """The text of a query, so that ``parse(print_query(query)) == query`` for every parsed query."""
    match query:
        case Text(text):
            return _printed_text(text)
        case Compare(field, "=", value):
            return f"{_printed_field(field)}:{_printed_value(value)}"
        case Compare(field, operator, value):
            return f"{_printed_field(field)}:{operator}{_printed_value(value)}"
        case Prefix(field, text):
            return f"{_printed_field(field)}:{text}*"
        case Exists(field):
            return f"{_printed_field(field)}:*"
        case Not(term):
            return f"-{_printed_inside(term)}"
        case And(()):
            return "*"
        case And(terms):
            return " ".join(_printed_inside(term) for term in terms)
        case Or(terms):
            # OR binds least, so that its terms need no parentheses.
            return " OR ".join(print_query(term) for term in terms)


def _printed_inside(query: Query) -> str:
    """A term inside an ``And`` or a ``Not``: lists of terms need parentheses."""
    text = print_query(query)
    match query:
        case And(terms) | Or(terms) if terms:
            return f"({text})"
        case _:
            return text


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _printed_text(text: str) -> str:
    # Without quotes these would be read as NOT, as every event or as a word of logic.
    has_meaning = text.startswith("-") or text == "*" or text in _WORDS_OF_LOGIC
    if has_meaning or not _WORD.fullmatch(text):
        return _quoted(text)
    return text


def _printed_field(field: str) -> str:
    if field in _WORDS_OF_LOGIC or not _FIELD.fullmatch(field):
        return _quoted(field)
    return field


def _printed_value(value: str) -> str:
    # Without quotes these would be read as a comparison, a prefix or a word of logic.
    is_comparison = value.startswith(("<", ">"))
    has_meaning = is_comparison or value.endswith("*") or value in _WORDS_OF_LOGIC
    if has_meaning or not _WORD.fullmatch(value):
        return _quoted(value)
    return value
