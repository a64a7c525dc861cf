"""The pages that a user opens, in a real browser."""

import importlib.util
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import pytest

from obs_assets.pipeline import STAGES
from obs_assets.settings import Settings
from obs_assets_tests.harness import BIN, environment, run

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
HOUR = "2025-12-04-10:00"


def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "scripts" / "pictures.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def address(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A webserver over an hour that was landed and materialized with the commands of the README."""
    events = tmp_path / "events"
    events.mkdir()
    moment = datetime(2025, 12, 4, 10, 30, tzinfo=UTC).isoformat()
    event = {"type": "task_failed", "level": "error", "timestamp": moment, "error": "of ana@example.com"}
    lines = [{**event, "n": n} for n in range(7)]
    (events / "agent.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    env = environment(settings, events)
    module = ["-m", "obs_assets.definitions"]
    assert run(BIN / "dagster", "job", "execute", *module, "-j", "land_event_files", env=env).code == 0
    selected = ["--select", "*", "--partition", HOUR]
    assert run(BIN / "dagster", "asset", "materialize", *module, *selected, env=env).code == 0
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pictures().webserver() as url:
        yield url


def test_the_pages_that_a_user_opens(address: str) -> None:
    """Lineage from the files to the three destinations, an hour with its receipt, and what builds hours by itself."""
    browse = pictures().browse
    asset = f"{address}/assets/redacted_events"
    lineage = browse(f"{asset}?view=lineage&lineageScope=neighbors&lineageDepth=4", "--dump-dom")
    for name in ("event_files", "landed_events", *STAGES, "postgres_events", "s3_archive", "webhook_alerts"):
        assert name in lineage
    hour = browse(f"{asset}?view=partitions&partition={quote(HOUR)}", "--dump-dom")
    assert "adds up" in hour
    assert "email" in hour
    assert "ana@example.com" not in hour
    automation = browse(f"{address}/automation", "--dump-dom")
    for name in ("event_file_sensor", "stale_hour_sensor", "hourly_pipeline_schedule", "postgres_upkeep_schedule"):
        assert name in automation
