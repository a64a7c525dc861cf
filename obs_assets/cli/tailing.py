"""``obs tail``: print events as they are stored."""

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from obs_assets.cli.app import AsJson, Pipeline, app, hourly_pipeline
from obs_assets.cli.searching import print_events
from obs_assets.search.language import parse
from obs_assets.search.live import Ledger, new_rows
from obs_assets.search.questions import FoundEvent, last_day, list_events, snapshot
from obs_assets.storage.postgres import session

MOST_ROWS = 10_000
"""Events of a loaded hour that are printed, at most."""


@app.command()
def tail(  # noqa: PLR0917 (typer makes an option of each)
    query: Annotated[
        str, typer.Argument(help="As for `obs search`; '' prints every event.")
    ] = "",
    last: Annotated[
        int, typer.Option("--last", min=0, help="Stored events that are printed first.")
    ] = 10,
    every: Annotated[
        float, typer.Option("--every", min=0.1, help="Seconds between two looks.")
    ] = 2.0,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", min=0, show_default="until Ctrl-C", help="End after this time."
        ),
    ] = 0.0,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Print events as they are stored: the new rows of each hour that is loaded or replaced.

    Hours are loaded some minutes after their end, so that an event is printed when its hour is.
    """
    asked = parse(query)
    table = hourly_pipeline(pipeline_name).searched_table()
    tables = table.table.searched
    ledger = Ledger(tables)
    ends_at = time.monotonic() + seconds
    with session(table.server, application_name="obs tail", autocommit=True) as connection:
        with snapshot(connection):
            ledger.changes(connection)
            day = last_day(connection, tables.events)
            events: Sequence[FoundEvent] = ()
            if day and last:
                found = list_events(connection, tables.events, asked, day, limit=last)
                # The newest are found first, and printed last.
                events = found.events[::-1]
        print_events(events, as_json=as_json)
        while not seconds or time.monotonic() < ends_at:
            time.sleep(every)
            with snapshot(connection):
                for change in ledger.changes(connection):
                    if change.is_replaced:
                        # To standard error, so that standard output has nothing but events.
                        hour = f"{change.load.hour:%Y-%m-%d %H:00} UTC"
                        typer.echo(f"the hour {hour} was replaced", err=True)
                    events = new_rows(
                        connection, tables, asked, change, after=None, limit=MOST_ROWS
                    )
                    print_events(events, as_json=as_json)
