"""Judges by its words whether a name is the name of a secret.

All callers share this judge: text, keys, headers, options, columns and query strings.
"""

import functools
import re
from collections.abc import Mapping
from enum import Enum

from obs_assets.transforms.detectors.base import rows


def words(name: str) -> frozenset[str]:
    """The words of the set ``name`` in ``words.txt``."""
    return frozenset(
        word for of, line in rows("words.txt") if of == name for word in line.split()
    )


_PASSWORDS, _SECRETS, _WEAK = words("passwords"), words("secrets"), words("weak")
_PURPOSES, _COUNTED_TOKENS = words("purposes"), words("counted_tokens")
_HARMLESS_LAST, _AFTER, _ACCOUNTS = words("harmless_last"), words("after"), words("accounts")
_CODES, _CODE_PURPOSES = words("codes"), words("code_purposes")
_NO_ISSUERS = words("id_prefixes")
_HARMLESS_BEFORE = {"key": words("harmless_key"), "token": words("harmless_token")}
"""Words just before ``key`` or ``token`` that make it harmless: ``cache_key``, ``next_page_token``."""

VERBS, PREPOSITIONS = words("verbs"), words("prepositions")
"""Words between a name and its value in a sentence, and before the owner of the value."""

UNSPACED, PARTICLES = words("unspaced"), words("particles")
"""Names in scripts without blanks, and the particles behind them."""

_INNER_PASSWORD = re.compile(
    "password|passwd|passphrase|passcode|passwort|kennwort|contrase[nñ]a|wachtwoord"
)
_ENDING = re.compile(
    r"(?:token|secret|apikey|accesskey|secretkey|privatekey|sharedkey|accountkey|authkey|credentials?)\Z"
)
_ENDS_OF_PASSWORDS = {"pass": _ACCOUNTS, "pw": _ACCOUNTS}
_ENDS_OF_KEYS = {"key": _PURPOSES, "keys": _PURPOSES}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+[^\W\d_A-Z]*|[^\W\d_]+")


class Meaning(Enum):
    """The meaning of a name for its value.

    Attributes:
        PASSWORD: any value is a password.
        SECRET: a value that is long enough is a secret.
        KEY: only a random value or a long hexadecimal number is a secret.
        WEAK: only a random value is a secret.
        CODE: only a few digits are a secret, which is used once or printed on a card.
    """

    PASSWORD = "password"  # noqa: S105
    SECRET = "secret"  # noqa: S105
    KEY = "key"
    WEAK = "weak"
    CODE = "code"


_LONGEST_NAME = 120
"""Characters at the end of a name that are judged."""


@functools.lru_cache(1 << 15)
def judge(name: str) -> Meaning | None:
    """The meaning of a name; None if it is not the name of a secret.

    Snake, kebab, camel, dotted and upper case give the same result: ``db_password``, ``DB-Password``, ``dbPassword``.
    Digits are ignored.
    """
    words = words_of(name)
    if not words or words[-1] in _HARMLESS_LAST:
        return None
    if _is_password(words):
        return Meaning.PASSWORD
    core = words
    while len(core) > 1 and core[-1] in _AFTER and not _is_secret_word(core[-1], core[:-1]):
        core = core[:-1]
    if _is_secret_word(core[-1], core[:-1]):
        return Meaning.SECRET
    return _weak_meaning(words) or _weak_meaning(core)


def _weak_meaning(words: list[str]) -> Meaning | None:
    """The meaning of a name that is no secret by itself: ``tenant_key``, ``session``, ``verification_code``."""
    last, previous = words[-1], "".join(words[-2:-1])
    if last in _CODES or (last == "code" and previous in _CODE_PURPOSES):
        return Meaning.CODE
    if last not in _WEAK or previous in _HARMLESS_BEFORE.get(last.rstrip("s"), ()):
        return None
    is_key = last == "key" and previous and previous not in _NO_ISSUERS
    return Meaning.KEY if is_key else Meaning.WEAK


def is_about(name: str) -> bool:
    """Whether a name tells something about a thing instead of holding it: ``expirationSeconds``, ``path``, ``type``."""
    words = words_of(name)
    return bool(words) and words[-1] in _HARMLESS_LAST


def words_of(name: str) -> list[str]:
    """The words of a name in lower case: ``accessToken`` gives ``access`` and ``token``."""
    return [word.lower() for word in _WORD.findall(name[-_LONGEST_NAME:])]


def _is_password(words: list[str]) -> bool:
    """Whether these words, in lower case, name a password: ``db`` and ``pwd`` do, ``passwordless`` does not."""
    joined = "".join(words)
    if "passwordless" in joined or "nopasswd" in joined:
        return False
    *before, last = words
    if last in _PASSWORDS or last.endswith("pwd") or _is_joined(last, _ENDS_OF_PASSWORDS):
        return True
    return (
        "".join(words[-2:]) in _PASSWORDS
        or any(
            _INNER_PASSWORD.search(word) or (word in _PASSWORDS and word != "pass")
            for word in (*before, last)
        )
        or _INNER_PASSWORD.search(joined) is not None
    )


def _is_joined(word: str, ends: Mapping[str, frozenset[str]]) -> bool:
    """Whether a word is two words without a sign between them, such as ``dbpass`` or ``signingkey``.

    Args:
        word: the word in lower case.
        ends: second word → first words.
    """
    return any(word.endswith(end) and word[: -len(end)] in ends[end] for end in ends)


def _is_secret_word(word: str, before: list[str]) -> bool:
    """Whether a word names a secret after these words: ``key`` does after ``api``, not after ``cache``."""
    previous = before[-1] if before else ""
    if word == "tokens":
        return previous in _COUNTED_TOKENS
    if word in ("key", "keys"):
        return previous in _PURPOSES
    if word.endswith("token") and (
        previous in _HARMLESS_BEFORE["token"] or (previous == "key" and "public" in before)
    ):
        return False
    is_ending = _ENDING.search(word) is not None or _is_joined(word, _ENDS_OF_KEYS)
    return word in _SECRETS or is_ending


_LETTERS = r"(?:[0-9A-Za-z_.-]|[^\x00-\x7F]|\\+u[0-9A-Fa-f]{4})"
"""RE2: a letter of a name in raw JSON."""


def trigger(sign: str, random_value: str) -> str:
    """RE2 over raw JSON: the name of a secret before a sign. After a weak name, a random value must begin too.

    Args:
        sign: RE2 pattern of the signs between name and value.
        random_value: RE2 pattern of the beginning of a random value.
    """
    after = rf"(?:[-_.0-9]*(?i:{_any(_AFTER)}))*[-_.0-9]*"
    loose = _PASSWORDS - {"pass", "pw", "psw", "password", "passwd"}
    password = (
        rf"(?i:pass[-_. ]?(?:word|wd|phrase|code)|contrase(?:ñ|\\+u00[fF]1|n)a|{_any(loose)}){_LETTERS}*"
        rf"|(?i:pass)[-_.0-9]*|(?i:{_any(_ACCOUNTS)})(?i:pw)|(?:(?:^|[^A-Za-z])(?i:ps?w)|[a-z0-9]Ps?w)(?:[^a-z\s:=\"'\\\\,]{_LETTERS}*)?"
    )
    key = rf"(?:{_any(_PURPOSES)})[-_. 0-9]*keys?"
    secret = rf"(?i:{_any(_SECRETS)}|(?:{_any(_COUNTED_TOKENS)})[-_.0-9]*tokens|{key}){after}"
    spoken = rf' (?:(?:{_any(PREPOSITIONS)}) [^"]+ )?(?i:{_any(VERBS)}|to|changed|reset|set) '
    return (
        rf"(?:{password}|{secret})(?:{sign}|{spoken})"
        rf"|(?i:{_any(_WEAK)}){after}{sign}[\s\"'`\\]*{random_value}"
        rf"|(?i:{_any(_CODES)}|(?:{_any(_CODE_PURPOSES)})[-_. ]?code)(?:{sign}|{spoken})[\s\"'`\\]*[0-9]{{3}}"
        rf"|(?:{_any(UNSPACED)})(?:{_any(PARTICLES)})"
    )


def _any(words: frozenset[str]) -> str:
    """RE2 pattern for any of these words in raw JSON, with letters or with escapes."""
    return "|".join(sorted(map(_spelled, words)))


def _spelled(word: str) -> str:
    """RE2 pattern for a word in raw JSON, where a letter beyond ASCII may be an escape."""
    escaped = [f"(?:{letter}|\\\\+u{ord(letter):04x})" for letter in word]
    return "".join(
        letter if letter.isascii() else escape
        for letter, escape in zip(word, escaped, strict=True)
    )
