"""Numbers and text survive exactly: from the file to Parquet, PostgreSQL and S3 each value is the same."""

import gzip
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import Settings
from obs_assets.storage.engine import connect
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR

# As written in the file, as it is afterwards: digits stay digits, of equal keys the last wins
VALUES = {
    "9223372036854775808": Decimal(2**63),
    "18446744073709551616": Decimal(2**64),
    "-9223372036854775809": Decimal(-(2**63) - 1),
    "123456789012345678901234567890": Decimal("123456789012345678901234567890"),
    "0.123456789012345678": Decimal("0.123456789012345678"),
    "987654321.123456789012345678": Decimal("987654321.123456789012345678"),
    "1.10": Decimal("1.10"),
    "-0.0": Decimal(0),
    "1e-30": Decimal("1e-30"),
    "1.5E+300": Decimal("1.5e300"),
    '1,"v":2': Decimal(2),
    '{"a":1,"b":[{"a":1,"a":9007199254740993}]}': {
        "a": Decimal(1),
        "b": [{"a": Decimal(9007199254740993)}],
    },
    r'"nul \u0000."': "nul \ufffd.",
    r'"half \ud800 a pair"': "half \ufffd a pair",
    r'"\udc00\ud800"': "\ufffd\ufffd",
    r'"a pair \ud83d\ude00 \u00e9"': "a pair 😀 é",
    r'"\\u0000"': r"\u0000",
    '"line one\\nline two\\t\\u2028"': "line one\nline two\t\u2028",
}
REFUSED = ["NaN", "-Infinity", "Infinity", "1e400", "-1e400", "[1, NaN]"]


def told(text: str) -> Any:
    """A value with its digits."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


@pytest.fixture
def hourly(settings: Settings, tmp_path: Path) -> HourlyPipeline:
    """One event for each value, landed, built and delivered; nothing redacted, filtered or sampled."""
    file = tmp_path / "events" / "a.jsonl"
    file.parent.mkdir()
    lines = [
        f'{{"id":"{number}","timestamp":"{HOUR.start.isoformat()}","v":{value}}}\n'
        for number, value in enumerate([*VALUES, *REFUSED])
    ]
    file.write_text("".join(lines))
    blocks = [
        {"type": "postgres"},
        {"type": "s3"},
        {"type": "s3", "name": "columns", "prefix": "columns", "format": "parquet"},
    ]
    config = harness.everything_kept(
        file.parent, filter=None, redact={"fields_to_skip": ["v"]}, destinations=blocks
    )
    hourly = HourlyPipeline(config, settings)
    report = hourly.land()
    assert report.dead_letters == {"number_not_finite": len(REFUSED)}
    assert report.remarks == {"duplicate_keys": 2, "lone_surrogate": 2, "nul_character": 1}
    harness.build(hourly, HOUR)
    return hourly


def stores(hourly: HourlyPipeline) -> dict[str, dict[int, Any]]:
    """Each store → number of the event → its value there."""
    with connect(hourly.store.temp_dir) as connection:
        frames = {
            stage: [
                text
                for (text,) in hourly.store.read_frame(connection, stage, HOUR)
                .project("event")
                .fetchall()
            ]
            for stage in ("raw_events", "enriched_events", "redacted_events", "sampled_events")
        }
    rows = harness.ask(hourly.settings.postgres, "SELECT data::text FROM events")
    found: dict[str, list[str]] = {
        **frames,
        "PostgreSQL": [str(text) for (text,) in rows],
        "S3 lines": [],
    }
    for key, body in harness.objects(hourly.settings).items():
        if key.endswith(".jsonl.gz"):
            found["S3 lines"] += gzip.decompress(body).decode().splitlines()
        elif key.endswith(".parquet"):
            found["S3 Parquet"] = pq.read_table(io.BytesIO(body))["event"].to_pylist()
    return {
        store: {int(event["id"]): event["v"] for event in map(told, texts)}
        for store, texts in found.items()
    }


@pytest.mark.slow
def test_every_value_is_the_same_in_every_store(hourly: HourlyPipeline) -> None:
    """Integers past 2⁶³, eighteen digits behind the point, equal keys, NUL, half pairs; as docs/landing.md has it."""
    expected = dict(enumerate(VALUES.values()))
    found = stores(hourly)
    assert set(found) > {"PostgreSQL", "S3 lines", "S3 Parquet", "raw_events", "sampled_events"}
    assert found == dict.fromkeys(found, expected)
    assert harness.wrong(hourly) == []


@pytest.mark.slow
def test_a_column_agrees_with_the_event(settings: Settings, tmp_path: Path) -> None:
    """Of equal keys the one that wins is in the promoted column too, and a cost has all its digits."""
    folder = tmp_path / "events"
    folder.mkdir()
    (folder / "a.jsonl").write_text(
        f'{{"timestamp":"{HOUR.start.isoformat()}","type":"a","cost_usd":0.123456789012,"type":"b"}}\n'
    )
    hourly = HourlyPipeline(harness.everything_kept(folder, filter=None), settings)
    hourly.land()
    harness.build(hourly, HOUR)
    rows = harness.ask(
        settings.postgres, "SELECT event_type, data->>'type', data->>'cost_usd' FROM events"
    )
    assert rows == [("b", "b", "0.123456789012")]
