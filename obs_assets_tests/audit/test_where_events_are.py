"""Where each event of a pipeline is, and what is stored of each hour."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from obs_assets.audit.archive_search import search_archive
from obs_assets.audit.hour_states import HourState, hour_states, why_empty
from obs_assets.audit.whereabouts import Asked, Whereabouts, whereabouts
from obs_assets.errors import ConfigurationError
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets.search.language import parse
from obs_assets.search.questions import Position, Span, find_event, list_events
from obs_assets.search.selection import Selection
from obs_assets.settings import Settings
from obs_assets.storage.postgres import Connection, session
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR

pytestmark = pytest.mark.slow

LATER = HOUR.next


def write(file: Path, hour: Hour, *told: dict[str, Any] | str) -> None:
    """Append events, and lines that are none; see `harness.at`."""
    with file.open("a") as lines:
        for second, event in enumerate(told):
            text = (
                event if isinstance(event, str) else json.dumps(harness.at(hour, second, event))
            )
            lines.write(f"{text}\n")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An event file: an event for each fate, and a record that cannot be read."""
    path = tmp_path / "events" / "a.jsonl"
    path.parent.mkdir()
    write(
        path,
        HOUR,
        {"id": "kept", "type": "task_failed", "level": "error", "error": "x", "trace_id": "t1"},
        {"id": 17, "type": "task_failed", "level": "error", "error": "y"},
        {"id": "low", "type": "note", "level": "debug", "trace_id": "t1"},
        {
            "id": "drawn",
            "type": "task_completed",
            "level": "info",
            "data": {"status": "completed"},
            "trace_id": "t1",
        },
        "[1, 2]",
    )
    return path


@pytest.fixture
def hourly(settings: Settings, file: Path) -> HourlyPipeline:
    """A pipeline that filters debug events and drops every success, with a table and an archive."""
    values = {
        "source": {"events_dir": str(file.parent)},
        "filter": {"drop_levels": ["debug"]},
        "sample": {"success_rate": 0.0, "default_rate": 1.0},
        "destinations": [{"type": "postgres"}, {"type": "s3"}],
    }
    return HourlyPipeline(pipeline.parse(values), settings)


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    """A connection in autocommit mode."""
    assert settings.postgres
    with session(settings.postgres, autocommit=True) as opened:
        yield opened


def where(hourly: HourlyPipeline, connection: Connection, **asked: Any) -> list[Whereabouts]:
    found = whereabouts(hourly, connection, Asked(**asked))
    assert found.is_complete
    return list(found.events)


def test_each_event_is_somewhere(
    hourly: HourlyPipeline, connection: Connection, file: Path
) -> None:
    """By its id, its trace or its place in a file; with rule, stratum or reason of what was dropped."""
    hourly.land()
    hourly.searched_table().init()
    (landed,) = where(hourly, connection, event_id="kept")
    assert (landed.text, landed.hour) == ("waiting:redacted_events is not built", HOUR)
    harness.build(hourly, HOUR)
    for event_id, text in [
        ("kept", "stored"),
        ("17", "stored"),
        ("low", "filtered:level"),
        ("drawn", "sampled_out:success"),
    ]:
        (event,) = where(hourly, connection, event_id=event_id)
        assert (event.text, event.hour) == (text, HOUR)
        assert event.file == file.name
        # The place that is told leads back to the event.
        assert where(hourly, connection, file=str(file), offset=event.offset) == [event]
    (kept,) = where(hourly, connection, event_id="kept")
    assert kept.id
    stored = find_event(connection, hourly.searched_table().table.name, Position.of_id(kept.id))
    assert stored
    assert stored.event_id == "kept"
    texts = {event.text for event in where(hourly, connection, trace_id="t1")}
    assert texts == {"stored", "filtered:level", "sampled_out:success"}
    assert where(hourly, connection, event_id="never sent") == []


def test_a_record_of_a_file_that_is_no_event(
    hourly: HourlyPipeline, connection: Connection, file: Path
) -> None:
    """It is dead, with the reason; behind the last landed byte nothing has landed yet."""
    hourly.land()
    harness.build(hourly, HOUR)
    text = file.read_bytes()
    inside = text.index(b"[1, 2]") + 3
    (dead,) = where(hourly, connection, file="a.jsonl", offset=inside)
    assert dead.text == "dead:not_an_object"
    (behind,) = where(hourly, connection, file=str(file), offset=len(text))
    assert behind.text == f"not_landed:landed to byte {len(text):,}"
    (between,) = where(hourly, connection, file="a.jsonl", offset=1)
    assert between.text.startswith("not_landed:no record begins here")
    (unknown,) = where(hourly, connection, file="b.jsonl", offset=0)
    assert unknown.text == "not_landed:no file of this name was read"


def test_an_event_that_the_table_lost_is_not_called_stored(
    hourly: HourlyPipeline, connection: Connection
) -> None:
    """The table is asked, not the receipt."""
    hourly.land()
    harness.build(hourly, HOUR)
    connection.execute("DELETE FROM events WHERE event_id = 'kept'")
    (lost,) = where(hourly, connection, event_id="kept")
    assert lost.text == "waiting:the hour is not loaded with it"


def test_a_search_without_time_is_not_complete(
    hourly: HourlyPipeline, connection: Connection
) -> None:
    """Nothing found is then no proof."""
    hourly.land()
    harness.build(hourly, HOUR)
    found = whereabouts(hourly, connection, Asked(event_id="low"), deadline_s=0)
    assert (found.events, found.is_complete) == ((), False)


def states_of(
    hourly: HourlyPipeline, connection: Connection, *, hours: int = 4
) -> dict[Hour, HourState]:
    span = Span(HOUR.start, HOUR.start + timedelta(hours=hours))
    return {state.hour: state for state in hour_states(hourly, connection, span)}


def test_hours_say_what_is_stored_of_them(
    hourly: HourlyPipeline, connection: Connection, file: Path
) -> None:
    """Missing until it is loaded, then settled with its receipts, stale after a late event, then replaced."""
    hourly.land()
    hourly.searched_table().init()
    before = states_of(hourly, connection)
    assert [state.state for state in before.values()] == ["missing", "empty", "empty", "empty"]
    assert before[HOUR].landed == 4
    harness.build(hourly, HOUR)
    settled = states_of(hourly, connection)[HOUR]
    assert (settled.state, settled.rows, settled.landed) == ("settled", 2, 4)
    assert not settled.is_replaced
    held = hourly.searched_table().holding(HOUR)
    assert held
    assert (settled.content_hash, settled.generation) == (
        held.content_hash,
        held.version.generation,
    )
    (sampled,) = [stage for stage in settled.stages if stage.stage == "sampled_events"]
    assert (sampled.taken, sampled.kept) == (4, 2)
    assert sampled.dropped == {"filtered:level": 1, "sampled_out:success": 1}
    write(file, HOUR, {"id": "late", "type": "task_failed", "level": "error"})
    hourly.land()
    assert states_of(hourly, connection)[HOUR].state == "stale"
    harness.build(hourly, HOUR)
    replaced = states_of(hourly, connection)[HOUR]
    assert (replaced.state, replaced.rows, replaced.is_replaced) == ("settled", 3, True)
    assert replaced.loaded_at
    assert settled.loaded_at
    assert replaced.loaded_at > settled.loaded_at


def test_an_hour_that_retention_dropped_is_in_the_archive(
    hourly: HourlyPipeline, connection: Connection
) -> None:
    """An open hour is one whose events may still come."""
    hourly.land()
    harness.build(hourly, HOUR)
    blocks = [{"type": "postgres", "retention_days": 1}, {"type": "s3"}]
    config = pipeline.parse(
        {"source": {"events_dir": str(hourly.config.source.events_dir)}, "destinations": blocks}
    )
    brief = HourlyPipeline(config, hourly.settings)
    brief.searched_table().upkeep.drop_expired(datetime.now(UTC))
    expired = states_of(brief, connection)[HOUR]
    assert (expired.state, expired.rows, expired.is_archived) == ("expired", None, True)
    (event,) = where(brief, connection, event_id="kept")
    assert (event.text, event.hour) == ("expired", HOUR)
    watermark = replace(hourly, clock=lambda: datetime.now(UTC))
    now = watermark.clock()
    (open_hour,) = hour_states(watermark, connection, Span(now, now + timedelta(seconds=1)))
    assert open_hour.state == "open"


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_search_of_the_archive_finds_what_the_table_had(
    hourly: HourlyPipeline, connection: Connection, form: str
) -> None:
    """The same events with the same columns, within a budget of bytes; the answer says what was not read."""
    source = {"events_dir": str(hourly.config.source.events_dir)}
    blocks = [{"type": "postgres"}, {"type": "s3", "format": form}]
    common = {"source": source, "sample": {"success_rate": 0.0, "default_rate": 0.5}}
    before = HourlyPipeline(pipeline.parse({**common, "destinations": blocks}), hourly.settings)
    before.land()
    harness.build(before, HOUR)
    span = Span(HOUR.start, LATER.end)
    tables = before.searched_table().table.searched
    queries = {text: parse(text) for text in ("", "level:error -id:17", "trace:t1", "nothing")}
    stored = {
        text: list_events(connection, tables.events, query, span).events
        for text, query in queries.items()
    }
    assert len(stored["level:error -id:17"]) == 1
    blocks = [{"type": "postgres", "retention_days": 1}, {"type": "s3", "format": form}]
    after = HourlyPipeline(pipeline.parse({**common, "destinations": blocks}), hourly.settings)
    after.searched_table().upkeep.drop_expired(datetime.now(UTC))
    for text, query in queries.items():
        found = search_archive(after, connection, Selection(tables, query, span))
        assert [replace(event, data="") for event in found.events] == [
            replace(event, data="") for event in stored[text]
        ], text
        told = [json.loads(event.data) for event in found.events]
        assert told == [json.loads(event.data) for event in stored[text]]
        assert (found.hours, found.left, found.is_complete) == ((HOUR,), (), True)
        assert 0 < found.bytes_read < 10_000
    selection = Selection(tables, queries[""], span)
    poor = search_archive(after, connection, selection, budget_bytes=10)
    assert (poor.events, poor.left, poor.is_complete) == ((), (HOUR,), False)
    late = search_archive(after, connection, selection, deadline_s=-1)
    assert (late.events, late.left, late.bytes_read) == ((), (HOUR,), 0)


def test_why_a_range_is_empty(hourly: HourlyPipeline, connection: Connection) -> None:
    """Where the landed events of the range are; a sentence with all counts."""
    hourly.land()
    harness.build(hourly, HOUR)
    span = Span(HOUR.start, LATER.end)
    selection = Selection(hourly.searched_table().table.searched, parse("level:info"), span)
    why = why_empty(hourly, connection, selection)
    assert (why.landed, why.stored, why.waiting, why.matching.rows) == (4, 2, 0, 0)
    assert why.dropped == {"filtered:level": 1, "sampled_out:success": 1}
    assert why.sentence == (
        "in these 2 hours 4 events landed: 1 filtered:level, 1 sampled_out:success, 2 stored, 0 match"
    )
    today = replace(
        selection, span=Span(datetime.now(UTC) - timedelta(hours=2), datetime.now(UTC))
    )
    assert why_empty(hourly, connection, today).dead_letters == {"not_an_object": 1}


def test_a_range_of_too_many_hours_is_refused(
    hourly: HourlyPipeline, connection: Connection
) -> None:
    """The message says how many are allowed."""
    hourly.searched_table().init()
    span = Span(HOUR.start - timedelta(days=4000), HOUR.start)
    with pytest.raises(
        ConfigurationError, match="has 96,000 hours: choose a range of at most 9,600"
    ):
        hour_states(hourly, connection, span)
