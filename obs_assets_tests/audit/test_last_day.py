"""What `obs status` says of the last day: kept and dropped, by reason."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from obs_assets.audit.last_day import KEEP_ALL, LastDay, last_day
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR


@pytest.fixture
def hourly(tmp_path: Path) -> HourlyPipeline:
    """A pipeline that filters and samples, without a destination; two hours of events 30 hours apart."""
    file = harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    harness.write_events(file, harness.an_hour(Hour(HOUR.start - timedelta(hours=30))))
    with file.open("a") as more:
        more.write("[1]\n")
    values = {
        "source": {"events_dir": str(tmp_path / "events")},
        "filter": {"drop_levels": ["debug"]},
        "sample": {"success_rate": 0.0, "default_rate": 1.0},
    }
    return HourlyPipeline(pipeline.parse(values), Settings(data_dir=tmp_path / "data"))


def build(hourly: HourlyPipeline) -> None:
    hourly.land()
    for hour in (HOUR, Hour(HOUR.start - timedelta(hours=30))):
        for stage in STAGES:
            hourly.build(stage, hour)


def test_each_event_of_the_day_is_kept_or_has_a_reason(hourly: HourlyPipeline) -> None:
    """Of the day up to the newest built hour, and no earlier one; dead letters of files beside them."""
    assert last_day(hourly) == LastDay()
    assert last_day(hourly).lines() == ["no hour is built yet"]
    build(hourly)
    day = last_day(hourly)
    assert day.hours == f"{HOUR}...{HOUR}"
    assert day.kept + sum(day.dropped.values()) == 34
    assert day.dropped["filtered:level"] == 3
    assert day.dropped["sampled_out:success"] == 20
    assert day.dead_letters == {"not_an_object": 1}
    assert day.lines()[0] == f"{HOUR}...{HOUR}: {day.kept} of 34 events kept"
    assert "20 dropped, sampled_out:success" in day.lines()
    assert day.lines()[-2:] == [f"  {line}" for line in KEEP_ALL]


def test_the_two_lines_keep_every_event(hourly: HourlyPipeline) -> None:
    """They are a pipeline file's, and under them nothing is dropped; then nothing is advised."""
    values = yaml.safe_load("\n".join(KEEP_ALL))
    values["source"] = {"events_dir": str(hourly.config.source.events_dir)}
    everything = HourlyPipeline(pipeline.parse(values), hourly.settings)
    build(everything)
    assert last_day(everything).lines() == [
        f"{HOUR}...{HOUR}: 34 of 34 events kept",
        "1 dead letter, not_an_object",
    ]
