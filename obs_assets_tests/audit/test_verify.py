"""`obs verify`: green for what is whole, and red, by store and by how much, for whatever is damaged."""

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, LiteralString, TypeAlias

import pytest

from obs_assets.audit.verify import verify
from obs_assets.demo.receiver import Receiver
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.settings import Settings
from obs_assets.sources.log import Landed
from obs_assets.storage.engine import connect
from obs_assets.storage.frames import write_parquet
from obs_assets_tests import harness
from obs_assets_tests.conftest import connect_postgres, connect_s3
from obs_assets_tests.frames import HOUR

Damage: TypeAlias = Callable[[HourlyPipeline], object]

ALL = ("landed_events", *STAGES, "postgres_events", "s3_archive", "webhook_alerts")
OBJECT = "cortex-events/year=2025/month=12/day=04/hour=10/events-2025120410.jsonl.gz"


@pytest.fixture
def hour(settings: Settings, tmp_path: Path) -> Iterator[HourlyPipeline]:
    """An hour that is whole everywhere."""
    harness.write_events(
        tmp_path / "events" / "a.jsonl", harness.an_hour() + harness.an_hour(HOUR.next)
    )
    with Receiver() as receiver:
        hourly = HourlyPipeline(
            harness.everything_kept(tmp_path / "events", receiver.url), settings
        )
        hourly.land()
        harness.build(hourly, HOUR)
        yield hourly


def found(hourly: HourlyPipeline) -> dict[str, str]:
    """What is wrong, by store."""
    return {verdict.store: str(verdict) for verdict in harness.wrong(hourly)}


# -- damage ------------------------------------------------------------------------------------------------------------


def in_postgres(statement: LiteralString) -> Damage:
    def damage(hourly: HourlyPipeline) -> None:
        with connect_postgres(hourly.postgres) as connection:
            connection.execute(statement)

    return damage


def in_s3(change: Callable[[bytes], bytes | None]) -> Damage:
    def damage(hourly: HourlyPipeline) -> None:
        with contextlib.closing(connect_s3(hourly.s3)) as client:
            place: dict[str, Any] = {"Bucket": hourly.s3.bucket, "Key": OBJECT}
            body = change(client.get_object(**place)["Body"].read())
            if body is None:
                client.delete_object(**place)
            else:
                client.put_object(**place, Body=body)

    return damage


def one_line_changed(body: bytes) -> bytes:
    return gzip.compress(gzip.decompress(body).replace(b'"task": 3', b'"task": 4'))


def one_line_less(body: bytes) -> bytes:
    return gzip.compress(b"".join(gzip.decompress(body).splitlines(keepends=True)[1:]))


def one_line_twice(body: bytes) -> bytes:
    text = gzip.decompress(body)
    return gzip.compress(text + text.splitlines(keepends=True)[0])


def in_frame(stage: str, query: str) -> Damage:
    def damage(hourly: HourlyPipeline) -> None:
        path = hourly.store.frame_path(stage, HOUR)
        with connect(hourly.store.temp_dir) as connection:
            frame = hourly.store.read_frame(connection, stage, HOUR)
            changed: Any = frame.query("frame", query)
            write_parquet(changed, aside := path.with_suffix(".aside"))
        aside.replace(path)

    return damage


def in_file(stage: str, change: Callable[[Path], object]) -> Damage:
    return lambda hourly: change(hourly.store.frame_path(stage, HOUR))


def truncated(path: Path) -> int:
    return path.write_bytes(path.read_bytes()[:-100])


def in_receipt(stage: str, **values: Any) -> Damage:
    def damage(hourly: HourlyPipeline) -> None:
        hourly.store.write_receipt(
            replace(hourly.store.read_receipt(stage, HOUR), **values), HOUR
        )

    return damage


def chunk_lost(hourly: HourlyPipeline) -> None:
    for chunk in hourly.log.chunk_paths(hourly.landed().hour(HOUR)):
        chunk.unlink()


DAMAGE: dict[str, tuple[Damage, dict[str, str]]] = {
    "a row deleted": (
        in_postgres("DELETE FROM events WHERE event_id = 'err-3'"),
        {"postgres_events": "27 rows, 28 expected: 1 missing"},
    ),
    "rows inserted": (
        in_postgres(
            "INSERT INTO events (row_uid, timestamp, hour, data) SELECT 'x' || row_uid, timestamp, hour, data "
            "FROM events WHERE event_level = 'error'"
        ),
        {"postgres_events": "33 rows, 28 expected: 5 unexpected"},
    ),
    "a row twice": (
        in_postgres("INSERT INTO events SELECT * FROM events WHERE event_id = 'err-3'"),
        {"postgres_events": "29 rows, 28 expected: the count differs"},
    ),
    "a row changed": (
        in_postgres(
            "UPDATE events SET data = jsonb_set(data, '{data,task}', '99') WHERE event_id = 'evt-7'"
        ),
        {"postgres_events": "28 rows, 28 expected: 1 with other content"},
    ),
    "a row's columns changed": (
        in_postgres(
            "UPDATE events SET event_type = 'zz', cost_usd = 5 WHERE event_id = 'evt-7'"
        ),
        {"postgres_events": "28 rows, 28 expected: 1 with other content"},
    ),
    "a row's column emptied": (
        in_postgres("UPDATE events SET trace_id = 'other' WHERE event_id = 'evt-8'"),
        {"postgres_events": "28 rows, 28 expected: 1 with other content"},
    ),
    "the table dropped": (
        in_postgres("DROP TABLE events"),
        {"postgres_events": "0 rows, 28 expected: 28 missing"},
    ),
    "an object's line changed": (
        in_s3(one_line_changed),
        {"s3_archive": "28 rows, 28 expected: 1 with other content"},
    ),
    "an object's line lost": (
        in_s3(one_line_less),
        {"s3_archive": "27 rows, 28 expected: 1 missing"},
    ),
    "an object's line twice": (
        in_s3(one_line_twice),
        {"s3_archive": "29 rows, 28 expected: the count differs"},
    ),
    "an object cut": (in_s3(lambda body: body[:-30]), {"s3_archive": "cannot be read"}),
    "an object deleted": (
        in_s3(lambda _: None),
        {"s3_archive": "0 rows, 28 expected: 28 missing"},
    ),
    "a dispatch forgotten": (
        in_postgres(
            "DELETE FROM obs.webhook_rows WHERE ctid IN (SELECT ctid FROM obs.webhook_rows LIMIT 2)"
        ),
        {"webhook_alerts": "3 rows, 5 expected: 2 missing"},
    ),
    "a frame short of a row": (
        in_frame("enriched_events", "SELECT * FROM frame LIMIT 33"),
        {"enriched_events": "33 rows, 34 expected: the count differs"},
    ),
    "a frame with other content": (
        in_frame(
            "redacted_events",
            "SELECT * REPLACE (replace(event, '\"task\": 3', '\"task\": 4') AS event) FROM frame",
        ),
        {
            "redacted_events": "the content hash differs from the receipt",
        },
    ),
    "a frame cut": (
        in_file("sampled_events", truncated),
        {
            "sampled_events": "cannot be read",
            "postgres_events": "cannot be read",
            "s3_archive": "cannot be read",
        },
    ),
    "a frame deleted": (
        in_file("raw_events", Path.unlink),
        {
            "raw_events": "raw_events has no hour 2025-12-04-10:00: materialize raw_events for it first"
        },
    ),
    "a receipt that kept too much": (
        in_receipt("enriched_events", kept=35, taken=35),
        {
            "enriched_events": "took 35 rows, but the stage before holds 34",
            "redacted_events": "took 34 rows, but the stage before holds 35",
        },
    ),
    "a receipt that does not add up": (
        in_receipt("raw_events", kept=33),
        {
            "raw_events": "leave 1 unaccounted for",
            "enriched_events": "took 34 rows, but the stage before holds 33",
        },
    ),
    "a receipt that is no receipt": (
        lambda hourly: hourly.store.receipt_path("redacted_events", HOUR).write_text("{}"),
        {
            "redacted_events": "receipt",
            "sampled_events": "receipt",
            "webhook_alerts": "receipt",
        },
    ),
    "a destination's receipt edited": (
        in_receipt("postgres_events", kept=5),
        {"postgres_events": "unaccounted for"},
    ),
    "a ledger row lost": (
        in_postgres("DELETE FROM obs.hour_loads WHERE destination = 'public.events'"),
        {"postgres_events": "its ledger lacks the hour"},
    ),
    "a ledger of other content": (
        in_postgres(
            "UPDATE obs.hour_loads SET content_hash = '0' WHERE destination = 'webhook_alerts'"
        ),
        {"webhook_alerts": "its ledger names"},
    ),
    "a landed chunk lost": (
        chunk_lost,
        {"landed_events": "a chunk that the landing log names is missing"},
    ),
}


@pytest.mark.slow
def test_a_whole_hour_is_green(hour: HourlyPipeline) -> None:
    """Every store is named, in the order of the flow, with the rows that it holds."""
    verdicts = list(verify(hour, HOUR))
    assert [verdict.store for verdict in verdicts] == list(ALL)
    assert all(verdict.ok for verdict in verdicts)
    assert [verdict.rows for verdict in verdicts] == [34, 34, 34, 34, 28, 28, 28, 5]
    assert str(verdicts[0]) == "OK, 34 rows"


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_named(hour: HourlyPipeline, name: str) -> None:
    """The damaged store is named with the number of rows, and no other store is blamed."""
    damage, expected = DAMAGE[name]
    damage(hour)
    said = found(hour)
    assert said.keys() == expected.keys()
    assert {store: text for store, text in said.items() if expected[store] not in text} == {}
    assert not any("\n" in text or "example.com" in text for text in said.values())


@pytest.mark.slow
def test_an_hour_that_was_never_built_is_not_green(hour: HourlyPipeline) -> None:
    """It has landed, and nobody took it: every stage and destination says so."""
    said = {
        verdict.store: str(verdict) for verdict in verify(hour, HOUR.next) if not verdict.ok
    }
    assert said.keys() == set(ALL) - {"landed_events"}
    assert (
        said["raw_events"]
        == f"raw_events has no receipt for {HOUR.next}: materialize raw_events for it first"
    )


@pytest.mark.slow
def test_a_late_event_makes_its_hour_red_until_it_is_built(
    hour: HourlyPipeline, tmp_path: Path
) -> None:
    """What has landed since is missing downstream, and by how much."""
    harness.write_events(
        tmp_path / "events" / "a.jsonl",
        [harness.at(HOUR, 3599, {"id": "late", "level": "error"})],
    )
    hour.land()
    assert found(hour) == {"raw_events": "took 34 rows, but the stage before holds 35"}
    harness.build(hour, HOUR)
    assert found(hour) == {}


@pytest.mark.slow
def test_numbers_are_compared_by_value_and_no_digit_is_lost(
    settings: Settings, tmp_path: Path
) -> None:
    """1.50 is 1.5 to everybody; 0.1 + 10⁻²⁰ is not 0.1 to anybody."""
    text = '{"timestamp": "2025-12-04T10:00:01Z", "level": "error", "n": 1.50, "big": 123456789012345678901234567890, '
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "a.jsonl").write_text(
        text + '"tiny": 0.10000000000000000001, "e": 1E3}\n'
    )
    hourly = HourlyPipeline(harness.everything_kept(tmp_path / "events"), settings)
    hourly.land()
    harness.build(hourly, HOUR)
    assert found(hourly) == {}
    in_postgres("UPDATE events SET data = jsonb_set(data, '{tiny}', '0.1')")(hourly)
    assert found(hourly) == {"postgres_events": "1 rows, 1 expected: 1 with other content"}


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_a_finding_of_its_own(hour: HourlyPipeline) -> None:
    """The others are verified all the same."""
    assert hour.settings.postgres
    elsewhere = hour.settings.postgres.model_copy(update={"port": 1})
    said = found(
        replace(hour, settings=hour.settings.model_copy(update={"postgres": elsewhere}))
    )
    assert said.keys() == {"postgres_events", "webhook_alerts"}
    assert "POSTGRES_PORT" in said["postgres_events"]


@pytest.mark.parametrize("bug", [KeyError("a bug"), ValueError("a bug"), TypeError("a bug")])
def test_a_bug_is_no_damaged_receipt(tmp_path: Path, bug: Exception) -> None:
    """An error in our own code leaves `verify`; only a receipt that cannot be read is "damaged"."""
    hourly = HourlyPipeline(PipelineConfig(), Settings(data_dir=tmp_path))
    receipt = hourly.store.receipt_path("raw_events", HOUR)
    receipt.parent.mkdir(parents=True)
    receipt.write_text("{}")
    by_store = {verdict.store: verdict.problem for verdict in verify(hourly, HOUR)}
    assert "is damaged" in by_store["raw_events"]

    class Buggy(HourlyPipeline):
        def landed(self) -> Landed:
            raise bug

    with pytest.raises(type(bug), match="a bug"):
        list(verify(Buggy(hourly.config, hourly.settings), HOUR))


@pytest.mark.slow
def test_the_verdicts_are_plain_values(hour: HourlyPipeline) -> None:
    """For `--json`: counts and a sentence, no event."""
    assert json.loads(json.dumps([vars(verdict) for verdict in verify(hour, HOUR)]))[5] == {
        "store": "postgres_events",
        "rows": 28,
        "expected": 28,
        "missing": 0,
        "unexpected": 0,
        "different": 0,
        "problem": "",
        "note": "",
    }
