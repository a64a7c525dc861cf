"""``obs land`` and ``obs build``: Dagster's own commands, with the settings under which their runs appear in the UI."""

import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from obs_assets import settings
from obs_assets.cli.app import AsJson, Hours, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.demo.steps import last_error
from obs_assets.embedded import exports
from obs_assets.errors import ConfigurationError, PermanentError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import DEFAULT_PIPELINE
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour, parse_hours
from obs_assets.sources.log import read_pass
from obs_assets.storage.disk import make_private_dir

MODULE = ("-m", "obs_assets.definitions")


@app.command()
def land(pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Land new events of the event files, as a run of Dagster that its UI shows."""
    hourly = hourly_pipeline(pipeline_name)
    before = _passes(hourly)
    _dagster(
        hourly, "land", "job", "execute", *MODULE, "-j", _named(hourly, "_", "land_event_files")
    )
    passes = [read_pass(path) for path in sorted(_passes(hourly) - before)]
    rows: Counter[str] = Counter()
    for landing in passes:
        rows.update({key: hour.rows for key, hour in landing.hours.items()})
    dead = sum(count for landing in passes for count in landing.dead_letters.values())
    if as_json:
        print_json({"hours": dict(sorted(rows.items())), "dead_letters": dead})
        return
    for key, count in sorted(rows.items()):
        out.print(f"{key}  {count:,} events landed", highlight=False)
    if not passes:
        out.print("nothing is new in the event files")
    if dead:
        out.print(f"{dead:,} dead letters: see `obs dead-letters list`", highlight=False)


@app.command()
def build(hours: Hours, pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Build hours that have landed, up to every destination, as one run of Dagster that its UI shows."""
    hourly = hourly_pipeline(pipeline_name)
    asked = _begun(hourly, parse_hours(hours))
    assets = (*STAGES, *hourly.destination_names)
    selected = ",".join(_named(hourly, "/", name) for name in assets)
    partitions = ("--partition", asked[0].key)
    if len(asked) > 1:
        partitions = ("--partition-range", f"{asked[0]}...{asked[-1]}")
    began = time.monotonic()
    _dagster(
        hourly, "build", "asset", "materialize", *MODULE, "--select", selected, *partitions
    )
    names = ("landed", *hourly.destination_names)
    held = {hour.key: dict(zip(names, _held(hourly, hour), strict=True)) for hour in asked}
    if as_json:
        print_json(held)
        return
    for key, counts in held.items():
        said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        out.print(f"{key}  {said}", highlight=False)
    out.print(f"{time.monotonic() - began:.0f} s", highlight=False)


def _held(hourly: HourlyPipeline, hour: Hour) -> list[int]:
    """Events of an hour that have landed, and those that each destination holds, written now or before."""
    receipts = [hourly.store.read_receipt(name, hour) for name in hourly.destination_names]
    held = [receipt.kept + receipt.other.get("already there", 0) for receipt in receipts]
    return [hourly.store.read_receipt("raw_events", hour).taken, *held]


def _begun(hourly: HourlyPipeline, asked: list[Hour]) -> list[Hour]:
    """Those hours that the pipeline has: from its start to the present one."""
    first, last = hourly.config.first_hour, Hour.of(datetime.now(UTC))
    begun = [hour for hour in asked if first <= hour <= last]
    if not begun:
        raise ConfigurationError(
            f"{asked[0]} is not between {first}, the pipeline's start, and {last}, the present hour"
        )
    return begun


def _named(hourly: HourlyPipeline, between: str, name: str) -> str:
    """An asset or a job of this pipeline, as Dagster calls it."""
    return name if hourly.name == DEFAULT_PIPELINE else f"{hourly.name}{between}{name}"


def _passes(hourly: HourlyPipeline) -> set[Path]:
    return set(hourly.log.passes_dir.glob("*/pass.json"))


def _dagster(hourly: HourlyPipeline, name: str, *arguments: str) -> None:
    """Run one of Dagster's commands; its output goes into a file.

    Raises:
        PermanentError: it failed; holds its reason and the file's path.
    """
    environment = settings.environment()
    log = make_private_dir(hourly.settings.data_dir / "logs") / f"{name}.log"
    with log.open("wb") as output:
        done = subprocess.run(  # noqa: S603 - our own program
            [str(Path(sys.executable).parent / "dagster"), *arguments],
            env={**environment, **exports.for_dagster(hourly.settings.data_dir, environment)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        reason = (
            last_error(log.read_text(errors="replace"))
            or f"dagster ended with {done.returncode}"
        )
        raise PermanentError(f"{name} failed: {reason} (everything it printed: {log})")
