"""Data folders that are lost, doubled or made anew meet servers that another folder filled."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from obs_assets.audit import metrics
from obs_assets.audit.review import review
from obs_assets.cli import app
from obs_assets.errors import ConfigurationError, HourBusyError, OtherLogError, StaleHourError
from obs_assets.hourly.adoption import adopt
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.restore import archive_of, restore
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.receipts import InputVersion
from obs_assets.settings import Settings
from obs_assets.sources.log import LandingLog, read_pass
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR

DESTINATIONS = ["postgres_events", "s3_archive", "webhook_alerts"]
NOW = datetime(2025, 12, 5, tzinfo=UTC)
LATE = harness.at(HOUR, 3599, {"type": "late", "level": "error", "n": 1})


def folder(settings: Settings, events_dir: Path, name: str) -> HourlyPipeline:
    """A pipeline on the same servers, with a data folder of its own."""
    moved = settings.model_copy(update={"data_dir": settings.data_dir.parent / name})
    return HourlyPipeline(harness.everything_kept(events_dir), moved)


def filled(settings: Settings, events_dir: Path, name: str = "first") -> HourlyPipeline:
    """A folder that has landed the events and loaded the hour into every destination."""
    hourly = folder(settings, events_dir, name)
    hourly.land(now=NOW)
    harness.build(hourly, HOUR)
    return hourly


def built(hourly: HourlyPipeline) -> HourlyPipeline:
    """With the frames of the hour built, and nothing delivered."""
    for stage in STAGES:
        hourly.build(stage, HOUR)
    return hourly


def rows(hourly: HourlyPipeline) -> int:
    """Of the hour in PostgreSQL."""
    query = "SELECT count(*) FROM events WHERE hour = %s"
    ((count,),) = harness.ask(hourly.settings.postgres, query, HOUR.start)
    return int(count)


def is_refused(hourly: HourlyPipeline, name: str) -> bool:
    """Whether a destination refuses the hour as one of another data folder, with both identities and the command."""
    with pytest.raises(OtherLogError) as raised:
        hourly.deliver(name, HOUR)
    held = hourly.destination(name).holding(HOUR)
    assert held
    said = str(raised.value)
    ids = (held.version.log_id[:8], hourly.landed().log_id[:8])
    return all(word in said for word in (*ids, "another data folder", f"obs adopt {HOUR}"))


def outcomes(hourly: HourlyPipeline, **options: Any) -> list[str]:
    """What adopting the hour did at each destination."""
    return [found.outcome for found in adopt(hourly, [HOUR], **options)]


# -- the question -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "landed", "standing"),
    [
        ((1, "a"), (2, "a"), "older"),
        ((2, "a"), (2, "a"), "same"),
        ((3, "a"), (2, "a"), "newer"),
        ((1, "b"), (2, "a"), "other log"),
        ((2, "b"), (2, "a"), "other log"),
        ((3, "b"), (2, "a"), "other log"),
        ((2, "a"), (2, ""), "other log"),
        ((1, ""), (2, ""), "older"),
        ((3, ""), (2, ""), "newer"),
        ((1, ""), (2, "a"), "older"),
        ((2, ""), (2, "a"), "same"),
        ((3, ""), (2, "a"), "other log"),
    ],
    ids=str,
)
def test_generations_of_two_logs_are_never_compared(
    held: tuple[int, str], landed: tuple[int, str], standing: str
) -> None:
    """Only of one log is a lower generation an older one; what has no identity is this log's while that is possible."""
    versions = [InputVersion(number, "c", "1", log_id) for number, log_id in (held, landed)]
    assert versions[0].standing(versions[1]) == standing


def test_a_log_keeps_the_identity_of_its_first_pass(tmp_path: Path, events_dir: Path) -> None:
    """It is in every pass, in the state with and without the checkpoint, after folding, and in the versions."""
    hourly = HourlyPipeline(harness.everything_kept(events_dir), Settings(data_dir=tmp_path))
    assert hourly.landed().log_id == ""
    hourly.land(now=NOW)
    identity = hourly.landed().log_id
    assert len(identity) == 36
    harness.write_events(events_dir / "a.jsonl", [LATE])
    hourly.land(now=NOW)
    passes = sorted(hourly.log.passes_dir.glob("*/pass.json"))
    assert [read_pass(path).log_id for path in passes] == [identity, identity]
    with hourly.log.lock():
        LandingLog(hourly.log.root, fold_at=2).fold(hourly.landed())
    (hourly.log.root / "checkpoint.json").unlink()
    assert hourly.landed().log_id == identity
    assert hourly.build("raw_events", HOUR).version.log_id == identity
    other = folder(Settings(data_dir=tmp_path), events_dir, "other")
    other.land(now=NOW)
    assert other.landed().log_id not in ("", identity)


def without_identity(hourly: HourlyPipeline) -> None:
    """Make a landing log of an earlier version of this one."""
    for path in hourly.log.root.rglob("*.json"):
        values = json.loads(path.read_text())
        values.pop("log_id", None)
        path.write_text(json.dumps(values))


def test_a_log_of_an_earlier_version_gets_its_identity_at_the_next_pass(
    tmp_path: Path, events_dir: Path
) -> None:
    """Until then it has none; what was built before and after it are versions of one log."""
    config, machine = harness.everything_kept(events_dir), Settings(data_dir=tmp_path)
    HourlyPipeline(config, machine).land(now=NOW)
    without_identity(HourlyPipeline(config, machine))
    hourly = HourlyPipeline(config, machine)
    before = hourly.build("raw_events", HOUR)
    assert (before.version.generation, before.version.log_id) == (1, "")
    harness.write_events(events_dir / "a.jsonl", [LATE])
    hourly.land(now=NOW)
    after = hourly.build("raw_events", HOUR)
    assert (after.version.generation, after.version.log_id) == (2, hourly.landed().log_id)
    assert before.version.standing(after.version) == "older"
    with pytest.raises(ConfigurationError, match="no identity yet"):
        list(adopt(folder(machine, events_dir, "empty"), [HOUR]))


# -- lost folders ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_that_was_lost_begins_anew_on_the_same_servers(
    settings: Settings, events_dir: Path
) -> None:
    """Nothing is red for ever or taken by chance: the hour is named, adopted, and takes late events."""
    first = filled(settings, events_dir)
    harness.write_events(events_dir / "a.jsonl", [LATE])
    first.land(now=NOW)
    harness.build(first, HOUR)
    held = rows(first)
    stored = harness.objects(settings)
    shutil.rmtree(first.settings.data_dir)

    second = folder(settings, events_dir, "second")
    second.land(now=NOW)
    staleness = second.staleness(NOW)
    assert staleness.missing == {}
    assert list(staleness.elsewhere) == [HOUR]
    assert sorted(staleness.elsewhere[HOUR]) == DESTINATIONS
    assert second.landed().log_id[:8] in staleness.sentence_elsewhere()
    assert f"obs adopt {HOUR}`" in staleness.sentence_elsewhere()
    assert not second.needs_build(HOUR)
    measured = {
        (one.labels["destination"], one.value)
        for one in metrics.measure(second, NOW)
        if one.metric == "obs_other_folder_partitions"
    }
    assert measured == {(name, 1) for name in DESTINATIONS}
    assert all(is_refused(built(second), name) for name in DESTINATIONS)

    # Files are known by random ids: what lands anew has other identities, though the same events
    assert outcomes(second, dry_run=True) == ["differs"] * 3
    assert list(second.staleness(NOW).elsewhere) == [HOUR]
    assert outcomes(second) == ["differs"] * 3
    assert harness.objects(settings).keys() == stored.keys()
    assert second.staleness(NOW).elsewhere == {}
    assert list(second.staleness(NOW).missing) == [HOUR]
    harness.build(second, HOUR)
    assert rows(second) == held
    assert harness.wrong(second) == []

    harness.write_events(events_dir / "a.jsonl", [LATE | {"n": 2}])
    second.land(now=NOW)
    assert list(second.staleness(NOW).missing) == [HOUR]
    harness.build(second, HOUR)
    assert rows(second) == held + 1
    assert harness.wrong(second) == []


@pytest.mark.slow
def test_equal_counters_of_two_logs_are_no_agreement(
    settings: Settings, events_dir: Path
) -> None:
    """An hour whose files are partly gone, and a late event: generation 2 here and there, and not the same events."""
    first = filled(settings, events_dir)
    harness.write_events(events_dir / "a.jsonl", [LATE])
    first.land(now=NOW)
    harness.build(first, HOUR)
    held = rows(first)
    (events_dir / "a.jsonl").unlink()
    second = folder(settings, events_dir, "second")
    for number in range(2):
        harness.write_events(events_dir / f"new-{number}.jsonl", [LATE | {"n": number}])
        second.land(now=NOW)
    assert second.landed().hour(HOUR).generation == 2
    assert list(second.staleness(NOW).elsewhere) == [HOUR]
    assert all(is_refused(built(second), name) for name in DESTINATIONS)
    assert rows(second) == held

    found = list(adopt(second, [HOUR, HOUR.next], dry_run=True))
    assert {(one.outcome, one.rows_here) for one in found} == {("differs", 2)}
    assert {one.rows_there for one in found if one.destination != "webhook_alerts"} == {held}
    assert outcomes(second) == ["differs"] * 3
    assert rows(second) == held
    staleness = second.staleness(NOW)
    assert staleness.missing == {HOUR: tuple(second.destination_names)}
    assert staleness.elsewhere == {}
    assert second.needs_build(HOUR)
    harness.build(second, HOUR)
    assert rows(second) == 2
    assert harness.wrong(second) == []
    with pytest.raises(OtherLogError):
        first.deliver("postgres_events", HOUR)


@pytest.mark.slow
def test_two_folders_on_the_same_servers_leave_each_others_hours_alone(
    settings: Settings, events_dir: Path
) -> None:
    """Each keeps what it loaded; the check says what is wrong, and retention keeps what the destinations lack."""
    first = filled(settings, events_dir)
    held = rows(first)
    harness.write_events(events_dir / "a.jsonl", [LATE])
    second = folder(settings, events_dir, "second")
    second.land(now=NOW)
    for stage in STAGES:
        second.build(stage, HOUR)
    assert all(is_refused(second, name) for name in DESTINATIONS)
    assert rows(second) == held
    first.land(now=NOW)
    harness.build(first, HOUR)
    assert rows(first) == held + 1
    assert harness.wrong(first) == []
    problems = {verdict.store: str(verdict) for verdict in harness.wrong(second)}
    assert all("obs adopt" in problems[name] for name in DESTINATIONS[:2])

    much_later = datetime(2026, 3, 1, tzinfo=UTC)
    second.land(now=much_later)
    assert second.expire(much_later).waiting == (HOUR,)
    assert outcomes(second) == ["differs"] * 3
    assert second.expire(much_later).waiting == (HOUR,)
    harness.build(second, HOUR)
    assert second.expire(much_later).hours == (HOUR,)
    with pytest.raises(OtherLogError):
        first.deliver("s3_archive", HOUR)


@pytest.mark.slow
def test_an_hour_restored_into_an_empty_folder_is_adopted_and_takes_late_events(
    settings: Settings, events_dir: Path
) -> None:
    """It comes back from the archive as generation 1 of another log, and nothing is replaced by fewer events."""
    first = filled(settings, events_dir)
    held = rows(first)
    shutil.rmtree(first.settings.data_dir)
    (events_dir / "a.jsonl").unlink()
    second = folder(settings, events_dir, "second")
    restore(archive_of(second), second, HOUR)
    second.land(now=NOW)
    assert list(second.staleness(NOW).elsewhere) == [HOUR]
    assert all(is_refused(built(second), name) for name in DESTINATIONS)
    archived = harness.objects(settings)
    found = {one.destination: one.outcome for one in adopt(second, [HOUR])}
    assert found["s3_archive"] == "matches"
    assert second.staleness(NOW).elsewhere == {}
    after = harness.objects(settings)
    changed = {key for key in after if after[key] != archived[key]}
    assert all("_manifests" in key for key in changed)
    assert second.deliver("s3_archive", HOUR).kept == 0
    harness.build(second, HOUR)
    harness.write_events(events_dir / "b.jsonl", [LATE])
    second.land(now=NOW)
    assert list(second.staleness(NOW).missing) == [HOUR]
    harness.build(second, HOUR)
    assert rows(second) == held + 1
    assert harness.wrong(second) == []


# -- ledgers of earlier versions ---------------------------------------------------------------------------------------


def forget_identity(hourly: HourlyPipeline, settings: Settings) -> None:
    """Make the ledgers those of an earlier version: no column, no field."""
    harness.ask(settings.postgres, "ALTER TABLE obs.hour_loads DROP COLUMN log_id")
    harness.ask(
        settings.postgres,
        "DELETE FROM obs.migrations WHERE subject = 'ledger' AND version >= 3",
    )
    archive = hourly.destination("s3_archive")
    place, key = archive.place, archive.config.manifest_key(HOUR)  # type: ignore[attr-defined]
    with place.session():
        text, tag = place.read(key)
        manifest = json.loads(text)
        del manifest["version"]["log_id"]
        place.put(key, json.dumps(manifest).encode(), tag)


@pytest.mark.slow
def test_a_ledger_without_identity_takes_the_first_that_writes(
    settings: Settings, events_dir: Path
) -> None:
    """It is read before it is migrated, counts as this log's, and from the next load on it is."""
    first = filled(settings, events_dir)
    forget_identity(first, settings)
    first = folder(settings, events_dir, "first")
    for name in DESTINATIONS:
        held = first.destination(name).holding(HOUR)
        assert held
        assert held.version.log_id == ""
        assert first.destination(name).holdings() == {HOUR: held}
    assert first.staleness(NOW).missing == first.staleness(NOW).elsewhere == {}
    for name in DESTINATIONS:
        assert first.deliver(name, HOUR).kept == 0
        held = first.destination(name).holding(HOUR)
        assert held
        assert held.version.log_id == first.landed().log_id
    second = folder(settings, events_dir, "second")
    second.land(now=NOW)
    assert list(second.staleness(NOW).elsewhere) == [HOUR]


@pytest.mark.slow
def test_a_ledger_without_identity_is_not_written_by_a_log_that_has_seen_less(
    settings: Settings, events_dir: Path
) -> None:
    """It was loaded from another folder, or from an older state of this one: adopting decides, not a counter."""
    first = filled(settings, events_dir)
    harness.write_events(events_dir / "a.jsonl", [LATE])
    first.land(now=NOW)
    harness.build(first, HOUR)
    forget_identity(first, settings)
    second = folder(settings, events_dir, "second")
    second.land(now=NOW)
    for stage in STAGES:
        second.build(stage, HOUR)
    for name in DESTINATIONS:
        with pytest.raises(OtherLogError, match="landing log without identity"):
            second.deliver(name, HOUR)
    assert outcomes(second) == ["differs"] * 3
    assert list(second.staleness(NOW).missing) == [HOUR]


@pytest.mark.slow
def test_a_ledger_that_has_changed_meanwhile_is_not_adopted(
    settings: Settings, events_dir: Path
) -> None:
    """Another run has written the hour since it was compared."""
    first = filled(settings, events_dir)
    for name in DESTINATIONS:
        destination = first.destination(name)
        held = destination.holding(HOUR)
        assert held
        with pytest.raises(HourBusyError):
            destination.adopt(HOUR, replace(held, content_hash="0" * 16), held.version)
        assert destination.holding(HOUR) == held


@pytest.mark.slow
def test_a_frame_that_is_older_in_the_same_log_is_still_refused(
    settings: Settings, events_dir: Path
) -> None:
    """The sentence then speaks of generations, not of folders."""
    first = filled(settings, events_dir)
    harness.write_events(events_dir / "a.jsonl", [LATE])
    first.land(now=NOW)
    receipts = {stage: first.store.read_receipt(stage, HOUR) for stage in STAGES}
    harness.build(first, HOUR)
    for receipt in receipts.values():
        first.store.write_receipt(receipt, HOUR)
    for name in DESTINATIONS:
        with pytest.raises(StaleHourError, match="generation 2") as raised:
            first.deliver(name, HOUR)
        assert not isinstance(raised.value, OtherLogError)


# -- the user ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_status_check_and_command_name_the_hour_once(
    settings: Settings, events_dir: Path, tmp_path: Path
) -> None:
    """A sentence in `obs status` and in the check; `obs adopt` prints rows and hashes of both sides."""
    held = rows(filled(settings, events_dir))
    second = folder(settings, events_dir, "second")
    second.land(now=NOW)
    for stage in STAGES:
        second.build(stage, HOUR)
    pipelines = harness.write_pipeline(tmp_path / "pipelines", second.config)
    environment = harness.environment(second.settings, OBS_PIPELINES_DIR=str(pipelines))

    def obs(*arguments: str) -> str:
        return (
            CliRunner().invoke(app, arguments, env=environment, catch_exceptions=False).stdout
        )

    shown = obs("status")
    assert "stale hours  0" in shown
    assert shown.count("from another data folder") == 1
    offered = second.store.read_receipt("sampled_events", HOUR)
    receipt = replace(offered, stage="postgres_events")
    finding = review(second, "postgres_events", HOUR, receipt)["destinations_agree"]
    assert not finding.passed
    assert "was loaded from another data folder" in finding.sentence

    dry = obs("adopt", HOUR.key, "--dry-run")
    assert dry.count("differs  there") == 3
    assert f"there {held} rows" in dry
    assert "nothing was changed" in dry
    done = json.loads(obs("adopt", HOUR.key, "--json"))
    assert {one["outcome"] for one in done} == {"differs"}
    assert "from this data folder" in obs("adopt", HOUR.key)


# -- copies ------------------------------------------------------------------------------------------------------------


def copied(hourly: HourlyPipeline, events_dir: Path, name: str) -> HourlyPipeline:
    """A copy of a data folder, with all that it has landed and built."""
    data_dir = hourly.settings.data_dir
    shutil.copytree(data_dir, data_dir.parent / name)
    return folder(hourly.settings, events_dir, name)


def when_written(settings: Settings) -> list[tuple[str, str]]:
    """The row_uid of each row in PostgreSQL, and the transaction that wrote it."""
    query = "SELECT row_uid, xmin::TEXT FROM events ORDER BY row_uid"
    return [(str(uid), str(written)) for uid, written in harness.ask(settings.postgres, query)]


@pytest.mark.slow
def test_hours_of_equal_content_are_adopted_without_a_write(
    settings: Settings, events_dir: Path, tmp_path: Path
) -> None:
    """A range of them, after a dry run that changes nothing: only ledgers change, and late events go on as ever."""
    hours = [HOUR, HOUR.next]
    harness.write_events(events_dir / "next.jsonl", harness.an_hour(HOUR.next))
    first = filled(settings, events_dir)
    harness.build(first, HOUR.next)
    second = copied(first, events_dir, "second")
    without_identity(second)
    harness.write_events(events_dir / "new.jsonl", [harness.at(HOUR.next.next, 1, {"n": 1})])
    second.land(now=NOW)
    assert list(second.staleness(NOW).elsewhere) == hours
    rows_before, objects_before = when_written(settings), harness.objects(settings)

    pipelines = harness.write_pipeline(tmp_path / "pipelines", second.config)
    environment = harness.environment(second.settings, OBS_PIPELINES_DIR=str(pipelines))
    command = ["adopt", f"{HOUR}...{HOUR.next}", "--dry-run"]
    done = CliRunner().invoke(app, command, env=environment, catch_exceptions=False)
    assert done.stdout.count(" matches ") == len(hours) * len(DESTINATIONS)
    assert "nothing was changed" in done.stdout
    assert list(second.staleness(NOW).elsewhere) == hours
    assert harness.objects(settings) == objects_before

    assert {found.outcome for found in adopt(second, hours)} == {"matches"}
    assert when_written(settings) == rows_before
    objects = harness.objects(settings)
    changed = {key for key in objects if objects[key] != objects_before[key]}
    assert all("_manifests" in key for key in changed)
    staleness = second.staleness(NOW)
    assert staleness.elsewhere == {}
    assert list(staleness.missing) == [HOUR.next.next]
    for hour in hours:
        assert [second.deliver(name, hour).kept for name in DESTINATIONS] == [0, 0, 0]
    assert when_written(settings) == rows_before
    assert list(adopt(second, hours)) == []

    held = rows(second)
    harness.write_events(events_dir / "next.jsonl", [LATE])
    second.land(now=NOW)
    assert list(second.staleness(NOW).missing) == [HOUR, HOUR.next.next]
    harness.build(second, HOUR)
    assert rows(second) == held + 1
    assert [one for hour in hours for one in harness.wrong(second, hour)] == []
    assert all(is_refused(first, name) for name in DESTINATIONS)


@pytest.mark.slow
def test_a_copy_that_has_seen_less_is_refused(settings: Settings, events_dir: Path) -> None:
    """Two folders with one identity: no hour is replaced by the events of an older state, and one lands at a time."""
    first = filled(settings, events_dir)
    copy = copied(first, events_dir, "copy")
    assert copy.landed().log_id == first.landed().log_id
    harness.write_events(events_dir / "a.jsonl", [LATE])
    first.land(now=NOW)
    harness.build(first, HOUR)
    held = rows(first)
    for name in DESTINATIONS:
        with pytest.raises(StaleHourError, match="holds generation 2"):
            copy.deliver(name, HOUR)
    assert rows(first) == held
    assert copy.staleness(NOW).missing == {}
    with first.log.lock(), pytest.raises(HourBusyError, match="another landing pass"):
        folder(settings, events_dir, "first").land(now=NOW)
