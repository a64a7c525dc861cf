"""PostgreSQL as everybody here speaks to it: a connection, its errors in our words, locks, and migrations.

Whoever keeps tables in the server describes them as a list of `Migration` and calls `migrate` before using them.
"""

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, TypeAlias

import psycopg
from psycopg import sql
from psycopg.pq import ExecStatus

from obs_assets.errors import ConfigurationError, ObsError, PermanentError, TransientError
from obs_assets.settings import PostgresSettings

Connection: TypeAlias = psycopg.Connection[Any]
Query: TypeAlias = LiteralString | sql.Composed

# -- connecting --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def session(
    server: PostgresSettings, *, application_name: str = "obs_assets", autocommit: bool = False
) -> Iterator[Connection]:
    """A connection whose errors are ours; what is not committed by its end is rolled back."""
    use = (server, application_name, autocommit)
    connection = _idle.take(use) or connect(
        server, application_name=application_name, autocommit=autocommit
    )
    _in_use.add(connection)
    try:
        yield connection
    except psycopg.Error as error:
        connection.close()
        raise explained(error, server) from None
    except BaseException:
        connection.close()
        raise
    finally:
        _in_use.discard(connection)
    _idle.put(use, connection)


def cancel_queries() -> None:
    """Cancel what the sessions of this process wait for, whichever thread does: each ends in a `TransientError`."""
    for connection in list(_in_use):
        with contextlib.suppress(psycopg.Error):
            connection.cancel_safe(timeout=2)


@contextlib.contextmanager
def connections_kept() -> Iterator[None]:
    """Until its end, sessions use connections again: to make one takes longer than to load an hour of a few events.

    For work that leaves nothing behind in a session but what its transaction ends: no lock, no setting.
    """
    _idle.open()
    try:
        yield
    finally:
        _idle.close()


class _Idle:
    """Connections that wait for their next use, for as long as anybody wants that; for all threads."""

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
            left = (
                []
                if self._users
                else [one for waiting in self._waiting.values() for one in waiting]
            )
            self._waiting = self._waiting if self._users else {}
        for connection in left:
            connection.close()

    def take(self, use: "_Use") -> Connection | None:
        """One that the server still answers."""
        while True:
            with self._lock:
                connection = self._waiting[use].pop() if self._waiting.get(use) else None
            if (
                connection is None
                or connection.pgconn.exec_(b"").status == ExecStatus.EMPTY_QUERY
            ):
                return connection
            connection.close()

    def put(self, use: "_Use", connection: Connection) -> None:
        """Keep one, or close it; either way, what is not committed is rolled back."""
        with contextlib.suppress(psycopg.Error):
            if self._users and not connection.closed:
                connection.rollback()
                with self._lock:
                    if self._users:
                        self._waiting.setdefault(use, []).append(connection)
                        return
        connection.close()


_Use: TypeAlias = tuple[PostgresSettings, str, bool]
_idle = _Idle()
_in_use: set[Connection] = set()


def connect(
    server: PostgresSettings, *, application_name: str = "obs_assets", autocommit: bool = False
) -> Connection:
    """A connection to a server.

    Raises:
        ConfigurationError: the server refuses it; the message names the variable to change.
        TransientError: the server does not answer.
    """
    try:
        connection = psycopg.connect(
            host=server.host,
            port=server.port,
            dbname=server.database,
            user=server.user,
            password=server.password.get_secret_value() if server.password else None,
            connect_timeout=5,
            application_name=application_name,
            client_encoding="UTF8",
            autocommit=True,
        )
    except psycopg.Error as error:
        raise _unreachable(str(error), server) from None
    try:
        _refuse_other_encodings(connection, server)
        connection.execute(_SET_SESSION)
        connection.autocommit = autocommit
    except psycopg.Error as error:
        connection.close()
        raise explained(error, server) from None
    except BaseException:
        connection.close()
        raise
    return connection


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
"""The server, the database and the role may set other values. Rows are written and read with these."""

_SET_SESSION: LiteralString = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', false)" for name, value in SESSION_SETTINGS.items()
)


def _refuse_other_encodings(connection: Connection, server: PostgresSettings) -> None:
    """Raise unless the database can hold every character.

    Raises:
        ConfigurationError: the database has another encoding than UTF8.
    """
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the database {server.database} on PostgreSQL at {where(server)} has the encoding {encoding}, which "
            "cannot hold every event: create a database with ENCODING 'UTF8' and name it in POSTGRES_DB"
        )


def begin(connection: Connection, *, lock_timeout_s: float) -> None:
    """Bound what this transaction waits for, and let the server notice soon when this process is killed.

    A server that acknowledges commits before they are on disk is told not to: the run would be reported as done.
    """
    connection.execute(
        """
        SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', '30min', true),
               set_config('idle_in_transaction_session_timeout', '60s', true),
               set_config('client_connection_check_interval', '1s', true),
               set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'local'
                          ELSE current_setting('synchronous_commit') END, true)
        """,
        [f"{lock_timeout_s * 1000:.0f}ms"],
    )


def lock(connection: Connection, name: str, *, shared: bool = False) -> None:
    """Hold a lock of that name until the transaction ends; waits as long as its ``lock_timeout`` allows."""
    query: LiteralString = (
        "SELECT pg_advisory_xact_lock_shared" if shared else "SELECT pg_advisory_xact_lock"
    )
    connection.execute(query + "(hashtextextended(%s, 0))", [name])


def one(
    connection: Connection, query: Query, parameters: Sequence[Any] | None = None
) -> tuple[Any, ...]:
    """The only row of a query that always has one."""
    row: tuple[Any, ...] | None = connection.execute(query, parameters).fetchone()
    if row is None:
        raise LookupError("the query has an answer by its form")
    return row


# -- migrations --------------------------------------------------------------------------------------------------------

_MIGRATIONS_TABLE = """
CREATE SCHEMA IF NOT EXISTS obs;
CREATE TABLE IF NOT EXISTS obs.migrations (
    subject TEXT, version INT, description TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (subject, version))"""


SCHEMA_LOCK = "obs_assets schema"
"""What a transaction locks before it makes or changes tables."""


@dataclass(frozen=True)
class Migration:
    """A step that brings a subject's tables from one version to the next.

    Attributes:
        description: what it does, in one sentence that starts with a verb.
        statements: SQL, run in one transaction with all the other steps that are due.
    """

    description: str
    statements: LiteralString | sql.Composed


def migrate(
    connection: Connection, subject: str, migrations: Sequence[Migration], *, start: int = 0
) -> list[str]:
    """Run what has not been run yet of a subject's migrations, in the transaction that is open.

    Each runs once, whoever asks first: under one lock for all subjects, and recorded in ``obs.migrations``. The version
    of a migration is its place in the list, from 1: append to the list, never change what has been released.

    Args:
        connection: in a transaction.
        subject: what the migrations are about, for example ``ledger``.
        migrations: all of them, the oldest first.
        start: a version that is there although nothing is recorded; those up to it are recorded and not run.

    Returns:
        the descriptions of what was done.

    Raises:
        ConfigurationError: a newer version of this program has been here.
    """
    if _version(connection, subject) == len(migrations):
        return []
    lock(connection, SCHEMA_LOCK)
    # CREATE … IF NOT EXISTS asks for the right to create even where there is nothing to do.
    if not one(connection, "SELECT to_regclass('obs.migrations') IS NOT NULL")[0]:
        connection.execute(_MIGRATIONS_TABLE)
    reached = max(_version(connection, subject), start)
    if reached > len(migrations):
        raise ConfigurationError(
            f"{subject} is at version {reached} of its schema and this obs_assets knows {len(migrations)}: a newer one "
            "has been here; install that"
        )
    done = []
    for version, migration in enumerate(migrations, 1):
        if version > reached:
            connection.execute(migration.statements)
            done.append(migration.description)
        connection.execute(
            "INSERT INTO obs.migrations (subject, version, description) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            [subject, version, migration.description],
        )
    return done


def _version(connection: Connection, subject: str) -> int:
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
        CREATE TABLE obs.receipts (
            destination TEXT, hour TIMESTAMPTZ, stage TEXT, position INT NOT NULL,
            taken BIGINT NOT NULL, kept BIGINT NOT NULL, set_aside JSONB NOT NULL,
            PRIMARY KEY (destination, hour, stage));
        CREATE TABLE obs.totals (
            destination TEXT PRIMARY KEY,
            total_events_written BIGINT NOT NULL DEFAULT 0, total_batches_written BIGINT NOT NULL DEFAULT 0,
            total_errors BIGINT NOT NULL DEFAULT 0, last_write_at TIMESTAMPTZ)""",
    ),
)
"""The table that every destination with a ledger in this server shares; subject ``ledger``."""

# -- what can go wrong -------------------------------------------------------------------------------------------------


def where(server: PostgresSettings) -> str:
    return f"{server.host}:{server.port}"


# libpq gives no code for a refused connection, only text.
_REFUSALS = {
    r"authentication failed|no password supplied": "does not accept user {0.user} with this password: "
    "check POSTGRES_USER and POSTGRES_PASSWORD",
    r'database ".*" does not exist': "has no database {0.database}: create it, or set POSTGRES_DB",
    r'role ".*" does not exist': "has no user {0.user}: check POSTGRES_USER",
    r"no pg_hba.conf entry": "does not admit user {0.user} to database {0.database} from this machine: "
    "check POSTGRES_USER, POSTGRES_DB and the server's pg_hba.conf",
    r"(resolve|translate) host.*not known": "is not to be found: check POSTGRES_HOST",
}


def _unreachable(message: str, server: PostgresSettings) -> ObsError:
    for pattern, sentence in _REFUSALS.items():
        if re.search(pattern, message):
            return ConfigurationError(
                f"PostgreSQL at {where(server)} {sentence.format(server)}"
            )
    return TransientError(
        f"PostgreSQL at {where(server)} does not answer: check POSTGRES_HOST and POSTGRES_PORT, and that it runs"
    )


_TRANSIENT = re.compile("08|40001|40P01|53|55P03|57")
_CONFIGURATION = re.compile("28|3D|3F|42501|42P07")
_QUOTES_VALUES = re.compile("22|P0")
"""SQLSTATE classes: try again; change a setting or a right; the message quotes a value of the row."""


def explained(error: psycopg.Error, server: PostgresSettings) -> ObsError:
    """An error of ours for one of the server's, without its detail and context: they quote the row."""
    state = error.sqlstate or ""
    if not state and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return TransientError(f"the connection to PostgreSQL at {where(server)} was lost")
    said = (
        type(error).__name__
        if not state or _QUOTES_VALUES.match(state)
        else error.diag.message_primary
    )
    message = f"PostgreSQL at {where(server)}: {said} ({state or 'no SQLSTATE'})"
    if _TRANSIENT.match(state):
        return TransientError(message)
    return (
        ConfigurationError(message) if _CONFIGURATION.match(state) else PermanentError(message)
    )
