"""Hours that build themselves: what the sensors and the schedule ask for, and why they do not."""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from psycopg import sql

from obs_assets.components.automation import (
    ATTEMPT_TAG,
    EVENTS_A_RANGE,
    HOURS_A_TICK,
    SEEN_TAG,
    VERSION_TAG,
)
from obs_assets.components.runs import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from obs_assets.hourly.adoption import adopt
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour
from obs_assets.sources.files import SourceConfig
from obs_assets.transforms.sample import SampleConfig
from obs_assets_tests import harness
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS, Deployment
from obs_assets_tests.components.ticks import (
    CLOSED,
    Clock,
    clock,
    hours_of,
    landing_of,
    launched,
    run_of,
    scheduled,
    span_of,
    tick,
)
from obs_assets_tests.conftest import connect_postgres, connect_s3
from obs_assets_tests.frames import HOUR

__all__ = ["clock"]

pytestmark = [*DAGSTER_WARNINGS, pytest.mark.usefixtures("clock")]

LATE = harness.at(
    HOUR, 3599, {"id": "late", "type": "task_failed", "level": "error", "error": "too late"}
)


# -- event_file_sensor -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events_dir", [None, Path("/nowhere/to/be/found")])
def test_a_missing_events_folder_is_a_sentence(
    deployment: Deployment, events_dir: Path | None
) -> None:
    """Nobody's sensor turns red before they have any files; it says which setting is missing."""
    config = deployment.config.model_copy(
        update={"source": SourceConfig(events_dir=events_dir)}
    )
    requests, why, _ = tick(replace(deployment, config=config), "event_file_sensor")
    assert requests == []
    assert "OBS_EVENTS_DIR" in why
    assert "\n" not in why


def test_a_new_file_asks_for_one_landing_pass(deployment: Deployment) -> None:
    """New and grown files are seen once each; files that have not changed are not."""
    file = harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    first, _, cursor = tick(deployment, "event_file_sensor")
    deployment.hourly.land(now=CLOSED)
    second, why, cursor = tick(deployment, "event_file_sensor", cursor)
    harness.write_events(file, [LATE])
    third, _, _ = tick(deployment, "event_file_sensor", cursor)
    assert [len(requests) for requests in (first, second, third)] == [1, 0, 1]
    assert why == "nothing new in 1 files"


def test_an_hour_without_a_new_byte_closes_without_a_run(deployment: Deployment) -> None:
    """The sensor has listed the files: after the end of the hour and its lateness that is all there is to do."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.hourly.land(now=CLOSED)
    _, _, cursor = tick(deployment, "event_file_sensor")
    Clock.moment = HOUR.next.end + timedelta(minutes=4)
    assert tick(deployment, "event_file_sensor", cursor)[0] == []
    assert deployment.hourly.first_open_hour() == HOUR.next
    Clock.moment = HOUR.next.end + timedelta(minutes=5)
    assert tick(deployment, "event_file_sensor", cursor)[:2] == (
        [],
        "nothing new in 1 files; hours before 12:05 close",
    )
    assert deployment.hourly.first_open_hour() == HOUR.next.next
    assert tick(deployment, "event_file_sensor", cursor)[:2] == ([], "nothing new in 1 files")


def test_an_unfinished_line_that_is_due_asks_for_a_pass(deployment: Deployment) -> None:
    """Its file has not changed, but a pass has to read it: after seal_after_minutes it becomes a dead letter."""
    file = harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    with file.open("a") as rest:
        rest.write('{"unfinished')
    deployment.hourly.land(now=CLOSED)
    Clock.moment = datetime.now(UTC) + timedelta(hours=2)
    assert len(tick(deployment, "event_file_sensor")[0]) == 1


def test_one_landing_pass_at_a_time(deployment: Deployment) -> None:
    """While a pass is under way no other is asked for, and the news are not forgotten."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    run_of(deployment, "land_event_files", dg.DagsterRunStatus.STARTED)
    assert tick(deployment, "event_file_sensor")[:2] == ([], "a landing pass is under way")
    (run,) = deployment.instance.get_runs()
    deployment.instance.report_run_failed(run)
    assert len(tick(deployment, "event_file_sensor")[0]) == 1


def test_a_landing_run_that_was_lost_is_given_up(deployment: Deployment) -> None:
    """Nobody lands, though a run says so: a quarter of an hour later another pass is asked for."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    run_of(deployment, "land_event_files", dg.DagsterRunStatus.STARTED)
    Clock.moment = datetime.now(UTC) + timedelta(minutes=14)
    assert tick(deployment, "event_file_sensor")[0] == []
    Clock.moment = datetime.now(UTC) + timedelta(minutes=16)
    with deployment.hourly.log.lock():  # a long pass
        assert tick(deployment, "event_file_sensor")[:2] == ([], "a landing pass is under way")
    assert len(tick(deployment, "event_file_sensor")[0]) == 1


def test_a_landing_run_that_failed_is_repeated(deployment: Deployment) -> None:
    """Files are not forgotten because a run was asked for: only a pass that has finished counts as one."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    _, _, cursor = tick(deployment, "event_file_sensor")
    run_of(deployment, "land_event_files", dg.DagsterRunStatus.FAILURE)
    (request,), _, _ = tick(deployment, "event_file_sensor", cursor)
    assert request.tags[SEEN_TAG] == "1 new, 0 changed, 0 waiting of 1 files"


def test_the_cursor_does_not_matter(deployment: Deployment) -> None:
    """What a pass has landed decides, with any cursor or none."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.hourly.land(now=CLOSED)
    for cursor in (None, "", "lost"):
        assert tick(deployment, "event_file_sensor", cursor)[:2] == (
            [],
            "nothing new in 1 files",
        )


def test_files_that_a_pass_left_are_asked_for(deployment: Deployment) -> None:
    """A pass that had its fill is followed by another, though no file has changed; no hour closes before."""
    for name in "abc":
        harness.write_events(
            deployment.events_dir / f"{name}.jsonl", [harness.at(HOUR, 1, {"name": name})]
        )
    source = deployment.config.source.model_copy(update={"max_files_per_pass": 2})
    capped = replace(deployment, config=deployment.config.model_copy(update={"source": source}))
    capped.hourly.land(now=CLOSED)
    (request,), _, _ = tick(capped, "event_file_sensor")
    assert request.tags[SEEN_TAG] == "1 new, 0 changed, 1 waiting of 3 files"
    assert request.run_config == {"ops": {"land": {"config": {"max_passes": 1}}}}
    assert capped.hourly.first_open_hour() == capped.config.first_hour
    capped.hourly.land(now=CLOSED)
    assert tick(capped, "event_file_sensor")[:2] == ([], "nothing new in 3 files")


@pytest.mark.soak
def test_ten_thousand_files_take_a_tick_less_than_five_seconds(deployment: Deployment) -> None:
    """With a hundred of them new and a hundred grown."""
    for number in range(10_000):
        folder = deployment.events_dir / f"{number % 100}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jsonl").write_text(
            f'{{"timestamp":"2025-12-04T10:00:00Z","n":{number}}}\n'
        )
    deployment.hourly.land(now=CLOSED)
    for number in range(100):
        (deployment.events_dir / f"{number}" / "new.jsonl").write_text(f'{{"new":{number}}}\n')
        with (deployment.events_dir / f"{number}" / f"{number}.jsonl").open("a") as file:
            file.write(f'{{"more":{number}}}\n')
    began = time.monotonic()
    (request,), _, _ = tick(deployment, "event_file_sensor")
    assert time.monotonic() - began < 5
    assert request.tags[SEEN_TAG] == "100 new, 100 changed, 0 waiting of 10,100 files"


# -- hourly_pipeline_schedule ------------------------------------------------------------------------------------------


@pytest.fixture
def persistent(deployment: Deployment, tmp_path: Path) -> Iterator[Deployment]:
    """A schedule opens the instance by its reference, which an ephemeral one has not."""
    (home := tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        yield replace(deployment, instance=instance)


def test_the_schedule_waits_for_a_landing_pass(persistent: Deployment) -> None:
    """Time alone closes no hour: what has not been looked for cannot be complete."""
    harness.write_events(persistent.events_dir / "a.jsonl", harness.an_hour())
    requests, why = scheduled(persistent)
    assert (requests, why) == ([], "no hour has closed yet: no landing pass has finished")


def test_the_schedule_asks_for_exactly_the_hour_that_closed(persistent: Deployment) -> None:
    """Not for the open hour, which got events too; and once it is built, for nothing."""
    harness.write_events(
        persistent.events_dir / "a.jsonl",
        [*harness.an_hour(), harness.at(HOUR.next, 1, {"n": 1})],
    )
    persistent.hourly.land(now=CLOSED)
    (request,), _ = scheduled(persistent)
    assert request.partition_key == HOUR.key
    assert request.run_key == f"{HOUR}:{landing_of(persistent)}:1"
    assert request.tags[PARTITION_TAG] == HOUR.key
    harness.build(persistent.hourly, HOUR)
    assert scheduled(persistent) == ([], f"{HOUR} is built; the next hour has not closed")


def test_the_schedule_does_not_ask_twice(persistent: Deployment) -> None:
    """While the hour is queued or being built, there is nothing to do."""
    harness.write_events(persistent.events_dir / "a.jsonl", harness.an_hour())
    persistent.hourly.land(now=CLOSED)
    run_of(persistent, "hourly_pipeline", dg.DagsterRunStatus.STARTED, HOUR)
    assert scheduled(persistent) == ([], f"{HOUR} is being built")


def test_an_hour_without_events_is_asked_for_as_well(persistent: Deployment) -> None:
    """Silence is a result: an hour of no events gets its empty partition, too."""
    harness.write_events(persistent.events_dir / "a.jsonl", harness.an_hour(HOUR.previous))
    persistent.hourly.land(now=CLOSED)
    assert hours_of(scheduled(persistent)[0]) == [HOUR.key]


# -- open_hour_sensor --------------------------------------------------------------------------------------------------

HALF_PAST = HOUR.start + timedelta(minutes=30)


def refreshing(deployment: Deployment) -> Deployment:
    """The pipeline with the open hour built every five minutes."""
    return replace(
        deployment, config=deployment.config.model_copy(update={"refresh_open_hour_minutes": 5})
    )


def test_the_open_hour_is_left_alone_by_default(deployment: Deployment) -> None:
    """An hour that is open is not built on every new line, unless somebody asks for it."""
    assert "open_hour_sensor" not in {
        sensor.name for sensor in deployment.definitions.sensors or []
    }


def test_the_open_hour_follows(deployment: Deployment) -> None:
    """With new events it is asked for, once while it is being built; not without, and no hour that has closed."""
    refreshed = refreshing(deployment)
    sensor = refreshed.definitions.resolve_sensor_def("open_hour_sensor")
    assert sensor.minimum_interval_seconds == 300
    Clock.moment = HALF_PAST
    file = harness.write_events(
        refreshed.events_dir / "a.jsonl", harness.an_hour(HOUR.previous) + harness.an_hour()
    )
    refreshed.hourly.land(now=HALF_PAST)
    assert hours_of(tick(refreshed, "open_hour_sensor")[0]) == [HOUR.key]
    run_of(refreshed, "hourly_pipeline", dg.DagsterRunStatus.STARTED, HOUR)
    assert tick(refreshed, "open_hour_sensor")[0] == []
    (run,) = refreshed.instance.get_runs()
    refreshed.instance.report_run_failed(run)
    (again,), _, _ = tick(refreshed, "open_hour_sensor")
    assert (
        again.run_key == f"{HOUR}:{landing_of(refreshed)}:2"
    )  # a run that failed is repeated: Dagster would not take its key again
    harness.build(refreshed.hourly, HOUR)
    assert tick(refreshed, "open_hour_sensor")[:2] == (
        [],
        "no open hour has new events, or it is being built",
    )
    harness.write_events(file, [LATE])
    refreshed.hourly.land(now=HALF_PAST)
    assert hours_of(tick(refreshed, "open_hour_sensor")[0]) == [HOUR.key]
    Clock.moment = HOUR.end + timedelta(minutes=4)
    assert hours_of(tick(refreshed, "open_hour_sensor")[0]) == [HOUR.key]
    Clock.moment = CLOSED
    assert tick(refreshed, "open_hour_sensor")[0] == []


def test_a_refreshed_hour_is_built_once_more_when_it_closes(persistent: Deployment) -> None:
    """All its events may be at the destinations; whether they are many or absent is judged when the hour is whole."""
    refreshed = refreshing(persistent)
    harness.write_events(refreshed.events_dir / "a.jsonl", harness.an_hour())
    refreshed.hourly.land(now=HALF_PAST)
    harness.build(refreshed.hourly, HOUR)
    refreshed.hourly.land(now=CLOSED)
    (request,), _ = scheduled(refreshed)
    assert request.run_key == f"{HOUR}:{landing_of(refreshed)}:closing"
    tags = {**request.tags, PARTITION_TAG: HOUR.key}
    run = dg.DagsterRun(
        job_name="hourly_pipeline", status=dg.DagsterRunStatus.SUCCESS, tags=tags
    )
    refreshed.instance.add_run(run)
    assert scheduled(refreshed) == ([], f"{HOUR} is built; the next hour has not closed")


def test_a_refreshed_hour_ends_in_the_same_bytes(deployment: Deployment) -> None:
    """Built three times while it grew, or once when it had closed: frames, receipts, rows, objects, events told."""
    events = harness.an_hour()
    for part in (events[:10], events[10:20], events[20:]):
        harness.write_events(deployment.events_dir / "a.jsonl", part)
        deployment.hourly.land(now=HALF_PAST)
        harness.build(deployment.hourly, HOUR)
    deployment.hourly.land(now=CLOSED)
    told_early = told(deployment)
    harness.build(deployment.hourly, HOUR)
    refreshed = harness.snapshot(deployment.hourly)
    assert told(deployment) == told_early
    assert harness.wrong(deployment.hourly) == []

    forget(deployment)
    harness.build(deployment.hourly, HOUR)
    assert harness.snapshot(deployment.hourly) == refreshed
    assert told(deployment) == told_early


def told(deployment: Deployment) -> list[str]:
    """The events that the receiver has got, each as often as it came, sorted."""
    bodies = [json.loads(request.body) for request in deployment.receiver.requests]
    return sorted(
        json.dumps(event, sort_keys=True) for body in bodies for event in body["events"]
    )


def forget(deployment: Deployment) -> None:
    """All that was ever built is gone; what has landed stays."""
    for folder in ("frames", "receipts"):
        shutil.rmtree(deployment.hourly.store.root / folder)
    server = deployment.machine.postgres
    harness.ask(server, "DROP SCHEMA obs, public CASCADE")
    harness.ask(server, "CREATE SCHEMA public")
    assert deployment.machine.s3
    with contextlib.closing(connect_s3(deployment.machine.s3)) as client:
        for key in harness.objects(deployment.machine):
            client.delete_object(Bucket=deployment.machine.s3.bucket, Key=key)
    deployment.receiver.requests.clear()


# -- stale_hour_sensor -------------------------------------------------------------------------------------------------


def test_a_late_event_asks_for_its_hour_alone(deployment: Deployment) -> None:
    """Of two hours that are built, only the one that got an event is built again."""
    file = harness.write_events(
        deployment.events_dir / "a.jsonl",
        harness.an_hour(HOUR.previous) + harness.an_hour() + harness.an_hour(HOUR.next),
    )
    deployment.hourly.land(now=CLOSED)
    harness.build(deployment.hourly, HOUR.previous, HOUR)
    assert tick(deployment, "stale_hour_sensor")[:2] == ([], "no hour is stale")

    harness.write_events(file, [LATE])
    deployment.hourly.land(now=CLOSED)
    (request,), _, _ = tick(deployment, "stale_hour_sensor")
    assert request.partition_key == HOUR.key
    version = landing_of(deployment)
    assert version.startswith("2-")
    assert request.run_key == f"{HOUR}:{version}:1"
    assert request.tags[VERSION_TAG] == version
    harness.build(deployment.hourly, HOUR)
    assert tick(deployment, "stale_hour_sensor")[0] == []


def delete_rows(deployment: Deployment) -> None:
    harness.ask(deployment.machine.postgres, "DELETE FROM events WHERE hour = %s", HOUR.start)


def delete_leaf(deployment: Deployment) -> None:
    server = deployment.machine.postgres
    ((leaf,),) = harness.ask(
        server,
        "SELECT DISTINCT tableoid::regclass::text FROM events WHERE hour = %s",
        HOUR.start,
    )
    assert server
    with connect_postgres(server) as connection:
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(leaf)))


def delete_ledger(deployment: Deployment) -> None:
    harness.ask(
        deployment.machine.postgres,
        "DELETE FROM obs.hour_loads WHERE destination = 'public.events'",
    )


def delete_object(deployment: Deployment, name: str = "events-2025120410.jsonl.gz") -> None:
    server = deployment.machine.s3
    assert server
    (key,) = [key for key in harness.objects(deployment.machine) if key.endswith(name)]
    with contextlib.closing(connect_s3(server)) as client:
        client.delete_object(Bucket=server.bucket, Key=key)


def delete_manifest(deployment: Deployment) -> None:
    delete_object(deployment, "2025120410.json")


@pytest.mark.parametrize(
    "delete", [delete_rows, delete_leaf, delete_ledger, delete_object, delete_manifest]
)
def test_an_hour_deleted_by_hand_is_asked_for(
    deployment: Deployment, delete: Callable[[Deployment], None]
) -> None:
    """Receipts on this machine say that it is there; the destination says that it is not. One run heals it."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.hourly.land(now=CLOSED)
    harness.build(deployment.hourly, HOUR)
    assert tick(deployment, "stale_hour_sensor")[:2] == ([], "no hour is stale")
    delete(deployment)
    assert hours_of(tick(deployment, "stale_hour_sensor")[0]) == [HOUR.key]
    assert deployment.materialize(HOUR).success
    assert tick(deployment, "stale_hour_sensor")[:2] == ([], "no hour is stale")
    assert harness.wrong(deployment.hourly) == []


def test_an_hour_without_events_is_not_forgotten(persistent: Deployment) -> None:
    """Of silence no file tells: a run of such an hour that failed is repeated all the same, until the hour is there."""
    harness.write_events(persistent.events_dir / "a.jsonl", harness.an_hour(HOUR.previous))
    persistent.hourly.land(now=CLOSED)
    harness.build(persistent.hourly, HOUR.previous)
    assert tick(persistent, "stale_hour_sensor")[:2] == (
        [],
        "no hour is stale",
    )  # nobody has asked for it yet
    (request,), _ = scheduled(persistent)
    tags = {**request.tags, PARTITION_TAG: HOUR.key}
    run = dg.DagsterRun(
        job_name="hourly_pipeline", status=dg.DagsterRunStatus.STARTED, tags=tags
    )
    persistent.instance.add_run(run)
    assert tick(persistent, "stale_hour_sensor")[0] == []
    persistent.instance.report_run_failed(run)
    Clock.moment = datetime.now(UTC) + timedelta(hours=1)
    (again,), _, _ = tick(persistent, "stale_hour_sensor")
    assert again.partition_key == HOUR.key
    assert again.run_key == f"{HOUR}:0:2" != request.run_key
    harness.build(persistent.hourly, HOUR)
    assert tick(persistent, "stale_hour_sensor")[:2] == ([], "no hour is stale")


def test_a_lost_machine_is_no_reason_to_build_again(deployment: Deployment) -> None:
    """Without receipts and frames of ours the destinations still hold the hour."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.hourly.land(now=CLOSED)
    harness.build(deployment.hourly, HOUR)
    for folder in ("frames", "receipts"):
        shutil.rmtree(deployment.hourly.store.root / folder)
    assert tick(deployment, "stale_hour_sensor")[:2] == ([], "no hour is stale")


def test_an_hour_is_asked_for_again_only_after_its_run_has_ended(
    deployment: Deployment,
) -> None:
    """A run key is remembered for ever, so that each attempt has its own, and a longer pause before it."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.hourly.land(now=CLOSED)
    keys = []
    for minutes in (1, 5, 10, 20):
        Clock.moment = datetime.now(UTC) + timedelta(minutes=minutes - 0.5)
        assert tick(deployment, "stale_hour_sensor")[0] == [] or not keys
        Clock.moment = datetime.now(UTC) + timedelta(minutes=minutes)
        (request,), _, _ = tick(deployment, "stale_hour_sensor")
        keys.append(request.run_key)
        run_of(
            deployment, "hourly_pipeline", dg.DagsterRunStatus.FAILURE, HOUR, attempt=len(keys)
        )
    assert keys == [f"{HOUR}:{landing_of(deployment)}:{attempt}" for attempt in (1, 2, 3, 4)]


@pytest.mark.parametrize("ranged", [False, True])
def test_what_is_in_flight_is_left_alone(deployment: Deployment, ranged: bool) -> None:
    """Whoever asked for it, for the hour or for a range that holds it."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.hourly.land(now=CLOSED)
    tags = (
        {RANGE_START_TAG: HOUR.previous.key, RANGE_END_TAG: HOUR.next.key}
        if ranged
        else {PARTITION_TAG: HOUR.key}
    )
    run = dg.DagsterRun(job_name="__ASSET_JOB", status=dg.DagsterRunStatus.STARTED, tags=tags)
    deployment.instance.add_run(run)
    requests, why, _ = tick(deployment, "stale_hour_sensor")
    assert requests == []
    assert why.startswith("1 hour is stale: being built")


def test_a_run_that_was_never_launched_is_given_up(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row says for ever that it is about to start; after a quarter of an hour it counts as lost."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.hourly.land(now=CLOSED)
    run_of(deployment, "hourly_pipeline", dg.DagsterRunStatus.NOT_STARTED, HOUR)
    Clock.moment = datetime.now(UTC) + timedelta(minutes=14)
    assert tick(deployment, "stale_hour_sensor")[0] == []
    Clock.moment = datetime.now(UTC) + timedelta(minutes=16)
    (request,), _, _ = tick(deployment, "stale_hour_sensor")
    assert request.run_key == f"{HOUR}:{landing_of(deployment)}:2"


def test_an_hour_that_has_just_closed_is_the_schedules(deployment: Deployment) -> None:
    """For a quarter of an hour."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.hourly.land(now=CLOSED)
    Clock.moment = HOUR.end + timedelta(minutes=19)
    assert tick(deployment, "stale_hour_sensor")[0] == []
    Clock.moment = HOUR.end + timedelta(minutes=20)
    assert hours_of(tick(deployment, "stale_hour_sensor")[0]) == [HOUR.key]


def test_a_destination_that_is_down_makes_no_storm(deployment: Deployment) -> None:
    """It is named in one sentence; the others get what they lack, one hour a tick while everything fails."""
    hours = [HOUR.previous, HOUR]
    harness.write_events(
        deployment.events_dir / "a.jsonl", [harness.at(hour, 1, {"n": 1}) for hour in hours]
    )
    deployment.hourly.land(now=CLOSED)
    assert deployment.machine.postgres
    nowhere = deployment.machine.postgres.model_copy(update={"port": 1})
    down = replace(
        deployment, machine=deployment.machine.model_copy(update={"postgres": nowhere})
    )
    requests, _, _ = tick(down, "stale_hour_sensor")
    assert [span_of(request) for request in requests] == [f"{HOUR.previous}...{HOUR}"]
    selected = {key.to_user_string() for key in requests[0].asset_selection or []}
    assert selected == {*STAGES, "s3_archive"}
    for other in (HOUR.next, HOUR.next.next, HOUR.next.next.next):
        run_of(deployment, "hourly_pipeline", dg.DagsterRunStatus.FAILURE, other)
    assert hours_of(tick(down, "stale_hour_sensor")[0]) == [HOUR.previous.key]

    harness.build(replace(deployment, config=only(deployment, "s3")).hourly, *hours)
    requests, why, _ = tick(down, "stale_hour_sensor")
    assert requests == []
    assert why.startswith("no hour is stale; PostgreSQL at 127.0.0.1:1 does not answer")
    assert "\n" not in why


def only(deployment: Deployment, kind: str) -> PipelineConfig:
    """The pipeline with one of its destinations."""
    kept = tuple(
        found for found in deployment.config.destinations if getattr(found, "type", "") == kind
    )
    return deployment.config.model_copy(update={"destinations": kept})


def test_a_changed_configuration_rebuilds_only_when_told_to(deployment: Deployment) -> None:
    """`on_config_change: mark` leaves hours as they are; `rebuild` asks for them."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.hourly.land(now=CLOSED)
    harness.build(deployment.hourly, HOUR)
    changed = {"sample": SampleConfig(default_rate=0.5, success_rate=0.5)}
    marked = replace(deployment, config=deployment.config.model_copy(update=changed))
    assert tick(marked, "stale_hour_sensor")[0] == []
    told = replace(
        deployment,
        config=deployment.config.model_copy(update={**changed, "on_config_change": "rebuild"}),
    )
    assert hours_of(tick(told, "stale_hour_sensor")[0]) == [HOUR.key]
    harness.build(told.hourly, HOUR)
    assert tick(told, "stale_hour_sensor")[0] == []


@pytest.mark.parametrize("leaf_hours", [1, 24])
def test_what_a_destination_let_expire_stays_away(
    deployment: Deployment, leaf_hours: int
) -> None:
    """At the edge of retention an hour is healed while it is kept, and never asked for again once it is dropped."""
    config = harness.everything_kept(
        deployment.events_dir, destinations=[{"type": "postgres", "retention_days": 2}]
    )
    kept = replace(deployment, config=config)
    harness.write_events(kept.events_dir / "a.jsonl", harness.an_hour())
    kept.hourly.land(now=CLOSED)
    (table,) = kept.hourly.tables().values()
    if leaf_hours == 1:  # as an hour of many rows has it
        table.init()
        with connect_postgres(kept.machine.postgres) as connection:
            connection.execute(
                "CREATE TABLE events_h2025120410 PARTITION OF events "
                "FOR VALUES FROM ('2025-12-04 10:00+00') TO ('2025-12-04 11:00+00')"
            )

    Clock.moment = HOUR.end + timedelta(days=2, microseconds=-1)
    assert table.upkeep.drop_expired(Clock.moment) == []
    assert hours_of(tick(kept, "stale_hour_sensor")[0]) == [HOUR.key]
    harness.build(kept.hourly, HOUR)
    assert table.upkeep.drop_expired(Clock.moment) == []
    assert tick(kept, "stale_hour_sensor")[0] == []

    end = HOUR.end if leaf_hours == 1 else HOUR.start.replace(hour=0) + timedelta(days=1)
    Clock.moment = end + timedelta(days=2)
    assert len(table.upkeep.drop_expired(Clock.moment)) == 1
    assert tick(kept, "stale_hour_sensor")[0] == []


def many_hours(deployment: Deployment, count: int) -> list[Hour]:
    """So many consecutive hours, landed and closed."""
    first = Hour(datetime(2025, 12, 2, tzinfo=UTC))
    hours = [Hour(first.start + timedelta(hours=number)) for number in range(count)]
    harness.write_events(
        deployment.events_dir / "a.jsonl", [harness.at(hour, 1, {"n": 1}) for hour in hours]
    )
    deployment.hourly.land(now=CLOSED)
    return hours


def test_many_stale_hours_are_asked_for_in_portions(deployment: Deployment) -> None:
    """After a long outage the oldest come first, in one run, and those already queued do not block the rest."""
    hours = many_hours(deployment, HOURS_A_TICK + 6)
    (first,), _, _ = tick(deployment, "stale_hour_sensor")
    launched(deployment, first, dg.DagsterRunStatus.NOT_STARTED)
    (second,), _, _ = tick(deployment, "stale_hour_sensor")
    assert span_of(first) == f"{hours[0]}...{hours[HOURS_A_TICK - 1]}"
    assert span_of(second) == f"{hours[HOURS_A_TICK]}...{hours[-1]}"
    assert first.partition_key is None
    version = landing_of(deployment, hours[0])
    assert first.tags[VERSION_TAG] == ",".join([version] * HOURS_A_TICK)


def test_the_hours_of_a_range_that_failed_are_asked_for_alone(deployment: Deployment) -> None:
    """One of them keeps failing perhaps: it must not hold its neighbours. Their pauses grow as those of any hour."""
    hours = many_hours(deployment, 3)
    (request,), _, _ = tick(deployment, "stale_hour_sensor")
    launched(deployment, request, dg.DagsterRunStatus.FAILURE)
    Clock.moment = datetime.now(UTC) + timedelta(minutes=4)
    assert tick(deployment, "stale_hour_sensor")[0] == []
    Clock.moment = datetime.now(UTC) + timedelta(minutes=6)
    alone, _, _ = tick(deployment, "stale_hour_sensor")
    assert [one.partition_key for one in alone] == [hour.key for hour in hours]
    version = landing_of(deployment, hours[0])
    assert [one.run_key for one in alone] == [f"{hour}:{version}:2" for hour in hours]
    assert len({request.run_key, *(one.run_key for one in alone)}) == 4
    launched(deployment, alone[0], dg.DagsterRunStatus.FAILURE)
    Clock.moment = datetime.now(UTC) + timedelta(minutes=9)
    assert hours_of(tick(deployment, "stale_hour_sensor")[0]) == [
        hour.key for hour in hours[1:]
    ]


def test_the_hours_that_a_cancelled_range_lacks_are_one_run_again(
    deployment: Deployment,
) -> None:
    """Cancelled is not failed: the rest is asked for together after the pause, and what is held is not."""
    hours = many_hours(deployment, 4)
    (request,), _, _ = tick(deployment, "stale_hour_sensor")
    harness.build(deployment.hourly, hours[0])
    launched(deployment, request, dg.DagsterRunStatus.CANCELED)
    Clock.moment = datetime.now(UTC) + timedelta(minutes=6)
    (again,), _, _ = tick(deployment, "stale_hour_sensor")
    assert span_of(again) == f"{hours[1]}...{hours[3]}"
    assert again.tags[ATTEMPT_TAG] == "2"


def test_a_gap_or_a_large_hour_ends_a_range(deployment: Deployment) -> None:
    """Hours between that are held are not built again; large hours run side by side."""
    hours = many_hours(deployment, 6)
    harness.build(deployment.hourly, hours[2])
    spans = [span_of(request) for request in tick(deployment, "stale_hour_sensor")[0]]
    assert spans == [f"{hours[0]}...{hours[1]}", f"{hours[3]}...{hours[5]}"]
    with (deployment.events_dir / "large.jsonl").open("w") as file:
        for hour in hours[3:]:
            line = json.dumps({"timestamp": hour.start.isoformat()})
            file.write(f"{line}\n" * (EVENTS_A_RANGE * 2 // 5))
    deployment.hourly.land(now=CLOSED)
    spans = [span_of(request) for request in tick(deployment, "stale_hour_sensor")[0]]
    assert spans == [f"{hours[0]}...{hours[1]}", f"{hours[3]}...{hours[4]}", hours[5].key]


def test_destinations_are_asked_again_after_a_pass_or_five_minutes(
    deployment: Deployment,
) -> None:
    """The cursor spares questions between: a tick costs nothing while nothing has landed."""
    file = harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.hourly.land(now=CLOSED)
    (_,), _, cursor = tick(deployment, "stale_hour_sensor")
    requests, why, cursor = tick(deployment, "stale_hour_sensor", cursor)
    assert requests == []
    assert why == "nothing has landed since 11:20:00 UTC, when the destinations were asked"
    Clock.moment += timedelta(minutes=5)
    assert hours_of(tick(deployment, "stale_hour_sensor", cursor)[0]) == [HOUR.key]
    Clock.moment -= timedelta(minutes=4)
    harness.write_events(file, [LATE])
    deployment.hourly.land(now=CLOSED)
    assert hours_of(tick(deployment, "stale_hour_sensor", cursor)[0]) == [HOUR.key]


def test_what_the_ledgers_hold_is_known_to_dagster(deployment: Deployment) -> None:
    """Runs that were killed reported nothing: the sensor does, once, but not for an hour that a run has in hand."""
    hours = many_hours(deployment, 3)
    harness.build(deployment.hourly, *hours)
    launched(deployment, dg.RunRequest(partition_key=hours[0].key), dg.DagsterRunStatus.STARTED)
    for _ in range(2):
        tick(deployment, "stale_hour_sensor")
        for name in deployment.hourly.destination_names:
            key = dg.AssetKey(name)
            assert deployment.instance.get_materialized_partitions(key) == {
                hour.key for hour in hours[1:]
            }
            told = deployment.instance.fetch_materializations(key, limit=10).records
            assert len(told) == 2


# -- start, and hours before it ----------------------------------------------------------------------------------------


def starting(deployment: Deployment, start: str, **others: Any) -> Deployment:
    return replace(
        deployment, config=deployment.config.model_copy(update={"start": start, **others})
    )


def test_hours_before_the_start_are_left_alone_and_named_once(deployment: Deployment) -> None:
    """`start` was moved later: no tick fails, only what is left of the pipeline is asked for; moved back, all is."""
    hours = many_hours(deployment, 6)
    later = starting(deployment, hours[3].key)
    requests, _, cursor = tick(later, "stale_hour_sensor")
    assert hours_of(requests) == [hour.key for hour in hours[3:]]
    staleness = later.hourly.staleness(Clock.moment)
    assert staleness.before_start == tuple(hours[:3])
    assert staleness.sentence_before_start().startswith(
        f"3 landed hours, {hours[0]} to {hours[2]}, lie before"
    )
    assert json.loads(cursor or "")["before_start"] == 3
    for name in ("event_file_sensor", "remove_expired_events_sensor", "dispatch_alerts_sensor"):
        assert tick(later, name)[0] == []
    assert hours_of(tick(deployment, "stale_hour_sensor")[0]) == [hour.key for hour in hours]


def test_rows_that_were_deleted_before_the_start_moved_are_not_asked_for(
    deployment: Deployment,
) -> None:
    """An hour before `start` whose rows are gone is left alone; it is requested again when `start` moves back."""
    hours = many_hours(deployment, 3)
    deployment.materialize(hours[0], hours[2])
    for hour in (hours[0], hours[2]):
        harness.ask(
            deployment.machine.postgres, "DELETE FROM events WHERE hour = %s", hour.start
        )
    later = starting(deployment, hours[1].key)
    assert hours_of(tick(later, "stale_hour_sensor")[0]) == [hours[2].key]
    assert later.hourly.staleness(Clock.moment).before_start == (hours[0],)
    back = tick(deployment, "stale_hour_sensor")[0]
    assert hours_of(back) == [hours[0].key, hours[2].key]


def test_hours_of_another_data_folder_are_left_alone_and_named_once(
    deployment: Deployment, tmp_path: Path
) -> None:
    """The sensor does not ask for an hour that another log loaded; adopted, it is asked for like any other."""
    hours = many_hours(deployment, 2)
    deployment.materialize(hours[0], hours[1])
    machine = deployment.machine.model_copy(update={"data_dir": tmp_path / "second"})
    other = replace(deployment, machine=machine)
    other.land()
    assert list(other.hourly.staleness(Clock.moment).elsewhere) == hours
    requests, _, cursor = tick(other, "stale_hour_sensor")
    assert requests == []
    assert json.loads(cursor or "")["elsewhere"] == 2
    assert tick(other, "stale_hour_sensor", cursor)[2] == cursor
    list(adopt(other.hourly, hours[:1]))
    requests, _, cursor = tick(other, "stale_hour_sensor")
    assert hours_of(requests) == [hours[0].key]
    assert json.loads(cursor or "")["elsewhere"] == 1


def test_hours_before_the_start_expire(deployment: Deployment) -> None:
    """What no destination holds and nobody asks for any more does not outlive retention_days."""
    hours = many_hours(deployment, 2)
    later = starting(deployment, hours[1].key, retention_days=1)
    harness.build(later.hourly, hours[1])
    now = datetime.now(UTC) + timedelta(days=2)
    assert later.hourly.expiry_due(now) == "2 hours have expired"
    assert later.hourly.expire(now).hours == tuple(hours)
    assert later.hourly.staleness(now).before_start == ()


def test_without_a_start_partitions_begin_with_the_first_day_that_landed(
    deployment: Deployment,
) -> None:
    """Older files come while the code is loaded: their hours are asked for, and built by code that is loaded anew."""
    assert deployment.config.start is None
    loaded = deployment.definitions
    yesterday = Clock.now() - timedelta(days=1)
    assert first_partition(loaded) == f"{yesterday:%Y-%m-%d}-00:00"
    hours = many_hours(deployment, 2)
    assert deployment.hourly.landed().letters == {}
    with dg.build_sensor_context(instance=deployment.instance, definitions=loaded) as context:
        (request,) = (
            loaded.resolve_sensor_def("stale_hour_sensor").evaluate_tick(context).run_requests
            or []
        )
    assert span_of(request) == f"{hours[0]}...{hours[1]}"
    assert first_partition(deployment.definitions) == f"{hours[0].start:%Y-%m-%d}-00:00"
    harness.build(deployment.hourly, hours[0])
    with dg.build_sensor_context(instance=deployment.instance, definitions=loaded) as context:
        (request,) = (
            loaded.resolve_sensor_def("stale_hour_sensor").evaluate_tick(context).run_requests
            or []
        )
    assert span_of(request) == hours[1].key
    assert deployment.materialize(hours[1]).success
    assert tick(deployment, "stale_hour_sensor")[:2] == ([], "no hour is stale")


def first_partition(definitions: dg.Definitions) -> str:
    partitions = definitions.resolve_assets_def("raw_events").partitions_def
    assert partitions
    first = partitions.get_first_partition_key()
    assert first
    return first


def test_with_a_start_earlier_events_are_dead_letters(deployment: Deployment) -> None:
    """And the partitions begin there, whatever has landed."""
    later = starting(deployment, HOUR.key)
    early = harness.at(HOUR.previous, 1, {"n": 1})
    harness.write_events(later.events_dir / "a.jsonl", [*harness.an_hour(), early])
    later.hourly.land(now=CLOSED)
    assert list(later.hourly.landed().letters) == ["before_start"]
    assert first_partition(later.definitions) == HOUR.key


# -- runs of other code locations --------------------------------------------------------------------------------------

FOREIGN: dict[str, dict[str, str]] = {
    "daily range": {RANGE_START_TAG: "2025-12-01", RANGE_END_TAG: "2025-12-05"},
    "static range": {RANGE_START_TAG: "de", RANGE_END_TAG: "us"},
    "two dimensions": {RANGE_START_TAG: "2025-12-01|de", RANGE_END_TAG: "2025-12-05|us"},
    "hours with minutes": {
        RANGE_START_TAG: "2025-12-04-09:30",
        RANGE_END_TAG: "2025-12-04-10:30",
    },
    "backwards": {RANGE_START_TAG: "2025-12-04-12:00", RANGE_END_TAG: "2025-12-04-09:00"},
    "a range of our hours": {RANGE_START_TAG: HOUR.previous.key, RANGE_END_TAG: HOUR.next.key},
    "our hour": {PARTITION_TAG: HOUR.key},
    "daily key": {PARTITION_TAG: "2025-12-04"},
    "half a range": {RANGE_START_TAG: "2025-12-04-09:00"},
    "no partition": {},
}


@pytest.mark.parametrize("tags", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("selected", [False, True])
def test_runs_of_other_code_locations_change_nothing(
    persistent: Deployment, tags: dict[str, str], selected: bool
) -> None:
    """Whatever their partitions are called: sensors and schedule ask for the same with and without them."""
    refreshed = refreshing(persistent)
    harness.write_events(
        refreshed.events_dir / "a.jsonl", harness.an_hour() + harness.an_hour(HOUR.next)
    )
    refreshed.hourly.land(now=CLOSED)

    def asked() -> list[Any]:
        ticks = [
            tick(refreshed, name)[:2]
            for name in ("stale_hour_sensor", "open_hour_sensor", "event_file_sensor")
        ]
        return [*ticks, scheduled(refreshed)]

    without = asked()
    assert hours_of(without[0][0]) == hours_of(without[-1][0]) == [HOUR.key]
    assert hours_of(without[1][0]) == [HOUR.next.key]
    selection = frozenset({dg.AssetKey(["other", "raw_events"])}) if selected else None
    job = "__ASSET_JOB" if selected else "another_teams_job"
    for status in (
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.FAILURE,
    ):
        refreshed.instance.add_run(
            dg.DagsterRun(job_name=job, status=status, tags=tags, asset_selection=selection)
        )
    assert asked() == without


def test_a_job_of_the_same_name_with_other_assets_is_not_ours(deployment: Deployment) -> None:
    """Another team calls its job hourly_pipeline, too: its steps tell the two apart."""
    harness.write_events(deployment.events_dir / "a.jsonl", harness.an_hour())
    deployment.hourly.land(now=CLOSED)

    @dg.asset(partitions_def=dg.HourlyPartitionsDefinition("2025-12-01-00:00"))
    def orders() -> None:
        """Of another team."""

    theirs = dg.Definitions(assets=[orders], jobs=[dg.define_asset_job("hourly_pipeline")])
    for definitions, expected in ((theirs, [HOUR.key]), (deployment.definitions, [])):
        job = definitions.resolve_job_def("hourly_pipeline")
        run = deployment.instance.create_run_for_job(
            job, status=dg.DagsterRunStatus.STARTED, tags={PARTITION_TAG: HOUR.key}
        )
        assert hours_of(tick(deployment, "stale_hour_sensor")[0]) == expected
        deployment.instance.report_run_canceled(run)
