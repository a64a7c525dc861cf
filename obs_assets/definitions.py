"""Everything that Dagster loads: the pipelines of `obs_assets.hourly.pipeline_files`. Wiring, nothing else."""

import functools

import dagster as dg

from obs_assets.components.project import project_definitions


@dg.definitions
@functools.cache
def defs() -> dg.Definitions:
    """The pipelines of this code location, made once in a process: Dagster asks for them seven times in a run."""
    return project_definitions()
