"""The parts of a running server that its routes share."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from obs_assets.api.access import Access
from obs_assets.api.counters import Counters
from obs_assets.api.metrics import Metrics
from obs_assets.api.reader import Limits, Reader
from obs_assets.api.serving import Stop
from obs_assets.destinations.postgres import PostgresDestination
from obs_assets.hourly.hourly_pipeline import HourlyPipeline

if TYPE_CHECKING:
    from obs_assets.api.live import Hub


@dataclass
class Served:
    """A running server.

    Attributes:
        hourly: the pipeline whose table is searched.
        table: the table.
        limits: how much is done at a time.
        counters: the server's own metrics.
        metrics: the metrics of the pipeline.
        access: decides who asks.
        stop: the end of the process.
        pipeline_folder: folder of the pipeline file, which may hold saved searches; None if it has no file.
        began_at: when the server was made, by `time.monotonic`.
        reader: asks questions of the table; it is made when the server starts.
        hub: follows the table for live streams; it is made when the server starts.
    """

    hourly: HourlyPipeline
    table: PostgresDestination
    limits: Limits
    counters: Counters
    metrics: Metrics
    access: Access
    stop: Stop
    pipeline_folder: Path | None = None
    began_at: float = field(default_factory=time.monotonic)
    reader: Reader = field(init=False)
    hub: "Hub" = field(init=False)


def served(connection: HTTPConnection) -> Served:
    """The parts of the server that a request came to."""
    # A request that has begun goes on with the same parts, although the pipeline file changes.
    found: Served = connection.scope.setdefault("obs_served", connection.app.state.served)
    return found
