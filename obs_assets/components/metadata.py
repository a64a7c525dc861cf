"""Receipts and reports as the UI shows them. Counts, names and sizes: never an event."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import dagster as dg

from obs_assets.components.chart import chart
from obs_assets.destinations.base import DestinationConfig
from obs_assets.destinations.postgres import PostgresConfig
from obs_assets.destinations.postgres.table import COLUMNS
from obs_assets.destinations.s3 import S3Config
from obs_assets.events import LINEAGE, PROMOTED
from obs_assets.receipts import COST, FIELDS, LEVELS_BY_MINUTE, Receipt
from obs_assets.sources.landing import LandingReport
from obs_assets.sources.log import Landed

_TYPES = {
    "event_time": "timestamp",
    "landed_at": "timestamp",
    "file_offset": "int",
    "duration_ms": "int",
    "cost_usd": "decimal",
    "weight": "float",
    "redactions": "map",
}
_DRAWN = {FIELDS, LEVELS_BY_MINUTE, COST}
"""Details that are too long for a table, or shown otherwise."""

_MEANINGS = {
    "row_uid": "identity of the row: where it came from (file and byte offset)",
    "event_time": "when it happened, UTC, microseconds",
    "file_id": "the file it was landed from",
    "file_offset": "byte offset in that file, decompressed",
    "landed_at": "when it was landed, UTC",
    "event_id": "id, event_id or _id: a label, never a key",
    "event_type": "type or event_type",
    "event_level": "level, severity, or status where it is a level; lower case, warn is warning",
    "source_name": "_source.name or source",
    "master_type": "master_type or master",
    "worker_type": "worker_type or worker",
    "worker_id": "worker_id",
    "trace_id": "trace_id",
    "session_id": "session_id",
    "status": "status",
    "error": "error or error_message, where it is one",
    "duration_ms": "duration_ms or duration, milliseconds",
    "cost_usd": "cost_usd, cost_estimate.total_cost_usd or cost, USD",
    "event_file": "path of that file below the events folder",
    "collector": "host and process that landed it, as JSON",
    "weight": "how many events this one stands for",
    "redactions": "redacted values by type",
    "event": "the whole event as JSON; every other column is computed from it",
}

_IN_POSTGRES = {
    "id": "63 bits of a hash of row_uid as a number, for programs that want one; row_uid tells rows apart",
    "event_type": "type or event_type, its first 500 characters; unknown where there is none",
    "event_level": "level, severity, or status where it is a level; lower case; info where there is none",
    "timestamp": "when it happened (event_time): the column that the table is partitioned by",
    "data": "the whole event, redacted, as jsonb; every other column is computed from it",
    "created_at": "when the row was written; a rebuilt hour that has not changed keeps it",
    "hour": "the start of its hour, UTC: WHERE hour = … is a partition of this asset",
}


def columns(*carried: str) -> dg.TableSchema:
    """The columns of a frame, for the catalogue."""
    return dg.TableSchema(
        [
            dg.TableColumn(name, _TYPES.get(name, "string"), description=_MEANINGS[name])
            for name in (*LINEAGE, *PROMOTED, *carried, "event")
        ]
    )


def table_columns() -> dg.TableSchema:
    """The columns of the table in PostgreSQL, for the catalogue."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                name, kind.split(" NOT NULL")[0].lower(), description=_IN_POSTGRES.get(name) or _MEANINGS[name]
            )
            for name, kind in COLUMNS.items()
        ]
    )


def line_columns() -> dg.TableSchema:
    """What a line of the archive holds beside the event's own fields, for the catalogue."""
    added = {
        "row_uid": ("string", _MEANINGS["row_uid"]),
        "weight": ("float", _MEANINGS["weight"]),
        "hour": ("string", "its hour, as Dagster's partition key"),
    }
    own = dg.TableColumn("…", "any", description="the event's own fields, redacted, as they were written")
    return dg.TableSchema(
        [own, *(dg.TableColumn(f"_obs.{name}", kind, description=text) for name, (kind, text) in added.items())]
    )


def destination_metadata(block: DestinationConfig) -> dict[str, Any]:
    """What an asset's page says of a destination."""
    match block:
        case PostgresConfig():
            name = f"{block.schema_name}.{block.table_name}"
            return {"dagster/column_schema": table_columns(), "dagster/table_name": name}
        case S3Config(format="jsonl"):
            return {"dagster/column_schema": line_columns()}
        case _:
            return {}


def receipt_metadata(receipt: Receipt, seconds: float) -> dict[str, Any]:
    """A receipt on a materialization."""
    levels, cost = receipt.details.get(LEVELS_BY_MINUTE), receipt.details.get(COST, {})
    return {
        "dagster/partition_row_count": receipt.kept,
        "receipt": dg.MetadataValue.md(_receipt_table(receipt)),
        **({} if levels is None else {"events by minute": dg.MetadataValue.md(chart(_texts(levels)))}),
        **(
            {"cost of the hour, USD": float(cost["USD"]), "events with a cost": int(cost["events with a cost"])}
            if cost
            else {}
        ),
        "taken": receipt.taken,
        "kept": receipt.kept,
        "set aside": sum(receipt.other.values()),
        "landing generation": receipt.version.generation,
        "input version": str(receipt.version),
        "content hash": receipt.content_hash or "not computed at this stage",
        "bytes": receipt.size_bytes,
        "seconds": round(seconds, 3),
        "events per second": round(receipt.taken / seconds) if seconds else 0,
        **{
            title: dg.MetadataValue.md(_count_table(title, counts))
            for title, counts in receipt.details.items()
            if counts and title not in _DRAWN
        },
    }


def _texts(counts: Mapping[str, int | float | str]) -> dict[str, str]:
    return {name: str(text) for name, text in counts.items()}


def landing_metadata(report: LandingReport, landed: Landed) -> dict[str, Any]:
    """A landing pass on the files' observation, and the dead letters that are open after it."""
    return {
        "files listed": report.files_listed,
        "files read": report.files_read,
        "bytes read": report.bytes_read,
        "events": sum(report.hours.values()),
        "dead letters": dg.MetadataValue.md(_count_table("reason", report.dead_letters)),
        "open dead letters": dg.MetadataValue.md(_letter_table(landed.letters)),
        "warnings": dg.MetadataValue.md(_count_table("warning", report.warnings)),
    }


def _letter_table(letters: Mapping[str, tuple[int, str]]) -> str:
    """By reason, most first."""
    rows = [
        f"| `{reason}` | {count:,} | {datetime.fromisoformat(since):%Y-%m-%d %H:%M:%S} |"
        for reason, (count, since) in sorted(letters.items(), key=lambda item: -item[1][0])
    ]
    return "\n".join(["| reason | letters | since (UTC) |", "|:--|--:|:--|", *rows]) if rows else "none"


def _receipt_table(receipt: Receipt) -> str:
    rows: Mapping[str, int] = {"taken": receipt.taken, "kept": receipt.kept, **receipt.other}
    verdict = "adds up" if receipt.unaccounted == 0 else f"{receipt.unaccounted:,} unaccounted for"
    if not receipt.version.generation:
        verdict += "; nothing has landed for this hour"
    return _count_table("receipt", rows) + f"\n\n{verdict}"


def _count_table(title: str, counts: Mapping[str, Any]) -> str:
    if not counts:
        return "none"
    lines = [
        f"| {name} | {value:,} |" if isinstance(value, int) else f"| {name} | {value} |"
        for name, value in counts.items()
    ]
    return "\n".join([f"| {title} | count |", "|:--|--:|", *lines])
