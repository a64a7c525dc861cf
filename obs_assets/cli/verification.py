"""``obs verify`` and ``obs scan``: audit hours that were built."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

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
from obs_assets.hours import Hour, parse_hours

if TYPE_CHECKING:
    from obs_assets.audit.scan import Leaks
    from obs_assets.audit.verify import HourCheck


@app.command()
def verify(hours: Hours, pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Count hours again in every store and compare contents; exit code 1 on any difference."""
    from obs_assets.audit.verify import verify as verify_hour

    hourly = hourly_pipeline(pipeline_name)
    verdicts: list[tuple[Hour, HourCheck]] = []
    for hour in parse_hours(hours):
        verdicts += [(hour, found) for found in verify_hour(hourly, hour)]
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
            metavar="STORE",
            help="parquet, postgres, s3 or an asset's name; can be repeated.",
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Scan at most N events per hour.")
    ] = None,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Look for personal data and secrets that redaction missed; exit code 1 if there are any.

    Reads hours back from their stores. The rules and the engine are independent of the redactor's.
    Prints types, paths and counts, never a value.
    """
    from obs_assets.audit.scan import scan as scan_hour
    from obs_assets.audit.scan import stores

    hourly = hourly_pipeline(pipeline_name)
    # A wrong name ends the command before the first hour is read.
    stores(hourly, places or ())
    found: list[tuple[Hour, Leaks]] = []
    for hour in parse_hours(hours):
        found += [
            (hour, findings) for findings in scan_hour(hourly, hour, places or (), sample)
        ]
    if as_json:
        print_json([_as_json(hour, findings) for hour, findings in found])
    else:
        for hour, findings in found:
            out.print(verdict(f"{hour}  {findings.store:<16}  {findings}", ok=findings.ok))
            for leftover, count in findings.leftovers.items():
                line = f"    {count:>8,}  {leftover.type:<12}  {leftover.path}"
                out.print(line, highlight=False)
    if not all(findings.ok for _, findings in found):
        raise typer.Exit(1)


def _as_json(hour: Hour, findings: "Leaks") -> dict[str, Any]:
    # JSON has only texts as keys, so each leftover becomes an object of a list.
    leftovers = [
        {**leftover._asdict(), "count": count} for leftover, count in findings.leftovers.items()
    ]
    return {
        "hour": hour.key,
        "ok": findings.ok,
        **vars(findings),
        "leftovers": leftovers,
    }
