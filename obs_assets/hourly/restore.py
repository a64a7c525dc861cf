"""An archived hour comes back as landed events of a pipeline, exactly once."""

from obs_assets.destinations.s3 import S3Config, S3Destination
from obs_assets.destinations.s3.encode import rows_of
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import asset_name
from obs_assets.hours import Hour
from obs_assets.sources.landing import LandingReport
from obs_assets.sources.restored import land_archived
from obs_assets.storage.frames import make_private_dir


def archive_of(hourly: HourlyPipeline, name: str | None = None) -> S3Destination:
    """A pipeline's archive: its only S3 destination, or the one of that name.

    Raises:
        ConfigurationError: there is none, or there are several and none was named.
    """
    names = [asset_name(block) for block in hourly.config.destinations if isinstance(block, S3Config)]
    if name is None and len(names) != 1:
        raise ConfigurationError(
            f"pipeline {hourly.name!r} has {len(names)} archives: say which with --archive ({', '.join(names)})"
            if names
            else f"pipeline {hourly.name!r} has no S3 destination"
        )
    destination = hourly.destination(name or names[0])
    if not isinstance(destination, S3Destination):
        raise ConfigurationError(f"{name!r} is no archive; there are {', '.join(names)}")
    return destination


def restore(archive: S3Destination, hourly: HourlyPipeline, hour: Hour) -> LandingReport:
    """Land an archived hour; what the hour holds already is not landed again.

    Raises:
        ConfigurationError: the hour is before the pipeline's start.
        PermanentError: the archive does not hold the hour, or not as its manifest says.
        HourBusyError: a landing pass is under way.
    """
    if hour < hourly.config.first_hour:
        raise ConfigurationError(f"{hour} is before the first hour of {hourly.name!r}: set start in its pipeline file")
    with archive.archived(hour, make_private_dir(hourly.store.temp_dir)) as objects:
        named = ((f"{archive.place.url}/{archived.key}", archived.path) for archived in objects)
        return land_archived(hourly.log, hour, named, rows_of, time_path=hourly.config.source.time_path)
