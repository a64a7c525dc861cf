"""Names of one pipeline's assets and jobs, and what all its assets share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import dagster as dg

from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hours import KEY_FORMAT


@dataclass(frozen=True)
class Naming:
    """How a pipeline's things are called.

    Attributes:
        prefix: empty for the default pipeline.
        config: for its start and owners.
    """

    prefix: str
    config: PipelineConfig

    def key(self, asset: str) -> dg.AssetKey:
        """An asset's key."""
        return dg.AssetKey([self.prefix, asset] if self.prefix else [asset])

    def job(self, name: str) -> str:
        """The name of a job, a schedule, a sensor or a resource."""
        return f"{self.prefix}_{name}" if self.prefix else name

    def group(self, name: str) -> str:
        """The group of an asset."""
        return self.job(name)

    @cached_property
    def hours(self) -> dg.HourlyPartitionsDefinition:
        """The partitions: every hour since the start, the present one included."""
        return dg.HourlyPartitionsDefinition(
            start_date=self.config.start, fmt=KEY_FORMAT, timezone="UTC", end_offset=1
        )

    @property
    def owners(self) -> Sequence[str]:
        """Shown on every asset."""
        return self.config.owners
