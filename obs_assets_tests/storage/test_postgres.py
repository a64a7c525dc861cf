"""Connections and migrations, on a real server."""

import contextlib
import json
import logging
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest
from pydantic import SecretStr

from obs_assets import embedded
from obs_assets.destinations.postgres import PostgresConfig, PostgresDestination
from obs_assets.embedded import process
from obs_assets.embedded.postgres import server as postgres_of
from obs_assets.errors import ConfigurationError, ObsError, PermanentError, TransientError
from obs_assets.settings import PostgresSettings
from obs_assets.storage import engine
from obs_assets.storage.postgres import Migration, connections_kept, migrate, session
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.frames import HOUR, frame_of, offer_of

FIRST = Migration("Make a table.", "CREATE TABLE made (n INT)")
SECOND = Migration("Put a row into it.", "INSERT INTO made VALUES (1)")


def run(server: PostgresSettings, *migrations: Migration, start: int = 0) -> list[str]:
    with session(server) as connection:
        done = migrate(connection, "test", migrations, start=start)
        connection.commit()
    return done


def backend(server: PostgresSettings) -> int:
    """The process at the server that answers a session; what the session did is not committed."""
    with session(server) as connection:
        connection.execute("CREATE TABLE left_open (n INT)")
        return connection.info.backend_pid


def backends(server: PostgresSettings) -> set[int]:
    with connect_postgres(server) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return {pid for (pid,) in connection.execute(query)}


def test_a_connection_is_used_again_while_that_is_wanted(server: PostgresSettings) -> None:
    """Not before and not after; nothing of one session is seen by the next, and at the end none is left."""
    assert backend(server) != backend(server)
    with connections_kept(), connections_kept():
        first = backend(server)
        assert [backend(server), backend(server)] == [first, first]
        with session(server) as one, session(server) as two:  # two at a time are two
            pids = {one.info.backend_pid, two.info.backend_pid}
        assert first in pids
        assert len(pids) == 2
        with session(
            server, autocommit=True
        ) as connection:  # another kind of session is another connection
            pids.add(other := connection.info.backend_pid)
        assert len(pids) == 3
        with pytest.raises(PermanentError), session(server, autocommit=True) as connection:
            connection.execute("SELECT 1 / 0")
        with session(server, autocommit=True) as connection:
            assert connection.info.backend_pid != other
        assert backends(server) >= pids - {other}
    for _ in range(100):  # the server takes a moment to let go
        if not backends(server) & pids:
            break
        time.sleep(0.05)
    assert not backends(server) & pids
    assert backend(server) != first


def test_a_connection_that_the_server_has_ended_is_not_used_again(
    server: PostgresSettings,
) -> None:
    """As after a restart between two hours: the next session does not know of it."""
    with connections_kept():
        first = backend(server)
        with connect_postgres(server) as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
        assert backend(server) != first


# -- a server that gives no connection ---------------------------------------------------------------------------------

CANARY = "CANARY9f3c1e5b70"
ASKS_FOR = {
    "a wrong password": (
        {"password": SecretStr(CANARY)},
        "does not accept user postgres with this password: check POSTGRES_USER and POSTGRES_PASSWORD",
    ),
    "no password": (
        {"password": None},
        "does not accept user postgres with this password: check POSTGRES_USER and POSTGRES_PASSWORD",
    ),
    "somebody unknown": (
        {"user": "nobody", "password": SecretStr(CANARY)},
        "does not accept user nobody with this password: check POSTGRES_USER and POSTGRES_PASSWORD",
    ),
    "no such database": (
        {"database": "nowhere"},
        "has no database nowhere: create it, or set POSTGRES_DB",
    ),
    "no such host": (
        {"host": "nowhere.invalid", "password": SecretStr(CANARY)},
        "is not to be found: check POSTGRES_HOST",
    ),
}


def refusal(server: PostgresSettings, caplog: pytest.LogCaptureFixture) -> ObsError:
    """What is said of a server that gives no connection; its password is in nothing that is printed or logged."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ObsError) as raised, session(server):
        pass
    said = [
        str(raised.value),
        *traceback.format_exception(raised.value),
        caplog.text,
        repr(server),
    ]
    password = server.password.get_secret_value() if server.password else CANARY
    pieces = {password[start : start + 8] for start in range(len(password) - 7)}
    assert not [text for text in said if any(piece in text for piece in pieces)]
    assert str(raised.value).startswith(f"PostgreSQL at {server.host}:{server.port} ")
    assert raised.value.__cause__ is None
    return raised.value


@pytest.mark.parametrize("name", ASKS_FOR)
def test_a_server_that_refuses(
    server: PostgresSettings, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The variable to change is named; nothing is tried again until it is changed."""
    mistake, sentence = ASKS_FOR[name]
    error = refusal(server.model_copy(update=mistake), caplog)
    assert isinstance(error, ConfigurationError)
    assert str(error).endswith(sentence)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[PostgresSettings, psutil.Process]]:
    """A server that a test may stop, and its process."""
    server = embedded.postgres(tmp_path / "data")
    pid = process.status(postgres_of(tmp_path / "data")).pid
    assert pid
    postmaster = psutil.Process(pid)
    yield server, postmaster
    with contextlib.suppress(psutil.NoSuchProcess):
        postmaster.resume()
    embedded.stop(tmp_path / "data")


@pytest.mark.slow
def test_a_server_that_does_not_answer(
    own: tuple[PostgresSettings, psutil.Process], caplog: pytest.LogCaptureFixture
) -> None:
    """It hangs, refuses the machine, or is gone: within seconds the variables are named, and it may answer later."""
    server, postmaster = own
    postmaster.suspend()
    began = time.monotonic()
    hangs = refusal(server, caplog)
    assert time.monotonic() - began < 15
    postmaster.resume()
    with connect_postgres(server) as connection:
        (rules,) = connection.execute("SHOW hba_file").fetchone() or ("",)
        Path(str(rules)).write_text("host all all 10.255.255.1/32 scram-sha-256\n")
        connection.execute("SELECT pg_reload_conf()")
    while is_admitted(server):
        time.sleep(0.05)
    stranger = refusal(server, caplog)
    postmaster.kill()
    postmaster.wait()
    gone = refusal(server, caplog)
    for error in (hangs, gone):
        assert isinstance(error, TransientError)
        assert str(error).endswith(
            "does not answer: check POSTGRES_HOST and POSTGRES_PORT, and that it runs"
        )
    assert isinstance(stranger, ConfigurationError)
    assert (
        f"does not admit user postgres to database {server.database} from this machine"
        in str(stranger)
    )


def is_admitted(server: PostgresSettings) -> bool:
    try:
        connect_postgres(server).close()
    except psycopg.OperationalError:
        return False
    return True


# -- migrations --------------------------------------------------------------------------------------------------------


def test_each_migration_runs_once_and_says_what_it_does(server: PostgresSettings) -> None:
    """What is new runs, what has run does not, and the server remembers both."""
    assert run(server, FIRST) == ["Make a table."]
    assert run(server, FIRST, SECOND) == ["Put a row into it."]
    assert run(server, FIRST, SECOND) == []
    with connect_postgres(server) as connection:
        recorded = connection.execute(
            "SELECT subject, version, description FROM obs.migrations ORDER BY 2"
        ).fetchall()
    assert recorded == [("test", 1, "Make a table."), ("test", 2, "Put a row into it.")]


def test_of_many_at_once_one_migrates(server: PostgresSettings) -> None:
    """Runs that start together on an empty database wait for the one that is first."""
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: run(server, FIRST, SECOND), range(6)))
    assert sorted(map(len, done)) == [0, 0, 0, 0, 0, 2]


def test_a_migration_that_fails_leaves_nothing(server: PostgresSettings) -> None:
    """All that is due is one transaction: the next attempt begins where this one did."""
    with pytest.raises(Exception, match="no_such_table"):
        run(server, FIRST, Migration("Fail.", "INSERT INTO no_such_table VALUES (1)"))
    assert run(server, FIRST) == ["Make a table."]


def test_a_newer_schema_is_left_alone(server: PostgresSettings) -> None:
    """An old program does not work on tables that it does not know."""
    run(server, FIRST, SECOND)
    with pytest.raises(ConfigurationError, match="newer"):
        run(server, FIRST)


def test_what_was_there_before_is_adopted(server: PostgresSettings) -> None:
    """A table from before migrations counts as the version that it has."""
    with connect_postgres(server) as connection:
        connection.execute("CREATE TABLE made (n INT)")
    assert run(server, FIRST, SECOND, start=1) == ["Put a row into it."]
    assert run(server, FIRST, SECOND, start=1) == []


ODD_SETTINGS = {
    "datestyle": "SQL, DMY",
    "timezone": "Asia/Kolkata",
    "client_encoding": "LATIN1",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "intervalstyle": "sql_standard",
    "search_path": "pg_temp",
    "default_transaction_isolation": "serializable",
}


def test_the_settings_of_a_role_do_not_change_what_is_stored(
    server: PostgresSettings, tmp_path: Path
) -> None:
    """A role with other formats, zones and encodings writes and reads the same rows."""
    destination = PostgresDestination(PostgresConfig(), server, clock=lambda: HOUR.end)
    with connect_postgres(server) as admin:
        for name, value in ODD_SETTINGS.items():
            admin.execute(
                f"ALTER DATABASE \"{server.database}\" SET {name} = '{value}'".encode()
            )
    event = {"text": "日本 ü", "duration_ms": 3, "cost_usd": 0.1}
    with engine.connect(temp_dir=tmp_path) as duck:
        destination.deliver(offer_of(frame_of(duck, [event], weight=1 / 3)))
        [(_, stored, _)] = destination.read_back(duck, HOUR).fetchall()
    assert json.loads(stored) == event
    with session(server) as connection:
        row = connection.execute("SELECT timestamp, weight FROM public.events").fetchone()
        assert row == (HOUR.start, 1 / 3)
        found = {
            name: connection.execute(f"SHOW {name}".encode()).fetchone()
            for name in ODD_SETTINGS
        }
    assert not [name for name, value in found.items() if value == (ODD_SETTINGS[name],)]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_character_is_refused(
    server: PostgresSettings, encoding: str
) -> None:
    """The message names the database, its encoding and the setting."""
    name = f"{server.database}_{encoding.lower()}"
    with connect_postgres(server) as admin:
        admin.autocommit = True
        create = f"CREATE DATABASE \"{name}\" ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
        admin.execute(create.encode())
    other = server.model_copy(update={"database": name})
    with (
        pytest.raises(
            ConfigurationError, match=f"{name}.*has the encoding {encoding}.*POSTGRES_DB"
        ),
        session(other),
    ):
        pass
