"""Hours of events while everything is killed at random: in the end each event is where it belongs, once."""

import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from obs_assets.demo.receiver import Receiver
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour, hours_between, parse_hour
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS
from obs_assets_tests.soak.conductor import KINDS, Conductor
from obs_assets_tests.soak.writers import Written, read_all

pytestmark = DAGSTER_WARNINGS

NAME = re.compile(rb"(?:event|garbage)-\d+-\d+")
"""What a writer calls each thing that it writes."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.mark.parametrize(
    ("hours", "kills"),
    [
        pytest.param(10, 20, marks=[pytest.mark.system, pytest.mark.timeout(1800)]),
        pytest.param(60, 200, marks=[pytest.mark.soak, pytest.mark.timeout(10_800)]),
    ],
)
def test_hours_while_everything_is_killed(
    hours: int, kills: int, receiver: Receiver, tmp_path: Path
) -> None:
    """Writers, sensors, landing, runs, PostgreSQL and S3 die by SIGKILL: nothing is lost, nothing is there twice."""
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 32))
    print(f"SOAK_SEED={seed}")
    for folder in ("events", "data"):
        (tmp_path / folder).mkdir()
    env = harness.environment(
        Settings(data_dir=tmp_path / "data"), tmp_path / "events", WEBHOOK_URL=receiver.url
    )
    first = Hour.of(datetime.now(UTC) - timedelta(hours=hours + 30))
    conductor = Conductor(
        env,
        list(hours_between(first, Hour.of(first.start + timedelta(hours=hours)))),
        random.Random(seed),
    )
    try:
        conductor.kill(kills)
        conductor.come_to_rest(timeout_s=600 + 10 * kills)
        print(f"killed {dict(conductor.killed)}; runs ended {dict(conductor.ended)}")
        hourly = conductor.hourly
        written = read_all(tmp_path / "events")
        assert len(written.hours) == hours
        assert min(conductor.killed[kind] for kind in KINDS) >= kills // len(KINDS)
        assert_landed(hourly, written)
        assert_delivered(hourly, written, receiver)
    finally:
        conductor.stop()


def assert_landed(hourly: HourlyPipeline, written: Written) -> None:
    """Every event has landed once in its hour; what a line holds that is none is in dead letters that have a reason."""
    landed = hourly.landed()
    assert {key: hour.rows for key, hour in landed.hours.items()} == dict(written.hours)
    letters = [
        pq.read_table(path)
        for path in hourly.log.passes_dir.glob("[0-9]*/dead_letters.parquet")
    ]
    raw = b"\n".join(value.as_py() for table in letters for value in table["raw"])
    assert all(table["reason"].null_count == 0 for table in letters)
    names = {name for line in written.other for name in NAME.findall(line)}
    assert [name for name in names if not re.search(name + rb"\b", raw)] == []
    assert [name for name in written.events if f'"id": "{name}"'.encode() in raw] == []


def assert_delivered(hourly: HourlyPipeline, written: Written, receiver: Receiver) -> None:
    """Every hour is proven, and each destination holds each event once."""
    machine = Settings(
        data_dir=hourly.settings.data_dir, postgres=hourly.postgres, s3=hourly.s3
    )
    stored = harness.objects(machine)
    for key in sorted(written.hours):
        hour = parse_hour(key)
        assert harness.wrong(hourly, hour) == []
        expected = Counter(name for name, of in written.events.items() if of == key)
        rows = harness.ask(
            machine.postgres, "SELECT data->>'id' FROM events WHERE hour = %s", hour.start
        )
        assert Counter(name for (name,) in rows) == expected
        assert Counter(event["id"] for event in harness.lines_of(stored, hour)) == expected
    total = harness.ask(machine.postgres, "SELECT count(*) FROM events")
    assert total == [(len(written.events),)]
    alerts = Counter(event["id"] for event in harness.alerts(receiver.requests))
    assert alerts == Counter(written.failures)
    assert harness.leftovers(machine) == []
