"""``obs search``: find stored events."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from obs_assets.audit.archive_search import ArchiveFound, search_archive
from obs_assets.cli.app import AsJson, Pipeline, app, hourly_pipeline, out
from obs_assets.search.language import Query, parse
from obs_assets.search.questions import (
    Found,
    FoundEvent,
    Order,
    Position,
    list_events,
)
from obs_assets.search.ranges import asked_span
from obs_assets.search.rows import SEARCHED_KEYS, likely_names
from obs_assets.search.selection import Selection
from obs_assets.storage.postgres import session

SUMMARY_CHARACTERS = 160
"""Characters of an event's message in a line of the list."""

STYLES = {"error": "red", "fatal": "red", "critical": "red", "warning": "yellow"}
"""Colours of levels on a terminal."""


@app.command()
def search(  # noqa: PLR0917 (typer makes an option of each)
    query: Annotated[
        str,
        typer.Argument(
            help="For example 'level:error -type:heartbeat', 'duration_ms:>500 timeout', "
            "'usage.model:gpt*'; '' finds every event."
        ),
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="TIME",
            show_default="a day before the newest event",
            help="Start of the range: 2025-12-04T10:00:00Z, 2025-12-04 or now-6h.",
        ),
    ] = "",
    until: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="TIME",
            show_default="the newest event",
            help="End of the range; an event at this moment is not in it.",
        ),
    ] = "",
    limit: Annotated[
        int,
        typer.Option("--limit", min=1, max=10_000, help="Events that are printed, at most."),
    ] = 50,
    oldest: Annotated[
        bool, typer.Option("--oldest", help="Oldest events first; by default newest first.")
    ] = False,
    after: Annotated[
        str,
        typer.Option("--after", metavar="ID", help="Go on behind the event of this id."),
    ] = "",
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=0.1, help="Seconds after which the search ends."),
    ] = 30.0,
    archive_mb: Annotated[
        int,
        typer.Option(
            "--archive-mb",
            min=0,
            show_default="the archive is not searched",
            help="Also search hours that retention dropped, in at most so many megabytes of the archive.",
        ),
    ] = 0,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Find stored events: a line for each event, then the range that was searched."""
    asked = parse(query)
    behind = None
    if after:
        behind = Position.of_id(after)
    order: Order = "newest"
    if oldest:
        order = "oldest"
    hourly = hourly_pipeline(pipeline_name)
    table = hourly.searched_table()
    with session(table.server, application_name="obs search", autocommit=True) as connection:
        span = asked_span(connection, table.table.name, since, until, datetime.now(UTC))
        found = list_events(
            connection,
            table.table.name,
            asked,
            span,
            order=order,
            limit=limit,
            after=behind,
            deadline_s=seconds,
        )
        archived = None
        if archive_mb:
            archived = search_archive(
                hourly,
                connection,
                Selection(table.table.searched, asked, span),
                limit=limit,
                budget_bytes=archive_mb * 1_000_000,
                deadline_s=seconds,
            )
    print_events(found.events, as_json=as_json)
    # To standard error, so that standard output has nothing but events.
    typer.echo(_summary(found, asked), err=True)
    if archived:
        print_events(archived.events, as_json=as_json)
        typer.echo(_of_archive(archived), err=True)


def print_events(events: Sequence[FoundEvent], *, as_json: bool) -> None:
    """Print events: a line for each, or a JSON object."""
    for event in events:
        if as_json:
            typer.echo(event.to_json())
        else:
            out.print(_line(event), highlight=False)


def _of_archive(found: ArchiveFound) -> str:
    """What was read of the archive, and what was not."""
    text = (
        f"archive: rows {len(found.events):,}, hours {len(found.hours):,}, "
        f"{found.bytes_read / 1e6:,.1f} of at most {found.budget_bytes / 1e6:,.0f} MB"
    )
    if found.left:
        text += f"; {len(found.left):,} hours until {found.left[0]} were not read"
    return text


def _line(event: FoundEvent) -> Text:
    """Time, level, type, source and message of an event, on a single line."""
    level = event.event_level or "-"
    # `[:-3]` leaves milliseconds.
    time = event.timestamp.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    line = Text(f"{time}  ")
    line.append(f"{level:<8}", STYLES.get(level, ""))
    source = event.master_type or event.source_name or ""
    line.append(f"  {event.event_type}  {source}  {_message(event)}".rstrip())
    line.append(f"  {event.id}", "dim")
    return line


def _message(event: FoundEvent) -> str:
    """The event's message or error, on a single line."""
    data = json.loads(event.data)
    texts = [event.error, *(data.get(key) for key in SEARCHED_KEYS)]
    message = next((text for text in texts if isinstance(text, str) and text), "")
    # A message of many lines would break the list of a line for each event.
    line = " ".join(message.split())
    if len(line) > SUMMARY_CHARACTERS:
        line = f"{line[:SUMMARY_CHARACTERS]}…"
    return line


def _summary(found: Found, query: Query) -> str:
    """How many events were found, in which range, and how to go on."""
    rows = len(found.events)
    start, end = found.searched.start, found.searched.end
    lines = [
        f"rows {rows:,}, events that they stand for {found.estimated_events:,.0f}, "
        f"{found.seconds:.1f} s",
        f"searched {start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC",
    ]
    if not rows and found.is_complete:
        lines += [
            f"{field!r} is no column; did you mean {near!r}?"
            for field, near in likely_names(query).items()
        ]
    if not found.is_complete:
        lines.append(
            "the time was over before the range was searched: go on with --after, "
            "or give more --seconds"
        )
    if found.next:
        lines.append(f"more: --after {found.next.id}")
    return "\n".join(lines)
