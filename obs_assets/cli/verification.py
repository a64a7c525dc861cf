"""``obs verify``: questions to an hour."""

from dataclasses import asdict

import typer

from obs_assets.cli.app import AsJson, Hours, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.hours import parse_hours


@app.command()
def verify(hours: Hours, pipeline_name: Pipeline = "pipeline", as_json: AsJson = False) -> None:
    """Count an hour again in every store and compare contents; exit 1 on any difference."""
    from obs_assets.verify import verify as verify_hour

    hourly = hourly_pipeline(pipeline_name)
    found = [(hour, verdict) for hour in parse_hours(hours) for verdict in verify_hour(hourly, hour)]
    if as_json:
        print_json([{"hour": hour.key, "ok": verdict.ok, **asdict(verdict)} for hour, verdict in found])
    else:
        for hour, verdict in found:
            mark = "[green]✓[/]" if verdict.ok else "[red]✗[/]"
            out.print(f"{mark} {hour}  {verdict.store:<16}  {verdict}", highlight=False)
    if not all(verdict.ok for _, verdict in found):
        raise typer.Exit(1)
