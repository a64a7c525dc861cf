"""``obs s3``: the archive."""

from typing import Annotated

import typer

from obs_assets.cli.app import AsJson, Hours, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.hours import parse_hours

s3_app = typer.Typer(no_args_is_help=True, help="The archive: bring hours back from it.")
app.add_typer(s3_app, name="s3")


@s3_app.callback()
def s3() -> None:
    """Keep ``restore`` a command of its own while it is the only one."""


@s3_app.command()
def restore(
    hours: Hours,
    pipeline_name: Pipeline = "",
    archive: Annotated[str | None, typer.Option(help="Which S3 destination, where a pipeline has several.")] = None,
    archive_of: Annotated[str | None, typer.Option(help="The pipeline that archived them, if another.")] = None,
    as_json: AsJson = False,
) -> None:
    """Bring archived hours back as landed events, exactly once; then materialize them."""
    from obs_assets.hourly import restore as restoring

    hourly = hourly_pipeline(pipeline_name)
    source = restoring.archive_of(hourly_pipeline(archive_of) if archive_of else hourly, archive)
    restored = {hour.key: restoring.restore(source, hourly, hour).hours.get(hour.key, 0) for hour in parse_hours(hours)}
    if as_json:
        print_json(restored)
        return
    for key, rows in restored.items():
        said = f"{rows:,} events landed from {source.place.url}" if rows else "nothing to restore: all of it has landed"
        out.print(f"{key}  {said}", highlight=False)
