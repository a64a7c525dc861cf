"""Lists the event files, and finds out which of them are known already.

A file is recognised by its content, not by its name: names are rotated, and inodes are used again. The head of a file
finds candidates. The content that was landed from a candidate decides.

A copy of another listed file counts once. A file is a copy if another listed file begins with all of its bytes. It must
also be equal to that file from begin to end, or at least `HEAD_BYTES` long.
"""

import codecs
import functools
import hashlib
import io
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from obs_assets.config import Block
from obs_assets.errors import ConfigurationError
from obs_assets.events import MAX_NESTING
from obs_assets.sources import bucket
from obs_assets.sources.careful import SEPARATORS
from obs_assets.sources.unpack import (
    COMPRESSIONS,
    DamagedError,
    in_form,
    is_encoding,
    layers,
    other_forms,
)

HEAD_BYTES = 1024
"""Bytes at the beginning of a file that are compared first, to find candidates."""
TAIL_BYTES = 4096
"""Bytes before the landed end of a file that are compared, to see if the file was only appended to."""
KEPT_RANGES = 64
"""Number of landed ranges of a file that the log keeps. They are compared when a file may have moved."""

_BLOCK = 1 << 20
"""Bytes that are read at a time to compare two files."""
_ENVELOPE_ENDS = SEPARATORS + b"}"
"""Bytes behind the last record of an envelope. A later version of the envelope has a comma and more records there."""
_ROTATED_OR_COMPRESSED = re.compile(r"([.-]\d+|\.(gz|zst|xz|bz2|lz4|zip))+$")
"""End of a name such as ``app.log.3.gz`` that does not show the kind of the file."""
_ENDINGS = ("jsonl", "ndjson", "json", "log")
_BEHIND_ENDINGS = ("", *COMPRESSIONS, ".[0-9]*", "-[0-9]*")
_FIRST_BYTES = 2 * HEAD_BYTES + len(codecs.BOM_UTF8)
"""First bytes of a file: its head in any form of the text is made of them."""
_SIGNATURE_BYTES = 8
"""Bytes at the beginning of a file that show its compression or encoding."""


class SourceConfig(Block, frozen=True):
    """Which event files are read, and how.

    Attributes:
        type: ``event-stream``: files of JSON events.
        events_dir: folder that is read with all folders below it, or ``s3://bucket/prefix``.
        notifications: URL of an SQS queue that gets the notifications of the bucket; a bucket that
            has one is listed when a message comes, when an hour can close, and every 10 minutes,
            instead of every 30 seconds.
        event_types: ``all``, or words of which a file's name must contain one.
        include: patterns of file names that are read; rotated and compressed files are included by
            default.
        exclude: patterns of file names, or of paths below ``events_dir``, that are not read.
        format: ``auto`` recognises JSON formats by their shape; ``json`` takes every object as an
            event; the name of a format takes no other. Text formats (``cri``, ``syslog``,
            ``journald_export``) have to be named.
        records: ``auto`` takes known envelopes apart, ``off`` none; a path such as ``data.items``
            is a list whose objects are events.
        max_event_bytes: a longer event is a dead letter.
        max_envelope_bytes: a longer envelope of records is a dead letter.
        max_nesting: an event with deeper nesting of objects and lists is a dead letter.
        max_ratio: a compressed file is read up to this many times its own size (and at least 64
            MiB); each pass warns about the rest.
        time_path: field that holds the event's time, looked at before the usual fields: names with
            dots between them.
        unfold: fields with JSON in a string; the string is replaced by the JSON value.
        seal_after_minutes: an incomplete last event becomes a dead letter after its file has not
            changed for this time.
        max_files_per_pass: largest number of files that a landing pass reads; the next pass begins
            with the files that wait longest.
        max_bytes_per_pass: bytes after which a landing pass ends; the piece that is being read is
            finished first.
    """

    type: Literal["event-stream"] = "event-stream"
    events_dir: Path | str | None = Field(None, examples=["/var/log/agents"])
    notifications: str | None = Field(
        None,
        pattern=r"^https?://[^\s?@]+$",
        examples=["https://sqs.eu-central-1.amazonaws.com/123456789012/events"],
    )
    event_types: tuple[str, ...] = ("all",)
    include: tuple[str, ...] = tuple(
        f"*.{kind}{rest}" for kind in _ENDINGS for rest in _BEHIND_ENDINGS
    )
    exclude: tuple[str, ...] = Field((), examples=[["tmp/*", "*-test.jsonl"]])
    format: Literal[
        "auto",
        "json",
        "cloudtrail",
        "azure",
        "cloudwatch",
        "otlp",
        "splunk",
        "kubernetes",
        "docker",
        "fluentd",
        "journald",
        "cri",
        "syslog",
        "journald_export",
    ] = "auto"
    records: str = Field("auto", pattern=r'^[^."]+(\.[^."]+)*$', examples=["data.items"])
    max_event_bytes: int = Field(16 << 20, ge=1024)
    max_envelope_bytes: int = Field(1 << 30, ge=1024)
    max_nesting: int = Field(
        MAX_NESTING, ge=1, le=MAX_NESTING, json_schema_extra={"unit": "levels"}
    )
    max_ratio: int = Field(200, ge=1, json_schema_extra={"unit": "factor"})
    time_path: str | None = Field(
        None, pattern=r'^[^."]+(\.[^."]+)*$', examples=["meta.created_at"]
    )
    unfold: tuple[str, ...] = Field((), examples=[["payload"]])
    seal_after_minutes: int = Field(60, ge=0, le=5_256_000)
    max_files_per_pass: int = Field(20_000, ge=1, json_schema_extra={"unit": "files"})
    max_bytes_per_pass: int = Field(4 << 30, ge=1, json_schema_extra={"unit": "bytes"})

    @model_validator(mode="after")
    def _notifications_of_a_bucket(self) -> "SourceConfig":
        if self.notifications and isinstance(self.events_dir, Path):
            raise ValueError("notifications are of a bucket, and events_dir is a folder")
        return self

    @field_validator("events_dir", mode="before")
    @classmethod
    def _folder_or_bucket(cls, value: Any) -> Any:
        return value if value is None or str(value).startswith("s3://") else Path(value)


@dataclass(frozen=True)
class EventFile:
    """A file as it was listed.

    Attributes:
        path: path relative to the events folder, with ``/``; bytes that are not UTF-8 are written as ``\\xff``.
        size, mtime_ns: size in bytes and time of the last change, as the file system reports them.
        node: an identity that a rename does not change: device and inode, or the ETag of an object.
        open: opens the file; it never follows a link that was created after the listing.
        form: changes of its text, so that it has the form in which it landed first, see `unpack.other_forms`.
    """

    path: str
    size: int
    mtime_ns: int
    node: str
    open: Callable[[], io.BufferedReader] = field(compare=False, repr=False)
    form: tuple[str, ...] = ()

    @functools.cached_property
    def packing(self) -> tuple[str, ...]:
        """Compression or encoding, found by the first bytes: ``(".gz",)``; see `obs_assets.sources.unpack.layers`.

        Empty as well if the file cannot be read now: reading it will report the error.
        """
        try:
            with Content(self) as content:
                return content.packing
        except OSError:
            return ()

    @property
    def is_packed(self) -> bool:
        """Whether the file is compressed, encoded or changed, so that offsets count other bytes than its own."""
        return bool(self.form or self.packing)

    @property
    def is_readable(self) -> bool:
        """Whether landing supports the compression or encoding of the file."""
        return all(kind in COMPRESSIONS or is_encoding(kind) for kind in self.packing)

    @property
    def is_as_named(self) -> bool:
        """Whether the compression matches the name of the file."""
        return tuple(kind for kind in self.packing if not is_encoding(kind)) == packing_named(
            self.path
        )


@dataclass(frozen=True)
class KnownFile:
    """The state of a file that was landed, or a part of it.

    Attributes:
        file_id: id of the file, given when it was first landed.
        path, size, mtime_ns, node: values of the last listing.
        offset: number of decompressed bytes that have landed.
        head: SHA-256 of the first ``head_bytes`` bytes; there are `HEAD_BYTES` of them or fewer.
        tail: SHA-256 of the last bytes before ``offset``; there are `TAIL_BYTES` of them or fewer.
        ranges: start, end and SHA-256 of the landed ranges, in order; the last `KEPT_RANGES` of them.
        has_rest: an incomplete event at the end was left. The file is read again when this event is given up.
        within_line: the next byte belongs to a line that was too long.
        within_object: 0, or the next byte belongs to an object over several lines that was given up: the column of its
            bracket, plus 1.
        envelope_at: offset of the envelope that holds the last landed record; -1: none. It is read again if the file
            changes, because programs write envelopes again with more records in them.
        is_copy: nothing was landed from the file, because another file begins with all of its bytes.
        packing: compression or encoding, as in `EventFile`.
        form: changes of its text, as in `EventFile`.
        landed_at: begin of the last pass that landed bytes of the file: ISO 8601, UTC.
    """

    file_id: str
    path: str
    size: int
    mtime_ns: int
    node: str
    packing: tuple[str, ...] = ()
    form: tuple[str, ...] = ()
    offset: int = 0
    head: str = ""
    head_bytes: int = 0
    tail: str = ""
    ranges: tuple[tuple[int, int, str], ...] = ()
    has_rest: bool = False
    within_line: bool = False
    within_object: int = 0
    envelope_at: int = -1
    is_copy: bool = False
    landed_at: str = ""

    def seen_as(self, file: EventFile) -> "KnownFile":
        """This file with the name and inode of the present listing."""
        return replace(
            self,
            path=file.path,
            size=file.size,
            mtime_ns=file.mtime_ns,
            node=file.node,
            packing=file.packing,
            form=file.form,
        )

    def is_unchanged(self, file: EventFile) -> bool:
        """Whether the file was not changed, renamed or replaced since the last listing."""
        return (self.path, self.size, self.mtime_ns, self.node) == (
            file.path,
            file.size,
            file.mtime_ns,
            file.node,
        )


@dataclass(frozen=True)
class Original:
    """A file that begins with all bytes of another file, and its known state; None if it is new."""

    file: EventFile
    known: KnownFile | None = None


@dataclass(frozen=True)
class Listing:
    """The listed files, and reason → number of files that were skipped."""

    files: tuple[EventFile, ...]
    skipped: dict[str, int]

    @property
    def passed_over(self) -> str:
        """A line about the skipped files for the operator; empty if no file was skipped."""
        return "; ".join(f"{count:,} × {reason}" for reason, count in self.skipped.items())

    @property
    def digest(self) -> str:
        """Hash of the listing. It changes when a file is added, removed or changed."""
        return digest(
            repr(
                [(file.path, file.size, file.mtime_ns, file.node) for file in self.files]
            ).encode()
        )


def list_files(config: SourceConfig) -> Listing:
    """List the event files, sorted by path.

    Raises:
        ConfigurationError: the folder or bucket is not set, does not exist or cannot be read.
        TransientError: the bucket's server does not answer.
    """
    if config.events_dir is None:
        raise ConfigurationError(
            "no event files: set OBS_EVENTS_DIR, or source.events_dir in the pipeline file, or put them into the "
            "folder events of OBS_DATA_DIR"
        )
    skipped: Counter[str] = Counter()
    found = (
        _in_folder(config.events_dir, config, skipped)
        if isinstance(config.events_dir, Path)
        else _in_bucket(config.events_dir, config, skipped)
    )
    return Listing(tuple(sorted(found, key=lambda file: file.path)), dict(skipped))


def _in_folder(
    folder: Path, config: SourceConfig, skipped: Counter[str]
) -> Iterator[EventFile]:
    """The regular files. Symbolic links, FIFOs, devices and folders with a matching name are skipped and counted.

    A link could lead out of the folder. Reading a FIFO could wait for ever.
    """
    root = folder.expanduser().absolute()
    try:
        entries = _children(root)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the events folder {root} (OBS_EVENTS_DIR): {error.strerror}"
        ) from None
    for entry in _walk(entries, skipped):
        relative = os.fsencode(Path(entry.path).relative_to(root)).decode(
            "utf-8", "backslashreplace"
        )
        name = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
        if not _wanted(name, relative, config):
            if entry.is_file(follow_symlinks=False):
                _count_unknown_name(name, config, skipped)
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # renamed or deleted after its folder was listed
        if not stat.S_ISREG(status.st_mode):
            skipped["symbolic link" if entry.is_symlink() else "not a regular file"] += 1
        else:
            node = f"{status.st_dev}:{status.st_ino}"
            open_it = functools.partial(_open_regular, entry.path)
            yield EventFile(relative, status.st_size, status.st_mtime_ns, node, open_it)


def _open_regular(path: str) -> io.BufferedReader:
    raw = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        raw.close()
        raise OSError("no longer a regular file")
    return raw


def _in_bucket(url: str, config: SourceConfig, skipped: Counter[str]) -> Iterator[EventFile]:
    for found in bucket.list_objects(url):
        if any(part.startswith(".") for part in found.path.split("/")[:-1]):
            continue
        name = found.path.rsplit("/", 1)[-1]
        if not _wanted(name, found.path, config):
            _count_unknown_name(name, config, skipped)
        else:
            open_it = functools.partial(bucket.open_object, url, found)
            yield EventFile(
                found.path,
                found.size,
                int(found.modified_at.timestamp() * 1e9),
                found.etag,
                open_it,
            )


def _children(folder: Path) -> "list[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        return list(entries)


def _walk(
    entries: "Iterable[os.DirEntry[str]]", skipped: Counter[str]
) -> Iterator["os.DirEntry[str]"]:
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
        and not any(
            fnmatchcase(name, pattern) or fnmatchcase(path, pattern)
            for pattern in config.exclude
        )
        and ("all" in config.event_types or any(kind in name for kind in config.event_types))
    )


def _count_unknown_name(name: str, config: SourceConfig, skipped: Counter[str]) -> None:
    """Count a file that no ``include`` pattern matches, by the ending of its name. Hidden files are not counted."""
    if (
        name
        and not name.startswith(".")
        and not any(fnmatchcase(name, pattern) for pattern in config.include)
    ):
        ending = Path(_ROTATED_OR_COMPRESSED.sub("", name)).suffix
        called = f"*{ending}" if ending else "without an ending"
        skipped[f"a file named {called}, for which source.include has no pattern"] += 1


class Content:
    """Reads the unpacked bytes of a file, up to the first fault. It never follows a link created after the listing.

    Attributes:
        packing: compression or encoding, the outermost first; empty if the bytes are read without unpacking.
        fault: reason why the rest of the file cannot be read: it is damaged, or still being compressed. None otherwise.

    Raises:
        OSError: the file is gone, or may not be read.
    """

    def __init__(self, file: EventFile) -> None:
        self._raw = file.open()
        self._form = file.form
        try:
            self._begin()
        except BaseException:
            self._raw.close()
            raise

    def _begin(self) -> None:
        self.fault: str | None = None
        self._raw.seek(0)
        first = self._raw.read(_SIGNATURE_BYTES)
        self._raw.seek(0)
        self.packing, blocks = layers(self._raw, first)
        if self._form and not self.packing:
            blocks = iter(functools.partial(self._raw.read, _BLOCK), b"")
        self._blocks = in_form(blocks, self._form)
        self._is_direct = not (self.packing or self._form)
        self._position, self._rest = 0, b""

    @property
    def encoding(self) -> str:
        """Encoding of the text before it was converted to UTF-8; empty if it was UTF-8."""
        return next(filter(is_encoding, self.packing), "")

    def __enter__(self) -> "Content":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def seek(self, offset: int) -> None:
        """Go to a byte offset of the unpacked file."""
        if self._is_direct:
            self._raw.seek(offset)
            return
        if offset < self._position:
            self._begin()
        while (ahead := offset - self._position) > 0 and self._next(ahead):
            pass

    def read(self, length: int) -> bytes:
        """The next bytes; fewer than ``length`` only at the end or before a fault."""
        if self._is_direct:
            return self._raw.read(length)
        blocks = []
        while length > 0 and (block := self._next(length)):
            blocks.append(block)
            length -= len(block)
        return b"".join(blocks)

    def read_into(self, space: memoryview) -> int:
        """Fill a buffer with the next bytes. Returns their number.

        The buffer is full except at the end or before a fault.
        """
        if self._is_direct:
            return self._raw.readinto(space)
        filled = 0
        while filled < len(space) and (block := self._next(len(space) - filled)):
            space[filled : filled + len(block)] = block
            filled += len(block)
        return filled

    def _next(self, length: int) -> bytes:
        """The next bytes of a packed file, ``length`` at most; empty at its end or at a fault."""
        block = self._rest
        if not block and not self.fault:
            try:
                block = next(filter(None, self._blocks), b"")
            except EOFError:
                self.fault = f"unfinished {self.packing[0]}"
            except DamagedError:
                self.fault = f"damaged {self.packing[0]}"
        taken, self._rest = block[:length], block[length:]
        self._position += len(taken)
        return taken


def packing_named(path: str) -> tuple[str, ...]:
    """Compression of a file according to its name."""
    return tuple(suffix for suffix in COMPRESSIONS if path.endswith(suffix))


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


class Identities:
    """Matches listed files with known files. Each known file is matched (claimed) at most once.

    Call the methods in order of certainty, so that a copy never takes the identity of its original: first
    `claim_unchanged` for all files, then `claim_in_place`. For the other files, in the order of `originals_first`, find
    out if the file is a copy, was moved, or is new.
    """

    def __init__(self, known: Iterable[KnownFile]) -> None:
        self._known = {file.file_id: file for file in known}
        self._by_path = {file.path: file for file in self._known.values()}
        self._by_node = {file.node: file for file in self._known.values()}
        self._by_head: defaultdict[tuple[int, str], list[KnownFile]] = defaultdict(list)
        for file in sorted(self._known.values(), key=lambda file: -file.offset):
            self._by_head[file.head_bytes, file.head].append(file)
        self._head_lengths = {length for length, _ in self._by_head if length}
        self._claimed: dict[str, EventFile] = {}
        self._new: defaultdict[str, list[EventFile]] = defaultdict(list)
        self._firsts: dict[str, tuple[bytes, str | None]] = {}

    def claim_unchanged(self, file: EventFile, *, sealed: bool) -> bool:
        """Whether there is nothing to do: the file is unchanged, and has no incomplete end to be given up now."""
        known = self._by_path.get(file.path)
        if known is None or not known.is_unchanged(file) or (known.has_rest and sealed):
            return False
        self._claimed[known.file_id] = replace(file, form=known.form)
        return True

    def claim_in_place(self, file: EventFile) -> tuple[EventFile, KnownFile] | None:
        """The known file with the same name or inode whose content this file continues; None if there is none.

        Returns:
            the file, in the form in which it landed first, and the known file.
        """
        for known in (self._by_node.get(file.node), self._by_path.get(file.path)):
            # A copy that has grown may have been incomplete before. A file of which nothing has landed is the
            # beginning of every file: see `begun`.
            if not known or known.is_copy or not known.head_bytes:
                continue
            # The inode may have been used again
            if _is_same_kind(file, known):
                formed = replace(file, form=known.form)
                if self._claim(formed, [known], _ends_match):
                    return formed, known
        return None

    def begun(self, file: EventFile) -> KnownFile | None:
        """The known file with the same inode or name of which nothing has landed, for a file that is no other."""
        for known in (self._by_node.get(file.node), self._by_path.get(file.path)):
            is_begun = known and not known.head_bytes and not known.is_copy
            if known and is_begun and known.file_id not in self._claimed:
                self._claimed[known.file_id] = file
                return known
        return None

    def originals_first(self, files: Iterable[EventFile]) -> list[EventFile]:
        """The files that are not in place, in the order to ask about them: an original before its copies.

        A copy is never longer than its original, separators at their ends left out: a program writes over zeros that
        it has reserved. A file that is still being compressed is incomplete, so compressed files come last. A
        complete compressed file that begins like another file is ordered by the length of its content, not by its
        compressed size.
        """
        files = list(files)
        heads = {file.path: self._head_if_any(file) for file in files}
        with_head = Counter(digest(head) for head in heads.values() if head)

        def turn(file: EventFile) -> tuple[bool, int, bool, str]:
            length = file.size
            comes_last = file.is_packed
            # Reading costs time: it is done only for a file that has the same head as another file
            if with_head[digest(heads[file.path])] > 1:
                length, is_whole = _content_length(file)
                comes_last = file.is_packed and not is_whole
            return comes_last, -length, file.is_packed, file.path

        return sorted(files, key=turn)

    def claim_moved(self, file: EventFile) -> KnownFile | None:
        """The known file whose landed content begins this file: it was moved to another file system, or compressed."""
        return self._claim(file, self._alike(self._head(file)), _content_matches)

    def fault_of_stub(self, file: EventFile) -> str | None:
        """Reason why only the first bytes of a compressed file can be read, too few to identify the file; or None."""
        is_short = len(self._head(file)) < HEAD_BYTES
        return self._firsts[file.path][1] if is_short else None

    def original_of(self, file: EventFile) -> "Original | None":
        """A claimed or new file that begins with all bytes of this file."""
        head = self._head(file)
        originals = [
            Original(self._claimed[known.file_id], known)
            for known in self._alike(head)
            if known.file_id in self._claimed
        ]
        originals += [Original(new) for new in self._new[digest(head)]]
        # Too short for the index of heads: compression writes to the same folder
        if self.fault_of_stub(file):
            others = [
                Original(claimed, self._known[file_id])
                for file_id, claimed in self._claimed.items()
            ]
            others += [Original(new) for alike in self._new.values() for new in alike]
            originals = [other for other in others if _folder(other.file) == _folder(file)]
        return next(
            (
                original
                for original in originals
                if _is_beginning(file, original.file) or _is_older_version(file, original.known)
            ),
            None,
        )

    def add_new(self, file: EventFile) -> None:
        """Record a file that is new."""
        self._new[digest(self._head(file))].append(file)

    def in_forms(self, file: EventFile) -> Iterator[EventFile]:
        """The file as it is, then in each other form in which it may have landed before."""
        yield file
        for form in other_forms(self._first(file)):
            yield replace(file, form=form)

    def _head(self, file: EventFile) -> bytes:
        return b"".join(in_form(iter([self._first(file)]), file.form))[:HEAD_BYTES]

    def _first(self, file: EventFile) -> bytes:
        """First bytes of a file as it is: enough for its head in any form."""
        if file.path not in self._firsts:
            with Content(replace(file, form=())) as content:
                self._firsts[file.path] = content.read(_FIRST_BYTES), content.fault
        return self._firsts[file.path][0]

    def _head_if_any(self, file: EventFile) -> bytes:
        try:
            return self._head(file)
        except OSError:
            return b""  # it cannot be read now: reading it will report the error

    def _alike(self, head: bytes) -> Iterator[KnownFile]:
        """Known files with the same head, the longest head first."""
        for length in sorted(self._head_lengths, reverse=True):
            if length <= len(head):
                yield from self._by_head.get((length, digest(head[:length])), ())

    def _claim(
        self,
        file: EventFile,
        candidates: Iterable[KnownFile],
        matches: Callable[[EventFile, KnownFile], bool],
    ) -> KnownFile | None:
        for known in candidates:
            if known.file_id not in self._claimed and matches(file, known):
                self._claimed[known.file_id] = file
                return known
        return None


def _folder(file: EventFile) -> str:
    return file.path.rpartition("/")[0]


def _content_length(file: EventFile) -> tuple[int, bool]:
    """Number of unpacked bytes of a file up to its last byte that is no separator, and whether the file is complete."""
    length = 0
    position = 0
    try:
        with Content(file) as content:
            if not file.is_packed:
                return _used_length(content, file.size), True
            while block := content.read(_BLOCK):
                kept = len(block.rstrip(SEPARATORS))
                if kept:
                    length = position + kept
                position += len(block)
            return length, content.fault is None
    except OSError:
        return length, False


def _used_length(content: Content, size: int) -> int:
    """Number of bytes up to the last byte that is no separator; the end is read first, so that little is read."""
    end = size
    while end > 0:
        start = max(0, end - _BLOCK)
        content.seek(start)
        kept = len(content.read(end - start).rstrip(SEPARATORS))
        if kept:
            return start + kept
        end = start
    return 0


def _is_same_kind(file: EventFile, known: KnownFile) -> bool:
    return file.packing == known.packing


def _ends_match(file: EventFile, known: KnownFile) -> bool:
    """Whether the landed head and tail are still at the same offsets."""
    if not file.is_packed and file.size < known.offset:
        return False
    with Content(file) as content:
        matches, _, tail = ends_match(content, known)
        return matches and (file.path == known.path or _is_telling(known, tail[-1:], content))


def ends_match(content: Content, known: KnownFile) -> tuple[bool, bytes, bytes]:
    """Compare the head and tail of a file with those of a known file.

    Returns:
        whether both are equal; the present head; the present tail.
        The position of ``content`` is then the end of the landed bytes.
    """
    head = content.read(HEAD_BYTES)
    start = max(0, known.offset - TAIL_BYTES)
    content.seek(start)
    tail = content.read(known.offset - start)
    matches = digest(head[: known.head_bytes]) == known.head and digest(tail) == known.tail
    return matches or known.offset == 0, head, tail


def _is_telling(known: KnownFile, last_byte: bytes, rest: Content) -> bool:
    """Whether the landed bytes are enough to identify a file. Files of a program often begin with the same line."""
    if known.offset >= HEAD_BYTES or last_byte in {b"\n", b"}"} or known.envelope_at >= 0:
        return True
    return not rest.read(1)


def _content_matches(file: EventFile, known: KnownFile) -> bool:
    """Whether the file begins with all bytes landed from a known file, and the bytes are enough to identify it."""
    if not file.is_packed and file.size < known.offset:
        return False
    with Content(file) as content:
        for start, end, expected in known.ranges:
            content.seek(start)
            if _digest_of(content, end - start) != expected:
                return False
        content.seek(known.offset - 1)
        return _is_telling(known, content.read(1), content)


def _is_beginning(file: EventFile, original: EventFile) -> bool:
    """Whether the original begins with all bytes of a file, and not by chance. Separators at the end do not count."""
    length = 0
    holds_something = False
    with Content(file) as content, Content(original) as others:
        while block := content.read(_BLOCK):
            holds_something = holds_something or bool(block.strip(SEPARATORS))
            other = others.read(len(block))
            if other != block:
                same = _alike_until(block, other)
                is_longer_list = (
                    block[:same].endswith(b"}") and other[same:].lstrip()[:1] == b","
                )
                ends = _ENVELOPE_ENDS if is_longer_list else SEPARATORS
                if not _are_separators(block[same:], content, ends):
                    return False
                length += same
                if not holds_something:
                    return False
                return length >= HEAD_BYTES or (
                    length > 0 and _are_separators(other[same:], others)
                )
            length += len(block)
        if not holds_something:
            return False
        # A compressed file with a fault at its end is not a file of its own: it is being written, or is broken
        return length >= HEAD_BYTES or (
            length > 0 and (content.fault is not None or _are_separators(b"", others))
        )


def _is_older_version(file: EventFile, known: KnownFile | None) -> bool:
    """Whether a file is an envelope that was written again since, with more records: it ends behind the landed ones."""
    if known is None or known.envelope_at < 0 or not _content_matches(file, known):
        return False
    with Content(file) as content:
        content.seek(known.offset)
        rest = content.read(_BLOCK)
    return rest.lstrip().startswith(b"]") and b"\n{" not in rest and len(rest) < _BLOCK


def _alike_until(block: bytes, other: bytes) -> int:
    """Length of the common beginning."""
    shared = min(len(block), len(other))
    differs = np.frombuffer(block, np.uint8, shared) != np.frombuffer(other, np.uint8, shared)
    return int(differs.argmax()) if differs.any() else shared


def _are_separators(block: bytes, rest: Content, separators: bytes = SEPARATORS) -> bool:
    """Whether only separators follow, in ``block`` and then in ``rest``, which is read block by block."""
    while not block.strip(separators):
        block = rest.read(_BLOCK)
        if not block:
            return True
    return False


def _digest_of(content: Content, length: int) -> str:
    sha = hashlib.sha256()
    while length > 0 and (block := content.read(min(length, _BLOCK))):
        sha.update(block)
        length -= len(block)
    return sha.hexdigest()


def known_from_json(values: dict[str, Any]) -> KnownFile:
    """Read a `KnownFile` back from the checkpoint or the log."""
    # Older records have no packing
    packing = tuple(values.get("packing", packing_named(values["path"])))
    ranges = tuple((start, end, sha) for start, end, sha in values["ranges"])
    form = tuple(values.get("form", ()))
    return KnownFile(**{**values, "ranges": ranges, "packing": packing, "form": form})
