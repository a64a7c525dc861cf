r"""What is personal or secret, and how to be sure: the redactor's rules.

Only rules live here; how they are applied to an event is in `obs_assets.transforms.redact`.

A `Detector` has two halves. Its *trigger* is RE2 over raw JSON text, linear in time and run by DuckDB over whole
events: it may fire in vain, but wherever the exact half finds something in a decoded string, the trigger fires on the
raw text of that string, whatever its escapes. (Escapes that could hide a letter, ``\u0040`` and ``%40``, are triggers
themselves, see `ENCODED`.) Its *find* is exact, runs on a decoded string and says where the values are.

Every `re` pattern here is linear: it begins with a literal, or with a lookbehind that allows one start per run of its
characters, and its repetitions are bounded, possessive, or end where the run ends.

What a redaction leaves behind (`is_redacted`) is found by no rule, so that redacting twice is redacting once.
"""

import base64
import binascii
import bisect
import ipaddress
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import re2

Span: TypeAlias = tuple[int, int]
"""Start and end of a value in a string."""


@dataclass(frozen=True)
class Detector:
    """How one kind of value is found and masked.

    Attributes:
        type: what it is counted as.
        trigger: RE2 over raw JSON text: fires at least wherever ``find`` finds something.
        find: (string, the key it stands under or "") to the spans of the values in it, left to right.
        mask: a value to what may be shown of it; never its length.
    """

    type: str
    trigger: str
    find: Callable[[str, str], Iterator[Span]]
    mask: Callable[[str], str]


# --- What a redaction leaves behind ----------------------------------------------------------------------------------

_ASTERISKS = "***"
_SHOWN = 4

_REDACTED = re.compile(
    r"(?:\[REDACTED(?::[0-9a-f]{32})?\]"  # remove, hash
    r"|[^*]{0,4}\*\*\*"  # mask_start, mask_all
    r"|\d{0,3}\*\*\*\d{2,4}"  # mask_phone, mask_card
    r"|[^*\s]?\*\*\*[^*\s]?@[^\s@]+"  # mask_email
    r")(?:#[0-9]+)?"  # one of several equal keys
)


def is_redacted(value: str) -> bool:
    """Whether a value is what a redaction has left, so that it stays."""
    return _REDACTED.fullmatch(value) is not None


def mask_all(_value: str) -> str:
    """``***``: for values of which every character helps to guess the rest."""
    return _ASTERISKS


def mask_start(value: str) -> str:
    """The first fifth of the value, four characters at most: ``sk-a***``."""
    return value[: min(_SHOWN, len(value) // 5)] + _ASTERISKS


def mask_email(value: str) -> str:
    """First and last character of the local part, ``u***r@example.com``; ``***@example.com`` if it has two or fewer."""
    local, _, domain = value.rpartition("@")
    return f"{local[0]}{_ASTERISKS}{local[-1]}@{domain}" if local[2:] else f"{_ASTERISKS}@{domain}"


def mask_card(value: str) -> str:
    """The last four digits, which receipts may print (PCI DSS 3.4.1): ``***1111``."""
    return _ASTERISKS + _digits(value)[-4:]


def mask_phone(value: str) -> str:
    """The first three and the last two digits: ``212***23``."""
    digits = _digits(value)
    return digits[:3] + _ASTERISKS + digits[-2:]


def _digits(value: str) -> str:
    return "".join(character for character in value if character.isdigit())


# --- Pieces of triggers ----------------------------------------------------------------------------------------------

ENCODED = r"%[2-7][0-9A-Fa-f]|\\u00[2-7][0-9A-Fa-f]"
"""RE2: an ASCII character written in percent encoding or as a JSON escape. It may hide any other trigger."""

_EDGE = r"(?:^|[^0-9A-Za-z]|\\[bfnrt]|\\u[0-9A-Fa-f]{4})"
"""RE2: what may stand before a word in raw JSON; the letters of an escape such as ``\n`` are no part of the word."""

_NUMBER_EDGE = r"(?:^\.?|[^0-9A-Za-z.]|[^0-9]\.|\\[bfnrt]|\\u[0-9A-Fa-f]{4}\.?)"
"""RE2: the same before a number that is not the fraction of another one."""


_CONTEXT_LENGTH = 32


def _before(text: str, start: int, key: str) -> str:
    """What a value follows; the key stands in front of the string's own beginning."""
    return text[start - _CONTEXT_LENGTH : start] if start >= _CONTEXT_LENGTH else f"{key}: {text[:start]}"


_PUNCTUATION = r"[\t\n !-/:-@\[-`{-~]"
"""What may stand between a name and its value. No other whitespace: its JSON escape has digits, as a value has."""


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Spans from left to right, those that overlap made one."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return iter(merged)


def _matches(
    pattern: re.Pattern[str], valid: Callable[[re.Match[str]], Any] = bool
) -> Callable[[str, str], Iterator[Span]]:
    """The valid matches of a pattern: of its last matching group where it has groups, else whole."""

    def find(text: str, _key: str) -> Iterator[Span]:
        return (match.span(match.lastindex or 0) for match in pattern.finditer(text) if valid(match))

    return find


# --- API keys and other credentials that are known by their shape ---------------------------------------------------

_KEY_SHAPES = "|".join(
    (
        r"sk-[0-9A-Za-z_-]{16,}",  # OpenAI, Anthropic (sk-ant-), OpenRouter and others
        r"(?:AKIA|ASIA)[0-9A-Z]{16}",  # AWS access key id
        r"gh[pousr]_[0-9A-Za-z]{20,}|github_pat_[0-9A-Za-z_]{20,}",  # GitHub
        r"glpat-[0-9A-Za-z_-]{16,}",  # GitLab
        r"xox[abeoprs]-[0-9A-Za-z-]{10,}",  # Slack
        r"[rs]k_(?:live|test)_[0-9A-Za-z]{10,}",  # Stripe
        r"AIza[0-9A-Za-z_-]{30,}",  # Google
        r"npm_[0-9A-Za-z]{30,}",
        r"pypi-[0-9A-Za-z_-]{16,}",
    )
)
_JWT_SHAPE = r"eyJ[0-9A-Za-z_-]{5,}\.[0-9A-Za-z_-]{5,}(?:\.[0-9A-Za-z_-]*){1,3}"
"""JSON Web Token (RFC 7519), signed or encrypted: base64url parts, the first begins with ``{"``."""

_KEY = re.compile(rf"(?<![0-9A-Za-z])(?:{_KEY_SHAPES})|(?<![0-9A-Za-z_-]){_JWT_SHAPE}")
_KEY_TRIGGER = rf"{_EDGE}(?:{_KEY_SHAPES}|{_JWT_SHAPE})"

_HEADER = re.compile(r"(?i)(?<![0-9A-Z])(?:bearer {1,4}([0-9A-Z._~+/=-]{8,})|basic {1,4}([0-9A-Z_+/=-]{6,}))")
_HEADER_TRIGGER = r"(?i:bearer|basic) {1,4}[0-9A-Za-z._~+/=\\-]{6}"

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?s:.*?)(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)"  # a cut-off block ends with its string
)
_PRIVATE_KEY_TRIGGER = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY"

_URL_USER = re.compile(r"""://[^\s/?#:@"'\[]*+:([^\s/?#"']+)@""")
_URL_USER_TRIGGER = r':\\*/\\*/[^\s/"]*@'


_LONG_CREDENTIAL = 24
_DIGIT = re.compile(r"[0-9]")


def _is_random(match: re.Match[str]) -> bool:
    """Not a name in words, such as ``sk-learn-compatible-estimator``."""
    return not match[0].startswith("sk-") or re.search(r"[0-9A-Z]", match[0][3:]) is not None


def _is_credential(match: re.Match[str]) -> bool:
    """Whether what follows ``Bearer`` or ``Basic`` is a credential and not prose.

    Basic credentials are base64 of ``user:password`` (RFC 7617). Bearer tokens have no form, but prose has no digits.
    """
    if match[1]:
        return len(match[1]) >= _LONG_CREDENTIAL or _DIGIT.search(match[1]) is not None
    encoded = match[2].rstrip("=")
    try:
        return b":" in base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_")
    except binascii.Error:
        return False


# --- Passwords: a name, a sign, a value -----------------------------------------------------------------------------

_PASSWORD_NAME = r"(?:pass[-_. ]?word|passwd|pass[-_. ]?phrase|pass[-_. ]?code|pwd)"  # noqa: S105 - a pattern
_SECRET_NAME = (
    rf"(?:(?:{_PASSWORD_NAME}|secret|credential"
    r"|(?:api|access|secret|private|auth|signing|encryption|service)[-_. ]?key)s?"
    r"|authorization|token|(?:access|api|auth|bearer|refresh|session)[-_. ]?tokens"
    r")(?:[-_. ]?hash)?[-_.]?[0-9]{0,3}"
)
"""Read alike by RE2 and `re`, whatever the case: how the name of a secret ends. ``tokens`` alone is a count."""

_HARMLESS_TOKEN = re.compile(
    r"(?i)(?:next|page|continuation|stop|start|special|eos|bos|pad|mask|unk|prompt|public[-_. ]?key)[-_. ]?tokens?\Z"
)
"""Tokens that page through results, that language models count, that .NET puts into the names of assemblies."""

_SECRET_TRIGGER = rf"(?i:{_SECRET_NAME})[\"'\\]*\s*[:=]|--[0-9A-Za-z_-]*(?i:{_SECRET_NAME}) "

_SECRET_KEY = re.compile(rf"(?i){_SECRET_NAME}\Z")
_PASSWORD = re.compile(rf"(?i){_PASSWORD_NAME}")

_ASSIGNED = r"""(?:\\+"([^"\\]*)|"((?:[^"\\]|\\.)*)|\\*'([^'\\]*)|(\[REDACTED[^\]\s]*\]|BARE))""".replace(
    "BARE", r"""(?:(?!,\w+[=:]|\\+[nrt"'])[^\s"'&;<>])*[^\s"'&;<>,.)\]}\\]"""
)
"""A value in escaped, double or single quotes, or bare up to what cannot belong to it: four groups, one matches."""

_ASSIGNMENT = re.compile(
    rf"(?i)(?P<name>{_SECRET_NAME})[\"'\\]{{0,9}} {{0,8}}(?P<sign>(?:=>|:=|=|:)\s{{0,8}})"
    rf"(?:(?:bearer|basic|token|digest|apikey|negotiate) {{1,4}})?{_ASSIGNED}"
)
_OPTION = re.compile(rf"(?i)(?<!-)--[0-9A-Z_-]{{0,40}}(?P<name>{_SECRET_NAME})(?P<sign>) {{1,8}}(?!-){_ASSIGNED}")

_PROSE = (
    "a an and are as at authentication bad been by can cannot change changed check contains correct denied "
    "did does empty enter expired failed false field for forgot found from has have if in incorrect invalid "
    "is it length login missing mismatch must needed no none not null of ok on only or policy prompt "
    "provided rejected required reset rotated rules set should so strength that the this to too true "
    "undefined unknown updated user valid was weak which will with wrong you your"
)
_NO_VALUE = frozenset(_PROSE.split())
"""What follows ``password:`` in prose and in empty settings."""

_PLACEHOLDER = re.compile(r"\$[A-Z_]+|\$[{(][^{}()]*[)}]?|\{\{[^{}]*\}*|%s|%\(\w+\)s|[\W_]+|x{3,}|X{3,}")
"""``$PASSWORD``, ``${db.password}``, ``{{ password }}``, ``%s``, ``...``, ``xxx``: where a value goes."""

_DIRECTORY = re.compile(r"[/~]|[A-Za-z]:[\\/]")
"""``pwd`` is also the print of a working directory."""

_SECRET_NUMBER_DIGITS = 4
"""A number under the name of a secret is one from four digits on (a PIN); shorter ones count something."""


def is_secret_key(key: str) -> bool:
    """Whether what stands under this key is to be redacted whole: ``db_password``, ``X-Api-Key``, ``accessToken``."""
    return _SECRET_KEY.search(key) is not None and _HARMLESS_TOKEN.search(key) is None


def is_secret_value(key: str, value: str, *, is_number: bool) -> bool:
    """Whether a value under a secret's key is one: not empty, not redacted before, not a count, not a directory."""
    if is_number:
        return len(_digits(value)) >= _SECRET_NUMBER_DIGITS
    is_directory = key[-3:].lower() == "pwd" and _DIRECTORY.match(value) is not None
    return not (value == "" or is_redacted(value) or is_directory)


def _find_passwords(text: str, _key: str) -> Iterator[Span]:
    matches = itertools.chain(_ASSIGNMENT.finditer(text), _OPTION.finditer(text))
    return _merged(match.span(match.lastindex or 0) for match in matches if _is_assigned(match))


_MIN_LENGTH_OF_DIGITS = 8
_MIN_LENGTH_WITH_DIGITS = 6
_MIN_LENGTH_OF_LETTERS = 10
_MIN_LENGTH_AFTER_SPACE = 20
"""How long the value of a token or key is at least: ``token=5`` is a count, ``token: expired`` is prose."""


def _is_assigned(match: re.Match[str]) -> bool:
    """Whether an assignment's value is a secret.

    Names of passwords say it themselves. Tokens, secrets and keys are also words of prose and names of counters: their
    values need a digit or length.
    """
    name, sign, value = match["name"], match["sign"], match[match.lastindex or 0]
    if not value or value.lower() in _NO_VALUE or _PLACEHOLDER.fullmatch(value):
        return False
    if _PASSWORD.match(name):
        return is_secret_value(name, value, is_number=False)
    whole_name = match.string[max(0, match.start("name") - 16) : match.end("name")]
    if _HARMLESS_TOKEN.search(whole_name):
        return False
    if value.isdigit():
        return len(value) >= _MIN_LENGTH_OF_DIGITS
    if _DIGIT.search(value):
        return len(value) >= _MIN_LENGTH_WITH_DIGITS
    return len(value) >= (_MIN_LENGTH_AFTER_SPACE if sign.endswith(" ") else _MIN_LENGTH_OF_LETTERS)


# --- Email ----------------------------------------------------------------------------------------------------------

_EMAIL = re.compile(r"(?<![\w.+%-])([\w.+%-]++)@((?:[\w-]++\.)+[\w-]++)")
_EMAIL_TRIGGER = r'(?:[0-9A-Za-z_.+%-]|[^\x00-\x7F])@[^\s"@]+\.'
_TOP_LEVEL = re.compile(r"xn--[0-9A-Za-z-]+|[^\W\d_]{2}[^\W_]*")
_MASKED_LOCAL = re.compile(r"[^\s*@]\*\*\*\Z")
_NO_PERSON = re.compile(r"git@.*|.*@[0-9]x\.[a-z]+", re.IGNORECASE)
"""``git@github.com:org/repo`` is how one clones, ``logo@2x.png`` a picture for dense screens."""


def _find_emails(text: str, _key: str) -> Iterator[Span]:
    """Addresses at a dotted domain whose last label has letters (RFC 5321), international ones included (RFC 6531)."""
    for match in _EMAIL.finditer(text):
        end = match.start(2) + _domain_length(match[2])
        is_mask = len(match[1]) == 1 and _MASKED_LOCAL.search(text[max(0, match.start() - 4) : match.start()])
        if end > match.start(2) and not is_mask and not _NO_PERSON.fullmatch(text, match.start(), end):
            yield match.start(), end


def _domain_length(dotted: str) -> int:
    """Where the domain ends in what follows the ``@``, such as ``example.com_2025-12-04``; 0 if it is none."""
    end = len(dotted)
    while (dot := dotted.rfind(".", 0, end)) > 0:
        if top_level := _TOP_LEVEL.match(dotted, dot + 1, end):
            return top_level.end()
        end = dot
    return 0


# --- Payment cards --------------------------------------------------------------------------------------------------

_CARD_TRIGGER = rf"{_NUMBER_EDGE}[2-6](?:[ .-]{{0,3}}[0-9]){{13,18}}(?:[^0-9A-Za-z]|$)"
_DIGIT_GROUP = re.compile(r"[0-9]++")
_CARD_SEPARATOR = re.compile(r"[ .-]{1,3}")
_CARD_ISSUER = re.compile(
    r"4(?:\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}(?:\d{3})?"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12}(?:\d{3})?"  # JCB
    r"|62\d{14,17}"  # UnionPay
)
"""Issuer identification numbers and lengths, ISO/IEC 7812-1 and the networks' own tables."""

_MIN_CARD_DIGITS, _MAX_CARD_DIGITS = 14, 19
_MAX_CARD_GROUPS = 6
_MIN_CARD_GROUP = 3
_MIN_DOTTED_GROUPS = 3
"""Two groups with a dot between them are a decimal number."""

_WORD_BEFORE, _WORD_AFTER = re.compile(r"[0-9A-Za-z]\Z|[0-9]\.\Z"), re.compile(r"[0-9A-Za-z]|\.[0-9]")
_ID_BEFORE, _ID_AFTER = re.compile(r"[0-9A-Za-z]-\Z"), re.compile(r"-[0-9A-Za-z]")


def _find_cards(text: str, _key: str) -> Iterator[Span]:
    """Numbers of an issuer's form that pass Luhn and stand alone, in one group of digits or in several."""
    groups = [match.span() for match in _DIGIT_GROUP.finditer(text)]
    first = 0
    while first < len(groups):
        last = _last_group_of_card(text, groups, first)
        if last is not None:
            yield groups[first][0], groups[last][1]
        first = first + 1 if last is None else last + 1


def _last_group_of_card(text: str, groups: list[Span], first: int) -> int | None:
    """The last of the digit groups that make a card with the first one, or None; the longest card wins."""
    number, separator, found = "", "", None
    begin = groups[first][0]
    for index in range(first, min(first + _MAX_CARD_GROUPS, len(groups))):
        start, end = groups[index]
        gap = text[groups[index - 1][1] : start] if index > first else ""
        if index > first and (end - start < _MIN_CARD_GROUP or not _continues(separator, gap)):
            break
        separator = gap
        number += text[start : min(end, start + _MAX_CARD_DIGITS + 1)]
        is_decimal = "." in separator and index - first + 1 < _MIN_DOTTED_GROUPS
        if _is_card(number) and not is_decimal and _stands_alone(text, begin, end, hyphenated="-" in separator):
            found = index
    return found


def _continues(separator: str, gap: str) -> bool:
    """Whether a gap may stand between two groups of a card: the same one throughout."""
    return separator in ("", gap) and _CARD_SEPARATOR.fullmatch(gap) is not None


def _is_card(number: str) -> bool:
    return len(number) >= _MIN_CARD_DIGITS and _CARD_ISSUER.fullmatch(number) is not None and _passes_luhn(number)


_DOUBLED = str.maketrans("0123456789", "0246813579")
"""Each digit to the sum of the digits of its double."""


def _passes_luhn(number: str) -> bool:
    """The check digit of ISO/IEC 7812-1 annex B."""
    doubled = number[-2::-2].translate(_DOUBLED)
    return (sum(map(int, number[-1::-2])) + sum(map(int, doubled))) % 10 == 0


def _stands_alone(text: str, start: int, end: int, *, hyphenated: bool) -> bool:
    """Whether a number is no part of a word, of a decimal or, if it has hyphens itself, of a longer hyphenated id."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if _WORD_BEFORE.search(before) or _WORD_AFTER.match(after):
        return False
    return not (hyphenated and (_ID_BEFORE.search(before) or _ID_AFTER.match(after)))


# --- Social security numbers ----------------------------------------------------------------------------------------

_SSN = re.compile(
    r"(?<![0-9A-Za-z-])(?!000|666|9)[0-9]{3}([ -]?)(?!00)[0-9]{2}\1(?!0000)[0-9]{4}(?![0-9A-Za-z]|-[0-9A-Za-z])"
)
"""Area, group and serial as the Social Security Administration assigns them (20 CFR 422.103, randomized since 2011)."""

_SSN_NAME = r"(?i:ssn|social[-_ ]?security)"
_SSN_TRIGGER = rf"[0-9]{{3}}-[0-9]{{2}}-[0-9]{{4}}|{_SSN_NAME}[^0-9]{{0,30}}[0-9]{{3}} ?[0-9]{{2}} ?[0-9]{{4}}"
_SSN_BEFORE = re.compile(rf"{_SSN_NAME}(?:[-_ ]?(?i:number|num|no))?{_PUNCTUATION}{{0,4}}(?:is |on file )?\Z")


def _find_ssns(text: str, key: str) -> Iterator[Span]:
    """Hyphenated anywhere; with spaces or bare only right after their name, since nine digits are many things."""
    for match in _SSN.finditer(text):
        if match[1] == "-" or _SSN_BEFORE.search(_before(text, match.start(), key)):
            yield match.span()


# --- IP addresses ---------------------------------------------------------------------------------------------------

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(
    rf"(?<![0-9A-Za-z])(?<![0-9]\.)(?:{_OCTET}\.){{3}}{_OCTET}"
    r"(?![0-9A-Za-z]|\.[0-9]|-(?i:alpha|beta|dev|pre|rc|snapshot))"
)
_IPV4_TRIGGER = rf"{_NUMBER_EDGE}(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}(?:[^0-9A-Za-z.]|\.[^0-9]|\.?$)"
_VERSION_WORD = re.compile(
    r"(?:(?<![A-Za-z])(?i:version|ver|v|release|rel|build|revision|rev|firmware|section)"
    r"|[a-z](?:Version|Release|Build|Revision))\Z"
)
_VERSION_WORD_LENGTH = 10
_PRODUCT_BEFORE = re.compile(r"(?<![\w.-])(?!(?:Host|Server|Client|Address|IP|Peer|Remote|Node)/)[A-Z][A-Za-z]*/\Z")
"""``Chrome/124.0.0.0`` (RFC 9110 section 10.1.5), but not ``host/10.0.0.1``, which is how Java prints an address."""

_IPV6 = re.compile(r"(?<![\w:.*])[0-9A-Fa-f:][0-9A-Fa-f:.]{1,44}+(?![\w*])")
_IPV6_TRIGGER = r"[0-9A-Fa-f]::|::[0-9A-Fa-f]|(?:[0-9A-Fa-f]{1,4}:){6}[0-9A-Fa-f]"
_MIN_COLONS = 2
_PAIRS_OF_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}:)+[0-9A-Fa-f]{2}")


def _find_ips(text: str, key: str) -> Iterator[Span]:
    """IPv6 addresses (RFC 4291), which may end in an IPv4 address, and IPv4 addresses that are no version."""
    v6 = (span for match in _IPV6.finditer(text) if (span := _ipv6_span(match)))
    v4 = (match.span() for match in _IPV4.finditer(text) if not _is_version(match, key))
    return _merged(itertools.chain(v6, v4))


def _ipv6_span(match: re.Match[str]) -> Span | None:
    """The address in a run of hexadecimal digits and colons, punctuation after it left out.

    Clock times and fingerprints do not parse; a 64-bit hardware id (``50:06:01:…``) and C++'s ``db::add`` do.
    """
    address = match[0].rstrip(".")
    if address.endswith(":") and not address.endswith("::"):
        address = address[:-1]
    if address.count(":") < _MIN_COLONS or _PAIRS_OF_HEX.fullmatch(address) or not any(map(str.isdigit, address)):
        return None
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return None
    return match.start(), match.start() + len(address)


def _is_version(match: re.Match[str], key: str) -> bool:
    """Whether four numbers are a version: after such a word, under such a key, or behind the name of a product."""
    before = _before(match.string, match.start(), key)
    if _VERSION_WORD.search(before.rstrip("\"' :=#-")[-_VERSION_WORD_LENGTH:]):
        return True
    has_port = match.string[match.end() : match.end() + 1] == ":"
    return before.endswith("/") and _PRODUCT_BEFORE.search(before) is not None and not has_port


# --- Phone numbers --------------------------------------------------------------------------------------------------

_INTERNATIONAL = re.compile(r"(?<![\w+])\+[1-9](?:[ ().\-/]{0,2}[0-9]){7,14}(?![0-9])")
"""A plus and 8 to 15 digits (ITU-T E.164)."""

_NORTH_AMERICAN = re.compile(
    r"(?:\([2-9][0-9]{2}\) ?|(?<![\w.+-])(?:1[ .-])?[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}(?!\w|[.-]\w)"
)
"""Area code and exchange begin with 2 to 9 (North American Numbering Plan); without separators ten digits are an id."""

_UNDER_NAME = re.compile(r"(?<![\w.+-])\+?\(?[0-9](?:[ ().\-/]{0,2}[0-9]){6,14}(?!\w)")
_PHONE_NAME = r"(?i:phone|mobile|msisdn|whatsapp|cell|fax)"
_PHONE_BEFORE = re.compile(
    rf"(?:{_PHONE_NAME}|(?<![0-9A-Za-z])(?i:tel))(?:[-_. ]?(?i:number|num|no|nr))?{_PUNCTUATION}{{0,4}}(?:is )?\Z"
)
_PHONE_NAME_LENGTH = 24
_NO_PHONE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*|1(?:[0-9]{9}|[0-9]{11,14})|[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
"""A date, epoch seconds, milliseconds and so on, an IP address: they stand under ``phone_at`` and the like."""

_PHONE_TRIGGER = (
    r"\+[1-9](?:[ ().\-/\\]{0,3}[0-9]){7}"
    r"|[2-9][0-9]{2}(?:\) ?|[ .-])[2-9][0-9]{2}[ .-][0-9]{4}"
    rf"|(?:{_PHONE_NAME}|{_EDGE}(?i:tel))[^0-9]{{0,40}}[0-9](?:[ ().\-/\\]{{0,3}}[0-9]){{6}}"
)


def _find_phones(text: str, key: str) -> Iterator[Span]:
    """International and North American numbers; other forms only right after ``phone`` and the like, or under it."""
    spans = [match.span() for pattern in (_INTERNATIONAL, _NORTH_AMERICAN) for match in pattern.finditer(text)]
    for match in _UNDER_NAME.finditer(text):
        before = _before(text, match.start(), key)[-_PHONE_NAME_LENGTH:]
        if _PHONE_BEFORE.search(before) and not _NO_PHONE.fullmatch(match[0]):
            spans.append(match.span())
    return _merged(spans)


# --- The table ------------------------------------------------------------------------------------------------------

DETECTORS = (
    Detector("api_key", _PRIVATE_KEY_TRIGGER, _matches(_PRIVATE_KEY), mask_all),
    Detector("api_key", _URL_USER_TRIGGER, _matches(_URL_USER), mask_all),
    Detector("api_key", _KEY_TRIGGER, _matches(_KEY, _is_random), mask_start),
    Detector("api_key", _HEADER_TRIGGER, _matches(_HEADER, _is_credential), mask_start),
    Detector("password", _SECRET_TRIGGER, _find_passwords, mask_all),
    Detector("email", _EMAIL_TRIGGER, _find_emails, mask_email),
    Detector("credit_card", _CARD_TRIGGER, _find_cards, mask_card),
    Detector("ssn", _SSN_TRIGGER, _find_ssns, mask_all),
    Detector("ip_address", f"{_IPV4_TRIGGER}|{_IPV6_TRIGGER}", _find_ips, mask_start),
    Detector("phone", _PHONE_TRIGGER, _find_phones, mask_phone),
)
"""Applied in this order, the most specific first: a rule sees what the rules before it have left."""


# --- Custom patterns ------------------------------------------------------------------------------------------------

_ASSERTION = re.compile(r"(?P<assertion>\^|\$|\\[AbBz])|\\.|\[\^?\]?(?:\[:\w+:\]|\\.|[^\]\\])*\]|.", re.DOTALL)


def custom_detector(name: str, regex: str, flags: str) -> Detector:
    """A detector for a pattern from the configuration.

    The trigger is the pattern without its assertions (``^``, ``\b``): those mean the string, while a trigger sees the
    whole event, and less an assertion a pattern matches more, never less. Since a pattern may mean any character, every
    backslash in the raw text is a trigger too.

    Args:
        name: the type its values are counted as.
        regex: RE2, so that no text can make it slow.
        flags: letters of ``i``, ``m`` and ``s``, as in ``(?i)``.

    Raises:
        ValueError: RE2 does not take it (it has no lookaround and no backreferences), or it matches nothing at all.
    """
    pattern = _compile(f"(?{flags}:{regex})" if flags else regex)
    if pattern.search("") is not None:
        raise ValueError(f"pattern {name!r} matches the empty text: it would find a value everywhere")
    trigger = rf"(?s{flags.replace('s', '')}:{_without_assertions(regex)})|\\"

    def find(text: str, _key: str) -> Iterator[Span]:
        left_over = [match.span() for match in _LEFT_OVER.finditer(text)]
        for match in pattern.finditer(_SURROGATE.sub("\ufffd", text)):
            start, end = match.span()
            if start < end and not _is_left_over(text, start, end, left_over):
                yield start, end

    return Detector(name, trigger, find, mask_start)


def _without_assertions(regex: str) -> str:
    """The pattern less its assertions; the empty one, which always fires, if that leaves no pattern."""
    bare = _ASSERTION.sub(lambda part: "" if part["assertion"] else part[0], regex)
    try:
        _compile(bare)
    except ValueError:
        return ""
    return "" if r"\Q" in regex else bare


_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LEFT_OVER = re.compile(r"\[REDACTED(?::[0-9a-f]{32})?\](?:#[0-9]+)?|\*\*\*#[0-9]+")


def _is_left_over(text: str, start: int, end: int, left_over: list[Span]) -> bool:
    """Whether a custom pattern matched in what a redaction has left: in a token, or beside the asterisks of a mask."""
    next_one = bisect.bisect(left_over, start, key=lambda span: span[1])
    in_token = next_one < len(left_over) and left_over[next_one][0] < end
    beside_mask = end - start <= _SHOWN and _ASTERISKS in (text[max(0, start - 3) : start], text[end : end + 3])
    return in_token or beside_mask


def _compile(regex: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(regex, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"RE2 does not take the pattern {regex!r}: {reason}") from None
