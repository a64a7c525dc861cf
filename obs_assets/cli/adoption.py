"""``obs adopt``: hours that another data folder loaded become this folder's."""

from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer

from obs_assets.cli.app import AsJson, Hours, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.hours import parse_hours


@app.command()
def adopt(
    hours: Hours,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Take over hours that destinations hold from another data folder.

    An hour of the same content is taken over without a write; another one is replaced by the next build. Frames
    that are not built yet are built first, in this folder.
    """
    from obs_assets.hourly.adoption import MEANINGS
    from obs_assets.hourly.adoption import adopt as adopt_hours

    hourly = hourly_pipeline(pipeline_name)
    found = list(adopt_hours(hourly, parse_hours(hours), dry_run=dry_run))
    if as_json:
        print_json([{**asdict(one), "hour": one.hour.key} for one in found])
        return
    for one in found:
        out.print(
            f"{one.hour}  {one.destination:<16}  {one.outcome:<8} "
            f"there {one.rows_there:,} rows ({one.hash_there[:12]}, landing log {one.from_log}), "
            f"here {one.rows_here:,} rows ({one.hash_here[:12] or 'none'})",
            highlight=False,
        )
    counts = Counter(one.outcome for one in found)
    for outcome, meaning in MEANINGS.items():
        if counts[outcome]:
            out.print(f"{outcome:<8} {counts[outcome]:>6,}  {meaning}", highlight=False)
    if not found:
        out.print(f"every destination holds {hours} from this data folder, or not at all")
    elif dry_run:
        out.print("nothing was changed: that was a dry run")
