"""Walks through the members of an event, judges each member, and collects the changes of the event's text."""

import functools
import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from obs_assets.events import MAX_NESTING
from obs_assets.transforms.detectors import Span
from obs_assets.transforms.detectors.base import DIGIT
from obs_assets.transforms.detectors.lists import LIST, list_of, text_of
from obs_assets.transforms.detectors.masks import is_redacted
from obs_assets.transforms.detectors.names import is_about
from obs_assets.transforms.detectors.passwords import is_naming, is_option
from obs_assets.transforms.redact.mark import MARK, Field, Marks, Place
from obs_assets.transforms.redact.memory import Memory, Remembered
from obs_assets.transforms.redact.rules import (
    ALL_GROUPS,
    Edit,
    Key,
    Redacted,
    Rules,
    Secret,
    splice,
)


def _repeated(part: str) -> str:
    """A pattern for a part any number of times, without backtracking: linear time, little memory."""
    # `(?:part)*+` would be shorter, but `re` of CPython 3.11.0 to 3.11.4 continues at a wrong position after the part
    # has failed (issues 106052 and 100061). An atomic group is right in all versions. `re` keeps 72 bytes for each
    # repetition until the group ends.
    return f"(?>(?>(?:{part}){{1,500}})*)"


# Here `*+` is right in all versions: after its backslash, the repeated part cannot fail on any character
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NUMBER = r"-?[0-9][0-9.eE+-]*+"
_TOKEN = re.compile(
    rf"[\s,]*+(?:(?P<string>{_STRING})(?:(?P<colon>\s*+:\s*+)(?:(?P<value>{_STRING}|{_NUMBER})|(?P<inner>[\[{{]))?)?"
    rf"|(?P<number>{_NUMBER})|(?P<bracket>[\[\]{{}}])|true|false|null)\s*+"
)
"""A step through JSON text: a key and its value or the bracket that opens it, an element, or a bracket."""

_SCALAR = rf"(?:{_STRING}|{_NUMBER}|true|false|null)"
_ELEMENT = rf"[\s,]*+{_SCALAR}"
_KEY = rf"[\s,]*+{_STRING}\s*+:\s*+"
_FLAT = rf"\[{_repeated(_ELEMENT)}\s*+\]|\{{{_repeated(_KEY + _SCALAR)}\s*+\}}"
_MEMBERS = re.compile(_repeated(rf"{_KEY}(?:{_SCALAR}|{_FLAT})(?=\s*+,)"))
"""Consecutive members of an object with flat values and a comma after each: they are passed in a single match."""

_STRINGS = re.compile(rf"({_STRING})(\s*+:)?")

_DOCUMENT = re.compile(r"\s*[\[{]")
_NOT_BLANK = re.compile(r"\S")


class Verdict(NamedTuple):
    """The result of the rules for a member, independent of its path in the event.

    Attributes:
        key: the redacted key; None if it is unchanged.
        value: the redacted string or number; None if it is unchanged.
        document: the string, if it is JSON with a value to redact in it; None otherwise.
        is_secret: whether every string and number in the list or object of this member is redacted as a whole.
        is_naming: whether its string names a secret in a sibling: ``{"name": "DB_PASSWORD", "value": …}``.
    """

    key: Redacted | None = None
    value: Redacted | None = None
    document: str | None = None
    is_secret: bool = False
    is_naming: bool = False


Member = tuple[str, str]
"""Literal of the key, empty for an element of a list; literal of the string or number, empty for any other value."""

HARMLESS = Verdict()
_SPECIAL = frozenset(
    ("", "*", "[", "{", *(chr(code) for code in range(0x3001) if chr(code).isspace()))
)
"""First characters of strings that may be JSON or the result of a redaction; ``""`` stands for the empty string."""

_NAMES_OF_NAMES = frozenset(
    (
        "name",
        "key",
        "k",
        "header",
        "variable",
        "field",
        "property",
        "parameter",
        "option",
        "attribute",
    )
)
_NAMES_OF_VALUES = frozenset(("value", "val", "v", "content", "default"))
"""Keys of objects that hold a name and its value, as Kubernetes, OpenTelemetry, HAR and ECS write them."""

_HEADER = re.compile(r"[A-Z][A-Za-z0-9]{0,30}(?:-[A-Za-z0-9]{1,30}){1,6}|Authorization|Cookie")
"""The name of a header in a list of names and values, as Node keeps them: ``rawHeaders``."""

_NO_KEY = Key("", None, is_secret=False)


class Members:
    """Judges the members of events by the rules of a configuration, and remembers verdicts, since values repeat."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.marks = Marks(rules)
        self._known: Memory[Member, Verdict] = Memory()
        self._keys = Remembered(
            lambda literal: rules.key(decode(literal)) if literal else _NO_KEY
        )

    def judge(self, key: str, value: str) -> Verdict:
        """The verdict on a member.

        Args:
            key: literal of the key, such as ``"to"`` with its quotes; empty for an element of a list.
            value: literal of the string or number; empty for any other value.
        """
        return self.judge_all({(key, value): ALL_GROUPS})[key, value]

    def judge_all(self, members: Mapping[Member, int]) -> dict[Member, Verdict]:
        """The verdicts on many members; together they take less than half the time of single calls.

        Args:
            members: each member, with a bit for each group of triggers that fires in it.
        """
        verdicts = dict.fromkeys(members, HARMLESS)
        judged: list[tuple[Member, Key]] = []
        strings: list[tuple[str, str]] = []
        groups: list[int] = []
        for member in verdicts:
            verdict = self._known.get(member)
            if verdict is None:
                key, text = self._keys[member[0]], decode(member[1])
                if key.is_secret or text[:1] in _SPECIAL or key.name.lower() in _NAMES_OF_NAMES:
                    verdict = self._judge_special(key, member[1], text)
                if verdict is None:
                    judged.append((member, key))
                    strings.append((text, key.name))
                    groups.append(members[member])
                    continue
                self._known.remember(member, verdict, _length(member))
            verdicts[member] = verdict
        for (member, key), value in zip(
            judged, self.rules.strings(strings, groups), strict=True
        ):
            if value or key.redacted:
                verdicts[member] = Verdict(key.redacted, value)
            self._known.remember(member, verdicts[member], _length(member))
        return verdicts

    def _judge_special(self, key: Key, literal: str, text: str) -> Verdict | None:
        """The verdict on a member; None if the rules have to be applied to its string or number."""
        if key.name.lower() in _NAMES_OF_NAMES and self.rules.hides_secrets and is_naming(text):
            return Verdict(key.redacted, self.rules.string(text, key.name), is_naming=True)
        if not literal:
            return (
                Verdict(key.redacted, is_secret=key.is_secret)
                if key.redacted or key.is_secret
                else HARMLESS
            )
        if key.is_secret and (hidden := self.hide(literal, key.name)):
            return Verdict(key.redacted, hidden)
        is_document = not is_redacted(text) and _is_document(text)
        if is_document:
            walk = Walk(self, text, everywhere(text), Place("", ""))
            walk.run()
            if walk.types:
                return Verdict(key.redacted, document=text)
        if is_document or is_redacted(text):
            return Verdict(key.redacted) if key.redacted else HARMLESS
        return None

    def hide(self, literal: str, key: str = "") -> Redacted | None:
        """A string or number under the key of a secret, redacted as a whole; None if it cannot be a secret."""
        return self.rules.secret(key, decode(literal), is_number=literal[0] != '"')


def _length(member: Member) -> int:
    key, value = member
    return len(key) + len(value)


class _Level:
    """An open object or list of a walk.

    Attributes:
        index: index of the current element, from 0; None in an object.
        name: in a list, the literal of the list's key, under which its elements are judged; empty if it has none.
        previous: in a list, the literal of the string before the current element; empty for any other value.
        key: literal of the key of the current member.
        naming: literal of the string in this object that names a secret in it; empty if there is none.
        unnamed: key, match and group of the member before, kept in case the current member is its name.
        is_secret: whether every string and number in here is redacted as a whole.
        is_hit: in a list, whether a trigger fires at its key, so that it may be one for any of its elements.
        secret_keys: literals of the keys below which every string and number is redacted as a whole.
        renamed: literal of a redacted key → its new name.
        masks: mask → number of attempts to use it as a new name.
    """

    __slots__ = (
        "index",
        "is_hit",
        "is_secret",
        "key",
        "masks",
        "name",
        "naming",
        "previous",
        "renamed",
        "secret_keys",
        "unnamed",
    )

    def __init__(self, *, is_list: bool, is_secret: bool, name: str = "") -> None:
        self.index = -1 if is_list else None
        self.name = name
        self.previous = self.naming = ""
        self.unnamed: tuple[str, re.Match[str], str] | None = None
        self.key = '""'
        self.is_secret = is_secret
        self.is_hit = False
        self.secret_keys: set[str] = set()
        self.renamed: dict[str, str] = {}
        self.masks: dict[str, int] = {}

    def inner(self, bracket: str) -> "_Level":
        """The object or list that begins with this bracket in the current member or element."""
        is_named = bool(self.naming) and self.key.strip('"').lower() in _NAMES_OF_VALUES
        is_secret = self.is_secret or (
            self.index is None and (is_named or self.key in self.secret_keys)
        )
        name = self.key if bracket == "[" and self.index is None else ""
        return _Level(is_list=bracket == "[", is_secret=is_secret, name=name)


class Walk:
    """A walk through a JSON text that collects the changes to make in it.

    Args:
        members: rules and remembered verdicts.
        text: the JSON text of an object or a list.
        hits: spans of the text, from left to right; the walk judges the members that they touch.
        place: path of the string that holds the text, if it is JSON inside a string; None for an event.
        again: secrets of the event, which are redacted everywhere in the text.
    """

    def __init__(
        self,
        members: Members,
        text: str,
        hits: Iterable[Span],
        place: Place | None = None,
        again: Sequence[Secret] = (),
    ) -> None:
        self.members = members
        self.text = text
        self.hits = iter(hits)
        self.place = place
        self.again = again
        self.secrets: dict[Secret, None] = {}
        self.levels = [_Level(is_list=True, is_secret=False)]
        self.edits: list[Edit] = []
        self.types: list[str] = []
        self.fields: set[Field] = set()
        self.goes_on = False
        self.mark_span = (0, 0)
        self.trusted = 0

    def run(self) -> None:
        """Walk through the text; stop at the last hit if nothing after it can be a secret.

        Raises:
            ValueError, LookupError: the text is not JSON.
        """
        text, levels, end = self.text, self.levels, len(self.text)
        no_hit = (end + 1, end + 1)
        position, (hit_start, hit_end) = 0, next(self.hits, no_hit)
        while position < end:
            while hit_end < position:
                hit_start, hit_end = next(self.hits, no_hit)
            if hit_start > end and not self.goes_on:
                return
            level = levels[-1]
            visits_all = level.is_secret or level.is_hit or bool(level.naming)
            if (
                position < hit_start
                and not visits_all
                and (passed := _MEMBERS.match(text, position, hit_start))
            ):
                position = passed.end()
            match = _TOKEN.match(text, position)
            if match is None:
                raise ValueError("not JSON")
            position = match.end()
            string, colon, _value, inner, number, bracket = match.groups()
            if bracket and bracket in "]}":
                levels.pop()
                continue
            if colon:
                level.key = string
            elif level.index is not None:
                level.index += 1
            if (string or number) and (hit_start < position or visits_all):
                self._visit(match, level)
            if level.index is not None:
                level.previous = string or ""
            if inner or bracket:
                position = self._open(inner or bracket, position, level, hit_start)
        if len(levels) != 1 or levels[0].index != 0:
            raise ValueError("not one JSON value")

    def _visit(self, match: re.Match[str], level: _Level) -> None:
        """Judge the member or element of a step, and redact it if the configuration covers its path."""
        key, group = (
            (match["string"], "value")
            if match["colon"]
            else ("", "string" if match["string"] else "number")
        )
        literal = match[group] or ""
        if key and self.place is None and level is self.levels[1] and decode(key) == MARK:
            self._read_mark(match)
        if match.start() < self.trusted:
            return
        verdict = self.members.judge(key, literal) if key else self._element(level, literal)
        if verdict.is_secret:
            level.secret_keys.add(key)
            self.goes_on = True
        if verdict.is_naming and key:
            self._name_sibling(level, literal)
        if level.is_secret and literal and not is_about(decode(key)):
            verdict = Verdict(verdict.key, self.members.hide(literal))
        elif name := self._name_of(match, level, literal):
            verdict = Verdict(
                verdict.key, self.members.judge(name, literal).value or verdict.value
            )
        if self.again and literal:
            verdict = self._without_secrets(verdict, literal)
        if verdict is not HARMLESS:
            self._change(match, group, level, verdict)
        is_value = level.index is None and decode(key).lower() in _NAMES_OF_VALUES
        level.unnamed = (
            (key, match, group) if is_value and literal and not verdict.value else None
        )

    def _open(self, bracket: str, behind: int, level: _Level, hit_start: int) -> int:
        """Open an object or list, or pass a list that stands for a text; return the index at which the walk goes on.

        Args:
            bracket: the opening bracket.
            behind: index behind the bracket and the blanks after it.
            level: the object or list that holds the new object or list.
            hit_start: index at which the next hit begins.
        """
        inside = level.inner(bracket)
        if bracket == "[" and (hit_start < behind or inside.is_secret):
            found = LIST.match(self.text, self.text.rindex("[", 0, behind))
            plain = text_of(found[0]) if found else None
            if found and plain is not None:
                self._redact_list(found, plain, inside)
                end = _NOT_BLANK.search(self.text, found.end())
                return end.start() if end else len(self.text)
        if inside.name and hit_start < behind:
            inside.is_hit = self.goes_on = True
        self.levels.append(inside)
        return behind

    def _redact_list(self, found: re.Match[str], plain: str, inside: _Level) -> None:
        """Redact a list of bytes or letters as the text that it stands for."""
        rules = self.members.rules
        key = rules.key(decode(inside.name)).name
        found_in = rules.string(plain, key) if not inside.is_secret else None
        hidden = rules.secret(key, plain, is_number=False) if inside.is_secret else None
        redacted = (hidden or found_in or Redacted(plain, ())).without(self.again)
        here = self._here()
        if redacted.types and found.start() >= self.trusted and rules.covered[here.path]:
            self.secrets |= dict.fromkeys(redacted.secrets)
            literal = list_of(redacted.text, found[0])
            self._edit(
                found.span(), literal, redacted.types, here.fields(redacted.types), is_json=True
            )

    def _name_sibling(self, level: _Level, name: str) -> None:
        """Note that a string of an object names a secret in it. The secret may be the member just before."""
        level.naming = name
        self.goes_on = True
        if level.unnamed and not level.is_secret:
            key, match, group = level.unnamed
            if verdict := self.members.judge(name, match[group]).value:
                level.key, present = key, level.key
                self._change(match, group, level, Verdict(value=verdict))
                level.key = present

    def _name_of(self, match: re.Match[str], level: _Level, literal: str) -> str:
        """Literal of the string that names this value: a sibling, or the element before; empty if there is none."""
        if not literal:
            return ""
        if level.index is None:
            is_value = bool(level.naming) and decode(level.key).lower() in _NAMES_OF_VALUES
            return level.naming if is_value else ""
        previous = level.previous
        if previous[:2] == '"-':
            return previous if literal[1:2] != "-" and is_option(decode(previous)) else ""
        if not previous or level.index % 2 == 0 or not DIGIT.search(literal):
            return ""
        name = decode(previous)
        is_pair = level.index == 1 and self.text[match.end() : match.end() + 1] == "]"
        return previous if (is_pair or _HEADER.fullmatch(name)) and is_naming(name) else ""

    def _element(self, level: _Level, literal: str) -> Verdict:
        """The verdict on an element, judged under the key of its list: ``{"set-cookie": ["sid=…"]}``."""
        verdict = self.members.judge(level.name, literal)
        if not level.name or verdict is HARMLESS:
            return verdict
        return verdict._replace(key=None, is_secret=False, is_naming=False)

    def _without_secrets(self, verdict: Verdict, literal: str) -> Verdict:
        """The verdict on a member, with secrets of the event redacted in it although no name stands before them."""
        text = decode(literal)
        before = verdict.value or Redacted(text, ())
        after = before.without(self.again)
        if after.types == before.types:
            return verdict
        return (
            verdict._replace(document=text)
            if _is_document(text)
            else verdict._replace(value=after)
        )

    def _change(
        self, match: re.Match[str], group: str, level: _Level, verdict: Verdict
    ) -> None:
        """Note the edits of a verdict. Key and value change only if the configuration covers the path."""
        here = self._here()
        is_covered = self.members.rules.covered[here.path]
        if is_covered and verdict.key:
            self._rename(level, verdict.key.text)
            here = self._here()
            self._edit(
                match.span("string"),
                level.renamed[level.key],
                verdict.key.types,
                here.fields(verdict.key.types),
            )
        if is_covered and verdict.value:
            self.secrets |= dict.fromkeys(verdict.value.secrets)
            self._edit(
                match.span(group),
                verdict.value.text,
                verdict.value.types,
                here.fields(verdict.value.types),
            )
        if verdict.document:
            self._redact_document(match.span(group), verdict.document, here)

    def _rename(self, level: _Level, name: str) -> None:
        """Give the current key a new name that no other key of the text has: two addresses may have the same mask."""
        while level.key not in level.renamed:
            number = level.masks[name] = level.masks.get(name, 0) + 1
            new_name = name if number == 1 else f"{name}#{number}"
            if new_name not in self._names:
                level.renamed[level.key] = new_name

    @functools.cached_property
    def _names(self) -> frozenset[str]:
        """All keys of the text."""
        return frozenset(decode(match[1]) for match in _STRINGS.finditer(self.text) if match[2])

    def _edit(
        self,
        span: Span,
        text: str,
        types: Collection[str],
        fields: Iterable[Field],
        *,
        is_json: bool = False,
    ) -> None:
        """Note that a literal is replaced, with the types of its values and the entries of ``_redaction``.

        Args:
            span: where the literal is in the text.
            text: the new string; with ``is_json`` the new literal.
            types: the type of each redacted value.
            fields: their entries of ``_redaction``.
            is_json: whether ``text`` is JSON already.
        """
        start, end = span
        literal = text if is_json else encode(text, self.text[start:end])
        self.edits.append((start, end, literal))
        self.types += types
        if start >= self.mark_span[1]:
            self.fields.update(fields)

    def _redact_document(self, span: Span, document: str, here: Place) -> None:
        """Redact the JSON inside a string by a walk through it."""
        inner = Walk(self.members, document, everywhere(document), here, self.again)
        inner.run()
        self.secrets |= inner.secrets
        if inner.types:
            self._edit(span, splice(document, inner.edits), inner.types, inner.fields)

    def _here(self) -> Place:
        """The path of the current member.

        Raises:
            ValueError: the member is nested deeper than `MAX_NESTING`.
        """
        open_brackets = len(self.levels) - 1  # the first level is a list around the event
        if open_brackets > MAX_NESTING:
            raise ValueError("too deep")
        path, shown = ([self.place.path], [self.place.shown]) if self.place else ([], [])
        for level in self.levels[1:]:
            name = decode(level.key) if level.index is None else str(level.index)
            path.append(name)
            shown.append(level.renamed.get(level.key, name))
        return Place(".".join(path), ".".join(shown))

    def _read_mark(self, match: re.Match[str]) -> None:
        """Note the span of the event's ``_redaction``. If an earlier redaction wrote it, it is not examined again."""
        start = (
            match.start("value" if match["value"] else "inner")
            if match["value"] or match["inner"]
            else match.end()
        )
        value, end = json.JSONDecoder().raw_decode(self.text, start)
        self.mark_span = start, end
        fields = self.members.marks.fields_of(value)
        if fields is not None:
            self.fields |= fields
            self.trusted = end

    def left_elsewhere(self) -> list[Secret]:
        """The secrets that were found and still occur in the redacted text, where no name stands before them."""
        text = splice(self.text, self.edits)
        return [secret for secret in self.secrets if secret.value in text]

    def marked_text(self) -> str:
        """The redacted event. ``_redaction`` stays in its position, or is added at the end."""
        mark = self.members.marks.json(self.fields)
        start, end = self.mark_span
        if end:
            outside = [edit for edit in self.edits if not start <= edit[0] < end]
            return splice(self.text, [*outside, (start, end, mark)])
        return f'{splice(self.text, self.edits).rstrip()[:-1]},"{MARK}":{mark}}}'


_ASCII, _UNICODE = json.JSONEncoder(), json.JSONEncoder(ensure_ascii=False)


def decode(literal: str) -> str:
    """The text of a JSON literal: ``"a\\u0040b"`` gives ``a@b``, and a number keeps its spelling."""
    if literal[:1] != '"':
        return literal
    return str(json.loads(literal)) if "\\" in literal else literal[1:-1]


def encode(text: str, like: str) -> str:
    """Encode a string as a JSON literal.

    It is in ASCII if the replaced literal (``like``) was, or had ``\\u`` escapes: a lone surrogate must stay escaped.
    """
    return _ASCII.encode(text) if like.isascii() or "\\u" in like else _UNICODE.encode(text)


def _is_document(text: str) -> bool:
    """Whether a string is the JSON text of an object or list, nested at most `MAX_NESTING` deep."""
    if _DOCUMENT.match(text) is None or _nesting(text) > MAX_NESTING:
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def everywhere(text: str) -> list[Span]:
    """The whole text as a list of a single span."""
    return [(0, len(text))]


def _nesting(text: str) -> int:
    """Depth of nesting of a JSON text; an upper bound if the text has at most `MAX_NESTING` opening brackets."""
    opening = text.count("{") + text.count("[")
    if opening <= MAX_NESTING:
        return opening
    outside = re.sub(_STRING, "", text)
    steps = ((bracket in "{[") - (bracket in "}]") for bracket in outside)
    return max(itertools.accumulate(steps), default=0)
