"""An hour, stage by stage: what arrives, what is set aside, who waits for whom, and what bad input is answered with."""

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import tenacity
from pydantic import SecretStr

from obs_assets import embedded
from obs_assets.crash import interrupted
from obs_assets.demo.receiver import Receiver
from obs_assets.errors import (
    ConfigurationError,
    HourBusyError,
    MissingFrameError,
    ReceiptError,
    StaleHourError,
)
from obs_assets.hourly import pipeline, pipeline_files
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour, parse_hour
from obs_assets.settings import Settings
from obs_assets.storage.disk import interrupt_waits
from obs_assets.storage.engine import connect
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR

DESTINATIONS = ("postgres_events", "s3_archive", "webhook_alerts")


@pytest.fixture
def hourly(events_dir: Path, settings: Settings) -> HourlyPipeline:
    """A pipeline without sampling that has landed the hour."""
    hourly = HourlyPipeline(harness.everything_kept(events_dir), settings)
    hourly.land()
    return hourly


def rows(hourly: HourlyPipeline, hour: Hour = HOUR) -> int:
    query = "SELECT count(*) FROM events WHERE hour = %s"
    ((count,),) = harness.ask(hourly.settings.postgres, query, hour.start) or [(0,)]
    return int(count)


def frames(hourly: HourlyPipeline) -> dict[str, str]:
    """Stage → SHA-256 of its file."""
    paths = {stage: hourly.store.frame_path(stage, HOUR) for stage in STAGES}
    return {
        stage: hashlib.sha256(path.read_bytes()).hexdigest() for stage, path in paths.items()
    }


# -- what arrives ------------------------------------------------------------------------------------------------------

# The shapes of an agent platform's files: pretty-printed objects between lines, local offsets of four forms, one id for
# three events, data that is an object, a string, an empty string or JSON within a string, no type and no level at all.
SHAPES = {
    "dashboard.jsonl": """\
{"timestamp":"2025-12-04T04:10:48-0600","type":"keeper_stopped","data":{"pid":55479}}
{"id":"evt-9","timestamp":"2025-12-04T04:15:28-06:00","type":"ghost_found","data":"","source":"automation"}
{"id":"evt-9","timestamp":"2025-12-04T04:15:28-06:00","type":"ghost_ended","data":"{\\"pid\\":7,\\"data\\":{}}","source":"automation"}
{"id":"evt-9","timestamp":"2025-12-04T04:15:28-06:00","type":"ghost_cleared","data":"{\\"left\\":[]}","source":"automation"}
{
  "timestamp": "2025-12-04T05:00:01-0600",
  "type": "pool_alert",
  "data": {
    "size": 14,
    "severity": "warning"
  }
}
{"id":"evt-10","timestamp":"2025-12-04T15:53:33+05:30","type":"system_ERROR","data":"❌ FAIL\\n2","source":"automation"}
""",
    "security.jsonl": (
        '{"event_id":"evt_1","event_type":"scan_completed","timestamp":"2025-12-04T10:38:29+0000",'
        '"source":"scanner","payload":{"severity":"low","findings":2}}\n'
    ),
    "access-log.jsonl": (
        '{"timestamp":"2025-12-04T10:36:34.065Z","principal":"cli","role":"operator","asset":"queue","allowed":true}\n'
        '{"timestamp":"2025-12-04T10:40:15.848Z","principal":"keeper","role":"unknown","asset":"x","allowed":false}\n'
    ),
    "trace/spans.jsonl": '{"timestamp":"2025-12-04T10:59:59.999999Z","trace_id":"t1","status":"info","type":"span"}\n',
}


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    folder = tmp_path / "shapes"
    for name, text in SHAPES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def arrived(hourly: HourlyPipeline) -> list[tuple[str, str]]:
    """Type and hour of all rows in PostgreSQL."""
    report = hourly.land()
    assert report.dead_letters == {}
    assert report.hours == {"2025-12-04-10:00": 9, "2025-12-04-11:00": 1}
    for key in report.hours:
        harness.build(hourly, parse_hour(key))
        assert harness.wrong(hourly, parse_hour(key)) == []
    query = "SELECT event_type, to_char(hour AT TIME ZONE 'UTC', 'HH24') FROM events ORDER BY timestamp, event_type"
    return [
        (str(kind), str(hour)) for kind, hour in harness.ask(hourly.settings.postgres, query)
    ]


EVERY_SHAPE = [
    ("keeper_stopped", "10"),
    ("ghost_cleared", "10"),
    ("ghost_ended", "10"),
    ("ghost_found", "10"),
    ("system_ERROR", "10"),
    ("unknown", "10"),
    ("scan_completed", "10"),
    ("unknown", "10"),
    ("span", "10"),
    ("pool_alert", "11"),
]


@pytest.mark.slow
def test_every_event_of_every_shape_arrives_in_its_utc_hour(
    shapes: Path, settings: Settings
) -> None:
    """Without filter and sampler nothing is rejected, and three events that share an id are three rows."""
    hourly = HourlyPipeline(harness.everything_kept(shapes, filter=None), settings)
    assert arrived(hourly) == EVERY_SHAPE
    assert harness.ask(
        settings.postgres, "SELECT count(*) FROM events WHERE event_id = 'evt-9'"
    ) == [(3,)]


@pytest.mark.slow
def test_with_the_default_filter_three_events_of_one_id_arrive(
    shapes: Path, settings: Settings
) -> None:
    """The default pipeline, sampling off: all three are there, the one with `"data": ""` too."""
    values = pipeline.load(pipeline_files.find().path, {"OBS_EVENTS_DIR": str(shapes)})
    hourly = HourlyPipeline(values.model_copy(update={"sample": None}), settings)
    arrived(hourly)
    assert harness.ask(
        settings.postgres, "SELECT count(*) FROM events WHERE event_id = 'evt-9'"
    ) == [(3,)]


@pytest.mark.slow
def test_each_stage_accounts_for_every_event(hourly: HourlyPipeline) -> None:
    """Landed = raw = enriched = redacted; what the filter took is named; destinations take what is left."""
    harness.build(hourly, HOUR)
    receipts = {
        name: hourly.store.read_receipt(name, HOUR) for name in (*STAGES, *DESTINATIONS)
    }
    assert {name: (r.taken, r.kept, dict(r.other)) for name, r in receipts.items()} == {
        "raw_events": (34, 34, {}),
        "enriched_events": (34, 34, {}),
        "redacted_events": (34, 34, {}),
        "sampled_events": (34, 28, {"filtered:level": 3, "filtered:low_value": 3}),
        "postgres_events": (28, 28, {}),
        "s3_archive": (28, 28, {}),
        "webhook_alerts": (34, 5, {"no alert rule": 29}),
    }
    assert all(receipt.unaccounted == 0 for receipt in receipts.values())


@pytest.mark.slow
def test_a_destinations_own_filter_is_accounted_for(
    events_dir: Path, settings: Settings
) -> None:
    """A destination may take less than its frame holds; the difference has a name there too."""
    archive: dict[str, object] = {"type": "s3", "name": "failures", "from": "redacted"}
    archive |= {"filter": {"filter_mode": "allowlist", "keep_event_types": ["task_failed"]}}
    hourly = HourlyPipeline(
        harness.everything_kept(events_dir, destinations=[archive]), settings
    )
    hourly.land()
    harness.build(hourly, HOUR)
    receipt = hourly.store.read_receipt("failures", HOUR)
    assert (receipt.taken, receipt.kept, receipt.unaccounted) == (34, 5, 0)
    assert sum(receipt.other.values()) == 29
    assert all(reason.startswith("filtered:") for reason in receipt.other)
    assert harness.wrong(hourly) == []


@pytest.mark.slow
def test_a_disabled_destination_gets_nothing(events_dir: Path, settings: Settings) -> None:
    """It is no asset, no part of `obs verify`, and nobody waits for it."""
    destinations = [{"type": "postgres"}, {"type": "s3", "enabled": False}]
    hourly = HourlyPipeline(
        harness.everything_kept(events_dir, destinations=destinations), settings
    )
    hourly.land()
    harness.build(hourly, HOUR)
    assert hourly.destination_names == ["postgres_events"]
    assert harness.objects(settings) == {}
    assert not hourly.needs_build(HOUR)


@pytest.mark.slow
def test_disabled_stages_pass_everything_on(events_dir: Path, settings: Settings) -> None:
    """Without enrichment, filter and sampler, an archived line is the event as it was written, redacted."""
    config = harness.everything_kept(
        events_dir, enrich={"enabled": False}, filter={"enabled": False}, sample=None
    )
    hourly = HourlyPipeline(config, settings)
    hourly.land()
    harness.build(hourly, HOUR)
    (archive,) = [
        body for key, body in harness.objects(settings).items() if key.endswith(".gz")
    ]
    lines = [json.loads(line) for line in gzip.decompress(archive).splitlines()]
    assert len(lines) == 34
    told = {key: value for key, value in lines[1].items() if not key.startswith("_")}
    assert told == {
        **harness.an_hour()[1],
        "data": {"status": "completed", "task": 1, "note": "ask a***1@example.com"},
    }


# -- again, at once, too late ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_landed_bytes_make_the_same_files(hourly: HourlyPipeline) -> None:
    """Built twice, with nothing remembered, each frame is the same file, and so is the object."""
    harness.build(hourly, HOUR)
    before = frames(hourly), harness.objects(hourly.settings)
    shutil.rmtree(hourly.store.root / "frames")
    shutil.rmtree(hourly.store.root / "receipts")
    harness.build(HourlyPipeline(hourly.config, hourly.settings), HOUR)
    assert (frames(hourly), harness.objects(hourly.settings)) == before


@pytest.mark.slow
def test_a_rebuild_on_demand_ends_in_the_same(hourly: HourlyPipeline) -> None:
    """`rebuild` compares with what is there instead of believing the ledger, and nobody sees a difference."""
    harness.build(hourly, HOUR)
    before = harness.snapshot(hourly)
    assert hourly.deliver("postgres_events", HOUR).other == {"already there": 28}
    compared = hourly.deliver("postgres_events", HOUR, rebuild=True)
    assert (compared.other, compared.size_bytes > 0) == ({"already there": 28}, True)
    hourly.deliver("s3_archive", HOUR, rebuild=True)
    assert harness.snapshot(hourly) == before


@pytest.mark.slow
def test_an_older_hour_never_replaces_a_newer_one(
    hourly: HourlyPipeline, events_dir: Path
) -> None:
    """Frames built before a late event landed are turned away by every destination that has seen the event."""
    harness.build(hourly, HOUR)
    shutil.copytree(
        hourly.store.root / "frames", old := hourly.store.root / "old", dirs_exist_ok=True
    )
    receipts = {stage: hourly.store.read_receipt(stage, HOUR) for stage in STAGES}
    harness.write_events(
        events_dir / "a.jsonl", [harness.at(HOUR, 3599, {"id": "late", "level": "error"})]
    )
    hourly.land()
    harness.build(hourly, HOUR)
    new = harness.snapshot(hourly)

    shutil.copytree(old, hourly.store.root / "frames", dirs_exist_ok=True)
    for receipt in receipts.values():
        hourly.store.write_receipt(receipt, HOUR)
    for name in DESTINATIONS:
        with pytest.raises(StaleHourError, match="generation 2"):
            hourly.deliver(name, HOUR)
    assert harness.snapshot(hourly).rows == new.rows
    assert harness.snapshot(hourly).objects == new.objects


def at_once(works: Mapping[str, Callable[[], object]]) -> list[BaseException]:
    """Do them in threads of these names that begin together; what went wrong."""
    barrier = threading.Barrier(len(works))
    wrong: list[BaseException] = []

    def do(work: Callable[[], object]) -> None:
        barrier.wait()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (the test looks at it)
            wrong.append(error)

    threads = [
        threading.Thread(target=do, args=[work], name=name) for name, work in works.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return wrong


@pytest.mark.slow
def test_two_runs_of_one_hour_wait_for_each_other(hourly: HourlyPipeline) -> None:
    """Schedule and backfill may meet: both succeed, and the hour is what one of them alone would have made."""

    def hesitate() -> None:
        time.sleep(0.1 if threading.current_thread().name.startswith("fast") else 0.13)

    harness.build(hourly, HOUR)
    alone = harness.snapshot(hourly)
    runs = {name: HourlyPipeline(hourly.config, hourly.settings) for name in ("fast", "slow")}
    with interrupted("frame.after_rename", hesitate):  # of a frame, and of its receipt
        wrong = at_once({name: partial(harness.build, run, HOUR) for name, run in runs.items()})
    assert wrong == []
    assert harness.wrong(hourly) == []
    assert harness.snapshot(hourly) == alone
    assert harness.leftovers(hourly.settings) == []


def test_a_run_gives_up_waiting_in_one_sentence(hourly: HourlyPipeline) -> None:
    """Who builds an hour has it alone; who delivers it shares it with others that do."""
    with hourly.locks.hold(HOUR, alone=False):
        with hourly.locks.hold(HOUR, alone=False):
            pass
        time_is_over = threading.Timer(0.2, interrupt_waits)
        time_is_over.start()
        with pytest.raises(
            HourBusyError,
            match=f"another run is at work on {HOUR}: let it finish, then try again",
        ):
            hourly.build("raw_events", HOUR)
        time_is_over.join()
        with hourly.locks.hold(HOUR.next, alone=True):
            pass


# -- what is missing or wrong ------------------------------------------------------------------------------------------


def test_a_stage_needs_the_one_before(hourly: HourlyPipeline) -> None:
    """The sentence says what to materialize first."""
    with pytest.raises(
        MissingFrameError,
        match=r"raw_events has no receipt for .*: materialize raw_events for it first",
    ):
        hourly.build("enriched_events", HOUR)
    with pytest.raises(MissingFrameError, match="materialize sampled_events for it first"):
        hourly.deliver("postgres_events", HOUR)
    with pytest.raises(
        ConfigurationError, match="no destination is called 'kafka'; there are postgres_events"
    ):
        hourly.deliver("kafka", HOUR)


@pytest.mark.slow
def test_a_stage_that_failed_leaves_nothing_to_build_on(hourly: HourlyPipeline) -> None:
    """When an hour cannot be built any more, what was built of it before does not pass for the present one."""
    harness.build(hourly, HOUR)
    for chunk in hourly.log.chunk_paths(hourly.landed().hour(HOUR)):
        chunk.unlink()
    with pytest.raises(Exception, match=r"2025120410-0\.parquet"):
        hourly.build("raw_events", HOUR)
    with pytest.raises(MissingFrameError):
        hourly.build("enriched_events", HOUR)
    with pytest.raises(MissingFrameError):
        hourly.build("redacted_events", HOUR)
    assert rows(hourly) == 28


@pytest.mark.slow
def test_a_receipt_that_does_not_add_up_stops_what_comes_after(hourly: HourlyPipeline) -> None:
    """Neither a stage nor a destination takes a frame whose counts are wrong."""
    harness.build(hourly, HOUR)
    wrong = replace(hourly.store.read_receipt("sampled_events", HOUR), kept=27)
    hourly.store.write_receipt(wrong, HOUR)
    with pytest.raises(ReceiptError, match="leave 1 unaccounted for"):
        hourly.deliver("postgres_events", HOUR)


@pytest.mark.slow
def test_two_pipelines_share_a_database(hourly: HourlyPipeline, events_dir: Path) -> None:
    """Each has its own frames, ledgers and alerts: what one has sent, the other sends too."""
    table = {"type": "postgres", "table_name": "audit", "name": "audit"}
    with Receiver() as receiver:
        alerts = {
            "type": "webhook",
            "url": receiver.url,
            "allow_hosts": ["127.0.0.1"],
            "max_age_hours": None,
        }
        config = harness.everything_kept(events_dir, destinations=[table, alerts])
        one = HourlyPipeline(config, hourly.settings)
        two = HourlyPipeline(config, hourly.settings, "second")
        for run in (one, two):
            run.land()
            run.land()
        harness.build(one, HOUR)
        two_config = config.model_copy(update={"destinations": config.destinations[1:]})
        harness.build(HourlyPipeline(two_config, hourly.settings, "second"), HOUR)
        assert len({request.webhook_id for request in receiver.requests}) == 2
    assert harness.wrong(one) == []


# -- bad input ---------------------------------------------------------------------------------------------------------


def sentence(caught: pytest.ExceptionInfo[BaseException], *words: str) -> None:
    """One clear sentence that holds these words."""
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in words)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    """The setting is named, and nothing has landed."""
    hourly = HourlyPipeline(
        harness.everything_kept(tmp_path / "nowhere"), Settings(data_dir=tmp_path / "data")
    )
    with pytest.raises(ConfigurationError) as caught:
        hourly.land()
    sentence(caught, str(tmp_path / "nowhere"), "OBS_EVENTS_DIR")
    landed = Path("pipelines/pipeline/landed")
    assert set(harness.tree(tmp_path / "data")) <= {
        *map(str, landed.parents),
        str(landed),
        str(landed / "lock"),
    }
    assert hourly.first_open_hour() == hourly.config.first_hour


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    """The same sentence for an events folder that is none, and for a data folder that is none."""
    (file := tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError) as caught:
        HourlyPipeline(
            harness.everything_kept(file), Settings(data_dir=tmp_path / "data")
        ).land()
    sentence(caught, str(file), "OBS_EVENTS_DIR")
    with pytest.raises(ConfigurationError) as caught:
        HourlyPipeline(harness.everything_kept(tmp_path), Settings(data_dir=file)).land()
    sentence(caught, str(file), "OBS_DATA_DIR")


@pytest.mark.slow
def test_empty_and_unreadable_files_do_not_stop_the_others(
    events_dir: Path, tmp_path: Path
) -> None:
    """An empty file is nothing; a broken archive is counted and read again; everything else lands."""
    (events_dir / "empty.jsonl").touch()
    # The first bytes of a file say that it is gzip, not its name: the header is right, the rest is not
    header = gzip.compress(b"{}")[:10]
    (events_dir / "broken.jsonl.gz").write_bytes(header + b"not gzip")
    (events_dir / "folder.jsonl").mkdir()
    hourly = HourlyPipeline(
        harness.everything_kept(events_dir), Settings(data_dir=tmp_path / "data")
    )
    report = hourly.land()
    assert report.hours == {HOUR.key: 34}
    assert report.warnings == {"damaged .gz": 1, "not a regular file": 1}
    with gzip.open(events_dir / "broken.jsonl.gz", "wt") as file:
        file.write(json.dumps(harness.at(HOUR.next, 1, {"n": 1})))
    assert hourly.land().hours == {HOUR.next.key: 1}


def test_only_empty_files_land_nothing(tmp_path: Path) -> None:
    """No pass, no hour, no dead letter; but somebody has looked, which closes hours."""
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "empty.jsonl").touch()
    hourly = HourlyPipeline(
        harness.everything_kept(tmp_path / "events"), Settings(data_dir=tmp_path / "data")
    )
    report = hourly.land(now=datetime(2025, 12, 4, 11, 5, tzinfo=UTC))
    assert (report.number, report.hours, report.dead_letters) == (None, {}, {})
    assert hourly.first_open_hour() == HOUR.next
    assert not any(".parquet" in path for path in harness.tree(tmp_path / "data"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(events_dir: Path, tmp_path: Path) -> None:
    """It is counted, and lands as soon as it may be read."""
    file = harness.write_events(events_dir / "secret.jsonl", [harness.at(HOUR, 1, {"n": 1})])
    file.chmod(0)
    hourly = HourlyPipeline(
        harness.everything_kept(events_dir), Settings(data_dir=tmp_path / "data")
    )
    assert hourly.land().warnings == {"unreadable file": 1}
    file.chmod(0o600)
    assert hourly.land().hours == {HOUR.key: 1}


BAD_SERVERS = {
    "a wrong password": (
        "postgres",
        {"password": SecretStr("CANARY_wrong")},
        "POSTGRES_PASSWORD",
    ),
    "a database that does not exist": ("postgres", {"database": "nowhere"}, "POSTGRES_DB"),
    "a port where nobody listens": ("postgres", {"port": 1}, "POSTGRES_PORT"),
    "a host that does not exist": ("postgres", {"host": "nowhere.invalid"}, "POSTGRES_HOST"),
    "a bucket that does not exist": ("s3", {"bucket": "nowhere-to-be-found"}, "AWS_S3_BUCKET"),
    "a wrong secret key": (
        "s3",
        {"secret_access_key": SecretStr("CANARY_wrong")},
        "AWS credentials",
    ),
    "an endpoint where nobody listens": (
        "s3",
        {"endpoint_url": "http://127.0.0.1:1"},
        "AWS_ENDPOINT_URL_S3",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_SERVERS)
def test_a_server_that_cannot_be_used(hourly: HourlyPipeline, name: str) -> None:
    """One sentence names the setting and no secret, only the breaker is written, and the hour can be built later."""
    kind, wrong, setting = BAD_SERVERS[name]
    for stage in STAGES:
        hourly.build(stage, HOUR)
    before = harness.tree(hourly.settings.data_dir)
    server = getattr(hourly.settings, kind).model_copy(update=wrong)
    misled = HourlyPipeline(hourly.config, hourly.settings.model_copy(update={kind: server}))
    destination = {"postgres": "postgres_events", "s3": "s3_archive"}[kind]
    for act in (
        lambda: misled.deliver(destination, HOUR),
        lambda: misled.destination(destination).check(),
    ):
        with pytest.raises(Exception, match=setting) as caught:
            act()
        sentence(caught, setting)
        assert "CANARY" not in str(caught.value)
    breakers = hourly.settings.data_dir / "breakers"
    assert all("CANARY" not in path.read_text() for path in breakers.iterdir())
    shutil.rmtree(breakers)
    assert harness.tree(hourly.settings.data_dir) == before
    assert harness.objects(hourly.settings) == {}
    assert harness.ask(hourly.settings.postgres, "SELECT 1 FROM events") == []
    hourly.deliver(destination, HOUR)


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(OSError),
    stop=tenacity.stop_after_delay(10),
    reraise=True,
)
def take(port: int) -> socket.socket:
    """Listen on a port, which a killed process may hold a moment longer."""
    return socket.create_server(("127.0.0.1", port))


@pytest.mark.slow
def test_an_embedded_server_may_move(events_dir: Path, tmp_path: Path) -> None:
    """A code server that runs for weeks finds servers that died and came back elsewhere, and starts them itself."""
    hourly = HourlyPipeline(
        harness.everything_kept(events_dir), Settings(data_dir=tmp_path / "data")
    )
    try:
        hourly.land()
        harness.build(hourly, HOUR)
        kept = {name: hourly.destination(name) for name in DESTINATIONS}
        assert {name: hourly.destination(name) for name in DESTINATIONS} == kept
        taken = (hourly.postgres.port, urlsplit(hourly.s3.endpoint_url).port)
        embedded.stop(hourly.settings.data_dir)
        with contextlib.ExitStack() as others:
            for port in taken:
                others.enter_context(take(port))
            assert not hourly.needs_build(HOUR)
            assert hourly.staleness().unreachable == {}
        assert hourly.postgres.port not in taken
        assert urlsplit(hourly.s3.endpoint_url).port not in taken
    finally:
        embedded.stop(hourly.settings.data_dir)


@pytest.mark.slow
def test_the_frame_of_an_hour_can_be_read_by_anybody(hourly: HourlyPipeline) -> None:
    """Parquet as every tool reads it: sorted, one row an event, identities unique."""
    harness.build(hourly, HOUR)
    with connect(hourly.store.temp_dir) as connection:
        for stage in STAGES:
            frame = hourly.store.read_frame(connection, stage, HOUR)
            found = frame.project("event_time, row_uid").fetchall()
            assert found == sorted(found)
            assert len(set(found)) == len(found)
