"""`obs diff`: what another configuration would do, told before it is deployed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obs_assets.audit.diff import as_json, as_markdown, diff
from obs_assets.crash import interrupted
from obs_assets.destinations.s3 import S3Destination
from obs_assets.errors import HourBusyError
from obs_assets.hourly import pipeline, pipeline_files
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import PostgresSettings, S3Settings, Settings
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR
from obs_assets_tests.harness import PROJECT

CHANGED: dict[str, Any] = {
    "redact": {
        "modes": {"email": "keep"},
        "patterns": [{"name": "task", "regex": "completed"}],
    },
    "filter": {"drop_levels": ["debug", "error"]},
}


def hourly_of(settings: Settings, events_dir: Path) -> HourlyPipeline:
    return HourlyPipeline(harness.everything_kept(events_dir, "http://127.0.0.1:1"), settings)


@pytest.fixture
def landed(tmp_path: Path) -> HourlyPipeline:
    """Two hours, landed, and servers that nobody may call: there are none."""
    nowhere = Settings(
        data_dir=tmp_path / "data",
        postgres=PostgresSettings(host="127.0.0.1", port=1),
        s3=S3Settings(bucket="none", endpoint_url="http://127.0.0.1:1"),
    )
    harness.write_events(
        tmp_path / "events" / "a.jsonl", harness.an_hour() + harness.an_hour(HOUR.next)
    )
    hourly = hourly_of(nowhere, tmp_path / "events")
    hourly.land()
    return hourly


def other(hourly: HourlyPipeline, **changed: Any) -> pipeline.PipelineConfig:
    return harness.everything_kept(
        hourly.config.source.events_dir or Path(), "http://127.0.0.1:1", **changed
    )


@pytest.mark.slow
def test_what_would_change_is_counted(landed: HourlyPipeline) -> None:
    """Kept, dropped, redacted, rows and bytes of each destination; paths and types, and no value of an event."""
    found = diff(landed, other(landed, **CHANGED), [HOUR.previous, HOUR, HOUR.next])
    told = as_json(found)
    assert (told["hours"], told["hours_without_events"], told["landed"]) == (
        [HOUR.key, HOUR.next.key],
        1,
        68,
    )
    now, then = found.now, found.then
    assert (now.kept, then.kept) == (56, 46)
    assert now.dropped == {"filtered:low_value": 6, "filtered:level": 6}
    assert then.dropped == {"filtered:low_value": 6, "filtered:level": 16}
    assert (now.redacted["email"], then.redacted["email"]) == (40, 0)
    assert then.redacted["task"] > 0
    assert (now.redacted["ip_address"], now.redacted["phone"]) == (
        then.redacted["ip_address"],
        then.redacted["phone"],
    )
    assert now.destinations["postgres_events"][0] == 56
    assert then.destinations["postgres_events"][0] == then.destinations["s3_archive"][0] == 46
    assert (now.destinations["webhook_alerts"][0], then.destinations["webhook_alerts"][0]) == (
        10,
        10,
    )
    assert found.newly_dropped == {"task_failed": 10}
    assert not found.newly_kept
    text = as_markdown(found, "new.yaml")
    assert "| kept | 56 | 46 | -10 (-17.9%) |" in text
    assert "- Newly dropped: 10 events: task_failed 10" in text
    assert "- email, no longer redacted everywhere: `data.note`" in text
    assert "- Stages that would make other frames: redacted_events, sampled_events" in text
    for secret in ("example.com", "867 5309", "10.1.2."):
        assert secret not in text + str(told)


@pytest.mark.slow
def test_the_same_configuration_changes_nothing(landed: HourlyPipeline) -> None:
    """No figure differs, and no stage would make another frame."""
    found = diff(landed, landed.config, [HOUR])
    assert found.now.destinations == found.then.destinations
    assert (found.newly_dropped.total(), found.newly_kept.total()) == (0, 0)
    assert all(
        line.endswith("|  |") for line in as_markdown(found, "same.yaml").splitlines()[4:-1]
    )


@pytest.mark.slow
def test_what_was_built_is_used_and_left_alone(landed: HourlyPipeline) -> None:
    """Frames that the present configuration made are not made again, nor touched; nothing of a trial is left."""
    for stage in pipeline.STAGES:
        landed.build(stage, HOUR)
    before = {
        path: (path.stat().st_ino, path.read_bytes())
        for path in landed.store.root.rglob("*")
        if path.is_file()
    }
    made: list[str] = []
    trial = landed.store.root / "trial"
    with interrupted(
        "frame.before_rename",
        lambda: made.extend(path.parent.name for path in trial.glob("*/frames/*/.*.tmp")),
    ):
        diff(landed, other(landed, **CHANGED), [HOUR])
    assert made == ["redacted_events", "sampled_events"]
    after = {
        path: (path.stat().st_ino, path.read_bytes())
        for path in landed.store.root.rglob("*")
        if path.is_file()
    }
    assert after == before
    assert not (landed.store.root / "trial").exists()


@pytest.mark.slow
def test_frames_of_an_older_version_of_the_package_are_compared(landed: HourlyPipeline) -> None:
    """With the same file, an upgrade's effect is shown: `now` is the frame that the older version has built."""
    for stage in pipeline.STAGES:
        landed.build(stage, HOUR)
    receipt = landed.store.read_receipt("redacted_events", HOUR)
    older = replace(
        receipt,
        version=replace(receipt.version, code_version="1.1.1"),
        details={**receipt.details, "redacted values": {"email": 7}},
    )
    landed.store.write_receipt(older, HOUR)
    found = diff(landed, landed.config, [HOUR])
    assert found.older == ["redacted_events"]
    assert found.now.redacted["email"] == 7 < found.then.redacted["email"]
    assert "Built by another version of the package" in as_markdown(found, "same.yaml")


@pytest.mark.slow
def test_one_comparison_at_a_time(landed: HourlyPipeline) -> None:
    """Two would share the folder of trials; the second says so."""

    def while_it_runs() -> Any:
        yield HOUR
        with pytest.raises(HourBusyError, match="another comparison is under way"):
            diff(landed, landed.config, [HOUR])

    diff(landed, landed.config, while_it_runs())


@pytest.mark.slow
def test_the_bytes_are_what_the_archive_would_hold(settings: Settings, tmp_path: Path) -> None:
    """The figure of an archive is that of its manifest; and a comparison changes nothing at any destination."""
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    hourly = hourly_of(settings, tmp_path / "events")
    hourly.land()
    harness.build(hourly, HOUR)
    loads = "SELECT destination, loaded_at FROM obs.hour_loads ORDER BY 1"
    before = harness.snapshot(hourly), harness.ask(settings.postgres, loads)
    found = diff(hourly, other(hourly, **CHANGED), [HOUR])
    archive = hourly.destination("s3_archive")
    assert isinstance(archive, S3Destination)
    manifest, _ = archive._manifest(HOUR)
    assert manifest
    assert found.now.destinations["s3_archive"] == (
        28,
        sum(stored.bytes for stored in manifest.objects),
    )
    assert (harness.snapshot(hourly), harness.ask(settings.postgres, loads)) == before


@pytest.mark.slow
def test_the_command(landed: HourlyPipeline, tmp_path: Path) -> None:
    """`obs diff HOUR --with FILE` prints Markdown, or JSON; a range without events is a finding."""
    env = harness.environment(landed.settings, landed.config.source.events_dir)
    file = tmp_path / "new.yaml"
    default = pipeline_files.find().path.read_text()
    file.write_text(default.replace("drop_levels: [debug]", "drop_levels: [debug, error]"))
    done = harness.run(
        "obs", "diff", f"{HOUR}...{HOUR.next}", "--with", file, env=env, cwd=PROJECT
    )
    assert done.code == 0, done.err
    assert "| dropped: filtered:level | 6 | 16 | +10 (+166.7%) |" in done.out
    empty = harness.run("obs", "diff", HOUR.previous.key, "--with", file, env=env, cwd=PROJECT)
    assert empty.code == 1
    assert "nothing has landed" in empty.err
