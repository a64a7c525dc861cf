"""Landing generations of stored hours: an hour that was replaced has another generation."""

from datetime import UTC, datetime

from obs_assets.search.questions import Span
from obs_assets.storage.postgres import Connection


def generations_of(connection: Connection, key: str, span: Span) -> dict[datetime, int]:
    """Start of an hour, UTC → its landing generation, for the stored hours of a range.

    Args:
        connection: may read ``obs.hour_loads``.
        key: name of the table in the ledger, for example ``public.events``.
        span: the range; an hour that overlaps it counts.
    """
    rows = connection.execute(
        """
        SELECT hour, generation FROM obs.hour_loads
        WHERE destination = %s AND hour > %s::timestamptz - interval '1 hour' AND hour < %s
        ORDER BY hour""",
        [key, span.start, span.end],
    )
    return {hour.astimezone(UTC): int(generation) for hour, generation in rows.fetchall()}
