"""Webserver, daemon and code server as three plain processes: a normal day, and what may befall each of them.

Every test has hours of its own, and ends with `obs verify` green and each written event where it belongs.
"""

import contextlib
import json
import random
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import psutil
import psycopg
import pytest
import yaml

from obs_assets import embedded
from obs_assets.demo.agents import incidents
from obs_assets.demo.people import make_people
from obs_assets.demo.receiver import Receiver
from obs_assets.embedded.dagster_home import SETTINGS, dagster_home
from obs_assets.hours import Hour, first_open_hour, hours_between
from obs_assets.settings import Settings
from obs_assets.sources.log import LandingLog
from obs_assets_tests import harness
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.system.canary import everything
from obs_assets_tests.system.deployment import FAST, Deployment, wait_for

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]


SECRETS = {
    name: f"CANARY{secrets.token_hex(12)}"
    for name in ("WEBHOOK_URL", "WEBHOOK_AUTH_TOKEN", "WEBHOOK_API_KEY", "WEBHOOK_HMAC_SECRET", "OBS_HASH_KEY")
}
"""Part of the environment of all three processes."""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def deployment(
    servers: Settings,
    postgres_admin: "psycopg.Connection[tuple[object]]",
    s3_admin: "S3Client",
    receiver: Receiver,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """The default pipeline, deployed: code server, daemon and webserver run."""
    folder = tmp_path_factory.mktemp("deployment")
    home = folder / "data" / "dagster"
    home.mkdir(parents=True)
    (folder / "events").mkdir()
    with harness.own_place(servers, postgres_admin, s3_admin, folder / "data") as machine:
        storage = {"storage": {"postgres": {"postgres_url": {"env": "OBS_DAGSTER_POSTGRES_URL"}}}}
        (home / "dagster.yaml").write_text(yaml.safe_dump({**SETTINGS, **FAST, **storage}))
        url = f"{receiver.url}?token={SECRETS['WEBHOOK_URL']}"
        env = harness.environment(
            machine, folder / "events", **{**SECRETS, "WEBHOOK_URL": url}, **dagster_home(machine.data_dir)
        )
        deployment = Deployment(machine, folder / "events", env, folder)
        deployment.write_workspace()
        try:
            for name in ("code", "daemon", "web"):
                deployment.start(name)
            yield deployment
        finally:
            deployment.stop()
            embedded.stop(machine.data_dir)


# -- what was written, and where it is ---------------------------------------------------------------------------------


def write(deployment: Deployment, hour: Hour, count: int = 5, name: str = "evt") -> None:
    """Append events that the default pipeline keeps whole, each with an id of its own, to the hour's file."""
    event = {"type": "task_failed", "level": "error", "error": "no answer"}
    events = [harness.at(hour, 7 * n, {"id": f"{name}-{hour.stamp}-{n}", **event}) for n in range(count)]
    harness.write_events(deployment.events_dir / f"{hour.stamp}.jsonl", events)


def written(deployment: Deployment, hour: Hour) -> Counter[str]:
    lines = (deployment.events_dir / f"{hour.stamp}.jsonl").read_text().splitlines()
    return ids(map(json.loads, lines))


def ids(events: Iterable[dict[str, Any]]) -> Counter[str]:
    return Counter(str(event["id"]) for event in events)


def assert_whole(deployment: Deployment, receiver: Receiver, *hours: Hour) -> None:
    """Each hour is proven, and each event of it at every destination as often as it was written."""
    stored = harness.objects(deployment.machine)
    alerts = ids(harness.alerts(receiver.requests))
    for hour in hours:
        assert harness.wrong(deployment.hourly, hour) == []
        expected = written(deployment, hour)
        rows = harness.ask(deployment.machine.postgres, "SELECT data FROM events WHERE hour = %s", hour.start)
        assert among(expected, ids(row for (row,) in rows)) == expected
        assert among(expected, ids(harness.lines_of(stored, hour))) == expected
        assert Counter({name: alerts[name] for name in expected}) == expected
    verified = harness.run("obs", "verify", hours[-1].key, env=deployment.env)
    assert verified.code == 0, verified.said


def among(expected: Counter[str], found: Counter[str]) -> Counter[str]:
    """What was found, without the extra events of the canary."""
    return Counter({name: n for name, n in found.items() if name in expected or not name.startswith("canary-")})


def land(deployment: Deployment, *hours: Hour) -> None:
    """Let the sensor land what was written, and close the hours."""

    def done() -> bool:
        deployment.wake("event_file_sensor")
        log = deployment.hourly.log
        with duckdb.connect() as connection:
            return all(written(deployment, hour) <= landed(connection, log, hour) for hour in hours)

    wait_for("the files are landed", done, pause_s=1)
    assert deployment.hourly.first_open_hour() > max(hours)


def landed(connection: duckdb.DuckDBPyConnection, log: LandingLog, hour: Hour) -> Counter[str]:
    """The ids that have landed for an hour, by the chunks."""
    chunks = [str(chunk) for chunk in log.chunk_paths(log.load().hour(hour))]
    if not chunks:
        return Counter()
    return ids(json.loads(line) for (line,) in connection.read_parquet(chunks).project("line").fetchall())


def heal(deployment: Deployment, receiver: Receiver, *hours: Hour) -> None:
    """Let the sensors do what there is to do for these hours, and nobody else."""
    land(deployment, *hours)

    def done() -> bool:
        deployment.let_pass(timedelta(minutes=30))
        deployment.wake("stale_hour_sensor")
        stale = set(deployment.hourly.staleness().hours)
        return not stale & set(hours) and all(run.ended for run in deployment.runs(*hours))

    wait_for(f"{[hour.key for hour in hours]} are built", done, pause_s=1)
    assert_whole(deployment, receiver, *hours)


@contextlib.contextmanager
def held_at_postgres(deployment: Deployment, hour: Hour) -> Iterator[None]:
    """Keep whoever loads this hour waiting, all stages behind it and one destination or more before it."""
    assert deployment.machine.postgres
    with connect_postgres(deployment.machine.postgres) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"public.events {hour}"])
        yield


def waiting_worker(deployment: Deployment) -> psutil.Process:
    """The process of the run that waits there."""

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


def hours_of_day(days_ago: int, count: int, first: int = 0) -> list[Hour]:
    start = Hour.of(datetime.now(UTC) - timedelta(days=days_ago)).start.replace(hour=first)
    return list(hours_between(Hour(start), Hour(start + timedelta(hours=count))))


# -- a normal day ------------------------------------------------------------------------------------------------------


def test_a_normal_day(deployment: Deployment, receiver: Receiver) -> None:
    """Files grow and are landed; the hour that closed is the schedule's, older ones their sensor's; all are whole."""
    closed = first_open_hour(datetime.now(UTC), timedelta(minutes=5)).previous
    older = closed.previous
    for hour in (older, closed):
        write(deployment, hour)
    land(deployment, older, closed)
    deployment.let_schedules_tick()
    wait_for("the schedule asks for the hour", lambda: deployment.runs(closed))
    assert deployment.runs(closed)[0].tags["dagster/schedule_name"] == "hourly_pipeline_schedule"
    heal(deployment, receiver, older, closed)
    assert [run.tags.get("dagster/sensor_name") for run in deployment.runs(older)] == ["stale_hour_sensor"]

    write(deployment, older, 1, "late")
    (last_week,) = hours_of_day(7, 1)
    write(deployment, last_week)
    before = len(deployment.runs(closed))
    heal(deployment, receiver, last_week, older, closed)
    assert len(deployment.runs(older)) == 2, "a late event reopens its hour"
    assert len(deployment.runs(closed)) == before, "and only its hour"


# -- what is killed ----------------------------------------------------------------------------------------------------


def test_a_run_whose_worker_is_killed_is_run_again(deployment: Deployment, receiver: Receiver) -> None:
    """Kill -9 of the worker, which runs the steps itself; the daemon repeats the run by itself."""
    (hour,) = hours_of_day(2, 1)
    write(deployment, hour)
    land(deployment, hour)
    with held_at_postgres(deployment, hour):
        run_id = deployment.launch(hour)
        waiting_worker(deployment).kill()
        deployment.wait_for_run(run_id, "FAILURE")
    again = wait_for("the run is repeated", lambda: [run for run in deployment.runs(hour) if run.run_id != run_id])
    assert again[0].tags["dagster/parent_run_id"] == run_id
    deployment.wait_for_run(again[0].run_id, "SUCCESS")
    assert_whole(deployment, receiver, hour)


PLACES = ["frame.before_rename:3", "postgres.before_commit", "s3.after_object", "webhook.after_send"]


def test_runs_that_are_killed_at_named_places_are_healed(deployment: Deployment, receiver: Receiver) -> None:
    """A real run dies in a stage and in each destination; the reconciler repairs what it left."""
    hours = hours_of_day(3, 1 + len(PLACES))
    write(deployment, hours[-1])
    deployment.restart("code", OBS_CRASH_AT="landing.before_commit")
    wait_for(
        "a landing run dies",
        lambda: (
            deployment.wake("event_file_sensor"),
            [run for run in deployment.runs() if run.job == "land_event_files" and run.status == "FAILURE"],
        )[1],
        pause_s=1,
    )
    deployment.restart("code")
    for hour in hours[:-1]:
        write(deployment, hour)
    land(deployment, *hours)
    for hour, place in zip(hours, PLACES, strict=False):
        deployment.restart("code", OBS_CRASH_AT=place)
        run_id = deployment.launch(hour, dagster__max_retries="0")
        assert deployment.wait_for_run(run_id, "FAILURE", "SUCCESS") == "FAILURE"
    deployment.restart("code")
    heal(deployment, receiver, *hours)
    repeated = Counter(request.webhook_id for request in receiver.requests)
    assert sum(count > 1 for count in repeated.values()) == 1, "sent, not recorded, and sent again under the same id"
    assert harness.leftovers(deployment.machine) == []


def test_a_run_ends_when_code_server_and_worker_are_killed(deployment: Deployment, receiver: Receiver) -> None:
    """Nobody is left to say that the run is dead; its time runs out, and the hour is built."""
    (hour,) = hours_of_day(2, 1, first=1)
    write(deployment, hour)
    land(deployment, hour)
    with held_at_postgres(deployment, hour):
        run_id = deployment.launch(hour)
        worker = waiting_worker(deployment)
        deployment.kill("code")
        worker.kill()
    deployment.start("code")
    assert deployment.status(run_id) == "STARTED"
    deployment.let_pass(timedelta(hours=7), run_id)
    deployment.wait_for_run(run_id, "FAILURE")
    heal(deployment, receiver, hour)


def test_an_orphan_does_not_overwrite_what_is_newer(deployment: Deployment, receiver: Receiver) -> None:
    """The code server alone is killed, a late event comes, and two runs of the hour are alive at once."""
    (hour,) = hours_of_day(2, 1, first=2)
    write(deployment, hour)
    land(deployment, hour)
    with held_at_postgres(deployment, hour):
        orphaned = deployment.launch(hour)
        worker = waiting_worker(deployment)
        worker.suspend()
    deployment.restart("code")
    write(deployment, hour, 1, "late")
    land(deployment, hour)
    deployment.let_pass(timedelta(hours=7), orphaned)
    deployment.wait_for_run(orphaned, "FAILURE")

    def second_begins() -> bool:
        deployment.wake("stale_hour_sensor")
        return any(run.status == "STARTED" for run in deployment.runs(hour))

    wait_for("a second run begins", second_begins)
    worker.resume()
    heal(deployment, receiver, hour)
    assert deployment.hourly.landed().hour(hour).rows == 6


def test_a_daemon_that_is_killed_within_a_tick(deployment: Deployment, receiver: Receiver) -> None:
    """Between what it has decided and what it has launched; each hour is run, and none twice."""
    hours = hours_of_day(4, 3)
    for hour in hours:
        write(deployment, hour)
    land(deployment, *hours)
    with deployment.held_runs():
        deployment.wake("stale_hour_sensor")
        wait_for("the tick has reserved its runs", deployment.reserved_runs, pause_s=0.02)
        deployment.kill("daemon")
    assert deployment.runs(*hours) == []
    deployment.start("daemon")
    heal(deployment, receiver, *hours)
    assert sorted(run.hour for run in deployment.runs(*hours)) == [hour.key for hour in hours]


def test_twelve_hours_without_a_daemon(deployment: Deployment, receiver: Receiver) -> None:
    """Events were written all the time; once it runs again, everything is landed and built, oldest first."""
    hours = hours_of_day(5, 12)
    deployment.kill("daemon")
    for hour in hours:
        write(deployment, hour)
    deployment.start("daemon")
    heal(deployment, receiver, *hours)
    asked = [run.hour for run in deployment.runs(*hours)]
    assert asked == sorted(asked)


def test_a_run_that_is_lost_at_its_launch(deployment: Deployment, receiver: Receiver) -> None:
    """The daemon has handed it over, and the code server dies before it begins: it is given up and asked for again."""
    (hour,) = hours_of_day(2, 1, first=3)
    write(deployment, hour)
    land(deployment, hour)
    run_id = deployment.launch(hour)
    deployment.wait_for_run(run_id, "STARTING")
    deployment.kill("daemon")
    deployment.kill("code", with_children=True)
    for name in ("code", "daemon"):
        deployment.start(name)
    assert deployment.status(run_id) == "STARTING"
    deployment.let_pass(timedelta(minutes=30), run_id)
    deployment.wait_for_run(run_id, "FAILURE")
    heal(deployment, receiver, hour)


def test_an_hour_that_was_deleted_by_hand(deployment: Deployment, receiver: Receiver) -> None:
    """Its run was a success under a run key that Dagster remembers for ever; it is built again under another."""
    (hour,) = hours_of_day(2, 1, first=4)
    write(deployment, hour)
    heal(deployment, receiver, hour)
    harness.ask(deployment.machine.postgres, "DELETE FROM events WHERE hour = %s", hour.start)
    deployment.let_pass(timedelta(minutes=30), deployment.runs(hour)[0].run_id)
    heal(deployment, receiver, hour)
    first, second = deployment.runs(hour)
    assert first.status == "SUCCESS"
    assert first.tags["obs/version"] == second.tags["obs/version"]
    assert first.tags["dagster/run_key"] != second.tags["dagster/run_key"]


# -- two at once -------------------------------------------------------------------------------------------------------


def test_two_runs_of_one_hour(deployment: Deployment, receiver: Receiver) -> None:
    """The queue lets one wait for the other; a command that passes the queue by waits at the hour's lock."""
    (hour,) = hours_of_day(2, 1, first=5)
    write(deployment, hour)
    land(deployment, hour)
    command = ("asset", "materialize", "-m", "obs_assets.definitions", "--select", "*", "--partition", hour.key)
    with ThreadPoolExecutor(3) as pool:
        launched = [pool.submit(deployment.launch, hour) for _ in range(2)]
        beside = pool.submit(harness.run, "dagster", *command, env=deployment.env)
    assert beside.result().code == 0, beside.result().said
    for run in launched:
        deployment.wait_for_run(run.result(), "SUCCESS")
    (_, first_end), (second_start, _) = deployment.times(*[run.result() for run in launched])
    assert first_end <= second_start, "the queue lets both run at once"
    heal(deployment, receiver, hour)


def test_a_backfill_beside_an_hourly_run(deployment: Deployment, receiver: Receiver) -> None:
    """A range has no partition tag that a queue could count, so that both are at the same hours."""
    hours = hours_of_day(6, 4)
    for hour in hours:
        write(deployment, hour)
    land(deployment, *hours)
    deployment.backfill(*hours)
    hourly = [deployment.launch(hour) for hour in hours[1:3]]
    ranges = wait_for("the backfill starts one run", deployment.range_runs)
    for run_id in (ranges[0].run_id, *hourly):
        deployment.wait_for_run(run_id, "SUCCESS")
    heal(deployment, receiver, *hours)


# -- Dagster's own database --------------------------------------------------------------------------------------------


def test_dagsters_database_is_lost_during_a_run(deployment: Deployment, receiver: Receiver) -> None:
    """The destinations are served, nobody writes down that they were; the hour is whole after one more run."""
    (hour,) = hours_of_day(2, 1, first=6)
    write(deployment, hour)
    land(deployment, hour)
    with held_at_postgres(deployment, hour):
        run_id = deployment.launch(hour)
        worker = waiting_worker(deployment)
        deployment.kill_database()
    wait_for("the worker gives up", lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    embedded.postgres(deployment.machine.data_dir)
    deployment.restart("code")  # the thread that looks after its workers has ended, as docs/orchestration.md says
    deployment.supervise()
    assert not deployment.run(run_id).ended
    deployment.let_pass(timedelta(hours=7), run_id)
    deployment.wait_for_run(run_id, "FAILURE")
    heal(deployment, receiver, hour)


# -- secrets and people ------------------------------------------------------------------------------------------------


def test_nothing_secret_or_personal_shows_anywhere(deployment: Deployment, receiver: Receiver) -> None:
    """Good runs and failing ones; then databases, logs, answers, objects and alerts are searched."""
    good, broken, denied = hours = hours_of_day(7, 3, first=12)
    people = make_people(3, random.Random(secrets.randbits(32)))
    for hour, person in zip(hours, people, strict=True):
        harness.write_events(
            deployment.events_dir / f"people-{hour.stamp}.jsonl",
            [{**event, "id": f"canary-{hour.stamp}"} for _, event in incidents(hour, person, random.Random(1))],
        )
        with (deployment.events_dir / f"people-{hour.stamp}.jsonl").open("a") as file:
            file.write(f'{{"email": "{person.email}", "ssn": {person.ssn}\n')
            file.write(f'{{"timestamp": "{person.email}", "error": "{person.card}"}}\n')
        write(deployment, hour)
    land(deployment, *hours)

    chunks = deployment.hourly.log.chunk_paths(deployment.hourly.landed().hour(broken))
    kept = [chunk.read_bytes() for chunk in chunks]
    for chunk in chunks:
        chunk.write_bytes(b"PAR1" + chunk.read_bytes()[40:])
    wrong = {name: f"CANARY{secrets.token_hex(12)}" for name in ("POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY")}
    deployment.restart("code", **wrong)
    for hour in (broken, denied):
        run_id = deployment.launch(hour, dagster__max_retries="0")
        assert deployment.wait_for_run(run_id, "FAILURE", "SUCCESS") == "FAILURE"
    deployment.restart("code")
    for chunk, content in zip(chunks, kept, strict=True):
        chunk.write_bytes(content)
    heal(deployment, receiver, good, broken, denied)

    personal = [value for person in people for value in person.values()]
    passwords = [deployment.env[name] for name in ("POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY")]
    passwords.append(str(psycopg.conninfo.conninfo_to_dict(deployment.dsn)["password"]))
    planted = [*personal, *SECRETS.values(), *wrong.values(), *passwords]
    places = dict(everything(deployment, [request.body for request in receiver.requests]))
    found = {
        f"{n}: {name}" for name, content in places.items() for n, it in enumerate(planted) if it.encode() in content
    }
    assert found == set(), "by the number of what was planted; the value itself stays out of this message"
    there = [name for name, content in places.items() if f"canary-{good.stamp}".encode() in content]
    assert len(there) >= 3, "the search finds what may be seen"
    frame = pd.read_parquet(deployment.hourly.store.frame_path("raw_events", good))
    assert people[0].email in "".join(frame["event"])
