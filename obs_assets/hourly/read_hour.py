"""Reads an hour as a pandas DataFrame, for notebooks."""

import pandas as pd

from obs_assets.hourly.pipeline_files import open_pipeline
from obs_assets.hours import parse_hour
from obs_assets.storage.engine import connect


def read_hour(
    stage: str,
    hour: str,
    pipeline_name: str = "",
) -> pd.DataFrame:
    """One hour of a stage.

    Args:
        stage: ``raw_events``, ``enriched_events``, ``redacted_events`` or ``sampled_events``.
        hour: Dagster's key, ``2025-12-04-10:00``.
        pipeline_name: the name of the pipeline's folder; by default the only pipeline, or the
            pipeline without a prefix.

    Returns:
        Arrow-backed columns, see `obs_assets.events`; ``event`` is the whole event as JSON text.

    Raises:
        MissingFrameError: the stage has not built the hour.
    """
    hourly = open_pipeline(pipeline_name)
    with connect(hourly.store.temp_dir) as connection:
        frame = hourly.store.read_frame(connection, stage, parse_hour(hour))
        hour_of_stage: pd.DataFrame = frame.to_arrow_table().to_pandas(
            types_mapper=pd.ArrowDtype
        )
    return hour_of_stage
