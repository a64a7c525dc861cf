"""Receipts and landing reports as metadata for the UI: counts, names and sizes, never an event."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import dagster as dg

from obs_assets.components.chart import chart
from obs_assets.delivery.kinds import kind_of
from obs_assets.destinations.base import DestinationConfig
from obs_assets.events import LINEAGE, MEANINGS, PROMOTED, TYPES
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour
from obs_assets.receipts import ALREADY_THERE, COST, FIELDS, LEVELS_BY_MINUTE, Receipt
from obs_assets.sources.landing import LandingReport
from obs_assets.sources.log import Landed

markdown = dg.MetadataValue.md
"""Makes metadata that the UI shows as Markdown."""

_DRAWN = {FIELDS, LEVELS_BY_MINUTE, COST}
"""Details of a receipt that are too long for a table, or are shown in another form."""

_TAKES = {
    "replace": "replacing it: an hour takes the place of its last version",
    "append": "appending: new events of an hour are added",
}
"""`kinds.Kind.takes_hours_by` → sentence on the page of a destination."""


def columns(*carried: str) -> dg.TableSchema:
    """The columns of a frame, for the catalogue; ``carried`` names columns that later stages add."""
    names = [*LINEAGE, *PROMOTED, *carried, "event"]
    return dg.TableSchema(
        [
            dg.TableColumn(name, TYPES.get(name, "string"), description=MEANINGS[name])
            for name in names
        ]
    )


def destination_metadata(block: DestinationConfig) -> dict[str, Any]:
    """The metadata on the page of a destination."""
    kind = kind_of(block)
    page = kind.page(block)
    shown: dict[str, Any] = {"takes an hour by": _TAKES[kind.takes_hours_by]}
    if page.table:
        shown["dagster/table_name"] = page.table
    if page.columns:
        shown["dagster/column_schema"] = dg.TableSchema(
            [
                dg.TableColumn(column.name, column.type, description=column.meaning)
                for column in page.columns
            ]
        )
    return shown


def explorer_link(address: str, hour: Hour) -> dg.UrlMetadataValue:
    """The hour's events in the explorer of ``obs serve``.

    Args:
        address: address of the server.
        hour: the hour.
    """
    span = f"from={hour.start:%Y-%m-%dT%H:%M:%SZ}&to={hour.end:%Y-%m-%dT%H:%M:%SZ}"
    return dg.MetadataValue.url(f"{address}/?{span}")


def receipt_metadata(receipt: Receipt, seconds: float) -> dict[str, Any]:
    """The metadata of a materialization.

    Args:
        receipt: the receipt of the hour.
        seconds: time that the step took.
    """
    found: dict[str, Any] = {
        "dagster/partition_row_count": sum(_passed_on(receipt).values()),
        "receipt": markdown(_receipt_table(receipt)),
    }
    levels = receipt.details.get(LEVELS_BY_MINUTE)
    if levels is not None:
        found["events by minute"] = markdown(chart(_texts(levels)))
    cost = receipt.details.get(COST)
    # As numbers, not as a table: Dagster plots numbers over the hours.
    if cost:
        found["cost of the hour, USD"] = float(cost["USD"])
        found["events with a cost"] = int(cost["events with a cost"])
    rate = 0
    # A coarse clock measures 0 s for a fast step.
    if seconds:
        rate = round(receipt.taken / seconds)
    found |= {
        "taken": receipt.taken,
        **_figures(receipt),
        "landing generation": receipt.version.generation,
        "input version": str(receipt.version),
        "content hash": receipt.content_hash or "not computed at this stage",
        "bytes": receipt.size_bytes,
        "seconds": round(seconds, 3),
        "events per second": rate,
    }
    for title, counts in receipt.details.items():
        if counts and title not in _DRAWN:
            found[title] = markdown(_count_table(title, counts))
    return found


def _passed_on(receipt: Receipt) -> dict[str, int]:
    """Rows that a stage kept; for a destination, rows that it wrote and rows that it held already."""
    if receipt.stage in STAGES:
        return {"kept": receipt.kept}
    return {"written": receipt.kept, "unchanged": receipt.other.get(ALREADY_THERE, 0)}


def _figures(receipt: Receipt) -> dict[str, int]:
    """The rows that a step took, by outcome.

    ``held`` of a destination is written + unchanged, so that 0 written rows do not look like a loss.
    """
    passed_on = _passed_on(receipt)
    held = sum(passed_on.values())
    set_aside = receipt.taken - held - receipt.unaccounted
    if receipt.stage in STAGES:
        return {**passed_on, "set aside": set_aside}
    return {"held": held, **passed_on, "set aside": set_aside}


def _texts(counts: Mapping[str, int | float | str]) -> dict[str, str]:
    return {name: str(text) for name, text in counts.items()}


def landing_metadata(report: LandingReport, landed: Landed) -> dict[str, Any]:
    """The metadata of a landing pass, and of the dead letters that are open after it."""
    return {
        "files listed": report.files_listed,
        "files read": report.files_read,
        "bytes read": report.bytes_read,
        "events": sum(report.hours.values()),
        "dead letters": markdown(_count_table("reason", report.dead_letters)),
        "open dead letters": markdown(_letter_table(landed.letters)),
        "warnings": markdown(_count_table("warning", report.warnings)),
        "files with warnings": markdown(_files_warned(report)),
        "remarks": markdown(_count_table("remark", report.remarks)),
        **({"data folder": report.notice} if report.notice else {}),
    }


def _files_warned(report: LandingReport) -> str:
    """The first files of each warning, as a list in Markdown."""
    rows: list[str] = []
    for reason, paths in report.files_warned.items():
        quoted = ", ".join(f"`{path}`" for path in paths)
        rows.append(f"- {reason}: {quoted}")
    return "\n".join(rows) or "none"


def _letter_table(letters: Mapping[str, tuple[int, str]]) -> str:
    """Dead letters by reason, the largest number first.

    Args:
        letters: reason → (number of letters, time of the first letter).
    """
    if not letters:
        return "none"
    lines = ["| reason | letters | since (UTC) |", "|:--|--:|:--|"]
    ranked = sorted(letters.items(), key=lambda item: -item[1][0])
    for reason, (count, since) in ranked:
        first_seen = f"{datetime.fromisoformat(since):%Y-%m-%d %H:%M:%S}"
        lines.append(f"| `{reason}` | {count:,} | {first_seen} |")
    return "\n".join(lines)


def _receipt_table(receipt: Receipt) -> str:
    rows: dict[str, int] = {"taken": receipt.taken, **_figures(receipt), **receipt.other}
    # The table has these rows in more detail: the reason of each drop, and "unchanged".
    del rows["set aside"]
    rows.pop(ALREADY_THERE, None)
    verdict = "adds up"
    if receipt.unaccounted:
        verdict = f"{receipt.unaccounted:,} unaccounted for"
    if not receipt.version.generation:
        verdict += "; nothing has landed for this hour"
    return _count_table("receipt", rows) + f"\n\n{verdict}"


def _count_table(title: str, counts: Mapping[str, Any]) -> str:
    if not counts:
        return "none"
    lines = [f"| {title} | count |", "|:--|--:|"]
    for name, value in counts.items():
        text = str(value)
        if isinstance(value, int):
            text = f"{value:,}"
        lines.append(f"| {name} | {text} |")
    return "\n".join(lines)
