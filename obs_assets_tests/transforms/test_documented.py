"""The examples of docs/transforms.md do what the page says."""

import contextlib
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from obs_assets.hourly.pipeline import PipelineConfig, parse
from obs_assets.storage import engine
from obs_assets.transforms.enrich import enrich
from obs_assets.transforms.filter import apply_filter
from obs_assets.transforms.sample import sample
from obs_assets_tests.frames import frame_of

PAGE = Path(__file__).parents[2] / "docs" / "transforms.md"


def documented() -> PipelineConfig:
    """The configuration of all the page's examples together."""
    blocks: dict[str, Any] = {}
    for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL):
        blocks |= yaml.safe_load(text)
    assert set(blocks) == {"enrich", "filter", "sample"}
    with contextlib.chdir(PAGE.parents[1]):
        return parse(blocks)


def test_the_documented_lookup(tmp_path: Path) -> None:
    """The example's table is there; a service that it does not have is of an unknown team."""
    config = documented().enrich
    assert config is not None
    with engine.connect(tmp_path, threads=1) as connection:
        told = [{"service": "billing"}, {"service": "x"}]
        frame = frame_of(connection, told).project(
            "* EXCLUDE (weight), '{}' AS collector, 'a' AS event_file"
        )
        found = (
            enrich(connection, frame, config)
            .project("event->>'team', event->>'tier', event->>'region'")
            .fetchall()
        )
    assert found == [("payments", "1", "eu-west-1"), ("unknown", None, "eu-west-1")]


def test_the_documented_prices(tmp_path: Path) -> None:
    """The named model has its price, another one the price of ``*``."""
    usage = {"input_tokens": 1000, "output_tokens": 1000}
    config = documented().enrich
    assert config is not None
    with engine.connect(tmp_path, threads=1) as connection:
        told = [{"model": model, "tokens_used": usage} for model in ("model-a", "model-b")]
        frame = frame_of(connection, told).project(
            "* EXCLUDE (weight), '{}' AS collector, 'a' AS event_file"
        )
        costs = enrich(connection, frame, config).project("cost_usd").fetchall()
    assert costs == [(Decimal("0.0015"),), (Decimal("0.018"),)]


def test_the_documented_filter(tmp_path: Path) -> None:
    """Each rule of the example drops or keeps what the page says; an empty event goes, one with a type stays."""
    told: list[dict[str, Any]] = [
        {"type": "task", "message": "Connection refused"},
        {"type": "task", "level": "debug"},
        {"type": "deploy", "message": "connection reset"},
        {"type": "task", "connection refused": 1},
        {"type": "Heartbeat"},
        {"id": "1", "message": ""},
        {"type": "heartbeat", "error": "no answer"},
    ]
    with engine.connect(tmp_path, threads=1) as connection:
        frame = frame_of(connection, told).project("* EXCLUDE (weight)")
        verdicts = [
            verdict
            for (verdict,) in apply_filter(connection, frame, documented().filter)
            .project("dropped_by")
            .fetchall()
        ]
    low = "filtered:low_value"
    assert verdicts == ["filtered:pattern", "filtered:level", None, None, low, low, None]


def test_the_documented_sampler(tmp_path: Path) -> None:
    """A trace with an error or a slow event is kept whole; the others are dropped at a rate of nothing."""
    told: list[dict[str, Any]] = [
        {"trace_id": "a", "message": "before"},
        {"trace_id": "a", "error": "x"},
        {"trace_id": "b", "duration_ms": 1001},
        {"trace_id": "b", "message": "after"},
        {"trace_id": "c", "duration_ms": 1000},
    ]
    with engine.connect(tmp_path, threads=1) as connection:
        frame = frame_of(connection, told).project("* EXCLUDE (weight)")
        kept = (
            sample(frame, documented().sample)
            .filter("dropped_by IS NULL")
            .project("event, weight")
            .fetchall()
        )
    assert [(json.loads(event)["trace_id"], weight) for event, weight in kept] == [
        ("a", 1),
        ("a", 1),
        ("b", 1),
        ("b", 1),
    ]
