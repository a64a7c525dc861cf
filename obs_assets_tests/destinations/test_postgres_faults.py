"""What goes wrong around PostgreSQL, each caused for real: processes that die, disks that are full, names."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from obs_assets import embedded
from obs_assets.crash import interrupted
from obs_assets.destinations.postgres import PostgresConfig, PostgresDestination
from obs_assets.destinations.postgres.table import INDEXES
from obs_assets.errors import TransientError
from obs_assets.hours import Hour
from obs_assets.settings import PostgresSettings, Settings
from obs_assets.storage import postgres as database
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.frames import HOUR, frame_of, offer_of

VICTIMS = ("backend", "postmaster")
MOMENTS = ("postgres.after_copy", "postgres.after_index", "postgres.before_commit")


@pytest.fixture(scope="module")
def own_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a server that a test may kill."""
    folder = tmp_path_factory.mktemp("killed")
    yield folder
    embedded.stop(folder)


@pytest.fixture
def own(own_data_dir: Path) -> PostgresSettings:
    """That server, running, without a table of ours."""
    server = embedded.postgres(own_data_dir)
    with connect_postgres(server) as connection:
        connection.execute(
            "DROP TABLE IF EXISTS events, events_hourly, events_hourly_workers CASCADE"
        )
        connection.execute("DROP SCHEMA IF EXISTS obs CASCADE")
    return server


def at_end(server: PostgresSettings, **options: Any) -> PostgresDestination:
    return PostgresDestination(PostgresConfig(**options), server, clock=lambda: HOUR.end)


def numbers(server: PostgresSettings) -> list[Any]:
    with connect_postgres(server) as connection:
        return [
            n
            for (n,) in connection.execute(
                "SELECT (data->>'n')::int FROM events ORDER BY 1"
            ).fetchall()
        ]


def comes_back(data_dir: Path) -> None:
    """Wait until the server has recovered."""
    until = time.monotonic() + 60
    while True:
        try:
            connect_postgres(embedded.postgres(data_dir)).close()
        except (psycopg.OperationalError, TransientError):
            assert time.monotonic() < until
            time.sleep(0.2)
        else:
            return


@pytest.mark.slow
def test_the_driver_raises_after_a_killed_backend(
    own: PostgresSettings, own_data_dir: Path
) -> None:
    """What psycopg says of it has no SQLSTATE; for us that is transient."""
    with pytest.raises(TransientError), database.session(own) as connection:  # noqa: PT012
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        connection.execute("SELECT pg_sleep(5)")
    comes_back(own_data_dir)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [(victim, moment) for victim in VICTIMS for moment in MOMENTS]
)
def test_a_killed_server_process_leaves_the_old_hours(
    own: PostgresSettings,
    own_data_dir: Path,
    duck: duckdb.DuckDBPyConnection,
    fault: tuple[str, str],
) -> None:
    """SIGKILL of the backend, or of the postmaster and all its children, in the middle of a load: the load fails as
    transient, what was there is there, nothing half-made is left, and the next attempt is whole."""
    victim, moment = fault
    destination = at_end(own)
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    day_after = Hour(HOUR.start.replace(day=5))  # without a leaf: built aside
    offer = offer_of(frame_of(duck, [{"n": 2}, {"n": 3}], day_after), day_after)

    def kill() -> None:
        with connect_postgres(own) as connection:
            query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'obs_assets' AND state <> 'idle'"
            pids = [pid for (pid,) in connection.execute(query).fetchall()]
            everyone = [
                pid
                for (pid,) in connection.execute("SELECT pid FROM pg_stat_activity").fetchall()
            ]
        assert len(pids) == 1
        if victim == "postmaster":
            pids = [postmaster_of(own_data_dir), *everyone]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    with interrupted(moment, kill), pytest.raises(TransientError):
        destination.deliver(offer)
    comes_back(own_data_dir)
    again = at_end(embedded.postgres(own_data_dir))
    assert numbers(again.server) == [1]
    assert again.holding(day_after) is None
    with connect_postgres(again.server) as connection:
        query = "SELECT count(*) FROM pg_class WHERE relname LIKE 'events_d20251205%'"
        assert connection.execute(query).fetchone() == (0,)
    assert again.deliver(offer).written == 2
    assert numbers(again.server) == [1, 2, 3]


@pytest.mark.slow
def test_files_that_a_crash_left_are_counted(
    own: PostgresSettings,
    own_data_dir: Path,
    duck: duckdb.DuckDBPyConnection,
) -> None:
    """A backend killed in a load leaves files that no table owns, and the server keeps them: `obs status` says so."""
    destination = at_end(own)
    destination.init()
    before = destination.health()
    at = HOUR.start.isoformat()
    told = [{"n": n, "text": f"{n:x}" * 200, "timestamp": at} for n in range(5_000)]

    def kill() -> None:
        with connect_postgres(own) as connection:
            # Files of transactions in progress are on disk by then.
            connection.execute("CHECKPOINT")
            query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'obs_assets' AND state <> 'idle'"
            (pid,) = connection.execute(query).fetchone()
        os.kill(pid, signal.SIGKILL)

    with interrupted("postgres.before_commit", kill), pytest.raises(TransientError):
        destination.deliver(offer_of(frame_of(duck, told)))
    comes_back(own_data_dir)
    after = at_end(embedded.postgres(own_data_dir)).health()
    assert before
    assert after
    assert after.size_bytes == before.size_bytes
    assert after.lost_bytes > before.lost_bytes + 1_000_000


def postmaster_of(data_dir: Path) -> int:
    lock_file = data_dir / "servers" / "postgres" / "data" / "postmaster.pid"
    return int(lock_file.read_text().split()[0])


DELIVER = """
import duckdb
from obs_assets import settings
from obs_assets.destinations.postgres import PostgresConfig, PostgresDestination
from obs_assets_tests.frames import HOUR, frame_of, offer_of

with duckdb.connect() as connection:
    told = [{"n": n % 3000, "data": {"id": f"{n * 7919:x}", "tags": [n, n + 1, n + 2]}} for n in range(40_000)]
    frame = frame_of(connection, [{"timestamp": HOUR.start.isoformat(), **event} for event in told])
    PostgresDestination(PostgresConfig(), settings.load().postgres, clock=lambda: HOUR.end).deliver(offer_of(frame))
"""


@pytest.mark.slow
def test_a_client_killed_while_an_index_is_built_frees_its_locks(settings: Settings) -> None:
    """SIGKILL during CREATE INDEX: the server notices within its check interval, not after the statement."""
    server = settings.postgres
    assert server
    assert server.password
    with connect_postgres(server) as watching:
        # Whoever builds an index of ours waits here, as in a build that takes long
        watching.execute("""
            CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN
                IF EXISTS (SELECT FROM pg_class WHERE relname = 'events_d20251204') THEN PERFORM pg_sleep(20); END IF;
            END $$;
            CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION slow()""")
        said = {
            "POSTGRES_HOST": server.host,
            "POSTGRES_PORT": str(server.port),
            "POSTGRES_DB": server.database,
            "POSTGRES_USER": server.user,
            "POSTGRES_PASSWORD": server.password.get_secret_value(),
        }
        client = subprocess.Popen([sys.executable, "-c", DELIVER], env={**os.environ, **said})
        building = f"""SELECT count(*) FROM pg_stat_activity WHERE datname = '{server.database}'
            AND query LIKE 'CREATE INDEX ON%' AND state = 'active'"""
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        wait_for(lambda: watching.execute(building).fetchone() == (1,), 60)
        assert watching.execute(held).fetchone() != (0,)
        client.kill()
        client.wait()
        began = time.monotonic()
        wait_for(lambda: watching.execute(building).fetchone() == (0,), 30)
        assert time.monotonic() - began < 15  # seconds: left alone, the statement sleeps for 20
        assert watching.execute("SELECT to_regclass('events_d20251204')").fetchone() == (None,)
        watching.execute("DROP EVENT TRIGGER slow")


def wait_for(what: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_a_long_reader_holds_up_no_load_and_no_other_reader(
    settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """While a transaction that has read everything stays open, hours load into leaves old and new, and others read."""
    assert settings.postgres
    destination = at_end(settings.postgres)
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    with (
        connect_postgres(settings.postgres) as reader,
        connect_postgres(settings.postgres) as other,
    ):
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        count = "SELECT count(*) FROM events"
        assert reader.execute(count).fetchone() == (1,)
        until = time.monotonic() + 30
        loads = [HOUR, HOUR.next, Hour(HOUR.start.replace(day=6))]
        worker = threading.Thread(
            target=lambda: [
                destination.deliver(
                    offer_of(frame_of(duck, [{"n": 2}] * 2, hour), hour, generation=2)
                )
                for hour in loads
            ]
        )
        worker.start()
        other.execute("SET lock_timeout = '500ms'")
        while worker.is_alive():
            other.execute(count)
            assert time.monotonic() < until, "the loads wait for the reader"
        assert reader.execute(count).fetchone() == (1,)
        assert other.execute(count).fetchone() == (6,)


@pytest.mark.system
def test_a_full_disk_leaves_the_old_hour(
    own: PostgresSettings, own_data_dir: Path, duck: duckdb.DuckDBPyConnection
) -> None:
    """No room for the new rows: a transient error says so, the old hour is served, and with room the load works."""
    place = own_data_dir / "servers" / "postgres" / "small"
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m,uid=nobody,mode=0700", "tmpfs", place],
        check=True,
    )
    try:
        with connect_postgres(own) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
            connection.execute(
                f"ALTER DATABASE {own.database} SET default_tablespace = 'small'"
            )
        destination = at_end(own)
        destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
        dice = random.Random(7)  # what does not compress
        told = [{"n": n, "text": dice.randbytes(3000).hex()} for n in range(3500)]
        large = offer_of(frame_of(duck, told), generation=2)
        with pytest.raises(TransientError, match=r"No space left.*53100"):
            destination.deliver(large)
        assert numbers(own) == [1]
        subprocess.run(["mount", "-o", "remount,size=200m", place], check=True)
        assert destination.deliver(large).written == 3500
    finally:
        with connect_postgres(own) as connection:
            connection.execute(f"ALTER DATABASE {own.database} RESET default_tablespace")
            connection.execute(
                "DROP TABLE IF EXISTS events, events_hourly, events_hourly_workers CASCADE"
            )
            connection.execute("DROP SCHEMA IF EXISTS obs CASCADE")
        with connect_postgres(own) as connection:
            connection.execute("DROP TABLESPACE IF EXISTS small")
        subprocess.run(["umount", place], check=True)


@pytest.mark.slow
@given(
    st.one_of(
        st.text(max_size=80), st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,70}", fullmatch=True)
    )
)
def test_a_name_is_refused_or_safe_with_all_that_is_named_after_it(name: str) -> None:
    """Whatever text is configured: what is accepted is an identifier whose derived names stay below 63 bytes."""
    try:
        config = PostgresConfig(table_name=name)
    except ValidationError:
        return
    derived = [
        *(f"idx_{name}_{index}" for index in INDEXES),
        f"{name}_h2025120410",
        f"{name}_m202512_new",
    ]
    assert all(len(text.encode()) <= 63 for text in derived)
    assert name.isascii()
    assert name.replace("_", "a").isalnum()
    taken = ("_h2025120410", "_d20251204", "_hourly", "_hourly_workers")
    for text in [*(f"{name}{suffix}" for suffix in taken), f"idx_{name}"]:
        with pytest.raises(ValidationError):
            PostgresConfig(table_name=text)
    assert config.table_name == name


def test_nothing_is_ever_unlogged(settings: Settings, duck: duckdb.DuckDBPyConnection) -> None:
    """A table that is empty after a crash has no place here: leaves, statistics, ledger."""
    assert settings.postgres
    at_end(settings.postgres).deliver(offer_of(frame_of(duck, [{"n": 1}])))
    with connect_postgres(settings.postgres) as connection:
        assert connection.execute(
            "SELECT count(*) FROM pg_class WHERE relpersistence <> 'p'"
        ).fetchone() == (0,)


def test_a_server_that_commits_in_memory_is_told_not_to(settings: Settings) -> None:
    """With synchronous_commit off, a run would be reported as done and then be lost."""
    assert settings.postgres
    with database.session(settings.postgres) as connection:
        for given_setting, used in (
            ("off", "local"),
            ("on", "on"),
            ("remote_apply", "remote_apply"),
        ):
            connection.execute(f"SET synchronous_commit = '{given_setting}'")
            database.begin(connection, lock_timeout_s=1)
            assert connection.execute("SHOW synchronous_commit").fetchone() == (used,)
            connection.rollback()


@pytest.mark.slow
def test_readers_get_events_and_nothing_else(
    settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """The role that `init` makes reads table, statistics, ledger and receipts; no leaf, no writing."""
    server = settings.postgres
    assert server
    destination = at_end(server)
    role = f"reader_{server.database.removeprefix('test-')}"
    said = destination.init(reader=role)
    assert [line.split()[0] for line in said] == [
        "Make",
        "Make",
        "Note",
        "Note",
        "Make",
        "Make",
        "Index",
        "Add",
        "Make",
        "Let",
    ]
    assert destination.init() == []
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    with connect_postgres(server) as admin:
        admin.execute(f"ALTER ROLE {role} LOGIN PASSWORD 'x'")
        try:
            with connect_postgres(
                server.model_copy(update={"user": role, "password": SecretStr("x")})
            ) as reader:
                assert reader.execute("SHOW default_transaction_read_only").fetchone() == (
                    "on",
                )
                for name in ("events", "events_hourly"):
                    assert reader.execute(f"SELECT count(*) FROM {name}").fetchone() == (1,)
                reader.execute("SELECT * FROM receipts")
                reader.execute("SET default_transaction_read_only = off")
                for refused in (
                    "SELECT * FROM obs.totals",
                    "DELETE FROM obs.hour_loads",
                    "SELECT * FROM events_d20251204",
                    "DELETE FROM events",
                    "DELETE FROM events_hourly",
                ):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        reader.execute(refused)
        finally:
            admin.execute(f"DROP OWNED BY {role}")
            admin.execute(f"DROP ROLE {role}")


FIGURES_OF_ROWS = """count(*), sum(weight),
    coalesce(sum(weight) FILTER (WHERE error IS NOT NULL OR event_level IN ('error', 'critical', 'fatal')), 0),
    sum(weight * duration_ms), max(duration_ms), sum(weight * cost_usd::float8),
    coalesce(sum(weight) FILTER (WHERE error IS NOT NULL), 0),
    coalesce(sum(weight) FILTER (WHERE duration_ms IS NOT NULL), 0),
    coalesce(sum(weight) FILTER (WHERE cost_usd IS NOT NULL), 0), min(timestamp), max(timestamp)"""

OF_AN_OLDER_VERSION = """
ALTER TABLE events_hourly DROP COLUMN with_error, DROP COLUMN with_duration, DROP COLUMN with_cost,
    DROP COLUMN first_at, DROP COLUMN last_at;
DROP TABLE events_hourly_workers;
DELETE FROM obs.migrations WHERE subject = 'table public.events' AND version = 4"""


@pytest.mark.slow
def test_hours_of_an_older_version_are_counted_by_the_migration(
    settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """All columns of statistics, by worker too; whoever reads the statistics reads the new table."""
    server = settings.postgres
    assert server
    destination = at_end(server)
    told = [
        {"type": "a", "worker_id": "w1", "duration_ms": 10, "cost_usd": 0.5},
        {"type": "a", "worker_id": "w2", "level": "error"},
        {"error": "x"},
    ]
    for hour in (HOUR, HOUR.next):
        destination.deliver(offer_of(frame_of(duck, told, hour, weight=10.0), hour))
    role = f"reader_{server.database.removeprefix('test-')}"
    with connect_postgres(server) as admin:
        ask = [
            f"SELECT hour, worker_id, {FIGURES_OF_ROWS} FROM events GROUP BY 1, 2 ORDER BY 1, 2",
            "SELECT * FROM events_hourly_workers ORDER BY 1, 2",
            "SELECT * FROM events_hourly ORDER BY 1, 2, 3, 4",
        ]
        scanned, workers, statistics = (
            admin.execute(query.encode()).fetchall() for query in ask
        )
        assert workers == scanned
        admin.execute(OF_AN_OLDER_VERSION)
        # An hour that was loaded before there were statistics.
        admin.execute("DELETE FROM events_hourly WHERE hour = %s", [HOUR.start])
        admin.execute(f"CREATE ROLE {role}".encode())
        admin.execute(f"GRANT SELECT ON events_hourly TO {role}".encode())
        try:
            assert [line.split()[0] for line in destination.init()] == ["Add"]
            assert admin.execute(ask[1].encode()).fetchall() == workers
            assert admin.execute(ask[2].encode()).fetchall() == statistics
            admin.execute(f"SET ROLE {role}".encode())
            assert admin.execute("SELECT count(*) FROM events_hourly_workers").fetchone() == (
                6,
            )
            admin.execute("RESET ROLE")
        finally:
            admin.execute("RESET ROLE")
            admin.execute(f"DROP OWNED BY {role}".encode())
            admin.execute(f"DROP ROLE {role}".encode())


@pytest.mark.slow
def test_statistics_are_what_a_scan_would_count(
    settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """After loads, a replacement and an hour that lost all its events, weighted and to the figure."""
    server = settings.postgres
    assert server
    destination = at_end(server)
    told = [
        {"type": "a", "level": "info", "master_type": "m", "duration_ms": 10, "cost_usd": 0.5},
        {"type": "a", "level": "info", "master_type": "m", "duration_ms": 30, "cost_usd": 0.25},
        {"type": "a", "level": "error", "master_type": "m"},
        {"error": "x"},
    ]
    for hour, weight in ((HOUR, 10.0), (HOUR.next, 2.5)):
        destination.deliver(offer_of(frame_of(duck, told, hour, weight=weight), hour))
    destination.deliver(
        offer_of(frame_of(duck, [*told, {"type": "late"}], weight=10.0), generation=2)
    )
    destination.deliver(offer_of(frame_of(duck, [], HOUR.next), HOUR.next, generation=2))
    keys = "hour, event_type, event_level, master_type"
    scan = f"SELECT {keys}, {FIGURES_OF_ROWS} FROM events GROUP BY 1, 2, 3, 4 ORDER BY 2, 3"
    with connect_postgres(server) as connection:
        expected = connection.execute(scan.encode()).fetchall()
        assert (
            connection.execute(
                "SELECT * FROM events_hourly ORDER BY event_type, event_level"
            ).fetchall()
            == expected
        )
    assert len(expected) == 4
    assert expected[1][4:-2] == (2, 20.0, 0.0, 400.0, 30, 7.5, 0.0, 20.0, 20.0)
    health = destination.health()
    assert health
    totals = {name: health.totals[name] for name in ("total_events_written", "total_errors")}
    assert totals == {"total_events_written": 9, "total_errors": 0}
    assert (health.rows, health.leaves, health.oldest, health.newest) == (5, 1, HOUR, HOUR.next)


@pytest.mark.slow
def test_failed_loads_are_counted(settings: Settings, duck: duckdb.DuckDBPyConnection) -> None:
    """Over all time, the original's total_errors."""
    assert settings.postgres
    destination = at_end(settings.postgres)
    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    with pytest.raises(Exception, match="22003"):
        destination.deliver(offer_of(frame_of(duck, ['{"n": 1e200000}']), generation=2))
    health = destination.health()
    assert health
    assert health.totals["total_errors"] == 1
