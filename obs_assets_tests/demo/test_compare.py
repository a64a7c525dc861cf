"""The demo's comparison with what it planted: silent when all is well, a sentence for each difference."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from obs_assets.demo.compare import Receipts, differences
from obs_assets.demo.expected import Outcome, fate, outcome
from obs_assets.demo.measure import holdings
from obs_assets.demo.receiver import Receiver
from obs_assets.demo.samples import Planted, write_samples
from obs_assets.hourly import pipeline, pipeline_files
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour, hours_between, parse_hour
from obs_assets.settings import Settings
from obs_assets_tests.conftest import connect_postgres, connect_s3
from obs_assets_tests.harness import build

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

HOURS = 6


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


def demonstrated(
    machine: Settings, events: Path, receiver: Receiver, **replaced: str
) -> tuple[Planted, HourlyPipeline, Receipts]:
    """Sample files through the packaged pipeline, in whose file some texts are replaced."""
    text = (pipeline_files.PACKAGED_DIR / "agents" / pipeline_files.FILE_NAME).read_text()
    for name, instead in replaced.items():
        assert f"{name}: {{" in text
        text = text.replace(f"{name}: {{", f"{name}: {{{instead}, ")
    file = events.parent / "defs.yaml"
    file.write_text(text)
    config = pipeline.load(file, {"OBS_EVENTS_DIR": str(events), "WEBHOOK_URL": receiver.url})
    allowed = machine.webhook.model_copy(update={"allow_private": True})
    hourly = HourlyPipeline(config, machine.model_copy(update={"webhook": allowed}))
    first = Hour.of(datetime.now(UTC) - timedelta(hours=HOURS + 1))
    planted = write_samples(events, first, HOURS)
    hourly.land()
    hours = list(hours_between(first, parse_hour(max(planted.hours)).next))
    build(hourly, *hours)
    names = (*STAGES, *hourly.destination_names)
    return (
        planted,
        hourly,
        {
            hour: {name: hourly.store.read_receipt(name, hour) for name in names}
            for hour in hours
        },
    )


@pytest.mark.slow
def test_a_lost_row_and_a_lost_object_are_named(
    settings: Settings, tmp_path: Path, receiver: Receiver
) -> None:
    """Nothing is said of a right outcome; what a destination loses is named with hour, place and counts."""
    planted, _, receipts = demonstrated(settings, tmp_path / "events", receiver)
    assert differences(planted, receipts, holdings(settings, receiver.requests)) == []

    assert settings.postgres
    assert settings.s3
    first, second, *_ = sorted(planted.hours)
    rows = {key: outcome(events).written for key, events in planted.events.items()}
    with connect_postgres(settings.postgres) as connection:
        lose_a_row(connection, first)
    client = connect_s3(settings.s3)
    lose_an_object(client, settings.s3.bucket, parse_hour(second))
    client.close()
    receiver.requests.pop()

    found = differences(planted, receipts, holdings(settings, receiver.requests))
    assert found[:2] == [
        f"rows in PostgreSQL in {first}: {rows[first] - 1} instead of {rows[first]}",
        f"lines in S3 in {second}: 0 instead of {rows[second]}",
    ]
    assert found[2].startswith("alerts received: ")


def lose_a_row(connection: "psycopg.Connection[tuple[object]]", key: str) -> None:
    start = parse_hour(key).start
    query = "DELETE FROM events WHERE row_uid = (SELECT min(row_uid) FROM events WHERE timestamp BETWEEN %s AND %s)"
    assert connection.execute(query, [start, start + timedelta(minutes=59)]).rowcount == 1


def lose_an_object(client: "S3Client", bucket: str, hour: Hour) -> None:
    objects = client.list_objects_v2(Bucket=bucket)["Contents"]
    (key,) = [
        found["Key"]
        for found in objects
        if found["Key"].endswith(f"events-{hour.stamp}.jsonl.gz")
    ]
    client.delete_object(Bucket=bucket, Key=key)


@pytest.mark.slow
def test_a_redactor_without_a_type_and_another_rate_are_named(
    settings: Settings, tmp_path: Path, receiver: Receiver
) -> None:
    """Values that are no longer redacted and events that are dropped otherwise: type, hour and both counts."""
    planted, _, receipts = demonstrated(
        settings,
        tmp_path / "events",
        receiver,
        redact="detect_email: false",
        filter="drop_event_types: [llm_call]",
    )
    found = differences(planted, receipts, holdings(settings, receiver.requests))
    for key, events in planted.events.items():
        must = outcome(events)
        assert (
            f"redacted values of type email in {key}: 0 instead of {must.redacted['email']}"
            in found
        )
        assert any(line.startswith(f"events filtered in {key}: ") for line in found)


def test_the_fate_of_an_event_is_that_of_its_trace() -> None:
    """Noise is filtered, errors are kept, and of the others one trace or session in ten, whole."""
    assert fate({"event_type": "heartbeat"}) == "filtered"
    assert fate({"type": "tool_call", "level": "debug", "trace_id": "a"}) == "filtered"
    assert fate({"type": "system_ERROR", "severity": "critical"}) == "written"
    assert fate({"type": "task_failed", "level": "info"}) == "written"
    drawn = [
        fate({"type": "task_completed", "session_id": f"session-{n}"}) for n in range(2000)
    ]
    assert 150 < drawn.count("written") < 250
    assert drawn == [
        fate({"type": "llm_call", "trace_id": f"session-{n}"}) for n in range(2000)
    ]


def test_an_outcome_counts_every_event_once() -> None:
    """Landed is filtered, sampled out and written; each planted value is counted as often as it stands there."""
    events = [
        {"type": "heartbeat"},
        {"type": "config_loaded", "level": "info", "session_id": "t"},
    ]
    found = outcome([*events, {"type": "login_failed", "level": "error", "error": "…"}])
    assert found == Outcome(
        3, 0, 1, 1, 1, 1, redacted={"password": 3, "email": 1, "ip_address": 1}
    )
