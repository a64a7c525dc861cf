"""All pipelines as a code location. A mistake in a pipeline file does not stop the other pipelines."""

import functools
import re
from collections.abc import Mapping

import dagster as dg
from dagster.components.core.load_defs import get_library_json_enriched_defs

from obs_assets import settings
from obs_assets.components.reloading import following, pipeline_file_sensor, quietly_defined
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.pipeline_files import PipelineFile
from obs_assets.hourly.present import Opened, open_valid

BROKEN_GROUP = "not_loaded"
"""Asset group of the pipeline files that are wrong."""


def project_definitions(env: Mapping[str, str] | None = None) -> dg.Definitions:
    """The definitions of every pipeline that `list_files` finds.

    A file that is wrong shows in three places: an error in the log of the code location, an asset
    ``NAME/pipeline_file`` whose description is the error, and the ticks of ``pipeline_file_sensor``,
    which fail until the file is valid. Meanwhile its last valid text is used; without one, the
    pipeline is not loaded.

    Args:
        env: the environment; by default that of the process.

    Raises:
        ConfigurationError: no pipeline can be loaded. The message has a line for each mistake.
    """
    opened = open_valid(env)
    found, problems = _define(opened, env)
    if not found:
        raise ConfigurationError("\n".join(problems.values()))
    for file, problem in problems.items():
        dg.get_dagster_logger("obs_assets").error(
            "the pipeline %s %s: %s", file.name, _effect(file in found), problem
        )
    broken = [
        _broken(file, problem, _effect(file in found)) for file, problem in problems.items()
    ]
    loaded = {file: opened.pipelines[file] for file in found}
    sensor = pipeline_file_sensor(loaded, env, settings.load(env))
    return dg.Definitions.merge(
        _component_page(), dg.Definitions(sensors=[sensor]), *found.values(), *broken
    )


@functools.cache
def _component_page() -> dg.Definitions:
    """The UI's page of components, the same for every call: Dagster loads the definitions seven times a run.

    `load_from_defs_folder` adds the page too, but needs a project file, which an installed wheel does
    not have.
    """
    return get_library_json_enriched_defs(None)


def _define(
    opened: Opened, env: Mapping[str, str] | None
) -> tuple[dict[PipelineFile, dg.Definitions], dict[PipelineFile, str]]:
    """The definitions of the pipelines, and the problems of the files."""
    found: dict[PipelineFile, dg.Definitions] = {}
    problems = dict(opened.problems)
    for file, hourly in opened.pipelines.items():
        try:
            found[file] = quietly_defined(hourly, following(file, hourly, env))
        except Exception as error:  # noqa: BLE001 - Dagster may refuse a name
            # The other pipelines still load.
            problems[file] = f"{file.path}: {type(error).__name__}: {error}"
    return found, problems


def _effect(is_loaded: bool) -> str:
    if is_loaded:
        return "goes on with its last valid configuration"
    return "is not loaded"


def _broken(file: PipelineFile, problem: str, effect: str) -> dg.Definitions:
    """An asset that shows in the UI what is wrong with a pipeline file."""
    name = re.sub(r"\W", "_", file.name, flags=re.ASCII)
    spec = dg.AssetSpec(
        [name, "pipeline_file"],
        description=f"**This pipeline {effect}.** {problem}",
        group_name=BROKEN_GROUP,
        kinds={"yaml"},
    )
    return dg.Definitions(assets=[spec])
