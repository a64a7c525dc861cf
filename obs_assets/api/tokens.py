"""Tokens of clients: a file with their names, scopes and hashes. A token itself is stored nowhere.

A token has 256 random bits, so that a plain SHA-256 keeps it secret.
"""

import hashlib
import logging
import secrets
import stat
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, Field, ValidationError

from obs_assets.errors import ConfigurationError
from obs_assets.settings import Settings
from obs_assets.storage.disk import locked, make_private_dir, replacing

Scope: TypeAlias = Literal["read", "tail", "write"]

SCOPES: dict[Scope, str] = {
    "read": "search stored events",
    "tail": "follow live events",
    "write": "send events",
}
"""Scope → what a token with it may do."""

PREFIX = "obs_"
"""Beginning of every token: scanners of secrets find it."""

FILE_MODE = 0o600

_log = logging.getLogger(__name__)


class Token(BaseModel, frozen=True, extra="forbid"):
    """A token as the file has it.

    Attributes:
        name: who uses it.
        sha256: hash of the token, in hexadecimal digits.
        scopes: what it may do.
        created_at: when it was made.
        expires_at: when it ends; None: never.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_.@-]{1,100}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.expires_at is None or now < self.expires_at


class _Content(BaseModel, frozen=True, extra="forbid"):
    tokens: tuple[Token, ...] = ()


def scopes_of(names: Sequence[str]) -> list[Scope]:
    """The scopes of these names.

    Raises:
        ConfigurationError: a name is no scope.
    """
    known = {str(scope): scope for scope in SCOPES}
    for name in names:
        if name not in known:
            raise ConfigurationError(f"{name!r} is no scope: choose from {', '.join(known)}")
    return [known[name] for name in names]


def tokens_path(settings: Settings) -> Path:
    """The file of the tokens."""
    return settings.api.tokens or settings.data_dir / "tokens.json"


def sha256_of(token: str) -> str:
    """The hash of a token, as the file has it."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens of a file; none if it does not exist.

    Raises:
        ConfigurationError: others than its owner may read the file, or it is damaged.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigurationError(f"{path} (OBS_TOKENS): {error.strerror}") from None
    # As ssh does with keys: a mistake in the mode must be seen at once.
    if stat.S_IMODE(mode) & ~FILE_MODE:
        raise ConfigurationError(
            f"others than its owner may use {path} (OBS_TOKENS): run chmod 600 {path}"
        )
    try:
        return _Content.model_validate_json(text).tokens
    except ValidationError:
        raise ConfigurationError(
            f"{path} (OBS_TOKENS) is no file of tokens: remove it, or write it with `obs tokens add`"
        ) from None


def add_token(
    path: Path,
    name: str,
    scopes: Sequence[Scope],
    now: datetime,
    *,
    days: int | None,
) -> str:
    """Make a token and add it to the file; returns the token, which nothing can show again.

    Args:
        path: the file.
        name: who uses it.
        scopes: what it may do.
        now: the time, UTC.
        days: days after which it ends; None: never.

    Raises:
        ConfigurationError: the name is taken, or is no name.
    """
    # The only moment at which the token exists as text.
    token = PREFIX + secrets.token_urlsafe(32)
    expires_at = None if days is None else now + timedelta(days=days)
    try:
        made = Token(
            name=name,
            sha256=sha256_of(token),
            scopes=tuple(dict.fromkeys(scopes)),
            created_at=now,
            expires_at=expires_at,
        )
    except ValidationError:
        raise ConfigurationError(
            f"{name!r} is no name of a token: use 1 to 100 letters, digits, _, ., @ and -"
        ) from None
    make_private_dir(path.parent, setting="OBS_TOKENS")
    with locked(_lock_of(path), wait_s=10):
        tokens = read_tokens(path)
        if any(other.name == name for other in tokens):
            raise ConfigurationError(
                f"there is a token {name} already: revoke it first, or choose another name"
            )
        # Under the lock: of two commands at once, neither loses the token of the other.
        _write(path, (*tokens, made))
    return token


def revoke_token(path: Path, name: str) -> None:
    """Remove a token.

    Raises:
        ConfigurationError: there is no such token.
    """
    make_private_dir(path.parent, setting="OBS_TOKENS")
    with locked(_lock_of(path), wait_s=10):
        tokens = read_tokens(path)
        left = tuple(token for token in tokens if token.name != name)
        if len(left) == len(tokens):
            known = ", ".join(token.name for token in tokens) or "none"
            raise ConfigurationError(f"there is no token {name!r}; there are: {known}")
        _write(path, left)


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _write(path: Path, tokens: tuple[Token, ...]) -> None:
    with replacing(path, setting="OBS_TOKENS") as tmp_path:
        # Before the first byte: no other user can open the file in between.
        tmp_path.chmod(FILE_MODE)
        tmp_path.write_text(_Content(tokens=tokens).model_dump_json(indent=2) + "\n")


_Version: TypeAlias = tuple[int, ...]
"""Inode, size in bytes, and times of change in nanoseconds. A change of the file's mode changes them, too."""


class TokenFile:
    """The tokens of a file, as they are now.

    A file that cannot be read has no tokens: a mistake in it opens nothing.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tokens: dict[str, Token] = {}
        self._version: _Version | None = None

    def find(self, token: str) -> Token | None:
        """The valid token with this text; None if there is none."""
        return self.find_hash(sha256_of(token))

    def find_hash(self, sha256: str) -> Token | None:
        """The valid token with this hash; None if there is none."""
        # To ask for the version costs microseconds, so that a revoked token is refused at once.
        version = self._version_now()
        if version != self._version:
            self._read()
            self._version = version
        found = self._tokens.get(sha256)
        return found if found is not None and found.is_valid(datetime.now(UTC)) else None

    def _version_now(self) -> _Version:
        """The version of the file; empty if it does not exist or cannot be reached."""
        try:
            now = self._path.stat()
        except OSError:
            return ()
        return (now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)

    def _read(self) -> None:
        try:
            tokens = read_tokens(self._path)
        except ConfigurationError as error:
            _log.error("%s", error)
            tokens = ()
        self._tokens = {token.sha256: token for token in tokens}
