"""The outcome of the demonstration, as tables for the terminal."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from obs_assets.demo.compare import Receipts, counted
from obs_assets.demo.measure import Holdings
from obs_assets.demo.receiver import Received
from obs_assets.demo.samples import Planted
from obs_assets.receipts import Receipt
from obs_assets.sources.log import LandingPass

ROWS_SHOWN = 3
"""Rows of a query's result that are printed."""

CELL = 40
"""Largest number of characters in a cell of a query's result."""

WIDE = 110
"""Columns of a terminal from which the table of receipts gets wide gaps."""

TYPES = {
    "email": "email",
    "phone": "phone",
    "ssn": "SSN",
    "credit_card": "card",
    "ip_address": "IP",
    "password": "pass-\nword",
    "api_key": "API\nkey",
}
"""Type of redacted values → heading of its column."""


def print_landing(console: Console, landing: LandingPass, planted: Planted) -> None:
    """Print the numbers of landed events and dead letters."""
    events = sum(hour.rows for hour in landing.hours.values())
    console.print(
        f"  {events:,} events of {len(landing.hours)} hours landed from {len(landing.files)} files "
        f"({planted.untimed} without a timestamp: filed under the current hour); "
        f"{planted.unfinished} incomplete last line: it is read once it is complete",
        highlight=False,
    )
    reasons = sorted(landing.dead_letters.items())
    dead = ", ".join(f"{reason} {count}" for reason, count in reasons)
    total = sum(landing.dead_letters.values())
    console.print(f"  {total} dead letters: {dead}", highlight=False)


def print_receipts(console: Console, receipts: Receipts) -> None:
    """Print a row for each hour: events landed, dropped and redacted, events in each destination."""
    heads = [
        "landed",
        "dead",
        *TYPES.values(),
        "fil-\ntered",
        "sam-\npled\nout",
        "Post-\ngres",
        "S3",
        "alerts",
    ]
    # A narrow terminal would cut the last columns.
    gap = 1 if console.width < WIDE else 3
    table = _table("hour", *heads, gap=gap)
    totals = [0] * len(heads)
    for hour, of_hour in receipts.items():
        numbers = _numbers(of_hour)
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
        hour_of_day = hour.key[-5:]
        table.add_row(hour_of_day, *(f"{number:,}" for number in numbers))
    table.add_section()
    table.add_row("all", *(f"{total:,}" for total in totals), style="bold")
    first, last = min(receipts), max(receipts)
    console.print(
        f"\n[bold]Receipts[/] of {first} to {last} UTC: events, redacted values, written events"
    )
    console.print(table)


def _numbers(receipts: Mapping[str, Receipt]) -> list[int]:
    """The numbers of a row of the table, in the order of its columns."""
    found = counted(receipts)
    redacted = [found.redacted.get(name, 0) for name in TYPES]
    stores = [receipts[name].kept for name in ("postgres_events", "s3_archive")]
    return [
        found.landed,
        found.dead,
        *redacted,
        found.filtered,
        found.sampled_out,
        *stores,
        found.alerts,
    ]


def print_repetition(console: Console, before: Holdings, after: Holdings) -> None:
    """Print the content of the destinations after the first and the second run."""
    table = _table(
        "run", "rows in PostgreSQL", "content hash", "objects in S3", "webhook requests"
    )
    for name, holding in (("first", before), ("second", after)):
        table.add_row(
            name,
            f"{holding.rows:,}",
            holding.content[:12],
            f"{len(holding.objects)}",
            f"{holding.requests:,}",
        )
    console.print(table)


def print_answer(
    console: Console,
    query: str,
    columns: Sequence[str],
    answer: Sequence[Mapping[str, Any]],
) -> None:
    """Print a query, the first rows of its result, and their number."""
    # Not wrapped, so that a user can copy the query.
    console.print(f"\n[bold]sql>[/] {query};", highlight=False, markup=True, soft_wrap=True)
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 0, 0, 2),
    )
    for column in columns:
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for row in answer[:ROWS_SHOWN]:
        table.add_row(*(_cell(row[column]) for column in columns))
    console.print(table)
    console.print(f"[dim]{len(answer):,} rows[/]", highlight=False)


def _cell(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return str(value.isoformat(sep=" ", timespec="seconds"))
    if value is None:
        return ""
    text = " ".join(str(value).split())
    if len(text) > CELL:
        return f"{text[: CELL - 1]}…"
    return text


def print_objects(console: Console, holding: Holdings) -> None:
    """Print the keys and sizes of the archive's objects."""
    sizes = {
        key: size for key, (size, _) in holding.objects.items() if "/_manifests/" not in key
    }
    manifests = len(holding.objects) - len(sizes)
    console.print(
        f"\n[bold]S3[/]: {len(sizes)} objects and {manifests} manifests", highlight=False
    )
    for key, size in sizes.items():
        console.print(f"  {key}  {size:,} bytes", highlight=False, soft_wrap=True)


def print_alerts(console: Console, received: Sequence[Received]) -> None:
    """Print the number of alerts, and an alert as an example."""
    events: list[dict[str, Any]] = []
    for request in received:
        events += json.loads(request.body)["events"]
    logins = [event for event in events if event.get("type") == "login_failed"]
    # A login has personal values in its text, which show the masks.
    example = [*logins, *events][0]
    console.print(
        f"\n[bold]Alerts[/]: {len(events)} events in {len(received)} webhook requests, such as",
        highlight=False,
    )
    console.print(
        f"  {example.get('timestamp')} {example.get('type')}: {example.get('error')}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _table(
    first: str,
    *others: str,
    gap: int = 3,
) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 0, 0, gap - 1),
    )
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
