"""The content of the destinations: the table, the bucket, the receiver of alerts."""

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
    "SELECT master_type, SUM(cost_usd) AS total_cost FROM events WHERE cost_usd IS NOT NULL "
    "GROUP BY master_type": ("master_type", "total_cost"),
    """SELECT * FROM events WHERE data @> '{"status": "failed"}'""": (
        "timestamp",
        "event_type",
        "error",
    ),
}
"""Example query → columns of its result that are printed."""

_CONTENT = """
SELECT md5(coalesce(string_agg(row_uid || md5(data::text), ',' ORDER BY row_uid), '')) FROM events"""
_ROWS = """
SELECT to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD-HH24:00'), count(*) FROM events
GROUP BY 1 ORDER BY 1"""
_TEXTS = "SELECT to_jsonb(events)::text FROM events"

_ARCHIVED = re.compile(r"/events-(\d{10})\.jsonl\.gz$")
"""End of an object's key, with its hour: ``/events-2025120410.jsonl.gz``."""


@dataclass(frozen=True)
class Holdings:
    """The content of the destinations.

    Attributes:
        rows_by_hour: partition key → number of rows in the table.
        content: a hash of all rows.
        objects: key → (size in bytes, ETag).
        lines_by_hour: partition key → number of events in the archive.
        requests: number of webhook requests, repetitions included.
        alert_events: number of events in the requests, without repetitions.
        delivered: all rows, objects and request bodies, as text.
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
        """Number of rows in the table."""
        return sum(self.rows_by_hour.values())


def holdings(machine: Settings, received: Sequence[Received]) -> Holdings:
    """Read the content of all destinations.

    Args:
        machine: the settings, with their servers filled in.
        received: the webhook requests.
    """
    with _postgres(machine.postgres) as connection:
        [(content,)] = connection.execute(_CONTENT).fetchall()
        rows = dict(connection.execute(_ROWS).fetchall())
        texts = [text for (text,) in connection.execute(_TEXTS).fetchall()]
    with _s3(machine.s3) as (client, bucket):
        objects = _list_objects(client, bucket)
        lines: dict[str, int] = {}
        for key in objects:
            text = _read_object(client, bucket, key)
            texts.append(text)
            # Manifests are searched for personal values too, but hold no events.
            if stamp := _ARCHIVED.search(key):
                lines[_hour(stamp[1])] = text.count("\n")
    # By id: a repetition is the same request again.
    bodies = {request.webhook_id: request.body.decode() for request in received}
    alert_events = sum(len(json.loads(body)["events"]) for body in bodies.values())
    delivered = "\n".join([*texts, *bodies.values()])
    return Holdings(
        rows,
        content,
        objects,
        lines,
        len(received),
        alert_events,
        delivered,
    )


def _list_objects(client: "S3Client", bucket: str) -> dict[str, tuple[int, str]]:
    """Key → (size in bytes, ETag)."""
    objects: dict[str, tuple[int, str]] = {}
    # A page holds at most 1,000 keys.
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            objects[item["Key"]] = (item["Size"], item["ETag"])
    return objects


def _read_object(client: "S3Client", bucket: str, key: str) -> str:
    """The decompressed text of an object."""
    data = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    if key.endswith(".gz"):
        data = gzip.decompress(data)
    return data.decode()


def _hour(stamp: str) -> str:
    """The partition key of a stamp: ``2025120410`` → ``2025-12-04-10:00``."""
    return Hour(datetime.strptime(stamp, "%Y%m%d%H").replace(tzinfo=UTC)).key


def redacted_text(hourly: HourlyPipeline, hours: Iterable[Hour]) -> str:
    """All columns of all redacted events, before the filter and the sampler."""
    with connect(hourly.store.temp_dir) as connection:
        rows: list[str] = []
        for hour in hours:
            frame = hourly.store.read_frame(connection, "redacted_events", hour)
            rows += map(str, frame.fetchall())
    return "\n".join(rows)


def ask(machine: Settings, query: str) -> list[dict[str, Any]]:
    """All rows of a query of `QUERIES`. A query without an order is sorted by its printed columns."""
    with (
        _postgres(machine.postgres) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        rows = cursor.execute(query.encode()).fetchall()
    if "ORDER BY" in query:
        return rows
    # The demonstration prints the same rows at every run.
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
