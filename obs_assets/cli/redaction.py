"""``obs redact``: rules tried on a file before they are deployed."""

import json
from collections import Counter
from typing import Annotated

import typer

from obs_assets.cli.app import AsJson, Pipeline, app, fail, hourly_pipeline


@app.command()
def redact(
    file: Annotated[typer.FileText, typer.Argument(help="A file of JSON lines, or - for standard input.")],
    pipeline_name: Pipeline = "pipeline",
    as_json: AsJson = False,
) -> None:
    """Print JSON lines redacted as the pipeline would; counts by type go to standard error."""
    from obs_assets.transforms.redact import redact_text

    hourly = hourly_pipeline(pipeline_name)
    key = hourly.settings.hash_key
    secret = key.get_secret_value().encode() if key else None
    counts: Counter[str] = Counter()
    separator = '{"events": ['
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            json.loads(line)
        except ValueError:
            fail(f"line {number} of {file.name} is not JSON", 1)
        text, found = redact_text(line.strip(), hourly.config.redact, secret)
        counts.update(found)
        if as_json:  # one after the other, and as they are: files may be large, and numbers keep all digits
            typer.echo(f"{separator}{text}", nl=False)
            separator = ",\n"
        else:
            typer.echo(text)
    if as_json:
        begin = "" if separator == ",\n" else separator
        typer.echo(f'{begin}], "redacted": {json.dumps(counts)}}}')
        return
    typer.echo(", ".join(f"{name} {count:,}" for name, count in counts.most_common()) or "nothing to redact", err=True)
