"""Functions of users over frames: what they give is in the events, what they may not do is refused by name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from obs_assets.errors import ConfigurationError, PermanentError
from obs_assets.events import Frame
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import Settings
from obs_assets.storage import engine
from obs_assets.transforms.enrich import EnrichConfig, enrich
from obs_assets.transforms.filter import FilterConfig, apply_filter
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR, frame_of

HERE = __name__


def add_fields(rows: pd.DataFrame) -> pd.DataFrame:
    """Typed columns come in, new ones go out: text, whole, decimal, missing, nested, a time."""
    rows["slow"] = rows["duration_ms"] > 1000
    rows["team"] = rows["event_type"].map({"a": "red"})
    rows["twice"] = rows["duration_ms"] * 2
    rows["seen_at"] = rows["event_time"].dt.floor("h")
    rows["about"] = [
        {"n": number, "list": [1, None]} for number in rows["duration_ms"].fillna(0).astype(int)
    ]
    return rows


def upper_messages(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(event=rows["event"].str.replace("low", "HIGH"))


def a_row_less(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.iloc[:-1]


def another_order(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.iloc[::-1]


def another_type(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(event_type="x")


def no_uid(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns="row_uid")


def no_frame(rows: pd.DataFrame) -> Any:
    return rows["event"]


def no_json(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(event="[1]")


def a_bad_name(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(_redaction="x")


def a_bad_value(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(odd=[float("inf")] * len(rows))


def failing(rows: pd.DataFrame) -> pd.DataFrame:
    raise KeyError(rows["event"].iloc[0])


MISUSE = {
    "a_row_less": r"returned 1 rows for 2: it must keep the number of rows",
    "another_order": r"changed the column row_uid, or the order of the rows",
    "another_type": r"changed the column event_type",
    "no_uid": r"changed the column row_uid",
    "no_frame": r"returned Series instead of a DataFrame",
    "no_json": r"made an event that is not a JSON object on a single line",
    "a_bad_name": r"added a column whose name cannot be a field of an event",
    "a_bad_value": r"added to odd a value that JSON does not know \(float\)",
    "failing": r"raised KeyError",
}

TOLD = [
    '{"type":"a","duration_ms":1500,"m":"low", "big": 1.50}',
    '{"type":"b","team":null, "m": "low"}',
]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with engine.connect(tmp_path) as connection:
        yield connection


def raw(connection: duckdb.DuckDBPyConnection, told: list[str]) -> Frame:
    return frame_of(connection, told).project(
        "* EXCLUDE (weight), '{}' AS collector, 'a' AS event_file"
    )


def enriched(connection: duckdb.DuckDBPyConnection, name: str, told: list[str] = TOLD) -> Frame:
    return enrich(
        connection,
        raw(connection, told),
        EnrichConfig(enrichments=(), function=f"{HERE}.{name}"),
    )


def test_new_columns_become_fields(connection: duckdb.DuckDBPyConnection) -> None:
    """With their types; what is missing is not added, what an event has is not overwritten, digits stay as they are."""
    first, second = (
        text for (text,) in enriched(connection, "add_fields").project("event").fetchall()
    )
    assert first.startswith('{"type":"a","duration_ms":1500,"m":"low", "big": 1.50,')
    added = json.loads(first)
    assert added.pop("_enrichment")["enrichments_applied"] == []
    assert added | {"slow": True, "team": "red", "twice": 3000} == added
    assert added["seen_at"] == "2025-12-04T10:00:00+00:00"
    assert added["about"] == {"n": 1500, "list": [1, None]}
    assert json.loads(second)["team"] is None
    assert "twice" not in json.loads(second)


def test_columns_follow_the_event(connection: duckdb.DuckDBPyConnection) -> None:
    """A function may write the event itself; promoted columns are computed from what it wrote."""
    frame = enriched(connection, "upper_messages", ['{"error":"low","type":"a"}', "{}"])
    assert frame.project("error, event").fetchall()[0][0] == "HIGH"
    assert frame.columns == [
        name for name in raw(connection, []).columns if name not in ("collector", "event_file")
    ]


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_is_refused_by_the_functions_name(
    connection: duckdb.DuckDBPyConnection, name: str
) -> None:
    """What is wrong and what to do, and nothing of any event."""
    with pytest.raises(duckdb.Error) as caught:
        enriched(connection, name).fetchall()
    failure = engine.unwrap_failure(caught.value)
    assert isinstance(failure, PermanentError)
    with pytest.raises(
        PermanentError, match=f"the function {HERE}.{name} {MISUSE[name]}.*: correct it, then"
    ):
        raise failure
    assert "low" not in f"{failure}{caught.value}"


@pytest.mark.slow
def test_a_failing_function_fails_its_hour_with_a_sentence(
    settings: Settings, tmp_path: Path
) -> None:
    """Not with DuckDB's words, nor with those of the function; and a good one is as good in an hour of any size."""
    many = [
        harness.at(HOUR, n % 3600, {"type": "ab"[n % 2], "duration_ms": n, "n": n})
        for n in range(10_000)
    ]
    harness.write_events(tmp_path / "events" / "a.jsonl", many)

    def hourly(function: str) -> HourlyPipeline:
        config = {
            "source": {"events_dir": str(tmp_path / "events")},
            "enrich": {"function": f"{HERE}.{function}"},
        }
        return HourlyPipeline(pipeline.parse(config), settings)

    hourly("failing").land()
    hourly("failing").build("raw_events", HOUR)
    with pytest.raises(PermanentError, match=rf"^the function {HERE}.failing raised KeyError"):
        hourly("failing").build("enriched_events", HOUR)
    receipt = hourly("add_fields").build("enriched_events", HOUR)
    assert (receipt.taken, receipt.kept) == (10_000, 10_000)
    with engine.connect(tmp_path / "spill") as connection:
        rows = hourly("add_fields").store.read_frame(connection, "enriched_events", HOUR)
        wrong = rows.filter(
            "event->>'twice' <> 2 * duration_ms OR (event->>'slow')::BOOLEAN <> (duration_ms > 1000)"
        )
        assert wrong.fetchall() == []
        times = rows.project("event_time, row_uid").fetchall()
        assert times == sorted(times)


def odd_ones(rows: pd.DataFrame) -> pd.Series:
    assert isinstance(rows["duration_ms"].dtype, pd.ArrowDtype)
    assert rows["duration_ms"].dtype.pyarrow_dtype == pa.int64()
    return rows["duration_ms"] - rows["duration_ms"] // 2 * 2 == 1


def no_verdicts(rows: pd.DataFrame) -> Any:
    return ["yes"] * len(rows)


def a_verdict_less(rows: pd.DataFrame) -> Any:
    return [True] * (len(rows) - 1)


def test_a_filter_of_ones_own_drops_what_it_says(connection: duckdb.DuckDBPyConnection) -> None:
    """After the keep rules and before all others, counted under its own name, rows in their order."""
    told = [
        {
            "type": "k" if n < 10 else "a",
            "duration_ms": n,
            "level": "debug" if n == 11 else "info",
        }
        for n in range(9_000)
    ]
    config = FilterConfig(
        custom_filter=f"{HERE}.odd_ones", keep_event_types=("k",), drop_levels=("debug",)
    )
    judged = (
        apply_filter(connection, frame_of(connection, told), config)
        .project("duration_ms, dropped_by")
        .fetchall()
    )
    assert [number for number, _ in judged] == list(range(9_000))
    for number, dropped_by in judged:
        expected = None if number < 10 else "filtered:custom" if number % 2 == 0 else None
        assert dropped_by == ("filtered:level" if number == 11 else expected)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_verdicts", "returned a value that is neither true nor false"),
        ("a_verdict_less", "returned 1 verdicts for 2 rows"),
    ],
)
def test_verdicts_are_checked(
    connection: duckdb.DuckDBPyConnection, name: str, said: str
) -> None:
    """One for each row, true or false."""
    with pytest.raises(duckdb.Error) as caught:
        apply_filter(
            connection, frame_of(connection, TOLD), FilterConfig(custom_filter=f"{HERE}.{name}")
        ).fetchall()
    assert f"{HERE}.{name} {said}" in str(engine.unwrap_failure(caught.value))


@pytest.mark.parametrize(
    ("dotted", "said"),
    [
        ("add_team", "is no dotted path"),
        ("no_such_package.add_team", "No module named 'no_such_package'.*on PYTHONPATH"),
        (f"{HERE}.no_such_name", "has no attribute 'no_such_name'"),
        (f"{HERE}.TOLD", "is no function"),
    ],
)
def test_a_function_that_is_not_there_is_found_at_start(dotted: str, said: str) -> None:
    """Before any hour is built."""
    for block in ({"enrich": {"function": dotted}}, {"filter": {"custom_filter": dotted}}):
        with pytest.raises(ConfigurationError, match=said):
            pipeline.parse(block)


def test_another_source_is_another_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Hours built with what the function was before show as stale."""
    monkeypatch.syspath_prepend(tmp_path)
    versions = []
    for name, body in (("one", "return rows"), ("one_more", "return rows.assign(a=1)")):
        (tmp_path / f"own_{name}.py").write_text(f"def mine(rows):\n    {body}\n")
        versions.append(EnrichConfig(function=f"own_{name}.mine").function_digest)
    assert len(set(versions)) == 2
    assert EnrichConfig(function="own_one.mine").model_dump()["function_digest"] == versions[0]
