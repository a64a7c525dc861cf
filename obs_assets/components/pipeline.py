"""A pipeline as Dagster definitions, and as a component that a YAML file configures."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel

from obs_assets import settings
from obs_assets.components.alerting import stuck_check
from obs_assets.components.automation import (
    Following,
    hourly_schedule,
    new_files_sensor,
    open_hour_sensor,
    stale_hours_sensor,
)
from obs_assets.components.cancel import in_process
from obs_assets.components.keys import Naming
from obs_assets.components.landing import landing_assets, landing_job, pass_check, replay_job
from obs_assets.components.resources import client_resources
from obs_assets.components.schema import schema_of
from obs_assets.components.stages import destination_asset, stage_asset
from obs_assets.components.upkeep import upkeep_definitions
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import DEFAULT_PIPELINE, PipelineConfig
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import utc_now
from obs_assets.settings import Settings


def pipeline_definitions(  # noqa: PLR0917 - the public call
    config: PipelineConfig,
    name: str = DEFAULT_PIPELINE,
    machine: Settings | None = None,
    resources: Mapping[str, Any] | None = None,
    clock: Callable[[], datetime] = utc_now,
    present: Following | None = None,
) -> dg.Definitions:
    """The definitions of a pipeline: assets, checks, jobs, the schedule, sensors and resources.

    Args:
        config: the pipeline's configuration.
        name: name of the pipeline; prefix of its asset keys and jobs, except for the default pipeline.
        machine: data folder and servers; by default those of the environment.
        resources: resources that replace those made here, for example ``s3``, the archive's
            `dagster_aws.s3.S3Resource`.
        clock: gives the time, UTC.
        present: gives the pipeline as its file says now, to each tick of a sensor or the schedule;
            by default they keep ``config``. Runs load the definitions, and so the file, themselves.
    """
    hourly = HourlyPipeline(config, machine or settings.load(), name, clock=clock)
    following = present or (lambda: hourly)
    first = hourly.first_partition(clock())
    # Assets of the default pipeline have no prefix: `raw_events`, not `pipeline/raw_events`.
    prefix = ""
    if name != DEFAULT_PIPELINE:
        prefix = name
    # Without the destinations whose address is not set.
    config = hourly.config
    naming = Naming(prefix, config, first)
    for off, variable in hourly.off.items():
        dg.get_dagster_logger("obs_assets").warning("%s is off: %s is not set", off, variable)
    stages = [stage_asset(hourly, naming, stage) for stage in STAGES]
    destinations = [
        destination_asset(hourly, naming, block) for block in config.enabled_destinations
    ]
    checks = [stuck_check(hourly, naming, block) for block in hourly.enabled("alerts")]
    landing = landing_job(hourly, naming)
    job = dg.define_asset_job(
        naming.job("hourly_pipeline"),
        selection=dg.AssetSelection.assets(*stages, *destinations),
        description="Builds an hour, from landed events to every destination.",
    )
    own = dg.Definitions(
        assets=[*landing_assets(naming), *stages, *destinations],
        asset_checks=[pass_check(hourly, naming), *checks],
        jobs=[landing, replay_job(hourly, naming), job],
        schedules=[hourly_schedule(following, naming, job)],
        sensors=[
            new_files_sensor(following, naming, landing),
            stale_hours_sensor(following, naming, job),
            *open_hour_sensor(following, naming, job),
        ],
        executor=in_process,
        resources={**client_resources(hourly, naming), **(resources or {})},
    )
    return dg.Definitions.merge(own, upkeep_definitions(hourly, naming, following))


class PipelineAttributes(BaseModel, frozen=True, extra="allow"):
    """``attributes`` of a pipeline file, unchanged.

    Dagster shows and checks them by their schema. `obs_assets.hourly.pipeline.load` reads them and fills
    templates in: its messages say more than pydantic's, and repeat no value, which could be a secret.
    """

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The schema of `PipelineConfig`."""
        del args, kwargs
        return schema_of(PipelineConfig)


class ObservabilityPipeline(dg.Component):
    """Files of JSON events become hourly partitions: landed, enriched, redacted, sampled, delivered."""

    def __init__(self, config: PipelineConfig, name: str) -> None:
        self.config = config
        self.name = name

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The schema of ``attributes``, for ``dg check yaml``, editors and the UI."""
        return PipelineAttributes

    @classmethod
    def load(
        cls,
        attributes: BaseModel | None,
        context: dg.ComponentLoadContext,
    ) -> "ObservabilityPipeline":
        """Read the file as the command line reads it, so that both see the same pipeline."""
        del attributes
        folder = Path(context.path)
        config = pipeline.load(folder / "defs.yaml")
        return cls(config, config.stored_name(folder.name))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """See `pipeline_definitions`."""
        del context
        return pipeline_definitions(self.config, self.name)
