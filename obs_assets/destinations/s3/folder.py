"""Objects in a local folder, with the keys of a bucket. A lock keeps a second writer of an hour out."""

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
"""Name of the setting in the error for a folder that cannot be made."""


class Folder:
    """Objects below a local folder. A rename publishes each object, so a reader sees no half of it.

    Args:
        url: ``file:///absolute/path``. Escapes such as ``%20`` are decoded; ``#`` and ``?`` belong to
            the path.

    Attributes:
        url: the URL without a slash at its end.
        root: the path of the folder.
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
        """Use of the folder; errors of the system become TransientError."""
        try:
            yield
        except OSError as error:
            raise TransientError(
                f"cannot use the archive {self.root}: {error.strerror}"
            ) from None

    @contextlib.contextmanager
    def alone(self, manifest_key: str) -> Iterator[None]:
        """Lock an hour for writing. The system frees the lock when the process ends.

        Raises:
            HourBusyError: another run has the lock.
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
        """The bytes of an object, and its tag; None if there is no such object."""
        try:
            return self._path(key).read_bytes(), self._tag(key)
        except FileNotFoundError:
            return None

    def tags(self, base_key: str) -> dict[str, str]:
        """Key → tag of the objects whose keys begin with ``base_key``."""
        folder, _, name = base_key.rpartition("/")
        pattern = f"{name}*" if name else "**/*"
        found = self._path(folder).glob(pattern)
        # Files whose names begin with a dot are locks, and objects that are not complete.
        files = [path for path in found if path.is_file() and not path.name.startswith(".")]
        keys = [path.relative_to(self.root).as_posix() for path in files]
        return {key: self._tag(key) for key in keys}

    def sizes(self, base_key: str) -> dict[str, int]:
        """Key → size in bytes of the objects whose keys begin with ``base_key``."""
        files = [path for path in self.root.glob("**/[!.]*") if path.is_file()]
        keys = sorted(path.relative_to(self.root).as_posix() for path in files)
        chosen = [key for key in keys if key.startswith(base_key)]
        return {key: self._path(key).stat().st_size for key in chosen}

    def put(
        self,
        key: str,
        body: bytes,
        replaces: str | None,
    ) -> None:
        """Write a small document."""
        del replaces  # `alone` keeps other writers out
        with replacing(self._path(key), setting=SETTING) as tmp_path:
            tmp_path.write_bytes(body)

    def upload(
        self,
        key: str,
        packed: Packed,
        replaces: str | None,
    ) -> tuple[str, str | None]:
        """Write an object; returns its tag, and None because a folder keeps no versions."""
        del replaces  # `alone` keeps other writers out
        replaced = replacing(self._path(key), setting=SETTING)
        with replaced as tmp_path, tmp_path.open("wb") as file:
            shutil.copyfileobj(packed.file, file, MIB)
        return self._tag(key), None

    def download(self, key: str, path: Path) -> bool:
        """Copy an object into a file; False if there is no such object."""
        try:
            shutil.copyfile(self._path(key), path)
        except FileNotFoundError:
            return False
        return True

    def is_intact(self, stored: StoredObject) -> bool:
        """Whether the object is the object that the manifest names."""
        path = self._path(stored.key)
        return path.exists() and self._tag(stored.key) == stored.etag

    def remove(self, key: str) -> None:
        """Remove an object."""
        self._path(key).unlink(missing_ok=True)

    def clean_up(self, base_key: str) -> None:
        """Remove incomplete objects of runs that were killed."""
        base = self._path(base_key)
        if base.parent.is_dir():
            for incomplete in base.parent.glob(f".{base.name}*.tmp"):
                incomplete.unlink(missing_ok=True)

    def check(self) -> str:
        """Make the folder if it is missing; returns its URL."""
        make_private_dir(self.root, setting=SETTING)
        return self.url

    def _path(self, key: str) -> Path:
        return self.root / key

    def _tag(self, key: str) -> str:
        """Size (bytes) and modification time (nanoseconds): a stand-in for the ETag of a bucket."""
        status = self._path(key).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"
