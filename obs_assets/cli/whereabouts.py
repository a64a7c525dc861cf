"""``obs where``: say where an event is that was sent."""

from typing import Annotated, Any

import typer

from obs_assets.audit.whereabouts import Asked, Found, Whereabouts, whereabouts
from obs_assets.cli.app import AsJson, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.errors import ConfigurationError
from obs_assets.hours import Hour
from obs_assets.storage.postgres import session

STYLES = {"stored": "green", "dead": "red", "waiting": "yellow", "expired": "yellow"}
"""Colours of places on a terminal."""


@app.command()
def where(  # noqa: PLR0917 (typer makes an option of each)
    event: Annotated[
        str, typer.Argument(metavar="EVENT", help="Id of the event: its own.")
    ] = "",
    trace: Annotated[
        str, typer.Option("--trace", help="Every event of this trace instead.")
    ] = "",
    file: Annotated[
        str,
        typer.Option("--file", help="The record at --offset of this event file instead."),
    ] = "",
    offset: Annotated[
        int,
        typer.Option("--offset", min=0, help="A byte of the record, decompressed, from 0."),
    ] = 0,
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=0.1, help="Seconds after which the search ends."),
    ] = 30.0,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Say where an event is: stored, sampled out, filtered, dead, waiting, not landed or expired.

    The exit code is 1 if no such event is known.
    """
    if sum(map(bool, (event, trace, file))) != 1:
        raise ConfigurationError("name one of: the id of an event, --trace, or --file")
    hourly = hourly_pipeline(pipeline_name)
    server = hourly.searched_table().server
    with session(server, application_name="obs where", autocommit=True) as connection:
        asked = Asked(event, trace, file, offset)
        found = whereabouts(hourly, connection, asked, deadline_s=seconds)
    if as_json:
        print_json(_as_json(found))
    else:
        for place in found.events:
            style = STYLES.get(place.place, "")
            out.print(_line(place), style=style, highlight=False, markup=False)
    if not found.is_complete:
        typer.echo(
            "the time was over before all data was searched: give more --seconds", err=True
        )
    elif not found.events:
        typer.echo("no such event is known: it has not landed, or it has expired", err=True)
    if not found.events:
        raise typer.Exit(1)


def _line(event: Whereabouts) -> str:
    """Place, hour, file and public id, on a single line."""
    parts = [f"{event.text:<24}"]
    if event.hour:
        parts.append(event.hour.key)
    if event.file:
        parts.append(f"{event.file}:{event.offset}")
    if event.id:
        parts.append(event.id)
    return "  ".join(parts)


def _as_json(found: Found) -> dict[str, Any]:
    events = [
        {
            "place": event.place,
            "detail": event.detail,
            "hour": _key(event.hour),
            "id": event.id,
            "file": event.file,
            "offset": event.offset,
        }
        for event in found.events
    ]
    return {"events": events, "complete": found.is_complete}


def _key(hour: Hour | None) -> str | None:
    if hour is None:
        return None
    return hour.key
