"""``obs backtest``: alert rules over hours that were built, without anybody to tell."""

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
        str, typer.Option(help="The webhook whose present rules are compared.")
    ] = "webhook_alerts",
    pipeline_name: Pipeline = "",
    as_json: AsJson = False,
) -> None:
    """Say what alert rules would have told over hours that were built. Nothing is sent and nothing is kept."""
    hourly = hourly_pipeline(pipeline_name)
    block = _webhook(hourly, destination)
    tried = _read(rules)
    each = block.receiver == "pagerduty"
    candidate, present = (
        Simulation(some, block.batch_size, each) for some in (tried, block.rules)
    )
    asked = parse_hours(hours)
    built = [
        hour
        for hour in asked
        if hourly.store.frame_path(f"{block.from_}_events", hour).exists()
    ]

    @contextmanager
    def open_frame(hour: Hour) -> Iterator[Frame]:
        with connect(hourly.store.temp_dir) as connection:
            yield hourly.offer(connection, destination, hour).frame

    backtest(built, open_frame, candidate, present)
    outcomes, before = candidate.outcomes(destination), present.outcomes(destination)
    if as_json:
        print_json(
            {
                "hours": len(built),
                "rules": [_plain(o) for o in outcomes],
                "now": [_plain(o) for o in before],
            }
        )
        return
    if not built:
        raise MissingFrameError(
            f"no hour of {hours} was built: materialize {block.from_}_events first"
        )
    out.print(
        report(rules.name, built, len(asked) - len(built), outcomes, before), highlight=False
    )


def _plain(outcome: RuleOutcome) -> dict[str, object]:
    values = asdict(outcome)
    values["firing_hours"] = [hour.key for hour in outcome.firing_hours]
    values["dispatches"] = [
        {**asdict(told), "hour": told.hour.key} for told in outcome.dispatches
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
    rules = document.get("rules") if isinstance(document, dict) else document
    try:
        return TypeAdapter(list[AlertRule]).validate_python(rules)
    except ValidationError as error:
        raise ConfigurationError(
            "\n".join(f"{path}: rules.{line}" for line in explain(error))
        ) from None
