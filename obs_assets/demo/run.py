"""The demonstration from start to end: files, hours, destinations, the same again, a report."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console

from obs_assets import embedded, settings
from obs_assets.demo import compare, measure, report
from obs_assets.demo.folder import EVENTS, LOGS, fresh
from obs_assets.demo.receiver import Receiver
from obs_assets.demo.samples import write_samples
from obs_assets.demo.steps import StepFailedError, Steps
from obs_assets.embedded.dagster_home import dagster_home
from obs_assets.hourly import pipeline_files
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour, first_open_hour, hours_between
from obs_assets.settings import Settings
from obs_assets.sources.log import read_pass

HOURS = 9

_LEADS_AWAY = re.compile(
    r"(AWS|DAGSTER|OBS|POSTGRES|WEBHOOK)_|PG[A-Z]|.*_proxy$", re.IGNORECASE
)
"""Variables that lead to other servers than the demonstration's own, all of which are on this machine."""

_ELSEWHERE = ("AWS_S3_BUCKET", "DAGSTER_HOME", "OBS_EVENTS_DIR", "POSTGRES_HOST")


@dataclass(frozen=True)
class _Machine:
    """The demonstration's own settings, and the environment that says the same to Dagster."""

    settings: Settings
    env: Mapping[str, str]


def run(console: Console, data_dir: Path, *, keep: bool) -> None:
    """Run the demonstration.

    Args:
        console: for progress and report.
        data_dir: all its data; an earlier demonstration's is removed.
        keep: leave the servers running.

    Raises:
        ConfigurationError: the folder is not the demonstration's, or a server cannot run here.
        ObsError: a step failed, or its outcome is not what it should be.
    """
    with fresh(data_dir):
        try:
            with Receiver() as receiver:
                _demonstrate(console, data_dir, receiver)
        finally:
            if not keep:
                embedded.stop(data_dir)
        _say_what_next(console, data_dir, keep=keep)


def _demonstrate(console: Console, data_dir: Path, receiver: Receiver) -> None:
    steps = Steps(console, data_dir / LOGS)
    with steps.step("start PostgreSQL and an S3 server"):
        machine = _start(data_dir, receiver.url)
    hourly = pipeline_files.find(env=machine.env).open(machine.env, machine.settings)
    first, last = _span(datetime.now(UTC), hourly.config.allowed_lateness)
    with steps.step(f"write a day of events into {data_dir / EVENTS}"):
        planted = write_samples(data_dir / EVENTS, first, HOURS)

    def dagster(title: str, *arguments: str) -> None:
        # Not in the project's folder: Dagster would read a .env there, which may name servers of the user's.
        steps.run(title, "dagster", *arguments, env=machine.env, cwd=data_dir)

    dagster(
        "land the files",
        "job",
        "execute",
        "-m",
        "obs_assets.definitions",
        "-j",
        "land_event_files",
    )
    landing = read_pass(next(hourly.log.passes_dir.glob("*/pass.json")))
    report.print_landing(console, landing, planted)
    _refuse(compare.landing_differences(planted, landing))

    hours = ("--select", "*", "--partition-range", f"{first}...{last}")
    materialize = ("asset", "materialize", "-m", "obs_assets.definitions", *hours)
    dagster(f"materialize {HOURS} hours", *materialize)
    receipts = _receipts(hourly, list(hours_between(first, last.next)))
    before = measure.holdings(machine.settings, receiver.requests)
    dagster("materialize them again", *materialize)
    after = measure.holdings(machine.settings, receiver.requests)
    report.print_repetition(console, before, after)
    if before != after:
        raise StepFailedError(
            "the second run of the same hours changed something: see the table above"
        )

    report.print_receipts(console, receipts)
    _refuse(compare.differences(planted, receipts, after))
    console.print(
        "[green]✓[/] every count is the one that was planted in the event files",
        highlight=False,
    )
    for query, columns in measure.QUERIES.items():
        report.print_answer(console, query, columns, measure.ask(machine.settings, query))
    report.print_objects(console, after)
    report.print_alerts(console, receiver.requests)
    text = after.delivered + measure.redacted_text(hourly, list(receipts))
    leaked = [value for value in planted.personal if value in text]
    console.print(
        f"\n[bold]Personal data[/]: a search of all redacted events, the table, the objects and the alerts found "
        f"{len(leaked)} of {len(planted.personal)} planted values",
        highlight=False,
    )
    if leaked:
        raise StepFailedError(
            f"{len(leaked)} planted personal values are still there after redaction"
        )


def _start(data_dir: Path, webhook_url: str) -> _Machine:
    own = {
        "OBS_DATA_DIR": str(data_dir),
        "OBS_EVENTS_DIR": str(data_dir / EVENTS),
        "WEBHOOK_URL": webhook_url,
        "OBS_WEBHOOK_ALLOW_PRIVATE": "1",
        pipeline_files.VARIABLE: str(pipeline_files.PACKAGED_DIR),  # whatever ./pipelines holds
    }
    env = {**_harmless(settings.environment()), **own, **dagster_home(data_dir)}
    return _Machine(embedded.resolve(settings.load(env)), env)


def _harmless(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not _LEADS_AWAY.match(name)}


def _span(now: datetime, allowed_lateness: timedelta) -> tuple[Hour, Hour]:
    """First and last of the hours that have just closed."""
    last = first_open_hour(now, allowed_lateness).previous
    return Hour(last.start - timedelta(hours=HOURS - 1)), last


def _refuse(differences: list[str]) -> None:
    """Fail if the outcome differs from what was written into the files."""
    if differences:
        others = (
            f" (and {len(differences) - 1:,} more differences)" if len(differences) > 1 else ""
        )
        raise StepFailedError(
            f"the outcome is not what the event files hold: {differences[0]}{others}"
        )


def _receipts(hourly: HourlyPipeline, hours: list[Hour]) -> compare.Receipts:
    names = [*STAGES, *hourly.destination_names]
    return {
        hour: {name: hourly.store.read_receipt(name, hour).check() for name in names}
        for hour in hours
    }


def _say_what_next(console: Console, data_dir: Path, *, keep: bool) -> None:
    unset = "".join(f"-u {name} " for name in _ELSEWHERE if settings.environment().get(name))
    here = f"{f'env {unset}' if unset else ''}OBS_DATA_DIR={shlex.quote(_short(data_dir))}"
    if keep:
        for server in embedded.status(data_dir):
            console.print(f"{server.name} runs at {server.address}", highlight=False)
        console.print(
            f"Ask with psql:          [bold]{here} .venv/bin/obs psql[/]",
            highlight=False,
            soft_wrap=True,
        )
        console.print(
            f"Stop the servers:       [bold]{here} .venv/bin/obs down[/]",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"See it in Dagster's UI: [bold]{here} make dev[/]", highlight=False, soft_wrap=True
    )


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
