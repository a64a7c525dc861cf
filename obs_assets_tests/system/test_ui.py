"""The pages that a user opens, in a real browser."""

import importlib.util
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import pytest

from obs_assets.hourly.stage_rows import STAGES
from obs_assets.settings import Settings
from obs_assets_tests.harness import BIN, environment, run

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
HOUR, ODD = "2025-12-04-10:00", "2025-12-04-13:00"


def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "scripts" / "pictures.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def address(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A webserver over hours that were landed and materialized with the commands of the README; the last one is odd."""
    events = tmp_path / "events"
    events.mkdir()
    event = {
        "type": "task_failed",
        "level": "error",
        "error": "of ana@example.com",
        "cost_usd": 0.25,
    }
    lines = [
        {**event, "n": n, "timestamp": datetime(2025, 12, 4, hour, 30, tzinfo=UTC).isoformat()}
        for hour in range(10, 14)
        for n in range(7)
    ]
    lines[-1]["n"] = {"of": "another type"}
    (events / "agent.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    env = environment(settings, events)
    module = ["-m", "obs_assets.definitions"]
    assert (
        run(BIN / "dagster", "job", "execute", *module, "-j", "land_event_files", env=env).code
        == 0
    )
    selected = ["--select", "*", "--partition-range", f"{HOUR}...{ODD}"]
    assert run(BIN / "dagster", "asset", "materialize", *module, *selected, env=env).code == 0
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pictures().webserver() as url:
        yield url


def test_the_pages_that_a_user_opens(address: str) -> None:
    """Lineage to the three destinations, an hour with receipt and picture, a failed check, what builds hours itself."""
    browse = pictures().browse
    asset = f"{address}/assets/redacted_events"
    lineage = browse(
        f"{asset}?view=lineage&lineageScope=neighbors&lineageDepth=4", "--dump-dom"
    )
    for name in (
        "event_files",
        "landed_events",
        *STAGES,
        "postgres_events",
        "s3_archive",
        "webhook_alerts",
    ):
        assert name in lineage
    hour = browse(f"{asset}?view=partitions&partition={quote(HOUR)}", "--dump-dom")
    assert "adds up" in hour
    assert "email" in hour
    assert "ana@example.com" not in hour
    assert "·" * 30 + "█" + "·" * 29 in hour  # all events of the hour are of one minute
    assert "1.75" in hour  # the cost of the hour
    checks = browse(f"{asset}?view=checks&checkDetail=schema_drift", "--dump-dom")
    assert "1 field is new and 1 field is of another type than before: n.of, n." in checks
    assert "n (number → number|object)" in checks
    automation = browse(f"{address}/automation", "--dump-dom")
    for name in (
        "event_file_sensor",
        "stale_hour_sensor",
        "hourly_pipeline_schedule",
        "postgres_upkeep_sensor",
    ):
        assert name in automation
