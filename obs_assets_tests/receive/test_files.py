"""The files of a receiver: an answer means that its events are on disk, whole, in one file, and land once."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from obs_assets.crash import interrupted
from obs_assets.errors import ConfigurationError
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.receive.spool import Rotation, Spool
from obs_assets.receive.upkeep import remove_landed
from obs_assets.settings import Settings
from obs_assets_tests.receive.conftest import Inside, wait_for
from obs_assets_tests.sources.place import Place


def send(inside: Inside, *numbers: int, key: str = "") -> int:
    """Send events with these numbers; returns the status."""
    body = "".join(f'{{"time": 1935738000, "n": {n}}}\n' for n in numbers)
    headers = {"Idempotency-Key": key} if key else {}
    return inside.client.post("/events", content=body, headers=headers).status_code


def numbers(inside: Inside) -> list[int]:
    """The numbers of the events that landed."""
    return [event["n"] for event in inside.landed()]


def test_files_are_private_and_finished_by_size(tmp_path: Path) -> None:
    """Only their owner reads them; a request is never divided, and the names are in order."""
    inside = Inside(Place(tmp_path), rotation=Rotation(size_bytes=100))
    for n in range(3):
        assert send(inside, *range(10 * n, 10 * n + 10)) == 200
        wait_for(lambda: inside.spool.current is None)
    files = inside.spool.files()
    assert [path.read_bytes().count(b"\n") for path in files] == [10, 10, 10]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(inside.spool.folder.stat().st_mode) == 0o700
    assert numbers(inside) == list(range(30))


def test_a_file_is_finished_by_age(tmp_path: Path) -> None:
    """Without a further request, too."""
    inside = Inside(Place(tmp_path), rotation=Rotation(age_s=0.2))
    send(inside, 1)
    wait_for(lambda: inside.spool.current is None)
    assert numbers(inside) == [1]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """The disk refuses the flush of every write."""

    def refuse() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with interrupted("receive.before_sync", refuse):
        yield


def test_a_full_disk_is_503_and_later_events_go_on(
    inside: Inside, request: pytest.FixtureRequest
) -> None:
    """Nothing that was acknowledged before or after is lost, and no dead letter is left."""
    assert send(inside, 1) == 200
    inside.place.land()  # the file is read while it is written

    def refuse() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with interrupted("receive.before_sync", refuse):
        answer = inside.client.post("/events", content=b'{"time": 1935738000, "n": 2}')
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
        assert send(inside, 3, key="k") == 503
    assert send(inside, 3, key="k") == 200
    landed = numbers(inside)
    assert {1, 3} <= set(landed)
    assert landed.count(1) == 1


def test_a_line_that_a_kill_cut_is_removed(inside: Inside) -> None:
    """The next process begins a new file; the torn line is neither an event nor a dead letter."""
    send(inside, 1)
    inside.spool.close()
    (left,) = inside.spool.files()
    with left.open("ab") as file:
        file.write(b'{"time": 1935738000, "n": 2, "text": "' + b"x" * 200_000)
    inside.place.land()
    inside.start()
    send(inside, 3)
    assert numbers(inside) == [1, 3]
    assert len(inside.spool.files()) == 2


def test_a_file_that_has_rested_is_never_made_shorter(inside: Inside) -> None:
    """Landing has read its torn line as a dead letter; a shorter file would land a second time."""
    send(inside, 1, 2)
    inside.spool.close()
    (left,) = inside.spool.files()
    with left.open("ab") as file:
        file.write(b'{"time": 1935738000, "n": 3')
    hour_ago = time.time() - 3600
    os.utime(left, (hour_ago, hour_ago))
    report = inside.place.land(seal_after_minutes=0)
    assert report.dead_letters == {"unfinished": 1}
    inside.start()
    send(inside, 4)
    assert numbers(inside) == [1, 2, 4]


def test_a_repeated_request_is_stored_once(inside: Inside) -> None:
    """By its `Idempotency-Key`, in this process and in the next."""
    assert [send(inside, 1, key="a"), send(inside, 1, key="a")] == [200, 200]
    inside.spool.close()
    inside.start()
    assert [send(inside, 1, key="a"), send(inside, 2, key="b")] == [200, 200]
    assert inside.app.figures.repeated == 1
    assert numbers(inside) == [1, 2]


def test_two_receivers_of_a_name_are_refused(inside: Inside) -> None:
    """The second would write into the files of the first."""
    with pytest.raises(ConfigurationError, match="choose another --name"):
        Spool(inside.spool.folder, "main")
    with pytest.raises(ConfigurationError, match="a receiver's name"):
        Spool(inside.spool.folder.parent / "x", "../x")


def test_files_are_removed_after_every_pipeline_has_landed_them(tmp_path: Path) -> None:
    """Not before the hours to keep are over, and not while a pipeline that reads them has not landed them."""
    inside = Inside(Place(tmp_path))
    send(inside, 1)
    inside.spool.close()
    source = {"events_dir": str(inside.place.events_dir)}
    config = pipeline.parse({"source": source})
    settings = Settings(data_dir=tmp_path / "data")
    first, second = (HourlyPipeline(config, settings, name) for name in ("first", "second"))
    elsewhere = HourlyPipeline(
        pipeline.parse({"source": {"events_dir": str(tmp_path)}}), settings
    )
    pipelines = [first, second, elsewhere]

    def removed(later: timedelta) -> int:
        now = datetime.now(UTC) + later
        keep = timedelta(hours=72)
        files = inside.spool.files()
        return len(remove_landed(inside.place.events_dir, files, pipelines, now, keep))

    first.land()
    assert removed(timedelta(days=9)) == 0
    second.land()
    assert removed(timedelta(hours=71)) == 0
    assert removed(timedelta(hours=73)) == 1
    assert inside.spool.files() == []


def test_many_requests_share_a_flush(tmp_path: Path) -> None:
    """While a flush is under way, requests gather, and the next flush takes them all."""
    flushes = []

    def slow() -> None:
        flushes.append(1)
        time.sleep(0.2)

    spool = Spool(tmp_path / "f", "f")
    with interrupted("receive.before_sync", slow):
        written = [spool.write(b"{}\n") for _ in range(50)]
        for future in written:
            future.result(timeout=10)
    assert len(flushes) <= 3
    spool.close()
