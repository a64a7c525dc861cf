"""What was delivered, asked of those who took it: the table, the bucket, the receiver of alerts."""

import contextlib
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from obs_assets.demo.receiver import Received
from obs_assets.demo.steps import StepFailedError
from obs_assets.destinations import postgres
from obs_assets.destinations.s3 import S3Config
from obs_assets.destinations.s3.bucket import client_of
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.settings import PostgresSettings, S3Settings, Settings
from obs_assets.storage.engine import connect

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

QUERIES: Mapping[str, tuple[str, ...]] = {
    "SELECT * FROM events WHERE event_level = 'error' AND timestamp > NOW() - INTERVAL '24 hours' "
    "ORDER BY timestamp DESC": ("timestamp", "event_type", "master_type", "error"),
    "SELECT master_type, SUM(cost_usd) AS total_cost FROM events WHERE cost_usd IS NOT NULL GROUP BY master_type": (
        "master_type",
        "total_cost",
    ),
    """SELECT * FROM events WHERE data @> '{"status": "failed"}'""": (
        "timestamp",
        "event_type",
        "error",
    ),
}
"""Questions, each with the columns of its answer that are shown."""

_CONTENT = "SELECT md5(coalesce(string_agg(row_uid || md5(data::text), ',' ORDER BY row_uid), '')) FROM events"
_ROWS = "SELECT to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD-HH24:00'), count(*) FROM events GROUP BY 1 ORDER BY 1"


_ARCHIVED = re.compile(r"/events-(\d{10})\.jsonl\.gz$")
"""The end of an object's key, with its hour."""


@dataclass(frozen=True)
class Holdings:
    """What the destinations hold.

    Attributes:
        rows_by_hour: partition key → rows of the table.
        content: a hash over all rows.
        objects: key → (bytes, the store's name for this version of it).
        lines_by_hour: partition key → events in the archive.
        requests: webhook requests received, repetitions included.
        alert_events: events in them, each request counted once.
        delivered: everything that was delivered, as text.
    """

    rows_by_hour: Mapping[str, int]
    content: str
    objects: Mapping[str, tuple[int, str]]
    lines_by_hour: Mapping[str, int]
    requests: int
    alert_events: int
    delivered: str = field(repr=False, compare=False)

    @property
    def rows(self) -> int:
        """Of the table."""
        return sum(self.rows_by_hour.values())


def holdings(machine: Settings, received: Sequence[Received]) -> Holdings:
    """Look at everything that was delivered.

    Args:
        machine: with its servers filled in.
        received: the webhook requests.
    """
    with _postgres(machine.postgres) as connection:
        [(content,)] = connection.execute(_CONTENT).fetchall()
        rows = dict(connection.execute(_ROWS).fetchall())
        texts = [
            text
            for (text,) in connection.execute(
                "SELECT to_jsonb(events)::text FROM events"
            ).fetchall()
        ]
    with _s3(machine.s3) as (client, bucket):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        objects = {
            item["Key"]: (item["Size"], item["ETag"])
            for page in pages
            for item in page.get("Contents", [])
        }
        lines: dict[str, int] = {}
        for key in objects:
            data = client.get_object(Bucket=bucket, Key=key)["Body"].read()
            text = (gzip.decompress(data) if key.endswith(".gz") else data).decode()
            texts.append(text)
            if stamp := _ARCHIVED.search(key):
                lines[_hour(stamp[1])] = text.count("\n")
    bodies = {request.webhook_id: request.body.decode() for request in received}
    alert_events = sum(len(json.loads(body)["events"]) for body in bodies.values())
    delivered = "\n".join([*texts, *bodies.values()])
    return Holdings(rows, content, objects, lines, len(received), alert_events, delivered)


def _hour(stamp: str) -> str:
    """The partition key of an hour in an object's name."""
    return Hour(datetime.strptime(stamp, "%Y%m%d%H").replace(tzinfo=UTC)).key


def redacted_text(hourly: HourlyPipeline, hours: Iterable[Hour]) -> str:
    """Every column of every event after redaction, those included that are then filtered or sampled out."""
    with connect(hourly.store.temp_dir) as connection:
        frames = [
            hourly.store.read_frame(connection, "redacted_events", hour) for hour in hours
        ]
        return "\n".join(str(row) for frame in frames for row in frame.fetchall())


def ask(machine: Settings, query: str) -> list[dict[str, Any]]:
    """All rows of a query's answer, sorted by the columns that are shown where the query leaves the order open."""
    with (
        _postgres(machine.postgres) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        rows = cursor.execute(query.encode()).fetchall()
    if "ORDER BY" in query:
        return rows
    return sorted(rows, key=lambda row: [str(row[column]) for column in QUERIES[query]])


@contextlib.contextmanager
def _postgres(settings: PostgresSettings | None) -> Iterator[psycopg.Connection[Any]]:
    assert settings, "servers are filled in"  # noqa: S101
    try:
        with postgres.connect(settings) as connection:
            yield connection
    except psycopg.Error as error:
        raise StepFailedError(
            f"PostgreSQL did not answer: {str(error).splitlines()[0]}"
        ) from None


@contextlib.contextmanager
def _s3(settings: S3Settings | None) -> "Iterator[tuple[S3Client, str]]":
    from botocore.exceptions import BotoCoreError, ClientError

    assert settings, "servers are filled in"  # noqa: S101
    client = client_of(S3Config(), settings)
    try:
        with contextlib.closing(client):
            yield client, settings.bucket
    except (BotoCoreError, ClientError) as error:
        raise StepFailedError(f"the S3 server did not answer: {error}") from None
