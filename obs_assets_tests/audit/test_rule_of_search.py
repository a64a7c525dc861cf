"""An alert rule that is made of a search matches the events that the search finds, or is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from obs_assets.alerts.rules import AlertRule, with_rule
from obs_assets.audit.rule_of_search import (
    refuse_other_events,
    rule_of,
    rule_text,
)
from obs_assets.errors import ConfigurationError
from obs_assets.events import count_by
from obs_assets.search.duckdb import matching_rows
from obs_assets.search.language import parse
from obs_assets.storage import engine
from obs_assets_tests.frames import HOUR, frame_of

EVENTS: list[dict[str, Any]] = [
    {"id": "1", "type": "task", "level": "error", "error": "refused", "duration_ms": 700},
    {"id": "2", "type": "task", "level": "warn", "usage": {"model": "a b"}},
    {"id": "3", "type": "beat", "level": "info", "duration_ms": 5, "n": 5, "worker": "w1"},
    {"id": "4", "type": "note", "n": "5", "worker_id": "w1", "usage": {"model": "x"}},
    {"id": "5", "type": " odd", "level": "fatal", "cost": 0.25, "trace_id": "t1"},
]

QUERIES = (
    "",
    "level:error",
    "level:WARN",
    "-level:error",
    "level:(error OR fatal)",
    "NOT type:task -type:beat",
    'usage.model:"a b"',
    "usage.model:*",
    "NOT error:*",
    "duration:>500",
    "duration:<=5 type:beat",
    "cost:>=0.25",
    "n:5",
    "worker:w1",
    "trace:t1 level:fatal",
    'type:" odd"',
    "REFUSED",
    '"fused" level:error',
    '"no such text"',
)


def test_rule_and_search_match_the_same_events(tmp_path: Path) -> None:
    """For equality, lists, numbers, presence, absence, names of levels, paths and blanks."""
    with engine.connect(temp_dir=tmp_path) as duck:
        frame = frame_of(duck, EVENTS)
        for text in QUERIES:
            query = parse(text)
            rule = rule_of(query, 0.0).model_copy(
                update={"name": "r", "levels": (), "above": None}
            )
            matched = count_by(with_rule(frame, [rule]), "rule").get("r", 0)
            assert matched == len(list(matching_rows(frame, query))), text


@pytest.mark.parametrize(
    "text",
    [
        "several words",
        "größe",
        "type:task_*",
        "level:error OR type:task",
        "-(level:error type:task)",
        'type:("a,b" OR c)',
        'type:(" a" OR c)',
        "row_uid:ab",
        "type:>a",
    ],
)
def test_a_search_that_a_rule_cannot_say_is_refused(text: str) -> None:
    """With a reason, and never with a rule that means something else."""
    with pytest.raises(ConfigurationError):
        rule_of(parse(text), 0)


def test_the_text_of_a_rule_can_be_pasted_into_a_pipeline_file() -> None:
    """It is read back as the same rule, odd signs too."""
    rule = rule_of(parse('level:error usage.model:"é: # \\"x\\""'), 3)
    (read,) = yaml.safe_load(rule_text(rule))["rules"]
    assert AlertRule.model_validate(json.loads(json.dumps(read))) == rule


@pytest.mark.parametrize(
    "text", ["tags:new", "-tags:new", "usage.model:x", "NOT steps.name:*", "deep.n:>4"]
)
def test_a_rule_that_would_match_other_events_is_refused(tmp_path: Path, text: str) -> None:
    """A search looks at each element of a list, a rule at the text of the list."""
    lists: list[dict[str, Any]] = [
        {"id": "6", "tags": ["old", "new"]},
        {"id": "7", "usage": [{"model": "x"}]},
        {"id": "8", "steps": [{"name": "a"}], "deep": {"n": [5]}},
    ]
    query = parse(text)
    rule = rule_of(query, 0)
    with engine.connect(temp_dir=tmp_path) as duck:
        refuse_other_events(frame_of(duck, EVENTS), query, rule, HOUR)
        field = text.lstrip("-NOT ").split(":")[0]
        with pytest.raises(ConfigurationError, match=field):
            refuse_other_events(frame_of(duck, EVENTS + lists), query, rule, HOUR)


def test_a_phrase_inside_another_object_makes_no_rule(tmp_path: Path) -> None:
    """A search looks at the event's own message; a rule that would fire for others is refused."""
    query = parse('"out of memory"')
    rule = rule_of(query, 0)
    with engine.connect(temp_dir=tmp_path) as duck:
        own = {"id": "6", "message": "the worker is Out Of Memory"}
        refuse_other_events(frame_of(duck, [*EVENTS, own]), query, rule, HOUR)
        nested = {"id": "7", "data": {"message": "out of memory"}}
        with pytest.raises(ConfigurationError, match="inside another object"):
            refuse_other_events(frame_of(duck, [*EVENTS, nested]), query, rule, HOUR)
