"""Everything that Dagster loads: the pipelines of `obs_assets.hourly.pipeline_files`. Wiring, nothing else."""

import atexit
import functools
import gc

import dagster as dg

from obs_assets.components.project import project_definitions


@dg.definitions
@functools.cache
def defs() -> dg.Definitions:
    """The pipelines of this code location, made once in a process: Dagster asks for them seven times in a run."""
    found = project_definitions()
    # What is loaded now stays until the process ends. The garbage collector would look at all of it again
    # and again: a seventh of the processor time of a run that builds a tiny hour.
    gc.freeze()
    # Without this, DuckDB reports objects that are left when the process ends.
    atexit.register(gc.unfreeze)
    return found
