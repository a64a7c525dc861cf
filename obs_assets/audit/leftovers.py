"""Finds personal data and secrets that redaction left in an event, with independent rules.

The module shares no code, no rules and no method with the redactor, so that a mistake there is not repeated
here. An event is parsed as JSON, and every string, number and key is searched with separate patterns and
another engine of regular expressions. That is slow and simple.

The redactor must find as much as it can; this module must be right when it reports something. Values that
are personal only in their context are left to the redactor.
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

from obs_assets.audit import borrowed
from obs_assets.events import MAX_NESTING

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

REDACTION_RECORD = "_redaction"
"""Key under which an event lists its redacted fields; the paths listed there are not reported."""

_REMEMBERED = 1 << 16
"""Texts, and paths, whose results are kept: values such as host names repeat in thousands of events."""

_REMEMBERED_LENGTH = 200
"""Characters. A longer text hardly ever comes twice and is not kept in memory."""

_MAX_WRAPPINGS = 3
"""Encodings around each other that are undone, such as a percent-encoded HTML entity."""


class Leftover(NamedTuple):
    """Personal data or a secret that redaction should have removed.

    Attributes:
        type: an element of `TYPES`, or the name of a custom pattern.
        path: keys joined by dots, ``*`` for a list's elements, for example ``users.*.email``; a key that
            is itself a leftover is shown as ``‹type›``.
    """

    type: str
    path: str


@dataclass(frozen=True)
class CustomRule:
    """A pattern from the pipeline file. Redactor and scanner share these patterns, and nothing else.

    Attributes:
        name: type of the values that it finds.
        regex: pattern in RE2 syntax, with its flags.
        is_valid: whether a match is a value of this type, for example by its check digit.
    """

    name: str
    regex: str
    is_valid: Callable[[str], bool]

    @functools.cached_property
    def pattern(self) -> Any:
        """The compiled pattern."""
        # RE2 takes linear time, so that no pattern of a user can stop a run.
        options = re2.Options()
        options.log_errors = False
        return re2.compile(self.regex, options)


@dataclass(frozen=True)
class Scope:
    """The types and fields to search.

    Attributes:
        types: built-in types, a part of `TYPES`.
        custom: patterns of the pipeline file.
        scanned: globs of the paths to search, such as ``user.*``; None for all paths.
        skipped: globs of paths to leave out.
    """

    types: frozenset[str] = frozenset(TYPES)
    custom: tuple[CustomRule, ...] = ()
    scanned: tuple[str, ...] | None = None
    skipped: tuple[str, ...] = ()


class Scanner:
    """Searches events for leftovers, one event at a time."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._scanned = None if scope.scanned is None else _globs(scope.scanned)
        self._skipped = _globs(scope.skipped)
        self._recall = functools.lru_cache(_REMEMBERED)(self._search)
        self._is_covered = functools.lru_cache(_REMEMBERED)(self._is_path_covered)

    def event(self, text: str) -> list[Leftover]:
        """The leftovers of an event.

        Args:
            text: the event as JSON text.

        Raises:
            ValueError: the text is no JSON, or is nested too deeply.
        """
        return list(self._traverse(_parse(text), ()))

    def text(
        self,
        text: str,
        key: str = "",
    ) -> list[Leftover]:
        """The leftovers of a single text, whatever its path; ``key`` becomes their path."""
        types = filter(self._is_wanted, self._types(text, key))
        return [Leftover(type_, key) for type_ in types]

    def _traverse(
        self,
        value: Any,
        path: tuple[str, ...],
        key: str = "",
        *,
        secret: bool = False,
    ) -> Iterator[Leftover]:
        if len(path) > MAX_NESTING:
            raise ValueError("nested too deeply")
        if isinstance(value, dict):
            for name, member in value.items():
                inner = (*path, name)
                if _is_redacted_path(inner):
                    continue
                yield from self._found(self._types(name, ""), inner)
                # Every value below a secret's name is a secret, at any depth.
                is_secret = secret or _is_secret_name(name)
                yield from self._traverse(member, inner, name, secret=is_secret)
        elif isinstance(value, list):
            for number, element in enumerate(value):
                inner = (*path, str(number))
                yield from self._traverse(element, inner, key, secret=secret)
        elif isinstance(value, str):
            inner_document = _document(value)
            if inner_document is not None:
                yield from self._traverse(inner_document, path, key, secret=secret)
                return
            types = self._types(value, key)
            if not types and secret and _is_secret(value):
                types = ("password",)
            yield from self._found(types, path)

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
        if types:
            return f"‹{types[0]}›"
        return "*" if name.isdecimal() else name

    def _types(
        self,
        text: str,
        key: str,
    ) -> tuple[str, ...]:
        search = self._recall if len(text) <= _REMEMBERED_LENGTH else self._search
        # The cache holds a number and a text of the same characters to be equal: it needs the kind.
        return search(text, key, isinstance(text, _Number))

    def _search(
        self,
        text: str,
        key: str,
        is_number: bool,
    ) -> tuple[str, ...]:
        if is_number:
            text = _Number(text)
        # A dict, because each type is named once, in the order of the rules.
        found = dict.fromkeys(types_in(text, key))
        for reading in _readings(text):
            found |= dict.fromkeys(borrowed.types_in(_without_masks(reading)))
        bare = _without_masks(text)
        for rule in self.scope.custom:
            matches = [match[0] for match in rule.pattern.finditer(bare)]
            if any(match and rule.is_valid(match) for match in matches):
                found[rule.name] = None
        return tuple(found)

    def _is_path_covered(self, path: str) -> bool:
        dotted = f"{path}."
        if self._scanned is not None and self._scanned.match(dotted) is None:
            return False
        return self._skipped.match(dotted) is None


def _is_redacted_path(path: tuple[str, ...]) -> bool:
    """Whether the value at a path is itself the path of a redacted field."""
    begins = path[0] == REDACTION_RECORD and path[1:2] == ("fields",)
    return begins and path[-1] == "field"


class _Number(str):
    """A number as its digits in the JSON text: a float would lose digits of a card number."""

    __slots__ = ()


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_int=_Number, parse_float=_Number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _document(text: str) -> Any:
    """The values of a string that is itself a JSON object or list; None for any other string."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return _parse(text)
    except ValueError:
        return None


def _globs(globs: tuple[str, ...]) -> "regex.Pattern[str]":
    """A pattern for a path and a dot; it matches if a glob covers the path or a path above it."""
    # An empty pattern would match every path; `(?!)` matches none.
    return regex.compile("|".join(map(_glob, globs)) or r"(?!)")


def _glob(path: str) -> str:
    """The pattern of a glob: ``user.*.name`` → ``user\\.[^.]*\\.name\\.``."""
    return "".join(map(_glob_segment, path.split(".")))


def _glob_segment(segment: str) -> str:
    if segment == "**":
        return r"(?:[^.]*\.)*"
    return "[^.]*".join(map(regex.escape, segment.split("*"))) + r"\."


# --- One text --------------------------------------------------------------------------------------------------------


def types_in(text: str, key: str = "") -> Iterator[str]:
    """The types of data in a text; a type can come several times.

    Args:
        text: a string of an event, or the digits of a number.
        key: the key of the text; under a key such as ``phone`` or ``ssn``, plain digits count.
    """
    for reading in _readings(text):
        bare = _without_masks(reading)
        for type_, (could_be, is_there) in _RULES.items():
            if could_be(bare) and is_there(bare, key):
                yield type_


_MASKED = regex.compile(
    r"\[REDACTED(?::[0-9a-f]{32})?\]"
    r"|[^\s*]{0,4}\*\*\*"  # the first characters of a value
    r"(?:[^\s*@]?@[\w.-]++"  # the last character of an address, and its domain
    r"|[0-9]{2,4}(?![0-9]))?"  # the last digits of a phone number or a card
)


def _without_masks(text: str) -> str:
    """A text without the masks of the redactor: ``a***@b.org`` is no address any more."""
    if "***" not in text and "[REDACTED" not in text:
        return text
    # NUL joins no two words: characters around a mask must not form a value together.
    return _MASKED.sub("\0", text)


_DASH = regex.compile(r"[\p{Pd}\u2212]")
_INVISIBLE = regex.compile(r"\p{Cf}")
_ESCAPE = regex.compile(r"\\u00([2-7][0-9A-Fa-f])")
_BASE64 = regex.compile(r"(?<![\w+/-])[\w+/-]{16,}={0,2}")


def _readings(text: str) -> Iterator[str]:
    """A text, and the text in it after the usual encodings are undone."""
    yield text
    reading = text
    for _ in range(_MAX_WRAPPINGS):
        plain = _plain(reading)
        if plain == reading:
            break
        reading = plain
        yield reading
    if len(text) >= _MIN_BASE64:
        for decoded in _decoded(text):
            yield from _readings(decoded)


def _plain(text: str) -> str:
    """A text with a layer of each encoding undone: ``a%40b.org`` → ``a@b.org``."""
    if "\\u00" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    if "%" in text:
        text = unquote(text)
    if "&" in text:
        text = html.unescape(text)
    if not text.isascii():
        # Wide letters, other dashes and invisible characters must not hide a value.
        text = unicodedata.normalize("NFKC", text)
        text = _DASH.sub("-", text)
        text = _INVISIBLE.sub("", text)
        text = "".join(map(_ascii_digit, text))
    return text


def _ascii_digit(sign: str) -> str:
    """A digit of any script as a digit of ASCII; every other character as it is."""
    if not sign.isdecimal():
        return sign
    return str(unicodedata.digit(sign))


_MIN_BASE64 = 16
"""Characters. Shorter runs are mostly words, and hold at most 11 bytes."""


def _decoded(text: str) -> Iterator[str]:
    for run in _BASE64.findall(text):
        digits = run.rstrip("=").translate(_URL_SAFE)
        # Base64 is decoded in groups of four characters; `=` fills the last group.
        padding = "=" * (-len(digits) % 4)
        try:
            plain = base64.b64decode(digits + padding, validate=True).decode()
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
    if _PLUS.search(text) or _AMERICAN.search(text):
        return True
    if any(map(_is_national, _NATIONAL.findall(text))):
        return True
    # Plain digits are a number only by their key; under any key, a date or an address is none.
    if _PHONE_NAME.search(key) is None or _MOMENT.fullmatch(text):
        return False
    return _PHONE.fullmatch(text) is not None


def _is_national(text: str) -> bool:
    return sum(map(str.isdecimal, text)) in (10, 11)


_SSN = regex.compile(
    r"(?<![\w-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?!\w|-\w)"
)
_SSN_NAME = regex.compile(r"(?i)(?:ssn|social[-_ ]?security(?:[-_ ]?(?:number|no))?)$")
_NINE = regex.compile(r"(?!000|666|9)[0-9]{3}(?!00)[0-9]{2}(?!0000)[0-9]{4}")


def _has_ssn(text: str, key: str) -> bool:
    if _SSN.search(text):
        return True
    # Nine digits without hyphens are a number only by their key.
    return _SSN_NAME.search(key) is not None and _NINE.fullmatch(text) is not None


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
    for match in _CARD.finditer(text):
        number = regex.sub(r"\D", "", match[0])
        # A tenth of all numbers have a right check digit, so the issuer must be known too.
        if _ISSUER.fullmatch(number) and _luhn(number):
            return True
    return False


def _luhn(number: str) -> bool:
    """Whether digits end in the right check digit (ISO/IEC 7812-1)."""
    digits = [int(digit) for digit in reversed(number)]
    if not digits:
        return False
    # From the right, every second digit counts twice; of a result of two digits, their sum counts.
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


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
        # Four numbers after "version" are a version; 40 characters hold the word before them.
        before = f"{key}: {text[: match.start()]}"[-40:]
        if _is_address(match[0]) and not _VERSION_BEFORE.search(before):
            return True
    for candidate in _COLONS.findall(text):
        address = candidate.rstrip(".")
        # A port can follow an address.
        if _is_v6(address) or _is_v6(address.rpartition(":")[0]):
            return True
    return False


def _is_v6(text: str) -> bool:
    # Pairs of hexadecimal digits are a MAC address or a fingerprint; letters alone are a name in code.
    if _PAIRS.fullmatch(text) or text.isalpha() or not _has_digit(text):
        return False
    return text.count(":") >= 2 and _is_address(text)  # noqa: PLR2004 - `a:b` is none


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
    """Whether country, length and check digits of an account number are right (ISO 13616, ISO 7064 mod 97-10)."""
    number = text.replace(" ", "")
    if _IBAN_COUNTRIES.match(number) is None or len(number) not in _IBAN_LENGTHS:
        return False
    # Country and check digits go to the end; each letter becomes its number, A = 10 to Z = 35.
    turned = number[4:] + number[:4]
    digits = "".join(str(int(character, 36)) for character in turned)
    return int(digits) % 97 == 1


_MAC = regex.compile(
    r"(?<![0-9A-Za-z])(?<![0-9A-Fa-f][:.-])"
    r"(?:[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}|[0-9A-Fa-f]{4}(?:\.[0-9A-Fa-f]{4}){2})"
    r"(?![0-9A-Za-z]|[:.-][0-9A-Fa-f])"
)


def _has_mac(text: str, _key: str) -> bool:
    for match in _MAC.finditer(text):
        digits = regex.sub("[:.-]", "", match[0]).lower()
        # All zeros and all ones belong to no device.
        if set(digits) in ({"0"}, {"f"}):
            continue
        # Decimal digits between points or hyphens are an amount, a date or a version.
        if match[1] == ":" or not digits.isdecimal():
            return True
    return False


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
"""Digits. A smaller number under a secret's name is a length or a count."""

_SECRET_NAME = regex.compile(
    r"(?i)(?:(?:pass[-_ ]?word|passwd|pass[-_ ]?phrase|secret|authorization"
    r"|(?:api|access|secret|private|signing)[-_ ]?key|(?:access|api|auth|bearer|refresh|session)[-_ ]?token)s?|^token)$"
)
_ASSIGNED = regex.compile(
    r"(?i)(?:(?:pass[-_ ]?word|passwd|pwd|pass[-_ ]?phrase|(?:api|access|secret)[-_ ]?key|secret"
    r"|(?:access|auth|refresh)[-_]?token)(?:[\\\"']{0,4} ?(?:=|:=|: ?)[\\\"' ]{0,4}|>)"
    r"|pass[-_ ]?word is |--?pass(?:word|wd) |(?<!\S)-u [^\s:]{1,40}:)"
    r"(?<value>[^\s\"'\\&;,<>\0]{6,})"
)
_PLACEHOLDER = regex.compile(r"[$%{(\[<*./~\\].*|\W+|(.)\1*")


_LEFT_OUT = regex.compile(
    r"(?i)[\W_]{1,8}(?:redacted|filtered|masked|hidden|removed|omitted|scrubbed|sanitized|protected|secret)[\W_]{1,8}"
    r"|[*\u2022]+|\$?\{{1,2}[^{}]+\}{1,2}"
)
"""Texts that other programs write in place of a secret: ``[FILTERED]``, ``********``, ``${DB_PASSWORD}``."""


def _is_secret_name(key: str) -> bool:
    return _SECRET_NAME.search(key) is not None


def _is_secret(value: str) -> bool:
    """Whether a value under a secret's name is a secret: no empty text, no mask, no small number."""
    if isinstance(value, _Number):
        return len(value) >= _MIN_SECRET_DIGITS
    if _MASKED.fullmatch(value) or _LEFT_OUT.fullmatch(value):
        return False
    return _without_masks(value).strip("\0 ") != ""


def _has_secret(text: str, _key: str) -> bool:
    for match in _ASSIGNED.finditer(text):
        value = match["value"]
        # Letters alone are mostly a word of the sentence: "password: required".
        if _has_letter_and_digit(value) and not _PLACEHOLDER.fullmatch(value):
            return True
    return False


def _has_digit(text: str) -> bool:
    return any(map(str.isdecimal, text))


def _has_letter_and_digit(text: str) -> bool:
    return _has_digit(text) and any(map(str.isalpha, text))


def _digits(at_least: int) -> Callable[[str], bool]:
    """A test for a number of ASCII digits, with any other characters between them."""
    pattern = regex.compile(rf"(?:[0-9][^0-9]*+){{{at_least}}}")
    return lambda text: len(text) >= at_least and pattern.search(text) is not None


def _could_be_ip(text: str) -> bool:
    return text.count(".") > 2 or text.count(":") > 1  # noqa: PLR2004 - the separators of an address


def _could_be_mac(text: str) -> bool:
    separators = ((":", 5), ("-", 5), (".", 2))
    return any(text.count(sign) >= number for sign, number in separators)


def _could_be_key(text: str) -> bool:
    return len(text) >= 16  # noqa: PLR2004 - characters of the shortest credential


def _could_be_password(text: str) -> bool:
    return any(sign in text for sign in "=:>-") or " is " in text


_CheapTest = Callable[[str], bool]
_Test = Callable[[str, str], bool]

_RULES: dict[str, tuple[_CheapTest, _Test]] = {
    "email": (lambda text: "@" in text, _has_email),
    "phone": (_digits(8), _has_phone),
    "ssn": (_digits(9), _has_ssn),
    "credit_card": (_digits(13), _has_card),
    "ip_address": (_could_be_ip, _has_ip),
    "iban": (_digits(4), _has_iban),
    "mac_address": (_could_be_mac, _has_mac),
    "api_key": (_could_be_key, _has_credential),
    "password": (_could_be_password, _has_secret),
}
"""Type → a cheap test whether a text can hold it, and the test itself.

Nearly every text fails the cheap tests."""

VALIDATORS: dict[str, Callable[[str], bool]] = {
    "luhn": lambda text: _luhn(regex.sub(r"\D", "", text)),
    "iban": _is_iban,
    "has_digit": _has_digit,
    "has_letter_and_digit": _has_letter_and_digit,
}
"""Name of a validator of a custom pattern → the test, written independently of the redactor's."""
