"""``obs redact``: rules tried on a file before they are deployed."""

import codecs
import json
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Annotated, NamedTuple

import typer

from obs_assets.cli.app import AsJson, Pipeline, app, fail, hourly_pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.sources.json_text import brackets

_BATCH_BYTES = 4 << 20
"""How much of the file is redacted at a time."""

_MOST_BYTES = 16 << 20
"""How far the end of an object on several lines is looked for."""

_MOST_NAMED = 20
"""Lines that cannot pass and are named; the others are counted."""

_NO_JSON = "is not JSON in UTF-8"
_NOT_REDACTED = (
    "holds an event on which the redactor failed: the pipeline would not let it pass"
)

_Line = tuple[int, bytes]
"""A line of the file with its number; the first is 1."""


class _Redacted(NamedTuple):
    """A JSON value of the file after redaction.

    Attributes:
        line: the number of its first line.
        text: on one line; empty if it cannot pass.
        types: of each value redacted.
        problem: why it cannot pass, as it stands behind the line's number; empty if it can.
    """

    line: int
    text: str = ""
    types: tuple[str, ...] = ()
    problem: str = ""


@app.command()
def redact(
    file: Annotated[
        typer.FileBinaryRead,
        typer.Argument(help="A file of JSON lines, or - for standard input."),
    ],
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Print JSON events redacted as the pipeline would; counts by type go to standard error.

    An object may stand on several lines; it is printed on one. Lines that cannot pass are named on standard error and
    not printed; the others are, and the exit code is 1.
    """
    counts: Counter[str] = Counter()
    failed: list[int] = []
    separator = '{"events": ['
    for event in _redacted(file, hourly_pipeline(pipeline_name)):
        if event.problem:
            failed.append(event.line)
            if len(failed) <= _MOST_NAMED:
                typer.echo(f"obs: line {event.line} of {file.name} {event.problem}", err=True)
            continue
        counts.update(event.types)
        if as_json:  # one after the other, and as they are: files may be large, and numbers keep all digits
            sys.stdout.write(separator + event.text)
            separator = ",\n"
        else:
            sys.stdout.write(event.text + "\n")
    if as_json:
        begin = "" if separator == ",\n" else separator
        typer.echo(
            f'{begin}], "redacted": {json.dumps(counts)}, "failed_lines": {json.dumps(failed)}}}'
        )
    else:
        found = ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
        typer.echo(found or "nothing to redact", err=True)
    if failed:
        others = len(failed) - _MOST_NAMED
        more = f", {others:,} of them not named above" if others > 0 else ""
        fail(f"{len(failed):,} of the file's records cannot pass{more}", 1)


def _redacted(file: typer.FileBinaryRead, hourly: HourlyPipeline) -> Iterator[_Redacted]:
    """Each JSON value of a file redacted, in order."""
    from obs_assets.transforms.redact import redact_texts

    key = hourly.settings.hash_key
    secret = key.get_secret_value().encode() if key else None
    for batch in _batches(_texts(file)):
        outcomes = redact_texts(
            [text for _, text in batch if text is not None], hourly.config.redact, secret
        )
        for line, text in batch:
            if text is None:
                yield _Redacted(line, problem=_NO_JSON)
                continue
            outcome = next(outcomes)
            if outcome.failed:
                yield _Redacted(line, problem=_NOT_REDACTED)
            else:
                yield _Redacted(line, outcome.event or text, outcome.types)


def _batches(texts: Iterable[tuple[int, str | None]]) -> Iterator[list[tuple[int, str | None]]]:
    batch: list[tuple[int, str | None]] = []
    size = 0
    for line, text in texts:
        batch.append((line, text))
        size += len(text or "")
        if size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _texts(file: typer.FileBinaryRead) -> Iterator[tuple[int, str | None]]:
    """Each JSON value of a file with the number of its first line; None for a line that belongs to none."""
    unread = enumerate(file, start=1)
    again: deque[_Line] = deque()  # lines after one that opens an object and never closes it

    def next_line() -> _Line | None:
        return again.popleft() if again else next(unread, None)

    while line := next_line():
        number, content = line
        if number == 1:
            content = content.removeprefix(codecs.BOM_UTF8)
        text = _json(content)
        if text is None and (depth := _opened(content)) > 0:
            following: list[_Line] = []
            size = len(content)
            while depth > 0 and size < _MOST_BYTES and (more := next_line()):
                following.append(more)
                size += len(more[1])
                depth += _opened(more[1])
            text = _json(
                b"".join(part.strip() for part in (content, *(part for _, part in following)))
            )
            if text is None:
                again.extendleft(reversed(following))
        if text != "":
            yield number, text


def _opened(line: bytes) -> int:
    """How many more brackets a line opens than it closes."""
    depth = 0
    for _, depth in brackets(line, 0, len(line)):  # noqa: B007 - the last depth is wanted
        pass
    return depth


def _json(line: bytes) -> str | None:
    """A line's text, empty for a blank one; None unless it is JSON in UTF-8."""
    try:
        text = line.decode().strip()
        if text:
            json.loads(text)
    except (ValueError, RecursionError):
        return None
    return text
