"""``obs metrics``: lag, events, drops and dispatches of a pipeline, for Prometheus."""

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
            help="Atomically write to this file, for node_exporter's textfile collector.",
        ),
    ] = None,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Print lag, missing hours, events, drops by reason and dispatches, for Prometheus."""
    from obs_assets.audit.metrics import exposition, measure

    samples = measure(hourly_pipeline(pipeline_name), datetime.now(UTC))
    if as_json:
        print_json([sample._asdict() for sample in samples])
    elif textfile:
        with replacing(textfile.absolute(), setting="--textfile") as tmp_path:
            tmp_path.write_text(exposition(samples))
        # The collector runs as another user. The file holds counts only.
        textfile.chmod(0o644)
    else:
        typer.echo(exposition(samples), nl=False)
