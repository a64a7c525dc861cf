"""The demonstration from start to end: write files, land, materialize twice, compare, report."""

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
from obs_assets.receipts import Receipt
from obs_assets.settings import Settings
from obs_assets.sources.log import read_pass

HOURS = 9
"""Number of hours that the sample events span."""

_LEADS_AWAY = re.compile(
    r"(AWS|DAGSTER|OBS|POSTGRES|WEBHOOK)_|PG[A-Z]|.*_proxy$", re.IGNORECASE
)
"""Variables that can name other servers or proxies; the demonstration uses only its own servers."""

_ELSEWHERE = ("AWS_S3_BUCKET", "DAGSTER_HOME", "OBS_EVENTS_DIR", "POSTGRES_HOST")
"""Variables that `make dev` and `obs` must not have to open the demonstration's data."""


@dataclass(frozen=True)
class _Machine:
    """The demonstration's own settings.

    Attributes:
        settings: for this process.
        env: the same settings as environment, for Dagster's commands.
    """

    settings: Settings
    env: Mapping[str, str]


def run(
    console: Console,
    data_dir: Path,
    *,
    keep: bool,
) -> None:
    """Run the demonstration.

    Args:
        console: for progress and report.
        data_dir: folder of all its data; data of an earlier demonstration is removed.
        keep: whether to leave the servers running.

    Raises:
        ConfigurationError: the folder is not the demonstration's, or a server cannot run here.
        ObsError: a step failed, or its outcome differs from the expected outcome.
    """
    with fresh(data_dir):
        # Also after a failure: a demonstration must leave no server behind.
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
        # Not in the project's folder: Dagster would read a .env there, which can name the user's servers.
        steps.run(
            title,
            "dagster",
            *arguments,
            env=machine.env,
            cwd=data_dir,
        )

    module = ("-m", "obs_assets.definitions")
    dagster("land the files", "job", "execute", *module, "-j", "land_event_files")
    landing = read_pass(next(hourly.log.passes_dir.glob("*/pass.json")))
    report.print_landing(console, landing, planted)
    _refuse(compare.landing_differences(planted, landing))

    hours = ("--select", "*", "--partition-range", f"{first}...{last}")
    materialize = ("asset", "materialize", *module, *hours)
    dagster(f"materialize {HOURS} hours", *materialize)
    receipts = _receipts(hourly, list(hours_between(first, last.next)))
    # The second run must change nothing: the destinations are compared before and after it.
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
        "[green]✓[/] every count equals the count in the event files",
        highlight=False,
    )
    for query, columns in measure.QUERIES.items():
        report.print_answer(
            console,
            query,
            columns,
            measure.ask(machine.settings, query),
        )
    report.print_objects(console, after)
    report.print_alerts(console, receiver.requests)
    # A plain search for the text of each value, so that no rule of redaction is used to test redaction.
    text = after.delivered + measure.redacted_text(hourly, list(receipts))
    leaked = [value for value in planted.personal if value in text]
    console.print(
        f"\n[bold]Personal data[/]: a search of all redacted events, the table, the objects "
        f"and the alerts found {len(leaked)} of {len(planted.personal)} planted values",
        highlight=False,
    )
    if leaked:
        raise StepFailedError(f"redaction missed {len(leaked)} planted personal values")


def _start(data_dir: Path, webhook_url: str) -> _Machine:
    own = {
        "OBS_DATA_DIR": str(data_dir),
        "OBS_EVENTS_DIR": str(data_dir / EVENTS),
        "WEBHOOK_URL": webhook_url,
        "OBS_WEBHOOK_ALLOW_PRIVATE": "1",
        # The packaged example, even where there is a folder ./pipelines.
        pipeline_files.VARIABLE: str(pipeline_files.PACKAGED_DIR),
    }
    env = {
        **_harmless(settings.environment()),
        **own,
        **dagster_home(data_dir),
    }
    return _Machine(embedded.resolve(settings.load(env)), env)


def _harmless(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not _LEADS_AWAY.match(name)}


def _span(now: datetime, allowed_lateness: timedelta) -> tuple[Hour, Hour]:
    """The first and the last of the `HOURS` hours that closed most recently."""
    # Closed hours only: checks and alerts treat an open hour as incomplete.
    last = first_open_hour(now, allowed_lateness).previous
    return Hour(last.start - timedelta(hours=HOURS - 1)), last


def _refuse(differences: list[str]) -> None:
    """Fail if the outcome differs from the content of the event files."""
    if not differences:
        return
    others = len(differences) - 1
    more = ""
    if others:
        more = f" (and {others:,} more differences)"
    raise StepFailedError(f"the outcome differs from the event files: {differences[0]}{more}")


def _receipts(hourly: HourlyPipeline, hours: list[Hour]) -> compare.Receipts:
    names = [*STAGES, *hourly.destination_names]
    receipts: dict[Hour, dict[str, Receipt]] = {}
    for hour in hours:
        receipts[hour] = {name: hourly.store.read_receipt(name, hour).check() for name in names}
    return receipts


def _say_what_next(
    console: Console,
    data_dir: Path,
    *,
    keep: bool,
) -> None:
    """Print the commands that open the data."""
    environment = settings.environment()
    unset = "".join(f"-u {name} " for name in _ELSEWHERE if environment.get(name))
    prefix = f"OBS_DATA_DIR={shlex.quote(_short(data_dir))}"
    if unset:
        prefix = f"env {unset}{prefix}"
    lines = [f"See it in Dagster's UI: [bold]{prefix} make dev[/]"]
    if keep:
        servers = [
            f"{server.name} runs at {server.address}" for server in embedded.status(data_dir)
        ]
        lines = [
            *servers,
            f"Search in the explorer: [bold]{prefix} .venv/bin/obs serve[/], then open "
            f"http://127.0.0.1:{settings.load().api.port}",
            f"Ask with psql:          [bold]{prefix} .venv/bin/obs psql[/]",
            f"Stop the servers:       [bold]{prefix} .venv/bin/obs down[/]",
            *lines,
        ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _short(path: Path) -> str:
    """The path, relative to the working directory if it is below it."""
    if path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return str(path)
