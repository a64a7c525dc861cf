"""A pipeline from event files to trusted hours.

The way of the data through this package, a line for each stage::

    sources/      event files  ─▶ landed_events     byte ranges, split by hour; dead letters
    hourly/       landed       ─▶ raw_events        the typed frame, sorted by (event_time, row_uid)
    transforms/   raw          ─▶ enriched_events   duration, cost, context
                  enriched     ─▶ redacted_events   no personal data, no secrets
                  redacted     ─▶ sampled_events    filtered, then sampled with weights
    destinations/ sampled      ─▶ postgres_events   a table
                  sampled      ─▶ s3_archive        a .jsonl.gz object for each hour
                  redacted     ─▶ webhook_alerts    dispatches, each sent once

`hourly/` builds an hour stage by stage, under a lock, and writes a receipt after each frame.
`components/` turns the stages into Dagster assets; no other folder imports Dagster.
docs/architecture.md has a picture of the folders.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obs_assets.components import pipeline_definitions
    from obs_assets.hourly.pipeline import PipelineConfig
    from obs_assets.hourly.read_hour import read_hour

__version__ = "0.1.0"
__all__ = ["PipelineConfig", "__version__", "pipeline_definitions", "read_hour"]

_HOMES = {
    "PipelineConfig": "obs_assets.hourly.pipeline",
    "pipeline_definitions": "obs_assets.components",
    "read_hour": "obs_assets.hourly.read_hour",
}


def __getattr__(name: str) -> Any:
    # To import Dagster takes seconds, so a script that needs only a configuration does not import it.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
