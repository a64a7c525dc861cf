"""``obs land`` and ``obs build``: Dagster's own commands; their runs appear in its UI."""

import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from obs_assets import settings
from obs_assets.cli.app import (
    AsJson,
    Hours,
    Pipeline,
    app,
    counted,
    hourly_pipeline,
    out,
    print_json,
)
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
"""Arguments that name the code location to a command of Dagster."""

UNSENT_READ = 1000
"""Largest number of unsent dispatches that are read for a hint. Their bodies are read too."""


@app.command()
def land(pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Land new events of the event files, in a run that Dagster's UI shows."""
    hourly = hourly_pipeline(pipeline_name)
    # The run lands in another process, so its passes are found on disk.
    before = _passes(hourly)
    job = _named(hourly, "_", "land_event_files")
    _dagster(hourly, "land", "job", "execute", *MODULE, "-j", job)
    passes = [read_pass(path) for path in sorted(_passes(hourly) - before)]
    # Two passes of the same run can bring events of the same hour.
    rows: Counter[str] = Counter()
    dead = 0
    for landing in passes:
        rows.update({key: hour.rows for key, hour in landing.hours.items()})
        dead += sum(landing.dead_letters.values())
    if as_json:
        print_json({"hours": dict(sorted(rows.items())), "dead_letters": dead})
        return
    for key, count in sorted(rows.items()):
        out.print(f"{key}  {counted(count, 'event')} landed", highlight=False)
    if not passes:
        out.print("nothing is new in the event files")
    if dead:
        option = f" --pipeline {pipeline_name}" if pipeline_name else ""
        hint = f"see `obs dead-letters list{option}`"
        out.print(f"{counted(dead, 'dead letter')}: {hint}", highlight=False)


@app.command()
def build(hours: Hours, pipeline_name: Pipeline = "", as_json: AsJson = False) -> None:
    """Build hours that have landed, up to every destination, in a run that Dagster's UI shows."""
    hourly = hourly_pipeline(pipeline_name)
    asked = _begun(hourly, parse_hours(hours))
    # The assets of other pipelines are in the same code location.
    assets = (*STAGES, *hourly.destination_names)
    selected = ",".join(_named(hourly, "/", name) for name in assets)
    partitions = ("--partition", asked[0].key)
    if len(asked) > 1:
        partitions = ("--partition-range", f"{asked[0]}...{asked[-1]}")
    began = time.monotonic()
    selection = ("--select", selected, *partitions)
    _dagster(hourly, "build", "asset", "materialize", *MODULE, *selection)
    counts = {hour.key: _counts(hourly, hour) for hour in asked}
    if as_json:
        print_json(counts)
        return
    unsent = _unsent(hourly)
    for key, counts_of_hour in counts.items():
        parts: list[str] = []
        for name, count in counts_of_hour.items():
            part = f"{name} {count:,}"
            if key in unsent.get(name, ()):
                part = f"{part} (recorded, not sent: see `obs alerts list`)"
            parts.append(part)
        out.print(f"{key}  {', '.join(parts)}", highlight=False)
    out.print(f"{time.monotonic() - began:.0f} s", highlight=False)


def _counts(hourly: HourlyPipeline, hour: Hour) -> dict[str, int]:
    """``landed`` and destination → number of the hour's events there, written now or before."""
    counts = {"landed": hourly.store.read_receipt("raw_events", hour).taken}
    for name in hourly.destination_names:
        # If an hour is built again, its events are not written: the destination holds them.
        receipt = hourly.store.read_receipt(name, hour)
        counts[name] = receipt.kept + receipt.other.get("already there", 0)
    return counts


def _unsent(hourly: HourlyPipeline) -> dict[str, set[str]]:
    """Webhook destination → keys of the hours with dispatches that are recorded and not sent."""
    unsent: dict[str, set[str]] = {}
    for name, outbox in hourly.outboxes().items():
        newest = outbox.dispatches("unsent", UNSENT_READ)
        unsent[name] = {Hour.of(dispatch.hour).key for dispatch in newest}
    return unsent


def _begun(hourly: HourlyPipeline, asked: list[Hour]) -> list[Hour]:
    """The asked hours between the pipeline's start and the present hour, both included."""
    # The present hour is allowed: it can be built while it is open.
    first, last = hourly.config.first_hour, Hour.of(datetime.now(UTC))
    begun = [hour for hour in asked if first <= hour <= last]
    if not begun:
        raise ConfigurationError(
            f"{asked[0]} is not between {first}, the pipeline's start, and {last}, the present hour"
        )
    return begun


def _named(hourly: HourlyPipeline, separator: str, name: str) -> str:
    """Dagster's name of an asset or a job, for example ``audit/raw_events``."""
    if hourly.name == DEFAULT_PIPELINE:
        return name
    return f"{hourly.name}{separator}{name}"


def _passes(hourly: HourlyPipeline) -> set[Path]:
    return set(hourly.log.passes_dir.glob("*/pass.json"))


def _dagster(hourly: HourlyPipeline, name: str, *arguments: str) -> None:
    """Run a command of Dagster; its output goes into ``logs/<name>.log``.

    Args:
        hourly: the pipeline; its data folder holds the log.
        name: name of the log, and of the command in errors.
        arguments: arguments of ``dagster``.

    Raises:
        PermanentError: it failed; the message has the reason and the path of the log.
    """
    machine = settings.environment()
    environment = {**machine, **exports.for_dagster(hourly.settings.data_dir, machine)}
    log = make_private_dir(hourly.settings.data_dir / "logs") / f"{name}.log"
    with log.open("wb") as output:
        # The program beside this Python, not another installation on PATH.
        program = str(Path(sys.executable).parent / "dagster")
        done = subprocess.run(  # noqa: S603 - our own program
            [program, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        output_text = log.read_text(errors="replace")
        reason = last_error(output_text) or f"dagster ended with {done.returncode}"
        raise PermanentError(f"{name} failed: {reason} (its full output: {log})")
