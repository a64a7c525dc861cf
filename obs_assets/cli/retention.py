"""``obs expire``: remove unredacted events and frames after ``retention_days``."""

from dataclasses import asdict
from datetime import UTC, datetime

from obs_assets.cli.app import AsJson, Pipeline, app, hourly_pipeline, out, print_json


@app.command()
def expire(pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Remove landed events, dead letters, raw and enriched frames older than retention_days.

    Only hours that every destination holds are removed. They cannot be built again afterwards.
    The schedule does the same each day.
    """
    done = hourly_pipeline(pipeline_name).expire(datetime.now(UTC))
    if as_json:
        # `asdict` turns an hour into a nested object.
        hours = {
            "hours": [str(hour) for hour in done.hours],
            "waiting": [str(hour) for hour in done.waiting],
        }
        print_json({**asdict(done), **hours})
        return
    for line in done.sentences():
        out.print(line, highlight=False)
