"""A run that is killed anywhere, and run again, leaves what an uninterrupted run leaves."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from obs_assets.crash import CRASH_POINTS
from obs_assets.demo.receiver import Receiver
from obs_assets.hourly import pipeline, pipeline_files
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.settings import Settings
from obs_assets.sources.files import SourceConfig
from obs_assets.sources.landing import land
from obs_assets_tests import harness
from obs_assets_tests.crash.driver import NOW, run_hour, run_replay
from obs_assets_tests.frames import HOUR
from obs_assets_tests.harness import Snapshot

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.slow

PLACES = {
    "landing.before_chunk": [1],
    "landing.after_chunk": [2],
    "landing.before_commit": [1],
    "landing.after_commit": [1],
    "frame.before_rename": [1, 4],  # the first stage and the last
    "frame.after_rename": [4, 8],  # a frame without a receipt, the redacted frame
    "receipt.before_rename": [1, 3, 8],  # pass.json, closing, a destination's
    "postgres.after_copy": [1],
    "postgres.after_index": [1],
    "postgres.before_commit": [1],
    "postgres.after_commit": [1],
    "s3.before_object": [1],
    "s3.after_object": [1],
    "s3.after_manifest": [1],
    "webhook.before_outbox": [1],
    "webhook.after_outbox": [1],
    "webhook.before_send": [1],
    "webhook.after_send": [1],
}
"""Crash points, and at which of the times that a run passes them it is killed."""

ELSEWHERE = {
    "receive.before_sync": "receive/test_killed.py",
    "receive.after_sync": "receive/test_killed.py",
    "s3.after_packing": "destinations/test_s3.py",
    "postgres.before_swap": "destinations/test_leaves.py",
    "landing.after_listing": "sources/test_landing.py",
    "landing.after_write": "sources/test_landing.py",
    "landing.before_read": "sources/test_landing.py",
    "fold.after_record": "sources/test_folding.py",
    "retention.after_commit": "hourly/test_retention.py",
    "appending.before_send": "destinations/test_appending.py",
    "appending.after_send": "destinations/test_appending.py",
    "appending.after_load": "destinations/test_appending.py",
    "appending.after_report": "destinations/test_appending.py",
    "elasticsearch.after_ledger": "destinations/test_elasticsearch.py",
    "elasticsearch.after_request": "destinations/test_elasticsearch.py",
    "elasticsearch.after_documents": "destinations/test_elasticsearch.py",
    "elasticsearch.after_removal": "destinations/test_elasticsearch.py",
    "elasticsearch.after_commit": "destinations/test_elasticsearch.py",
    "failover.after_note": "delivery/test_failover.py",
    "failover.before_removal": "delivery/test_failover.py",
    "failover.after_removal": "delivery/test_failover.py",
}
"""Crash points at which other tests kill, and the module of these tests."""

WHILE_REPLAYING = [
    "receipt.before_rename",
    *(name for name in PLACES if name.startswith("landing.")),
]
WHILE_REPLACING = [
    "frame.after_rename:4",
    "postgres.after_delete",
    "postgres.before_commit",
    "s3.after_object",
]
LATE = harness.at(
    HOUR, 3599, {"id": "late", "type": "task_failed", "level": "error", "error": "too late"}
)


@pytest.fixture(scope="module")
def events_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of three hours."""
    folder = tmp_path_factory.mktemp("events")
    harness.write_events(folder / "a.jsonl", harness.an_hour(HOUR.previous) + harness.an_hour())
    harness.write_events(
        folder / "agents" / "b.jsonl", harness.an_hour() + harness.an_hour(HOUR.next)
    )
    return folder


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A webhook receiver."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def uninterrupted(
    servers: Settings,
    postgres_admin: "psycopg.Connection[tuple[object]]",
    s3_admin: "S3Client",
    events_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Snapshot]:
    """What the hour is when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "data"
    with (
        harness.own_place(servers, postgres_admin, s3_admin, folder) as machine,
        Receiver() as receiver,
    ):
        env = harness.environment(machine, events_dir, WEBHOOK_URL=receiver.url)
        assert run_hour(env, HOUR.key) == 0
        found = harness.snapshot(hourly_of(machine), receiver.requests)
        assert [len(found.frames[stage]) for stage in STAGES[:3]] == [68, 68, 68]
        assert found.rows
        assert len(found.objects) == 2
        assert len(found.alerts) == 1
        yield found


def hourly_of(machine: Settings) -> HourlyPipeline:
    return HourlyPipeline(pipeline.load(pipeline_files.find().path), machine)


def ids_of(receiver: Receiver) -> Counter[str]:
    return Counter(request.webhook_id for request in receiver.requests)


def test_every_crash_point_is_exercised() -> None:
    """A new crash point without a place here fails, and so does one that is gone."""
    assert (
        set(PLACES) | {place.partition(":")[0] for place in WHILE_REPLACING} | set(ELSEWHERE)
        == CRASH_POINTS
    )
    for point, module in ELSEWHERE.items():
        assert f'"{point}"' in (Path(__file__).parent.parent / module).read_text()


@pytest.mark.parametrize(
    "place", [f"{name}:{nth}" for name, times in PLACES.items() for nth in times]
)
def test_one_run_repairs_what_a_killed_one_left(
    place: str,
    uninterrupted: Snapshot,
    settings: Settings,
    events_dir: Path,
    receiver: Receiver,
) -> None:
    """Killed at any point: nothing half-done is visible; after one more run everything is as if nothing had been."""
    env = harness.environment(settings, events_dir, WEBHOOK_URL=receiver.url)
    assert run_hour(env, HOUR.key, crash_at=place) == -signal.SIGKILL
    left = harness.snapshot(hourly_of(settings))
    assert left.rows in ([], uninterrupted.rows)
    assert set(left.objects.items()) <= set(uninterrupted.objects.items())
    assert left.frames.items() <= uninterrupted.frames.items()
    assert left.receipts.items() <= uninterrupted.receipts.items()

    assert run_hour(env, HOUR.key) == 0
    assert harness.wrong(hourly_of(settings)) == []
    assert harness.snapshot(hourly_of(settings), receiver.requests) == uninterrupted
    assert harness.leftovers(settings) == []
    sent = 2 if place.startswith("webhook.after_send") else 1  # at least once, and with one id
    assert ids_of(receiver) == dict.fromkeys(uninterrupted.alerts, sent)


@pytest.mark.parametrize("place", WHILE_REPLACING)
def test_a_killed_rebuild_leaves_the_old_hour_in_place(
    place: str, settings: Settings, tmp_path: Path, receiver: Receiver
) -> None:
    """While an hour is replaced after a late event, a table serves the old one or the new one, whole."""
    file = harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    env = harness.environment(settings, file.parent, WEBHOOK_URL=receiver.url)
    assert run_hour(env, HOUR.key) == 0
    old = harness.snapshot(hourly_of(settings))
    harness.write_events(file, [LATE])

    assert run_hour(env, HOUR.key, crash_at=place) == -signal.SIGKILL
    left = harness.snapshot(hourly_of(settings))

    assert run_hour(env, HOUR.key) == 0
    assert harness.wrong(hourly_of(settings)) == []
    assert harness.leftovers(settings) == []
    new = harness.snapshot(hourly_of(settings), receiver.requests)
    assert len(new.rows) == len(old.rows) + 1
    assert left.rows == (new if place.startswith("s3") else old).rows
    assert set(ids_of(receiver).values()) == {1}
    assert sorted(event["id"] for events in new.alerts.values() for event in events) == [
        *(f"err-{number}" for number in range(5)),
        "late",
    ]


@pytest.mark.parametrize("place", WHILE_REPLAYING)
def test_a_killed_replay_has_been_or_has_not(
    place: str, settings: Settings, events_dir: Path
) -> None:
    """Dead letters that can be read by now are landed once, whenever their replay dies; none is left, none is lost."""
    hourly = hourly_of(settings)
    land(SourceConfig(events_dir=events_dir), hourly.log, first_hour=HOUR.next.next, now=NOW)
    letters = sum(count for _, _, count, _, _ in hourly.dead_letters())
    assert letters == 2 * 68
    env = harness.environment(settings, events_dir)
    assert run_replay(env, crash_at=place) == -signal.SIGKILL
    assert hourly.landed().hour(HOUR).rows in (0, 68)
    assert run_replay(env) == 0
    assert sum(hour.rows for hour in hourly.landed().hours.values()) == letters
    assert hourly.dead_letters() == []


def test_two_dagster_runs_die_and_the_third_makes_the_hours_whole(
    settings: Settings, events_dir: Path, receiver: Receiver
) -> None:
    """The README's commands, killed in a stage and in S3: a range repairs the hour and adds another."""
    env = harness.environment(settings, events_dir, WEBHOOK_URL=receiver.url)
    dagster = (
        "dagster",
        "asset",
        "materialize",
        "-m",
        "obs_assets.definitions",
        "--select",
        "*",
    )
    landing = harness.run(
        "dagster",
        "job",
        "execute",
        "-m",
        "obs_assets.definitions",
        "-j",
        "land_event_files",
        env=env,
    )
    assert landing.code == 0, landing.said
    for place in ("frame.before_rename:3", "s3.after_object"):
        killed = harness.run(
            *dagster, "--partition", HOUR.key, env={**env, "OBS_CRASH_AT": place}
        )
        assert killed.code == -signal.SIGKILL, killed.said
    repaired = harness.run(*dagster, "--partition-range", f"{HOUR}...{HOUR.next}", env=env)
    assert repaired.code == 0, repaired.said
    for hour in (HOUR, HOUR.next):
        assert harness.wrong(hourly_of(settings), hour) == []
    assert harness.leftovers(settings) == []
    assert sorted(request.body.count(b'"err-') for request in receiver.requests) == [5, 10]
