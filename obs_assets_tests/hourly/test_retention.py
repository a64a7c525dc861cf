"""What is not redacted goes after ``retention_days``: never too early, never half, never built from scraps."""

import json
import signal
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from obs_assets.errors import HourExpiredError
from obs_assets.hourly import pipeline, pipeline_files
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.restore import archive_of, restore
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.crash.driver import run_expiry, run_hour
from obs_assets_tests.frames import HOUR

LANDED = HOUR.end + timedelta(minutes=10)
OVER = LANDED + timedelta(days=30)
LATE = {"id": "late", "timestamp": HOUR.start.isoformat(), "type": "straggler"}


def pipeline_of(settings: Settings, folder: Path, **options: Any) -> HourlyPipeline:
    """A pipeline that archives everything."""
    return HourlyPipeline(
        harness.everything_kept(
            folder, destinations=[{"type": "s3", "from": "redacted"}], **options
        ),
        settings,
    )


@pytest.fixture
def hourly(settings: Settings, tmp_path: Path) -> HourlyPipeline:
    """An hour and a line that is no event, landed, built and delivered; then landing went on for a month."""
    file = harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    file.write_text(file.read_text() + "what?\n")
    hourly = pipeline_of(settings, tmp_path / "events")
    hourly.land(now=LANDED)
    harness.build(hourly, HOUR)
    hourly.land(now=OVER)
    return hourly


def unredacted(hourly: HourlyPipeline) -> list[str]:
    """Files with events as they were."""
    kinds = ("passes/*/[0-9]*.parquet", "passes/*/dead_letters.parquet")
    found = [path for kind in kinds for path in hourly.log.root.glob(kind)]
    found += [hourly.store.frame_path(stage, HOUR) for stage in STAGES[:2]]
    return sorted(path.name for path in found if path.exists())


ALL = [
    "2025120410-0.parquet",
    "2025120410.parquet",
    "2025120410.parquet",
    "dead_letters.parquet",
]


@pytest.mark.slow
def test_an_hour_goes_when_its_time_is_over(hourly: HourlyPipeline) -> None:
    """A second early nothing goes; then chunks, raw and enriched frames and dead letters do, the rest stays."""
    assert hourly.expire(OVER - timedelta(seconds=1)).hours == ()
    assert unredacted(hourly) == ALL
    assert hourly.landed().letters == {"not_json": (1, LANDED.isoformat())}
    done = hourly.expire(OVER)
    assert (done.hours, done.letters_removed, done.waiting) == ((HOUR,), 1, ())
    assert done.removed_bytes > 1000
    assert unredacted(hourly) == []
    assert hourly.landed().letters == {}
    assert all(hourly.store.frame_path(stage, HOUR).exists() for stage in STAGES[2:])
    assert hourly.landed().hour(HOUR).rows == len(harness.an_hour())
    assert hourly.expire(OVER).hours == ()
    assert hourly.staleness().hours == []


@pytest.mark.slow
def test_what_is_gone_is_not_built_again(hourly: HourlyPipeline) -> None:
    """Raw, enriched and redacted refuse with a sentence, and what was built before stays valid and deliverable."""
    hourly.expire(OVER)
    receipts = [hourly.store.read_receipt(stage, HOUR) for stage in STAGES]
    for stage in STAGES[:3]:
        with pytest.raises(
            HourExpiredError, match=r"has expired: .*30 days \(retention_days\).*obs s3 restore"
        ):
            hourly.build(stage, HOUR)
    assert [hourly.store.read_receipt(stage, HOUR) for stage in STAGES] == receipts
    hourly.build("sampled_events", HOUR)
    assert hourly.deliver("s3_archive", HOUR, rebuild=True).taken == receipts[2].kept


@pytest.mark.slow
def test_what_no_destination_holds_stays(settings: Settings, tmp_path: Path) -> None:
    """An hour that is not delivered, or got more since, waits; one that is not closed too."""
    file = harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    hourly = pipeline_of(settings, tmp_path / "events")
    hourly.land(now=LANDED)
    hourly.land(now=OVER)
    assert (hourly.expire(OVER).hours, hourly.expire(OVER).waiting) == ((), (HOUR,))
    harness.build(hourly, HOUR)
    file.write_text(file.read_text() + json.dumps(LATE) + "\n")
    hourly.land(now=OVER)
    assert hourly.expire(OVER).waiting == (HOUR,)
    harness.build(hourly, HOUR)
    assert hourly.expire(OVER).hours == (HOUR,)


@pytest.mark.slow
def test_an_hour_that_lands_late_is_kept_from_then_on(
    settings: Settings, tmp_path: Path
) -> None:
    """Its first landing counts when that is later than its end."""
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    hourly = pipeline_of(settings, tmp_path / "events", retention_days=2)
    late = LANDED + timedelta(days=100)
    hourly.land(now=late)
    harness.build(hourly, HOUR)
    assert hourly.expire(late + timedelta(days=1)).hours == ()
    assert hourly.expire(late + timedelta(days=2)).hours == (HOUR,)


@pytest.mark.slow
def test_nothing_goes_where_all_is_kept(settings: Settings, tmp_path: Path) -> None:
    """retention_days: null."""
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    hourly = pipeline_of(settings, tmp_path / "events", retention_days=None)
    hourly.land(now=LANDED)
    harness.build(hourly, HOUR)
    assert hourly.expire(OVER + timedelta(days=9999)).hours == ()
    assert hourly.landed().hour(HOUR).chunks


@pytest.mark.slow
def test_who_comes_after_that_is_a_dead_letter(hourly: HourlyPipeline) -> None:
    """Late events do not replace an hour by themselves: hour_expired, also when they are replayed."""
    hourly.expire(OVER)
    folder = Path(str(hourly.config.source.events_dir))
    (folder / "b.jsonl").write_text(
        json.dumps(LATE) + "\n" + json.dumps({**LATE, "timestamp": OVER.isoformat()}) + "\n"
    )
    report = hourly.land(now=OVER)
    assert report.dead_letters == {"hour_expired": 1}
    assert report.hours == {Hour.of(OVER).key: 1}
    assert hourly.replay("hour_expired").number is None
    assert hourly.landed().hour(HOUR).chunks == ()


@pytest.mark.slow
def test_a_restored_hour_is_whole_again(hourly: HourlyPipeline) -> None:
    """From the archive: it can be built, and is kept for retention_days more."""
    before = hourly.store.read_receipt("redacted_events", HOUR)
    hourly.expire(OVER)
    report = restore(archive_of(hourly), hourly, HOUR)
    assert report.hours == {HOUR.key: before.kept}
    harness.build(hourly, HOUR)
    assert (
        hourly.store.read_receipt("redacted_events", HOUR).content_hash == before.content_hash
    )
    assert harness.wrong(hourly) == []
    restored = datetime.fromisoformat(hourly.landed().hour(HOUR).since)
    assert hourly.expire(restored + timedelta(days=29)).hours == ()
    assert hourly.landed().hour(HOUR).chunks


@pytest.mark.slow
def test_a_file_is_forgotten_when_nothing_of_it_is_kept(hourly: HourlyPipeline) -> None:
    """Two days after its events, and only when it is gone; one that comes back doubles nothing."""
    file = Path(str(hourly.config.source.events_dir)) / "a.jsonl"
    hourly.expire(OVER)
    assert hourly.expire(OVER + timedelta(days=3)).files_forgotten == 0
    content = file.read_bytes()
    file.unlink()
    assert hourly.expire(OVER + timedelta(days=1)).files_forgotten == 0
    assert hourly.expire(OVER + timedelta(days=2)).files_forgotten == 1
    assert hourly.landed().files == {}
    file.write_bytes(content)
    report = hourly.land(now=OVER + timedelta(days=3))
    assert report.dead_letters == {"hour_expired": len(harness.an_hour()), "not_json": 1}
    assert report.hours == {}


@pytest.mark.slow
def test_killed_between_the_word_and_the_deed(settings: Settings, tmp_path: Path) -> None:
    """The hour has expired, its bytes are still there: the next run removes them."""
    file = harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    env = harness.environment(settings, file.parent)
    assert run_hour(env, HOUR.key) == 0
    hourly = HourlyPipeline(pipeline.load(pipeline_files.find().path), settings)
    assert (
        run_expiry(env, OVER + timedelta(days=1), "retention.after_commit") == -signal.SIGKILL
    )
    assert hourly.landed().hour(HOUR).expired
    assert "2025120410-0.parquet" in unredacted(hourly)
    with pytest.raises(HourExpiredError):
        hourly.build("raw_events", HOUR)
    assert run_expiry(env, OVER + timedelta(days=1)) == 0
    assert unredacted(hourly) == []


@pytest.mark.slow
def test_no_event_stays_in_any_file(hourly: HourlyPipeline) -> None:
    """Nothing below the landing log and the unredacted frames holds a byte of an event any more."""
    hourly.expire(OVER)
    ids = [str(event["id"]).encode() for event in harness.an_hour() if "id" in event]
    left = [path for path in hourly.log.root.rglob("*") if path.is_file()]
    assert ids
    assert not [path for path in left for event_id in ids if event_id in path.read_bytes()]
    assert not [
        path for path in left if path.suffix == ".parquet" and pq.read_metadata(path).num_rows
    ]
