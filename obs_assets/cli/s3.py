"""``obs s3``: list the archive, read an object, restore hours from it."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from obs_assets.cli.app import AsJson, Hours, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.errors import ConfigurationError
from obs_assets.hours import parse_hours

s3_app = typer.Typer(
    no_args_is_help=True, help="The archive: list and read its objects, restore hours from it."
)
app.add_typer(s3_app, name="s3")


if TYPE_CHECKING:
    from obs_assets.destinations.s3 import S3Destination

Archive = Annotated[
    str | None,
    typer.Option(help="Name of the S3 destination, if the pipeline has several."),
]


@s3_app.command()
def ls(
    prefix: Annotated[
        str,
        typer.Argument(help="Beginning of the listed keys; by default the pipeline's prefix."),
    ] = "",
    pipeline_name: Pipeline = "",
    archive: Archive = None,
    as_json: AsJson = False,
) -> None:
    """List the objects of the archive: bytes and key."""
    destination = _archive_of(pipeline_name, archive)
    store = destination.place
    with store.session():
        sizes = store.sizes(prefix or destination.config.prefix)
    if as_json:
        print_json({f"{store.url}/{key}": size for key, size in sizes.items()})
        return
    for key, size in sizes.items():
        out.print(f"{size:>14,}  {store.url}/{key}", highlight=False)
    total = sum(sizes.values())
    out.print(f"{total:>14,}  bytes in {len(sizes):,} objects", highlight=False)


@s3_app.command()
def cat(
    key: Annotated[str, typer.Argument(help="Key of the object, as `obs s3 ls` prints it.")],
    pipeline_name: Pipeline = "",
    archive: Archive = None,
) -> None:
    """Write the bytes of an object to standard output, for example for ``zcat``."""
    store = _archive_of(pipeline_name, archive).place
    with tempfile.TemporaryDirectory() as folder, store.session():
        copy = Path(folder, "object")
        if not store.download(key.removeprefix(f"{store.url}/"), copy):
            raise ConfigurationError(f"{store.url} has no object {key}: see `obs s3 ls`")
        with copy.open("rb") as body:
            shutil.copyfileobj(body, sys.stdout.buffer)


@s3_app.command()
def restore(
    hours: Hours,
    pipeline_name: Pipeline = "",
    archive: Archive = None,
    archive_of: Annotated[
        str | None, typer.Option(help="The pipeline that archived the hours, if another.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Restore archived hours as landed events, exactly once. Materialize the hours afterwards."""
    from obs_assets.hourly import restore as restoring

    hourly = hourly_pipeline(pipeline_name)
    archiving = hourly
    if archive_of:
        archiving = hourly_pipeline(archive_of)
    source = restoring.archive_of(archiving, archive)
    restored: dict[str, int] = {}
    for hour in parse_hours(hours):
        landed = restoring.restore(source, hourly, hour)
        restored[hour.key] = landed.hours.get(hour.key, 0)
    if as_json:
        print_json(restored)
        return
    for key, rows in restored.items():
        result = "nothing to restore: all of it has landed"
        if rows:
            result = f"{rows:,} events landed from {source.name}"
        out.print(f"{key}  {result}", highlight=False)


def _archive_of(pipeline_name: str, archive: str | None) -> "S3Destination":
    """The S3 destination of a pipeline.

    Raises:
        ConfigurationError: the pipeline has none, or several and no name is given.
    """
    from obs_assets.destinations.s3 import S3Destination
    from obs_assets.hourly import restore as restoring

    destination = restoring.archive_of(hourly_pipeline(pipeline_name), archive).destination
    if not isinstance(destination, S3Destination):
        raise ConfigurationError(
            f"{archive!r} keeps no objects: name an S3 destination with --archive"
        )
    return destination
