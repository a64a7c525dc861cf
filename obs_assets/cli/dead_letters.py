"""``obs dead-letters``: what could not be read, and reading it once more."""

import itertools
import json
from typing import Annotated

import typer
from rich.table import Table

from obs_assets.cli.app import AsJson, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.errors import PermanentError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline

dead_letters_app = typer.Typer(
    no_args_is_help=True, help="What could not be read, with file, offset and reason."
)
app.add_typer(dead_letters_app, name="dead-letters")

Reason = Annotated[str | None, typer.Option(help="Only those with this reason.")]
File = Annotated[str | None, typer.Option(help="Only those of this file, as list prints it.")]

SHOWN_BYTES = 1000


@dead_letters_app.command("list")
def list_dead_letters(pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Count the dead letters by file and reason. Those that a replay has landed are no longer among them."""
    rows = hourly_pipeline(pipeline_name).dead_letters()
    if as_json:
        names = ("file", "reason", "letters", "bytes", "first_seen")
        print_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    table = Table("file", "reason", "letters", "bytes", "first seen", box=None)
    for file, reason, letters, size, first_seen in rows:
        table.add_row(
            file, reason, f"{letters:,}", f"{size:,}", f"{first_seen:%Y-%m-%d %H:%M:%S}"
        )
    out.print(table if rows else "no dead letters")


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
    """Show dead letters, redacted as the pipeline redacts; what is no JSON only with --raw."""
    from obs_assets.sources.replay import open_letters

    hourly = hourly_pipeline(pipeline_name)
    wanted = (
        letter
        for letter in open_letters(hourly.log)
        if reason in {None, letter.reason} and file in {None, letter.event_file}
    )
    shown = [
        {
            "id": letter.id,
            "file": letter.event_file,
            "offset": letter.file_offset,
            "length": letter.length,
            "reason": letter.reason,
            "first_seen": letter.first_seen,
            "text": _as_it_is(letter.raw) if raw else _redacted(letter.raw, hourly),
        }
        for letter in itertools.islice(wanted, limit)
    ]
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
    """Read dead letters once more, with today's code and limits; what can be read is landed, exactly once."""
    report = hourly_pipeline(pipeline_name).replay(reason, file)
    left = {name: n for name, n in report.dead_letters.items() if n < 0}
    if as_json:
        print_json(
            {
                "landing_pass": report.number,
                "hours": report.hours,
                "dead_letters": report.dead_letters,
            }
        )
    elif report.number is None:
        typer.echo("none of them can be read")
    else:
        fewer = ", ".join(f"{name} {-n:,} fewer" for name, n in left.items())
        typer.echo(
            f"pass {report.number}: {sum(report.hours.values()):,} events of {len(report.hours)} hours; {fewer}"
        )


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
