"""The table of events, its statistics and its view of receipts: columns, indexes and migrations."""

from collections.abc import Mapping
from datetime import datetime
from typing import LiteralString

import tenacity
from psycopg import errors, sql

from obs_assets.destinations.base import Column, Page
from obs_assets.destinations.postgres.config import PostgresConfig
from obs_assets.destinations.postgres.leaves import Span, span_of
from obs_assets.destinations.postgres.view import view_migration, view_name
from obs_assets.errors import ConfigurationError
from obs_assets.events import MEANINGS
from obs_assets.search.figures import FIGURES
from obs_assets.search.selection import Tables
from obs_assets.storage.postgres import (
    LEDGER,
    SCHEMA_LOCK,
    Connection,
    Migration,
    lock,
    migrate,
    one,
)

# Short waits for a lock let readers pass. A long wait would block each reader that comes after it.
patiently = tenacity.retry(
    retry=tenacity.retry_if_exception_type(errors.LockNotAvailable),
    wait=tenacity.wait_random(0.1, 1.0),
    stop=tenacity.stop_after_attempt(10),
    reraise=True,
)

COLUMNS: dict[LiteralString, LiteralString] = {
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
"""Columns of the event, in types that accept each event, then the columns of this package."""

_OWN_MEANINGS = {
    "id": "63 bits of a hash of row_uid as a number, for programs that need a number; "
    "row_uid identifies a row",
    "event_type": "type or event_type, its first 500 characters; unknown where there is none",
    "event_level": "level, severity and other names and scales, or a status that is a level; NULL without one",
    "timestamp": "time of the event (event_time); the table is partitioned by this column",
    "data": "the whole event, redacted, as jsonb; every other column is computed from it",
    "created_at": "time at which the row was written; a rebuilt hour that is the same keeps it",
    "hour": "start of the event's hour, UTC: WHERE hour = … is a partition of this asset",
}
"""Meanings of the columns whose content differs from the frame's column, for the catalogue."""

# An hour is deleted by its timestamps. The constraint keeps out rows that this would not delete.
_OF_ITS_HOUR: LiteralString = """
CONSTRAINT timestamp_in_hour CHECK (timestamp >= hour AND timestamp < hour + interval '1 hour')"""

INDEXES: dict[LiteralString, LiteralString] = {
    "timestamp": "(timestamp DESC)",
    "event_type": "(event_type, timestamp DESC)",
    "event_level": "(event_level, timestamp DESC)",
    "error": "(timestamp DESC) WHERE error IS NOT NULL",
    "trace": "(trace_id) WHERE trace_id IS NOT NULL",
    "cost": "(timestamp DESC) INCLUDE (master_type, cost_usd) WHERE cost_usd IS NOT NULL",
    "data_gin": "USING gin (data jsonb_path_ops)",
}
"""Name → definition of the indexes ``idx_<table>_<name>``, for the usual questions.

The index of costs holds the cost too, so that a sum reads no event.
"""

_KINDS: dict[LiteralString, LiteralString] = {
    name: figure.kind for name, figure in FIGURES.items()
}

STATISTICS: dict[LiteralString, LiteralString] = {
    "hour": "TIMESTAMPTZ NOT NULL",
    "event_type": "TEXT",
    "event_level": "TEXT",
    "master_type": "TEXT",
    **_KINDS,
}
"""Columns of ``<table>_hourly``: an hour's rows by type, level and master."""

WORKERS: dict[LiteralString, LiteralString] = {
    "hour": "TIMESTAMPTZ NOT NULL",
    "worker_id": "TEXT",
    **_KINDS,
}
"""Columns of ``<table>_hourly_workers``: an hour's rows by worker.

In a table of its own: a row for each worker, type, level and master would be hundreds an hour.
"""

_FORM = """
SELECT c.relkind::text, pg_get_partkeydef(c.oid), array_agg(a.attname::text)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid = to_regclass(%s) GROUP BY c.oid, c.relkind"""

IDENTITY_IS_INHERITED = 170000
"""The first version of PostgreSQL in which a leaf has the identity columns of its parent."""

_IDENTITIES = """
SELECT attname::text, pg_get_serial_sequence(attrelid::regclass::text, attname)
FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attidentity <> '' AND NOT attisdropped"""

_HAS_MIGRATIONS = "SELECT to_regclass('obs.migrations') IS NOT NULL"

_LEDGER_TABLES = ("obs.hour_loads", "obs.receipts", "obs.totals")

_OWNER = """
SELECT pg_get_userbyid(relowner)::text, pg_has_role(relowner, 'USAGE')
FROM pg_class WHERE oid = to_regclass(%s)"""

_STORED_COLUMNS = """
SELECT attname::text FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND attgenerated = '' AND NOT attisdropped ORDER BY attnum"""

# Bits of tgtype: 1 for each row, 4 on INSERT.
_HAS_ROW_TRIGGERS = """
SELECT EXISTS (
    SELECT FROM pg_trigger
    WHERE tgrelid = to_regclass(%s) AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 5 = 5)"""

_RECEIPTS = """
CREATE VIEW {} AS
SELECT hour, destination, stage, taken, kept, set_aside, generation, config_hash, code_version,
    run_id, loaded_at
FROM obs.receipts JOIN obs.hour_loads USING (destination, hour) ORDER BY hour, destination, position"""

# Readers see the new table without another `obs postgres init`.
_SAME_READERS = """
DO $do$ DECLARE reader text; BEGIN
    FOR reader IN
        SELECT DISTINCT grantee::regrole::text
        FROM pg_class, aclexplode(relacl) WHERE oid = to_regclass({from_name}) AND privilege_type = 'SELECT'
            AND grantee <> 0 AND grantee <> relowner
    LOOP EXECUTE 'GRANT SELECT ON ' || {to_name} || ' TO ' || reader; END LOOP;
END $do$"""


class EventTable:
    """The table of a configuration.

    Attributes:
        key: name of the table in the ledger, for example ``public.events``.
        name: quoted name of the table.
        statistics: quoted name of the table of statistics by type, level and master.
        workers: quoted name of the table of statistics by worker.
        receipts: quoted name of the view of receipts.
        view: quoted name of the view under the names of a mapping; None without a mapping.
        absent: message for a table that does not exist or is outdated.
    """

    def __init__(self, config: PostgresConfig) -> None:
        self._config = config
        self.key = f"{config.schema_name}.{config.table_name}"
        self.name = sql.Identifier(config.schema_name, config.table_name)
        self.statistics = sql.Identifier(config.schema_name, f"{config.table_name}_hourly")
        self.workers = sql.Identifier(config.schema_name, f"{config.table_name}_hourly_workers")
        self.receipts = sql.Identifier(config.schema_name, "receipts")
        self.view: sql.Identifier | None = None
        if config.mapping != "none":
            name = view_name(config.table_name, config.mapping)
            self.view = sql.Identifier(config.schema_name, name)
        self.absent = (
            f"{self.key} or its ledger does not exist, or is of an older version: "
            "run `obs postgres init`"
        )

    @property
    def searched(self) -> Tables:
        """The tables, as the questions of `obs_assets.search` name them."""
        return Tables(self.name, self.statistics, self.workers, self.key)

    def leaf(self, suffix: str) -> sql.Identifier:
        """Quoted name of a leaf, for example of suffix ``_d20251204``."""
        return sql.Identifier(self._config.schema_name, self._config.table_name + suffix)

    def is_there(self, connection: Connection) -> bool:
        """Whether the table exists.

        Raises:
            ConfigurationError: the table was made by another program.
        """
        name = self.name.as_string(connection)
        found = connection.execute(_FORM, [name]).fetchone()
        if found is None:
            return False
        _, partition_key, columns = found
        if partition_key != 'RANGE ("timestamp")' or COLUMNS.keys() - set(columns):
            raise ConfigurationError(
                f"{self.key} is not partitioned by range of timestamp, or lacks columns: it was "
                "made by something else and is left alone. Choose another table_name, or move it "
                "out of the way with its indexes: "
                f"CREATE SCHEMA old; ALTER TABLE {name} SET SCHEMA old"
            )
        return True

    def is_current(self, connection: Connection) -> bool:
        """Whether table and ledger exist, in the version of this program."""
        if not self.is_there(connection):
            return False
        return self._is_recorded(connection) and not self._lacks_tables(connection)

    def _is_recorded(self, connection: Connection) -> bool:
        """Whether ``obs.migrations`` has each migration of table, ledger and view."""
        if not one(connection, _HAS_MIGRATIONS)[0]:
            return False
        query = """
            SELECT count(*) FILTER (WHERE subject = %s) >= %s
                AND count(*) FILTER (WHERE subject = 'ledger') >= %s
                AND count(*) FILTER (WHERE subject = %s) >= %s
            FROM obs.migrations"""
        parameters = [
            self._subject,
            len(self._migrations()),
            len(LEDGER),
            self._view_subject,
            len(self._view_migrations()),
        ]
        return bool(one(connection, query, parameters)[0])

    def migrate(self, connection: Connection) -> list[str]:
        """Bring table and ledger to the version of this program, in the open transaction.

        A table that was dropped by hand is made again.

        Returns:
            descriptions of the steps, a sentence each.
        """
        if self._is_recorded(connection) and self._lacks_tables(connection):
            # Each migration leaves alone whatever is there, so all of them can run again.
            connection.execute(
                "DELETE FROM obs.migrations WHERE subject = 'ledger' OR subject = %s",
                [self._subject],
            )
        done = migrate(connection, "ledger", LEDGER)
        if not self.is_there(connection):
            # Another process may be making the table: wait for it, then look again.
            lock(connection, SCHEMA_LOCK)
            if not self.is_there(connection):
                # Its views were dropped with it.
                connection.execute(
                    "DELETE FROM obs.migrations WHERE subject = %s OR starts_with(subject, %s)",
                    [self._subject, f"view {self.key}_"],
                )
        there = self.is_there(connection)
        done += migrate(
            connection,
            self._subject,
            self._migrations(),
            start=int(there),
        )
        return done + migrate(connection, self._view_subject, self._view_migrations())

    def _lacks_tables(self, connection: Connection) -> bool:
        """Whether a table beside the table of events is missing, for example because it was dropped by hand."""
        beside = [self.statistics.as_string(connection), self.workers.as_string(connection)]
        query = (
            "SELECT count(*) FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NULL"
        )
        return bool(one(connection, query, [[*beside, *_LEDGER_TABLES]])[0])

    def refuse_others(self, connection: Connection) -> None:
        """Raise unless the user of the session owns the table: only its owner can make leaves.

        Raises:
            ConfigurationError: another user owns the table.
        """
        name = self.name.as_string(connection)
        row = connection.execute(_OWNER, [name]).fetchone()
        if row and not row[1]:
            user = connection.info.user
            raise ConfigurationError(
                f"{self.key} belongs to {row[0]}, and user {user} does not act for it: "
                f'ALTER TABLE {name} OWNER TO "{user}", or GRANT "{row[0]}" TO "{user}"'
            )

    def leaves(self, connection: Connection) -> list[Span]:
        """Spans of the table's leaves, in the order of time."""
        query = """
            SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid
            WHERE inhparent = to_regclass(%s) AND NOT inhdetachpending"""
        names = connection.execute(query, [self.name.as_string(connection)]).fetchall()
        found = (span_of(name.removeprefix(self._config.table_name)) for (name,) in names)
        return sorted(span for span in found if span)

    def create_aside(
        self,
        connection: Connection,
        aside: sql.Identifier,
        span: Span,
    ) -> None:
        """Make a table that `attach` turns into a leaf; until then, readers do not see its rows.

        The parent may have columns that a user added: generated, identity, or with a default.
        """
        # Not UNLOGGED: after a crash of the server such a leaf would be empty.
        like = (
            "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE "
            "INCLUDING COMPRESSION"
        )
        # With this constraint, ATTACH PARTITION need not scan the rows.
        within = "CONSTRAINT within_leaf CHECK (timestamp >= {start} AND timestamp < {end})"
        words = {
            "aside": aside,
            "table": self.name,
            "start": sql.Literal(span.start),
            "end": sql.Literal(span.end),
        }
        create = sql.SQL(f"CREATE TABLE {{aside}} (LIKE {{table}} {like}, {within})")
        connection.execute(create.format(**words))
        number = sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET DEFAULT nextval({}::regclass)")
        for name, sequence in self._identities(connection):
            column = sql.Identifier(name)
            connection.execute(
                number.format(
                    aside,
                    column,
                    sql.Literal(sequence),
                )
            )

    def _identities(self, connection: Connection) -> list[tuple[str, str]]:
        """Identity columns of the table, with their sequences. A table has none before it is attached."""
        return connection.execute(_IDENTITIES, [self.name.as_string(connection)]).fetchall()

    def stored_columns(self, connection: Connection) -> sql.Composed:
        """The columns that can be copied between leaves, added columns included.

        The server computes the other columns.
        """
        rows = connection.execute(_STORED_COLUMNS, [self.name.as_string(connection)]).fetchall()
        return sql.SQL(", ").join(sql.Identifier(name) for (name,) in rows)

    def has_row_triggers(self, connection: Connection) -> bool:
        """Whether a user's trigger fires for each inserted row; it fires in attached leaves only."""
        return bool(one(connection, _HAS_ROW_TRIGGERS, [self.name.as_string(connection)])[0])

    def index_aside(self, connection: Connection, aside: sql.Identifier) -> None:
        """Make the indexes of a table that is filled."""
        # With 256 MB a GIN index is sorted once; with the server's default of 64 MB, many times.
        connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
        for definition in INDEXES.values():
            connection.execute(sql.SQL(f"CREATE INDEX ON {{}} {definition}").format(aside))
        connection.execute(sql.SQL("ANALYZE {}").format(aside))

    def attach(
        self,
        connection: Connection,
        leaf: sql.Identifier,
        span: Span,
    ) -> None:
        """Turn a table into a leaf. Unlike ``PARTITION OF``, this blocks no reader."""
        if connection.info.server_version >= IDENTITY_IS_INHERITED:
            # The default of `create_aside` would conflict with the inherited identity.
            for column, _ in self._identities(connection):
                drop = sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP DEFAULT")
                connection.execute(drop.format(leaf, sql.Identifier(column)))
        bounds = {"start": sql.Literal(span.start), "end": sql.Literal(span.end)}
        attach = sql.SQL(
            "ALTER TABLE {table} ATTACH PARTITION {leaf} FOR VALUES FROM ({start}) TO ({end})"
        )
        connection.execute(
            attach.format(
                table=self.name,
                leaf=leaf,
                **bounds,
            )
        )
        connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT within_leaf").format(leaf))

    def leaves_lock(self, moment: datetime) -> str:
        """Name of the lock on the set of leaves of a month: loads share it, a roll-up takes it alone."""
        return f"{self.key} leaves {moment:%Y-%m}"

    @property
    def _subject(self) -> str:
        return f"table {self.key}"

    @property
    def _view_subject(self) -> str:
        return f"view {self.key}_{self._config.mapping}"

    def _view_migrations(self) -> list[Migration]:
        if self.view is None:
            return []
        name = self._view_subject.removeprefix("view ")
        return [view_migration(self.name, self.view, self._config.mapping, name)]

    def _migrations(self) -> list[Migration]:
        return [
            Migration(
                f"Make the table {self.key}, partitioned by timestamp, with its {len(INDEXES)} "
                "indexes.",
                sql.SQL("; ").join(
                    [
                        self._create_schema(),
                        self._create_table(),
                        *self._create_indexes(),
                    ]
                ),
            ),
            Migration(
                f"Make {self.key}_hourly, statistics kept by each load, and the view "
                f"{self._config.schema_name}.receipts, unless something of that name is there.",
                sql.SQL("; ").join([*self._create_statistics(), self._create_receipts()]),
            ),
            Migration(
                f"Index the traces and costs of {self.key}.",
                sql.SQL("; ").join([self._create_index("trace"), self._create_index("cost")]),
            ),
            Migration(
                f"Add times and counts to {self.key}_hourly, make {self.key}_hourly_workers, and "
                "count the hours that are stored.",
                sql.SQL("; ").join(self._extend_statistics()),
            ),
        ]

    def _create_schema(self) -> sql.Composed:
        # CREATE … IF NOT EXISTS needs the right to create even where there is nothing to do.
        name = sql.Identifier(self._config.schema_name)
        found = sql.SQL("to_regnamespace({})").format(_text(name))
        return _unless_there(found, sql.SQL("CREATE SCHEMA {}").format(name))

    def _create_table(self) -> sql.Composed:
        columns = [sql.SQL(f"{name} {kind}") for name, kind in COLUMNS.items()]
        body = sql.SQL(", ").join([*columns, sql.SQL(_OF_ITS_HOUR)])
        create = sql.SQL("CREATE TABLE {} ({}) PARTITION BY RANGE (timestamp)")
        return create.format(self.name, body)

    def _create_indexes(self) -> list[sql.Composed]:
        return [self._create_index(name) for name in INDEXES]

    def _create_index(self, name: LiteralString) -> sql.Composed:
        index = sql.Identifier(f"idx_{self._config.table_name}_{name}")
        create = sql.SQL(f"CREATE INDEX IF NOT EXISTS {{}} ON {{}} {INDEXES[name]}")
        return create.format(index, self.name)

    def _create_statistics(self) -> list[sql.Composed]:
        return self._create_hourly(self.statistics, STATISTICS, "hourly")

    def _create_hourly(
        self,
        table: sql.Identifier,
        columns: Mapping[LiteralString, LiteralString],
        index: str,
    ) -> list[sql.Composed]:
        """A table of statistics, with an index of its hours."""
        body = sql.SQL(", ").join(sql.SQL(f"{name} {kind}") for name, kind in columns.items())
        # No primary key: types and masters may be longer than an index entry.
        create_table = sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})")
        create_index = sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} (hour)")
        name = sql.Identifier(f"idx_{self._config.table_name}_{index}")
        return [create_table.format(table, body), create_index.format(name, table)]

    def _extend_statistics(self) -> list[sql.Composed]:
        """Add the columns that statistics lack, and count the stored hours again."""
        # Loads wait until the commit; readers wait only from ALTER TABLE on, when all is counted.
        keep_out = sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(self.statistics)
        add = [
            sql.SQL(f"ADD COLUMN IF NOT EXISTS {name} {kind}") for name, kind in _KINDS.items()
        ]
        alter = sql.SQL("ALTER TABLE {} {}").format(self.statistics, sql.SQL(", ").join(add))
        counted = sql.Identifier("pg_temp", "counted_hours")
        empty = sql.SQL("DELETE FROM {}")
        readers = sql.SQL(_SAME_READERS).format(
            from_name=_text(self.statistics), to_name=_text(self.workers)
        )
        return [
            keep_out,
            *self._create_hourly(self.workers, WORKERS, "workers"),
            readers,
            self._count_hours(
                counted, STATISTICS, sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS")
            ),
            # The table of events may have been dropped by hand, and this table left.
            empty.format(self.workers),
            self._count_hours(self.workers, WORKERS, sql.SQL("INSERT INTO {}")),
            alter,
            empty.format(self.statistics),
            self._move(counted),
        ]

    def _move(self, counted: sql.Identifier) -> sql.Composed:
        # The columns of an older table are in another order.
        names = sql.SQL(", ").join(map(sql.Identifier, STATISTICS))
        insert = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}")
        return insert.format(self.statistics, names, names, counted)

    def _count_hours(
        self,
        table: sql.Identifier,
        columns: Mapping[LiteralString, LiteralString],
        into: sql.SQL,
    ) -> sql.Composed:
        """Count the rows of all hours into a table of statistics."""
        keys = [name for name in columns if name not in FIGURES]
        forms = [*keys, *(f"{figure.of_rows} AS {name}" for name, figure in FIGURES.items())]
        select = sql.SQL(f" SELECT {', '.join(forms)} FROM {{}} GROUP BY {', '.join(keys)}")
        return into.format(table) + select.format(self.name)

    def _create_receipts(self) -> sql.Composed:
        return _unless_there(
            sql.SQL("to_regclass({})").format(_text(self.receipts)),
            sql.SQL(_RECEIPTS).format(self.receipts),
        )


def _text(name: sql.Identifier) -> sql.Literal:
    """A quoted name as a text, for functions that take the name of an object."""
    return sql.Literal(name.as_string(None))


def _unless_there(found: sql.Composed, create: sql.Composed) -> sql.Composed:
    """SQL that creates an object unless the expression ``found`` finds it."""
    return sql.SQL("DO $do$ BEGIN IF {} IS NULL THEN {}; END IF; END $do$").format(
        found, create
    )


def table_page(config: PostgresConfig) -> Page:
    """The table and its columns, for the catalogue."""
    columns = []
    for name, kind in COLUMNS.items():
        meaning = _OWN_MEANINGS.get(name) or MEANINGS[name]
        columns.append(
            Column(
                name,
                kind.split(" NOT NULL")[0].lower(),
                meaning,
            )
        )
    return Page(f"{config.schema_name}.{config.table_name}", tuple(columns))
