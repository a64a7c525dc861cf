"""Everything that Dagster loads: the pipelines below ``defs/``. Wiring, nothing else."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """The pipelines of this code location."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
