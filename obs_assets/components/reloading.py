"""A changed pipeline file in a running code server: values are followed, another set of assets is loaded anew."""

import threading
import time
import warnings
from collections.abc import Iterable, Mapping
from logging import Logger

import dagster as dg

from obs_assets.components.pipeline import pipeline_definitions
from obs_assets.embedded.code_location import LOCATION, WEBSERVER, reload_code
from obs_assets.errors import ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline_files import PipelineFile
from obs_assets.hourly.present import Env, Present, note_restart, open_valid
from obs_assets.settings import Settings

SENSOR = "pipeline_file_sensor"
"""Name of the sensor that looks at the pipeline files."""

_TICK_ENDS_S = 1.0
"""Seconds until a reload is asked for: it ends this code server, and the tick must have ended before."""

Pipelines = Mapping[PipelineFile, HourlyPipeline]


def quietly_defined(hourly: HourlyPipeline, present: Present | None = None) -> dg.Definitions:
    """The definitions of a pipeline, without Dagster's warnings about its own new parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return pipeline_definitions(
            hourly.config, hourly.name, hourly.settings, present=present
        )


def following(file: PipelineFile, hourly: HourlyPipeline, env: Env) -> Present:
    """The pipeline for its sensors: it follows the file as long as the set of assets stays."""
    return Present(file, hourly, env, _refuse_other_assets, dg.get_dagster_logger("obs_assets"))


def _refuse_other_assets(before: HourlyPipeline, after: HourlyPipeline) -> str:
    if _names([before]) == _names([after]):
        return ""
    return "the set of assets has changed, and the code location is not loaded again yet"


def _names(pipelines: Iterable[HourlyPipeline]) -> set[str]:
    """Names of all that Dagster fixes when it loads the code: assets, checks, jobs, sensors, resources."""
    names: set[str] = set()
    for hourly in pipelines:
        repository = quietly_defined(hourly).get_repository_def()
        graph = repository.asset_graph
        names |= {key.to_user_string() for key in graph.get_all_asset_keys()}
        names |= {f"check {key.to_user_string()}" for key in graph.asset_check_keys}
        names |= {f"job {name}" for name in repository.job_names}
        names |= {f"sensor {sensor.name}" for sensor in repository.sensor_defs}
        names |= {f"resource {name}" for name in repository.get_top_level_resources()}
    return names


def pipeline_file_sensor(loaded: Pipelines, env: Env, machine: Settings) -> dg.SensorDefinition:
    """The sensor ``pipeline_file_sensor`` of the code location.

    Its ticks fail while a pipeline file is wrong. After a valid change, it asks the webserver to
    load the code again. If the webserver does not, and the set of assets has changed, it leaves a
    note for ``obs status``.

    Args:
        loaded: the pipelines of the code location.
        env: environment of the process.
        machine: the settings: the data folder, and the webserver's address.
    """
    before = {file: hourly.config for file, hourly in loaded.items()}
    asked: set[str] = set()

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Reads changed pipeline files. Fails while a file is wrong; the last valid "
            "configuration is used meanwhile."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        opened = open_valid(env)
        now = {file: hourly.config for file, hourly in opened.pipelines.items()}
        said = "every pipeline file is as it was when the code was loaded"
        if now == before:
            note_restart(machine.data_dir, "")
        else:
            said = _ask(context, opened.pipelines, repr(now))
        if opened.problems:
            raise dg.Failure("\n".join(opened.problems.values()), allow_retries=False)
        return dg.SkipReason(said)

    def _ask(context: dg.SensorEvaluationContext, pipelines: Pipelines, state: str) -> str:
        files = ", ".join(
            str(file.path)
            for file in {**loaded, **pipelines}
            if _config(loaded, file) != _config(pipelines, file)
        )
        reason = ""
        if _names(loaded.values()) != _names(pipelines.values()):
            reason = f"restart the code server: {files} changed the set of assets"
        # Values are followed without a reload; it only refreshes what the UI shows.
        if reason or state not in asked:
            asked.add(state)
            thread = threading.Thread(
                target=_reload,
                args=(_location(context), machine, reason, context.log),
                daemon=True,
            )
            thread.start()
        return f"changed since the code was loaded: {files}"

    return sensor


def _config(pipelines: Pipelines, file: PipelineFile) -> object:
    hourly = pipelines.get(file)
    return hourly and hourly.config


def _location(context: dg.SensorEvaluationContext) -> str:
    origin = context.code_location_origin
    return origin.location_name if origin else LOCATION


def _reload(location: str, machine: Settings, reason: str, log: Logger) -> None:
    """Ask for a reload; if it is refused, note the reason. After a reload, the next tick removes the note."""
    time.sleep(_TICK_ENDS_S)
    if reload_code(machine.api.dagster_url or WEBSERVER, location) or not reason:
        return
    try:
        note_restart(machine.data_dir, reason)
    except ObsError as error:
        log.warning("%s (%s)", reason, error)
