"""Frames and offers made of a few events, for tests of what takes them."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from obs_assets import events
from obs_assets.destinations.base import Offer
from obs_assets.events import Frame
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import InputVersion

HOUR = parse_hour("2025-12-04-10:00")
FILE_ID = "6f1c" * 8


def frame_of(
    connection: duckdb.DuckDBPyConnection,
    told: Sequence[dict[str, Any] | str],
    hour: Hour = HOUR,
    weight: float = 1.0,
) -> Frame:
    """A frame as the stages hand it on, with ``weight``.

    Args:
        connection: what computes it.
        told: each event as a dict, or as its JSON text. An event without a ``timestamp`` happens some seconds into
            the hour: as many as there are events before it.
        hour: of the events without a timestamp.
        weight: of each event.
    """
    texts = [
        event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
        for event in told
    ]
    times = [
        _time_of(event, hour.start + timedelta(seconds=offset))
        for offset, event in enumerate(told)
    ]
    size, file_id = (
        len(texts),
        FILE_ID[: -len(hour.stamp)] + hour.stamp,
    )  # an hour a file: no two hours share a row
    table = pa.table(
        {
            "line": pa.array(texts, pa.large_string()),
            "event_time": pa.array(times, pa.timestamp("us", "UTC")),
            "row_uid": events.row_uids([file_id], np.zeros(size, np.int32), np.arange(size)),
            "file_id": pa.array([file_id] * size, pa.string()),
            "file_offset": pa.array(range(size), pa.int64()),
            "landed_at": pa.array([hour.end] * size, pa.timestamp("us", "UTC")),
            "weight": pa.array([weight] * size, pa.float64()),
        }
    )
    landed = connection.from_arrow(table).project("*, line AS event")
    return events.with_columns(landed, "weight").order("event_time, row_uid")


def offer_of(
    frame: Frame, hour: Hour = HOUR, generation: int = 1, run_id: str = "run-1", **others: Any
) -> Offer:
    """A frame as it is offered to a destination; ``others`` are further fields of the offer."""
    rows, content_hash = frame.aggregate(f"count(*), {events.CONTENT_HASH}").fetchall()[0]
    version = InputVersion(generation, "config", "code")
    return Offer(frame, hour, version, rows, content_hash, run_id, **others)


def _time_of(event: dict[str, Any] | str, otherwise: datetime) -> datetime:
    if isinstance(event, dict) and "timestamp" in event:
        return datetime.fromisoformat(event["timestamp"])
    return otherwise
