"""``obs s3 restore``: an archived hour comes back after its files are gone, exactly once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from obs_assets.errors import ConfigurationError, OtherLogError, PermanentError
from obs_assets.hourly.adoption import adopt
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.restore import archive_of, restore
from obs_assets.settings import Settings
from obs_assets.storage.engine import connect
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR


def pipeline_of(settings: Settings, events_dir: Path, **archive: Any) -> HourlyPipeline:
    """A pipeline that archives everything, and redacts."""
    blocks = [{"type": "s3", "from": "redacted", **archive}]
    return HourlyPipeline(harness.everything_kept(events_dir, destinations=blocks), settings)


def frame(hourly: HourlyPipeline, stage: str = "redacted_events") -> list[Any]:
    """What a stage's frame holds: identity and event."""
    with connect(hourly.store.temp_dir) as connection:
        return (
            hourly.store.read_frame(connection, stage, HOUR)
            .project("row_uid, event_time, event")
            .fetchall()
        )


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"format": "parquet"}], ids=str)
def test_an_hour_comes_back_as_it_was_archived(
    settings: Settings, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Files and data folder are gone: the restored hour, built again, is the archived one, and uploads nothing."""
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    hourly = pipeline_of(settings, tmp_path / "events", **options)
    hourly.land()
    harness.build(hourly, HOUR)
    before = frame(hourly)
    shutil.rmtree(settings.data_dir)
    (tmp_path / "events" / "a.jsonl").unlink()

    fresh = pipeline_of(settings, tmp_path / "events", **options)
    report = restore(archive_of(fresh), fresh, HOUR)
    assert report.hours == {HOUR.key: len(before)}
    for stage in ("raw_events", "enriched_events", "redacted_events", "sampled_events"):
        fresh.build(stage, HOUR)  # type: ignore[arg-type]
    assert frame(fresh) == before
    with pytest.raises(OtherLogError, match=f"obs adopt {HOUR}"):
        fresh.deliver("s3_archive", HOUR)
    assert [found.outcome for found in adopt(fresh, [HOUR])] == ["matches"]
    assert fresh.deliver("s3_archive", HOUR).kept == 0
    assert harness.wrong(fresh) == []
    assert fresh.log.load().files == {}


@pytest.mark.slow
def test_an_events_time_is_where_the_pipeline_looks_for_it(
    settings: Settings, tmp_path: Path
) -> None:
    """With time_path an event keeps its time: not the one of another field, nor the beginning of its hour."""
    events = [
        {
            "data": {"at": f"{HOUR.start:%Y-%m-%dT%H}:4{n}:00Z"},
            "timestamp": f"{HOUR.start:%Y-%m-%dT%H}:00:01Z",
            "n": n,
        }
        for n in range(3)
    ]
    harness.write_events(tmp_path / "events" / "a.jsonl", events)
    source = {"events_dir": str(tmp_path / "events"), "time_path": "data.at"}
    blocks = [{"type": "s3", "from": "redacted"}]
    config = harness.everything_kept(tmp_path / "events", source=source, destinations=blocks)
    hourly = HourlyPipeline(config, settings)
    hourly.land()
    harness.build(hourly, HOUR)
    before = frame(hourly)
    assert [time.minute for _, time, _ in before] == [40, 41, 42]
    shutil.rmtree(settings.data_dir)
    (tmp_path / "events" / "a.jsonl").unlink()
    fresh = HourlyPipeline(config, settings)
    restore(archive_of(fresh), fresh, HOUR)
    assert [found.outcome for found in adopt(fresh, [HOUR])] == ["matches"]
    harness.build(fresh, HOUR)
    assert frame(fresh) == before


@pytest.mark.slow
def test_a_sample_comes_back_as_the_sample(settings: Settings, tmp_path: Path) -> None:
    """What was archived after sampling keeps its weights: it is not sampled once more, and nothing is uploaded."""
    many = [
        harness.at(HOUR, n, {"id": f"e{n}", "level": "info", "type": "t"}) for n in range(200)
    ]
    harness.write_events(tmp_path / "events" / "a.jsonl", [*many, *harness.an_hour()])
    config = harness.everything_kept(
        tmp_path / "events",
        sample={"success_rate": 0.25},
        destinations=[{"type": "s3", "from": "sampled"}],
    )
    hourly = HourlyPipeline(config, settings)
    hourly.land()
    harness.build(hourly, HOUR)
    before = frame(hourly, "sampled_events")
    assert 20 < len(before) < 120
    assert sum('"weight":4' in event for _, _, event in before) > 10
    shutil.rmtree(settings.data_dir)
    (tmp_path / "events" / "a.jsonl").unlink()
    fresh = HourlyPipeline(config, settings)
    assert restore(archive_of(fresh), fresh, HOUR).hours == {HOUR.key: len(before)}
    assert [found.outcome for found in adopt(fresh, [HOUR])] == ["matches"]
    harness.build(fresh, HOUR)
    assert frame(fresh, "sampled_events") == before
    assert fresh.deliver("s3_archive", HOUR).kept == 0


@pytest.mark.slow
def test_what_has_landed_is_not_landed_again(settings: Settings, tmp_path: Path) -> None:
    """A restore is a no-op where the hour has its rows, adds what is missing, and is a no-op when repeated."""
    file = harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    hourly = pipeline_of(settings, tmp_path / "events")
    hourly.land()
    harness.build(hourly, HOUR)
    assert restore(archive_of(hourly), hourly, HOUR).number is None
    assert not list(hourly.log.passes_dir.glob(".*"))

    shutil.rmtree(settings.data_dir)
    file.write_text(json.dumps(harness.at(HOUR, 7, {"id": "late"})) + "\n")
    hourly = pipeline_of(settings, tmp_path / "events")
    hourly.land()
    archived = len(harness.an_hour())
    assert restore(archive_of(hourly), hourly, HOUR).hours == {HOUR.key: archived}
    assert restore(archive_of(hourly), hourly, HOUR).hours == {}
    assert hourly.landed().hour(HOUR).rows == archived + 1
    assert [found.outcome for found in adopt(hourly, [HOUR])] == ["differs"]
    harness.build(hourly, HOUR)
    assert harness.wrong(hourly) == []


@pytest.mark.slow
def test_only_what_a_manifest_vouches_for_is_restored(
    settings: Settings, tmp_path: Path
) -> None:
    """An hour never archived, one whose object was changed, one before the start: each says so and lands nothing."""
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    archive = tmp_path / "archive"
    hourly = pipeline_of(
        settings, tmp_path / "events", bucket=f"file://{archive}", compression=False
    )
    with pytest.raises(PermanentError, match="holds no hour"):
        restore(archive_of(hourly), hourly, HOUR)
    hourly.land()
    harness.build(hourly, HOUR)
    stored = next(archive.glob("**/*.jsonl"))
    stored.write_bytes(stored.read_bytes().replace(b"task_failed", b"task_fooled"))
    shutil.rmtree(settings.data_dir)
    with pytest.raises(PermanentError, match="not what its manifest says") as raised:
        restore(archive_of(hourly), hourly, HOUR)
    assert "task_fooled" not in str(raised.value)
    assert hourly.log.load().hours == {}
    late = HourlyPipeline(hourly.config.model_copy(update={"start": HOUR.next.key}), settings)
    with pytest.raises(ConfigurationError, match="first hour"):
        restore(archive_of(late), late, HOUR)


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        "landing.before_chunk",
        "landing.after_chunk",
        "landing.before_commit",
        "landing.after_commit",
    ],
)
def test_a_killed_restore_is_finished_by_the_next(
    settings: Settings, tmp_path: Path, point: str
) -> None:
    """SIGKILL anywhere: nothing or all of the hour has landed, and the command again makes it whole."""
    file = harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    env = harness.environment(settings, tmp_path / "events")
    archive = pipeline_of(settings, tmp_path / "events")
    archive.land()
    harness.build(archive, HOUR)
    shutil.rmtree(settings.data_dir)
    file.unlink()
    killed = harness.run("obs", "s3", "restore", HOUR.key, env={**env, "OBS_CRASH_AT": point})
    assert killed.code == -9, killed.said
    there = archive.log.load().hour(HOUR).rows
    assert there == (len(harness.an_hour()) if point == "landing.after_commit" else 0)
    again = harness.run("obs", "s3", "restore", HOUR.key, "--json", env=env)
    assert json.loads(again.out) == {HOUR.key: len(harness.an_hour()) - there}
    assert archive.log.load().hour(HOUR).rows == len(harness.an_hour())


def test_a_url_that_looks_like_a_placeholder_stays(settings: Settings, tmp_path: Path) -> None:
    """What is put into a query is not searched for further placeholders: the file's name is the object's URL."""
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    bucket = f"file://{tmp_path}/$collector"
    hourly = pipeline_of(settings, tmp_path / "events", bucket=bucket)
    hourly.land()
    harness.build(hourly, HOUR)
    fresh = HourlyPipeline(
        hourly.config, settings.model_copy(update={"data_dir": tmp_path / "fresh"})
    )
    restore(archive_of(hourly), fresh, HOUR)
    with connect(fresh.store.temp_dir) as connection:
        (chunk,) = fresh.log.chunk_paths(fresh.landed().hour(HOUR))
        ((file,),) = (
            connection.read_parquet(str(chunk)).project("event_file").distinct().fetchall()
        )
    assert file.startswith(f"{bucket}/")


def test_an_hour_comes_back_from_a_table(settings: Settings, tmp_path: Path) -> None:
    """Any destination that keeps events can be named; the rows keep their identity, and none comes twice."""
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    blocks = [{"type": "postgres", "from": "redacted"}]
    hourly = HourlyPipeline(
        harness.everything_kept(tmp_path / "events", destinations=blocks), settings
    )
    hourly.land()
    harness.build(hourly, HOUR)
    before = [row[0] for row in frame(hourly)]
    fresh = HourlyPipeline(
        hourly.config, settings.model_copy(update={"data_dir": tmp_path / "fresh"})
    )
    archive = archive_of(hourly, "postgres_events")
    assert restore(archive, fresh, HOUR).hours == {HOUR.key: len(before)}
    assert restore(archive, fresh, HOUR).hours == {}
    for stage in ("raw_events", "enriched_events", "redacted_events"):
        fresh.build(stage, HOUR)  # type: ignore[arg-type]
    assert [row[0] for row in frame(fresh)] == before
