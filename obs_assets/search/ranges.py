"""The range of time that a question asks about."""

from datetime import datetime, timedelta

from psycopg import sql

from obs_assets.errors import ConfigurationError
from obs_assets.search.moments import moment
from obs_assets.search.questions import EARLIEST, LATEST, Span, last_day
from obs_assets.storage.postgres import Connection

DEFAULT_LENGTH = timedelta(days=1)
"""Length of the range where its start is not named."""


def asked_span(
    connection: Connection,
    table: sql.Identifier,
    since: str,
    until: str,
    now: datetime,
) -> Span:
    """The range that is asked for; by default the last day that has events.

    Args:
        connection: in autocommit mode.
        table: the table of events.
        since: start as `moments.moment` reads it; empty: a day before the newest event, or before the end.
        until: end; empty: the newest event.
        now: the present moment, UTC.

    Raises:
        ConfigurationError: a text is no moment, or the start is not before the end.
    """
    if not (since and until):
        newest = last_day(connection, table) or Span(now - DEFAULT_LENGTH, now)
        end = newest.end
    if until:
        end = moment(until, now)
    start = moment(since, now) if since else min(newest.start, end - DEFAULT_LENGTH)
    start, end = max(start, EARLIEST), min(end, LATEST)
    if start >= end and not until:
        end = now  # no event is as new as the start: the answer is empty, and no error
    if start >= end:
        raise ConfigurationError(
            f"the start {start:%Y-%m-%dT%H:%M:%SZ} is not before the end {end:%Y-%m-%dT%H:%M:%SZ}"
        )
    return Span(start, end)
