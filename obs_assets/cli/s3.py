"""``obs s3``: list the archive, bring hours back from it."""

from typing import Annotated

import typer

from obs_assets.cli.app import AsJson, Hours, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.errors import ConfigurationError
from obs_assets.hours import parse_hours

s3_app = typer.Typer(
    no_args_is_help=True, help="The archive: list it, bring hours back from it."
)
app.add_typer(s3_app, name="s3")


@s3_app.command()
def ls(
    prefix: Annotated[
        str, typer.Argument(help="Only keys that begin so; the pipeline's prefix by default.")
    ] = "",
    pipeline_name: Pipeline = "",
    archive: Annotated[
        str | None, typer.Option(help="Which S3 destination, where a pipeline has several.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what the archive holds: bytes and key of each object."""
    from obs_assets.destinations.s3 import S3Destination
    from obs_assets.hourly import restore as restoring

    destination = restoring.archive_of(hourly_pipeline(pipeline_name), archive).destination
    if not isinstance(destination, S3Destination):
        raise ConfigurationError(
            f"{archive!r} keeps no objects: name an S3 destination with --archive"
        )
    place = destination.place
    with place.session():
        sizes = place.sizes(prefix or destination.config.prefix)
    if as_json:
        print_json({f"{place.url}/{key}": size for key, size in sizes.items()})
        return
    for key, size in sizes.items():
        out.print(f"{size:>14,}  {place.url}/{key}", highlight=False)
    out.print(f"{sum(sizes.values()):>14,}  bytes in {len(sizes):,} objects", highlight=False)


@s3_app.command()
def restore(
    hours: Hours,
    pipeline_name: Pipeline = "",
    archive: Annotated[
        str | None, typer.Option(help="Which S3 destination, where a pipeline has several.")
    ] = None,
    archive_of: Annotated[
        str | None, typer.Option(help="The pipeline that archived them, if another.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring archived hours back as landed events, exactly once; then materialize them."""
    from obs_assets.hourly import restore as restoring

    hourly = hourly_pipeline(pipeline_name)
    source = restoring.archive_of(
        hourly_pipeline(archive_of) if archive_of else hourly, archive
    )
    restored = {
        hour.key: restoring.restore(source, hourly, hour).hours.get(hour.key, 0)
        for hour in parse_hours(hours)
    }
    if as_json:
        print_json(restored)
        return
    for key, rows in restored.items():
        said = (
            f"{rows:,} events landed from {source.name}"
            if rows
            else "nothing to restore: all of it has landed"
        )
        out.print(f"{key}  {said}", highlight=False)
