"""Where objects lie: a local directory, with the keys that a bucket would have. One writer of an hour at a time."""

import contextlib
import shutil
from collections.abc import Iterator
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from urllib.parse import unquote

from obs_assets.destinations.s3.config import LOCAL, MIB
from obs_assets.destinations.s3.encode import Packed
from obs_assets.destinations.s3.manifest import StoredObject
from obs_assets.errors import ConfigurationError, HourBusyError, TransientError
from obs_assets.storage.disk import make_private_dir, replacing

SETTING = "the bucket of the archive"
"""What an error names when the directory cannot be made."""


class Folder:
    """Objects below a directory; each is put in place by one rename.

    Args:
        url: ``file:///absolute/path``. ``%20`` and its like are decoded; ``#`` and ``?`` belong to the path.
    """

    def __init__(self, url: str) -> None:
        path = url.removeprefix(LOCAL)
        self.url = url.rstrip("/")
        self.root = Path(unquote(path))
        if not url.startswith(LOCAL) or not path.strip("/") or not path.startswith("/"):
            raise ConfigurationError(
                f"bucket {url!r} is no directory: write file:///absolute/path"
            )

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Use of the directory: its refusals are ours."""
        try:
            yield
        except OSError as error:
            raise TransientError(
                f"cannot use the archive {self.root}: {error.strerror}"
            ) from None

    @contextlib.contextmanager
    def alone(self, manifest_key: str) -> Iterator[None]:
        """Hold the right to write an hour; the system lets go when a process ends.

        Raises:
            HourBusyError: another run holds it.
        """
        path = self._path(manifest_key)
        lock = make_private_dir(path.parent, setting=SETTING) / f".{path.stem}.lock"
        with lock.open("w") as handle:
            try:
                flock(handle, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                raise HourBusyError(
                    f"another run is writing {path.stem} to {self.url}: let it finish, then try again"
                ) from None
            yield

    def read(self, key: str) -> tuple[bytes, str] | None:
        """The bytes behind a key, and its tag."""
        try:
            return self._path(key).read_bytes(), self._tag(key)
        except FileNotFoundError:
            return None

    def tags(self, base_key: str) -> dict[str, str]:
        """The keys that begin so, and their tags."""
        folder, _, name = base_key.rpartition("/")
        found = self._path(folder).glob(f"{name}*" if name else "**/*")
        keys = [path.relative_to(self.root).as_posix() for path in found if path.is_file()]
        return {
            key: self._tag(key) for key in keys if not key.rpartition("/")[2].startswith(".")
        }

    def sizes(self, base_key: str) -> dict[str, int]:
        """The keys that begin so, and their sizes in bytes."""
        keys = (
            path.relative_to(self.root).as_posix()
            for path in self.root.glob("**/[!.]*")
            if path.is_file()
        )
        return {
            key: (self.root / key).stat().st_size
            for key in sorted(keys)
            if key.startswith(base_key)
        }

    def put(self, key: str, body: bytes, replaces: str | None) -> None:
        """Write a small document."""
        del replaces  # nobody else is writing, see `alone`
        with replacing(self._path(key), setting=SETTING) as aside:
            aside.write_bytes(body)

    def upload(self, key: str, packed: Packed, replaces: str | None) -> tuple[str, str | None]:
        """Write an object; returns its tag."""
        del replaces
        with replacing(self._path(key), setting=SETTING) as aside, aside.open("wb") as file:
            shutil.copyfileobj(packed.file, file, MIB)
        return self._tag(key), None

    def download(self, key: str, path: Path) -> bool:
        """Put an object into a file; False if there is none."""
        try:
            shutil.copyfile(self._path(key), path)
        except FileNotFoundError:
            return False
        return True

    def is_intact(self, stored: StoredObject) -> bool:
        """Whether the object is the one that the manifest names."""
        path = self._path(stored.key)
        return path.exists() and self._tag(stored.key) == stored.etag

    def remove(self, key: str) -> None:
        """Remove an object."""
        self._path(key).unlink(missing_ok=True)

    def clean_up(self, base_key: str) -> None:
        """Remove what killed runs have written aside."""
        base = self._path(base_key)
        for left in base.parent.glob(f".{base.name}*.tmp") if base.parent.is_dir() else ():
            left.unlink(missing_ok=True)

    def check(self) -> str:
        """One line that says what was reached."""
        make_private_dir(self.root, setting=SETTING)
        return self.url

    def _path(self, key: str) -> Path:
        return self.root / key

    def _tag(self, key: str) -> str:
        status = self._path(key).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"
