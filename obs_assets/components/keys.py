"""Names of a pipeline's assets and jobs, and the properties that all its assets share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import dagster as dg

from obs_assets.delivery.kinds import asset_name
from obs_assets.hourly.pipeline import EARLIEST_HOUR, PipelineConfig
from obs_assets.hours import KEY_FORMAT, Hour


@dataclass(frozen=True)
class Naming:
    """The names of a pipeline in Dagster.

    Attributes:
        prefix: name of the pipeline; "" for the default pipeline.
        config: the configuration, of which destinations and owners are used.
        first_partition: first hour that Dagster knows, as long as this code is loaded. Without a
            `start` older events may land meanwhile: sensors ask for their hours all the same, and
            the processes of those runs, which load the code anew, know them.
    """

    prefix: str
    config: PipelineConfig
    first_partition: Hour = EARLIEST_HOUR

    def key(self, asset: str) -> dg.AssetKey:
        """The key of an asset, for example ``audit/raw_events``."""
        if not self.prefix:
            return dg.AssetKey([asset])
        return dg.AssetKey([self.prefix, asset])

    def job(self, name: str) -> str:
        """The name of a job, a schedule, a sensor or a resource."""
        # Unlike asset keys, these names cannot contain a slash.
        if self.prefix:
            return f"{self.prefix}_{name}"
        return name

    def group(self, name: str) -> str:
        """The group of an asset."""
        return self.job(name)

    @property
    def destination_names(self) -> list[str]:
        """The names of the destinations' assets."""
        return [asset_name(destination) for destination in self.config.enabled_destinations]

    @cached_property
    def hours(self) -> dg.HourlyPartitionsDefinition:
        """The partitions: every hour since the first, the present hour included."""
        # Dagster shows only past hours unless `end_offset` adds the present hour.
        return dg.HourlyPartitionsDefinition(
            self.first_partition.key,
            fmt=KEY_FORMAT,
            timezone="UTC",
            end_offset=1,
        )

    @property
    def owners(self) -> Sequence[str]:
        """Owners that every asset shows."""
        return self.config.owners
