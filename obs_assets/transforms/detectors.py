r"""What is personal or secret, and how to be sure: the redactor's rules.

Only rules live here; how they are applied to an event is in `obs_assets.transforms.redact`.

A `Detector` has two halves. Its *trigger* is RE2 over raw JSON text, linear in time and run by DuckDB over whole
events: it may fire in vain, but wherever the exact half finds something in a decoded string, the trigger fires on the
raw text of that string, whatever its escapes. (Escapes that could hide a letter, ``\u0040`` and ``%40``, are triggers
themselves, see `ENCODED`.) Its *find* is exact, runs on a decoded string and says where the values are.

Every `re` pattern here is linear: it begins with a literal, or with a lookbehind that allows one start per run of its
characters, and its repetitions are bounded, possessive, or end where the run ends.

What a redaction leaves behind (`may_be_masked`) is found by no rule, so that redacting twice is redacting once.
"""

import base64
import binascii
import bisect
import html
import ipaddress
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
        replacement: what is left in the value's place whatever the mode; None for what the mode says.
    """

    type: str
    trigger: str
    find: Callable[[str, str], Iterator[Span]]
    mask: Callable[[str], str]
    replacement: str | None = None


# --- What a redaction leaves behind ----------------------------------------------------------------------------------

_ASTERISKS = "***"
_SHOWN = 4

_REDACTED = re.compile(
    r"(?:\[REDACTED(?::[0-9a-f]{32})?\]|\*\*\*)(?:#[0-9]+)?"
)  # the number: one of several equal keys
_MASKED = re.compile(
    r"(?:[^*]{0,4}\*\*\*"  # mask_start
    r"|\d{0,3}\*\*\*\d{2,4}"  # mask_phone, mask_card
    r"|[^*\s]?\*\*\*[^*\s]?@[^\s@]+"  # mask_email
    r")(?:#[0-9]+)?"
)


def is_redacted(value: str) -> bool:
    """Whether a value is certainly what a redaction has left: a token, or three asterisks and nothing else."""
    return ("*" in value or "[" in value) and _REDACTED.fullmatch(value) is not None


def may_be_masked(value: str) -> bool:
    """Whether a value is that, or looks like a mask that shows a little.

    A password may look like one, too (``x***``): ask only of values that have no asterisks of their own.
    """
    return ("*" in value and _MASKED.fullmatch(value) is not None) or is_redacted(value)


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
    return "".join(filter(str.isdigit, value))


# --- Encodings -------------------------------------------------------------------------------------------------------

BASE64 = r"(?:[A-Za-f][C-HS-Xi-ny-z0-3][ABEFIJMNQRUVYZcdghklopstwx014589][0-9A-Za-z+/_-]){3}"
"""RE2: base64 or base64url of ASCII text. Its high bits and control characters leave one group of four letters in ten
possible for random ones: trace ids and digests rarely have three such groups in a row."""

# --- Pieces of triggers ----------------------------------------------------------------------------------------------

ENCODED = (
    r"%[2-7][0-9A-Fa-f]|\\u00[2-7][0-9A-Fa-f]"  # percent encoding, JSON escapes
    r"|&(?:#[0-9xX]|[A-Za-z]{2,8};)"  # HTML entities
    r"|[0-9)](?:[\x{a0}\x{2000}-\x{2015}\x{202f}\x{205f}\x{2212}\x{3000}\x{fe58}\x{fe63}]|\\+u(?:00[aA]0|20|2212|3000|[fF][eE]))"
    r"|[\x{ad}\x{200b}-\x{200d}\x{2060}\x{feff}\x{ff01}-\x{ff5e}\x{660}-\x{669}\x{6f0}-\x{6f9}\x{966}-\x{96f}]"
    r"|\\u(?:00[aA][dD]|200[b-dB-D]|2060|[fF][eE][fF][fF]|[fF]{2}[0-5]|06[6fF][0-9]|096)"
    rf"|{BASE64}"
)
"""RE2: something that may hide any other trigger: an encoding, wide digits, blanks and dashes of Unicode."""

_FOLDED = {
    **dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " "),
    **dict.fromkeys([*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63], "-"),
    **dict.fromkeys([0xAD, *range(0x200B, 0x200E), 0x2060, 0xFEFF], ""),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **{zero + digit: str(digit) for zero in (0x660, 0x6F0, 0x966) for digit in range(10)},
}
"""Blanks, dashes, wide letters and other digits to what rules look for; characters without width to nothing."""

_HIDDEN = re.compile(
    r"%(?P<percent>[2-7][0-9A-Fa-f])|\\u00(?P<escape>[2-7][0-9A-Fa-f])|(?P<entity>&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});)"
    f"|(?P<folded>[{''.join(map(chr, _FOLDED))}])"
)
_MAX_ENCODINGS = 5


def reveal(text: str) -> tuple[str, list[int]] | None:
    """What a string says if its encodings are undone, and where in the string each character of that begins.

    Percent encoding, JSON escapes, HTML entities, one in the other up to five times; wide digits and letters, blanks,
    dashes and characters without width of Unicode. The offsets have one more item, the string's length. None if
    nothing is encoded.
    """
    revealed, offsets = text, list(range(len(text) + 1))
    for _ in range(_MAX_ENCODINGS):
        pieces: list[str] = []
        starts: list[int] = []
        copied = 0
        for match in _HIDDEN.finditer(revealed):
            start, end = match.span()
            plain = _revealed(match)
            pieces += [revealed[copied:start], plain]
            starts += offsets[copied:start] + [offsets[start]] * len(plain)
            copied = end
        following = "".join([*pieces, revealed[copied:]])
        if following == revealed:
            break
        revealed, offsets = following, starts + offsets[copied:]
    return (revealed, offsets) if revealed != text else None


def _revealed(match: re.Match[str]) -> str:
    if match["entity"]:
        return html.unescape(match["entity"])
    if match["folded"]:
        return _FOLDED[ord(match["folded"])]
    return chr(int(match["percent"] or match["escape"], 16))


_BASE64_RUN = re.compile(r"(?<![0-9A-Za-z+/_-])[0-9A-Za-z+/_-]{12,}={0,2}")
_BASE64_PART = re.compile(r"[0-9A-Za-z+]{12,}={0,2}|[0-9A-Za-z_-]{12,}={0,2}")


def find_base64(text: str) -> Iterator[tuple[Span, str]]:
    """The runs of base64 or base64url (RFC 4648) in a string that decode to printable text, and that text."""
    for run in _BASE64_RUN.finditer(text):
        whole = _decoded(run[0])
        if whole is not None:
            yield run.span(), whole
            continue
        for part in _BASE64_PART.finditer(text, *run.span()):  # a part of a path or of a longer word
            if part.span() != run.span() and (inner := _decoded(part[0])) is not None:
                yield part.span(), inner


def _decoded(run: str) -> str | None:
    encoded = run.rstrip("=")
    try:
        text = base64.b64decode(encoded.replace("-", "+").replace("_", "/") + "=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text if text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable() else None


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

_KEY_MASK = re.compile(r"(?:sk-.|AKIA|ASIA|gh[pousr]_|gith|glpa|xox.|[rs]k_[lt]|AIza|npm_|pypi|eyJ.)\*\*\*")
"""What their mask shows: none of the secret's own characters but one or two."""

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


_SPOKEN = re.compile(
    rf"(?i)(?P<name>{_PASSWORD_NAME}|api[-_ ]key|secret|token)(?: (?:for|to|of|on) [\w .@-]{{1,30}}?)?"
    r"(?: (?:is|was)(?: now)?(?: (?:changed|reset|set) to)?| (?:changed|reset|set) to)(?P<sign>[: ] ?)"
    r"""(?:"([^"]+)"|'([^']+)'|([^\s"'<>]{3,}))"""
)
_ELEMENT = re.compile(rf"(?i)<(?P<name>(?:\w+[:_-])?{_SECRET_NAME})(?P<sign>)(?: [^<>]{{0,80}})?>([^<>]+)</")
_QUERY = re.compile(
    r"(?i)[?&](?P<name>(?:x-amz-)?(?:sig|signature|security-token)|key|auth|code|jwt|sid|session(?:_?id)?|otp)(?P<sign>=)"
    r"""([^\s&"'#<>]{8,})"""
)
_USER_OPTION = re.compile(r"""(?<!\S)(?P<name>-u|--user|--proxy-user)(?P<sign>[ =])[^\s:"']{1,64}:([^\s"']+)""")
_SPOKEN_TRIGGER = (
    rf"(?i:{_PASSWORD_NAME}|api[-_ ]key|secret|token) [^\"]{{0,60}}(?i:is|was|to)|<[\w:-]*(?i:{_SECRET_NAME})[ >]"
    r"|[?&](?i:x-amz-|sig|key|auth|code|jwt|sid|session|otp)[A-Za-z_-]*=|(?:-u|--user|--proxy-user)[ =][^\s:]+:"
)


def _is_left(name: str, value: str) -> bool:
    """Whether a redaction has left this after a secret's name. Passwords may have asterisks, keys and tokens never."""
    if _PASSWORD.match(name):
        return is_redacted(value) or _KEY_MASK.fullmatch(value) is not None
    return may_be_masked(value)


def _is_told(match: re.Match[str]) -> bool:
    """Whether what follows ``password is`` is one and not prose: in quotes, or with digits or signs in it."""
    value = match[match.lastindex or 0].rstrip(".,;:!?)")
    if value.lower() in _NO_VALUE or _PLACEHOLDER.fullmatch(value) or _is_left(match["name"], value):
        return False
    if _PASSWORD.match(match["name"]):
        return match.string[match.end() - 1] in "\"'" or re.search(r"[^A-Za-z'\u2019-]", value) is not None
    return len(value) >= _MIN_LENGTH_OF_DIGITS and _DIGIT.search(value) is not None


def _told_span(match: re.Match[str]) -> Span:
    start, end = match.span(match.lastindex or 0)
    return start, end if match.string[end : end + 1] in ('"', "'") else start + len(
        match.string[start:end].rstrip(".,;:)?")
    )


def _find_passwords(text: str, _key: str) -> Iterator[Span]:
    """Each way to tell a secret is looked for only where its signs are: looking for a sign costs next to nothing."""
    folded = text.casefold()
    spans: list[Span] = []
    if " is" in folded or " was" in folded or " to" in folded:
        spans += [_told_span(match) for match in _SPOKEN.finditer(text) if _is_told(match)]
    if "?" in text or "&" in text:
        spans += [
            match.span(3)
            for match in _QUERY.finditer(text)
            if _DIGIT.search(match[3]) and not _PLACEHOLDER.fullmatch(match[3])
        ]
    if "-u" in text or "-proxy" in text:
        spans += [match.span(3) for match in _USER_OPTION.finditer(text) if not _PLACEHOLDER.fullmatch(match[3])]
    if "</" in text:
        spans += [match.span(3) for match in _ELEMENT.finditer(text) if _is_assigned(match)]
    if "=" in text or ":" in text:
        spans += [_assigned_span(match) for match in _ASSIGNMENT.finditer(text) if _is_assigned(match)]
    if "--" in text:
        spans += [_assigned_span(match) for match in _OPTION.finditer(text) if _is_assigned(match)]
    return _merged(spans)


def _assigned_span(match: re.Match[str]) -> Span:
    return match.span(match.lastindex or 0)


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
    if not value or value.lower() in _NO_VALUE or _PLACEHOLDER.fullmatch(value) or _is_left(name, value):
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
        start, at = match.start(), match.end(1)
        if at - start == 1 and _MASKED_LOCAL.search(text, max(0, start - 4), start):
            continue
        end = at + 1 + _domain_length(match[2])
        if end > at + 1 and not _NO_PERSON.fullmatch(text, start, end):
            yield start, end


def _domain_length(dotted: str) -> int:
    """Where the domain ends in what follows the ``@``, such as ``example.com_2025-12-04``; 0 if it is none."""
    end = len(dotted)
    while (dot := dotted.rfind(".", 0, end)) > 0:
        if top_level := _TOP_LEVEL.match(dotted, dot + 1, end):
            return top_level.end()
        end = dot
    return 0


# --- Payment cards --------------------------------------------------------------------------------------------------

_CARD_TRIGGER = rf"{_NUMBER_EDGE}(?:[2-6][0-9]{{2}}|180|060|869)(?:[ ./_-]{{0,3}}[0-9]){{9,16}}(?:[^0-9A-Za-z]|$)"
_DIGIT_GROUP = re.compile(r"[0-9]++")
_CARD_SEPARATOR = re.compile(r"[ ./_-]{1,3}")
_CARD_ISSUER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa, of old with 13 digits
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}(?:\d{3})?"  # Discover
    r"|35\d{14}(?:\d{3})?"  # JCB, and what generators of test numbers take for it
    r"|62\d{14,17}"  # UnionPay
    r"|(?:2131|1800)\d{11}"  # JCB of old
    r"|8699\d{11}"  # Voyager
    r"|220[0-4]\d{12}"  # Mir
    r"|(?:60\d\d|508\d)\d{12}"  # RuPay
    r"|(?:5018|5020|5038|5[678]\d\d|0604|6304|6390|67\d\d)\d{8,15}"  # Maestro
)
"""Issuer identification numbers and lengths, ISO/IEC 7812-1 and the networks' own tables."""

_MIN_CARD_DIGITS, _MAX_CARD_DIGITS = 12, 19
_SHORT_CARD_DIGITS = 13
_MAX_CARD_GROUPS = 6
_MIN_CARD_GROUP = 3
_MIN_DOTTED_GROUPS = 3
"""Two groups with a dot between them are a decimal number."""

_WORD_BEFORE, _WORD_AFTER = re.compile(r"[0-9A-Za-z]\Z|[0-9]\.\Z"), re.compile(r"[0-9A-Za-z]|\.[0-9]")
_ID_BEFORE, _ID_AFTER = re.compile(r"[0-9A-Za-z]-\Z"), re.compile(r"-[0-9A-Za-z]")


_ID_BEFORE_CARD = re.compile(
    r"(?i)(?:id|order|request|req|trace|span|ean|gtin|isbn|upc|sku|build|ticket|seq|sequence|offset|bytes|epoch|ts|ms"
    r"|job|run|invoice|tracking|batch|event|record|serial|version|timestamp|time|number of|count|size)"
    r"(?: (?:no|number|num|id))?[\"':=# ]{0,4}\Z"
)
_CARD_BEFORE = re.compile(
    r"(?i)(?:card|visa|maestro|mastercard|pan|cc|payment|paid|pay|charged?|debit|credit)(?![a-z])[^0-9]{0,30}\Z"
)
"""Twelve and thirteen digits are mostly ids and article numbers, one in ten of which passes Luhn: alone in a
string they need the name of a card, among words they must not follow that of an id."""
_CARD_WORD_LENGTH = 48


def _find_cards(text: str, key: str) -> Iterator[Span]:
    """Numbers of an issuer's form that pass Luhn and stand alone, in one group of digits or in several."""
    groups = [match.span() for match in _DIGIT_GROUP.finditer(text)]
    first = 0
    while first < len(groups):
        last = _last_group_of_card(text, groups, first)
        if last is not None and _is_long_or_named(text, groups[first][0], groups[last][1], key):
            yield groups[first][0], groups[last][1]
        first = first + 1 if last is None else last + 1


def _is_long_or_named(text: str, start: int, end: int, key: str) -> bool:
    if len(_digits(text[start:end])) > _SHORT_CARD_DIGITS:
        return True
    before = _before(text, start, key)[-_CARD_WORD_LENGTH:]
    is_alone = end - start == len(text.strip())
    return _CARD_BEFORE.search(before) is not None or not (is_alone or _ID_BEFORE_CARD.search(before))


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


# --- Bank accounts --------------------------------------------------------------------------------------------------

_IBAN_REGISTRY = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
    "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
    "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 "
    "PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
    "YE30"
)
_IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _IBAN_REGISTRY.split()}
"""Length by country: the IBAN registry (ISO 13616)."""

_COUNTRIES = "|".join(_IBAN_LENGTHS)
_IBAN_START = re.compile(rf"(?<![0-9A-Za-z])(?:{_COUNTRIES})[0-9]{{2}}(?=[ -]?[0-9A-Za-z])")
_IBAN_TRIGGER = rf"{_EDGE}(?:{_COUNTRIES})[0-9]{{2}}(?:[ -]?[0-9A-Za-z]{{4}}){{2}}(?:[ -]?[0-9A-Za-z]){{3}}"
_SEPARATED = re.compile(r"[ -]?[0-9A-Za-z]")


def _find_ibans(text: str, _key: str) -> Iterator[Span]:
    """Account numbers of a country's length whose remainder is right (ISO 7064 mod 97-10), in groups or not."""
    for match in _IBAN_START.finditer(text):
        end = match.start()
        for _ in range(_IBAN_LENGTHS[match[0][:2]]):
            character = _SEPARATED.match(text, end)
            if character is None:
                break
            end = character.end()
        else:
            account = re.sub("[ -]", "", text[match.start() : end]).upper()
            if (
                not text[end : end + 1].isalnum()
                and int("".join(str(int(c, 36)) for c in account[4:] + account[:4])) % 97 == 1
            ):
                yield match.start(), end


# --- Hardware addresses ---------------------------------------------------------------------------------------------

_PAIR = "[0-9A-Fa-f]{2}"
_MAC = re.compile(
    rf"(?<![0-9A-Za-z])(?<!\b{_PAIR}[:-])"
    rf"(?:{_PAIR}(?::{_PAIR}){{5}}|{_PAIR}(?:-{_PAIR}){{5}}|[0-9A-Fa-f]{{4}}(?:\.[0-9A-Fa-f]{{4}}){{2}})"
    r"(?![0-9A-Za-z]|[:.-][0-9A-Fa-f])"
)
_MAC_NAME = r"(?i:mac|mac[-_ ]?addr(?:ess)?|hwaddr)"
_BARE_MAC = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{12}(?![0-9A-Za-z])")
_MAC_BEFORE = re.compile(rf"(?<![A-Za-z]){_MAC_NAME}{_PUNCTUATION}{{1,4}}\Z")
_MAC_TRIGGER = (
    rf"(?:{_PAIR}:){{5}}{_PAIR}|(?:{_PAIR}-){{5}}{_PAIR}|(?:[0-9A-Fa-f]{{4}}\.){{2}}[0-9A-Fa-f]{{4}}"
    rf"|{_MAC_NAME}[^0-9A-Za-z]{{1,9}}[0-9A-Fa-f]{{12}}"
)
_NOBODY = frozenset(("000000000000", "ffffffffffff"))


def _find_macs(text: str, key: str) -> Iterator[Span]:
    """EUI-48 in its three spellings, bare after its name; nothing longer (fingerprints, EUI-64), and not broadcast."""
    spans = []
    for match in _MAC.finditer(text):
        digits = re.sub("[:.-]", "", match[0]).lower()
        if digits not in _NOBODY and (":" in match[0] or not digits.isdecimal()):
            spans.append(match.span())
    for match in _BARE_MAC.finditer(text):
        if _MAC_BEFORE.search(_before(text, match.start(), key)) and match[0].lower() not in _NOBODY:
            spans.append(match.span())
    return _merged(spans)


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
    r"(?:(?<![A-Za-z])(?i:version|ver|v|release|rel|build|revision|rev|rv|firmware|section)"
    r"|[a-z](?:Version|Release|Build|Revision))\Z"
)
_VERSION_WORD_LENGTH = 10
_PRODUCT_BEFORE = re.compile(r"(?<![\w.-])(?!(?:Host|Server|Client|Address|IP|Peer|Remote|Node)/)[A-Z][A-Za-z]*/\Z")
"""``Chrome/124.0.0.0`` (RFC 9110 section 10.1.5), but not ``host/10.0.0.1``, which is how Java prints an address."""

_IPV6 = re.compile(r"(?<![\w:.*])[0-9A-Fa-f:][0-9A-Fa-f:.]{1,44}+(?![\w*])")
_IPV6_TRIGGER = r"[0-9A-Fa-f]::|::[0-9A-Fa-f]|(?:[0-9A-Fa-f]{1,4}:){6}[0-9A-Fa-f]"
_PORT_AFTER_IPV6 = re.compile(r"(?<=[0-9A-Fa-f]):[0-9]{1,5}\Z")
_MIN_COLONS = 2
_PAIRS_OF_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}:)+[0-9A-Fa-f]{2}")


def _find_ips(text: str, key: str) -> Iterator[Span]:
    """IPv6 addresses (RFC 4291), which may end in an IPv4 address, and IPv4 addresses that are no version."""
    spans = [match.span() for match in _IPV4.finditer(text) if not _is_version(match, key)]
    if text.count(":") >= _MIN_COLONS:
        spans += [span for match in _IPV6.finditer(text) if (span := _ipv6_span(match))]
    return _merged(spans)


def _ipv6_span(match: re.Match[str]) -> Span | None:
    """The address in a run of hexadecimal digits and colons, punctuation after it left out.

    Clock times and fingerprints do not parse; a 64-bit hardware id (``50:06:01:…``) and C++'s ``db::add`` do.
    """
    address = match[0].rstrip(".")
    if address.endswith(":") and not address.endswith("::"):
        address = address[:-1]
    if address.count(":") < _MIN_COLONS or _PAIRS_OF_HEX.fullmatch(address) or not any(map(str.isdigit, address)):
        return None
    without_port = _PORT_AFTER_IPV6.sub("", address)  # Java prints /2001:db8:…:1:50010
    for candidate in dict.fromkeys((address, without_port)):
        if _is_ipv6(candidate):
            return match.start(), match.start() + len(candidate)
    return None


def _is_ipv6(address: str) -> bool:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _is_version(match: re.Match[str], key: str) -> bool:
    """Whether four numbers are a version: after such a word, under such a key, or behind the name of a product."""
    before = _before(match.string, match.start(), key)
    if _VERSION_WORD.search(before.rstrip("\"' :=#-")[-_VERSION_WORD_LENGTH:]):
        return True
    has_port = match.string[match.end() : match.end() + 1] == ":"
    return before.endswith("/") and _PRODUCT_BEFORE.search(before) is not None and not has_port


# --- Phone numbers --------------------------------------------------------------------------------------------------

_EXTENSION = r"(?:[ ,;]{0,2}(?i:x|ext\.?|extension) ?[0-9]{1,6}(?![0-9]))?"
_LABEL = "(?i:office|fax|mobile|home|work|cell)(?![0-9A-Za-z])"
_LABELLED = re.compile(rf"(?<![\w.+:/-])[0-9]{{10,11}}(?=[ -]{_LABEL})")
_INTERNATIONAL = re.compile(rf"(?<![\w+])\+[1-9](?:[ ().\-/]{{0,2}}[0-9]){{7,14}}(?![0-9]){_EXTENSION}")
"""A plus and 8 to 15 digits (ITU-T E.164)."""

_NORTH_AMERICAN = re.compile(
    r"(?:(?:\([2-9][0-9]{2}\) ?|(?<![\w.+-])(?:(?:00)?1[ .-])?[2-9][0-9]{2}[ .-])[2-9][0-9]{2}"
    r"|(?<![\w.+-])(?:00)?1(?:[ .-][0-9]{3}[ .-]| ?\([0-9]{3}\) ?)[0-9]{3})[ .-][0-9]{4}"
    rf"{_EXTENSION}(?!\w|[.-](?!{_LABEL})\w)"
)
"""Area code and exchange begin with 2 to 9 (North American Numbering Plan), behind the country's 1 with anything, as
those who make numbers up do; without separators ten digits are an id."""

_UNDER_NAME = re.compile(r"(?<![\w.+-])\+?\(?[0-9](?:[ ().\-/]{0,2}[0-9]){6,14}(?!\w)")
_PHONE_NAME = r"(?i:phone|mobile|msisdn|whatsapp|cell|fax)"
_PHONE_BEFORE = re.compile(
    rf"(?:{_PHONE_NAME}|(?<![0-9A-Za-z])(?i:tel))(?:[-_. ]?(?i:number|num|no|nr))?{_PUNCTUATION}{{0,4}}(?:is )?\Z"
)
_PHONE_NAME_LENGTH = 24
_NO_PHONE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*|1(?:[0-9]{9}|[0-9]{11,14})|[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
"""A date, epoch seconds, milliseconds and so on, an IP address: they stand under ``phone_at`` and the like."""

_NATIONAL = re.compile(
    r"(?<![\w.+:/-])(?<![0-9A-Za-z][0-9][ ])(?:"
    r"\(0[0-9]{1,4}\)[ -]?[0-9]{2,8}(?:[ -][0-9]{2,5}){0,3}"  # (020) 7946 0958
    r"|\([1-9][0-9]\) ?9?[0-9]{4}-[0-9]{4}"  # (11) 91234-5678
    r"|00[1-9][0-9]{0,2}(?P<way>[ .-])[0-9]{1,5}(?:(?P=way)[0-9]{2,5}){1,5}"  # 0044 20 7946 0958
    r"|0[1-9][0-9]{0,3}(?P<sign>[ .-])(?:[0-9]{6,8}|[0-9]{2,4}(?:(?P=sign)[0-9]{2,4}){1,4})"  # 01 23 45 67 89
    r")(?![\w:/]|[ .-][0-9])"
)
"""With a trunk or an international prefix in front and blanks, dots or dashes between: nine digits to thirteen."""

_CONTEXT = (
    r"(?i:call(?:ed|ing|s|back)?|dial(?:ed|led)?|reach(?:ed)?|contact(?:ed)?|ring|rang|text(?:ed)?|sms|phoned?|tel"
    r"|telephone|mobile|cell|fax|whatsapp|hotline|my number|registered|answer(?:ing|ed)?|messages? to)"
)
_CONTEXT_BEFORE = re.compile(rf"(?<![0-9A-Za-z_]){_CONTEXT}(?![0-9A-Za-z_])[^0-9\n\"{{}}<>]{{0,40}}\Z")
_SPOKEN_PHONE = re.compile(
    r"(?<![\w.+:/-])\(?[0-9]{2,5}\)?(?:[ .-]{1,2}[0-9]{2,5}|/[0-9]{2,8})(?:[ .-][0-9]{2,5}){0,4}(?![\w:/]|[ .-][0-9])"
)
_SPOKEN_DIGITS = re.compile(r"(?<![\w.+:/-])(?:0[1-9][0-9]{8,9}|[2-9][0-9]{2}[2-9][0-9]{6})(?![\w:/]|[.-][0-9])")
_ASKED_DIGITS = re.compile(r"(?<![\w.+:/-])[0-9]{7,13}(?![\w:/]|[.-][0-9])")
_UNBROKEN = re.compile("[0-9]{7}")
"""Without it there is no number of the three kinds that are written without blanks."""
_ASKED_BEFORE = re.compile(
    r"(?<![0-9A-Za-z_])(?i:call|reach|contact|phone|text|ring) "
    r"(?i:(?:me|us|him|her|them|back)(?: (?:at|on|to))?|at|on)(?: (?i:my|his|her|our) [a-z]{1,12})?:? \Z"
)
"""``call me at``: whatever digits come next are a number to call."""
_ID_WORD = re.compile(
    r"(?i)(?:(?<![a-z])(?:ids?|order|ticket|version|build|port|line|row|error|code|invoice|ref|case)|#)[\"':=# ]{0,3}\Z"
)
_MIN_NATIONAL, _MAX_NATIONAL, _MIN_SPOKEN, _MAX_SPOKEN = 9, 15, 7, 13
_SPOKEN_LENGTH = 64

_PHONE_TRIGGER = (
    r"(?:^|[^0-9A-Za-z.+:/-]|\\[bfnrt])(?:\(0[0-9]{1,4}\)[ -]?[0-9]{2}|\([1-9][0-9]\) ?9?[0-9]{4}-"
    r"|00[1-9][0-9]{0,2}[ .-][0-9]{1,5}[ .-][0-9]{2}|0[1-9][0-9]{0,3}[ .-](?:[0-9]{6}|[0-9]{2,4}[ .-][0-9]{2}))"
    rf"|{_CONTEXT}[^0-9\"]{{1,44}}[0-9](?:[ ().\-/\\]{{0,3}}[0-9]){{6}}|"
    r"\+[1-9](?:[ ().\-/\\]{0,3}[0-9]){7}"
    r"|[2-9][0-9]{2}(?:\) ?|[ .-])[2-9][0-9]{2}[ .-][0-9]{4}"
    r"|1(?:[ .-][0-9]{3}[ .-]| ?\([0-9]{3}\) ?)[0-9]{3}[ .-][0-9]{4}"
    r"|[0-9]{10}[ -](?i:office|fax|mobile|home|work|cell)"
    rf"|(?:{_PHONE_NAME}|{_EDGE}(?i:tel))[^0-9]{{0,40}}[0-9](?:[ ().\-/\\]{{0,3}}[0-9]){{6}}"
)


def _find_phones(text: str, key: str) -> Iterator[Span]:
    """International and North American numbers; other forms only right after ``phone`` and the like, or under it."""
    spans = [match.span() for match in _NORTH_AMERICAN.finditer(text)]
    if "+" in text:
        spans += [match.span() for match in _INTERNATIONAL.finditer(text)]
    for match in _NATIONAL.finditer(text):
        if _MIN_NATIONAL <= len(_digits(match[0])) <= _MAX_NATIONAL and not _NO_PHONE.fullmatch(match[0]):
            spans.append(match.span())
    spans += [match.span() for match in _SPOKEN_PHONE.finditer(text) if _is_spoken(match)]
    if _UNBROKEN.search(text):
        spans += [match.span() for match in _LABELLED.finditer(text)]
        spans += [match.span() for match in _SPOKEN_DIGITS.finditer(text) if _is_spoken(match)]
        for match in _ASKED_DIGITS.finditer(text):
            if _ASKED_BEFORE.search(text, max(0, match.start() - _SPOKEN_LENGTH), match.start()):
                spans.append(match.span())
    for match in _UNDER_NAME.finditer(text):
        before = _before(text, match.start(), key)[-_PHONE_NAME_LENGTH:]
        if _PHONE_BEFORE.search(before) and not _NO_PHONE.fullmatch(match[0]):
            spans.append(match.span())
    return _merged(spans)


def _is_spoken(match: re.Match[str]) -> bool:
    """Whether a number is one to call: after such a word, not right after the word of another number."""
    before = match.string[max(0, match.start() - _SPOKEN_LENGTH) : match.start()]
    is_long_enough = _MIN_SPOKEN <= len(_digits(match[0])) <= _MAX_SPOKEN
    if not is_long_enough or _NO_PHONE.fullmatch(match[0]) or _ID_WORD.search(before):
        return False
    return _CONTEXT_BEFORE.search(before) is not None


# --- The table ------------------------------------------------------------------------------------------------------

DETECTORS = (
    Detector("api_key", _PRIVATE_KEY_TRIGGER, _matches(_PRIVATE_KEY), mask_all),
    Detector("api_key", _URL_USER_TRIGGER, _matches(_URL_USER), mask_all),
    Detector("api_key", _KEY_TRIGGER, _matches(_KEY, _is_random), mask_start),
    Detector("api_key", _HEADER_TRIGGER, _matches(_HEADER, _is_credential), mask_start),
    Detector("password", f"{_SECRET_TRIGGER}|{_SPOKEN_TRIGGER}", _find_passwords, mask_all),
    Detector("email", _EMAIL_TRIGGER, _find_emails, mask_email),
    Detector("iban", _IBAN_TRIGGER, _find_ibans, mask_start),
    Detector("mac_address", _MAC_TRIGGER, _find_macs, mask_start),
    Detector("credit_card", _CARD_TRIGGER, _find_cards, mask_card),
    Detector("ssn", _SSN_TRIGGER, _find_ssns, mask_all),
    Detector("ip_address", f"{_IPV4_TRIGGER}|{_IPV6_TRIGGER}", _find_ips, mask_start),
    Detector("phone", _PHONE_TRIGGER, _find_phones, mask_phone),
)
"""Applied in this order, the most specific first: a rule sees what the rules before it have left."""

TYPES = frozenset(detector.type for detector in DETECTORS)
"""What values are counted as."""


# --- Custom patterns ------------------------------------------------------------------------------------------------

_ASSERTION = re.compile(r"(?P<assertion>\^|\$|\\[AbBz])|\\.|\[\^?\]?(?:\[:\w+:\]|\\.|[^\]\\])*\]|.", re.DOTALL)


VALIDATORS: dict[str, Callable[[str], bool]] = {
    "luhn": lambda value: bool(_digits(value)) and _passes_luhn(_digits(value)),
    "iban": lambda value: next(_find_ibans(value, ""), None) == (0, len(value)),
    "has_digit": lambda value: _DIGIT.search(value) is not None,
    "has_letter_and_digit": lambda value: _DIGIT.search(value) is not None and re.search("[A-Za-z]", value) is not None,
}
"""What a custom pattern may ask of its matches."""


def custom_detector(
    name: str, regex: str, flags: str, is_valid: Callable[[str], bool] = bool, replacement: str | None = None
) -> Detector:
    """A detector for a pattern from the configuration.

    The trigger is the pattern without its assertions (``^``, ``\b``): those mean the string, while a trigger sees the
    whole event, and less an assertion a pattern matches more, never less. Since a pattern may mean any character, every
    backslash in the raw text is a trigger too.

    Args:
        name: the type its values are counted as.
        regex: RE2, so that no text can make it slow.
        flags: letters of ``i``, ``m`` and ``s``, as in ``(?i)``.
        is_valid: what a match must pass besides.
        replacement: left in a value's place instead of what the mode says, or None.

    Raises:
        ValueError: RE2 does not take it (it has no lookaround and no backreferences), or it matches nothing at all.
    """
    pattern = _compile(f"(?{flags}:{regex})" if flags else regex)
    if pattern.search("") is not None:
        raise ValueError(f"pattern {name!r} matches the empty text: it would find a value everywhere")
    if replacement is not None and pattern.search(replacement) is not None:
        raise ValueError(f"pattern {name!r} matches its own replacement: it would find a value there again")
    trigger = rf"(?s{flags.replace('s', '')}:{_without_assertions(regex)})|\\"

    def find(text: str, _key: str) -> Iterator[Span]:
        left_over = [match.span() for match in _LEFT_OVER.finditer(text)]
        for match in pattern.finditer(SURROGATE.sub("\ufffd", text)):
            start, end = match.span()
            is_new = (
                start < end and not _is_left_over(text, start, end, left_over) and not may_be_masked(text[start:end])
            )
            if is_new and is_valid(text[start:end]):
                yield start, end

    return Detector(name, trigger, find, mask_start, replacement)


def _without_assertions(regex: str) -> str:
    """The pattern less its assertions; the empty one, which always fires, if that leaves no pattern."""
    bare = _ASSERTION.sub(lambda part: "" if part["assertion"] else part[0], regex)
    try:
        _compile(bare)
    except ValueError:
        return ""
    return "" if r"\Q" in regex else bare


SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Half a character, valid as an escape in JSON; RE2 takes whole ones only."""
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
