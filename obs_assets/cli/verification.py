"""``obs verify`` and ``obs scan``: questions to an hour."""

from dataclasses import asdict
from typing import Annotated

import typer

from obs_assets.cli.app import (
    AsJson,
    Hours,
    Pipeline,
    app,
    hourly_pipeline,
    out,
    print_json,
    verdict,
)
from obs_assets.hours import parse_hours


@app.command()
def verify(hours: Hours, pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Count an hour again in every store and compare contents; exit 1 on any difference."""
    from obs_assets.audit.verify import verify as verify_hour

    hourly = hourly_pipeline(pipeline_name)
    verdicts = [
        (hour, found) for hour in parse_hours(hours) for found in verify_hour(hourly, hour)
    ]
    if as_json:
        print_json(
            [{"hour": hour.key, "ok": found.ok, **asdict(found)} for hour, found in verdicts]
        )
    else:
        for hour, found in verdicts:
            out.print(verdict(f"{hour}  {found.store:<16}  {found}", ok=found.ok))
    if not all(found.ok for _, found in verdicts):
        raise typer.Exit(1)


@app.command()
def scan(
    hours: Hours,
    places: Annotated[
        list[str] | None,
        typer.Option(
            "--in",
            metavar="PLACE",
            help="parquet, postgres, s3 or an asset's name; repeat for several.",
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Look at so many events of each hour only.")
    ] = None,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Read hours back and look for personal data and secrets that redaction left; exit 1 if there are any.

    With other rules and another engine than the redactor's. Types, paths and counts are printed, never a value.
    """
    from obs_assets.audit.scan import scan as scan_hour
    from obs_assets.audit.scan import stores

    hourly = hourly_pipeline(pipeline_name)
    stores(hourly, places or ())
    found = [
        (hour, findings)
        for hour in parse_hours(hours)
        for findings in scan_hour(hourly, hour, places or (), sample)
    ]
    if as_json:
        print_json(
            [
                {
                    "hour": hour.key,
                    "ok": findings.ok,
                    **vars(findings),
                    "leftovers": [
                        {**leftover._asdict(), "count": count}
                        for leftover, count in findings.leftovers.items()
                    ],
                }
                for hour, findings in found
            ]
        )
    else:
        for hour, findings in found:
            out.print(verdict(f"{hour}  {findings.store:<16}  {findings}", ok=findings.ok))
            for leftover, count in findings.leftovers.items():
                out.print(
                    f"    {count:>8,}  {leftover.type:<12}  {leftover.path}", highlight=False
                )
    if not all(findings.ok for _, findings in found):
        raise typer.Exit(1)
