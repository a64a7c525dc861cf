"""Backtests: what a run would have told, and no way to tell it."""

import subprocess
import sys
from contextlib import nullcontext
from datetime import timedelta

import duckdb
import pytest

from obs_assets.alerts import AlertRule
from obs_assets.alerts.backtest import Simulation, backtest, report
from obs_assets.hours import Hour
from obs_assets_tests.frames import HOUR, frame_of

HOURS = [Hour(HOUR.start + timedelta(hours=n)) for n in range(5)]
FAILED = [3, 3, 3, 0, 5]


@pytest.mark.slow
def test_a_backtest_has_no_sender() -> None:
    """Neither the webhook, nor the outbox, nor an HTTP library is there when a backtest is imported."""
    asked = "import sys, obs_assets.alerts.backtest; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    for name in (
        "requests",
        "urllib3",
        "http.client",
        "psycopg",
        "obs_assets.delivery",
        "obs_assets.destinations",
    ):
        assert name not in loaded


@pytest.mark.slow
def test_the_whole_life_is_simulated() -> None:
    """Dispatches after cooldown and grouping, firing hours, the longest firing, and the difference to present rules."""
    tried = [
        AlertRule(name="failures", types=("t",), above=2, by=("worker",), cooldown_hours=2),
        AlertRule(name="errors", types=("t",), levels=()),
    ]
    present = [
        AlertRule(name="failures", types=("t",), above=4, by=("worker",)),
        AlertRule(name="old", above=0),
    ]
    candidate, now = Simulation(tried, batch_size=2), Simulation(present)
    with duckdb.connect() as connection:
        frames = {
            hour: frame_of(
                connection,
                [{"type": "t", "worker": w} for w in "ab" for _ in range(n)] or ["{}"],
                hour,
            )
            for hour, n in zip(HOURS, FAILED, strict=True)
        }
        assert backtest(HOURS, lambda hour: nullcontext(frames[hour]), candidate, now) == 5
    failures, errors = candidate.outcomes("hook")
    assert [(told.hour, told.status, told.alerts) for told in failures.dispatches] == [
        (HOURS[0], "firing", 2),
        (HOURS[2], "firing", 2),
        (HOURS[3], "resolved", 2),
        (HOURS[4], "firing", 2),
    ]
    assert (failures.suppressed, failures.firing_hours, failures.longest_hours) == (
        2,
        (*HOURS[:3], HOURS[4]),
        3,
    )
    assert (errors.forwarded, errors.batches) == (28, 3 + 3 + 3 + 5)
    text = report("rules.yaml", HOURS, 1, [failures, errors], now.outcomes("hook"))
    assert "| failures | 4 | 1 | 2 | 4 | 3 h |" in text
    assert "old (no more)" in text
    assert "1 were not built" in text
