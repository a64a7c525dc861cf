"""Which files there are and which is which, whatever rotates, copies or compresses them."""

import gzip
import os
import random
import resource
import shutil
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from obs_assets.errors import ConfigurationError
from obs_assets.sources.files import HEAD_BYTES, Listing, SourceConfig, list_files
from obs_assets.sources.landing import BatchSizes
from obs_assets.sources.unpack import zstd
from obs_assets_tests.opened import opened_below
from obs_assets_tests.sources.place import (
    Place,
    after_listing,
    event,
    events,
    once_at,
    text,
)

HEADER = f'{{"time": "2031-05-06T00:00:00Z", "banner": "{"=" * 2 * HEAD_BYTES}"}}'


def names(listing: Listing) -> list[str]:
    return [file.path for file in listing.files]


# Listing


def test_files_are_found_by_name(tmp_path: Path) -> None:
    """Folders are read recursively, hidden ones are not; names decide, those that log rotation gives included."""
    wanted = [
        "a.json",
        "a.log",
        "a.log.1",
        "a.jsonl",
        "a.jsonl.1",
        "a.jsonl.2.gz",
        "a.jsonl-20310506",
        "b.ndjson.gz",
        "deep/er/c.jsonl",
    ]
    for name in [*wanted, "a.txt", "b.jsonl.tmp", ".hidden/d.jsonl", "jsonl"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert names(list_files(SourceConfig(events_dir=tmp_path))) == sorted(wanted)


def test_patterns_and_event_types(tmp_path: Path) -> None:
    """include and exclude are patterns, of names or of paths; event_types are parts of names, as in the original."""
    for name in ["agent-door.jsonl", "agent-lamp.jsonl", "old/agent-door.jsonl", "notes.log"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")

    def found(**options: tuple[str, ...]) -> list[str]:
        return names(list_files(SourceConfig(events_dir=tmp_path, **options)))  # type: ignore[arg-type]

    assert found(event_types=("door",)) == ["agent-door.jsonl", "old/agent-door.jsonl"]
    assert found(event_types=("door", "lamp"), exclude=("old/*",)) == [
        "agent-door.jsonl",
        "agent-lamp.jsonl",
    ]
    assert found(include=("*.log",)) == ["notes.log"]
    assert found(exclude=("agent-*",)) == ["notes.log"]
    assert found(exclude=("agent-*", "*.log")) == []


def test_what_is_no_file_is_skipped_and_counted(tmp_path: Path) -> None:
    """Links, FIFOs, sockets and folders with a file's name are passed over, never opened."""
    outside = tmp_path / "outside.jsonl"
    outside.write_text("{}")
    root = tmp_path / "events"
    (root / "folder.jsonl").mkdir(parents=True)
    (root / "folder.jsonl" / "inside.jsonl").write_text("{}")
    (root / "link.jsonl").symlink_to(outside)
    (root / "broken.jsonl").symlink_to("nowhere")
    (root / "up").symlink_to("..")
    os.mkfifo(root / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(root / "socket.jsonl"))
        listing = list_files(SourceConfig(events_dir=root))
    assert names(listing) == ["folder.jsonl/inside.jsonl"]
    assert listing.skipped == {
        "symbolic link": 2,
        "not a regular file": 3,
    }


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("")])
def test_missing_folder_is_explained(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """The message names the folder and the setting."""
    path = tmp_path / "nowhere"
    make(path)
    with pytest.raises(
        ConfigurationError, match=rf"{path} \(OBS_EVENTS_DIR\): (No such file|Not a directory)"
    ):
        list_files(SourceConfig(events_dir=path))
    with pytest.raises(ConfigurationError, match="set OBS_EVENTS_DIR"):
        list_files(SourceConfig())


def test_file_that_vanishes_while_listing(tmp_path: Path) -> None:
    """A file that is rotated away between the reading of its folder and the look at it does no harm."""
    (tmp_path / "kept.jsonl").write_text("{}")
    is_over = threading.Event()

    def come_and_go() -> None:
        while not is_over.is_set():
            for number in range(50):
                (tmp_path / f"{number}.jsonl").touch()
            for number in range(50):
                (tmp_path / f"{number}.jsonl").unlink()

    rotating = threading.Thread(target=come_and_go)
    rotating.start()
    try:
        for _ in range(100):
            assert "kept.jsonl" in names(list_files(SourceConfig(events_dir=tmp_path)))
    finally:
        is_over.set()
        rotating.join()


def test_name_that_is_no_utf8(place: Place) -> None:
    """A file with a broken name is landed under a printable one."""
    (place.events_dir / os.fsdecode(b"caf\xe9.jsonl")).write_bytes(text([event()]))
    place.land()
    assert [row["event_file"] for row in place.audit().rows()] == ["caf\\xe9.jsonl"]


# Identity


def test_append(place: Place) -> None:
    """Only what is new is landed."""
    lines = place.write("a.jsonl", events(3))
    assert (
        place.land().bytes_read == len(text(lines)) - 1
    )  # the newline behind the last event waits for the next
    more = place.append("a.jsonl", events(2))
    assert place.land().bytes_read == len(text(more))
    assert place.audit().lines() == sorted(lines + more)


def test_nothing_new_is_no_pass(place: Place) -> None:
    """A pass over unchanged files opens none of them and leaves nothing behind."""
    place.write("a.jsonl", events(3))
    place.land()
    again = place.land()
    assert (again.number, again.files_read, again.bytes_read, again.files_listed) == (
        None,
        0,
        0,
        1,
    )
    assert [path.name for path in place.log.passes_dir.iterdir()] == ["00000001"]


@pytest.mark.slow
def test_short_file_grows(place: Place) -> None:
    """A file shorter than the head by which it is known stays itself while it grows past it."""
    lines: list[str] = []
    for _ in range(10):
        lines += place.append("a.jsonl", events(4))
        place.land()
    assert place.audit().lines() == sorted(lines)
    assert len(place.receipts()) == 1


@pytest.mark.slow
def test_rename(place: Place) -> None:
    """A renamed file is known; what is appended under its new name is all that is landed."""
    lines = place.write("a.jsonl", events(3))
    place.land()
    place.path("a.jsonl").rename(place.path("b.jsonl"))
    assert place.land().bytes_read == 0
    assert place.land().files_read == 0  # and remembered
    lines += place.append("b.jsonl", events(2))
    place.land()
    assert place.audit().lines() == sorted(lines)


def test_exchange_of_names(place: Place) -> None:
    """Two files that exchange their names keep their identities."""
    lines = place.write("a.jsonl", events(3)) + place.write("b.jsonl", events(4))
    place.land()
    place.path("a.jsonl").rename(place.path("c.jsonl"))
    place.path("b.jsonl").rename(place.path("a.jsonl"))
    place.path("c.jsonl").rename(place.path("b.jsonl"))
    lines += place.append("a.jsonl", events(1)) + place.append("b.jsonl", events(1))
    place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_rotation_by_rename(place: Place) -> None:
    """The old file's tail is read under its new name, the new file from its beginning; again and again."""
    lines: list[str] = []
    for _ in range(5):
        lines += place.append("a.jsonl", events(3))
        place.land()
        lines += place.append("a.jsonl", events(2))  # the tail that landing has not seen
        for number in range(8, 0, -1):
            if place.path(f"a.jsonl.{number}").exists():
                place.path(f"a.jsonl.{number}").rename(place.path(f"a.jsonl.{number + 1}"))
        place.path("a.jsonl").rename(place.path("a.jsonl.1"))
        lines += place.write("a.jsonl", events(1))
        place.land()
    assert place.audit().lines() == sorted(lines)


def test_rotation_by_copy(place: Place) -> None:
    """copytruncate: the copy continues what was landed, the truncated file begins anew."""
    lines = place.write("a.jsonl", events(50))
    place.land()
    lines += place.append("a.jsonl", events(2))
    shutil.copy(place.path("a.jsonl"), place.path("a.jsonl.1"))
    lines += place.write("a.jsonl", events(60))
    place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_rotation_by_copy_seen_half_way(place: Place) -> None:
    """A pass between the copying and the truncation lands nothing twice."""
    lines = place.write("a.jsonl", events(50))
    place.land()
    lines += place.append("a.jsonl", events(2))
    shutil.copy(place.path("a.jsonl"), place.path("a.jsonl.1"))
    lines += place.append("a.jsonl", events(1))
    assert place.land().warnings == {"copy of another file": 1}
    lines += place.write("a.jsonl", events(3))
    place.land()
    assert place.audit().lines() == sorted(lines)


def test_truncation_to_the_same_size(place: Place) -> None:
    """Other content of the same size in the same inode is a new file."""
    first = place.write("a.jsonl", events(3))
    place.land()
    second = [line.replace("05-06", "05-05") for line in first]
    place.write("a.jsonl", second)
    place.land()
    assert place.audit().lines() == sorted(first + second)


def test_truncation_of_a_file_that_begins_as_before(place: Place) -> None:
    """A common head and a larger size do not hide that the rest is another."""
    first = place.write("a.jsonl", [HEADER, *events(3)])
    place.land()
    second = place.write("a.jsonl", [HEADER, *events(5)])
    place.land()
    assert place.audit().lines() == sorted(first + second)


@pytest.mark.slow
def test_replaced_file_with_the_same_inode(place: Place) -> None:
    """Deleted and created anew under the same name, in the same inode even, is a new file."""
    lines = place.write("a.jsonl", events(3))
    place.land()
    for _ in range(3):
        place.path("a.jsonl").unlink()
        lines += place.write("a.jsonl", events(4))
        place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.parametrize("tail", [0, 2])
def test_compression_after_rotation(place: Place, tail: int) -> None:
    """The same content in a .gz is not landed again; a tail that was never seen is."""
    lines = place.write("a.jsonl", events(200))
    place.land()
    lines += place.append("a.jsonl", events(tail))
    with gzip.open(place.path("a.jsonl.1.gz"), "wb") as file:
        file.write(place.path("a.jsonl").read_bytes())
    place.path("a.jsonl").unlink()
    lines += place.write("a.jsonl", events(1))
    place.land()
    assert place.land().files_read == 0
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_compression_seen_half_way(place: Place) -> None:
    """A .gz that is being written beside its original lands nothing twice, neither then nor when it is whole."""
    lines = place.write("a.jsonl.1", events(3000))
    place.land()
    whole = gzip.compress(place.path("a.jsonl.1").read_bytes())
    for size in (10, len(whole) // 3, len(whole) // 2, len(whole) - 4, len(whole)):
        place.path("a.jsonl.1.gz").write_bytes(whole[:size])
        assert place.land().hours == {}, size
    place.path("a.jsonl.1").unlink()
    assert place.land().hours == {}
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_compression_seen_half_way_of_a_file_never_seen(place: Place) -> None:
    """The same on the very first pass."""
    lines = place.write("a.jsonl.1", events(3000))
    whole = gzip.compress(place.path("a.jsonl.1").read_bytes())
    place.path("a.jsonl.1.gz").write_bytes(whole[: len(whole) // 2])
    place.land()
    place.path("a.jsonl.1.gz").write_bytes(whole)
    place.path("a.jsonl.1").unlink()
    place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_truncated_gz_waits_for_its_rest(place: Place) -> None:
    """What can be read of a .gz is landed, the rest once it is there; the event that was cut is landed whole."""
    lines = events(5000)
    whole = gzip.compress(text(lines))
    for size in range(0, len(whole), len(whole) // 5):
        place.path("a.jsonl.gz").write_bytes(whole[:size])
        report = place.land()
        assert report.warnings == ({"unfinished .gz": 1} if size else {})
    place.path("a.jsonl.gz").write_bytes(whole)
    assert place.land().warnings == {}
    assert place.audit().lines() == sorted(lines)
    assert not place.dead()


def test_gz_of_several_members(place: Place) -> None:
    """All members are read, also those that are appended later."""
    lines = events(9)
    path = place.path("a.jsonl.gz")
    path.write_bytes(gzip.compress(text(lines[:3])) + gzip.compress(text(lines[3:6])))
    place.land()
    path.write_bytes(path.read_bytes() + gzip.compress(text(lines[6:])))
    place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_zst_of_several_frames(place: Place) -> None:
    """A rotated file in a .zst is known; all its frames are read, also those that are appended later."""
    lines = place.write("a.jsonl", events(60))
    place.land()
    place.path("a.jsonl").unlink()
    frames = [zstd.compress(text(lines[:20])), zstd.compress(text(lines[20:]))]
    place.path("a.jsonl.1.zst").write_bytes(b"".join(frames))
    place.land()
    assert place.audit().lines() == sorted(lines)
    for _ in range(2):
        more = events(3)
        with place.path("a.jsonl.1.zst").open("ab") as file:
            file.write(zstd.compress(text(more)))
        lines += more
        place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_damaged_zst_costs_only_itself(place: Place) -> None:
    """What can be read before the damage is landed, with a warning; the rest of an unfinished one once it is there."""
    lines = place.write("a.jsonl", events(3))
    packed, others = zstd.compress(text(events(3))), events(2000)
    place.path("b.jsonl.zst").write_bytes(packed[:9] + b"\xff" * 9 + packed[18:])
    whole = zstd.compress(text(others))
    place.path("c.jsonl.zst").write_bytes(whole[: len(whole) - 2])
    report = place.land()
    assert set(report.warnings) == {"damaged .zst", "unfinished .zst"}
    place.path("c.jsonl.zst").write_bytes(whole)
    place.land()
    assert place.audit().lines() == sorted(lines + others)


@pytest.mark.parametrize("count", [2, 40])
def test_a_copy_that_stays_incomplete_counts_once(place: Place, count: int) -> None:
    """Half a .gz beside its original is its copy, though little of it can be read and nobody goes on writing it."""
    lines = place.write("a.jsonl", events(count))
    packed = gzip.compress(text(lines))
    place.path("a.jsonl.1.gz").write_bytes(packed[: len(packed) * 2 // 3])
    place.land()
    place.land(seal_after_minutes=0)
    assert place.audit().lines() == sorted(lines)


def test_an_older_copy_of_a_file_that_was_compressed_counts_once(place: Place) -> None:
    """Copied, continued and compressed before any pass: the compressed one, which holds most, is the original."""
    lines = place.write("a.jsonl", events(40))
    place.path("a.jsonl.1").write_bytes(text(lines))
    lines += place.append("a.jsonl", events(40))
    place.path("a.jsonl.2.gz").write_bytes(gzip.compress(text(lines)))
    place.path("a.jsonl").unlink()
    assert place.land().warnings == {"copy of another file": 1}
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_damaged_gz_costs_only_itself(place: Place) -> None:
    """Broken compression stops no other file, on no pass; what can be read of it is landed, with a warning."""
    lines, broken = place.write("a.jsonl", events(3)), events(20_000)
    packed = bytearray(gzip.compress(text(broken)))
    packed[len(packed) // 2 :] = random.Random(7).randbytes(len(packed) // 2)
    place.path("b.jsonl.gz").write_bytes(packed)
    place.path("c.jsonl.gz").write_text("not compressed at all\n")
    report = place.land()
    assert (report.warnings, report.dead_letters) == ({"damaged .gz": 1}, {"not_json": 1})
    lines += place.append("a.jsonl", events(1))
    place.path("b.jsonl.gz").touch()
    place.path("a2.jsonl").write_bytes(place.path("a.jsonl").read_bytes())
    place.land()
    landed = set(place.audit().lines())
    assert set(lines) < landed <= {*lines, *broken}


def test_files_with_the_same_head(place: Place) -> None:
    """Files that begin with the same bytes, more of them than the head, are told apart, also when they move."""
    lines = {
        name: place.write(name, [HEADER, *events(5)])
        for name in ("a.jsonl", "b.jsonl", "c.jsonl")
    }
    place.land()
    lines["a.jsonl"] += place.append("a.jsonl", events(1))
    shutil.copy(place.path("b.jsonl"), place.path("d.jsonl"))
    place.path("b.jsonl").unlink()
    place.path("c.jsonl").rename(place.path("e.jsonl"))
    lines["e.jsonl"] = place.append("e.jsonl", events(2))
    place.land()
    assert place.audit().lines() == sorted(
        line for several in lines.values() for line in several
    )


@pytest.mark.slow
def test_longest_known_beginning_wins(place: Place) -> None:
    """Of two gone files, one of which began like the other, a moved file continues the one that it holds more of."""
    first = event()
    place.write("short.jsonl", [first])
    place.land()
    more = events(3)
    place.write("long.jsonl", [first, *more])
    place.land()
    whole = place.path("long.jsonl").read_bytes()
    place.path("short.jsonl").unlink()
    place.path("long.jsonl").unlink()
    place.path("moved.jsonl.gz").write_bytes(gzip.compress(whole))
    assert place.land().hours == {}
    assert place.audit().lines() == sorted([first, first, *more])


def test_torn_beginning_is_nobody(place: Place) -> None:
    """A file of which only a piece of a line was landed, and that is gone, does not swallow how others begin."""
    first = event()
    place.path("a.jsonl").write_text(first[:20])
    place.land(seal_after_minutes=0)
    place.path("a.jsonl").unlink()
    lines = place.write("b.jsonl", [first, event()])
    place.land()
    assert place.audit().lines() == sorted(lines)


def test_stub_of_a_gz_waits(place: Place) -> None:
    """A .gz of which next to nothing can be read yet is left alone, and is landed as far as it goes once it is idle."""
    first, second = events(2)
    packed = [gzip.compress(text([line])) for line in (first, second)]
    place.path("a.jsonl.gz").write_bytes(packed[0] + packed[1][:20])
    assert place.land().warnings == {"unfinished .gz": 1}
    assert place.lines() == []
    assert place.land(seal_after_minutes=0).hours == {"2031-05-06-12:00": 1}
    assert place.audit().lines() == [first]


# Copies


def copy(place: Place, name: str, other: str) -> None:
    """Copy a file, compressed if the other's name says so."""
    content = place.path(name).read_bytes()
    place.path(other).write_bytes(gzip.compress(content) if other.endswith(".gz") else content)


@pytest.mark.parametrize("other", ["0.jsonl", "b.jsonl", "b.jsonl.gz"])
@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("landed_before", [False, True])
def test_identical_copy_counts_once(
    place: Place, other: str, count: int, landed_before: bool
) -> None:
    """A copy beside its original counts once, with a warning, said once; its receipt says what it was."""
    lines = place.write("a.jsonl", events(count))
    if landed_before:
        place.land()
    copy(place, "a.jsonl", other)
    assert place.land().warnings == {"copy of another file": 1}
    assert place.land().warnings == {}
    assert place.audit().lines() == sorted(lines)
    copied = sorted(
        one.copied_bytes for several in place.receipts().values() for one in several
    )
    assert copied == [0, len(text(lines)) - 1]


@pytest.mark.slow
def test_copy_stays_one_when_the_original_goes_on(place: Place) -> None:
    """Neither the growth nor the end of the original lands the copy."""
    lines = place.write("a.jsonl", events(100))
    copy(place, "a.jsonl", "b.jsonl")
    place.land()
    for _ in range(2):
        lines += place.append("a.jsonl", events(3))
        place.path("b.jsonl").touch()
        place.land()
    place.path("a.jsonl").unlink()
    place.path("b.jsonl").touch()
    place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_copy_of_a_growing_file(place: Place) -> None:
    """A copy of all that the original held some time ago is a copy too, and so is one that is still being made."""
    lines = place.write("a.jsonl", events(300))
    place.land()
    whole = place.path("a.jsonl").read_bytes()
    for size in (len(whole) // 3, len(whole) // 2, len(whole)):
        place.path("b.jsonl").write_bytes(whole[:size])
        lines += place.append("a.jsonl", events(1))
        place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_copy_that_becomes_a_file_of_its_own(place: Place) -> None:
    """What a copy gets that its original does not is landed, once."""
    lines = place.write("a.jsonl", events(100))
    copy(place, "a.jsonl", "b.jsonl")
    place.land()
    lines += place.append("b.jsonl", events(2))
    lines += place.append("a.jsonl", events(3))
    place.land()
    lines += place.append("b.jsonl", events(2))
    place.land()
    assert place.audit().lines() == sorted(lines)


def test_short_file_that_begins_like_another_is_no_copy(place: Place) -> None:
    """A first line in common, shorter than a head, is chance: true duplicates are events too."""
    first = event()
    lines = place.write("a.jsonl", [first, *events(3)]) + place.write("b.jsonl", [first])
    assert place.land().warnings == {}
    lines += (
        place.append("a.jsonl", events(1))
        + place.append("b.jsonl", events(1))
        + place.write("c.jsonl", [first])
    )
    assert place.land().warnings == {}
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_hard_link_counts_once(place: Place) -> None:
    """Two names of one inode are one file, however it grows."""
    lines = place.write("a.jsonl", events(100))
    os.link(place.path("a.jsonl"), place.path("b.jsonl"))
    for _ in range(3):
        place.land()
        lines += place.append("a.jsonl", events(2))
    place.land()
    assert place.audit().lines() == sorted(lines)


# What happens while a pass is under way


def test_file_that_grows_while_it_is_read(place: Place) -> None:
    """It is read to the size that it had; the rest is the next pass's."""
    lines = place.write("a.jsonl", events(3))
    with after_listing(lambda: lines.extend(place.append("a.jsonl", events(2)))):
        report = place.land()
    assert report.bytes_read == len(text(lines[:3])) - 1
    place.land()
    assert place.audit().lines() == sorted(lines)


def test_file_that_shrinks_while_it_is_read(place: Place) -> None:
    """What is left is landed, with a warning; what it gets next is that of a new file."""
    lines = place.write("a.jsonl", events(3))
    with after_listing(lambda: os.truncate(place.path("a.jsonl"), len(text(lines[:2])))):
        report = place.land()
    assert report.warnings == {"truncated while it was read": 1}
    assert place.audit().lines() == sorted(lines[:2])
    more = place.write("a.jsonl", events(1))
    place.land()
    assert place.audit().lines() == sorted(lines[:2] + more)


def test_file_that_vanishes_before_it_is_read(place: Place) -> None:
    """The other files are landed, with a warning."""
    place.write("a.jsonl", events(3))
    lines = place.write("b.jsonl", events(3))
    with after_listing(place.path("a.jsonl").unlink):
        report = place.land()
    assert report.warnings == {"unreadable file": 1}
    assert place.audit().lines() == sorted(lines)


def test_link_put_in_place_of_a_file(place: Place) -> None:
    """A link that appears after the listing is not followed."""
    secret = place.root / "secret"
    secret.write_text(event())
    place.write("a.jsonl", events(1))

    def replace() -> None:
        place.path("a.jsonl").unlink()
        place.path("a.jsonl").symlink_to(secret)

    with after_listing(replace):
        report = place.land()
    assert report.warnings == {"unreadable file": 1}
    assert place.lines() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "warnings"),
    [
        ("landing.before_read", {"replaced while it was looked at": 1}),
        ("landing.after_chunk", {}),
    ],
)
def test_file_that_is_rotated_under_a_pass(
    place: Place, point: str, warnings: dict[str, int]
) -> None:
    """Before it is read, or when it was: a new file under its name is not read from the middle, nor taken for read."""
    lines = place.write("a.jsonl", events(30))
    place.land()
    lines += place.append("a.jsonl", events(3))

    def rotate() -> None:
        place.path("a.jsonl").rename(place.path("a.jsonl.1"))
        lines.extend(place.write("a.jsonl", events(60)))

    with once_at(point, rotate):
        report = place.land()
    assert report.warnings == warnings
    lines += place.append("a.jsonl.1", events(1))
    place.land()
    assert place.audit().lines() == sorted(lines)


def test_file_that_fails_half_way_is_tried_again(place: Place) -> None:
    """After an error of the disk the next pass goes on where this one stopped, although the file is unchanged."""
    place.sizes = BatchSizes(largest=65_536)
    # More than Python's buffer of a file, which has 128 KiB from 3.14 on.
    lines = place.write("a.jsonl", [event(filler="x" * 700) for _ in range(600)])
    with once_at("landing.after_chunk", partial(fail_to_read, place.path("a.jsonl"))):
        report = place.land(max_event_bytes=1024)
    assert report.warnings == {"unreadable file": 1}
    assert 0 < report.bytes_read < len(text(lines))
    place.land(max_event_bytes=1024)
    assert place.audit().lines() == sorted(lines)


def fail_to_read(path: Path) -> None:
    """Let a file that this process has open answer every further read with an error, as a failing disk does."""
    folder = os.open(path.parent, os.O_RDONLY)
    for link in Path("/proc/self/fd").iterdir():
        if link.is_symlink() and link.readlink() == path:
            os.dup2(folder, int(link.name))
    os.close(folder)


def test_more_files_than_may_be_open(place: Place) -> None:
    """A file is closed as soon as it was read."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lines = [
        line for number in range(300) for line in place.write(f"{number}.jsonl", [event()])
    ]
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        assert place.land().warnings == {}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_new_files_among_thousands(place: Place) -> None:
    """Recognition looks into no more files than have the same head: a second thousand costs what the first did."""
    for number in range(1000):
        place.write(f"a{number}.jsonl", events(10))
    place.land()
    for number in range(1000):
        place.write(f"b{number}.jsonl", events(10))
    with opened_below(place.events_dir) as opened:
        report = place.land()
    assert (report.files_read, sum(report.hours.values())) == (1000, 10_000)
    assert 1000 <= len(opened) <= 5 * 1000


PACKED = {
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "twice": lambda data: gzip.compress(gzip.compress(data)),
    "members": lambda data: gzip.compress(data[:70]) + gzip.compress(data[70:]),
    "plain": bytes,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("packing", PACKED)
def test_first_bytes_say_how_a_file_is_compressed(
    place: Place, packing: str, name: str
) -> None:
    """Not its name: whatever it is called its events land once, also after it got another name or was packed anew."""
    lines = events(5)
    place.path(name).write_bytes(PACKED[packing](text(lines[:4])))
    report = place.land()
    is_as_named = (packing, name) in {
        ("gzip", "a.jsonl.gz"),
        ("members", "a.jsonl.gz"),
        ("zstd", "a.jsonl.zst"),
    }
    is_as_named |= (packing, name) == ("plain", "a.jsonl")
    assert report.remarks.get("compression_not_as_named", 0) == (0 if is_as_named else 4)
    assert (report.dead_letters, report.warnings) == ({}, {})
    place.path(name).rename(place.path("b.jsonl.gz"))
    place.land()
    for repacked in PACKED.values():
        place.path("b.jsonl.gz").write_bytes(repacked(text(lines)))
        place.land()
    assert place.audit().lines() == sorted(lines)


def test_unknown_compression_is_named(place: Place) -> None:
    """It is not read as text, whatever its name; and a name alone keeps no text from being read."""
    place.path("a.jsonl").write_bytes(b"\xfd7zXZ\0" + bytes(range(256)))
    lines = sorted(place.write("b.jsonl.xz", events(2)))
    report = place.land(include=("*",))
    assert (report.warnings, place.dead()) == ({"compressed, but not as .gz or .zst": 1}, [])
    assert report.files_warned == {"compressed, but not as .gz or .zst": ("a.jsonl",)}
    assert place.audit().lines() == lines


def test_of_two_packed_files_the_longer_is_the_original(place: Place) -> None:
    """The length of the content decides, not the size of the compressed file; each event lands once."""
    lines = events(700)
    packed_loosely = gzip.compress(text(lines[:300]), compresslevel=0)
    packed_well = zstd.compress(text(lines))
    assert len(packed_well) < len(packed_loosely)
    place.path("a.jsonl.gz").write_bytes(packed_loosely)
    place.path("b.jsonl.zst").write_bytes(packed_well)
    assert place.land().warnings == {"copy of another file": 1}
    assert place.audit().lines() == sorted(lines)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32"])
def test_text_in_another_encoding_is_read(place: Place, encoding: str) -> None:
    """UTF-16 with a byte order mark or without it: its events land, while it grows and once it is UTF-8."""
    lines = [event(note="Grüße 端 😀"), *events(5)]
    whole = "".join(f"{line}\r\n" for line in lines)
    for end in (whole.index("\n") + 1, whole.index("\n") + 30, len(whole)):
        place.path("a.jsonl").write_bytes(whole[:end].encode(encoding))
        report = place.land()
        assert (report.dead_letters, report.warnings) == ({}, {})
    assert report.remarks.get("decoded_from_utf16", 0) == 5
    place.path("a.jsonl").write_text(whole, encoding="utf-8")
    place.land()
    assert place.audit().lines() == sorted(lines)


def test_utf8_behind_utf16_is_one_letter_that_says_so(place: Place) -> None:
    """A program that appends UTF-8 to a file that PowerShell began: the tail costs itself."""
    lines = events(3)
    utf16 = "".join(f"{line}\n" for line in lines).encode("utf-16")
    place.path("a.jsonl").write_bytes(utf16 + text(events(2)))
    report = place.land(seal_after_minutes=0)
    assert place.audit().lines() == sorted(lines)
    assert report.dead_letters == {"utf8_in_utf16": 1}


def test_half_a_character_costs_its_event(place: Place) -> None:
    """Half a surrogate pair in UTF-16 is no character: its event is a dead letter, the others land."""
    lines = events(2)
    broken = event(note="X").encode("utf-16-le").replace(b"X\0", b"\x3d\xd8")
    whole = (
        (lines[0] + "\n").encode("utf-16")
        + broken
        + ("\n" + lines[1] + "\n").encode("utf-16-le")
    )
    place.path("a.jsonl").write_bytes(whole)
    assert place.land().dead_letters == {"invalid_utf8": 1}
    assert place.audit().lines() == sorted(lines)


@pytest.mark.parametrize("size", [5000, 3 << 20])
def test_zeros_at_the_end_wait(place: Place, size: int) -> None:
    """A file that is preallocated or memory-mapped: what overwrites its zeros lands, each event once."""
    lines: list[str] = []
    for count in (3, 3, 0, 2):
        lines += events(count)
        place.path("a.jsonl").write_bytes(text(lines).ljust(size, b"\0"))
        for _ in range(2):  # the second pass finds it untouched
            assert place.land().dead_letters == {}
        assert place.audit().lines() == sorted(lines)
    place.path("a.jsonl").write_bytes(text(lines))  # cut when it is closed
    place.land(seal_after_minutes=0)
    assert place.audit().lines() == sorted(lines)


def test_zeros_behind_a_torn_event_wait_with_it(place: Place) -> None:
    """An event that is half written into reserved space is unfinished, not damaged."""
    lines = events(3)
    whole = text(lines)
    for cut in range(len(whole) - 60, len(whole), 13):
        place.path("a.jsonl").write_bytes(whole[:cut].ljust(4000, b"\0"))
        assert place.land().dead_letters == {}
    place.path("a.jsonl").write_bytes(whole.ljust(4000, b"\0"))
    assert place.land(seal_after_minutes=0).dead_letters == {}
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[{0}]", "[{0},{1}]"),
        ("[\n  {0}\n]\n", "[\n  {0},\n  {1}\n]\n"),
        ("{0}\n\n\n", "{0}\n{1}\n"),
        ("{0}\r\n", "{0}\n{1}"),
        ("{0}\0\0\0", "{0}\0{1}\0"),
        ("\x1e{0}\n\x1e", "\x1e{0}\n\x1e{1}\n"),
    ],
)
def test_separators_behind_the_last_event_may_be_overwritten(
    place: Place, before: str, after: str
) -> None:
    """A list that is written again with one more event is the same file, in place, moved, or beside its old version."""
    first, second = events(2)
    for name in ("a.jsonl", "b.jsonl"):
        place.path("a.jsonl").write_text(before.format(first, second))
        place.land()
        place.path("a.jsonl").rename(place.path(name))
        place.path(name).write_text(after.format(first, second))
        place.land()
        assert place.audit().lines() == sorted([first, second])
        first, second = events(2)
        for path in place.events_dir.iterdir():
            path.unlink()
        place = Place(place.root / "other")


@pytest.mark.parametrize("before", [b"", b"[", b"\n\n"])
def test_file_without_any_event_yet(place: Place, before: bytes) -> None:
    """A file that holds separators, or zeros alone, is looked at once, and is itself when its events come."""
    place.path("a.jsonl").write_bytes(before.ljust(9000, b"\0"))
    place.path("b.jsonl").write_bytes(before.ljust(9000, b"\0"))
    place.land()
    assert place.land().files_read == 0
    lines = events(4)
    place.path("a.jsonl").write_bytes((before + text(lines[:2])).ljust(9000, b"\0"))
    place.path("b.jsonl").write_bytes((before + text(lines[2:])).ljust(9000, b"\0"))
    for _ in range(2):
        place.land()
    assert place.audit().lines() == sorted(lines)


def test_hole_larger_than_a_pass_is_crossed(place: Place) -> None:
    """Copytruncate under a writer that does not append: the passes get to the events behind the hole."""
    lines = events(3)
    with place.path("a.jsonl").open("wb") as file:
        file.seek(1 << 20)
        file.write(text(lines))
    for _ in range(3):
        place.land(max_bytes_per_pass=1, max_event_bytes=1024)
    assert place.audit().lines() == sorted(lines)


@pytest.mark.parametrize("first", [b"\n", b"\0" * 5000, b'{"time":"20'])
def test_a_copy_of_a_file_that_held_no_event_counts_once(place: Place, first: bytes) -> None:
    """A pass has seen the file with nothing to land in it; then it gets events, and a copy before the next pass."""
    path = place.path("a.jsonl")
    path.write_bytes(first)
    place.land()
    lines = events(20)
    path.write_bytes((first if first == b"\n" else b"") + text(lines))
    place.path("a.jsonl.1").write_bytes(path.read_bytes())
    report = place.land()
    assert report.warnings == {"copy of another file": 1}
    assert place.audit().lines() == sorted(lines)
