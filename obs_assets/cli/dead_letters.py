"""``obs dead-letters``: list, show and replay dead letters.

Dead letters are records that could not be read, and events that could not be redacted.
"""

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.table import Table

from obs_assets.cli.app import AsJson, Pipeline, app, counted, hourly_pipeline, out, print_json
from obs_assets.errors import MissingFrameError, PermanentError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.transforms.redact import REDACTOR_FAILED

dead_letters_app = typer.Typer(
    no_args_is_help=True,
    help="Records that could not be read or redacted, with file, offset and reason.",
)
app.add_typer(dead_letters_app, name="dead-letters")

Reason = Annotated[str | None, typer.Option(help="Only dead letters with this reason.")]
File = Annotated[
    str | None, typer.Option(help="Only dead letters of this file, as `list` prints it.")
]

SHOWN = 1000
"""Largest number of bytes (``--raw``) or characters (redacted) of a dead letter that are shown."""

_HEADING = "{file} at {offset:,}, {length:,} bytes, {reason}, first seen {first_seen:%Y-%m-%d %H:%M:%S}"


@dead_letters_app.command("list")
def list_dead_letters(pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Count dead letters: unreadable records by file and reason, unredacted events by hour.

    Records that a replay has landed do not count, nor hours that were built again without a failure.
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
        hour_table = Table("hour", "reason", "events", box=None)
        for hour, letters in unredacted.items():
            hour_table.add_row(hour.key, REDACTOR_FAILED, f"{letters:,}")
        out.print(hour_table)
    if not rows and not unredacted:
        out.print("no dead letters")


@dead_letters_app.command()
def show(
    reason: Reason = None,
    file: File = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most N.")] = 20,
    *,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Show the bytes unredacted: they can be personal data."),
    ] = False,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Show dead letters, redacted as the pipeline redacts.

    Text that is not JSON or cannot be redacted is shown only with --raw.
    """
    hourly = hourly_pipeline(pipeline_name)
    letters = itertools.chain(
        _unreadable_records(hourly, raw=raw), _unredacted_events(hourly, raw=raw)
    )
    # A generator: with --limit, the letters after the last shown letter are not read and redacted.
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
        text = letter["text"] or "(cannot be redacted: --raw shows it)"
        typer.echo(f"{_HEADING.format(**letter)}\n    {text}")
    if not shown:
        typer.echo("no dead letters")


@dead_letters_app.command()
def replay(
    reason: Reason = None,
    file: File = None,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Read and redact dead letters again, with the present code and limits.

    If a record can now be read, it lands exactly once. If events of an hour can now be redacted, the hour is
    printed: materialize it again.
    """
    hourly = hourly_pipeline(pipeline_name)
    report = hourly.replay(reason, file)
    hours: dict[Hour, int] = {}
    # An event that could not be redacted belongs to an hour, not to a file.
    if reason in {None, REDACTOR_FAILED} and file is None:
        hours = _to_build_again(hourly)
    if as_json:
        print_json(
            {
                "landing_pass": report.number,
                "hours": report.hours,
                "dead_letters": report.dead_letters,
                "to_build_again": {hour.key: events for hour, events in hours.items()},
            }
        )
        return
    for hour, events in hours.items():
        typer.echo(
            f"{events:,} more events of {hour} can be redacted now: dagster asset materialize "
            f"-m obs_assets.definitions --select '*' --partition {hour}"
        )
    if report.number is None:
        typer.echo("none of the unreadable records can be read now")
    else:
        # A negative number: letters of this reason that the replay has landed.
        changes = report.dead_letters.items()
        fewer = ", ".join(f"{name} {-n:,} fewer" for name, n in changes if n < 0)
        events = sum(report.hours.values())
        found = f"{counted(events, 'event')} of {counted(len(report.hours), 'hour')}"
        typer.echo(f"pass {report.number}: {found}; {fewer}")


def _to_build_again(hourly: HourlyPipeline) -> dict[Hour, int]:
    """Hour → number of events that are missing in its redacted frame and can be redacted now."""
    hours: dict[Hour, int] = {}
    for hour, failed in hourly.unredacted_hours().items():
        # Without its enriched frame, an hour cannot be redacted again.
        with contextlib.suppress(MissingFrameError):
            gained = failed - len(hourly.unredacted(hour))
            if gained > 0:
                hours[hour] = gained
    return hours


def _unreadable_records(hourly: HourlyPipeline, *, raw: bool) -> Iterator[dict[str, Any]]:
    """The records that could not be read, as `show` prints them."""
    from obs_assets.sources.replay import open_letters

    for letter in open_letters(hourly.log):
        if raw:
            text: str | None = _bytes_text(letter.raw)
        else:
            text = _redacted(letter.raw, hourly)
        yield {
            "id": letter.id,
            "file": letter.event_file,
            "offset": letter.file_offset,
            "length": letter.length,
            "reason": letter.reason,
            "first_seen": letter.first_seen,
            "text": text,
        }


def _unredacted_events(hourly: HourlyPipeline, *, raw: bool) -> Iterator[dict[str, Any]]:
    """The events on which the redactor fails, as `show` prints them."""
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
            # Half a surrogate pair, which `encode` alone refuses, is shown too.
            content = event.event.encode(errors="surrogatepass")
            yield {
                "id": event.row_uid,
                "hour": hour.key,
                "file": event.event_file,
                "offset": event.file_offset,
                "length": len(content),
                "reason": event.reason,
                "first_seen": event.landed_at,
                "text": _bytes_text(content) if raw else None,
            }


def _bytes_text(content: bytes) -> str:
    return content[:SHOWN].decode(errors="backslashreplace")


def _redacted(content: bytes, hourly: HourlyPipeline) -> str | None:
    """The redacted text of a record that is a JSON object, else None.

    In other text, a password cannot be recognized by its key. None also if the redactor fails.
    """
    from obs_assets.transforms.redact import redact_text

    try:
        # NaN and Infinity, a frequent reason for dead letters, are kept as text.
        value = json.loads(content, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    key = hourly.settings.hash_key
    secret = key.get_secret_value().encode() if key else None
    try:
        text, _ = redact_text(json.dumps(value), hourly.config.redact, secret)
    except PermanentError:
        return None
    return text[:SHOWN]
