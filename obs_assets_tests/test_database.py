"""Connections and migrations, on a real server."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from obs_assets.database import Migration, connections_kept, migrate, session
from obs_assets.errors import ConfigurationError, PermanentError
from obs_assets.settings import PostgresSettings, Settings
from obs_assets_tests.conftest import connect_postgres

FIRST = Migration("Make a table.", "CREATE TABLE made (n INT)")
SECOND = Migration("Put a row into it.", "INSERT INTO made VALUES (1)")


@pytest.fixture
def server(settings: Settings) -> PostgresSettings:
    """A database of this test's own."""
    assert settings.postgres
    return settings.postgres


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
        with session(server, autocommit=True) as connection:  # another kind of session is another connection
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


def test_a_connection_that_the_server_has_ended_is_not_used_again(server: PostgresSettings) -> None:
    """As after a restart between two hours: the next session does not know of it."""
    with connections_kept():
        first = backend(server)
        with connect_postgres(server) as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
        assert backend(server) != first


def test_each_migration_runs_once_and_says_what_it_does(server: PostgresSettings) -> None:
    """What is new runs, what has run does not, and the server remembers both."""
    assert run(server, FIRST) == ["Make a table."]
    assert run(server, FIRST, SECOND) == ["Put a row into it."]
    assert run(server, FIRST, SECOND) == []
    with connect_postgres(server) as connection:
        recorded = connection.execute("SELECT subject, version, description FROM obs.migrations ORDER BY 2").fetchall()
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
