"""What redaction should have left nowhere: a second opinion on single events.

Nothing here is shared with the redactor, neither rules nor code nor way: an event is parsed as JSON, every string,
number and key in it is looked at one by one, by another engine of regular expressions with patterns of its own. Slow,
and simple enough to be believed. Where the redactor has to find all it can, this has to be right when it says
something: forms that only a context makes personal are left to the redactor.
"""

import base64
import binascii
import functools
import html
import ipaddress
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote

import re2
import regex

TYPES = (
    "email",
    "phone",
    "ssn",
    "credit_card",
    "ip_address",
    "iban",
    "mac_address",
    "api_key",
    "password",
)

MARK = "_redaction"
"""Where an event says what was redacted: the paths there are no values, whatever they look like."""

_REMEMBERED = 1 << 16
_REMEMBERED_LENGTH = 200
_MAX_DEPTH = 100
_MAX_WRAPPINGS = 3


class Leftover(NamedTuple):
    """Something that should not be there.

    Attributes:
        type: what it is: one of `TYPES`, or the name of a custom pattern.
        path: where: keys joined by dots, ``*`` for a list's elements; a key that is a leftover itself is ``‹type›``.
    """

    type: str
    path: str


@dataclass(frozen=True)
class CustomRule:
    """A pattern of the user's: the one thing that both opinions have to take from the same place.

    Attributes:
        name: the type.
        regex: RE2 syntax, flags included.
        is_valid: what a match must pass besides.
    """

    name: str
    regex: str
    is_valid: Callable[[str], bool]

    @functools.cached_property
    def pattern(self) -> Any:
        """The pattern compiled. RE2, since it is anybody's and must not hang a run."""
        options = re2.Options()
        options.log_errors = False
        return re2.compile(self.regex, options)


@dataclass(frozen=True)
class Scope:
    """Of what, and where, an event should be free.

    Attributes:
        types: the built-in types.
        custom: further patterns.
        scanned: globs of the paths that are redacted; None for all.
        skipped: globs of the paths that are not.
    """

    types: frozenset[str] = frozenset(TYPES)
    custom: tuple[CustomRule, ...] = ()
    scanned: tuple[str, ...] | None = None
    skipped: tuple[str, ...] = ()


class Scanner:
    """Looks at events, one at a time."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._scanned = None if scope.scanned is None else _globs(scope.scanned)
        self._skipped = _globs(scope.skipped)
        self._recall = functools.lru_cache(_REMEMBERED)(self._judge)
        self._is_covered = functools.lru_cache(_REMEMBERED)(self._judge_path)

    def event(self, text: str) -> list[Leftover]:
        """What is left in an event.

        Raises:
            ValueError: it is no JSON, or nested too deeply to be looked at.
        """
        return list(self._walk(_parse(text), ()))

    def text(
        self,
        text: str,
        key: str = "",
    ) -> list[Leftover]:
        """What is left in a text on its own, wherever it stands; ``path`` is its key."""
        return [
            Leftover(type_, key) for type_ in self._types(text, key) if self._is_wanted(type_)
        ]

    def _walk(
        self,
        value: Any,
        path: tuple[str, ...],
        key: str = "",
        *,
        secret: bool = False,
    ) -> Iterator[Leftover]:
        if len(path) > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        if isinstance(value, dict):
            for name, member in value.items():
                inner = (*path, name)
                if inner[0] == MARK and inner[-1] == "field" and inner[1:2] == ("fields",):
                    continue
                yield from self._found(self._types(name, ""), inner)
                yield from self._walk(
                    member, inner, name, secret=secret or _is_secret_name(name)
                )
        elif isinstance(value, list):
            for number, element in enumerate(value):
                yield from self._walk(
                    element,
                    (*path, str(number)),
                    key,
                    secret=secret,
                )
        elif isinstance(value, str):
            inner_document = _document(value)
            if inner_document is None:
                types = self._types(value, key)
                yield from self._found(
                    types or (("password",) if secret and _is_secret(value) else ()), path
                )
            else:
                yield from self._walk(inner_document, path, key, secret=secret)

    def _found(
        self,
        types: Iterable[str],
        path: tuple[str, ...],
    ) -> Iterator[Leftover]:
        for type_ in types:
            if self._is_wanted(type_) and self._is_covered(".".join(path)):
                yield Leftover(type_, ".".join(self._shown(name) for name in path))

    def _is_wanted(self, type_: str) -> bool:
        return type_ in self.scope.types or type_ not in TYPES

    def _shown(self, name: str) -> str:
        types = self._types(name, "")
        return f"‹{types[0]}›" if types else "*" if name.isdecimal() else name

    def _types(
        self,
        text: str,
        key: str,
    ) -> tuple[str, ...]:
        known = self._recall if len(text) <= _REMEMBERED_LENGTH else self._judge
        return known(text, key, isinstance(text, _Number))

    def _judge(
        self,
        text: str,
        key: str,
        is_number: bool,
    ) -> tuple[str, ...]:
        found = dict.fromkeys(types_in(_Number(text) if is_number else text, key))
        bare = _without_masks(text)
        for rule in self.scope.custom:
            if any(
                match[0] and rule.is_valid(match[0]) for match in rule.pattern.finditer(bare)
            ):
                found[rule.name] = None
        return tuple(found)

    def _judge_path(self, path: str) -> bool:
        dotted = f"{path}."
        scanned = self._scanned is None or self._scanned.match(dotted) is not None
        return scanned and self._skipped.match(dotted) is None


class _Number(str):
    """A number as it is written: a card's digits are all there."""

    __slots__ = ()


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_int=_Number, parse_float=_Number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _document(text: str) -> Any:
    """What a string says that is a JSON object or list itself; None for any other."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return _parse(text)
    except ValueError:
        return None


def _globs(globs: tuple[str, ...]) -> "regex.Pattern[str]":
    """Paths, a dot at their end, that one of the globs covers; what is below a path is covered with it."""
    return regex.compile("|".join(map(_glob, globs)) or r"(?!)")


def _glob(path: str) -> str:
    segments = {"**": r"(?:[^.]*\.)*"}
    parts = (
        segments.get(part) or "[^.]*".join(map(regex.escape, part.split("*"))) + r"\."
        for part in path.split(".")
    )
    return "".join(parts)


# --- One text --------------------------------------------------------------------------------------------------------


def types_in(text: str, key: str = "") -> Iterator[str]:
    """The types of what stands in a text, a number's digits being text too; one may come several times.

    Args:
        text: a string of an event, or a number as it is written.
        key: the key that it stands under, which makes digits a phone number or a social security number.
    """
    for said in _readings(text):
        bare = _without_masks(said)
        for type_, (could_be, is_there) in _RULES.items():
            if could_be(bare) and is_there(bare, key):
                yield type_


_MASKED = regex.compile(
    r"\[REDACTED(?::[0-9a-f]{32})?\]"
    r"|[^\s*]{0,4}\*\*\*"  # how a value begins
    r"(?:[^\s*@]?@[\w.-]++"  # an address' last character and its domain
    r"|[0-9]{2,4}(?![0-9]))?"  # the end of a phone number or a card
)


def _without_masks(text: str) -> str:
    """A text with what a redaction leaves behind taken out."""
    return _MASKED.sub("\0", text) if "***" in text or "[REDACTED" in text else text


_DASH = regex.compile(r"[\p{Pd}\u2212]")
_INVISIBLE = regex.compile(r"\p{Cf}")
_ESCAPE = regex.compile(r"\\u00([2-7][0-9A-Fa-f])")
_BASE64 = regex.compile(r"(?<![\w+/-])[\w+/-]{16,}={0,2}")


def _readings(text: str) -> Iterator[str]:
    """A text, and what it says if it is read as one of the usual encodings."""
    yield text
    said = text
    for _ in range(_MAX_WRAPPINGS):
        plain = _plain(said)
        if plain == said:
            break
        said = plain
        yield said
    if len(text) >= _MIN_BASE64:
        for decoded in _decoded(text):
            yield from _readings(decoded)


def _plain(text: str) -> str:
    if "\\u00" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    if "%" in text:
        text = unquote(text)
    if "&" in text:
        text = html.unescape(text)
    if not text.isascii():
        text = _INVISIBLE.sub("", _DASH.sub("-", unicodedata.normalize("NFKC", text)))
        text = "".join(
            str(unicodedata.digit(sign)) if sign.isdecimal() else sign for sign in text
        )
    return text


_MIN_BASE64 = 16


def _decoded(text: str) -> Iterator[str]:
    for run in _BASE64.findall(text):
        padded = run.rstrip("=").translate(_URL_SAFE)
        try:
            plain = base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
        if plain.isprintable():
            yield plain


_URL_SAFE = str.maketrans("-_", "+/")

# --- Rules -----------------------------------------------------------------------------------------------------------

_EMAIL = regex.compile(
    r"(?<![\w.+%-])(?!git@)[\w.+%-]{1,64}+@(?![0-9]x\.)(?:[\p{L}\p{N}][\p{L}\p{N}-]*+\.)+"
    r"(?:xn--[a-z0-9-]+|\p{L}{2,24})(?![\p{L}\p{N}-])"
)


def _has_email(text: str, _key: str) -> bool:
    return _EMAIL.search(text) is not None


_PLUS = regex.compile(r"(?<![\w+])\+[1-9](?:[ ().\-/]{0,2}[0-9]){7,14}(?![0-9])")
_AMERICAN = regex.compile(
    r"(?<![\w.+-])(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}([ .-]))[2-9][0-9]{2}[.-][0-9]{4}"
    r"(?:(?: ?x| ext\.? ?)[0-9]{1,6})?(?!\w|[.-][0-9])"
)
_NATIONAL = regex.compile(
    r"(?<![\w.+:/-])(?<![0-9A-Z] )(?:0[1-9][0-9]{0,3}|\(0[0-9]{1,4}\))(?: [0-9]{2,4}){2,4}(?![\w:/]|[ .-][0-9])"
)
_PHONE_NAME = regex.compile(
    r"(?i)(?:phone|mobile|msisdn|whatsapp|cell|fax)(?:[-_. ]?(?:number|num|no))?$"
)
_PHONE = regex.compile(r"\+?\(?[0-9](?:[ ().\-/]{0,2}[0-9]){8,14}")
_MOMENT = regex.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*|1[0-9]{9}|1[0-9]{12}|[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
)


def _has_phone(text: str, key: str) -> bool:
    if (
        _PLUS.search(text)
        or _AMERICAN.search(text)
        or any(map(_is_national, _NATIONAL.findall(text)))
    ):
        return True
    return (
        _PHONE_NAME.search(key) is not None
        and bool(_PHONE.fullmatch(text))
        and not _MOMENT.fullmatch(text)
    )


def _is_national(text: str) -> bool:
    return sum(map(str.isdecimal, text)) in (10, 11)


_SSN = regex.compile(
    r"(?<![\w-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?!\w|-\w)"
)
_SSN_NAME = regex.compile(r"(?i)(?:ssn|social[-_ ]?security(?:[-_ ]?(?:number|no))?)$")
_NINE = regex.compile(r"(?!000|666|9)[0-9]{3}(?!00)[0-9]{2}(?!0000)[0-9]{4}")


def _has_ssn(text: str, key: str) -> bool:
    return bool(_SSN.search(text)) or (
        _SSN_NAME.search(key) is not None and bool(_NINE.fullmatch(text))
    )


_CARD = regex.compile(
    r"(?<![\w.])(?<!\w-)(?:[2-6][0-9]{13,18}"
    r"|[2-6][0-9]{3}([ ._/-])[0-9]{4}\1[0-9]{4}\1[0-9]{4}"
    r"|3[0-9]{3}([ ._/-])[0-9]{6}\2[0-9]{4,5})(?!\w|[.-]\w)"
)
_ISSUER = regex.compile(
    r"4(?:[0-9]{15}|[0-9]{18})|5[1-5][0-9]{14}|2[3-6][0-9]{14}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}"
    r"|6(?:011|2[0-9]{2}|5[0-9]{2})[0-9]{12}|67[0-9]{14}|35[0-9]{14}"
)


def _has_card(text: str, _key: str) -> bool:
    numbers = (regex.sub(r"\D", "", match[0]) for match in _CARD.finditer(text))
    return any(_ISSUER.fullmatch(number) and _luhn(number) for number in numbers)


def _luhn(number: str) -> bool:
    """Whether digits end in the right check digit (ISO/IEC 7812-1)."""
    digits = [int(digit) for digit in reversed(number)]
    return (
        bool(digits)
        and (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10
        == 0
    )


_DOTTED = regex.compile(
    r"(?<!\w)(?<![0-9]\.)[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?!\w|\.[0-9]|-[A-Za-z])"
)
_VERSION_BEFORE = regex.compile(
    r"(?i)(?:(?<![a-z])(?:version|ver|v|rv|release|rel|build|revision|rev|firmware|section)|version|release|build)"
    r"[\"' :=#-]*$|(?<![\w.-])[a-z][\w.-]*/$"
)
_COLONS = regex.compile(r"(?<![\w:.*])[0-9A-Fa-f:][0-9A-Fa-f:.]+(?![\w*])")
_PAIRS = regex.compile(r"(?:[0-9A-Fa-f]{2}:)+[0-9A-Fa-f]{2}")


def _has_ip(text: str, key: str) -> bool:
    for match in _DOTTED.finditer(text):
        if _is_address(match[0]) and not _VERSION_BEFORE.search(
            f"{key}: {text[: match.start()]}"[-40:]
        ):
            return True
    candidates = (match.rstrip(".") for match in _COLONS.findall(text))
    return any(
        _is_v6(candidate) or _is_v6(candidate.rpartition(":")[0]) for candidate in candidates
    )


def _is_v6(text: str) -> bool:
    is_other = (
        _PAIRS.fullmatch(text) is not None
        or text.isalpha()
        or not any(map(str.isdecimal, text))
    )
    return text.count(":") >= 2 and not is_other and _is_address(text)  # noqa: PLR2004 - `a:b` is none


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


_IBAN = regex.compile(
    r"(?<![0-9A-Za-z])[A-Z]{2}[0-9]{2}(?:[0-9A-Z]{11,30}|(?: [0-9A-Z]{4}){2,7}(?: [0-9A-Z]{1,4})?)(?![0-9A-Za-z])"
)
_IBAN_LENGTHS = range(15, 35)
_IBAN_COUNTRIES = regex.compile(
    "A[DELTZ]|B[AEGHR]|C[HRYZ]|D[EKO]|E[ES]|F[IOR]|G[BEILRT]|H[RU]|I[ELST]|JO|K[WZ]|L[BITUV]|M[CDEKTU]|N[LO]|P[KLST]"
    "|QA|R[OS]|S[AEIKM]|T[NR]|UA|VG|XK"
)


def _has_iban(text: str, _key: str) -> bool:
    return any(map(_is_iban, _IBAN.findall(text)))


def _is_iban(text: str) -> bool:
    """Whether an account number's remainder is right (ISO 13616, ISO 7064 mod 97-10)."""
    number = text.replace(" ", "")
    turned = "".join(str(int(character, 36)) for character in number[4:] + number[:4])
    return (
        _IBAN_COUNTRIES.match(number) is not None
        and len(number) in _IBAN_LENGTHS
        and int(turned) % 97 == 1
    )


_MAC = regex.compile(
    r"(?<![0-9A-Za-z])(?<![0-9A-Fa-f][:.-])"
    r"(?:[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}|[0-9A-Fa-f]{4}(?:\.[0-9A-Fa-f]{4}){2})"
    r"(?![0-9A-Za-z]|[:.-][0-9A-Fa-f])"
)


def _has_mac(text: str, _key: str) -> bool:
    return any(
        match[1] == ":" or not regex.sub("[.-]", "", match[0]).isdecimal()
        for match in _MAC.finditer(text)
        if set(match[0].lower()) - set(":.-") not in ({"0"}, {"f"})
    )


_CREDENTIAL = regex.compile(
    r"(?<![0-9A-Za-z])(?:sk-(?=[0-9A-Za-z_-]*[0-9A-Z])[0-9A-Za-z_-]{20,}|(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|gh[opsu]_[0-9A-Za-z]{30,}|github_pat_[0-9A-Za-z_]{30,}|glpat-[0-9A-Za-z_-]{20}|xox[abps]-[0-9A-Za-z-]{20,}"
    r"|[rs]k_(?:live|test)_[0-9A-Za-z]{16,}|AIza[0-9A-Za-z_-]{35}|npm_[0-9A-Za-z]{36}|pypi-[0-9A-Za-z_-]{32,}"
    r"|eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}"
    r"|[Bb]earer (?=[^ ]*[0-9])[0-9A-Za-z._~+/=-]{12,})"
    r"|-----BEGIN [A-Z ]{0,20}PRIVATE KEY"
    r"|[a-z]://[^\s/?#:@\"'\0]*+:[^\s/?#\"'@\0]+@"
)


def _has_credential(text: str, _key: str) -> bool:
    return _CREDENTIAL.search(text) is not None


_MIN_SECRET_DIGITS = 4
_SECRET_NAME = regex.compile(
    r"(?i)(?:(?:pass[-_ ]?word|passwd|pass[-_ ]?phrase|secret|authorization"
    r"|(?:api|access|secret|private|signing)[-_ ]?key|(?:access|api|auth|bearer|refresh|session)[-_ ]?token)s?|^token)$"
)
_SAID = regex.compile(
    r"(?i)(?:(?:pass[-_ ]?word|passwd|pwd|pass[-_ ]?phrase|(?:api|access|secret)[-_ ]?key|secret"
    r"|(?:access|auth|refresh)[-_]?token)(?:[\\\"']{0,4} ?(?:=|:=|: ?)[\\\"' ]{0,4}|>)"
    r"|pass[-_ ]?word is |--?pass(?:word|wd) |(?<!\S)-u [^\s:]{1,40}:)"
    r"(?<value>[^\s\"'\\&;,<>\0]{6,})"
)
_PLACE = regex.compile(r"[$%{(\[<*./~\\].*|\W+|(.)\1*")


def _is_secret_name(key: str) -> bool:
    return _SECRET_NAME.search(key) is not None


def _is_secret(value: str) -> bool:
    """Whether a value under a secret's name is one: not empty, not what a redaction leaves, not a small number."""
    if isinstance(value, _Number):
        return len(value) >= _MIN_SECRET_DIGITS
    return bool(_without_masks(value).strip("\0 ")) and not _MASKED.fullmatch(value)


def _has_secret(text: str, _key: str) -> bool:
    values = (match["value"] for match in _SAID.finditer(text))
    return any(
        not _PLACE.fullmatch(value)
        and any(map(str.isdecimal, value))
        and any(map(str.isalpha, value))
        for value in values
    )


def _has_digits(at_least: int) -> Callable[[str], bool]:
    pattern = regex.compile(rf"(?:[0-9][^0-9]*+){{{at_least}}}")
    return lambda text: len(text) >= at_least and pattern.search(text) is not None


_RULES: dict[str, tuple[Callable[[str], bool], Callable[[str, str], bool]]] = {
    "email": (lambda text: "@" in text, _has_email),
    "phone": (_has_digits(8), _has_phone),
    "ssn": (_has_digits(9), _has_ssn),
    "credit_card": (_has_digits(13), _has_card),
    "ip_address": (lambda text: text.count(".") > 2 or text.count(":") > 1, _has_ip),  # noqa: PLR2004
    "iban": (_has_digits(4), _has_iban),
    "mac_address": (
        lambda text: any(text.count(sign) >= n for sign, n in ((":", 5), ("-", 5), (".", 2))),
        _has_mac,
    ),
    "api_key": (lambda text: len(text) >= 16, _has_credential),  # noqa: PLR2004
    "password": (
        lambda text: any(sign in text for sign in "=:>-") or " is " in text,
        _has_secret,
    ),
}
"""Type to a cheap test of what could be one and the test itself."""

VALIDATORS: dict[str, Callable[[str], bool]] = {
    "luhn": lambda text: _luhn(regex.sub(r"\D", "", text)),
    "iban": _is_iban,
    "has_digit": lambda text: any(map(str.isdecimal, text)),
    "has_letter_and_digit": lambda text: (
        any(map(str.isdecimal, text)) and any(map(str.isalpha, text))
    ),
}
"""What a custom pattern may ask of its matches, done a second time."""
