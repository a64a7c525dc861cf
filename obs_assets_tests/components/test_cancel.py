"""Runs that a signal cancels: real processes, each asset alone and in a range."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest

from obs_assets.components.cancel import in_thread
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
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

LARGE_BYTES = 600 << 20
"""Bytes of a file whose landing takes long enough to be cancelled."""


@contextmanager
def held_at(settings: Settings, lock: str) -> Iterator[Callable[[], bool]]:
    """Keep whoever wants a lock of PostgreSQL waiting; yields whether somebody does."""
    assert settings.postgres
    with connect_postgres(settings.postgres) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [lock])
        query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        yield lambda: bool(connection.execute(query).fetchone())


def cancelled(
    command: list[str],
    env: dict[str, str],
    how: signal.Signals,
    is_at_work: Callable[[], bool],
    *,
    after_s: float = 1.0,
) -> dg.DagsterInstance:
    """Send a signal to a command, some seconds after it is at work.

    Returns its Dagster, whose newest run is cancelled, soon and once.
    """
    with (
        output_of(env).open("w") as output,
        subprocess.Popen(
            [str(harness.BIN / "dagster"), *command],
            env=env,
            cwd=harness.PROJECT,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        until = time.monotonic() + 120
        while process.poll() is None and not is_at_work() and time.monotonic() < until:
            time.sleep(0.1)
        assert process.poll() is None, output_of(env).read_text()[-4000:]
        assert is_at_work()
        time.sleep(after_s)
        began, used = time.monotonic(), sum(psutil.Process(process.pid).cpu_times()[:2])
        process.send_signal(how)
        _, _, usage = os.wait4(process.pid, 0)
        seconds, used = time.monotonic() - began, usage.ru_utime + usage.ru_stime - used
    instance = dg.DagsterInstance.from_config(env["DAGSTER_HOME"])
    run = instance.get_runs()[0]
    assert run.status == dg.DagsterRunStatus.CANCELED
    assert dg.DagsterEventType.STEP_UP_FOR_RETRY not in kinds_of(instance, run.run_id)
    assert used < WITHIN_S
    assert seconds < SHORTER_THAN_LOCKS_S
    return instance


def kinds_of(instance: dg.DagsterInstance, run_id: str, step: str = "") -> list[object]:
    """Kinds of a run's events, of one step or of all."""
    entries = [
        record.event_log_entry for record in instance.get_records_for_run(run_id).records
    ]
    return [one.dagster_event_type for one in entries if not step or one.step_key == step]


def output_of(env: dict[str, str]) -> Path:
    """The file with the command's output."""
    return Path(env["DAGSTER_HOME"]) / "output.txt"


def begins(env: dict[str, str], step: str) -> Callable[[], bool]:
    """Whether the command has begun a step."""
    return lambda: f"{step} - STEP_START" in output_of(env).read_text()


def span_of(hours: tuple[Hour, ...]) -> list[str]:
    """The options of `dagster asset materialize` for these hours."""
    if len(hours) == 1:
        return ["--partition", hours[0].key]
    return ["--partition-range", f"{hours[0]}...{hours[-1]}"]


@pytest.mark.system  # 7 runs of some ten seconds each; `make soak` runs all 28
@pytest.mark.parametrize(
    ("hours", "how"),
    [
        pytest.param(HOURS, signal.SIGTERM, id="range-SIGTERM"),
        pytest.param(HOURS, signal.SIGINT, id="range-SIGINT", marks=pytest.mark.soak),
        pytest.param(HOURS[1:], signal.SIGTERM, id="alone-SIGTERM", marks=pytest.mark.soak),
        pytest.param(HOURS[1:], signal.SIGINT, id="alone-SIGINT", marks=pytest.mark.soak),
    ],
)
@pytest.mark.parametrize("asset", [*STAGES, "postgres_events", "s3_archive", "webhook_alerts"])
def test_a_signal_cancels_a_run_of_each_asset(
    settings: Settings, tmp_path: Path, asset: str, hours: tuple[Hour, ...], how: signal.Signals
) -> None:
    """While it waits for an hour: nothing is left behind, and exactly the missing hours are asked for again."""
    events = tmp_path / "events"
    for hour in hours:
        harness.write_events(events / "a.jsonl", harness.an_hour(hour))
    url = "http://127.0.0.1:1/"
    hourly = HourlyPipeline(harness.everything_kept(events, url), settings)
    # The file of a pipeline holds no secret: the command has the URL from its environment.
    pipelines = harness.write_pipeline(tmp_path / "pipelines", harness.everything_kept(events))
    env = harness.environment(
        settings, events, OBS_PIPELINES_DIR=str(pipelines), WEBHOOK_URL=url
    )
    hourly.land()
    before = STAGES[: STAGES.index(asset)] if asset in STAGES else STAGES
    for hour in hours:
        for stage in before:
            hourly.build(stage, hour)
        for name in hourly.destination_names:
            if name != asset and asset not in STAGES:
                hourly.deliver(name, hour)
    module = ["-m", "obs_assets.definitions", "--select", asset]
    with hourly.locks.hold(hours[-1], alone=True):
        command = ["asset", "materialize", *module, *span_of(hours)]
        cancelled(command, env, how, begins(env, asset)).dispose()
    assert harness.leftovers(settings) == []
    missing = hourly.staleness().missing
    assert hours[-1] in missing
    for hour in hours:
        lacking = [
            name
            for name in hourly.destination_names
            if not hourly.destination(name).holding(hour)
        ]
        assert sorted(missing.get(hour, ())) == sorted(lacking)
    harness.build(hourly, *missing)
    assert hourly.staleness().missing == {}
    assert [verdict for hour in hours for verdict in harness.wrong(hourly, hour)] == []


KILLED_BETWEEN = """
import logging, os, pathlib, signal
from obs_assets.definitions import defs

KILLED = pathlib.Path(os.environ["DAGSTER_HOME"], "killed")

class Killing(logging.Logger):
    def handle(self, record):
        super().handle(record)
        if " - ASSET_CHECK_EVALUATION - " in record.getMessage() and not KILLED.exists():
            KILLED.touch()
            os.kill(os.getpid(), signal.SIGTERM)

logging.setLoggerClass(Killing)  # Dagster makes the run's logger of it
"""
"""Definitions whose process gets a signal while Dagster stores an evaluation, which is outside the step's code."""


@pytest.mark.system
def test_a_signal_between_two_events_of_a_range(settings: Settings, tmp_path: Path) -> None:
    """While Dagster stores an hour's evaluation: the other hour stops, and the complete hour is reported."""
    events = tmp_path / "events"
    for hour in HOURS:
        harness.write_events(events / "a.jsonl", harness.an_hour(hour))
    hourly = HourlyPipeline(harness.everything_kept(events), settings)
    hourly.land()
    for hour in HOURS:
        for stage in STAGES:
            hourly.build(stage, hour)
    env = harness.environment(settings, events, WEBHOOK_URL="http://127.0.0.1:1/")
    (tmp_path / "killed_between.py").write_text(KILLED_BETWEEN)
    target = ["-f", str(tmp_path / "killed_between.py"), "--select", "postgres_events"]
    command = ["dagster", "asset", "materialize", *target, *span_of(HOURS)]
    with hourly.locks.hold(HOUR.next, alone=True):
        subprocess.run(
            [harness.BIN / command[0], *command[1:]],
            check=False,
            env=env,
            cwd=harness.PROJECT,
            timeout=300,
        )
        waited_s = time.time() - (Path(env["DAGSTER_HOME"]) / "killed").stat().st_mtime
    assert waited_s < SHORTER_THAN_LOCKS_S
    with dg.DagsterInstance.from_config(env["DAGSTER_HOME"]) as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.CANCELED]
        key = dg.AssetKey("postgres_events")
        assert instance.get_materialized_partitions(key) == {HOUR.key}
    missing = hourly.staleness().missing
    assert [hour for hour in HOURS if "postgres_events" in missing[hour]] == [HOUR.next]


@pytest.mark.system
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_a_signal_cancels_a_landing_pass(
    settings: Settings, tmp_path: Path, how: signal.Signals
) -> None:
    """In the middle of a large file: no part of the pass has landed, and the next lands each event once."""
    block = harness.write_events(tmp_path / "block.jsonl", harness.an_hour(HOUR)).read_bytes()
    copies = LARGE_BYTES // len(block)
    (tmp_path / "events").mkdir()
    with (tmp_path / "events" / "a.jsonl").open("wb") as file:
        for _ in range(copies):
            file.write(block)
    hourly = HourlyPipeline(harness.everything_kept(tmp_path / "events"), settings)
    env = harness.environment(settings, tmp_path / "events", WEBHOOK_URL="http://127.0.0.1:1/")
    command = ["job", "execute", "-m", "obs_assets.definitions", "-j", "land_event_files"]

    def writes() -> bool:
        return any(hourly.log.root.glob("**/*.parquet"))

    cancelled(command, env, how, writes, after_s=0.5).dispose()
    assert hourly.landed().last_pass == 0
    assert sum(hourly.land().hours.values()) == copies * len(harness.an_hour(HOUR))
    assert harness.leftovers(settings) == []


class StoppedError(BaseException):
    """Raised by a handler of signals, as Dagster's handler does."""


@pytest.mark.soak
def test_no_interrupt_gets_lost(settings: Settings, tmp_path: Path) -> None:
    """Wherever a landing pass is, an interrupt ends it, and it has landed nothing: 100 times."""
    block = harness.write_events(tmp_path / "block.jsonl", harness.an_hour(HOUR)).read_bytes()
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "a.jsonl").write_bytes(block * ((100 << 20) // len(block)))
    hourly = HourlyPipeline(harness.everything_kept(tmp_path / "events"), settings)

    def stop(_number: int, _frame: object) -> None:
        raise StoppedError

    with signals_go_to(stop):
        for number in range(100):
            timer = threading.Timer(0.2 + number / 200, os.kill, [os.getpid(), signal.SIGUSR1])
            timer.start()
            with pytest.raises(StoppedError):
                in_thread(hourly.land)
            timer.join()
            assert hourly.landed().last_pass == 0


@contextmanager
def signals_go_to(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Within the block, SIGUSR1 calls the handler. Workers of the tests ignore SIGINT."""
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


# Each asset, each signal, a range and an hour alone; `make soak` runs the other four.
@pytest.mark.parametrize(
    ("asset", "hours", "how"),
    [
        pytest.param("postgres_events", HOURS, signal.SIGTERM, id="postgres-range-SIGTERM"),
        pytest.param("postgres_events", HOURS[1:], signal.SIGINT, id="postgres-alone-SIGINT"),
        pytest.param("webhook_alerts", HOURS, signal.SIGINT, id="webhook-range-SIGINT"),
        pytest.param("webhook_alerts", HOURS[1:], signal.SIGTERM, id="webhook-alone-SIGTERM"),
        *[
            pytest.param(asset, hours, how, id=f"{asset}-{how.name}", marks=pytest.mark.soak)
            for asset, hours, how in [
                ("postgres_events", HOURS, signal.SIGINT),
                ("postgres_events", HOURS[1:], signal.SIGTERM),
                ("webhook_alerts", HOURS, signal.SIGTERM),
                ("webhook_alerts", HOURS[1:], signal.SIGINT),
            ]
        ],
    ],
)
def test_a_signal_cancels_a_run(
    settings: Settings, tmp_path: Path, asset: str, hours: tuple[Hour, ...], how: signal.Signals
) -> None:
    """Within ten seconds it has ended CANCELED, no step was repeated, and nothing is left behind."""
    events = tmp_path / "events"
    for hour in hours:
        harness.write_events(events / "a.jsonl", harness.an_hour(hour))
    env = harness.environment(settings, events, WEBHOOK_URL="http://127.0.0.1:1/")
    HourlyPipeline(harness.everything_kept(events), settings).land()
    module = ["-m", "obs_assets.definitions", "--select", "*"]
    command = ["asset", "materialize", *module, *span_of(hours)]
    lock = (
        f"public.events {hours[-1]}" if asset == "postgres_events" else "outbox webhook_alerts"
    )
    with held_at(settings, lock) as waits:
        cancelled(command, env, how, waits).dispose()
    assert harness.leftovers(settings) == []
