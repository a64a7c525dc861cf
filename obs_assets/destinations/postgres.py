"""PostgreSQL: an hour is replaced in one transaction, together with the ledger row that says what it is.

::

    public.events                 the original's columns and more, partitioned by day of ``timestamp``
    ├── events_d20251204          a leaf a day, made on demand
    obs.hour_loads                the ledger: a row for each hour that a table holds, and what it was built from

DELETE and COPY in one transaction is the one way to replace rows that never blocks a reader and lets each see the old
hour or the new, whatever its isolation level. The advisory lock keeps a second writer of the hour out; the ledger's
generation turns away a writer that has seen less.
"""

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, LiteralString, TypeAlias

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.csv
import tenacity
from psycopg import errors, sql
from pydantic import Field, SecretStr, field_validator

from obs_assets.crash import crash_point
from obs_assets.destinations.base import Delivery, DestinationConfig, Holding, Offer
from obs_assets.errors import (
    ConfigurationError,
    HourBusyError,
    ObsError,
    PermanentError,
    StaleHourError,
    TransientError,
)
from obs_assets.events import Frame
from obs_assets.hours import Hour
from obs_assets.receipts import InputVersion
from obs_assets.settings import PostgresSettings

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Query: TypeAlias = LiteralString | sql.Composed

# 47 characters leave room for `idx_` + name + `_event_level` in PostgreSQL's 63 bytes: no derived name is ever cut, so
# no two of them meet. A table that is named like another's leaf is refused.
NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,46}$"
_LEAF_SUFFIX = re.compile(r"_[hdm]\d{6,10}$")

OLDEST_SERVER = 140000
BATCH_ROWS = 10_000
"""Rows turned into COPY data at a time: a few megabytes."""

INDEXED_TEXT = 500
"""Characters kept in the indexed text columns: a btree entry may have 2,704 bytes. ``data`` has the whole value."""


class PostgresConfig(DestinationConfig, frozen=True):
    """A table of events.

    Attributes:
        table_name: the parent table; leaves and indexes are named after it.
        create_table_if_not_exists: False when somebody else makes table and ledger; the leaves are always made here.
        pool_size: connections of the search API; a load uses one.
        retention_days: days after which `PostgresDestination.drop_expired` drops a day's leaf; None keeps all.
        host, port, database, user, password: win over ``POSTGRES_HOST`` and its fellows.
    """

    type: Literal["postgres", "postgresql"] = "postgres"
    table_name: str = Field("events", pattern=NAME)
    schema_name: str = Field("public", pattern=NAME)
    create_table_if_not_exists: bool = True
    pool_size: int = Field(10, ge=1)
    retention_days: int | None = Field(None, ge=1)
    host: str | None = None
    port: int | None = Field(None, ge=1, le=65_535)
    database: str | None = None
    user: str | None = None
    password: SecretStr | None = None

    @field_validator("table_name")
    @classmethod
    def _is_no_leaf(cls, name: str) -> str:
        if _LEAF_SUFFIX.search(name):
            raise ValueError("must not end like the name of a day's leaf (_d20251204)")
        return name


def server_of(config: PostgresConfig, settings: PostgresSettings) -> PostgresSettings:
    """Where a configured destination is: the settings, with what the configuration says in their place."""
    said = {name: getattr(config, name) for name in ("host", "port", "database", "user", "password")}
    return settings.model_copy(update={name: value for name, value in said.items() if value is not None})


# -- the table ---------------------------------------------------------------------------------------------------------

COLUMNS = {
    "id": "BIGINT",
    "event_id": "TEXT",
    "event_type": "TEXT",
    "event_level": "TEXT",
    "timestamp": "TIMESTAMPTZ NOT NULL",
    "source_name": "TEXT",
    "master_type": "TEXT",
    "worker_type": "TEXT",
    "data": "JSONB NOT NULL",
    "error": "TEXT",
    "duration_ms": "BIGINT",
    "cost_usd": "NUMERIC",
    "created_at": "TIMESTAMPTZ NOT NULL DEFAULT now()",
    "row_uid": "TEXT",
    "weight": "DOUBLE PRECISION",
    "trace_id": "TEXT",
    "session_id": "TEXT",
    "worker_id": "TEXT",
    "hour": "TIMESTAMPTZ NOT NULL",
}
"""The original's columns, in types that refuse no event, then ours."""

# The DELETE of an hour goes by timestamp; the constraint keeps rows that it would miss out of the table.
_OF_ITS_HOUR = "CONSTRAINT timestamp_in_hour CHECK (timestamp >= hour AND timestamp < hour + interval '1 hour')"

INDEXES = {
    "timestamp": "(timestamp DESC)",
    "event_type": "(event_type, timestamp DESC)",
    "event_level": "(event_level, timestamp DESC)",
    "error": "(timestamp DESC) WHERE error IS NOT NULL",
    "data_gin": "USING gin (data jsonb_path_ops)",
}
"""Indexes ``idx_<table>_<name>``: they answer what the original's do, in less time and space."""

_LEDGER = """
CREATE TABLE IF NOT EXISTS obs.hour_loads (
    destination TEXT, hour TIMESTAMPTZ,
    generation BIGINT NOT NULL, config_hash TEXT NOT NULL, code_version TEXT NOT NULL,
    rows BIGINT NOT NULL, content_hash TEXT NOT NULL,
    run_id TEXT NOT NULL, loaded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (destination, hour))"""

_FORM = """
SELECT c.relkind::text, pg_get_partkeydef(c.oid), array_agg(a.attname::text)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid = to_regclass(%s) GROUP BY c.oid, c.relkind"""


def _text(column: str) -> str:
    """SQL for a text column without U+0000, which PostgreSQL cannot store."""
    return f"replace({column}, chr(0), chr(65533))"


def stored_event(event: str) -> str:
    r"""SQL for an event as ``jsonb`` takes it: ``\u0000`` and halves of surrogate pairs become ``\ufffd``.

    Backslash pairs and whole surrogate pairs are put aside (as U+0001 and U+0002, which JSON text cannot hold) while
    the rest is replaced, so that ``\\u0000``, a backslash and five characters, stays.
    """
    pairs = rf"""regexp_replace(replace({event}, '\\', chr(1)),
        '\\u([dD][89abAB][0-9a-fA-F]{{2}})\\u([dD][c-fC-F][0-9a-fA-F]{{2}})',
        chr(2) || 'u\1' || chr(2) || 'u\2', 'g')"""
    replaced = rf"regexp_replace({pairs}, '\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{{2}})', '\\ufffd', 'g')"
    return rf"""CASE WHEN contains({event}, '\u') AND regexp_matches({event}, '\\u(0000|[dD][89a-fA-F])')
        THEN replace(replace({replaced}, chr(2), '\'), chr(1), '\\') ELSE {event} END"""


def _row(hour: Hour) -> dict[str, str]:
    """DuckDB's SQL for each column of a row; ``created_at`` is the server's."""
    plain = ("event_id", "source_name", "master_type", "worker_type", "error", "trace_id", "session_id", "worker_id")
    return {name: _text(name) for name in plain} | {
        "id": "try_cast(('0x' || left(row_uid, 16))::UBIGINT & 9223372036854775807 AS BIGINT)",
        "event_type": f"coalesce(left({_text('event_type')}, {INDEXED_TEXT}), 'unknown')",
        "event_level": f"coalesce(left({_text('event_level')}, {INDEXED_TEXT}), 'info')",
        "timestamp": "event_time",
        "data": stored_event("event"),
        "duration_ms": "duration_ms",
        "cost_usd": "rtrim(rtrim(cost_usd::DECIMAL(28, 12)::VARCHAR, '0'), '.')",  # 0.25, not 0.250000000000
        "row_uid": "row_uid",
        "weight": "weight",
        "hour": f"TIMESTAMPTZ '{hour.start.isoformat()}'",
    }


# Waiting often and briefly for a lock lets readers pass; one long wait would block those that come after it.
_patiently = tenacity.retry(
    retry=tenacity.retry_if_exception_type(errors.LockNotAvailable),
    wait=tenacity.wait_random(0.1, 1.0),
    stop=tenacity.stop_after_attempt(6),
    reraise=True,
)


# -- the destination ---------------------------------------------------------------------------------------------------


class PostgresDestination:
    """Holds hours in a table.

    Args:
        config: which table, and what about it.
        settings: the server.
        busy_after_s: how long to wait for another writer of the same hour.
    """

    def __init__(self, config: PostgresConfig, settings: PostgresSettings, *, busy_after_s: float = 10.0) -> None:
        self.config = config
        self.server = server_of(config, settings)
        self.key = f"{config.schema_name}.{config.table_name}"
        self._busy_after_s = busy_after_s
        self._absent = f"{self.key} or obs.hour_loads does not exist: create both, or set create_table_if_not_exists"
        self._table = sql.Identifier(config.schema_name, config.table_name)

    def deliver(self, offer: Offer) -> Delivery:
        """Replace the hour's rows and its ledger row in one transaction; see `base.Destination.deliver`."""
        began = time.monotonic()
        with _session(self.server) as connection:
            self._prepare(connection, offer.hour)
            self._lock(connection, offer.hour)
            held = self._ledger_row(connection, offer.hour, for_update=True)
            if held and held.version.generation > offer.version.generation:
                raise StaleHourError(
                    f"{self.key} holds generation {held.version.generation} of {offer.hour}, newer than the offered "
                    f"{offer.version.generation}: materialize the stages before it again"
                )
            if held == _holding(offer) and not offer.rebuild and self._count(connection, offer.hour) == offer.rows:
                return Delivery(written=0, already_there=offer.rows)
            size, batches = self._replace(connection, offer)
            self._write_ledger(connection, offer)
            crash_point("postgres.before_commit")
            self._commit(connection, offer)
            crash_point("postgres.after_commit")
        seconds = time.monotonic() - began
        stats = {
            "total_events_written": offer.rows,
            "total_batches_written": batches,
            "seconds": round(seconds, 3),
            "rows_per_s": round(offer.rows / seconds),
        }
        return Delivery(written=offer.rows, size_bytes=size, stats=stats)

    def holding(self, hour: Hour) -> Holding | None:
        """The ledger's row of an hour."""
        with _session(self.server) as connection:
            try:
                return self._ledger_row(connection, hour)
            except errors.UndefinedTable:
                return None

    def holdings(self) -> dict[Hour, Holding]:
        """The ledger's rows of the hours that still have a row in the table, or never had one."""
        # The subquery with its LIMIT is looked up hour by hour in one leaf's index; a join would scan the table
        query = """
            SELECT hour, generation, config_hash, code_version, rows, content_hash
            FROM obs.hour_loads AS load LEFT JOIN LATERAL (
                SELECT true AS found FROM {table}
                WHERE timestamp >= load.hour AND timestamp < load.hour + interval '1 hour' LIMIT 1) ON true
            WHERE destination = {key} AND (rows = 0 OR found)"""
        with _session(self.server) as connection:
            _begin(connection, lock_timeout_s=5)
            try:
                rows = connection.execute(
                    sql.SQL(query).format(table=self._table, key=sql.Literal(self.key))
                ).fetchall()
            except errors.UndefinedTable:
                return {}
        return {Hour.of(row[0]): Holding(InputVersion(*row[1:4]), *row[4:]) for row in rows}

    def selected(self, frame: Frame) -> Frame:
        """All rows, events without what ``jsonb`` cannot hold."""
        return frame.project(f"* REPLACE ({stored_event('event')} AS event)")

    def read_back(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> Frame:
        """``row_uid`` and ``event`` of the rows in the table, as a temporary table of ``connection``.

        ``event`` is ``data`` as the server prints it: compare canonical forms, with `stored_event` on the other side.
        """
        name = f"read_back_{self.key.replace('.', '_')}_{hour.stamp}"
        connection.execute(f'CREATE OR REPLACE TEMP TABLE "{name}" (row_uid VARCHAR, event VARCHAR)')
        query = "SELECT row_uid, data::text FROM {table} WHERE timestamp >= {start} AND timestamp < {end}"
        with (
            _session(self.server) as server,
            contextlib.suppress(errors.UndefinedTable),
            server.cursor("read_back") as cursor,
        ):
            cursor.execute(self._of_hour(query, hour))
            while rows := cursor.fetchmany(BATCH_ROWS):
                row_uids, events = zip(*rows, strict=True)
                batch = pa.table(
                    [pa.array(row_uids, pa.string()), pa.array(events, pa.large_string())], ["row_uid", "event"]
                )
                connection.from_arrow(batch).insert_into(name)
        return connection.table(name)

    def check(self) -> str:
        """One line that says which server, database and table were reached."""
        where, create = _where(self.server), self.config.create_table_if_not_exists
        try:
            with _session(self.server) as connection:
                version = _one(connection, "SHOW server_version")[0]
                if connection.info.server_version < OLDEST_SERVER:
                    raise ConfigurationError(
                        f"PostgreSQL at {where} is version {version}: 14 is the oldest that will do"
                    )
                there = self._has_table(connection)
        except TransientError as error:
            raise ConfigurationError(str(error)) from None
        if not there and not create:
            raise ConfigurationError(self._absent)
        made = "" if there else " (to be made)"
        return f"PostgreSQL {version} at {where}, database {self.server.database}, table {self.key}{made}"

    def drop_expired(self, now: datetime) -> list[str]:
        """Drop the leaves of days that ended ``retention_days`` before ``now``, and what the ledger says of them.

        Returns:
            the names of the leaves dropped.
        """
        if self.config.retention_days is None:
            return []
        last = now - timedelta(days=self.config.retention_days + 1)
        with _session(self.server) as connection:
            expired = [(day, leaf) for day, leaf in self._leaves(connection) if day <= last]
            connection.rollback()
            for day, leaf in expired:
                self._drop_day(connection, day, leaf)
        return [leaf for _, leaf in expired]

    # -- an hour, inside the transaction of `deliver` ------------------------------------------------------------------

    def _lock(self, connection: Connection, hour: Hour) -> None:
        """Begin the transaction and keep other writers of the hour out until its end."""
        _begin(connection, lock_timeout_s=self._busy_after_s)
        try:
            connection.execute(_ADVISORY_LOCK, [f"{self.key} {hour}"])
        except errors.LockNotAvailable:
            raise HourBusyError(f"another run is writing {hour} to {self.key}: let it finish, then try again") from None

    def _ledger_row(self, connection: Connection, hour: Hour, *, for_update: bool = False) -> Holding | None:
        query: LiteralString = """
            SELECT generation, config_hash, code_version, rows, content_hash FROM obs.hour_loads
            WHERE destination = %s AND hour = %s"""
        row = connection.execute(query + " FOR UPDATE" * for_update, [self.key, hour.start]).fetchone()
        return Holding(InputVersion(*row[:3]), *row[3:]) if row else None

    def _count(self, connection: Connection, hour: Hour) -> int:
        query = self._of_hour("SELECT count(*) FROM {table} WHERE timestamp >= {start} AND timestamp < {end}", hour)
        return int(_one(connection, query)[0])

    def _replace(self, connection: Connection, offer: Offer) -> tuple[int, int]:
        """DELETE, then COPY; returns the bytes and batches sent."""
        connection.execute(
            self._of_hour("DELETE FROM {table} WHERE timestamp >= {start} AND timestamp < {end}", offer.hour)
        )
        crash_point("postgres.after_delete")
        row = _row(offer.hour)
        columns = sql.SQL(", ").join(map(sql.Identifier, row))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(self._table, columns)
        projection = ", ".join(f'{expression} AS "{name}"' for name, expression in row.items())
        size = batches = 0
        with connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for batch in offer.frame.project(projection).to_arrow_reader(BATCH_ROWS):
                    text = _csv(batch)
                    copy.write(text)
                    size, batches = size + len(text), batches + 1
            crash_point("postgres.after_copy")
            if cursor.rowcount != offer.rows:
                raise PermanentError(
                    f"{offer.rows:,} rows of {offer.hour} were offered to {self.key}, the frame has {cursor.rowcount:,}"
                )
        return size, batches

    def _write_ledger(self, connection: Connection, offer: Offer) -> None:
        row = {
            "destination": self.key,
            "hour": offer.hour.start,
            **asdict(offer.version),
            "rows": offer.rows,
            "content_hash": offer.content_hash,
            "run_id": offer.run_id,
            "loaded_at": datetime.now(UTC),
        }
        names = sql.SQL(", ").join(map(sql.Identifier, row))
        values = sql.SQL(", ").join(map(sql.Placeholder, row))
        upsert = """
            INSERT INTO obs.hour_loads ({names}) VALUES ({values})
            ON CONFLICT (destination, hour) DO UPDATE SET ({names}) = ROW ({values})"""
        connection.execute(sql.SQL(upsert).format(names=names, values=values), row)

    def _commit(self, connection: Connection, offer: Offer) -> None:
        """Commit; when the answer is lost, ask the ledger what became of it."""
        try:
            connection.commit()
        except psycopg.OperationalError:
            if not connection.closed:
                raise
            if not self._is_committed(offer):
                raise TransientError(
                    f"the connection to PostgreSQL at {_where(self.server)} was lost before {offer.hour} was committed"
                ) from None

    def _is_committed(self, offer: Offer) -> bool:
        with _session(self.server) as connection:
            self._lock(connection, offer.hour)  # waits for the end of the transaction whose answer was lost
            query = "SELECT run_id FROM obs.hour_loads WHERE destination = %s AND hour = %s"
            writer = connection.execute(query, [self.key, offer.hour.start]).fetchone()
            return writer == (offer.run_id,) and self._ledger_row(connection, offer.hour) == _holding(offer)

    def _of_hour(self, query: LiteralString, hour: Hour) -> sql.Composed:
        return sql.SQL(query).format(table=self._table, start=sql.Literal(hour.start), end=sql.Literal(hour.end))

    # -- table, ledger and leaves, each made in a short transaction of its own -----------------------------------------

    @_patiently
    def _prepare(self, connection: Connection, hour: Hour) -> None:
        """Make table, ledger and leaf where they are missing.

        Not in the transaction of the load: attaching a leaf locks the parent against another attachment until commit.
        """
        day = hour.start.replace(hour=0)
        with connection.transaction():
            _begin(connection, lock_timeout_s=2)
            if self._has_table(connection) and self._has_leaf(connection, day):
                return
            connection.execute(_ADVISORY_LOCK, ["obs_assets schema"])
            if self.config.create_table_if_not_exists:
                self._make_table(connection)
            if not self._has_table(connection):
                raise ConfigurationError(self._absent)
            if not self._has_leaf(connection, day):
                self._make_leaf(connection, day)

    def _has_table(self, connection: Connection) -> bool:
        """Whether table and ledger exist.

        Raises:
            ConfigurationError: the table is not one of ours.
        """
        name = self._table.as_string(connection)
        kind, partition_key, columns = connection.execute(_FORM, [name]).fetchone() or ("", None, [])
        if kind and (partition_key != 'RANGE ("timestamp")' or COLUMNS.keys() - set(columns)):
            raise ConfigurationError(
                f"{self.key} is not partitioned by range of timestamp, or lacks columns: it was made by something else "
                "and is left alone. Choose another table_name, or move it out of the way with its indexes: "
                f"CREATE SCHEMA old; ALTER TABLE {name} SET SCHEMA old"
            )
        return bool(kind) and _one(connection, "SELECT to_regclass('obs.hour_loads') IS NOT NULL")[0]

    def _make_table(self, connection: Connection) -> None:
        # CREATE … IF NOT EXISTS asks for the right to create even where there is nothing to do.
        for schema in (self.config.schema_name, "obs"):
            if not _one(connection, "SELECT to_regnamespace(quote_ident(%s)) IS NOT NULL", [schema])[0]:
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(_LEDGER)
        if connection.execute(_FORM, [self._table.as_string(connection)]).fetchone():
            return
        columns = ", ".join([*(f"{name} {kind}" for name, kind in COLUMNS.items()), _OF_ITS_HOUR])
        connection.execute(sql.SQL(f"CREATE TABLE {{}} ({columns}) PARTITION BY RANGE (timestamp)").format(self._table))
        for name, definition in INDEXES.items():
            index = sql.Identifier(f"idx_{self.config.table_name}_{name}")
            connection.execute(sql.SQL(f"CREATE INDEX {{}} ON {{}} {definition}").format(index, self._table))

    def _leaf(self, day: datetime) -> sql.Identifier:
        return sql.Identifier(self.config.schema_name, f"{self.config.table_name}_d{day:%Y%m%d}")

    def _has_leaf(self, connection: Connection, day: datetime) -> bool:
        query = "SELECT 1 FROM pg_inherits WHERE inhrelid = to_regclass(%s) AND inhparent = to_regclass(%s)"
        names = [self._leaf(day).as_string(connection), self._table.as_string(connection)]
        return connection.execute(query, names).fetchone() is not None

    def _make_leaf(self, connection: Connection, day: datetime) -> None:
        """Make a day's leaf beside its parent and attach it, which, unlike ``PARTITION OF``, blocks no reader."""
        names = {
            "leaf": self._leaf(day),
            "table": self._table,
            "start": sql.Literal(day),
            "end": sql.Literal(day + timedelta(days=1)),
        }
        like = "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION"
        connection.execute(sql.SQL(f"CREATE TABLE {{leaf}} (LIKE {{table}} {like})").format(**names))
        connection.execute(
            sql.SQL("ALTER TABLE {table} ATTACH PARTITION {leaf} FOR VALUES FROM ({start}) TO ({end})").format(**names)
        )

    def _leaves(self, connection: Connection) -> list[tuple[datetime, str]]:
        """The days that have a leaf, and its name, oldest first."""
        query = """
            SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid
            WHERE inhparent = to_regclass(%s) AND relname ~ %s ORDER BY relname"""
        pattern = rf"^{self.config.table_name}_d\d{{8}}$"
        names = connection.execute(query, [self._table.as_string(connection), pattern]).fetchall()
        return [(datetime.strptime(name[-8:], "%Y%m%d").replace(tzinfo=UTC), name) for (name,) in names]

    @_patiently
    def _drop_day(self, connection: Connection, day: datetime, leaf: str) -> None:
        ledger = "DELETE FROM obs.hour_loads WHERE destination = %s AND hour >= %s AND hour < %s"
        with connection.transaction():
            _begin(connection, lock_timeout_s=1)
            connection.execute(ledger, [self.key, day, day + timedelta(days=1)])
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(self.config.schema_name, leaf)))


def _holding(offer: Offer) -> Holding:
    return Holding(offer.version, offer.rows, offer.content_hash)


def _csv(batch: pa.RecordBatch) -> memoryview:
    """COPY data of a batch: strings quoted, NULL left empty."""
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(batch, sink, pyarrow.csv.WriteOptions(include_header=False))
    return memoryview(sink.getvalue())


# -- connecting, and what can go wrong ---------------------------------------------------------------------------------

_ADVISORY_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"


@contextlib.contextmanager
def _session(server: PostgresSettings) -> Iterator[Connection]:
    """A connection whose errors are ours; what is not committed by its end is rolled back."""
    with contextlib.closing(connect(server)) as connection:
        try:
            yield connection
        except psycopg.Error as error:
            raise explained(error, server) from None


def connect(
    server: PostgresSettings, *, application_name: str = "obs_assets", autocommit: bool = False
) -> psycopg.Connection[Any]:
    """A connection to a server.

    Raises:
        ConfigurationError: the server refuses it; the message names the variable to change.
        TransientError: the server does not answer.
    """
    try:
        return psycopg.connect(
            host=server.host,
            port=server.port,
            dbname=server.database,
            user=server.user,
            password=server.password.get_secret_value() if server.password else None,
            connect_timeout=5,
            application_name=application_name,
            autocommit=autocommit,
        )
    except psycopg.Error as error:
        raise _unreachable(str(error), server) from None


def _begin(connection: Connection, *, lock_timeout_s: float) -> None:
    """Bound what this transaction waits for, and let the server notice soon when this process is killed."""
    connection.execute(
        """
        SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', '30min', true),
               set_config('idle_in_transaction_session_timeout', '60s', true),
               set_config('client_connection_check_interval', '1s', true)
        """,
        [f"{lock_timeout_s * 1000:.0f}ms"],
    )


def _one(connection: Connection, query: Query, parameters: list[Any] | None = None) -> tuple[Any, ...]:
    row = connection.execute(query, parameters).fetchone()
    if row is None:
        raise LookupError("the query has an answer by its form")
    return row


def _where(server: PostgresSettings) -> str:
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
            return ConfigurationError(f"PostgreSQL at {_where(server)} {sentence.format(server)}")
    return TransientError(
        f"PostgreSQL at {_where(server)} does not answer: check POSTGRES_HOST and POSTGRES_PORT, and that it runs"
    )


_TRANSIENT = re.compile("08|40001|40P01|53|55P03|57")
_CONFIGURATION = re.compile("28|3D|3F|42501|42P07")
_QUOTES_VALUES = re.compile("22|P0")
"""SQLSTATE classes: try again; change a setting or a right; the message quotes a value of the row."""


def explained(error: psycopg.Error, server: PostgresSettings) -> ObsError:
    """An error of ours for one of the server's, without its detail and context: they quote the row."""
    state = error.sqlstate or ""
    if not state and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return TransientError(f"the connection to PostgreSQL at {_where(server)} was lost")
    said = type(error).__name__ if not state or _QUOTES_VALUES.match(state) else error.diag.message_primary
    message = f"PostgreSQL at {_where(server)}: {said} ({state or 'no SQLSTATE'})"
    if _TRANSIENT.match(state):
        return TransientError(message)
    return ConfigurationError(message) if _CONFIGURATION.match(state) else PermanentError(message)
