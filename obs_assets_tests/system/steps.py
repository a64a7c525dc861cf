"""What the tests of a deployment do: write events, let them land and heal, and prove that each is where it belongs."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import psutil

from obs_assets.hours import Hour, hours_between
from obs_assets.sources.log import LandingLog
from obs_assets_tests import harness
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.system.deployment import Deployment, wait_for


def write(deployment: Deployment, hour: Hour, count: int = 5, name: str = "evt") -> None:
    """Append events that the default pipeline keeps whole, each with an id of its own, to the hour's file."""
    event = {"type": "task_failed", "level": "error", "error": "no answer"}
    events = [
        harness.at(hour, 7 * n, {"id": f"{name}-{hour.stamp}-{n}", **event})
        for n in range(count)
    ]
    harness.write_events(deployment.events_dir / f"{hour.stamp}.jsonl", events)


def written(deployment: Deployment, hour: Hour) -> Counter[str]:
    lines = (deployment.events_dir / f"{hour.stamp}.jsonl").read_text().splitlines()
    return ids(map(json.loads, lines))


def ids(events: Iterable[dict[str, Any]]) -> Counter[str]:
    return Counter(str(event["id"]) for event in events)


def assert_whole(deployment: Deployment, *hours: Hour) -> None:
    """Each hour is proven, and each event of it at every destination as often as it was written."""
    stored = harness.objects(deployment.machine)
    alerts = ids(harness.alerts(deployment.receiver.requests))
    for hour in hours:
        wrong = harness.wrong(deployment.hourly, hour)
        assert wrong == [], wrong
        expected = written(deployment, hour)
        rows = harness.ask(
            deployment.machine.postgres, "SELECT data FROM events WHERE hour = %s", hour.start
        )
        assert among(expected, ids(row for (row,) in rows)) == expected
        assert among(expected, ids(harness.lines_of(stored, hour))) == expected
        assert Counter({name: alerts[name] for name in expected}) == expected
    verified = harness.run("obs", "verify", hours[-1].key, env=deployment.env)
    assert verified.code == 0, verified.said


def among(expected: Counter[str], found: Counter[str]) -> Counter[str]:
    """What was found, without the extra events of the canary."""
    return Counter(
        {
            name: n
            for name, n in found.items()
            if name in expected or not name.startswith("canary-")
        }
    )


def land(deployment: Deployment, *hours: Hour) -> None:
    """Let the sensor land what was written, and close the hours; nothing is built until something asks for it."""

    def done() -> bool:
        deployment.hold(
            "stale_hour_sensor"
        )  # each time: a tick that was under way ends by letting it go
        deployment.wake("event_file_sensor")
        log = deployment.hourly.log
        with duckdb.connect() as connection:
            return all(
                written(deployment, hour) <= landed(connection, log, hour) for hour in hours
            )

    wait_for("the files are landed", done, pause_s=1)
    assert deployment.hourly.first_open_hour() > max(hours)


def landed(connection: duckdb.DuckDBPyConnection, log: LandingLog, hour: Hour) -> Counter[str]:
    """The ids that have landed for an hour, by the chunks."""
    chunks = [str(chunk) for chunk in log.chunk_paths(log.load().hour(hour))]
    if not chunks:
        return Counter()
    return ids(
        json.loads(line)
        for (line,) in connection.read_parquet(chunks).project("line").fetchall()
    )


def heal(deployment: Deployment, *hours: Hour) -> None:
    """Let the sensors do what there is to do for these hours, and nobody else."""
    land(deployment, *hours)

    def done() -> bool:
        deployment.let_pass(timedelta(minutes=30))
        deployment.wake("stale_hour_sensor")
        stale = set(deployment.hourly.staleness().hours)
        return not stale & set(hours) and all(run.ended for run in deployment.runs(*hours))

    wait_for(f"{[hour.key for hour in hours]} are built", done, pause_s=1)
    assert_whole(deployment, *hours)


@contextlib.contextmanager
def held_at_postgres(deployment: Deployment, hour: Hour) -> Iterator[None]:
    """Let whatever loads this hour into PostgreSQL wait until the block ends."""
    assert deployment.machine.postgres
    with connect_postgres(deployment.machine.postgres) as connection:
        connection.execute(
            "SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"public.events {hour}"]
        )
        yield


@contextlib.contextmanager
def run_held_at_postgres(
    deployment: Deployment, hour: Hour, **tags: str
) -> Iterator[tuple[str, psutil.Process]]:
    """Write and land an hour and launch its run, whose worker waits at PostgreSQL until the block ends.

    All stages are behind it, and one destination or more is before it.

    Yields:
        The run's id, and its worker.
    """
    write(deployment, hour)
    land(deployment, hour)
    with held_at_postgres(deployment, hour):
        run_id = deployment.launch(hour, **tags)
        yield run_id, _waiting_worker(deployment)


def _waiting_worker(deployment: Deployment) -> psutil.Process:
    """The process whose connection waits for an advisory lock."""

    def find() -> psutil.Process | None:
        ports = harness.ask(
            deployment.machine.postgres,
            "SELECT client_port FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'",
        )
        for connection in psutil.net_connections("tcp"):
            if connection.pid and connection.laddr and (connection.laddr.port,) in ports:
                return psutil.Process(connection.pid)
        return None

    found = wait_for("a worker waits at PostgreSQL", find)
    assert isinstance(found, psutil.Process)
    return found


BEGAN = datetime.now(UTC)
"""Of all tests: no day is counted from another one when midnight passes."""


def hours_of_day(days_ago: int, count: int, first: int = 0) -> list[Hour]:
    start = Hour.of(BEGAN - timedelta(days=days_ago)).start.replace(hour=first)
    return list(hours_between(Hour(start), Hour(start + timedelta(hours=count))))
