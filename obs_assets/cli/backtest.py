"""``obs backtest``: dry-run alert rules over past hours; nothing is sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from pydantic import TypeAdapter, ValidationError

from obs_assets.alerts import AlertRule
from obs_assets.alerts.backtest import RuleOutcome, Simulation, backtest, report
from obs_assets.cli.app import AsJson, Hours, Pipeline, app, hourly_pipeline, out, print_json
from obs_assets.config import mapping_or_yaml_file
from obs_assets.delivery.kinds import asset_name, kind_of
from obs_assets.errors import ConfigurationError, MissingFrameError
from obs_assets.events import Frame
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import explain
from obs_assets.hours import Hour, parse_hours
from obs_assets.storage.engine import connect

if TYPE_CHECKING:
    from obs_assets.destinations.webhook import WebhookConfig


@app.command("backtest")
def backtest_rules(
    hours: Hours,
    rules: Annotated[
        Path, typer.Option(help="A YAML file with a list `rules:`, as in the pipeline file.")
    ],
    destination: Annotated[
        str, typer.Option(help="The webhook destination whose present rules are compared.")
    ] = "webhook_alerts",
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Dry-run alert rules over hours that were built, beside the present rules.

    Nothing is sent and nothing is stored.
    """
    hourly = hourly_pipeline(pipeline_name)
    block = _webhook(hourly, destination)
    # PagerDuty keeps an incident for each alert, so each alert gets its own message.
    each = block.receiver == "pagerduty"
    candidate = Simulation(_read(rules), block.batch_size, each)
    present = Simulation(block.rules, block.batch_size, each)
    asked = parse_hours(hours)
    frame = f"{block.from_}_events"
    # Other hours are counted and left out: a dry run builds nothing.
    built = [hour for hour in asked if hourly.store.frame_path(frame, hour).exists()]

    @contextmanager
    def open_frame(hour: Hour) -> Iterator[Frame]:
        with connect(hourly.store.temp_dir) as connection:
            yield hourly.offer(connection, destination, hour).frame

    backtest(built, open_frame, candidate, present)
    outcomes = candidate.outcomes(destination)
    present_outcomes = present.outcomes(destination)
    if as_json:
        print_json(
            {
                "hours": len(built),
                "rules": [_as_json(outcome) for outcome in outcomes],
                "now": [_as_json(outcome) for outcome in present_outcomes],
            }
        )
        return
    if not built:
        raise MissingFrameError(f"no hour of {hours} was built: materialize {frame} first")
    missing = len(asked) - len(built)
    text = report(rules.name, built, missing, outcomes, present_outcomes)
    out.print(text, highlight=False)


def _as_json(outcome: RuleOutcome) -> dict[str, object]:
    """The fields of an outcome, with hours as Dagster's keys."""
    values = asdict(outcome)
    values["firing_hours"] = [hour.key for hour in outcome.firing_hours]
    values["dispatches"] = [
        {**asdict(dispatch), "hour": dispatch.hour.key} for dispatch in outcome.dispatches
    ]
    return values


def _webhook(hourly: HourlyPipeline, name: str) -> "WebhookConfig":
    for block in hourly.config.destinations:
        if asset_name(block) == name and kind_of(block).alerts:
            return cast("WebhookConfig", block)
    raise ConfigurationError(f"no webhook is called {name!r}: say --destination")


def _read(path: Path) -> list[AlertRule]:
    try:
        document = mapping_or_yaml_file(path)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    # The list may also be the whole document.
    rules: object = document
    if isinstance(document, dict):
        rules = document.get("rules")
    try:
        return TypeAdapter(list[AlertRule]).validate_python(rules)
    except ValidationError as error:
        lines = [f"{path}: rules.{line}" for line in explain(error)]
        raise ConfigurationError("\n".join(lines)) from None
