"""A pipeline as Dagster runs it, in this process, on real servers and with a real receiver."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from obs_assets.components import pipeline_definitions
from obs_assets.demo.receiver import Receiver
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hours import Hour, utc_now
from obs_assets.settings import Settings
from obs_assets_tests import harness

DAGSTER_WARNINGS = [
    pytest.mark.filterwarnings(f"ignore:{message}:dagster_shared.utils.warnings.{kind}")
    for kind, message in {
        "PreviewWarning": "Specifying a partitions_def on an AssetCheckSpec is currently in preview",
        "BetaWarning": "Parameter `backfill_policy` of function `asset` is currently in beta",
    }.items()
]
"""Partitioned checks and runs of ranges are what the design asks for; should they change, tests turn red anyway."""


class Clock:
    """The clock of sensors, schedules and runs: the real one, or it stands at a moment that a test chooses."""

    moment: Any = None

    @classmethod
    def now(cls) -> datetime:
        return cls.moment or utc_now()


@dataclass(frozen=True)
class Deployment:
    """A pipeline, its Dagster instance and its receiver."""

    config: PipelineConfig
    machine: Settings
    events_dir: Path
    instance: dg.DagsterInstance
    receiver: Receiver

    @property
    def definitions(self) -> dg.Definitions:
        return pipeline_definitions(self.config, machine=self.machine, clock=Clock.now)

    @property
    def hourly(self) -> HourlyPipeline:
        return HourlyPipeline(self.config, self.machine)

    def land(self) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_job_def("land_event_files")
        return job.execute_in_process(instance=self.instance, raise_on_error=False)

    def materialize(
        self, first: Hour, last: Hour | None = None, only: str | None = None
    ) -> dg.ExecuteInProcessResult:
        """A run of an hour, or of a range of hours; of one asset, or of all."""
        job = self.definitions.resolve_job_def("hourly_pipeline")
        if last is None:
            return job.execute_in_process(
                instance=self.instance,
                partition_key=first.key,
                asset_selection=[dg.AssetKey(only)] if only else None,
                raise_on_error=False,
            )
        tags = {
            "dagster/asset_partition_range_start": first.key,
            "dagster/asset_partition_range_end": last.key,
        }
        return job.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)


@pytest.fixture
def deployment(settings: Settings, tmp_path: Path) -> Iterator[Deployment]:
    """A pipeline without sampling; its instance forgets everything."""
    with Receiver() as receiver, dg.DagsterInstance.ephemeral() as instance:
        config = harness.everything_kept(tmp_path / "events", receiver.url)
        yield Deployment(config, settings, tmp_path / "events", instance, receiver)
