"""``obs dead-letters``: records that could not be read and events that could not be redacted, and trying them again."""

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.table import Table

from obs_assets.cli.app import AsJson, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.errors import MissingFrameError, PermanentError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.transforms.redact import REDACTOR_FAILED

dead_letters_app = typer.Typer(
    no_args_is_help=True,
    help="What could not be read or redacted, with file, offset and reason.",
)
app.add_typer(dead_letters_app, name="dead-letters")

Reason = Annotated[str | None, typer.Option(help="Only those with this reason.")]
File = Annotated[str | None, typer.Option(help="Only those of this file, as list prints it.")]

SHOWN_BYTES = 1000


@dead_letters_app.command("list")
def list_dead_letters(pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Count records that could not be read by file and reason, and events that could not be redacted by hour.

    Records that a replay has landed are no longer among them, nor hours that were built again without a failure.
    """
    hourly = hourly_pipeline(pipeline_name)
    rows = hourly.dead_letters()
    unredacted = hourly.unredacted_hours()
    if as_json:
        names = ("file", "reason", "letters", "bytes", "first_seen")
        unread = [dict(zip(names, row, strict=True)) for row in rows]
        hours = [
            {"hour": hour.key, "reason": REDACTOR_FAILED, "letters": letters}
            for hour, letters in unredacted.items()
        ]
        print_json([*unread, *hours])
        return
    table = Table("file", "reason", "letters", "bytes", "first seen", box=None)
    for file, reason, letters, size, first_seen in rows:
        table.add_row(
            file, reason, f"{letters:,}", f"{size:,}", f"{first_seen:%Y-%m-%d %H:%M:%S}"
        )
    if rows:
        out.print(table)
    if unredacted:
        table = Table("hour", "reason", "events", box=None)
        for hour, letters in unredacted.items():
            table.add_row(hour.key, REDACTOR_FAILED, f"{letters:,}")
        out.print(table)
    if not rows and not unredacted:
        out.print("no dead letters")


@dead_letters_app.command()
def show(
    reason: Reason = None,
    file: File = None,
    limit: Annotated[int, typer.Option(min=1, help="Show no more than so many.")] = 20,
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="Show the bytes as they are: they may be personal.")
    ] = False,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Show dead letters, redacted as the pipeline redacts; what is no JSON or cannot be redacted only with --raw."""
    hourly = hourly_pipeline(pipeline_name)
    letters = itertools.chain(_unread(hourly, raw=raw), _unredacted(hourly, raw=raw))
    wanted = (
        letter
        for letter in letters
        if reason in {None, letter["reason"]} and file in {None, letter["file"]}
    )
    shown = list(itertools.islice(wanted, limit))
    if as_json:
        print_json(shown)
        return
    for letter in shown:
        heading = "{file} at {offset:,}, {length:,} bytes, {reason}, first seen {first_seen:%Y-%m-%d %H:%M:%S}"
        typer.echo(
            f"{heading.format(**letter)}\n    {letter['text'] or '(cannot be redacted: --raw shows it)'}"
        )
    if not shown:
        typer.echo("no dead letters")


@dead_letters_app.command()
def replay(
    reason: Reason = None,
    file: File = None,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Read and redact dead letters once more, with today's code and limits.

    What can be read is landed, exactly once. Hours whose events can be redacted now are named: materialize them again.
    """
    hourly = hourly_pipeline(pipeline_name)
    report = hourly.replay(reason, file)
    left = {name: n for name, n in report.dead_letters.items() if n < 0}
    hours = (
        _to_build_again(hourly) if reason in {None, REDACTOR_FAILED} and file is None else {}
    )
    if as_json:
        landed = {
            "landing_pass": report.number,
            "hours": report.hours,
            "dead_letters": report.dead_letters,
        }
        print_json(
            {**landed, "to_build_again": {hour.key: events for hour, events in hours.items()}}
        )
        return
    for hour, events in hours.items():
        typer.echo(
            f"{events:,} more events of {hour} can be redacted now: dagster asset materialize "
            f"-m obs_assets.definitions --select '*' --partition {hour}"
        )
    if report.number is None:
        typer.echo("none of the records that could not be read can be read now")
    else:
        fewer = ", ".join(f"{name} {-n:,} fewer" for name, n in left.items())
        typer.echo(
            f"pass {report.number}: {sum(report.hours.values()):,} events of {len(report.hours)} hours; {fewer}"
        )


def _to_build_again(hourly: HourlyPipeline) -> dict[Hour, int]:
    """Hours whose redacted frame lacks events that can be redacted now, and how many events."""
    hours: dict[Hour, int] = {}
    for hour, failed in hourly.unredacted_hours().items():
        with contextlib.suppress(MissingFrameError):
            if (gained := failed - len(hourly.unredacted(hour))) > 0:
                hours[hour] = gained
    return hours


def _unread(hourly: HourlyPipeline, *, raw: bool) -> Iterator[dict[str, Any]]:
    """The records that could not be read, as `show` shows them."""
    from obs_assets.sources.replay import open_letters

    for letter in open_letters(hourly.log):
        yield {
            "id": letter.id,
            "file": letter.event_file,
            "offset": letter.file_offset,
            "length": letter.length,
            "reason": letter.reason,
            "first_seen": letter.first_seen,
            "text": _as_it_is(letter.raw) if raw else _redacted(letter.raw, hourly),
        }


def _unredacted(hourly: HourlyPipeline, *, raw: bool) -> Iterator[dict[str, Any]]:
    """The events on which the redactor fails, as `show` shows them."""
    for hour in hourly.unredacted_hours():
        try:
            events = hourly.unredacted(hour)
        except MissingFrameError as error:
            typer.echo(
                f"the events of {hour} that could not be redacted cannot be shown: {error}",
                err=True,
            )
            continue
        for event in events:
            content = event.event.encode(errors="surrogatepass")
            yield {
                "id": event.row_uid,
                "hour": hour.key,
                "file": event.event_file,
                "offset": event.file_offset,
                "length": len(content),
                "reason": event.reason,
                "first_seen": event.landed_at,
                "text": _as_it_is(content) if raw else None,
            }


def _as_it_is(content: bytes) -> str:
    return content[:SHOWN_BYTES].decode(errors="backslashreplace")


def _redacted(content: bytes, hourly: HourlyPipeline) -> str | None:
    """A letter that is JSON, redacted; None for any other: in a broken one nobody can tell a password by its key.

    None, too, for one that the redactor would not let pass.
    """
    from obs_assets.transforms.redact import redact_text

    try:
        value = json.loads(
            content, parse_constant=str
        )  # what is no number is why it is a letter
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    key = hourly.settings.hash_key
    secret = key.get_secret_value().encode() if key else None
    try:
        return redact_text(json.dumps(value), hourly.config.redact, secret)[0][:SHOWN_BYTES]
    except PermanentError:
        return None
