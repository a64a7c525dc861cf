"""Rules over a frame."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import yaml
from pydantic import ValidationError

from obs_assets.alerts import AlertRule, matching, with_rule
from obs_assets.destinations.webhook import WebhookConfig
from obs_assets.events import Frame, with_columns
from obs_assets.hourly import pipeline

EVENTS: list[dict[str, Any]] = [
    {"id": "a", "level": "error", "type": "task_failed"},
    {"id": "b", "level": "info", "type": "task_completed"},
    {"id": "c", "severity": "FATAL", "type": "crash"},
    {"id": "d", "type": "task_failed"},
    {"id": "e", "level": "WARN", "type": "slow's"},
    {"id": "f"},
]


@pytest.fixture
def frame() -> Iterator[Frame]:
    with duckdb.connect() as connection:
        moment = datetime(2025, 12, 4, 10, tzinfo=UTC)
        rows = [
            {
                "row_uid": f"{offset:032x}",
                "event_time": moment,
                "file_id": "f",
                "file_offset": offset,
                "landed_at": moment,
                "event": json.dumps(event),
            }
            for offset, event in enumerate(EVENTS)
        ]
        yield with_columns(connection.from_arrow(pa.Table.from_pylist(rows)))


def ids(frame: Frame) -> str:
    return "".join(event_id for (event_id,) in frame.project("event_id").fetchall())


def test_the_default_rule_takes_errors_in_order(frame: Frame) -> None:
    """Error, critical and fatal events alert, whatever they call their level and in whatever case."""
    assert ids(matching(frame, AlertRule())) == "ac"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (AlertRule(levels=("WARN",)), "e"),
        (AlertRule(levels=("warning",)), "e"),
        (AlertRule(levels=(), types=("task_failed",)), "ad"),
        (AlertRule(levels=("error",), types=("crash",)), ""),
        (AlertRule(levels=(), types=("slow's",)), "e"),
        (AlertRule(levels=()), "abcdef"),
        (AlertRule(enabled=False), ""),
    ],
)
def test_levels_and_types_must_both_match(frame: Frame, rule: AlertRule, expected: str) -> None:
    """An empty list asks nothing, a disabled rule matches nothing, a missing level or type matches no name."""
    assert ids(matching(frame, rule)) == expected


def test_the_first_rule_takes_the_event(frame: Frame) -> None:
    """Every row stays, labelled with the first rule that matches it, so that matched and unmatched add up."""
    rules = (
        AlertRule(name="it's bad"),
        AlertRule(name="tasks", levels=(), types=("task_failed",)),
    )
    labels = [label for (label,) in with_rule(frame, rules).project("rule").fetchall()]
    assert labels == ["it's bad", None, "it's bad", "tasks", None, None]


def test_no_rule_labels_nothing(frame: Frame) -> None:
    """Without rules every event is there and none alerts."""
    assert with_rule(frame, ()).project("rule").fetchall() == [(None,)] * len(EVENTS)


def test_an_unknown_option_is_refused() -> None:
    """A condition that this version does not know is an error, not a rule that is wider than meant."""
    with pytest.raises(ValidationError):
        AlertRule.model_validate({"threshold": 3})


def test_the_page_of_alerts_shows_rules_that_load() -> None:
    """The example of docs/alerts.md is a valid block, its summary untouched until an alert fires."""
    page = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
    block = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    values = pipeline.render({"destinations": block}, {"WEBHOOK_URL": "https://example.com/"})
    (webhook,) = pipeline.parse(values).destinations
    assert isinstance(webhook, WebhookConfig)
    assert [rule.measures for rule in webhook.rules] == [False, True, True, True, True]
    assert "{{ value" in str(webhook.rules[3].summary)
