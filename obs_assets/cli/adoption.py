"""``obs adopt``: hours that another data folder loaded become this folder's."""

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from obs_assets.cli.app import AsJson, Hours, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.hours import parse_hours

if TYPE_CHECKING:
    from obs_assets.hourly.adoption import Adoption


@app.command()
def adopt(
    hours: Hours,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the changes, and change nothing.")
    ] = False,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Take over hours that destinations hold from another data folder.

    An hour of the same content is taken over without a write; an hour of other content is replaced by the
    next build. Frames that are not built yet are built first, in this folder.
    """
    from obs_assets.hourly.adoption import MEANINGS
    from obs_assets.hourly.adoption import adopt as adopt_hours

    hourly = hourly_pipeline(pipeline_name)
    found = list(adopt_hours(hourly, parse_hours(hours), dry_run=dry_run))
    if as_json:
        print_json([{**asdict(adoption), "hour": adoption.hour.key} for adoption in found])
        return
    for adoption in found:
        out.print(_line(adoption), highlight=False)
    counts = Counter(adoption.outcome for adoption in found)
    for outcome, meaning in MEANINGS.items():
        if counts[outcome]:
            out.print(f"{outcome:<8} {counts[outcome]:>6,}  {meaning}", highlight=False)
    if not found:
        out.print(f"every destination holds {hours} from this data folder, or not at all")
    elif dry_run:
        out.print("nothing was changed: that was a dry run")


def _line(adoption: "Adoption") -> str:
    """An hour, its destination and outcome, and its rows there and here."""
    # The first 12 digits of a content hash are enough to see a difference.
    hash_there = adoption.hash_there[:12]
    hash_here = adoption.hash_here[:12] or "none"
    return (
        f"{adoption.hour}  {adoption.destination:<16}  {adoption.outcome:<8} "
        f"there {adoption.rows_there:,} rows ({hash_there}, landing log {adoption.from_log}), "
        f"here {adoption.rows_here:,} rows ({hash_here})"
    )
