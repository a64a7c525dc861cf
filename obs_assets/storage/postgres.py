"""PostgreSQL: connections, locks, and migrations.

A module with tables in the server describes them as a list of `Migration` and calls `migrate` before
it uses them.
"""

import contextlib
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, TypeAlias

import psycopg
from psycopg import sql
from psycopg.pq import ExecStatus
from psycopg_pool import ConnectionPool

from obs_assets.errors import ConfigurationError
from obs_assets.settings import PostgresSettings
from obs_assets.storage.postgres_errors import explained, refused, where

Connection: TypeAlias = psycopg.Connection[Any]
"""A connection whose rows are tuples."""

Query: TypeAlias = LiteralString | sql.Composed
"""SQL without text of a user: a constant, or composed with quoted identifiers and values."""

Pool: TypeAlias = ConnectionPool[Connection]
"""Connections that wait for their next use; see `make_pool`."""

POOL_RECONNECT_S = 1.0
"""Seconds for which a pool tries to reach a server that does not answer."""

# -- connecting ----------------------------------------------------------------------------------


@contextlib.contextmanager
def session(
    server: PostgresSettings, *, application_name: str = "obs_assets", autocommit: bool = False
) -> Iterator[Connection]:
    """A connection whose errors are ours; changes without a commit are rolled back at the end.

    Args:
        server: address and credentials of the server.
        application_name: name of the session in ``pg_stat_activity``.
        autocommit: commit each statement by itself.

    Raises:
        ConfigurationError, TransientError, PermanentError: see `explained`.
    """
    use = (server, application_name, autocommit)
    connection = _idle.take(use)
    if connection is None:
        connection = connect(server, application_name=application_name, autocommit=autocommit)
    _in_use.add(connection)
    try:
        yield connection
    except psycopg.Error as error:
        ours = explained(error, server, connection)
        # The state of the session is unknown after an error, so the connection is not reused.
        connection.close()
        raise ours from None
    except BaseException:
        connection.close()
        raise
    finally:
        _in_use.discard(connection)
    _idle.put(use, connection)


@contextlib.contextmanager
def utc_session(server: PostgresSettings, application_name: str) -> Iterator[Connection]:
    """A `session` in autocommit mode whose times are in UTC, as hours are.

    Raises:
        ConfigurationError, TransientError, PermanentError: see `explained`.
    """
    with session(server, application_name=application_name, autocommit=True) as connection:
        # Times come back in the zone of the session.
        connection.execute("SET TIME ZONE 'UTC'")
        yield connection


def cancel_queries() -> None:
    """Cancel the running statements of all threads of this process; each raises a `TransientError`."""
    for connection in list(_in_use):
        with contextlib.suppress(psycopg.Error):
            connection.cancel_safe(timeout=2)


@contextlib.contextmanager
def connections_kept() -> Iterator[None]:
    """Within the block, sessions reuse connections. To connect takes longer than to load a small hour.

    Use it only for work whose locks and settings end with its transaction.
    """
    _idle.open()
    try:
        yield
    finally:
        _idle.close()


class _Idle:
    """Connections that wait for their next use, until the last `connections_kept` ends. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._waiting: dict[_Use, list[Connection]] = {}

    def open(self) -> None:
        with self._lock:
            self._users += 1

    def close(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            unused = [*itertools.chain.from_iterable(self._waiting.values())]
            self._waiting = {}
        # Outside the lock, because closing can wait for the network.
        for connection in unused:
            connection.close()

    def take(self, use: "_Use") -> Connection | None:
        """A waiting connection that the server still answers; None if there is none."""
        while True:
            with self._lock:
                waiting = self._waiting.get(use)
                if not waiting:
                    return None
                connection = waiting.pop()
            # The server may have closed the connection in the meantime. An empty query is the
            # cheapest question.
            if connection.pgconn.exec_(b"").status == ExecStatus.EMPTY_QUERY:
                return connection
            connection.close()

    def put(self, use: "_Use", connection: Connection) -> None:
        """Keep a connection, or close it; changes without a commit are rolled back in both cases."""
        with contextlib.suppress(psycopg.Error):
            if self._users and not connection.closed:
                connection.rollback()
                with self._lock:
                    # Checked again, because the last user can have gone during the rollback.
                    if self._users:
                        self._waiting.setdefault(use, []).append(connection)
                        return
        connection.close()


_Use: TypeAlias = tuple[PostgresSettings, str, bool]
"""Server, application name and autocommit: connections with the same use replace each other."""

_idle = _Idle()

_in_use: set[Connection] = set()
"""Connections of the sessions that are open now, of all threads."""


def connect(
    server: PostgresSettings, *, application_name: str = "obs_assets", autocommit: bool = False
) -> Connection:
    """A new connection to a server; arguments as for `session`.

    Raises:
        ConfigurationError: the server refuses it; the message names the variable to change.
        TransientError: the server does not answer.
    """
    try:
        # Without a transaction, settings hold for the whole session.
        connection = psycopg.connect(**_arguments(server, application_name), autocommit=True)
    except psycopg.Error as error:
        raise refused(error, server) from None
    try:
        _refuse_other_encodings(connection, server)
        # In a single statement: a timeout of the role could end the session before the next.
        connection.execute(_set({**_timeouts(connection), **SESSION_SETTINGS}))
        connection.autocommit = autocommit
    except psycopg.Error as error:
        connection.close()
        raise explained(error, server) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _arguments(server: PostgresSettings, application_name: str) -> dict[str, Any]:
    """Arguments of libpq for a server."""
    password = None
    if server.password:
        password = server.password.get_secret_value()
    return {
        "host": server.host,
        "port": server.port,
        "dbname": server.database,
        "user": server.user,
        "password": password,
        "connect_timeout": 5,  # seconds
        "application_name": application_name,
        "client_encoding": "UTF8",
    }


def make_pool(server: PostgresSettings, *, size: int, application_name: str) -> Pool:
    """A closed pool of connections in autocommit mode, for a program that answers many questions.

    Its statements are never prepared by name: a prepared statement can end in a plan that reads all
    leaves of a table. A connection is tested before each use, and made when it is needed.

    Args:
        server: address and credentials of the server.
        size: largest number of connections.
        application_name: name of the sessions in ``pg_stat_activity``.
    """
    return ConnectionPool(
        kwargs={
            **_arguments(server, application_name),
            "autocommit": True,
            "prepare_threshold": None,
        },
        min_size=0,
        max_size=size,
        open=False,
        configure=_configure,
        check=ConnectionPool.check_connection,
        # A connection that fails is tried again by the next question, not for minutes before.
        reconnect_timeout=POOL_RECONNECT_S,
        name=application_name,
    )


def _configure(connection: Connection) -> None:
    connection.execute(_set(SESSION_SETTINGS))


SESSION_SETTINGS: dict[LiteralString, LiteralString] = {
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "standard_conforming_strings": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "search_path": '"$user", public',
    "default_transaction_isolation": "read committed",
    "transform_null_equals": "off",
}
"""Session settings for writing and reading rows; the server, database or role can have other defaults."""

TIMEOUTS: dict[LiteralString, LiteralString] = {
    "statement_timeout": "30min",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
"""Timeouts of a session; 0 is none. The role's own fit short questions, and would end a load."""

NEWER_TIMEOUTS: dict[LiteralString, LiteralString] = {"transaction_timeout": "0"}
"""Timeouts of servers from `TRANSACTIONS_END` on."""

TRANSACTIONS_END = 170000
"""First version of PostgreSQL with ``transaction_timeout``, as the server writes it."""


def _set(settings: Mapping[LiteralString, LiteralString]) -> LiteralString:
    """SQL that gives the session these settings."""
    return "SELECT " + ", ".join(
        f"set_config('{name}', '{value}', false)" for name, value in settings.items()
    )


def _timeouts(connection: Connection) -> dict[LiteralString, LiteralString]:
    """The timeouts that the server knows."""
    if connection.info.server_version < TRANSACTIONS_END:
        return TIMEOUTS
    return {**TIMEOUTS, **NEWER_TIMEOUTS}


def _refuse_other_encodings(connection: Connection, server: PostgresSettings) -> None:
    """Raise unless the database can hold every character.

    Raises:
        ConfigurationError: the database has another encoding than UTF8.
    """
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the database {server.database} on PostgreSQL at {where(server)} has the encoding "
            f"{encoding}, which cannot hold every event: create a database with ENCODING 'UTF8' "
            "and name it in POSTGRES_DB"
        )


def begin(connection: Connection, *, lock_timeout_s: float) -> None:
    """Set the timeouts of the open transaction, and let the server notice soon when this process is killed.

    ``synchronous_commit = off`` becomes ``local``: the server acknowledges the commit only when it is
    on disk, so a run that reports success has stored its hour.

    Args:
        connection: in a transaction.
        lock_timeout_s: seconds to wait for a lock.
    """
    connection.execute(
        """
        SELECT set_config('lock_timeout', %s, true),
               set_config('statement_timeout', '30min', true),
               set_config('idle_in_transaction_session_timeout', '60s', true),
               set_config('client_connection_check_interval', '1s', true),
               set_config('synchronous_commit',
                          CASE current_setting('synchronous_commit') WHEN 'off' THEN 'local'
                          ELSE current_setting('synchronous_commit') END, true)
        """,
        [f"{lock_timeout_s * 1000:.0f}ms"],
    )


def lock(connection: Connection, name: str, *, shared: bool = False) -> None:
    """Hold a lock of that name until the transaction ends; waits up to the transaction's ``lock_timeout``.

    Args:
        connection: in a transaction.
        name: name of the lock.
        shared: share the lock with other readers; otherwise the lock is exclusive.
    """
    function: LiteralString = "pg_advisory_xact_lock"
    if shared:
        function = "pg_advisory_xact_lock_shared"
    # PostgreSQL locks numbers, so the name is hashed.
    connection.execute(f"SELECT {function}(hashtextextended(%s, 0))", [name])


def one(
    connection: Connection, query: Query, parameters: Sequence[Any] | None = None
) -> tuple[Any, ...]:
    """The only row of a query that always returns a single row."""
    row: tuple[Any, ...] | None = connection.execute(query, parameters).fetchone()
    if row is None:
        raise LookupError("the query returned no row")
    return row


# -- migrations ----------------------------------------------------------------------------------

_MIGRATIONS_TABLE = """
CREATE SCHEMA IF NOT EXISTS obs;
CREATE TABLE IF NOT EXISTS obs.migrations (
    subject TEXT, version INT, description TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (subject, version))"""


SCHEMA_LOCK = "obs_assets schema"
"""Name of the lock that a transaction holds while it makes or changes tables."""


@dataclass(frozen=True)
class Migration:
    """A step that brings a subject's tables from one version to the next.

    Attributes:
        description: a sentence that starts with a verb.
        statements: SQL; it runs in the same transaction as all other steps that are due.
    """

    description: str
    statements: LiteralString | sql.Composed


def migrate(
    connection: Connection, subject: str, migrations: Sequence[Migration], *, start: int = 0
) -> list[str]:
    """Run the migrations of a subject that have not run yet, in the open transaction.

    Each migration runs once, under a lock for all subjects, and is recorded in ``obs.migrations``.
    The version of a migration is its position in the list, from 1: append to the list, never change
    a released migration.

    Args:
        connection: in a transaction.
        subject: name of a group of tables, for example ``ledger``.
        migrations: all migrations of the subject, the oldest first.
        start: version of tables that an older program made without a record; migrations up to it
            are recorded and not run.

    Returns:
        the descriptions of the migrations that ran.

    Raises:
        ConfigurationError: a newer version of obs_assets has migrated the subject.
    """
    if _version(connection, subject) == len(migrations):
        return []
    lock(connection, SCHEMA_LOCK)
    # CREATE … IF NOT EXISTS needs the right to create even if the table exists.
    if not one(connection, "SELECT to_regclass('obs.migrations') IS NOT NULL")[0]:
        connection.execute(_MIGRATIONS_TABLE)
    reached = max(_version(connection, subject), start)
    if reached > len(migrations):
        raise ConfigurationError(
            f"{subject} is at version {reached} of its schema and this obs_assets knows "
            f"{len(migrations)}: a newer obs_assets has migrated it; install that version"
        )
    done = []
    for version, migration in enumerate(migrations, 1):
        if version > reached:
            connection.execute(migration.statements)
            done.append(migration.description)
        connection.execute(
            "INSERT INTO obs.migrations (subject, version, description) VALUES (%s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            [subject, version, migration.description],
        )
    return done


def _version(connection: Connection, subject: str) -> int:
    """The version of a subject's tables; 0 before the first migration."""
    if not one(connection, "SELECT to_regclass('obs.migrations') IS NOT NULL")[0]:
        return 0
    found = one(
        connection,
        "SELECT coalesce(max(version), 0) FROM obs.migrations WHERE subject = %s",
        [subject],
    )
    return int(found[0])


LEDGER = (
    Migration(
        "Make the ledger obs.hour_loads: what each destination holds of an hour, and what it was built from.",
        """
        CREATE TABLE IF NOT EXISTS obs.hour_loads (
            destination TEXT, hour TIMESTAMPTZ,
            generation BIGINT NOT NULL, config_hash TEXT NOT NULL, code_version TEXT NOT NULL,
            rows BIGINT NOT NULL, content_hash TEXT NOT NULL,
            run_id TEXT NOT NULL, loaded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
            PRIMARY KEY (destination, hour))""",
    ),
    Migration(
        "Make obs.receipts, what each stage did with an hour that a destination holds, and obs.totals over all time.",
        """
        CREATE TABLE IF NOT EXISTS obs.receipts (
            destination TEXT, hour TIMESTAMPTZ, stage TEXT, position INT NOT NULL,
            taken BIGINT NOT NULL, kept BIGINT NOT NULL, set_aside JSONB NOT NULL,
            PRIMARY KEY (destination, hour, stage));
        CREATE TABLE IF NOT EXISTS obs.totals (
            destination TEXT PRIMARY KEY,
            total_events_written BIGINT NOT NULL DEFAULT 0, total_batches_written BIGINT NOT NULL DEFAULT 0,
            total_errors BIGINT NOT NULL DEFAULT 0, last_write_at TIMESTAMPTZ)""",
    ),
    Migration(
        "Note in obs.hour_loads from which landing log an hour was loaded.",
        "ALTER TABLE obs.hour_loads ADD COLUMN IF NOT EXISTS log_id TEXT NOT NULL DEFAULT ''",
    ),
    Migration(
        "Note in obs.hour_loads when an hour was first loaded, so that replaced hours are known.",
        "ALTER TABLE obs.hour_loads ADD COLUMN IF NOT EXISTS first_loaded_at TIMESTAMPTZ",
    ),
)
"""Tables that all destinations with a ledger in this server share; subject ``ledger``."""

VERSION: LiteralString = (
    "generation, config_hash, code_version, coalesce(to_jsonb(load) ->> 'log_id', '')"
)
"""SQL for the fields of an `InputVersion` in ``obs.hour_loads AS load``.

It also reads a ledger that has no column ``log_id`` yet.
"""


def adopt_load(
    connection: Connection,
    key: Mapping[str, object],
    held: Mapping[str, object],
    version: Mapping[str, object],
) -> bool:
    """Give a row of the ledger another version.

    Args:
        connection: in a transaction, the ledger migrated.
        key: ``destination`` and ``hour``.
        held: the expected values of the row, by column.
        version: the new values, by column.

    Returns:
        whether the row had the expected values; otherwise it is unchanged.
    """
    conditions = sql.SQL(" AND ").join(_equals({**key, **held}))
    values = sql.SQL(", ").join(_equals(version))
    query = sql.SQL("UPDATE obs.hour_loads SET {} WHERE {}").format(values, conditions)
    return connection.execute(query).rowcount == 1


def _equals(values: Mapping[str, object]) -> list[sql.Composed]:
    """``column = value`` for each column."""
    return [
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
        for name, value in values.items()
    ]
