"""Lands an archived hour again as events of a pipeline, each event once."""

from dataclasses import dataclass
from typing import Any

from obs_assets.delivery.kinds import Kind, asset_name, kind_of
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.sources.landing import LandingReport
from obs_assets.sources.restored import land_archived
from obs_assets.storage.disk import make_private_dir


@dataclass(frozen=True)
class Archive:
    """A destination that hours are restored from.

    Attributes:
        name: name of its asset.
        kind: its row in `KINDS`.
        destination: the destination, which reads the hours.
    """

    name: str
    kind: Kind
    destination: Any


def archive_of(hourly: HourlyPipeline, name: str | None = None) -> Archive:
    """The destination of that name; by default the pipeline's only archive.

    Args:
        hourly: the pipeline.
        name: asset name of a destination that keeps events; it need not be an archive.

    Raises:
        ConfigurationError: no such destination keeps events; or no name was given and the pipeline
            has no archive, or several.
    """
    blocks = [block for block in hourly.config.destinations if kind_of(block).keeps_events]
    kinds = {asset_name(block): kind_of(block) for block in blocks}
    archives = [known for known, kind in kinds.items() if kind.is_archive]
    if name is not None and name not in kinds:
        raise ConfigurationError(
            f"{name!r} keeps no events to restore; there are {', '.join(kinds)}"
        )
    if name is None and not archives:
        raise ConfigurationError(
            f"pipeline {hourly.name!r} has no archive: name a destination with --archive"
        )
    if name is None and len(archives) > 1:
        names = ", ".join(archives)
        raise ConfigurationError(
            f"pipeline {hourly.name!r} has {len(archives)} archives: choose with --archive ({names})"
        )
    chosen = name or archives[0]
    return Archive(chosen, kinds[chosen], hourly.destination(chosen))


def restore(archive: Archive, hourly: HourlyPipeline, hour: Hour) -> LandingReport:
    """Land an archived hour; events that the hour holds already are not landed again.

    Raises:
        ConfigurationError: the hour is before the pipeline's start.
        PermanentError: the archive does not hold the hour, or its files differ from its manifest.
        HourBusyError: a landing pass is under way.
    """
    if hour < hourly.config.first_hour:
        raise ConfigurationError(
            f"{hour} is before the first hour of {hourly.name!r}: set start in its pipeline file"
        )
    folder = make_private_dir(hourly.store.temp_dir)
    with archive.kind.stored(
        archive.name,
        archive.destination,
        hour,
        folder,
    ) as stored:
        parts = ((part.url, part.rows) for part in stored)
        return land_archived(
            hourly.log,
            hour,
            parts,
            time_path=hourly.config.source.time_path,
        )
