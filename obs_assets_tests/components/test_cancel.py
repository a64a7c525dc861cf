"""Runs that a signal cancels: real processes, each asset alone and in a range."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.frames import HOUR

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WITHIN_S = 10.0
"""Of a processor; on a busy machine the clock says little."""

SHORTER_THAN_LOCKS_S = 25.0
"""By the clock: a run that waited for its lock to time out would take 30 seconds."""

HOURS = (HOUR, HOUR.next)


@contextmanager
def held_at(settings: Settings, lock: str) -> Iterator[Callable[[], bool]]:
    """Keep whoever wants a lock of PostgreSQL waiting; yields whether somebody does."""
    assert settings.postgres
    with connect_postgres(settings.postgres) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [lock])
        query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        yield lambda: bool(connection.execute(query).fetchone())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
@pytest.mark.parametrize("hours", [HOURS[1:], HOURS], ids=["alone", "range"])
@pytest.mark.parametrize("asset", ["postgres_events", "webhook_alerts"])
def test_a_signal_cancels_a_run(
    settings: Settings, tmp_path: Path, asset: str, hours: tuple[Hour, ...], how: signal.Signals
) -> None:
    """Within ten seconds it has ended CANCELED, no step was repeated, and nothing is left behind."""
    events = tmp_path / "events"
    for hour in hours:
        harness.write_events(events / "a.jsonl", harness.an_hour(hour))
    env = harness.environment(settings, events, WEBHOOK_URL="http://127.0.0.1:1/")
    HourlyPipeline(harness.everything_kept(events), settings).land()
    span = (
        ("--partition-range", f"{hours[0]}...{hours[-1]}")
        if len(hours) > 1
        else ("--partition", hours[0].key)
    )
    command = [
        str(harness.BIN / "dagster"),
        "asset",
        "materialize",
        "-m",
        "obs_assets.definitions",
        "--select",
        "*",
        *span,
    ]
    lock = (
        f"public.events {hours[-1]}" if asset == "postgres_events" else "outbox webhook_alerts"
    )
    with (
        held_at(settings, lock) as waits,
        subprocess.Popen(
            command,
            env=env,
            cwd=harness.PROJECT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        until = time.monotonic() + 240
        while not waits() and time.monotonic() < until:
            time.sleep(0.2)
        assert waits()
        time.sleep(1)
        began, used = time.monotonic(), sum(psutil.Process(process.pid).cpu_times()[:2])
        process.send_signal(how)
        _, _, usage = os.wait4(process.pid, 0)
        seconds, used = time.monotonic() - began, usage.ru_utime + usage.ru_stime - used
    with dg.DagsterInstance.from_config(env["DAGSTER_HOME"]) as instance:
        run = instance.get_runs()[0]
        assert run.status == dg.DagsterRunStatus.CANCELED
        kinds = [
            record.event_log_entry.dagster_event_type
            for record in instance.get_records_for_run(run.run_id).records
        ]
        assert dg.DagsterEventType.STEP_UP_FOR_RETRY not in kinds
    assert used < WITHIN_S
    assert seconds < SHORTER_THAN_LOCKS_S
    assert harness.leftovers(settings) == []
