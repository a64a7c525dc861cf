"""What a table needs once a day: leaves that expired are dropped, small old leaves are rolled up into larger ones.

No reader waits for either, and each goes on where a run that was killed ended.
"""

import time
from datetime import datetime, timedelta

from psycopg import sql

from obs_assets.destinations.postgres import leaves
from obs_assets.destinations.postgres.config import PostgresConfig
from obs_assets.destinations.postgres.leaves import Span
from obs_assets.destinations.postgres.table import EventTable, patiently
from obs_assets.hours import ONE_HOUR
from obs_assets.settings import PostgresSettings
from obs_assets.storage.postgres import Connection, begin, one, session

DOOMED = "obs_assets: expired, to be dropped"
"""The comment on a leaf that retention has begun to drop; a run that was killed is taken up where it ended."""


class Upkeep:
    """Keeps a table in shape.

    Args:
        table: which.
        config: what to keep of it.
        server: where it is.
        busy_after_s: how long to wait for others that hold what is needed.
    """

    def __init__(
        self,
        table: EventTable,
        config: PostgresConfig,
        server: PostgresSettings,
        *,
        busy_after_s: float,
    ) -> None:
        self._table = table
        self._config = config
        self._server = server
        self._busy_after_s = busy_after_s

    def run(self, now: datetime) -> list[str]:
        """Drop what has expired and roll up what is old; to be run daily. Harmless to repeat.

        Returns:
            what was done, a sentence for each leaf; nothing when there was nothing to do.
        """
        dropped = [f"Dropped {leaf}." for leaf in self.drop_expired(now)]
        return dropped + [f"Rolled up {leaf}." for leaf in self.roll_up(now)]

    def due(self, now: datetime) -> list[str]:
        """Names of the leaves that `run` would drop or make now; a look, nothing is changed."""
        name, days = self._config.table_name, self._config.retention_days
        with session(self._server) as connection:
            if not self._table.is_there(connection):
                return []
            spans = self._table.leaves(connection)
            begun = [doomed[0] for doomed in self._doomed(connection)]
            connection.rollback()
        expired = (
            leaves.expired(spans, now=now, retention_days=days) if days is not None else []
        )
        larger = leaves.roll_ups(spans, now=now, retention_days=days)
        return sorted({*begun, *(f"{name}{span.suffix}" for span in [*expired, *larger])})

    def drop_expired(self, now: datetime) -> list[str]:
        """Drop the leaves that ended ``retention_days`` before ``now``, and what ledger and statistics say of them.

        No reader waits for it. What an interrupted run has begun is ended by the next.

        Returns:
            the names of the leaves dropped.
        """
        dropped: list[str] = []
        if self._config.retention_days is None:
            return dropped
        with session(self._server) as connection:
            connection.autocommit = True
            # Other sessions' longer transactions are waited for; after this time the next run goes on.
            connection.execute("SET lock_timeout = '60s'")
            if not self._table.is_there(connection) or not self._is_alone(connection):
                return dropped
            expired = leaves.expired(
                self._table.leaves(connection),
                now=now,
                retention_days=self._config.retention_days,
            )
            for span in expired:
                doom = sql.SQL("COMMENT ON TABLE {} IS {}").format(
                    self._table.leaf(span.suffix), sql.Literal(DOOMED)
                )
                connection.execute(doom)
            for name, attached, pending in self._doomed(connection):
                leaf = sql.Identifier(self._config.schema_name, name)
                if attached:
                    how = sql.SQL("FINALIZE" if pending else "CONCURRENTLY")
                    connection.execute(
                        sql.SQL("ALTER TABLE {} DETACH PARTITION {} {}").format(
                            self._table.name, leaf, how
                        )
                    )
                self._drop(connection, name)
                dropped.append(name)
            self._forget_empty_hours(
                connection, until=now - timedelta(days=self._config.retention_days)
            )
        return dropped

    def _is_alone(self, connection: Connection) -> bool:
        """Whether no other session drops leaves of the table; holds it until this session ends."""
        name = f"{self._table.key} upkeep"
        return bool(
            one(connection, "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [name])[0]
        )

    def _doomed(self, connection: Connection) -> list[tuple[str, bool, bool]]:
        """Leaves that retention has marked: name, whether still attached, whether detaching has begun."""
        query = """
            SELECT relname, inhrelid IS NOT NULL, coalesce(inhdetachpending, false)
            FROM pg_class c LEFT JOIN pg_inherits ON inhrelid = c.oid
            WHERE relnamespace = to_regnamespace(quote_ident(%s)) AND relkind = 'r' AND starts_with(relname, %s)
                AND obj_description(c.oid, 'pg_class') = %s
            ORDER BY coalesce(inhdetachpending, false) DESC, relname"""
        parameters = [self._config.schema_name, f"{self._config.table_name}_", DOOMED]
        found = connection.execute(query, parameters).fetchall()
        return [
            row for row in found if leaves.span_of(row[0].removeprefix(self._config.table_name))
        ]

    def _drop(self, connection: Connection, name: str) -> None:
        span = leaves.span_of(name.removeprefix(self._config.table_name))
        if span is None:
            raise LookupError("not the name of a leaf")
        with connection.transaction():
            for table in ("hour_loads", "receipts"):
                connection.execute(
                    sql.SQL(
                        "DELETE FROM obs.{} WHERE destination = %s AND hour >= %s AND hour < %s"
                    ).format(sql.Identifier(table)),
                    [self._table.key, span.start, span.end],
                )
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE hour >= %s AND hour < %s").format(
                    self._table.statistics
                ),
                [span.start, span.end],
            )
            connection.execute(
                sql.SQL("DROP TABLE {}").format(sql.Identifier(self._config.schema_name, name))
            )

    def _forget_empty_hours(self, connection: Connection, until: datetime) -> None:
        """An hour without rows has no leaf to go with: its lines in the ledger go on their own."""
        forget = """
            WITH gone AS (
                DELETE FROM obs.hour_loads WHERE destination = %s AND rows = 0 AND hour <= %s RETURNING *)
            DELETE FROM obs.receipts USING gone
            WHERE receipts.destination = gone.destination AND receipts.hour = gone.hour"""
        connection.execute(forget, [self._table.key, until - ONE_HOUR])

    def roll_up(self, now: datetime) -> list[str]:
        """Make larger leaves of smaller ones that are old enough: days of hours, months of days.

        Readers see the same rows at every moment, those in older snapshots too. Loads of the leaves concerned are told
        that their hour is busy.

        Returns:
            the names of the leaves made; one that others keep busy is left for the next time.
        """
        with session(self._server) as connection:
            if not self._table.is_there(connection):
                return []
            due = leaves.roll_ups(
                self._table.leaves(connection),
                now=now,
                retention_days=self._config.retention_days,
            )
            connection.rollback()
        return [
            f"{self._config.table_name}{span.suffix}" for span in due if self._roll_up(span)
        ]

    def _roll_up(self, span: Span) -> bool:
        with session(self._server) as connection:
            lock_name = self._table.leaves_lock(span.start)
            query = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
            if not one(connection, query, [lock_name])[
                0
            ]:  # held by this session, over both transactions
                return False
            connection.commit()
            parts = [part for part in self._table.leaves(connection) if span.overlaps(part)]
            connection.rollback()
            self._merge_aside(connection, span, parts)
            if not self._wait_for_older_snapshots(connection):
                return False
            self._swap(connection, span, parts)
            return True

    def _merge_aside(self, connection: Connection, span: Span, parts: list[Span]) -> None:
        aside = self._table.leaf(f"{span.suffix}_new")
        with connection.transaction():
            begin(connection, lock_timeout_s=self._busy_after_s)
            connection.execute("SET LOCAL statement_timeout = 0")
            connection.execute(
                sql.SQL("DROP TABLE IF EXISTS {}").format(aside)
            )  # of a run that was killed
            self._table.create_aside(connection, aside, span)
            columns = self._table.stored_columns(connection)
            for part in parts:
                insert = sql.SQL(
                    "INSERT INTO {} ({}) SELECT {} FROM {} ORDER BY timestamp, row_uid"
                )
                connection.execute(
                    insert.format(aside, columns, columns, self._table.leaf(part.suffix))
                )
            self._table.index_aside(connection, aside)

    def _wait_for_older_snapshots(self, connection: Connection, patience_s: float = 60) -> bool:
        """Wait until no transaction is left that began before the merged leaf was committed: it would see none of it.

        As CREATE INDEX CONCURRENTLY does; False if that takes too long.
        """
        running = """
            SELECT l.virtualtransaction FROM pg_locks l JOIN pg_stat_activity a USING (pid)
            WHERE l.locktype = 'virtualxid' AND l.granted AND l.pid <> pg_backend_pid()
                AND a.datname = current_database()"""
        until = time.monotonic() + patience_s
        connection.autocommit = True
        try:
            older = set(connection.execute(running).fetchall())
            while older and time.monotonic() < until:
                time.sleep(0.1)
                older &= set(connection.execute(running).fetchall())
        finally:
            connection.autocommit = False
        return not older

    @patiently
    def _swap(self, connection: Connection, span: Span, parts: list[Span]) -> None:
        aside = self._table.leaf(f"{span.suffix}_new")
        with connection.transaction():
            begin(connection, lock_timeout_s=1)
            for part in parts:
                leaf = self._table.leaf(part.suffix)
                connection.execute(
                    sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(self._table.name, leaf)
                )
                connection.execute(sql.SQL("DROP TABLE {}").format(leaf))
            name = sql.Identifier(self._config.table_name + span.suffix)
            connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(aside, name))
            self._table.attach(connection, self._table.leaf(span.suffix), span)
