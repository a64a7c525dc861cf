"""All pipelines as a code location. A mistake in a pipeline file does not stop the other pipelines."""

import functools
import re
import warnings
from collections.abc import Mapping

import dagster as dg
from dagster.components.core.load_defs import get_library_json_enriched_defs

from obs_assets.components.pipeline import pipeline_definitions
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline_files import PipelineFile, list_files, open_all

BROKEN_GROUP = "not_loaded"
"""Asset group of the pipeline files that cannot be loaded."""


def project_definitions(env: Mapping[str, str] | None = None) -> dg.Definitions:
    """The definitions of every pipeline that `list_files` finds.

    A pipeline that cannot be loaded shows in three places: an error in the log of the code location, an
    asset ``NAME/pipeline_file`` whose description is the error, and a sensor
    ``NAME_pipeline_file_sensor`` whose ticks fail until the file is valid.

    Args:
        env: the environment; by default that of the process.

    Raises:
        ConfigurationError: no pipeline can be loaded. The message has a line for each mistake.
    """
    found, problems = _load(env)
    if not found:
        raise ConfigurationError("\n".join(problems.values()))
    for file, problem in problems.items():
        dg.get_dagster_logger("obs_assets").error(
            "the pipeline %s is not loaded: %s",
            file.name,
            problem,
        )
    broken = [_broken(file, problem, env) for file, problem in problems.items()]
    return dg.Definitions.merge(_component_page(), *found.values(), *broken)


@functools.cache
def _component_page() -> dg.Definitions:
    """The UI's page of components, the same for every call: Dagster loads the definitions seven times a run.

    `load_from_defs_folder` adds the page too, but needs a project file, which an installed wheel does
    not have.
    """
    return get_library_json_enriched_defs(None)


def _load(
    env: Mapping[str, str] | None,
) -> tuple[dict[PipelineFile, dg.Definitions], dict[PipelineFile, str]]:
    """The definitions of the valid pipelines, and the problems of the others."""
    found: dict[PipelineFile, dg.Definitions] = {}
    opened, problems = open_all(list_files(env), env)
    for file, hourly in opened.items():
        try:
            found[file] = _quietly_defined(hourly)
        except Exception as error:  # noqa: BLE001 - Dagster refuses a name, an owner, and so on
            # The other pipelines still load.
            problems[file] = f"{file.path}: {type(error).__name__}: {error}"
    return found, problems


def _quietly_defined(hourly: HourlyPipeline) -> dg.Definitions:
    """The definitions of a pipeline, without Dagster's warnings about its own new parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return pipeline_definitions(hourly.config, hourly.name, hourly.settings)


def _broken(file: PipelineFile, problem: str, env: Mapping[str, str] | None) -> dg.Definitions:
    """An asset and a sensor that show in the UI why a pipeline is missing."""
    name = re.sub(r"\W", "_", file.name, flags=re.ASCII)
    spec = dg.AssetSpec(
        [name, "pipeline_file"],
        description=f"**This pipeline is not loaded.** {problem}",
        group_name=BROKEN_GROUP,
        kinds={"yaml"},
    )

    @dg.sensor(
        name=f"{name}_pipeline_file_sensor",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Fails until {file.path} can be loaded.",
    )
    def pipeline_file_sensor() -> dg.SkipReason:
        found, _ = _load(env)
        if file in found:
            return dg.SkipReason(
                f"the pipeline {file.name} is valid now: reload the code location"
            )
        raise dg.Failure(
            f"the pipeline {file.name} is not loaded: {problem}", allow_retries=False
        )

    return dg.Definitions(assets=[spec], sensors=[pipeline_file_sensor])
