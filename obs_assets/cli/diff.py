"""``obs diff``: dry-run a changed pipeline file before it is deployed."""

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
    """Dry-run a changed pipeline file on hours that have landed; changes nothing.

    Prints Markdown: events kept, dropped and redacted, rows and bytes of each destination, now and with
    the file. The source block is not compared. For alert rules, use `obs backtest`.
    """
    hourly = hourly_pipeline(pipeline_name)
    found = comparison.diff(hourly, pipeline.load(file), parse_hours(hours))
    if as_json:
        print_json(comparison.as_json(found))
        return
    if not found.hours:
        raise MissingFrameError(f"nothing has landed for {hours}: run land_event_files first")
    typer.echo(comparison.as_markdown(found, file.name))
