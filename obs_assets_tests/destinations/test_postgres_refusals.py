"""A server that refuses: each message says what happened, at which server and setting, and what to do."""

import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from pydantic import SecretStr

from obs_assets import embedded
from obs_assets.destinations.postgres import PostgresConfig, PostgresDestination
from obs_assets.errors import ConfigurationError, ObsError, PermanentError, TransientError
from obs_assets.settings import PostgresSettings
from obs_assets.storage.postgres import NEWER_TIMEOUTS, TIMEOUTS, TRANSACTIONS_END, session
from obs_assets_tests.conftest import connect_postgres
from obs_assets_tests.frames import HOUR, frame_of, offer_of

CANARY = "CANARY4e8b17"
"""Text of an event, which no message may hold."""


def destination_of(server: PostgresSettings, **options: bool) -> PostgresDestination:
    return PostgresDestination(PostgresConfig(**options), server, clock=lambda: HOUR.end)


def run(server: PostgresSettings, *statements: str) -> None:
    with connect_postgres(server) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def deliver(server: PostgresSettings, duck: duckdb.DuckDBPyConnection, number: int) -> None:
    events = [{"n": number, "message": CANARY}]
    destination_of(server).deliver(offer_of(frame_of(duck, events)))


def stored(server: PostgresSettings) -> list[int]:
    with connect_postgres(server) as connection:
        found = connection.execute("SELECT (data->>'n')::int FROM events ORDER BY 1")
        return [number for (number,) in found.fetchall()]


@pytest.fixture
def other(server: PostgresSettings) -> Iterator[PostgresSettings]:
    """The same database, for a user who is no superuser."""
    user = f"{server.database}_user"
    run(server, f"CREATE ROLE \"{user}\" LOGIN PASSWORD '{CANARY}'")
    yield server.model_copy(update={"user": user, "password": SecretStr(CANARY)})
    run(
        server,
        f'ALTER DATABASE "{server.database}" CONNECTION LIMIT -1',
        f'DROP OWNED BY "{user}"',
        f'DROP ROLE "{user}"',
    )


CONNECTIONS = {
    "may not log in": (
        'ALTER ROLE "{user}" NOLOGIN',
        ConfigurationError,
        'does not let user {user} log in: ALTER ROLE "{user}" LOGIN',
    ),
    "may not connect": (
        'REVOKE CONNECT ON DATABASE "{database}" FROM public',
        ConfigurationError,
        'does not admit user {user} to database {database}: GRANT CONNECT ON DATABASE "{database}"',
    ),
    "limit of the user": (
        'ALTER ROLE "{user}" CONNECTION LIMIT 0',
        TransientError,
        "has no free connection for user {user} and database {database}: end other sessions, or raise",
    ),
    "limit of the database": (
        'ALTER DATABASE "{database}" CONNECTION LIMIT 0',
        TransientError,
        "has no free connection for user {user} and database {database}: end other sessions, or raise",
    ),
    "another reason": (
        "ALTER ROLE \"{user}\" SET local_preload_libraries = 'nowhere'",
        TransientError,
        "gives no connection: could not access file",
    ),
}


@pytest.mark.parametrize("name", CONNECTIONS)
def test_a_connection_that_the_server_refuses_is_explained(
    server: PostgresSettings, other: PostgresSettings, name: str
) -> None:
    """The server, the cause and the remedy are named; only a refusal that can end by itself is tried again."""
    statement, kind, sentence = CONNECTIONS[name]
    words = {"user": other.user, "database": other.database}
    run(server, statement.format(**words))
    with pytest.raises(ObsError) as raised, session(other):
        pass
    assert type(raised.value) is kind
    message = str(raised.value)
    assert message.startswith(
        f"PostgreSQL at {server.host}:{server.port} {sentence.format(**words)}"
    )
    assert CANARY not in message


def test_a_database_that_only_reads_names_the_setting(
    server: PostgresSettings, duck: duckdb.DuckDBPyConnection
) -> None:
    """A load and `obs validate` say it; what is stored can be read, and loads go on when it is turned off."""
    deliver(server, duck, 1)
    read_only = f'ALTER DATABASE "{server.database}" SET default_transaction_read_only'
    run(server, f"{read_only} = on")
    message = f"{server.port} only reads: default_transaction_read_only is on"
    with pytest.raises(ConfigurationError, match=message) as raised:
        deliver(server, duck, 2)
    assert CANARY not in str(raised.value)
    with pytest.raises(ConfigurationError, match=message):
        destination_of(server).check()
    assert destination_of(server).holding(HOUR)
    run(server.model_copy(update={"database": "postgres"}), f"{read_only} = off")
    deliver(server, duck, 2)
    assert stored(server) == [2]


@pytest.mark.slow
def test_a_standby_is_named_and_tried_again(
    tmp_path: Path, duck: duckdb.DuckDBPyConnection
) -> None:
    """After a failover a name may lead to the old primary for a while."""
    folder = tmp_path / "data"
    try:
        deliver(embedded.postgres(folder), duck, 1)
        embedded.stop(folder)
        (folder / "servers" / "postgres" / "data" / "standby.signal").touch()
        server = embedded.postgres(folder)
        with pytest.raises(
            TransientError, match="is a standby, which only reads: set POSTGRES"
        ):
            deliver(server, duck, 2)
        assert destination_of(server).holding(HOUR)
    finally:
        embedded.stop(folder)


def test_timeouts_of_a_role_end_no_session(server: PostgresSettings) -> None:
    """Timeouts that fit short questions are not those of a session that loads hours."""
    with connect_postgres(server) as connection:
        names = [*TIMEOUTS]
        if connection.info.server_version >= TRANSACTIONS_END:
            names += NEWER_TIMEOUTS
    alter = f'ALTER DATABASE "{server.database}" SET'
    run(server, *(f"{alter} {name} = '300ms'" for name in names))
    with session(server) as connection:
        connection.execute("SELECT pg_sleep(0.4)")
        time.sleep(0.4)
        found = [connection.execute(f"SHOW {name}".encode()).fetchone() for name in names]
    assert ("300ms",) not in found


def test_validation_tries_the_rights_of_the_user(
    server: PostgresSettings, other: PostgresSettings
) -> None:
    """A user who could not load is refused before the first load, and nothing is made by the trial."""
    with pytest.raises(
        ConfigurationError, match=f"does not give user {other.user} a right: permission denied"
    ):
        destination_of(other).check()
    run(
        server,
        f'GRANT CREATE ON DATABASE "{server.database}" TO "{other.user}"',
        f'GRANT CREATE ON SCHEMA public TO "{other.user}"',
    )
    assert "does not exist yet" in destination_of(other).check()
    with connect_postgres(server) as connection:
        made = connection.execute("SELECT to_regclass('events'), to_regnamespace('obs')")
        assert made.fetchone() == (None, None)
    destination_of(server).init()
    with pytest.raises(ConfigurationError, match=f'OWNER TO "{other.user}", or GRANT'):
        destination_of(other).check()


TABLES = (
    *("obs.hour_loads", "obs.receipts", "obs.totals", "obs.migrations"),
    *("events_hourly", "events_hourly_workers"),
)


@pytest.mark.parametrize("table", ["obs.receipts", "events_hourly", ", ".join(TABLES)])
def test_a_table_that_was_dropped_is_made_again(
    server: PostgresSettings, duck: duckdb.DuckDBPyConnection, table: str
) -> None:
    """Loads go on, and the statistics count the hours that are stored."""
    deliver(server, duck, 1)
    run(server, f"DROP TABLE {table} CASCADE")
    deliver(server, duck, 2)
    assert stored(server) == [2]
    held = destination_of(server).holding(HOUR, count=True)
    assert held
    assert (held.rows, held.counted, held.altered) == (1, 1, 0)
    with connect_postgres(server) as connection:
        counted = connection.execute("SELECT count(*) FROM receipts").fetchone()
        assert counted == connection.execute("SELECT count(*) FROM obs.receipts").fetchone()


IN_THE_WAY = {
    "a leaf that was detached": (
        "ALTER TABLE events DETACH PARTITION events_d20251204",
        ConfigurationError,
        'has a table in the way: relation "events_d20251204" already exists',
    ),
    "a leaf that was renamed": (
        "ALTER TABLE events_d20251204 RENAME TO mine",
        ConfigurationError,
        'would overlap partition "mine"',
    ),
    "a rule for rows": (
        "ALTER TABLE events ADD CHECK (event_id IS NOT NULL) NOT VALID",
        PermanentError,
        "refused a row: .*This rule was added to the table",
    ),
    "a column of the ledger": (
        "ALTER TABLE obs.hour_loads RENAME rows TO lines",
        PermanentError,
        "lacks a table or a column of obs_assets: .*bring it back",
    ),
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_a_change_by_hand_that_stops_loads_is_explained(
    server: PostgresSettings, duck: duckdb.DuckDBPyConnection, name: str
) -> None:
    """The message names the object and the remedy, and no text of an event."""
    statement, kind, sentence = IN_THE_WAY[name]
    deliver(server, duck, 1)
    run(server, statement)
    with pytest.raises(ObsError, match=sentence) as raised:
        deliver(server, duck, 2)
    assert type(raised.value) is kind
    assert CANARY not in str(raised.value)
