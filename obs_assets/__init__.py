"""Event files in, trusted hours out.

The data's way through this package, a line a stage::

    sources/      event files  ─▶ landed_events     byte ranges, split by hour; what cannot be read is a dead letter
    hourly/       landed       ─▶ raw_events        the typed frame, sorted by (event_time, row_uid)
    transforms/   raw          ─▶ enriched_events   duration, cost, context
                  enriched     ─▶ redacted_events   no personal data, no secrets
                  redacted     ─▶ sampled_events    filtered, then sampled with weights
    destinations/ sampled      ─▶ postgres_events   a table
                  sampled      ─▶ s3_archive        one .jsonl.gz object an hour
                  redacted     ─▶ webhook_alerts    dispatches, each once

`hourly/` takes an hour that way, under a lock, with a receipt after each frame. `components/` turns the stages into
Dagster assets; nothing else here knows Dagster. docs/architecture.md has a picture of the folders.
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
    # Importing Dagster takes seconds: whoever only asks for a configuration does not pay for it.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
