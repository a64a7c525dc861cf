# ruff: noqa: E501 - patterns read best in one line
"""Texts behind the name of a secret that are no secret: prose, placeholders, references, objects, counts, paths."""

import re

from obs_assets.transforms.detectors.base import DIGIT
from obs_assets.transforms.detectors.names import Meaning
from obs_assets.transforms.detectors.randomness import is_hex, is_random

_PROSE = (
    "a an and are as at authentication bad been by can cannot change changed check contains correct denied "
    "did does empty enter expired failed fails false field for forgot found from has have if in incorrect invalid "
    "is it length login missing mismatch must needed no none not null nil of off ok on only or policy prompt "
    "provided rejected required reset rotated rules set should so strength string bool boolean int integer number bytes "
    "that the this to too true type types undefined unknown updated user username valid was weak which will with wrong "
    "yes you your void object array optional default example sample dummy test todo tbd changeme redacted masked hidden "
    "secret password passwd token key value env authentication: authorized auth basic bearer digest negotiate public"
)
_NO_VALUE = frozenset(_PROSE.split()) - {
    "secret",
    "changeme",
    "test",
    "default",
    "example",
    "sample",
    "dummy",
}
"""Words that follow ``password:`` in prose, in empty settings and in declarations."""

_PLACEHOLDER = re.compile(
    r"\$[A-Za-z_]\w{0,63}(?:[.:]\w{1,64}){0,4}|\$?\$[{(][^{}()]{0,200}[)}]{0,2}|\$?\{\{[^{}]{0,200}\}{0,2}|\$\{.{0,200}\}"
    r"|#\{[^{}]{0,200}\}?|@[{\[][^\]}]{0,200}[\]}]?"
    r"|%[sdvq]|%\(\w{1,64}\)s|%[A-Z_]{2,64}%|<[A-Za-z][\w .:/-]{0,64}>|\[[A-Za-z][\w .-]{0,64}\]|\{[A-Za-z_][\w.]{0,64}\}"
    r"|\([A-Za-z]{2,40}\)?|[\W_]{1,200}|[xX]{3,64}|[xX]{4,}[\W_xX]{0,64}|(.)\1{2,64}"
)
"""Placeholders: ``$PASSWORD``, ``${db.password}``, ``{{ password }}``, ``%s``, ``<token>``, ``(sensitive``, ``xxx``."""

_FILLER = re.compile(r"(.)\1{5,}")
"""The same sign many times, which people write in place of a token: ``ghp_xxxxxxxx``."""

_LEFT_OUT = re.compile(
    r"(?i)[\W_]{1,6}(?:redacted|filtered|masked|hidden|removed|omitted|scrubbed|sanitized|protected|secret)[\W_]{1,6}"
    r"|\$\{[^{}]{1,200}\}|\$?\{\{[^{}]{1,200}\}\}|[*\u2022]{3,64}"
)
"""Texts that a program writes in place of a secret: ``[FILTERED]``, ``__REDACTED__``, ``********``."""

_ALGORITHM = (
    r"(?i:(?:(?:sk|ssh|openssh|ecdsa|ecdh|rsa|dsa|hmac|aes|cert|sha|md|nistp|ed|curve|chacha|poly|gcm|cbc|ctr|hs|rs|es|ps"
    r"|a|kw|oaep|pkcs|des|pbkdf|argon|bcrypt|scrypt|v)[-_]?[0-9]{0,5}(?:id|i|d)?(?:[-_/@]|\Z)){1,6})"
)
_PACKAGE = r"[a-z][a-z0-9]{0,40}(?:-[a-z][a-z0-9]{0,40}){1,6}-[0-9]{1,4}(?:\.[0-9]{1,6}){1,3}"
_NO_KEY = re.compile(f"{_ALGORITHM}|{_PACKAGE}")
"""An algorithm, as in ``HostKey:ssh-ed25519``, or a version of a package, as in ``jsonwebtoken:jjwt-impl-0.11.2``."""

_REFERENCE = re.compile(
    r"(?:var|vars|local|locals|module|data|env|process\.env|os\.environ|os\.getenv|system\.getenv|secrets?|config"
    r"|settings|self|this|params?|props|args|options?|opts|ctx|context|request|req|input|inputs|steps|github|values"
    r"|credentials?|user|account|each|event|ref|vault|ssm|secretsmanager|keyvault|aws-ssm|op|file|env)"
    r"(?:\.|\[|::|->|\+|://)[\w.$\[\]'\"/:()+>-]{1,200}",
    re.IGNORECASE,
)
"""References to the source of a value: ``var.db_password``, ``process.env.API_KEY``, ``vault://secret/app``."""

_CALL = re.compile(r"(?:new |await )?[A-Za-z_$][\w.$>:-]{0,80}\(")
_DOTTED_NAME = re.compile(
    r"[A-Za-z_$][A-Za-z_$]{0,40}(?:\.[A-Za-z_$][A-Za-z_$0-9]{0,60}){1,12}(?:\$\d{1,3})?(?:/\d{1,8})?:?"
)
_PRINTED = re.compile(
    r"[A-Za-z_$][\w.$]{2,120}\{(?!\{)|[\[({]{1,3}[A-Z][\w.$]{2,120}[({\[]|[A-Za-z_$][\w.$]{0,120}(?:\[(?![0-9a-f]{32})|@[0-9a-fA-F]{1,16}\Z)|<\w[^<>]{0,80} at 0x|0x[0-9a-f]{1,16}\Z"
)
"""Objects as Java and Python print them: ``Token{7c1e02a …``, ``android.os.BinderProxy@3fe91a2``."""

_PATH = re.compile(
    r"\.{0,2}/(?:[\w.@-]{1,64}(?:/|\Z))|\.{1,2}/|~/|~\Z|[A-Za-z]:[\\/]|%[A-Za-z]{1,30}%[\\/]"
)
_FEW_DIGITS = 3
"""Up to this number of digits, a number is no password but, for example, a count."""

_MIN_LENGTH_OF_DIGITS = 8
"""Digits of a number that is a token or key."""

_MIN_LENGTH_WITH_DIGITS = 6
"""Characters of a token or key with a digit in it."""

_MIN_LENGTH_OF_LETTERS = 10
"""Characters of a token or key without digits."""

_MIN_LENGTH_OF_RANDOM = 16
"""Characters of a random value under a weak name."""

_MIN_LENGTH_OF_HEX = 32
"""Hexadecimal digits of a key. Fewer are an id."""

_CODE = re.compile(r"[0-9]{3,8}|[0-9]{3}[ -][0-9]{3}")
_TOKEN = re.compile(r"[\w+/=.~%-]+\Z")
_DIGEST_BEHIND = re.compile(r"[_:/.-](?:[0-9a-f]{16,128}|[0-9A-F]{16,128})\Z")
"""A digest behind words, as in the key of a cache: ``Linux-build-9f86d081…``."""

_WORD = re.compile(r"[A-Za-z'\u2019-]+\Z")


def is_no_value(value: str) -> bool:
    """Whether a text is no secret under any name: a word of prose, a placeholder, a reference, a printed object."""
    return (
        not value
        or value.lower().rstrip(".,;:!?)") in _NO_VALUE
        or (_PLACEHOLDER.fullmatch(value) is not None and not _is_random_inside(value))
        or _REFERENCE.fullmatch(value) is not None
        or _PRINTED.match(value) is not None
        or is_left_out(value)
        or is_filler(value)
    )


def _is_random_inside(value: str) -> bool:
    """Whether a random run stands in brackets: ``<hw6hMdZUsrY8DY79tFpJ>`` is no placeholder."""
    return (
        value[-1] in ">])}" and is_random_token(value[1:-1]) and DIGIT.search(value) is not None
    )


def is_left_out(value: str) -> bool:
    """Whether a program wrote this text in place of a secret, also under the key of a password."""
    return _LEFT_OUT.fullmatch(value) is not None


def is_filler(text: str) -> bool:
    """Whether runs of the same sign are half of a text or more, as in ``glpat-xxxxxxxxxxxx``: no value at all."""
    runs = (match.end() - match.start() for match in _FILLER.finditer(text))
    return sum(runs) * 2 >= len(text)


def is_secret(meaning: Meaning, value: str, *, is_quoted: bool, is_prose: bool) -> bool:
    """Whether the value behind the name of a secret is a secret.

    Args:
        meaning: the meaning of the name.
        value: the value, which is not empty.
        is_quoted: whether it stands in quotes.
        is_prose: whether a blank stands before it, as in ``token: expired``.
    """
    is_code = not is_quoted and (_CALL.match(value) or _DOTTED_NAME.fullmatch(value))
    if is_code or is_no_value(value):
        return False
    if meaning in _STRICT:
        return _STRICT[meaning](value)
    if value.isdigit():
        return (
            len(value) > _FEW_DIGITS
            if meaning is Meaning.PASSWORD
            else len(value) >= _MIN_LENGTH_OF_DIGITS
        )
    if meaning is Meaning.PASSWORD:
        return _PATH.match(value) is None
    is_left = (_PATH.match(value) and not is_random(value)) or _NO_KEY.fullmatch(value)
    return not is_left and _is_long_enough(value, is_quoted=is_quoted, is_prose=is_prose)


def _is_long_enough(value: str, *, is_quoted: bool, is_prose: bool) -> bool:
    """Whether a value is long enough for a token or key: 6 characters with a digit, or 10 that are no word of prose."""
    if DIGIT.search(value):
        return len(value) >= _MIN_LENGTH_WITH_DIGITS
    is_word = (
        is_prose and not is_random(value) and (is_quoted or _WORD.match(value) is not None)
    )
    return len(value) >= _MIN_LENGTH_OF_LETTERS and not is_word


def is_random_token(value: str) -> bool:
    """Whether a value as a whole is a random run. Under weak names, only such values are secrets."""
    if len(value) < _MIN_LENGTH_OF_RANDOM or not _TOKEN.match(value):
        return False
    if is_hex(value.replace("-", "")) or is_filler(value):
        return False
    words = _DIGEST_BEHIND.sub("", value)
    return is_random(value) and (words == value or is_random_token(words))


def _is_key(value: str) -> bool:
    """Whether a value is a key: a random run, or 32 hexadecimal digits and more."""
    return is_random_token(value) or (len(value) >= _MIN_LENGTH_OF_HEX and is_hex(value))


def _is_code(value: str) -> bool:
    """Whether a value is a code that is used once, or that is printed on a card: ``739 204``."""
    return _CODE.fullmatch(value) is not None


_STRICT = {Meaning.WEAK: is_random_token, Meaning.KEY: _is_key, Meaning.CODE: _is_code}
"""The meaning of a name → the test of a whole value. Names of other meanings have looser tests."""


def is_strict_secret(meaning: Meaning | None, value: str) -> bool:
    """Whether a whole value is a secret under a name that is no password and no token by itself."""
    return meaning in _STRICT and _STRICT[meaning](value)
