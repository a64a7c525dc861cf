"""``obs validate``: is the pipeline file right, and can its folder and servers be reached?"""

from pathlib import Path
from typing import Annotated

import typer

from obs_assets import settings
from obs_assets.cli.app import AsJson, Pipeline, app, out, print_json, verdict
from obs_assets.errors import ObsError
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline


@app.command()
def validate(
    file: Annotated[Path | None, typer.Argument(help="A pipeline file; the project's own by default.")] = None,
    pipeline_name: Pipeline = "pipeline",
    offline: Annotated[bool, typer.Option("--offline", help="Do not try to reach the servers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check a pipeline file, then whether its events folder and its servers can be reached."""
    path = file or pipeline.file_of(pipeline_name)
    hourly = HourlyPipeline(pipeline.load(path), settings.load(), pipeline_name)
    findings: dict[str, str] = {}
    lines = {"configuration": f"{path} is right"}
    if not offline:
        for name, question in {
            "events folder": _check_source,
            **dict.fromkeys(hourly.destination_names, _check_destination),
        }.items():
            try:
                lines[name] = question(hourly, name)
            except ObsError as error:
                lines[name] = findings[name] = str(error)
    if as_json:
        print_json({"checks": lines, "findings": findings})
    else:
        for name, line in lines.items():
            out.print(verdict(f"{name:>18}  {line}", ok=name not in findings))
    if findings:
        raise typer.Exit(1)


def _check_source(hourly: HourlyPipeline, _: str) -> str:
    return f"{len(hourly.listing().files):,} event files in {hourly.config.source.events_dir}"


def _check_destination(hourly: HourlyPipeline, name: str) -> str:
    return hourly.destination(name).check()
