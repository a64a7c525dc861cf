"""``obs expire``: remove what is not redacted and kept long enough."""

from dataclasses import asdict
from datetime import UTC, datetime

from obs_assets.cli.app import AsJson, Pipeline, app, hourly_pipeline, out, print_json


@app.command()
def expire(pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Remove landed events, dead letters, raw and enriched frames that retention_days no longer keeps.

    Only of hours that every destination holds. They cannot be built again afterwards. The schedule does this each day.
    """
    done = hourly_pipeline(pipeline_name).expire(datetime.now(UTC))
    if as_json:
        hours = {
            "hours": [str(hour) for hour in done.hours],
            "waiting": [str(hour) for hour in done.waiting],
        }
        print_json({**asdict(done), **hours})
        return
    for line in done.sentences():
        out.print(line, highlight=False)
