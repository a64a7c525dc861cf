"""Errors of PostgreSQL as errors of obs_assets: a sentence with the server, the fault and its remedy.

Two tables hold the sentences: `_REFUSALS` for connections, `_FAULTS` for statements. A new sentence is a
row. No sentence holds detail or context of the server's message, because they quote the row.
"""

import re
from dataclasses import dataclass
from typing import Any

import psycopg

from obs_assets.errors import ConfigurationError, ObsError, PermanentError, TransientError
from obs_assets.settings import PostgresSettings


@dataclass(frozen=True)
class _Row:
    """Sentence for an error.

    Attributes:
        pattern: libpq's text for a refused connection, or the SQLSTATE of a statement.
        kind: class of our error.
        sentence: its end, after the address; ``{0}`` are the server's settings, ``{1}`` its own message.
    """

    pattern: str
    kind: type[ObsError]
    sentence: str

    def error(self, server: PostgresSettings, message: str) -> ObsError:
        """Our error for a message of the server."""
        return self.kind(
            f"PostgreSQL at {where(server)} {self.sentence.format(server, message)}"
        )


def where(server: PostgresSettings) -> str:
    """The address of a server, for messages: ``db.example.com:5432``."""
    return f"{server.host}:{server.port}"


# -- connections -----------------------------------------------------------------------------------

# libpq gives no code for a refused connection, only a text.
_REFUSALS = (
    _Row(
        r"authentication failed|no password supplied",
        ConfigurationError,
        "does not accept user {0.user} with this password: check POSTGRES_USER and POSTGRES_PASSWORD",
    ),
    _Row(
        r'database ".*" does not exist',
        ConfigurationError,
        "has no database {0.database}: create it, or set POSTGRES_DB",
    ),
    _Row(
        r'database ".*" is not currently accepting',
        ConfigurationError,
        "accepts no connections to database {0.database}: "
        'ALTER DATABASE "{0.database}" ALLOW_CONNECTIONS true, or set POSTGRES_DB',
    ),
    _Row(
        r'role ".*" does not exist',
        ConfigurationError,
        "has no user {0.user}: check POSTGRES_USER",
    ),
    _Row(
        r'role ".*" is not permitted to log in',
        ConfigurationError,
        'does not let user {0.user} log in: ALTER ROLE "{0.user}" LOGIN, or set POSTGRES_USER',
    ),
    _Row(
        r"permission denied for database",
        ConfigurationError,
        "does not admit user {0.user} to database {0.database}: "
        'GRANT CONNECT ON DATABASE "{0.database}" TO "{0.user}"',
    ),
    _Row(
        r"no pg_hba.conf entry",
        ConfigurationError,
        "does not admit user {0.user} to database {0.database} from this machine: "
        "check POSTGRES_USER, POSTGRES_DB and the server's pg_hba.conf",
    ),
    _Row(
        r"(resolve|translate) host.*not known",
        ConfigurationError,
        "is not to be found: check POSTGRES_HOST",
    ),
    _Row(
        r"too many (clients|connections)|connection slots are reserved|no more connections",
        TransientError,
        "has no free connection for user {0.user} and database {0.database}: end other sessions, or "
        "raise max_connections or the CONNECTION LIMIT of the user or the database",
    ),
    _Row(
        r"starting up|shutting down|in recovery mode|not (yet )?accepting connections",
        TransientError,
        "is starting, stopping or recovering: wait, and read the server's log if it takes long",
    ),
)

# The server's answer has its severity, in any language, and two blanks; libpq's own texts have not.
_ANSWER = re.compile(r"failed: [^:\n]+:  (.+)")

_ANOTHER_REFUSAL = _Row("", TransientError, "gives no connection: {1}")

_NO_ANSWER = _Row(
    "",
    TransientError,
    "does not answer: check POSTGRES_HOST and POSTGRES_PORT, and that it runs",
)


def refused(error: psycopg.Error, server: PostgresSettings) -> ObsError:
    """Our error for a connection that the server did not give."""
    text = str(error)
    for row in _REFUSALS:
        if re.search(row.pattern, text):
            return row.error(server, text)
    # libpq tries with and without encryption: the last answer is the important answer.
    answers = _ANSWER.findall(text)
    if answers:
        return _ANOTHER_REFUSAL.error(server, answers[-1])
    return _NO_ANSWER.error(server, text)


# -- statements ------------------------------------------------------------------------------------

_STANDBY = _Row(
    "25006",
    TransientError,
    "is a standby, which only reads: set POSTGRES_HOST to the primary server, or promote this server",
)

_READ_ONLY = _Row(
    "25006",
    ConfigurationError,
    "only reads: default_transaction_read_only is on for user {0.user}, for database {0.database} or "
    "for the whole server. Find out why (some providers set it when the disk is full), then turn it off",
)

_FAULTS = (
    _Row(
        "53100",
        TransientError,
        "has no room on its disk: {1}. Free or add room there",
    ),
    _Row("53200", TransientError, "has too little memory: {1}"),
    _Row(
        "53400",
        ConfigurationError,
        "has reached a limit that is set for user {0.user}, for database {0.database} or for the whole "
        "server: {1}. Raise it",
    ),
    _Row(
        "57014",
        TransientError,
        "ended a statement: {1}. An administrator ended it, or it took too long: look for sessions "
        "that block it, or a slow disk",
    ),
    _Row(
        "55P03",
        TransientError,
        "did not give a lock in time: {1}. Another session uses the table; pg_stat_activity shows it",
    ),
    _Row("57P04", ConfigurationError, "has lost the database {0.database}: {1}"),
    _Row("57P05|25P03|25P04", TransientError, "ended the session: {1}"),
    _Row("57P", TransientError, "is stopping or starting: {1}"),
    _Row(
        "42501",
        ConfigurationError,
        "does not give user {0.user} a right: {1}. The user that loads must own the tables, or be "
        "allowed to create schemas, tables and temporary tables in database {0.database}",
    ),
    _Row(
        "23",
        PermanentError,
        "refused a row: {1}. This rule was added to the table: remove it, or give the column a default",
    ),
    _Row(
        "42P07",
        ConfigurationError,
        "has a table in the way: {1}. If it is a leaf that was detached, attach it again, rename it or "
        "drop it",
    ),
    _Row(
        "42P17",
        ConfigurationError,
        "has a partition in the way that obs_assets did not make or that was renamed: {1}. Detach it, "
        "or give it the name of a leaf",
    ),
    _Row(
        "42703|42P01",
        PermanentError,
        "lacks a table or a column of obs_assets: {1}. It was removed or renamed by hand: bring it back",
    ),
    _Row("08|40001|40P01|53", TransientError, "reports: {1}"),
    _Row("28|3D|3F", ConfigurationError, "reports: {1}"),
    _Row("", PermanentError, "reports: {1}"),
)
"""Beginning of the SQLSTATE → sentence; the first row that fits counts. The last row fits every code."""

_QUOTES_VALUES = re.compile("22|P0")
"""SQLSTATE of errors whose message quotes a value of the row."""


def explained(
    error: psycopg.Error,
    server: PostgresSettings,
    connection: psycopg.Connection[Any] | None = None,
) -> ObsError:
    """Our error for an error of a statement.

    Args:
        error: the error.
        server: the server.
        connection: the connection of the statement, still open; it says why a server only reads.
    """
    state = error.sqlstate or ""
    if not state and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return TransientError(f"the connection to PostgreSQL at {where(server)} was lost")
    problem = error.diag.message_primary
    if not state or _QUOTES_VALUES.match(state):
        problem = type(error).__name__
    row = _only_reads(state, connection)
    if row is None:
        row = next(row for row in _FAULTS if re.match(row.pattern, state))
    return row.error(server, f"{problem} ({state or 'no SQLSTATE'})")


def _only_reads(state: str, connection: psycopg.Connection[Any] | None) -> _Row | None:
    """The row of a server that refuses to write; None for another error."""
    if state != _STANDBY.pattern or connection is None or connection.closed:
        return None
    return _why_read_only(connection)


def _why_read_only(connection: psycopg.Connection[Any]) -> _Row | None:
    # The server reports both settings by itself, and again when they change.
    if connection.info.parameter_status("in_hot_standby") == "on":
        return _STANDBY
    if connection.info.parameter_status("default_transaction_read_only") == "on":
        return _READ_ONLY
    return None


def refuse_read_only(connection: psycopg.Connection[Any], server: PostgresSettings) -> None:
    """Raise unless the server writes.

    Raises:
        TransientError: the server is a standby.
        ConfigurationError: a setting makes it read only.
    """
    row = _why_read_only(connection)
    if row is not None:
        raise row.error(server, "")
