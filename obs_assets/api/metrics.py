"""The samples of `obs metrics`, for scrapers."""

import asyncio
import time
from datetime import UTC, datetime

from obs_assets.audit.metrics import exposition, measure
from obs_assets.hourly.hourly_pipeline import HourlyPipeline

METRICS_KEPT_S = 10.0
"""Seconds for which measured samples are given again: several scrapers must not read all receipts each time."""


class Metrics:
    """The samples of a pipeline, measured at most once in `METRICS_KEPT_S`."""

    def __init__(self, hourly: HourlyPipeline) -> None:
        self._hourly = hourly
        self._lock = asyncio.Lock()
        self._text = ""
        self._measured_at = -METRICS_KEPT_S

    async def text(self) -> str:
        """The samples in Prometheus' text format."""
        # A second scraper waits for the measurement that runs, and gets its samples.
        async with self._lock:
            if time.monotonic() - self._measured_at >= METRICS_KEPT_S:
                # In a thread: to read the receipts of a year takes seconds, and searches go on meanwhile.
                self._text = await asyncio.to_thread(self._measure)
                self._measured_at = time.monotonic()
        return self._text

    def _measure(self) -> str:
        return exposition(measure(self._hourly, datetime.now(UTC)))
