"""``obs metrics``: how far behind the pipeline is and what became of its events, for Prometheus."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from obs_assets.cli.app import AsJson, Pipeline, app, hourly_pipeline, print_json
from obs_assets.storage.disk import replacing


@app.command()
def metrics(
    textfile: Annotated[
        Path | None,
        typer.Option(
            "--textfile",
            help="Write there, whole or not at all, for node_exporter's collector.",
        ),
    ] = None,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Print lag, missing hours, events, drops by reason and dispatches in the format of Prometheus."""
    from obs_assets.audit.metrics import exposition, measure

    samples = measure(hourly_pipeline(pipeline_name), datetime.now(UTC))
    if as_json:
        print_json([sample._asdict() for sample in samples])
    elif textfile:
        with replacing(textfile.absolute(), setting="--textfile") as aside:
            aside.write_text(exposition(samples))
        textfile.chmod(0o644)  # it holds counts only, and the collector is another user
    else:
        typer.echo(exposition(samples), nl=False)
