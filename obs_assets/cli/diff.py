"""``obs diff``: what a changed pipeline file would do, before it is deployed."""

from pathlib import Path
from typing import Annotated

import typer

from obs_assets.audit import diff as comparison
from obs_assets.cli.app import AsJson, Hours, Pipeline, app, hourly_pipeline, print_json
from obs_assets.errors import MissingFrameError
from obs_assets.hourly import pipeline
from obs_assets.hours import parse_hours


@app.command()
def diff(
    hours: Hours,
    file: Annotated[
        Path, typer.Option("--with", metavar="FILE", help="The changed pipeline file.")
    ],
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Say what a changed pipeline file would do to hours that have landed. No frame and no destination is touched.

    Events kept, dropped and redacted, rows and bytes of each destination, now and with the file; prints Markdown. How
    files are read is not compared, and `obs backtest` says what alert rules would tell.
    """
    hourly = hourly_pipeline(pipeline_name)
    found = comparison.diff(hourly, pipeline.load(file), parse_hours(hours))
    if as_json:
        print_json(comparison.as_json(found))
        return
    if not found.hours:
        raise MissingFrameError(f"nothing has landed for {hours}: run land_event_files first")
    typer.echo(comparison.as_markdown(found, file.name))
