"""Finds the value of a name: signs between name and value, with any depth of quotes, on the same line."""

import re
from typing import NamedTuple

_NAME_OF_TYPE = r"[A-Za-z&*][\w.<>\[\]?&*]{0,30}"
_TYPE = (
    rf"(?:[ \t]{{0,4}}:[ \t]{{0,4}}{_NAME_OF_TYPE}[ \t]{{0,8}}|[ \t]{{1,4}}{_NAME_OF_TYPE}[ \t]{{1,8}})"
    r":?=(?![=>])"
)
"""The type of the value between name and value: ``var apiToken string =``, ``apiToken: str =``.

Without a colon, a blank stands before the sign: in ``op=password acct="ann"``, ``acct`` is the name of another value.
"""

_EQUALS = r"=>|->|:{0,3}={1,3}|!={1,2}|\?{1,2}=|[.+]=|::(?=[ \t])|:"
_SIBLING = (
    r"[ \t\r\n,;]{1,40}[\"'\\]{0,9}(?i:value|val|content|default)[\"'\\]{0,9}[ \t]{0,8}[=:]"
)
"""The value in a separate attribute or field: ``name="DB_PASSWORD" value=``."""

_CLOSE = r"[\"'`\\]{0,12}(?:&quot;)?(?:\[[^\]\n]{0,40}\])?[\"'`\\)\]]{0,12}"
_WHOSE = r"(?:(?: [\u0430-\u044f\u0451]{2,20}){1,2}| #?[0-9]{1,2}(?=[:=]))?"
"""Words in Cyrillic between a name and its sign (``пароль пользователя:``, the password of the user), or its number."""

_SIGN = re.compile(
    rf"(?:(?P<typed>{_TYPE})(?=[ \t]{{0,8}}[\"'`\\])|{_CLOSE}{_WHOSE}(?:(?P<sibling>{_SIBLING})"
    rf"|[ \t]{{0,20}}(?P<sign>{_EQUALS}|>(?=[ \t]*[\"']))))(?P<blank>[ \t]{{0,8}})"
    r"(?:[>|][+-]?[1-9]?[ \t]{0,4}\r?\n[ \t]{1,40})?"  # a block of YAML: the value is in the next line
    r"(?:\r?\n[ \t]{0,40}string\([0-9]{1,6}\) (?=\"))?"  # var_dump of PHP writes the value into the next line
)
_BEFORE_QUOTE = re.compile(
    rf"{_CLOSE}[ \t]{{0,4}}(?P<sign>[,(|]?)[ \t]{{0,8}}(?=(?:<<|[bruf@$])?\\{{0,15}}[\"'`])"
)
_CELL = re.compile(rf"{_CLOSE}[ \t]{{0,20}}\|[ \t]{{0,20}}")
_ELEMENT = re.compile(
    r"(?: [^<>]{0,80})?>\s{0,80}(?:<(?:Value|value|string)>\s{0,80})?"
    r"(?:<!\[CDATA\[)?(?P<value>[^<>\s](?:[^<>]{0,2000}[^<>\s])?)\s{0,80}(?:\]\]>)?</"
)
_INNER = re.compile(
    r"(?:</key>|[\"'][^<>]{0,120}>)\s{0,80}<(?:value|string)>(?P<value>[^<>]{1,2000})</"
)
_PART = re.compile(
    r"\"[^\r\n]{0,200}\r?\n(?:[\w-]{1,40}:[^\r\n]{0,120}\r?\n){0,4}\r?\n(?P<value>[^\r\n]{1,4096})"
)
_ENCLOSED = (
    ("<", _ELEMENT),
    (":", _ELEMENT),
    (">", _INNER),
    ('name="', _PART),
    ('"', _INNER),
)
"""Text before a name → where its value is: ``<password>X</``, ``<soap:password>X</``, ``<key>password</key><string>``,
``name="password"><value>X</``, a part of a form (RFC 7578)."""

_CONSTRUCTOR = (
    r"(?:new )?(?:[\w.]{1,40}(?:\.|::))?"
    r"(?:Some|Just|Ok|Right|Optional|Secret|String|Str|string|str|sv|ptr|Ptr)\w{0,12}"
)
_WRAPPED = rf"[&*]{{0,2}}(?:{_CONSTRUCTOR}[(\[{{ ]|\((?:const )?\w{{1,20}} ?\*?\) ?)?"
"""Code around a quoted value: ``Some("``, ``new String("``, ``SecretStr('``, ``&"``, ``(char*)"``."""

_OPEN = re.compile(
    rf"(?:{_WRAPPED}(?=\\{{0,15}}[\"'`]))?"
    r"(?:\[[ \t]{0,4}(?=\\{0,15}[\"']))?(?:<<|[bruf@$NE]{0,2})"
    r"(?P<quote>\"\"(?=[^\s\"',;:)}\]&|\\])|\\{0,15}[\"'`]|&quot;)"
)
"""Quotes around a value: plain, escaped, doubled as in CSV, ``<<"`` of Erlang, ``N'`` of SQL."""

_MAYBE = re.compile(r"(?:Optional|Some|Just)[\[(](?=[^\s\"'`\\\])])")
"""A type that may hold a value, as Java and Rust print it: ``Optional[X]``."""

_QUOTED = {
    quote: re.compile(
        rf"[^{quote}\\]{{0,4096}}(?:\\.[^{quote}\\]{{0,4096}}){{0,256}}(?={quote})", re.DOTALL
    )
    for quote in "\"'`"
}
_BARE = re.compile(
    r"""\{[^{}"\s]{1,256}\}(?=;)|(?:(?!,\w{1,64}[=:]|\\{1,15}[nrt"'])[^\s"'`&;<]){1,1024}"""
)
_CLOSING = {")": "(", "]": "[", "}": "{"}
_LEFT = re.compile(r"\[REDACTED[^\]\s]{0,33}\]")
_LONGEST = 4096
"""Characters of the longest value between ``&quot;`` or escaped quotes."""


class Value(NamedTuple):
    """The span of a value in a text.

    Attributes:
        start: index of its first character.
        end: index after its last character.
        is_quoted: whether it stands in quotes.
        is_prose: whether a blank stands before it, as in prose.
    """

    start: int
    end: int
    is_quoted: bool
    is_prose: bool


def sign_after(text: str, end: int) -> tuple[int, bool] | None:
    """Index at which the value of a name begins, and whether a blank stands before it; None if there is no sign.

    Args:
        text: the text, for example ``token: x1``.
        end: index at which the name ends; for the example 5 gives ``(7, True)``.
    """
    if match := _SIGN.match(text, end):
        return match.end(), bool(match["blank"]) and match["sign"] == ":"
    match = _BEFORE_QUOTE.match(text, end)
    if match and match.end() > end:  # a quote directly behind a name closes it
        return match.end(), match["sign"] != ","
    if (match := _CELL.match(text, end)) and "|" in text[max(0, end - 80) : end]:
        return match.end(), True
    return None


def value_at(text: str, start: int, *, is_prose: bool) -> Value | None:
    """The value that begins at ``start``: in quotes of any depth, or bare up to a sign that cannot belong to it."""
    if maybe := _MAYBE.match(text, start):
        start = maybe.end()
    if opening := _OPEN.match(text, start):
        quote, begin = opening["quote"], opening.end()
        if quote in _QUOTED:
            inner = _QUOTED[quote].match(text, begin)
            end = inner.end() if inner else -1
        else:
            end = text.find(quote, begin, begin + _LONGEST)
        if end > begin:
            return Value(begin, end, is_quoted=True, is_prose=is_prose)
        if end == begin:
            return None
        start = begin
    bare = _LEFT.match(text, start) or _BARE.match(text, start)
    if bare is None:
        return None
    if bare.re is _LEFT:
        return Value(start, bare.end(), is_quoted=False, is_prose=is_prose)
    end = start + len(_without_end(bare[0]))
    return Value(start, end, is_quoted=False, is_prose=is_prose) if end > start else None


def _without_end(bare: str) -> str:
    """A bare value without the signs of the text around it: brackets that it does not open, commas, dots."""
    while bare and bare[-1] in ",.)]}\\":
        opening = _CLOSING.get(bare[-1])
        if opening and bare.count(opening) >= bare.count(bare[-1]):
            break
        bare = bare[:-1]
    return bare


def element_after(text: str, start: int, end: int) -> Value | None:
    """The value in the element of XML or the part of a form that has the name between ``start`` and ``end``."""
    before = text[max(0, start - 6) : start]
    for ending, pattern in _ENCLOSED:
        if before.endswith(ending) and (match := pattern.match(text, end)):
            return Value(*match.span("value"), is_quoted=True, is_prose=False)
    return None
