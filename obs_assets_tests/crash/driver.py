"""One hour from files to every destination, in a process of its own that may be killed.

Whatever differs between two landings of the same files is held still here, so that a run that was killed and repeated
can be compared byte for byte with one that was not.
"""

import itertools
import os
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import Any

from obs_assets import settings
from obs_assets.hourly import pipeline, pipeline_files
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import parse_hour
from obs_assets.sources.landing import Origin, land
from obs_assets_tests.harness import build

NOW = datetime(2025, 12, 4, 18, 0, tzinfo=UTC)

HERE = {
    "hostname": "here",
    "platform": "linux",
    "arch": "x86_64",
    "process_id": 7,
    "python_version": "3",
}
"""The process that lands, the same in every run."""

# Forked from a server that has imported everything: a real process for each run, and no second of imports.
_processes = get_context("forkserver")
_processes.set_forkserver_preload(
    [__name__, "boto3", "pandas", "pyarrow.compute", "pyarrow.pandas_compat"]
)


def run_hour(env: Mapping[str, str], key: str, crash_at: str = "") -> int:
    """Run an hour with this environment; returns the exit code, -9 if it was killed."""
    return _end_of(_run, {**env, "OBS_CRASH_AT": crash_at}, key)


def run_replay(env: Mapping[str, str], crash_at: str = "") -> int:
    """Replay all dead letters with this environment; returns the exit code, -9 if it was killed."""
    return _end_of(_replay, {**env, "OBS_CRASH_AT": crash_at})


def run_expiry(env: Mapping[str, str], now: datetime, crash_at: str = "") -> int:
    """Close hours up to ``now`` and remove what has expired; returns the exit code."""
    return _end_of(_expire, {**env, "OBS_CRASH_AT": crash_at}, now)


def _end_of(target: Callable[..., None], *arguments: Any) -> int:
    process = _processes.Process(target=target, args=arguments)
    process.start()
    process.join(timeout=60)
    code = process.exitcode
    process.kill()
    process.join()
    process.close()
    assert code is not None, "the run does not end"
    return code


def _run(env: Mapping[str, str], key: str) -> None:
    hourly = _hourly(env)
    _hold_still()
    first = hourly.config.first_hour
    land(hourly.source, hourly.log, first_hour=first, now=NOW, origin=Origin(collector=HERE))
    build(hourly, parse_hour(key))


def _expire(env: Mapping[str, str], now: datetime) -> None:
    hourly = _hourly(env)
    hourly.land(now=now)
    hourly.expire(now)


def _replay(env: Mapping[str, str]) -> None:
    _hourly(env).replay()


def _hourly(env: Mapping[str, str]) -> HourlyPipeline:
    os.environ.clear()
    os.environ.update(env)
    return HourlyPipeline(pipeline.load(pipeline_files.find().path), settings.load())


def _hold_still() -> None:
    numbers = itertools.count(1)
    uuid.uuid4 = lambda: uuid.UUID(int=next(numbers))
