"""CONTRIBUTING's recipe for a destination: one module and one row, and everything else knows it."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from obs_assets import embedded
from obs_assets.audit.diff import diff
from obs_assets.audit.review import review
from obs_assets.audit.scan import scan
from obs_assets.audit.verify import verify
from obs_assets.cli import app
from obs_assets.components import pipeline_definitions
from obs_assets.delivery import kinds
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hourly.restore import archive_of, restore
from obs_assets.hours import utc_now
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS
from obs_assets_tests.harness import HOUR
from obs_assets_tests.recipes import tape
from obs_assets_tests.test_settings_reference import load_reference

pytestmark = DAGSTER_WARNINGS

FILE = """
type: obs_assets.components.ObservabilityPipeline
attributes:
  start: "2025-12-01-00:00"
  source: {events_dir: EVENTS}
  destinations:
    - {type: reel, label: blue, from: redacted}
"""


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The row of the invented kind stands in the table, as if it were written there."""
    with monkeypatch.context() as patch:
        patch.setattr(kinds, "KINDS", (*kinds.KINDS, tape.ROW))
        PipelineConfig.model_rebuild(force=True)
        yield
    PipelineConfig.model_rebuild(force=True)


@pytest.fixture
def pipeline_file(tmp_path: Path) -> Path:
    """A pipeline file with the invented destination, and events for it."""
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    path = tmp_path / "pipelines" / "tapes" / "defs.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(FILE.replace("EVENTS", str(tmp_path / "events")))
    return path


@pytest.fixture
def hourly(registered: None, pipeline_file: Path, tmp_path: Path) -> Iterator[HourlyPipeline]:
    """The pipeline with an hour delivered. The machine names no server: the drive is started."""
    settings = Settings(data_dir=tmp_path / "data")
    hourly = HourlyPipeline(pipeline.load(pipeline_file), settings, "tapes")
    hourly.land()
    harness.build(hourly, HOUR)
    yield hourly
    embedded.stop(settings.data_dir, kinds.servers())


def test_only_its_own_server_is_started(hourly: HourlyPipeline) -> None:
    """The drive runs; no PostgreSQL and no S3 server is started for a destination without one."""
    servers = embedded.status(hourly.settings.data_dir, kinds.servers())
    assert {server.name: server.running for server in servers} == {
        "PostgreSQL": False,
        "S3 server": False,
        "Tape drive": True,
    }


def test_it_is_verified_scanned_and_checked(hourly: HourlyPipeline) -> None:
    """Every question that is asked of an hour is asked of the tape, and finds what is wrong there."""
    assert harness.wrong(hourly) == []
    assert hourly.staleness().hours == []
    (found,) = scan(hourly, HOUR, ["tape"])
    assert (found.store, found.ok) == ("tape_events", True)
    assert found.events == len(harness.an_hour())
    receipt = hourly.store.read_receipt("tape_events", HOUR)
    findings = review(hourly, "tape_events", HOUR, receipt)
    assert findings["destinations_agree"].passed
    (path,) = Path(hourly.settings.data_dir, "servers/tape/data/blue").glob("*.json")
    document = json.loads(path.read_text())
    document["events"][0]["event"] = '{"mail": "jane.doe@example.com"}'
    path.write_text(json.dumps(document))
    (verdict,) = [verdict for verdict in verify(hourly, HOUR) if not verdict.ok]
    assert (verdict.store, verdict.different) == ("tape_events", 1)
    (found,) = scan(hourly, HOUR, ["tape_events"])
    assert found.by_type == {"email": 1}


def test_its_outages_are_handled(hourly: HourlyPipeline) -> None:
    """A drive that is down opens its breaker; another tape takes its hours, and hands them back."""
    values = hourly.config.model_dump(by_alias=True, exclude_unset=True)
    blocks = [
        {"type": "tape", "from": "redacted", "failover": {"to": "spare", "after_minutes": 0}},
        {"type": "tape", "name": "spare", "label": "red"},
    ]
    config = pipeline.parse({**values, "destinations": blocks})
    now = [utc_now()]
    both = HourlyPipeline(config, hourly.settings, "tapes", clock=lambda: now[0])
    failover = both.failover("tape_events")
    assert failover
    for number in range(3):
        failover.primary.breaker.failed(now[0], f"failure {number}")
    assert "failure 2" in both.resting(now[0])["tape_events"]
    both.deliver("tape_events", HOUR, rebuild=True)
    assert both.holder("tape_events", HOUR) == "spare"
    assert harness.wrong(both) == []
    now[0] += timedelta(minutes=20)
    assert both.staleness().due == [HOUR]
    both.deliver("tape_events", HOUR)
    assert both.holder("tape_events", HOUR) == "tape_events"
    assert both.resting(now[0]) == {}
    assert harness.wrong(both) == []
    held = both.destination("spare").holding(HOUR)
    assert held
    assert held.rows == 0


def test_its_options_are_in_the_reference(registered: None) -> None:
    """docs/settings.md, made anew, has a section of the kind."""
    assert "| `label` |" in load_reference().page()


def test_what_another_configuration_would_give_it(hourly: HourlyPipeline) -> None:
    """``obs diff`` counts its rows and bytes."""
    values = hourly.config.model_dump(by_alias=True)
    other = pipeline.parse({**values, "destinations": [{"type": "tape", "from": "sampled"}]})
    found = diff(hourly, other, [HOUR])
    rows, size = found.now.destinations["tape_events"]
    assert rows == len(harness.an_hour())
    assert size > 0


def test_an_hour_comes_back_from_it(hourly: HourlyPipeline, tmp_path: Path) -> None:
    """Into an empty data folder, once: a second restore brings nothing."""
    fresh = HourlyPipeline(hourly.config, Settings(data_dir=tmp_path / "fresh"), "tapes")
    archive = archive_of(hourly, "tape_events")
    assert restore(archive, fresh, HOUR).hours == {HOUR.key: len(harness.an_hour())}
    assert restore(archive, fresh, HOUR).hours == {}


def test_the_ui_shows_it(hourly: HourlyPipeline) -> None:
    """Its asset has the row's description, kinds, table and columns, and runs in Dagster."""
    definitions = pipeline_definitions(hourly.config, machine=hourly.settings)
    asset = definitions.get_assets_def("tape_events")
    spec = asset.get_asset_spec()
    assert spec.description == "The hour's events on a tape."
    assert "tape" in spec.kinds
    assert spec.metadata["dagster/table_name"] == "blue"
    columns = spec.metadata["dagster/column_schema"].columns
    assert [column.name for column in columns] == ["event"]
    assert dg.AssetKey("redacted_events") in asset.asset_deps[asset.key]


def test_commands_know_it(
    hourly: HourlyPipeline, pipeline_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``obs metrics`` asks it, ``obs validate`` reaches it, ``obs down`` ends its server."""
    monkeypatch.setenv("OBS_DATA_DIR", str(hourly.settings.data_dir))
    monkeypatch.setenv("OBS_PIPELINES_DIR", str(pipeline_file.parents[1]))
    runner = CliRunner()
    printed = runner.invoke(app, ["metrics"], catch_exceptions=False).output
    assert 'obs_destination_up{destination="tape_events",pipeline="tapes"} 1.0' in printed
    assert 'obs_events{outcome="kept",pipeline="tapes",stage="tape_events"}' in printed
    assert 'obs_breaker_open{destination="tape_events",pipeline="tapes"} 0.0' in printed
    checked = runner.invoke(app, ["validate"], catch_exceptions=False)
    assert "a tape drive at http://127.0.0.1" in checked.output
    stopped = runner.invoke(app, ["down", "--json"], catch_exceptions=False).output
    assert json.loads(stopped) == {"stopped": ["Tape drive"]}


def test_a_mistake_in_its_block_is_explained(registered: None) -> None:
    """The message names the option and the nearest known one, as for any destination."""
    with pytest.raises(
        pipeline.ConfigurationError, match=r"unknown option 'labell'; did you mean 'label'"
    ):
        pipeline.parse({"destinations": [{"type": "tape", "labell": "x"}]})
