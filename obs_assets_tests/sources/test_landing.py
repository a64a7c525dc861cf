"""Landing passes: all or nothing, exactly once, every byte accounted for."""

import gzip
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from obs_assets.crash import CRASH_POINTS, interrupted
from obs_assets.errors import HourBusyError, ObsError, TransientError
from obs_assets.hours import parse_hour
from obs_assets.sources.files import SourceConfig, list_files
from obs_assets.sources.landing import (
    LANDED_SCHEMA,
    BatchSizes,
    collector,
    interrupt_passes,
    note_unchanged,
)
from obs_assets.sources.log import LandingLog, read_pass
from obs_assets_tests.dying import DiedError, dies_at
from obs_assets_tests.sources.place import NOW, START, Place, event, events, once_at, text

HOUR = timedelta(hours=1)

# A child that lands a place; what it prints is the report
CHILD = """
import sys
from pathlib import Path
from obs_assets import settings
from obs_assets.sources.landing import BatchSizes
from obs_assets_tests.sources.place import Place
settings.load()
print(Place(Path(sys.argv[1])).land(max_event_bytes=1024, **eval(sys.argv[2] if sys.argv[2:] else "{}")))
"""


def child_with(options: str) -> str:
    """`CHILD` with options of its `Place`."""
    return CHILD.replace("argv[1])", f"argv[1]), {options}", 1)


def land_in_child(
    place: Place, script: str = CHILD, **env: str
) -> "subprocess.CompletedProcess[str]":
    """Land in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script, str(place.root)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# What a pass leaves


def test_rows_keep_where_they_came_from(place: Place) -> None:
    """A row has its event's own text, its file and offset, the time and the host of its landing."""
    line = '{"time":"2031-05-06T09:30:00.5Z","text":"naïve 😀"}'
    place.path("deep").mkdir()
    place.path("deep/a.jsonl").write_bytes(b"\n" + line.encode() + b"\n")
    place.land()
    (row,) = place.audit().rows()
    assert list(row) == LANDED_SCHEMA.names
    assert (row["line"], row["event_file"], row["file_offset"]) == (line, "deep/a.jsonl", 1)
    assert row["event_time"] == datetime(2031, 5, 6, 9, 30, 0, 500_000, tzinfo=UTC)
    assert (row["time_from"], row["landed_at"]) == ("event", place.now)
    assert json.loads(row["collector"]) == collector()
    (path,) = place.log.chunk_paths(place.log.load().hour(parse_hour("2031-05-06-09:00")))
    assert pq.read_schema(path).names == LANDED_SCHEMA.names


def test_rows_are_split_by_hour(place: Place) -> None:
    """An event on the boundary belongs to the hour that it begins."""
    noon = NOW.replace(minute=0)
    micro = timedelta(microseconds=1)
    place.write(
        "a.jsonl",
        [event(noon - micro), event(noon), event(noon + HOUR - micro), event(noon + HOUR)],
    )
    report = place.land()
    assert report.hours == {"2031-05-06-11:00": 1, "2031-05-06-12:00": 2, "2031-05-06-13:00": 1}
    assert {
        key: hour.rows for key, hour in place.audit().log.load().hours.items()
    } == report.hours


def test_event_without_time_has_that_of_its_landing(place: Place) -> None:
    """It is marked as such."""
    place.write("a.jsonl", ['{"a":1}', '{"time":null,"a":2}'])
    place.land()
    assert {(row["event_time"], row["time_from"]) for row in place.rows()} == {
        (place.now, "landed_at")
    }


@pytest.mark.slow
def test_events_out_of_bounds_are_dead_letters(place: Place) -> None:
    """They keep their bytes, their place and the name of the rule."""
    lines = [
        *events(2, NOW - timedelta(days=365)),
        *events(2, NOW + timedelta(days=2)),
        *events(2, datetime(1999, 1, 1, tzinfo=UTC)),
        '{"time":"soon"}',
        '{"timestamp":"soon"}',
    ]
    place.write("a.jsonl", [*lines, event()])
    report = place.land()
    assert dict(report.dead_letters) == dict.fromkeys(
        ["before_start", "time_too_far_ahead", "time_before_2000", "time_unreadable"], 2
    )
    assert sorted(raw.decode().strip() for _, raw in place.audit().dead()) == sorted(lines)
    assert sum(report.hours.values()) == 1


@pytest.mark.slow
def test_assumptions_and_changes_are_counted(place: Place) -> None:
    """Times without a zone or missing, and changed texts, stand in the report and the pass file; times in rows too."""
    place.write(
        "a.jsonl",
        [
            '{"time":"2031-05-06T09:30:00","n":1}',
            '{"time":"2031-05-06","n":2}',
            '{"time":"2031-05-06 09:30:00.5 -0600","n":3}',
            '{"time":"2031-05-06T09:30-06","n":4}',
            '{"time":1935800000,"n":5}',
            '{"time":"2031-05-06T09:30:00Z","n":6,"n":7}',
            '{"n":8}',
        ],
    )
    report = place.land()
    assert dict(report.remarks) == {
        "time_without_zone": 2,
        "duplicate_keys": 1,
        "time_missing": 1,
    }
    assert read_pass(place.log.passes_dir / "00000001" / "pass.json").remarks == report.remarks
    assert Counter(row["time_from"] for row in place.audit().rows()) == {
        "event": 4,
        "event_without_zone": 2,
        "landed_at": 1,
    }


def test_time_is_found_where_it_is_said_to_be(place: Place) -> None:
    """A configured path comes first; without it in an event, the usual fields decide."""
    place.write(
        "a.jsonl",
        [
            '{"time":"2031-05-06T09:00Z","at":{"x y":"2031-05-06T07:00Z"}}',
            '{"time":"2031-05-06T09:00Z"}',
        ],
    )
    assert place.land(time_path="at.x y").hours == {
        "2031-05-06-07:00": 1,
        "2031-05-06-09:00": 1,
    }


@pytest.mark.slow
def test_bomb_is_cut_off(place: Place) -> None:
    """A compressed file is read up to its ratio, with a warning each time; a higher ratio lands the rest, once.

    The ratio does not count for the first 64 MiB.
    """
    lines = [event(filler="x" * 500_000) for _ in range(160)]
    place.path("a.jsonl.gz").write_bytes(gzip.compress(text(lines), 1))
    for _ in range(2):
        report = place.land(max_ratio=5)
        assert [why for why in report.warnings if "max_ratio" in why]
        assert 120 < len(place.audit().lines()) < 150
    assert not place.land(max_ratio=1000).warnings
    assert place.audit().lines() == sorted(lines)


def test_limit_of_nesting_is_a_setting(place: Place) -> None:
    """A deeper event is a dead letter."""
    place.write("a.jsonl", ['{"a":[[1]]}', '{"a":[[[1]]]}'])
    assert place.land(max_nesting=3).dead_letters == {"too_deep": 1}
    assert place.lines() == ['{"a":[[1]]}']


@pytest.mark.slow
def test_receipts_count_every_byte(place: Place) -> None:
    """Events, dead letters and separators of a file add up to its size, whatever it holds and however it grows."""
    content = (
        b"\xef\xbb\xbf[\n" + text(events(2)).replace(b"\n", b",\r\n") + b"]\n\nwhat?\n{\n "
        b'"a": 1\n}\n{"b":NaN}\n'
        + event().encode()
        + event().encode()
        + b"\n\0\0\0\n"
        + b'{"torn":'
    )
    for cut in (0, 40, 41, 90, 150, len(content)):
        place.path("a.jsonl").write_bytes(content[:cut])
        place.land()
    (receipts,) = place.audit().receipts().values()
    assert sum(one.events for one in receipts) == 5
    assert sum(one.dead_letters for one in receipts) == 2
    assert receipts[-1].end == len(content) - len(
        b'\n\0\0\0\n{"torn":'
    )  # what is behind the last event waits
    assert [reason for reason, _ in place.dead()] == ["not_json", "number_not_finite"]


@pytest.mark.slow
def test_unfinished_end_is_given_up_when_its_file_is_idle(place: Place) -> None:
    """A torn end waits, unread, while its file is fresh, and becomes a dead letter although the file never changes."""
    lines = place.write("a.jsonl", events(2))
    with place.path("a.jsonl").open("ab") as file:
        file.write(b'{"torn":')
    os.utime(place.path("a.jsonl"), times=(place.now.timestamp(),) * 2)
    place.now -= timedelta(minutes=1)
    assert place.land(seal_after_minutes=2).dead_letters == {}
    place.now += timedelta(minutes=1)
    assert place.land(seal_after_minutes=2).files_read == 0
    assert place.land(seal_after_minutes=2).dead_letters == {"unfinished": 1}
    assert place.land(seal_after_minutes=2).files_read == 0
    assert (place.audit().lines(), place.dead()) == (
        sorted(lines),
        [("unfinished", b'{"torn":')],
    )


@pytest.mark.slow
def test_line_that_is_too_long_stays_dead_over_passes(place: Place) -> None:
    """The rest of a line that was given up is dead too when it comes with a later pass."""
    place.path("a.jsonl").write_bytes(b'{"a":[' + b'{"b":1},' * 200)
    place.land(max_event_bytes=1024)
    place.append("a.jsonl", ['{"c":1},' * 20 + "1]}", *events(1)])
    place.land(max_event_bytes=1024)
    assert len(place.audit().lines()) == 1
    assert {reason for reason, _ in place.dead()} == {"too_long"}


def test_nothing_personal_outside_chunks_and_dead_letters(place: Place) -> None:
    """Neither the log nor the report holds anything of an event's text."""
    place.write(
        "a.jsonl", [event(who="canary-9f"), '{"who":"canary-9f",}', '{"time":"canary-9f"}']
    )
    report = place.land()
    texts = [path.read_text() for path in place.log.root.rglob("*.json")]
    assert len(texts) == 3
    assert not any("canary-9f" in said for said in [*texts, repr(report)])


def test_landed_data_is_the_owners_alone(place: Place) -> None:
    """Folders and files of a pass can be read by nobody else."""
    old = os.umask(0o022)
    try:
        place.write("a.jsonl", events(1))
        place.land()
    finally:
        os.umask(old)
    for path in [
        place.log.root,
        *(path for path in place.log.root.rglob("*") if path.is_dir()),
    ]:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (
            "trail.jsonl",
            '{\n  "id": "tr-77-1",\n  "timestamp": "2031-05-06T08:00:00-0600",\n  "event_type": "span_done",\n'
            '  "data": {\n    "note": "all\\nwell 🚪",\n    "steps": [\n      {\n        "n": 1\n      }\n    ]\n'
            "  }\n}\n"
            '{"id":"tr-77-1","timestamp":"2031-05-06T13:59:59+0000","type":"span_open","data":""}\n'
            '{"id":"tr-77-1","timestamp":"2031-05-06T14:00:01Z","type":"LOUD_thing","data":"{\\"deep\\":1}"}\n',
        ),
        (
            "visits.jsonl",
            '{"timestamp":"2031-05-06T07:10:00-06:00","path":"/door","who":"visitor"}\n'
            '{"timestamp":"2031-05-06T07:11:00-06:00","path":"/lamp","who":"visitor"}\n\n'
            '{"timestamp":"2031-05-06T07:12:00-06:00","path":"/wall","status":"info"}\n',
        ),
    ],
)
def test_files_as_the_field_writes_them(place: Place, file: str, content: str) -> None:
    """Pretty-printed objects between one-line ones, shared ids, local offsets, emoji: all events, none rejected."""
    place.now += timedelta(days=1)
    place.path(file).write_text(content)
    report = place.land()
    assert (sum(report.hours.values()), report.dead_letters) == (3, {})
    assert {row["event_time"].hour for row in place.audit().rows()} <= {13, 14}


# The log


@pytest.mark.slow
def test_generation_grows_only_with_bytes(place: Place) -> None:
    """An hour's generation is that of the last pass that brought it events; other passes leave it alone."""
    here, there = parse_hour("2031-05-06-12:00"), parse_hour("2031-05-06-09:00")

    def generations() -> tuple[int, int]:
        landed = place.log.load()
        return landed.hour(here).generation, landed.hour(there).generation

    assert generations() == (0, 0)
    place.write("a.jsonl", events(1))
    place.land()
    assert generations() == (1, 0)
    place.append("a.jsonl", [event(NOW - 3 * HOUR)])
    place.land()
    assert generations() == (1, 2)
    place.append("a.jsonl", ["garbage"])
    assert place.land().hours == {}
    assert generations() == (1, 2)
    place.land()
    place.append("a.jsonl", events(1))
    place.land()
    assert generations() == (4, 2)


@pytest.mark.slow
def test_a_pass_takes_no_more_than_it_may(place: Place) -> None:
    """Files, and bytes give or take a piece; what is left comes in the next passes, and nothing closes before."""
    place.sizes = BatchSizes(largest=4096)
    lines = place.write("large.jsonl", events(1000)) + place.write("small.jsonl", events(5))
    report = place.land(max_files_per_pass=1)
    assert (report.files_read, report.files_left) == (1, 1)
    assert place.log.looked_at() is None
    passes = 0
    while report.files_left:
        report = place.land(max_bytes_per_pass=8192, max_event_bytes=2048)
        assert report.bytes_read <= 8192 + 4096
        passes += 1
    assert passes > 3
    assert place.log.looked_at() == place.now
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_files_that_grow_all_the_time_starve_nobody(place: Place) -> None:
    """What has waited longest comes first: no file is left in two passes running that has room in turn."""
    names = [f"{number}.jsonl" for number in range(9)]
    lines = [line for name in names for line in place.write(name, events(1))]
    served: Counter[str] = Counter()
    for _ in range(9):
        before = {file.path: file.offset for file in place.log.load().files.values()}
        place.land(max_files_per_pass=3)
        after = {file.path: file.offset for file in place.log.load().files.values()}
        served.update(name for name, offset in after.items() if offset > before.get(name, 0))
        for name in names:
            lines += place.append(name, events(1))
    assert dict(served) == dict.fromkeys(names, 3)
    place.land()
    assert place.audit().lines() == sorted(lines)


def test_a_copy_waits_for_its_original(place: Place) -> None:
    """A copy is not taken for landed while its original is left for later: that may be gone by then."""
    lines = place.write("a.jsonl", events(60))
    place.write("b.jsonl", lines[:50])
    place.write("c.jsonl", events(1))
    place.land(max_files_per_pass=2)
    place.path("a.jsonl").unlink()
    place.path("c.jsonl").unlink()
    place.land()
    assert set(lines[:50]) <= set(place.audit().lines())


@pytest.mark.slow
def test_a_copy_is_accounted_for_with_its_original(place: Place) -> None:
    """A pass that has its fill with a file takes note of the file's copies: without it, they would look new."""
    lines = place.write("a.jsonl", events(60))
    place.write("b.jsonl", lines[:50])
    place.land(max_files_per_pass=1, max_bytes_per_pass=1)
    place.path("a.jsonl").unlink()
    place.land()
    assert place.audit().lines() == sorted(lines)


def test_a_copy_of_an_unfinished_event_has_not_landed(place: Place) -> None:
    """What the program writes on is not taken for the rest of something that is known already."""
    whole = event(filler="x" * 2000)
    place.path("a.jsonl").write_text(whole[:1500])
    place.path("b.jsonl").write_text(whole[:1500])
    place.land()
    place.path("b.jsonl").unlink()
    with place.path("a.jsonl").open("a") as file:
        file.write(whole[1500:] + "\n")
    place.land()
    assert place.audit().lines() == [whole]


def test_pass_without_news_still_counts_as_a_look(place: Place) -> None:
    """Hours close although nothing comes: the last look is remembered."""
    assert place.log.looked_at() is None
    place.land()
    assert place.log.looked_at() == place.now


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        None,
        "",
        "{",
        "[]",
        "{}",
        '{"form":1}',
        '{"form":2,"last_pass":1,"files":[{"a":1}],"hours":{}}',
    ],
)
def test_lost_checkpoint_is_rebuilt(place: Place, damage: str | None) -> None:
    """Without a checkpoint, or with a broken one, the passes tell what has landed; nothing is doubled."""
    lines = place.write("a.jsonl", events(3)) + place.write("b.jsonl", events(3))
    place.land()
    lines += place.append("a.jsonl", events(2))
    place.land()
    before = place.log.load()
    checkpoint = place.log.root / "checkpoint.json"
    checkpoint.unlink() if damage is None else checkpoint.write_text(damage)
    assert place.log.load() == before
    place.path("b.jsonl").rename(place.path("c.jsonl"))
    lines += place.append("c.jsonl", events(1))
    place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_a_checkpoint_is_parsed_once_and_never_outlives_its_file(place: Place) -> None:
    """Whoever asks for every hour of a range pays for one reading, and sees another process's pass at once."""
    place.write("a.jsonl", events(3))
    place.land()
    reader = LandingLog(place.log.root)
    first = reader.load()
    checkpoint = place.log.root / "checkpoint.json"
    write_unseen(checkpoint, checkpoint.read_text().replace("a.jsonl", "z.jsonl"))
    assert {file.path for file in place.log.load().files.values()} == {"z.jsonl"}
    assert reader.load() == first
    first.hours.clear()  # whoever asked may do with it as he likes
    first.files.clear()
    assert [file.path for file in reader.load().files.values()] == ["a.jsonl"]
    write_unseen(checkpoint, checkpoint.read_text().replace("z.jsonl", "a.jsonl"))
    for name, passes in (("b.jsonl", 2), ("c.jsonl", 3)):
        place.write(name, events(4))
        place.land()
        assert reader.load() == LandingLog(place.log.root).load()
        assert reader.load().last_pass == passes
    checkpoint.unlink()
    assert reader.load() == LandingLog(place.log.root).load()
    assert reader.load().last_pass == passes


def write_unseen(path: Path, text: str) -> None:
    """Overwrite a file in place with as many bytes; its times stay."""
    status = path.stat()
    with path.open("r+") as file:
        file.write(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.slow
def test_old_checkpoint_catches_up(place: Place) -> None:
    """A checkpoint from before the last passes is brought up to date by them."""
    lines = place.write("a.jsonl", events(3))
    place.land()
    old = (place.log.root / "checkpoint.json").read_text()
    for _ in range(3):
        lines += place.append("a.jsonl", events(1))
        place.land()
    expected = place.log.load()
    (place.log.root / "checkpoint.json").write_text(old)
    assert place.log.load() == expected
    place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_second_pass_at_the_same_time_is_busy(place: Place) -> None:
    """Of two passes one lands and the other says that it need not; the lock dies with its holder."""
    lines = place.write("a.jsonl", events(3))
    holder = f"from pathlib import Path\nfrom obs_assets.sources.log import LandingLog\n\
with LandingLog(Path({str(place.log.root)!r})).lock():\n    print('held', flush=True)\n    input()\n"
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        with pytest.raises(HourBusyError, match="another landing pass is under way"):
            place.land()
        process.kill()
    place.land()
    assert place.audit().lines() == sorted(lines)


def test_lock_holds_within_one_process_too(place: Place) -> None:
    """Two threads or nested calls cannot land at once either."""
    with place.log.lock(), pytest.raises(HourBusyError), LandingLog(place.log.root).lock():
        pass


# Crashes


# "landing.after_listing" and "landing.before_read" are among them, before anything is written
LANDING_POINTS = sorted(point for point in CRASH_POINTS if point.startswith("landing."))
# The pass file, the checkpoint and the look are put in place by the same few lines
FILE_POINTS = [
    f"{point}:{n}"
    for point in ("receipt.before_rename", "frame.after_rename")
    for n in (1, 2, 3)
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", [*LANDING_POINTS, "landing.before_chunk:2", "landing.after_chunk:3", *FILE_POINTS]
)
def test_killed_pass_is_repaired_by_the_next(place: Place, point: str) -> None:
    """Wherever SIGKILL strikes, the next pass lands everything exactly once and leaves no debris."""
    lines = place.write("a.jsonl", events(2))
    place.land()
    lines += place.append("a.jsonl", events(80)) + place.write(
        "b.jsonl", events(60, NOW - 2 * HOUR)
    )
    place.append("b.jsonl", ["what?"])
    place.log.temp_dir.joinpath("spilled by an earlier one").touch()
    killed = land_in_child(place, child_with("sizes=BatchSizes(largest=1)"), OBS_CRASH_AT=point)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    lines += place.append("a.jsonl", events(1))
    place.now += timedelta(minutes=5)
    place.land()
    assert place.audit().lines() == sorted(lines)
    assert place.dead() == [("not_json", b"what?\n")]
    assert not [*place.log.root.rglob("*.tmp"), *place.log.temp_dir.iterdir()]


@pytest.mark.slow
def test_failed_pass_is_repaired_by_the_next(place: Place) -> None:
    """An error anywhere in a pass leaves what was landed before, and nothing of the pass."""
    lines = place.write("a.jsonl", events(3))
    place.land()
    before = place.log.load()
    lines += place.append("a.jsonl", events(3))
    for point in {*LANDING_POINTS} - {"landing.after_commit"}:
        with dies_at(point), pytest.raises(DiedError, match=point):
            place.land()
        assert place.log.load() == before
    place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.parametrize(
    "point", ["landing.after_listing", "landing.before_chunk", "landing.after_write"]
)
def test_an_interrupted_pass_lands_nothing(place: Place, point: str) -> None:
    """It ends before its next batch or its commit, and the next pass lands each event once."""
    place.sizes = BatchSizes(largest=1)
    lines = place.write("a.jsonl", events(80))
    with (
        once_at(point, interrupt_passes),
        pytest.raises(TransientError, match="cancelled"),
    ):
        place.land()
    assert place.log.load().last_pass == 0
    place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.slow
def test_full_disk_is_explained(place: Place) -> None:
    """A refusal to write names the folder and the free space, shows no event, and the next pass lands everything."""
    lines = place.write("a.jsonl", events(2000))
    limited = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n\
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    refused = land_in_child(place, limited + CHILD)
    last = refused.stderr.splitlines()[-1]
    assert last.startswith("obs_assets.errors.ObsError: cannot write ")
    assert "bytes free there" in last
    assert '"time"' not in refused.stderr
    place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.system
def test_a_disk_without_room_lands_nothing_half(place: Place) -> None:
    """A file system of one megabyte: the error names path and free bytes, nothing is published; with room all lands."""
    place.log.root.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", place.log.root], check=True
    )
    try:
        lines = place.write(
            "a.jsonl", [event(filler=random.randbytes(500).hex()) for _ in range(2000)]
        )
        with pytest.raises(
            ObsError,
            match=r"cannot write .*landed.*No space left on device \([0-9,]+ bytes free there\)",
        ):
            place.land()
        assert place.rows() == []
        subprocess.run(["mount", "-o", "remount,size=50m", place.log.root], check=True)
        place.land()
        assert place.audit().lines() == sorted(lines)
        assert not list(place.log.root.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", place.log.root], check=True)


@pytest.mark.system
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
def test_a_disk_that_fails_to_flush_lands_nothing_half(place: Place, nth: int) -> None:
    """fsync answers EIO: the pass fails with a sentence, and the next one lands everything exactly once."""
    lines = place.write("a.jsonl", events(50))
    command = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync",
        "-e",
        f"inject=fsync:error=EIO:when={nth}",
    ]
    refused = subprocess.run(
        [*command, sys.executable, "-c", CHILD, str(place.root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert refused.returncode == 1, refused.stderr
    assert "cannot write " in refused.stderr.splitlines()[-1]
    assert "Input/output error" in refused.stderr
    place.land()
    assert place.audit().lines() == sorted(lines)


@pytest.mark.system
def test_chunks_are_on_disk_before_their_pass_is_published(place: Place) -> None:
    """All of them, though they are flushed while the next ones are written."""
    for hour in range(4):
        place.write(f"{hour}.jsonl", events(20, NOW - hour * HOUR))
    trace = place.root / "trace"
    watch = ["strace", "-f", "-y", "-qq", "-o", str(trace), "-e", "trace=fsync,/^rename"]
    watched = [*watch, sys.executable, "-c", child_with("sizes=BatchSizes(1, 1)")]
    subprocess.run([*watched, str(place.root)], check=True, capture_output=True, timeout=120)
    calls = trace.read_text().splitlines()
    published = next(
        number
        for number, call in enumerate(calls)
        if "rename" in call and call.count("/passes/") == 2
    )
    chunks = [path.name for path in place.log.passes_dir.glob("*/[0-9]*.parquet")]
    assert len(chunks) > 3
    for chunk in chunks:
        assert any("fsync" in call and chunk in call for call in calls[:published]), chunk


def test_refusal_by_duckdb_shows_no_event(place: Place) -> None:
    """Its messages quote what they complain about; ours names the pass and the kind of error."""

    def refuse() -> None:
        raise duckdb.InvalidInputException("canary-9f")

    place.write("a.jsonl", events(1))
    with (
        interrupted("landing.before_chunk", refuse),
        pytest.raises(
            ObsError, match=r"^landing pass 1: DuckDB refused \(InvalidInputException\)$"
        ),
    ):
        place.land()


# Pieces


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("batch_bytes", [1, 3000, 1 << 20])
def test_pieces_change_nothing(place: Place, batch_bytes: int, compressed: bool) -> None:
    """Events on the borders of batches, long ones, and many files in a batch are landed once, in whatever pieces."""
    place.sizes = BatchSizes(largest=batch_bytes)
    lines = []
    for number in range(12):
        several = [
            event(size="x" * ((7 * n * number) % 950)) for n in range(10 if number % 3 else 1)
        ]
        content = (
            text(several)
            if number % 2
            else b"[" + b",".join(line.encode() for line in several) + b"]"
        )
        name = f"{number}.jsonl.gz" if compressed else f"{number}.jsonl"
        place.path(name).write_bytes(gzip.compress(content) if compressed else content)
        lines += several
    report = place.land(max_event_bytes=1024)
    assert (report.dead_letters, report.warnings) == ({}, {})
    assert place.audit().lines() == sorted(lines)


def test_long_events_fit_a_batch(place: Place) -> None:
    """An event as long as the setting allows is landed, even if that is more than a batch."""
    place.sizes = BatchSizes(largest=1 << 16)
    lines = place.write("a.jsonl", [event(), event(size="x" * (1 << 20)), event()])
    place.land(max_event_bytes=(1 << 20) + 100)
    assert place.audit().lines() == sorted(lines)


# Size


def peak_of(place: Place, script: str = CHILD) -> tuple[int, str]:
    """Peak memory in bytes of a process that lands a place, and its report."""
    measured = (
        script.replace("max_event_bytes=1024, ", "")
        + "import resource\n\
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
    )
    done = land_in_child(place, measured)
    assert done.returncode == 0, done.stderr
    report, peak = done.stdout.splitlines()
    return int(peak), report


@pytest.mark.slow
def test_memory_is_bounded_for_large_files(place: Place) -> None:
    """300 MB of events in one file are landed in less than 1 GiB."""
    block = text([event(filler="lorem ipsum " * 30) for _ in range(2000)])
    with place.path("a.jsonl").open("wb") as file:
        for _ in range(300_000_000 // len(block)):
            file.write(block)
    peak, report = peak_of(place)
    assert "dead_letters={}" in report
    assert peak < 1 << 30


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"x", b"\0"])
def test_memory_is_bounded_for_a_line_without_end(place: Place, content: bytes) -> None:
    """200 MB without a newline, 200 KB on disk, are dead letters; the event after them is landed."""
    lines = events(1)
    with gzip.open(place.path("a.jsonl.gz"), "wb") as file:
        for _ in range(200):
            file.write(content * 1_000_000)
        file.write(b"\n" + text(lines))
    peak, _ = peak_of(place, CHILD.replace("land(", "land(max_ratio=1100, "))
    assert place.audit().lines() == lines
    assert peak < 1 << 30


@pytest.mark.slow
def test_list_on_a_line_of_40_mb_streams_through(place: Place) -> None:
    """A top-level array on one line is read in bounded memory."""
    lines = [event(filler="lorem ipsum " * 40) for _ in range(75_000)]
    content = b"[" + b",".join(line.encode() for line in lines) + b"]"
    assert len(content) > 40_000_000
    place.path("a.jsonl").write_bytes(content)
    peak, _ = peak_of(place)
    assert Counter(place.audit().lines()) == Counter(lines)
    assert peak < 1 << 30


@pytest.mark.slow
def test_many_small_files(place: Place) -> None:
    """Thousands of files of a hundred events are read together: far less than a minute for ten thousand."""
    began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    content = [text(events(100)) for _ in range(2000)]
    for number, lines in enumerate(content):
        place.path(f"{number}.jsonl").write_bytes(lines)
    made = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    assert sum(place.land().hours.values()) == 200_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - made < 12, made - began


def test_pass_file_reads_back(place: Place) -> None:
    """What is written of a pass is what is read of it."""
    place.write("a.jsonl", [*events(2), "garbage"])
    place.land()
    landed = read_pass(place.log.passes_dir / "00000001" / "pass.json")
    assert (landed.number, landed.began_at, dict(landed.dead_letters)) == (
        1,
        place.now.isoformat(),
        {"not_json": 1},
    )
    assert landed.hours == place.log.load().hours
    assert {one.file.file_id: one.file for one in landed.files} == place.log.load().files
    assert Path(place.log.chunk_paths(place.log.load().hours["2031-05-06-12:00"])[0]).is_file()


def test_a_copy_of_the_data_folder_is_noticed(place: Place) -> None:
    """By its first pass, once, even if no file has changed; the original and a renamed folder are not warned of."""
    place.write("a.jsonl", events(3))
    assert not place.land().notice
    assert not place.land().notice
    shutil.copytree(place.root, place.root.parent / "copy")
    place.root.rename(place.root.parent / "renamed")
    copy, renamed = (
        Place(place.root.parent / name, now=place.now) for name in ("copy", "renamed")
    )
    assert not renamed.land().notice
    listing = list_files(SourceConfig(events_dir=copy.events_dir))
    config = SourceConfig(events_dir=copy.events_dir)
    assert not note_unchanged(config, copy.log, listing, copy.now, first_hour=START)
    assert "OBS_DATA_DIR was copied or moved" in copy.land().notice
    assert not copy.land().notice
    assert len(copy.audit().lines()) == 3
