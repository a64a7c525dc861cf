"""Everything that Dagster loads: the pipelines of `obs_assets.hourly.pipeline_files`. Wiring, nothing else."""

import dagster as dg

from obs_assets.components.project import project_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """The pipelines of this code location."""
    return project_definitions()
