"""What a notebook gets: an hour as a pandas frame."""

from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

import obs_assets
from obs_assets.errors import ConfigurationError, MissingFrameError
from obs_assets.events import LINEAGE, PROMOTED
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR


@pytest.fixture(autouse=True)
def _built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events_dir = harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour()).parent
    monkeypatch.setenv("OBS_DATA_DIR", str(tmp_path / "data"))
    hourly = HourlyPipeline(
        harness.everything_kept(events_dir), Settings(data_dir=tmp_path / "data")
    )
    hourly.land()
    for stage in STAGES:
        hourly.build(stage, HOUR)


@pytest.mark.slow
def test_an_hour_is_a_pandas_frame() -> None:
    """Typed columns, times in UTC, sorted, and the whole event beside them."""
    hour = obs_assets.read_hour("redacted_events", HOUR.key)
    assert isinstance(hour, pd.DataFrame)
    assert list(hour.columns) == [*LINEAGE, *PROMOTED, "redactions", "event"]
    assert len(hour) == 34
    assert str(hour["event_time"].dt.tz) == "UTC"
    assert hour["event_time"].is_monotonic_increasing
    assert hour["duration_ms"].sum() == sum(number * 1000 + 500 for number in range(20))
    assert hour["cost_usd"].sum() == Decimal(
        "0.573"
    )  # 190,000 tokens at 3 and 200 at 15 dollars a million
    assert not hour["event"].str.contains("agent1@example.com", regex=False).any()


@pytest.mark.slow
def test_a_missing_hour_says_what_to_do() -> None:
    """The same sentences as everywhere."""
    with pytest.raises(MissingFrameError, match="materialize sampled_events for it first"):
        obs_assets.read_hour("sampled_events", HOUR.next.key)
    with pytest.raises(ConfigurationError, match="is not an hour"):
        obs_assets.read_hour("sampled_events", "today")
    with pytest.raises(ConfigurationError, match="no pipeline is called 'nowhere'"):
        obs_assets.read_hour("sampled_events", HOUR.key, pipeline_name="nowhere")
