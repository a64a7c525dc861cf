"""Which event files there are, and which of them we know already.

A file is known by its content, not by its name: names are rotated, inodes are used again. The head of a file finds
candidates, what was landed from it decides.

A copy of a file that is there too counts once: whatever is listed together with a file that begins with all of its
bytes is a copy, if it is the same from end to end or at least `HEAD_BYTES` long.
"""

import gzip
import hashlib
import os
import stat
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import Field

from obs_assets.config import Block
from obs_assets.errors import ConfigurationError

HEAD_BYTES = 1024
TAIL_BYTES = 4096
KEPT_RANGES = 64

_BLOCK = 1 << 20
_OTHER_COMPRESSIONS = (".zst", ".xz", ".bz2", ".lz4", ".zip")


class SourceConfig(Block, frozen=True):
    """Where event files are.

    Attributes:
        events_dir: the folder, read recursively (``OBS_EVENTS_DIR``).
        event_types: ``all``, or strings of which a file's name must contain one.
        include: patterns of file names; by default also those that log rotation gives.
        exclude: patterns of file names or of paths below ``events_dir``.
        max_event_bytes: a longer event is a dead letter.
        seal_after_minutes: an unfinished last event becomes a dead letter once its file has been idle for so long.
    """

    type: str = "event-stream"
    events_dir: Path | None = None
    event_types: tuple[str, ...] = ("all",)
    include: tuple[str, ...] = tuple(
        f"*.{kind}{rest}" for kind in ("jsonl", "ndjson") for rest in ("", ".gz", ".[0-9]*", "-[0-9]*")
    )
    exclude: tuple[str, ...] = ()
    max_event_bytes: int = Field(16 << 20, ge=1024)
    seal_after_minutes: int = Field(60, ge=0)


@dataclass(frozen=True)
class EventFile:
    """A file as a listing found it.

    Attributes:
        path: relative to the events folder, with ``/``; bytes that are no UTF-8 as ``\\xff``.
        full_path: to open it.
        size, mtime_ns, device, inode: as the file system says.
    """

    path: str
    full_path: Path
    size: int
    mtime_ns: int
    device: int
    inode: int

    @property
    def is_compressed(self) -> bool:
        """Whether offsets count decompressed bytes."""
        return self.path.endswith(".gz")


@dataclass(frozen=True)
class KnownFile:
    """What has landed from a file.

    Attributes:
        file_id: given when the file was first landed.
        path, size, mtime_ns, device, inode: as last seen.
        offset: how far it has landed, in decompressed bytes.
        head: SHA-256 of its first `HEAD_BYTES` or fewer bytes, ``head_bytes`` of them.
        tail: SHA-256 of the last `TAIL_BYTES` or fewer bytes before ``offset``.
        ranges: start, end and SHA-256 of the landed ranges, in order; the last `KEPT_RANGES` of them.
        has_rest: an unfinished end was left; it is looked at again when it is given up.
        within_line: what comes next belongs to a line that was too long.
        is_copy: nothing was landed from it, since another file begins with all of its bytes.
    """

    file_id: str
    path: str
    size: int
    mtime_ns: int
    device: int
    inode: int
    offset: int = 0
    head: str = ""
    head_bytes: int = 0
    tail: str = ""
    ranges: tuple[tuple[int, int, str], ...] = ()
    has_rest: bool = False
    within_line: bool = False
    is_copy: bool = False

    def seen_as(self, file: EventFile) -> "KnownFile":
        """This file under the name and inode that it has now."""
        return replace(
            self, path=file.path, size=file.size, mtime_ns=file.mtime_ns, device=file.device, inode=file.inode
        )

    def is_unchanged(self, file: EventFile) -> bool:
        """Whether nothing at all has happened to it since it was last seen."""
        return (self.path, self.size, self.mtime_ns, self.device, self.inode) == (
            file.path,
            file.size,
            file.mtime_ns,
            file.device,
            file.inode,
        )


@dataclass(frozen=True)
class Listing:
    """Files found, and what was passed over: reason → count."""

    files: tuple[EventFile, ...]
    skipped: dict[str, int]


def list_files(config: SourceConfig) -> Listing:
    """List the event files, sorted by path.

    Symbolic links, FIFOs, devices and folders with a matching name are skipped and counted: a link could lead out of
    the folder, and reading a FIFO never ends.

    Raises:
        ConfigurationError: the folder is not set, does not exist or cannot be read.
    """
    if config.events_dir is None:
        raise ConfigurationError("no event files: set OBS_EVENTS_DIR, or source.events_dir in the pipeline file")
    root = config.events_dir.expanduser().absolute()
    files: list[EventFile] = []
    skipped: Counter[str] = Counter()
    try:
        entries = _children(root)
    except OSError as error:
        raise ConfigurationError(f"cannot read the events folder {root} (OBS_EVENTS_DIR): {error.strerror}") from None
    for entry in _walk(entries, skipped):
        relative = os.fsencode(Path(entry.path).relative_to(root)).decode("utf-8", "backslashreplace")
        if not _wanted(os.fsencode(entry.name).decode("utf-8", "backslashreplace"), relative, config):
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # renamed or deleted since its folder was read
        if not stat.S_ISREG(status.st_mode):
            skipped["symbolic link" if entry.is_symlink() else "not a regular file"] += 1
        elif relative.endswith(_OTHER_COMPRESSIONS):
            skipped["compressed, but not as .gz"] += 1
        else:
            ids = status.st_dev, status.st_ino
            files.append(EventFile(relative, Path(entry.path), status.st_size, status.st_mtime_ns, *ids))
    return Listing(tuple(sorted(files, key=lambda file: file.path)), dict(skipped))


def _children(folder: Path) -> "list[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        return list(entries)


def _walk(entries: "Iterable[os.DirEntry[str]]", skipped: Counter[str]) -> Iterator["os.DirEntry[str]"]:
    for entry in entries:
        yield entry
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            try:
                children = _children(Path(entry.path))
            except FileNotFoundError:
                continue
            except OSError:
                skipped["unreadable folder"] += 1
                continue
            yield from _walk(children, skipped)


def _wanted(name: str, path: str, config: SourceConfig) -> bool:
    return (
        any(fnmatchcase(name, pattern) for pattern in config.include)
        and not any(fnmatchcase(name, pattern) or fnmatchcase(path, pattern) for pattern in config.exclude)
        and ("all" in config.event_types or any(kind in name for kind in config.event_types))
    )


class Content:
    """A file's decompressed bytes, as far as they can be read; never follows a link put there since the listing.

    Attributes:
        fault: why no more can be read although the file goes on: a compressed one is damaged, or still being written.

    Raises:
        OSError: it is gone, or may not be read.
    """

    def __init__(self, file: EventFile) -> None:
        self.fault: str | None = None
        self._raw = os.fdopen(os.open(file.full_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        self._gzip = gzip.GzipFile(fileobj=self._raw) if file.is_compressed else None

    def __enter__(self) -> "Content":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._gzip:
            self._gzip.close()
        self._raw.close()

    def seek(self, offset: int) -> None:
        """Go to a byte."""
        if self._gzip is None:
            self._raw.seek(offset)
            return
        if offset < self._gzip.tell():
            self.fault = None
            self._gzip.rewind()
        while (ahead := offset - self._gzip.tell()) > 0 and self._read_compressed(self._gzip, ahead):
            pass

    def read(self, length: int) -> bytes:
        """The next bytes; fewer than ``length`` only at the end or before a fault."""
        if self._gzip is None:
            return self._raw.read(length)
        blocks = []
        while length > 0 and (block := self._read_compressed(self._gzip, length)):
            blocks.append(block)
            length -= len(block)
        return b"".join(blocks)

    def _read_compressed(self, stream: gzip.GzipFile, length: int) -> bytes:
        """A block; unlike ``read``, what comes before a fault is not lost."""
        if self.fault:
            return b""
        try:
            return stream.read1(min(length, _BLOCK))
        except EOFError:
            self.fault = "unfinished .gz"
        except (gzip.BadGzipFile, zlib.error):
            self.fault = "damaged .gz"
        return b""


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


class Identities:
    """Tells which of the listed files is which known file; each known file is claimed at most once.

    Ask in order of certainty, so that no copy robs its original: all that is unchanged, then all that is in place,
    then, in the order of `by_size`, who is a copy, who moved, and who is new.
    """

    def __init__(self, known: Iterable[KnownFile]) -> None:
        self._known = {file.file_id: file for file in known}
        self._by_path = {file.path: file for file in self._known.values()}
        self._by_inode = {(file.device, file.inode): file for file in self._known.values()}
        self._by_head: defaultdict[tuple[int, str], list[KnownFile]] = defaultdict(list)
        for file in sorted(self._known.values(), key=lambda file: -file.offset):
            self._by_head[file.head_bytes, file.head].append(file)
        self._head_lengths = {length for length, _ in self._by_head if length}
        self._claimed: dict[str, EventFile] = {}
        self._new: defaultdict[str, list[EventFile]] = defaultdict(list)
        self._heads: dict[str, tuple[bytes, str | None]] = {}

    def claim_unchanged(self, file: EventFile, *, sealed: bool) -> bool:
        """Whether nothing is to be done: it is known and was not touched, nor does it end in what is to be given up."""
        known = self._by_path.get(file.path)
        if known is None or not known.is_unchanged(file) or (known.has_rest and sealed):
            return False
        self._claimed[known.file_id] = file
        return True

    def claim_in_place(self, file: EventFile) -> KnownFile | None:
        """The known file that this one continues under its old name or inode, if it does."""
        candidates = [self._by_inode.get((file.device, file.inode)), self._by_path.get(file.path)]
        # A copy that has grown may be one that was still being made; an inode may have been used again
        in_place = (known for known in candidates if known and not known.is_copy and _is_same_kind(file, known))
        return self._claim(file, in_place, _ends_match)

    def claim_moved(self, file: EventFile) -> KnownFile | None:
        """The known file whose whole landed content begins this one: renamed across file systems, or compressed."""
        return self._claim(file, self._alike(self._head(file)), _content_matches)

    def fault_of_stub(self, file: EventFile) -> str | None:
        """Why a compressed file can be read no further than some bytes that tell nothing about who it is."""
        is_short = len(self._head(file)) < HEAD_BYTES
        return self._heads[file.path][1] if is_short else None

    def is_copy(self, file: EventFile) -> bool:
        """Whether a file that was claimed, or is new, begins with all that this one holds."""
        head = self._head(file)
        claimed = [self._claimed[known.file_id] for known in self._alike(head) if known.file_id in self._claimed]
        return any(_is_beginning(file, original) for original in [*claimed, *self._new[digest(head)]])

    def add_new(self, file: EventFile) -> None:
        """Take note of a file that nobody knows."""
        self._new[digest(self._head(file))].append(file)

    def _head(self, file: EventFile) -> bytes:
        if file.path not in self._heads:
            with Content(file) as content:
                self._heads[file.path] = content.read(HEAD_BYTES), content.fault
        return self._heads[file.path][0]

    def _alike(self, head: bytes) -> Iterator[KnownFile]:
        """Known files that began in this way, of each length the longest first."""
        for length in sorted(self._head_lengths, reverse=True):
            if length <= len(head):
                yield from self._by_head.get((length, digest(head[:length])), ())

    def _claim(
        self, file: EventFile, candidates: Iterable[KnownFile], matches: Callable[[EventFile, KnownFile], bool]
    ) -> KnownFile | None:
        for known in candidates:
            if known.file_id not in self._claimed and matches(file, known):
                self._claimed[known.file_id] = file
                return known
        return None


def by_size(file: EventFile) -> tuple[bool, int, str]:
    """Sorts originals before their copies: what is being compressed or copied is not there entirely yet."""
    return file.is_compressed, -file.size, file.path


def _is_same_kind(file: EventFile, known: KnownFile) -> bool:
    return file.is_compressed == known.path.endswith(".gz")


def _ends_match(file: EventFile, known: KnownFile) -> bool:
    """Whether head and tail of what was landed are still where they were."""
    if not file.is_compressed and file.size < known.offset:
        return False
    with Content(file) as content:
        matches, _, tail = ends_match(content, known)
        return matches and (file.path == known.path or _is_telling(known, tail[-1:], content))


def ends_match(content: Content, known: KnownFile) -> tuple[bool, bytes, bytes]:
    """Whether a file holds what was landed from a known one, by its head and tail; both, as they are now.

    Leaves the content where the landed part ends.
    """
    head = content.read(HEAD_BYTES)
    start = max(0, known.offset - TAIL_BYTES)
    content.seek(start)
    tail = content.read(known.offset - start)
    matches = digest(head[: known.head_bytes]) == known.head and digest(tail) == known.tail
    return matches or known.offset == 0, head, tail


def _is_telling(known: KnownFile, last_byte: bytes, rest: Content) -> bool:
    """Whether what was landed tells a file from others: within its first line, all files of a program are alike."""
    return known.offset >= HEAD_BYTES or last_byte == b"\n" or not rest.read(1)


def _content_matches(file: EventFile, known: KnownFile) -> bool:
    """Whether the file begins with all that was landed from a known one whose head it has, and not by chance."""
    if not file.is_compressed and file.size < known.offset:
        return False
    with Content(file) as content:
        for start, end, expected in known.ranges:
            content.seek(start)
            if _digest_of(content, end - start) != expected:
                return False
        content.seek(known.offset - 1)
        return _is_telling(known, content.read(1), content)


def _is_beginning(file: EventFile, original: EventFile) -> bool:
    """Whether the original begins with all that a file holds, and not by chance."""
    if not file.is_compressed and not original.is_compressed and file.size > original.size:
        return False
    length = 0
    with Content(file) as content, Content(original) as others:
        while block := content.read(_BLOCK):
            if others.read(len(block)) != block:
                return False
            length += len(block)
        return length >= HEAD_BYTES or (length > 0 and content.fault is None and not others.read(1))


def _digest_of(content: Content, length: int) -> str:
    sha = hashlib.sha256()
    while length > 0 and (block := content.read(min(length, _BLOCK))):
        sha.update(block)
        length -= len(block)
    return sha.hexdigest()


def known_from_json(values: dict[str, Any]) -> KnownFile:
    """Read a `KnownFile` back from the checkpoint or the log."""
    return KnownFile(**{**values, "ranges": tuple((start, end, sha) for start, end, sha in values["ranges"])})
