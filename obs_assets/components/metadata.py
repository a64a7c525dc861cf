"""Receipts and reports as the UI shows them. Counts, names and sizes: never an event."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import dagster as dg

from obs_assets.components.chart import chart
from obs_assets.delivery.kinds import kind_of
from obs_assets.destinations.base import DestinationConfig
from obs_assets.events import LINEAGE, MEANINGS, PROMOTED, TYPES
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.receipts import ALREADY_THERE, COST, FIELDS, LEVELS_BY_MINUTE, Receipt
from obs_assets.sources.landing import LandingReport
from obs_assets.sources.log import Landed

_DRAWN = {FIELDS, LEVELS_BY_MINUTE, COST}
"""Details that are too long for a table, or shown otherwise."""

_TAKES = {
    "replace": "replacing it: an hour takes the place of the one before",
    "append": "appending: what is new of an hour is added",
}


def columns(*carried: str) -> dg.TableSchema:
    """The columns of a frame, for the catalogue."""
    return dg.TableSchema(
        [
            dg.TableColumn(name, TYPES.get(name, "string"), description=MEANINGS[name])
            for name in (*LINEAGE, *PROMOTED, *carried, "event")
        ]
    )


def destination_metadata(block: DestinationConfig) -> dict[str, Any]:
    """What an asset's page says of a destination."""
    kind = kind_of(block)
    page = kind.page(block)
    shown: dict[str, Any] = {"takes an hour by": _TAKES[kind.takes_hours_by]}
    if page.table:
        shown["dagster/table_name"] = page.table
    if page.columns:
        columns_shown = [
            dg.TableColumn(column.name, column.type, description=column.meaning)
            for column in page.columns
        ]
        shown["dagster/column_schema"] = dg.TableSchema(columns_shown)
    return shown


def receipt_metadata(receipt: Receipt, seconds: float) -> dict[str, Any]:
    """A receipt on a materialization."""
    levels, cost = receipt.details.get(LEVELS_BY_MINUTE), receipt.details.get(COST, {})
    return {
        "dagster/partition_row_count": sum(_passed_on(receipt).values()),
        "receipt": dg.MetadataValue.md(_receipt_table(receipt)),
        **(
            {}
            if levels is None
            else {"events by minute": dg.MetadataValue.md(chart(_texts(levels)))}
        ),
        **(
            {
                "cost of the hour, USD": float(cost["USD"]),
                "events with a cost": int(cost["events with a cost"]),
            }
            if cost
            else {}
        ),
        "taken": receipt.taken,
        **_figures(receipt),
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


def _passed_on(receipt: Receipt) -> dict[str, int]:
    """Rows that a stage kept; of a destination those that it wrote, and those that it held already."""
    if receipt.stage in STAGES:
        return {"kept": receipt.kept}
    return {"written": receipt.kept, "unchanged": receipt.other.get(ALREADY_THERE, 0)}


def _figures(receipt: Receipt) -> dict[str, int]:
    """What became of the rows taken. A destination's ``held`` is written + unchanged: 0 written is no loss."""
    passed_on = _passed_on(receipt)
    held = sum(passed_on.values())
    total = {} if receipt.stage in STAGES else {"held": held}
    return {**total, **passed_on, "set aside": receipt.taken - held - receipt.unaccounted}


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
        "files with warnings": dg.MetadataValue.md(_files_warned(report)),
        "remarks": dg.MetadataValue.md(_count_table("remark", report.remarks)),
    }


def _files_warned(report: LandingReport) -> str:
    """The first files of each warning."""
    rows = [
        f"- {reason}: {', '.join(f'`{path}`' for path in paths)}"
        for reason, paths in report.files_warned.items()
    ]
    return "\n".join(rows) or "none"


def _letter_table(letters: Mapping[str, tuple[int, str]]) -> str:
    """By reason, most first."""
    rows = [
        f"| `{reason}` | {count:,} | {datetime.fromisoformat(since):%Y-%m-%d %H:%M:%S} |"
        for reason, (count, since) in sorted(letters.items(), key=lambda item: -item[1][0])
    ]
    return (
        "\n".join(["| reason | letters | since (UTC) |", "|:--|--:|:--|", *rows])
        if rows
        else "none"
    )


def _receipt_table(receipt: Receipt) -> str:
    dropped = {
        reason: count for reason, count in receipt.other.items() if reason != ALREADY_THERE
    }
    figures = {name: count for name, count in _figures(receipt).items() if name != "set aside"}
    rows: Mapping[str, int] = {"taken": receipt.taken, **figures, **dropped}
    verdict = (
        "adds up" if receipt.unaccounted == 0 else f"{receipt.unaccounted:,} unaccounted for"
    )
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
