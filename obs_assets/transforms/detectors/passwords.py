"""Passwords and other secrets that are known by their name: a name, a sign, a value."""

import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import DIGIT, Detector, Span, digits_of, merged
from obs_assets.transforms.detectors.credentials import KEY_MASK
from obs_assets.transforms.detectors.masks import is_redacted, mask_all, may_be_masked

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
_OPTION = re.compile(
    rf"(?i)(?<!-)--[0-9A-Z_-]{{0,40}}(?P<name>{_SECRET_NAME})(?P<sign>) {{1,8}}(?!-){_ASSIGNED}"
)

_PROSE = (
    "a an and are as at authentication bad been by can cannot change changed check contains correct denied "
    "did does empty enter expired failed false field for forgot found from has have if in incorrect invalid "
    "is it length login missing mismatch must needed no none not null of ok on only or policy prompt "
    "provided rejected required reset rotated rules set should so strength that the this to too true "
    "undefined unknown updated user valid was weak which will with wrong you your"
)
_NO_VALUE = frozenset(_PROSE.split())
"""What follows ``password:`` in prose and in empty settings."""

_PLACEHOLDER = re.compile(
    r"\$[A-Z_]+|\$[{(][^{}()]*[)}]?|\{\{[^{}]*\}*|%s|%\(\w+\)s|[\W_]+|x{3,}|X{3,}"
)
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
        return len(digits_of(value)) >= _SECRET_NUMBER_DIGITS
    is_directory = key[-3:].lower() == "pwd" and _DIRECTORY.match(value) is not None
    return not (value == "" or is_redacted(value) or is_directory)


_SPOKEN = re.compile(
    rf"(?i)(?P<name>{_PASSWORD_NAME}|api[-_ ]key|secret|token)(?: (?:for|to|of|on) [\w .@-]{{1,30}}?)?"
    r"(?: (?:is|was)(?: now)?(?: (?:changed|reset|set) to)?| (?:changed|reset|set) to)(?P<sign>[: ] ?)"
    r"""(?:"([^"]+)"|'([^']+)'|([^\s"'<>]{3,}))"""
)
_ELEMENT = re.compile(
    rf"(?i)<(?P<name>(?:\w+[:_-])?{_SECRET_NAME})(?P<sign>)(?: [^<>]{{0,80}})?>([^<>]+)</"
)
_QUERY = re.compile(
    r"(?i)[?&](?P<name>(?:x-amz-)?(?:sig|signature|security-token)|key|auth|code|jwt|sid|session(?:_?id)?|otp)(?P<sign>=)"
    r"""([^\s&"'#<>]{8,})"""
)
_USER_OPTION = re.compile(
    r"""(?<!\S)(?P<name>-u|--user|--proxy-user)(?P<sign>[ =])[^\s:"']{1,64}:([^\s"']+)"""
)
_SPOKEN_TRIGGER = (
    rf"(?i:{_PASSWORD_NAME}|api[-_ ]key|secret|token) [^\"]{{0,60}}(?i:is|was|to)|<[\w:-]*(?i:{_SECRET_NAME})[ >]"
    r"|[?&](?i:x-amz-|sig|key|auth|code|jwt|sid|session|otp)[A-Za-z_-]*=|(?:-u|--user|--proxy-user)[ =][^\s:]+:"
)


def _is_left(name: str, value: str) -> bool:
    """Whether a redaction has left this after a secret's name. Passwords may have asterisks, keys and tokens never."""
    if _PASSWORD.match(name):
        return is_redacted(value) or KEY_MASK.fullmatch(value) is not None
    return may_be_masked(value)


def _is_told(match: re.Match[str]) -> bool:
    """Whether what follows ``password is`` is one and not prose: in quotes, or with digits or signs in it."""
    value = match[match.lastindex or 0].rstrip(".,;:!?)")
    if (
        value.lower() in _NO_VALUE
        or _PLACEHOLDER.fullmatch(value)
        or _is_left(match["name"], value)
    ):
        return False
    if _PASSWORD.match(match["name"]):
        return (
            match.string[match.end() - 1] in "\"'"
            or re.search(r"[^A-Za-z'\u2019-]", value) is not None
        )
    return len(value) >= _MIN_LENGTH_OF_DIGITS and DIGIT.search(value) is not None


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
            if DIGIT.search(match[3]) and not _PLACEHOLDER.fullmatch(match[3])
        ]
    if "-u" in text or "-proxy" in text:
        spans += [
            match.span(3)
            for match in _USER_OPTION.finditer(text)
            if not _PLACEHOLDER.fullmatch(match[3])
        ]
    if "</" in text:
        spans += [match.span(3) for match in _ELEMENT.finditer(text) if _is_assigned(match)]
    if "=" in text or ":" in text:
        spans += [
            _assigned_span(match) for match in _ASSIGNMENT.finditer(text) if _is_assigned(match)
        ]
    if "--" in text:
        spans += [
            _assigned_span(match) for match in _OPTION.finditer(text) if _is_assigned(match)
        ]
    return merged(spans)


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
    if (
        not value
        or value.lower() in _NO_VALUE
        or _PLACEHOLDER.fullmatch(value)
        or _is_left(name, value)
    ):
        return False
    if _PASSWORD.match(name):
        return is_secret_value(name, value, is_number=False)
    whole_name = match.string[max(0, match.start("name") - 16) : match.end("name")]
    if _HARMLESS_TOKEN.search(whole_name):
        return False
    if value.isdigit():
        return len(value) >= _MIN_LENGTH_OF_DIGITS
    if DIGIT.search(value):
        return len(value) >= _MIN_LENGTH_WITH_DIGITS
    return len(value) >= (
        _MIN_LENGTH_AFTER_SPACE if sign.endswith(" ") else _MIN_LENGTH_OF_LETTERS
    )


PASSWORD = Detector(
    "password", f"{_SECRET_TRIGGER}|{_SPOKEN_TRIGGER}", _find_passwords, mask_all
)
