"""Whatever happens to event files between and during passes, each event that a pass could read is landed once."""

import codecs
import gzip
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from obs_assets.sources.landing import BatchSizes
from obs_assets.sources.unpack import COMPRESSIONS, zstd
from obs_assets_tests.dying import DiedError, dies_at
from obs_assets_tests.sources.place import Place, event, text

NAMES = ["a.jsonl", "b.jsonl", "deep/c.jsonl"]
POINTS = [
    "landing.before_chunk",
    "landing.after_chunk",
    "landing.before_commit",
    "landing.after_commit",
]
POINTS += [
    f"{point}:{n}"
    for point in ("receipt.before_rename", "frame.after_rename")
    for n in (1, 2, 3)
]


def is_event(line: str) -> bool:
    """Whether a line is a whole event: not half of one that another was written behind."""
    try:
        return not {"time", "timestamp"}.isdisjoint(json.loads(line))
    except (ValueError, TypeError):
        return False


def _list(events: list[str]) -> str:
    return "[\n" + ",\n".join(events) + "\n]\n"


def _envelope(events: list[str]) -> str:
    return '{"Records": [\n' + ",\n".join(events) + "\n]}\n"


def _unpacked(content: bytes) -> bytes:
    if content.startswith(b"\x1f\x8b"):
        return gzip.decompress(content)
    if content.startswith(b"\x28\xb5\x2f\xfd"):
        return zstd.decompress(content)
    return content


def _lines(content: bytes) -> list[str]:
    """The lines of a file, whatever its packing, without what separates events."""
    content = _unpacked(content)
    is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = content.decode("utf-16" if is_utf16 else "utf-8")
    return [line.strip("\0,[] \r\ufeff") for line in text.split("\n")]


class EventFiles(RuleBasedStateMachine):
    """Programs that write, rotate, copy, compress and lose files, and passes that land them or die.

    Attributes:
        torn: name → what is missing of a file's last event.
        reserved: names of files that may end with zeros, which are overwritten.
        listed: name → the events of a list, or of an envelope, that is written anew each time.
        copies: names of files that no program writes on: it and its original would be two files that began alike.
        must, may: the events that have landed for sure, and those that may have.
        is_settled: no event hides behind an unfinished one that was never completed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.place = Place(Path(self.folder.name))
        self.torn: dict[str, str] = {}
        self.reserved: set[str] = set()
        self.listed: dict[str, list[str]] = {}
        self.copies: set[str] = set()
        self.must: set[str] = set()
        self.may: set[str] = set()
        self.is_settled = True
        self.rotations = 0

    @initialize(batch_bytes=st.sampled_from([1, 1 << 20]))
    def begin(self, batch_bytes: int) -> None:
        self.place.sizes = BatchSizes(largest=batch_bytes)
        self.place.path("deep").mkdir()

    def teardown(self) -> None:
        try:
            self.land(seal=True)
            self.land(seal=True)
        finally:
            self.folder.cleanup()

    # What programs do. Events are longer than a head, so that no file is too short for its copies to be known

    def names(self) -> list[str]:
        """The files that a program may write to."""
        files = [
            path
            for path in self.place.events_dir.rglob("*")
            if path.is_file() and path.suffix not in COMPRESSIONS
        ]
        return sorted(path.relative_to(self.place.events_dir).as_posix() for path in files)

    def pick(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(self.names()), label="file")

    def write(self, name: str, written: str) -> None:
        """Behind what is there; zeros that a program has reserved are overwritten."""
        path = self.place.path(name)
        before = path.read_bytes() if path.exists() else b""
        size = len(before.rstrip(b"\0")) if name in self.reserved else len(before)
        if b"\r\n" in before:
            written = written.replace("\n", "\r\n")
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(size)
            file.write(written.encode())

    def next_name(self, name: str) -> str:
        self.rotations += 1
        return f"{name.split('.jsonl', maxsplit=1)[0]}.jsonl.{self.rotations}"

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 4), completes=st.booleans())
    def append(self, name: str, count: int, completes: bool) -> None:
        rest = self.torn.pop(name, None)
        if rest is not None:
            self.write(name, f"{rest if completes else ''}\n")
            self.is_settled &= completes
        self.write(name, text([self.event() for _ in range(count)]).decode())

    @rule(name=st.sampled_from(NAMES), cut=st.floats(0.001, 0.999))
    def append_torn(self, name: str, cut: float) -> None:
        if name not in self.torn:
            whole = self.event()
            size = max(1, int(len(whole) * cut))
            self.write(name, whole[:size])
            self.torn[name] = whole[size:]

    @rule(
        name=st.sampled_from(NAMES),
        garbage=st.sampled_from(["what?", '{"a":NaN}', "[1,2]", "\0\0", '{"a":1,}', ""]),
    )
    def append_garbage(self, name: str, garbage: str) -> None:
        if name not in self.torn:
            self.write(name, garbage + "\n")

    @rule(name=st.sampled_from(NAMES), size=st.sampled_from([1, 700, 9000]))
    def reserve(self, name: str, size: int) -> None:
        """As a program does that maps its file into memory."""
        if self.place.path(name).exists() and name not in self.torn:
            self.reserved.add(name)
            with self.place.path(name).open("ab") as file:
                file.write(b"\0" * size)

    @rule(count=st.integers(1, 3), name=st.sampled_from(["list.json", "envelope.json"]))
    def rewrite_list(self, count: int, name: str) -> None:
        """A list or an envelope, with more events in it, unless something else has become of the file."""
        path = self.place.path(name)
        content = _list if name == "list.json" else _envelope
        listed = self.listed.setdefault(name, [])
        if not path.exists() or path.read_text() != content(listed):
            listed.clear()
        listed += [self.event() for _ in range(count)]
        path.write_text(content(listed))

    @precondition(lambda self: self.names())
    @rule(data=st.data(), line_end=st.sampled_from([b"\n", b"\r\n"]), has_mark=st.booleans())
    def rewrite_in_form(self, data: st.DataObject, line_end: bytes, has_mark: bool) -> None:
        """In place, with the line ends of another system, with or without a byte order mark."""
        path = self.place.path(self.pick(data))
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
        mark = codecs.BOM_UTF8 if has_mark else b""
        path.write_bytes(mark + content.replace(b"\n", line_end))

    @rule(data=st.data(), suffix=st.sampled_from(["gz", "zst"]))
    def compress_otherwise(self, data: st.DataObject, suffix: str) -> None:
        """A file that may be compressed is compressed, perhaps in another way, under a name that says so."""
        found = [
            path
            for path in sorted(self.place.events_dir.rglob("*"))
            if path.suffix in COMPRESSIONS and not path.name.endswith(".half.gz")
        ]
        if found:
            path = data.draw(st.sampled_from(found), label="packed file")
            content = _unpacked(path.read_bytes())
            path.unlink()
            packed = gzip.compress(content) if suffix == "gz" else zstd.compress(content)
            path.with_suffix(f".{suffix}").write_bytes(packed)

    @precondition(lambda self: self.names())
    @rule(data=st.data(), suffix=st.sampled_from(["gz", "zst"]))
    def misname(self, data: st.DataObject, suffix: str) -> None:
        """A file gets the name of a compressed one."""
        name = self.pick(data)
        self.close(name, f"{self.next_name(name)}.{suffix}")

    @precondition(lambda self: self.names())
    @rule(data=st.data(), encoding=st.sampled_from(["utf-16", "utf-16-be"]))
    def encode(self, data: st.DataObject, encoding: str) -> None:
        """A file is converted, under another name."""
        name = self.pick(data)
        content = self.place.path(name).read_bytes().decode()
        other = f"{self.next_name(name)}.txt.gz"  # whatever it is called
        mark = "\ufeff" if encoding == "utf-16-be" else ""
        self.close(name, other)
        self.place.path(other).write_bytes((mark + content).encode(encoding))

    def close(self, name: str, other: str) -> None:
        """Rename a file to which no program will write again."""
        self.place.path(name).rename(self.place.path(other))
        self.torn.pop(name, None)
        self.reserved.discard(name)
        self.copies.discard(name)

    @precondition(lambda self: self.names())
    @rule(data=st.data(), recreates=st.booleans())
    def rotate(self, data: st.DataObject, recreates: bool) -> None:
        name = self.pick(data)
        other = self.next_name(name)
        self.place.path(name).rename(self.place.path(other))
        self.move(name, other)
        if recreates:
            self.write(name, self.event() + "\n")

    @precondition(lambda self: self.names())
    @rule(data=st.data(), suffix=st.sampled_from(["gz", "zst"]))
    def rotate_and_compress(self, data: st.DataObject, suffix: str) -> None:
        name = self.pick(data)
        content = self.place.path(name).read_bytes()
        packed = gzip.compress(content) if suffix == "gz" else zstd.compress(content)
        self.place.path(f"{self.next_name(name)}.{suffix}").write_bytes(packed)
        self.place.path(name).unlink()
        self.torn.pop(name, None)
        self.copies.discard(name)

    @precondition(lambda self: self.names())
    @rule(data=st.data())
    def compress_half(self, data: st.DataObject) -> None:
        name = self.pick(data)
        packed = gzip.compress(self.place.path(name).read_bytes())
        self.place.path(f"{name}.half.gz").write_bytes(packed[: len(packed) // 2])

    @precondition(lambda self: self.names())
    @rule(data=st.data())
    def copy_and_truncate(self, data: st.DataObject) -> None:
        name = self.pick(data)
        shutil.copy(self.place.path(name), self.place.path(other := self.next_name(name)))
        self.place.path(name).write_bytes(b"")
        self.torn.pop(name, None)
        if name in self.copies:
            self.copies.add(other)

    @precondition(lambda self: self.names())
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        name = self.pick(data)
        shutil.copy(self.place.path(name), self.place.path(other := self.next_name(name)))
        self.copies.add(other)

    @precondition(lambda self: self.names())
    @rule(data=st.data(), other=st.sampled_from(NAMES))
    def rename(self, data: st.DataObject, other: str) -> None:
        name = self.pick(data)
        if name not in self.copies and not self.place.path(other).exists():
            self.place.path(name).rename(self.place.path(other))
            self.move(name, other)

    @precondition(lambda self: self.names())
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = self.pick(data)
        self.place.path(name).unlink()
        self.torn.pop(name, None)
        self.copies.discard(name)

    def move(self, name: str, other: str) -> None:
        self.torn.pop(other, None)
        self.reserved.discard(other)
        if name in self.reserved:
            self.reserved.remove(name)
            self.reserved.add(other)
        if name in self.torn:
            self.torn[other] = self.torn.pop(name)
        if name in self.copies:
            self.copies.remove(name)
            self.copies.add(other)

    def event(self) -> str:
        return event(filler="lorem ipsum " * 95)

    # What landing does

    @rule()
    def lose_checkpoint(self) -> None:
        (self.place.log.root / "checkpoint.json").unlink(missing_ok=True)

    @rule(point=st.sampled_from(POINTS))
    def land_and_crash(self, point: str) -> None:
        try:
            with dies_at(point):
                self.place.land(max_event_bytes=4096)
        except DiedError:
            self.may |= self.present()
        else:
            self.note_landing()
        self.check()

    @rule()
    def land(self, *, seal: bool = False) -> None:
        self.place.land(max_event_bytes=4096, **({"seal_after_minutes": 0} if seal else {}))
        self.is_settled |= seal
        self.note_landing()
        self.check()

    @rule(files=st.integers(1, 2), size=st.sampled_from([1, 3000]))
    def land_a_little(self, files: int, size: int) -> None:
        """A pass that has its fill: nothing is sure to have landed, nothing lands twice."""
        self.place.land(max_event_bytes=4096, max_files_per_pass=files, max_bytes_per_pass=size)
        self.may |= self.present()
        self.check()

    def note_landing(self) -> None:
        self.may |= self.present()
        if self.is_settled:
            self.must |= self.present()

    def present(self) -> set[str]:
        """All whole events that can be read now."""
        lines: set[str] = set()
        for path in self.place.events_dir.rglob("*"):
            if path.is_file() and not path.name.endswith(
                ".half.gz"
            ):  # it lies beside its whole
                lines |= {line for line in _lines(path.read_bytes()) if is_event(line)}
        return lines

    def check(self) -> None:
        landed = Counter(self.place.audit().lines())
        assert max(landed.values(), default=1) == 1
        assert self.must <= landed.keys() <= self.may


class OnlyFile:
    """Draws this file."""

    def __init__(self, name: str) -> None:
        self.name = name

    def draw(self, *_: Any, **__: Any) -> str:
        return self.name


def test_an_original_that_was_written_on_and_converted_keeps_its_copy() -> None:
    """A copy ends with zeros that the program later wrote over: it is no longer than the original, which lands once."""
    state = EventFiles()
    state.begin(batch_bytes=1)
    file: Any = OnlyFile("a.jsonl")
    state.append(completes=False, count=1, name="a.jsonl")
    state.reserve(name="a.jsonl", size=1)
    state.land_a_little(files=1, size=1)
    state.reserve(name="a.jsonl", size=700)
    state.append_garbage(garbage="what?", name="a.jsonl")
    state.copy(data=file)
    state.append_torn(cut=0.3, name="a.jsonl")
    state.encode(data=file, encoding="utf-16")
    state.land()
    state.teardown()


def test_a_converted_file_under_the_name_of_an_unfinished_one_lands_once() -> None:
    """Nothing has landed of the file that had the name before, so that the name does not say which file it is."""
    state = EventFiles()
    state.begin(batch_bytes=1)
    file: Any = OnlyFile("a.jsonl")
    state.append_torn(cut=0.5, name="a.jsonl")
    state.append(completes=False, count=1, name="b.jsonl")
    state.land()
    state.delete(data=file)
    state.rename(data=cast("Any", OnlyFile("b.jsonl")), other="a.jsonl")
    state.rewrite_in_form(data=file, has_mark=True, line_end=b"\n")
    state.land()
    state.teardown()


def test_a_converted_file_with_the_inode_of_an_unfinished_one_lands_once() -> None:
    """Nor does the inode say it: the file was renamed when nothing of it had landed."""
    state = EventFiles()
    state.begin(batch_bytes=1)
    a, b = (cast("Any", OnlyFile(name)) for name in ("a.jsonl", "b.jsonl"))
    state.append_torn(cut=0.21, name="a.jsonl")
    state.land_a_little(files=1, size=1)
    state.rename(data=a, other="b.jsonl")
    state.append(completes=False, count=1, name="b.jsonl")
    state.land()
    state.copy(data=b)
    state.rename(data=b, other="a.jsonl")
    state.rewrite_in_form(data=a, has_mark=True, line_end=b"\n")
    state.land()
    state.teardown()


EventFilesTest = pytest.mark.slow(EventFiles.TestCase)
EventFilesTest.settings = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.soak
def test_a_thousand_histories() -> None:
    """The same, twenty times as often."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        EventFiles,
        settings=settings(
            max_examples=1000,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
