"""Self-metrics: what Prometheus reads of a pipeline."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from obs_assets.audit.metrics import Sample, exposition, measure
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR

NOW = HOUR.next.end + timedelta(minutes=6)


@pytest.fixture
def hourly(settings: Settings, tmp_path: Path) -> HourlyPipeline:
    """Two hours have landed, with a line that cannot be read; the first is built."""
    events = harness.an_hour() + harness.an_hour(HOUR.next)
    file = harness.write_events(tmp_path / "events" / "a.jsonl", events)
    with file.open("a") as lines:
        lines.write("no event\n")
    hourly = HourlyPipeline(harness.everything_kept(file.parent), settings)
    hourly.land(now=NOW)
    harness.build(hourly, HOUR)
    return hourly


@pytest.mark.slow
def test_lag_missing_hours_and_drops_are_told(hourly: HourlyPipeline) -> None:
    """What somebody wants to be woken by: the hour that is missing, how far behind a stage is, what was dropped."""
    told = {
        (name, *sorted(labels.values())): value for name, labels, value in measure(hourly, NOW)
    }
    assert told["obs_landed_events", "pipeline"] == 68
    assert told["obs_landing_age_seconds", "pipeline"] == 0
    assert sum(value for (name, *_), value in told.items() if name == "obs_dead_letters") == 1
    assert told["obs_lag_seconds", "landed_events", "pipeline"] == 360
    assert told["obs_lag_seconds", "pipeline", "raw_events"] == 3960
    assert told["obs_missing_partitions", "pipeline", "postgres_events"] == 1
    assert told["obs_events", "kept", "pipeline", "postgres_events"] == 28
    assert (
        sum(
            value
            for (name, *labels), value in told.items()
            if name == "obs_events" and "sampled_events" in labels
        )
        == 34
    )
    assert told["obs_dispatches", "pipeline", "unsent", "webhook_alerts"] == 1
    assert told["obs_destination_up", "pipeline", "s3_archive"] == 1


def test_an_hour_that_goes_on_is_no_lag(hourly: HourlyPipeline) -> None:
    """Ten minutes into the newest hour a lag of -3000 seconds was shown; now it is 0, and grows from the hour's end."""
    for minutes, lag in ((10, 0), (60, 0), (61, 60)):
        samples = list(measure(hourly, HOUR.next.start + timedelta(minutes=minutes)))
        lags = [sample.value for sample in samples if sample.metric == "obs_lag_seconds"]
        assert min(lags) == lag
    assert "to now; 0 before" in exposition(samples)


@pytest.mark.slow
def test_a_destination_that_is_down_is_told(hourly: HourlyPipeline) -> None:
    """Nothing is claimed of what it holds; the others are told as ever."""
    assert hourly.settings.postgres
    nowhere = hourly.settings.postgres.model_copy(update={"port": 1})
    down = HourlyPipeline(
        hourly.config, hourly.settings.model_copy(update={"postgres": nowhere})
    )
    told = {
        (name, *sorted(labels.values())): value for name, labels, value in measure(down, NOW)
    }
    assert told["obs_destination_up", "pipeline", "postgres_events"] == 0
    assert ("obs_missing_partitions", "pipeline", "postgres_events") not in told
    assert told["obs_missing_partitions", "pipeline", "s3_archive"] == 1


def test_a_dotted_name_and_a_database_that_is_down(hourly: HourlyPipeline) -> None:
    """The webhook whose outbox cannot be asked is down; all else is measured as ever."""
    assert hourly.settings.postgres
    nowhere = hourly.settings.postgres.model_copy(update={"port": 1})
    webhook = {"type": "webhook", "name": "team.pages"}
    config = hourly.config.model_copy(
        update={
            "destinations": PipelineConfig.model_validate(
                {"destinations": [{"type": "s3"}, webhook]}
            ).destinations
        }
    )
    down = HourlyPipeline(config, hourly.settings.model_copy(update={"postgres": nowhere}))
    found = {
        (name, *sorted(labels.values())): value for name, labels, value in measure(down, NOW)
    }
    assert found["obs_destination_up", "pipeline", "team.pages"] == 0
    assert found["obs_destination_up", "pipeline", "s3_archive"] == 1
    assert not [key for key in found if key[0] == "obs_dispatches"]


def test_labels_are_escaped() -> None:
    """A reason may hold what ends a label."""
    assert 'reason="a\\"b\\\\c"' in exposition(
        [Sample("obs_dead_letters", {"reason": 'a"b\\c'}, 1)]
    )


@pytest.mark.system
def test_promtool_accepts_them(hourly: HourlyPipeline) -> None:
    """Prometheus's own checker finds nothing to say."""
    promtool = shutil.which("promtool")
    assert promtool, "install Debian's package prometheus, as .ci/run does"
    text = exposition(measure(hourly, datetime.now(UTC)))
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
