"""``obs redact``: rules tried on a file before they are deployed."""

import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import typer

from obs_assets.cli.app import AsJson, Pipeline, app, fail, hourly_pipeline
from obs_assets.hourly import HourlyPipeline

_BATCH_CHARACTERS = 4 << 20
"""How much of the file is held at a time."""


@app.command()
def redact(
    file: Annotated[typer.FileText, typer.Argument(help="A file of JSON lines, or - for standard input.")],
    pipeline_name: Pipeline = "pipeline",
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
    typer.echo(", ".join(f"{name} {count:,}" for name, count in counts.most_common()) or "nothing to redact", err=True)


def _redacted(file: typer.FileText, hourly: HourlyPipeline) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each event of a file redacted, and the type of each value that was; up to the first line that cannot pass."""
    from obs_assets.transforms.redact import redact_texts

    key = hourly.settings.hash_key
    secret = key.get_secret_value().encode() if key else None
    read = 0
    while lines := file.readlines(_BATCH_CHARACTERS):
        events = [(number, line.strip()) for number, line in enumerate(lines, start=read + 1) if line.strip()]
        sound = list(itertools.takewhile(lambda event: _is_json(event[1]), events))
        outcomes = redact_texts([text for _, text in sound], hourly.config.redact, secret)
        for (number, text), outcome in zip(sound, outcomes, strict=True):
            if outcome.failed:
                fail(f"the redactor failed on line {number} of {file.name}: the pipeline would not let it pass", 1)
            yield outcome.event or text, outcome.types
        if len(sound) < len(events):
            fail(f"line {events[len(sound)][0]} of {file.name} is not JSON", 1)
        read += len(lines)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
