"""``obs redact``: try redaction rules on a file before they are deployed."""

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
from obs_assets.sources.unpack import COMPRESSIONS, DamagedError, is_encoding, layers

_BATCH_BYTES = 4 << 20
"""Bytes of the file that are redacted at a time."""

_MAX_OBJECT_BYTES = 16 << 20
"""Largest size of a JSON object on several lines, in bytes."""

_PEEKED = 8
"""First bytes of the file, which show how it is packed."""

_MAX_NAMED = 20
"""Largest number of failed lines that are named; further ones are only counted."""

_NO_JSON = "is not JSON in UTF-8"
_NOT_REDACTED = (
    "holds an event on which the redactor failed: the pipeline would not let it pass"
)

_Line = tuple[int, bytes]
"""Number of a line of the file, from 1, and its bytes."""

_Value = tuple[int, str | None]
"""Number of the first line of a JSON value, and its text; None if the line is not JSON."""


class _Redacted(NamedTuple):
    """A JSON value of the file after redaction.

    Attributes:
        line: number of its first line, from 1.
        text: its redacted text on a single line; "" if it cannot pass.
        types: type of each redacted value, for example ``email``.
        problem: why it cannot pass, as the end of a sentence; "" if it can.
    """

    line: int
    text: str = ""
    types: tuple[str, ...] = ()
    problem: str = ""


@app.command()
def redact(
    file: Annotated[
        typer.FileBinaryRead,
        typer.Argument(help="A file of JSON lines; - is standard input."),
    ],
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Print JSON events redacted as the pipeline redacts them; counts by type go to standard error.

    The file may be compressed (.gz, .zst) or UTF-16. An object can be on several lines; it is printed on a single
    line. A line that is not JSON, or on which the redactor fails, is not printed: standard error names it, and the
    exit code is 1.
    """
    counts: Counter[str] = Counter()
    failed: list[int] = []
    separator = '{"events": ['
    for event in _redacted(file, hourly_pipeline(pipeline_name)):
        if event.problem:
            failed.append(event.line)
            if len(failed) <= _MAX_NAMED:
                typer.echo(f"obs: line {event.line} of {file.name} {event.problem}", err=True)
            continue
        counts.update(event.types)
        if as_json:
            # Each event is written as text as soon as it is redacted: files can be large, and
            # numbers keep all their digits.
            sys.stdout.write(separator + event.text)
            separator = ",\n"
        else:
            sys.stdout.write(event.text + "\n")
    if as_json:
        begin = separator
        if separator == ",\n":
            # An event was written, and the opening bracket with it.
            begin = ""
        summary = f'"redacted": {json.dumps(counts)}, "failed_lines": {json.dumps(failed)}'
        typer.echo(f"{begin}], {summary}}}")
    else:
        found = ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
        typer.echo(found or "nothing to redact", err=True)
    if failed:
        others = len(failed) - _MAX_NAMED
        more = ""
        if others > 0:
            more = f", {others:,} of them not named above"
        fail(f"{len(failed):,} of the file's records cannot pass{more}", 1)


def _redacted(file: typer.FileBinaryRead, hourly: HourlyPipeline) -> Iterator[_Redacted]:
    """The redacted JSON values of a file, in order."""
    from obs_assets.transforms.redact import redact_texts

    key = hourly.settings.hash_key
    secret = key.get_secret_value().encode() if key else None
    for batch in _batches(_texts(file)):
        texts = [text for _, text in batch if text is not None]
        outcomes = redact_texts(texts, hourly.config.redact, secret)
        for line, text in batch:
            if text is None:
                yield _Redacted(line, problem=_NO_JSON)
                continue
            outcome = next(outcomes)
            if outcome.failed:
                yield _Redacted(line, problem=_NOT_REDACTED)
            else:
                yield _Redacted(line, outcome.event or text, outcome.types)


def _batches(values: Iterable[_Value]) -> Iterator[list[_Value]]:
    """The values in lists of about `_BATCH_BYTES`."""
    batch: list[_Value] = []
    size = 0  # characters
    for line, text in values:
        batch.append((line, text))
        size += len(text or "")
        if size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _texts(file: typer.FileBinaryRead) -> Iterator[_Value]:
    """The JSON values of a file, each on a single line; None for a line that is in no JSON value."""
    unread = enumerate(_lines(file), start=1)
    # Lines after a line that opens an object and never closes it: each is tried by itself.
    again: deque[_Line] = deque()

    def next_line() -> _Line | None:
        if again:
            return again.popleft()
        return next(unread, None)

    while line := next_line():
        number, content = line
        if number == 1:
            content = content.removeprefix(codecs.BOM_UTF8)
        text = _json(content)
        if text is None and (depth := _opened(content)) > 0:
            following: list[_Line] = []
            parts = [content.strip()]
            size = len(content)  # bytes
            while depth > 0 and size < _MAX_OBJECT_BYTES and (more := next_line()):
                _, part = more
                following.append(more)
                parts.append(part.strip())
                size += len(part)
                depth += _opened(part)
            text = _json(b"".join(parts))
            if text is None:
                again.extendleft(reversed(following))
        if text != "":
            yield number, text


def _lines(file: typer.FileBinaryRead) -> Iterator[bytes]:
    """The lines of a file, unpacked and in UTF-8. If the rest of it cannot be unpacked, the command fails."""
    packings, blocks = layers(file, file.peek(_PEEKED)[:_PEEKED])
    if not packings:
        yield from file
        return
    last = packings[-1]
    if last not in COMPRESSIONS and not is_encoding(last):
        fail(
            f"{file.name} is packed as {last}: unpack it, and run `obs redact` on the result", 1
        )
    number, rest = 0, b""
    try:
        for block in blocks:
            *lines, rest = (rest + block).split(b"\n")
            number += len(lines)
            yield from lines
    except (DamagedError, EOFError):
        fail(
            f"{file.name} is damaged: line {number + 1:,} and the lines after it are missing", 1
        )
    yield rest


def _opened(line: bytes) -> int:
    """Number of brackets that a line opens, less the brackets that it closes."""
    depth = 0
    for _, depth in brackets(line, 0, len(line)):  # noqa: B007 - the last depth is the result
        pass
    return depth


def _json(line: bytes) -> str | None:
    """The text of a line, "" if the line is blank; None if it is not JSON in UTF-8."""
    try:
        text = line.decode().strip()
        if text:
            json.loads(text)
    except (ValueError, RecursionError):
        return None
    return text
