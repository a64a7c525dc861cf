"""``obs redact``: rules tried on a file before they are deployed."""

import codecs
import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import typer

from obs_assets.cli.app import AsJson, Pipeline, app, fail, hourly_pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline

_BATCH_BYTES = 4 << 20
"""How much of the file is held at a time."""


@app.command()
def redact(
    file: Annotated[
        typer.FileBinaryRead,
        typer.Argument(help="A file of JSON lines, or - for standard input."),
    ],
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Print JSON lines redacted as the pipeline would; counts by type go to standard error."""
    counts: Counter[str] = Counter()
    separator = '{"events": ['
    for text, types in _redacted(file, hourly_pipeline(pipeline_name)):
        counts.update(types)
        if as_json:  # one after the other, and as they are: files may be large, and numbers keep all digits
            sys.stdout.write(separator + text)
            separator = ",\n"
        else:
            sys.stdout.write(text + "\n")
    if as_json:
        begin = "" if separator == ",\n" else separator
        typer.echo(f'{begin}], "redacted": {json.dumps(counts)}}}')
        return
    typer.echo(
        ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
        or "nothing to redact",
        err=True,
    )


def _redacted(
    file: typer.FileBinaryRead, hourly: HourlyPipeline
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each event of a file redacted, and the type of each value that was; up to the first line that cannot pass."""
    from obs_assets.transforms.redact import redact_texts

    key = hourly.settings.hash_key
    secret = key.get_secret_value().encode() if key else None
    read = 0
    while lines := file.readlines(_BATCH_BYTES):
        if not read:
            lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
        events: list[tuple[int, str]] = []
        for number, line in enumerate(lines, start=read + 1):
            if (text := _json(line)) is None:
                break
            if text:
                events.append((number, text))
        outcomes = redact_texts([text for _, text in events], hourly.config.redact, secret)
        for (place, event), outcome in zip(events, outcomes, strict=True):
            if outcome.failed:
                fail(
                    f"the redactor failed on line {place} of {file.name}: the pipeline would not let it pass",
                    1,
                )
            yield outcome.event or event, outcome.types
        if text is None:
            fail(f"line {number} of {file.name} is not JSON in UTF-8", 1)
        read += len(lines)


def _json(line: bytes) -> str | None:
    """A line's text, empty for a blank one; None unless it is JSON in UTF-8."""
    try:
        text = line.decode().strip()
        if text:
            json.loads(text)
    except (ValueError, RecursionError):
        return None
    return text
