"""Failover: the hours of an outage go to another destination and come back, each event in a single store."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from osmem_server import OsmemServer
from pydantic import SecretStr

from obs_assets import crash
from obs_assets.audit.review import review
from obs_assets.errors import ConfigurationError, HourBusyError, ObsError
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour, utc_now
from obs_assets.settings import ElasticsearchSettings, Settings
from obs_assets.storage.engine import connect
from obs_assets_tests import harness
from obs_assets_tests.destinations.faults import Fault, gateway
from obs_assets_tests.frames import HOUR

HOURS = [Hour(HOUR.start + timedelta(hours=number)) for number in range(6)]


def blocks(folder: Path, **failover: Any) -> list[dict[str, Any]]:
    """An Elasticsearch, and an archive in a folder that takes its hours."""
    return [
        {
            "type": "elasticsearch",
            "max_retries": 0,
            "from": "redacted",
            "failover": {"to": "spare", **failover},
        },
        {"type": "s3", "name": "spare", "bucket": f"file://{folder}"},
    ]


@dataclass
class Place:
    """A pipeline whose Elasticsearch can be down, and a clock.

    Attributes:
        hourly: the pipeline.
        fault: what the gateway in front of the Elasticsearch answers while it is down.
        clock: a list with the time, UTC.
        receipts: store that each delivery's receipt named, by hour.
    """

    hourly: HourlyPipeline
    fault: Fault
    clock: list[Any]
    receipts: dict[Hour, list[str]] = field(default_factory=dict)

    def tick(self) -> None:
        """Build the hours that are due, as the sensor does; deliveries may fail."""
        staleness = self.hourly.staleness()
        due = staleness.due[:1] if staleness.is_probe else staleness.due
        for hour in due:
            with contextlib.suppress(ObsError):
                harness.build(self.hourly, hour)
                receipt = self.hourly.store.read_receipt("elasticsearch_events", hour)
                figures = receipt.details["figures"]
                stores = self.receipts.setdefault(hour, [])
                stores.append(
                    f"{figures['held by']} {figures.get('handed back from', '')}".strip()
                )

    def pass_minutes(self, minutes: float) -> None:
        self.clock[0] += timedelta(minutes=minutes)

    def rows(self, name: str) -> Counter[tuple[Hour, str]]:
        """Hour and identity of the rows that a store holds."""
        found: Counter[tuple[Hour, str]] = Counter()
        destination = self.hourly.destination(name)
        with connect(self.hourly.store.temp_dir) as connection:
            for hour in destination.holdings():
                rows = destination.read_back(connection, hour).project("row_uid").fetchall()
                found.update((hour, uid) for (uid,) in rows)
        return found

    def expected(self) -> Counter[tuple[Hour, str]]:
        """The same of the frames that are delivered."""
        found: Counter[tuple[Hour, str]] = Counter()
        with connect(self.hourly.store.temp_dir) as connection:
            for hour in HOURS:
                frame = self.hourly.store.read_frame(connection, "redacted_events", hour)
                found.update((hour, uid) for (uid,) in frame.project("row_uid").fetchall())
        return found


@pytest.fixture(scope="module")
def server() -> Iterator[OsmemServer]:
    started = OsmemServer.start()
    yield started
    started.close()
    if started.process.stdout:
        started.process.stdout.close()


@contextlib.contextmanager
def place(server: OsmemServer, folder: Path, **failover: Any) -> Iterator[Place]:
    """Six hours of events have landed, and the Elasticsearch is down."""
    for hour in HOURS:
        harness.write_events(folder / "events" / f"{hour.key}.jsonl", harness.an_hour(hour)[:8])
    config = pipeline.parse(
        {
            "source": {"events_dir": str(folder / "events")},
            "destinations": blocks(folder / "spare", **failover),
        }
    )
    clone = server.clone()
    fault = Fault("", times=1_000_000)
    clock = [utc_now()]
    with gateway(clone.url, fault) as url:
        settings = Settings(
            data_dir=folder / "data", elasticsearch=ElasticsearchSettings(url=SecretStr(url))
        )
        hourly = HourlyPipeline(config, settings, clock=lambda: clock[0])
        hourly.land()
        yield Place(hourly, fault, clock)
    clone.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        "",
        pytest.param("failover.after_note", marks=pytest.mark.soak),
        "failover.before_removal",
        pytest.param("failover.after_removal", marks=pytest.mark.soak),
    ],
)
def test_the_hours_of_an_outage_come_back_once(
    server: OsmemServer, tmp_path: Path, point: str
) -> None:
    """Primary down for six hours of events: the secondary holds them, then the primary, never both."""
    with place(server, tmp_path) as found:
        hourly = found.hourly
        assert hourly.destination_names == ["elasticsearch_events"]
        for _ in range(3):
            found.tick()
            found.pass_minutes(4)
        assert found.rows("spare") == Counter()
        assert hourly.staleness().left_out == {"elasticsearch_events"}
        found.pass_minutes(4)
        with dies_once_at(point if point == "failover.after_note" else ""):
            for _ in range(9):
                found.tick()
                found.pass_minutes(1)
        assert hourly.staleness().hours == []
        assert found.rows("spare") == found.expected()
        assert set(map(tuple, found.receipts.values())) == {("spare",)}
        assert [check for hour in HOURS for check in harness.wrong(hourly, hour)] == []
        assert hourly.staleness().lent == {"elasticsearch_events": frozenset(HOURS)}
        receipt = hourly.store.read_receipt("elasticsearch_events", HOURS[0])
        finding = review(hourly, "elasticsearch_events", HOURS[0], receipt)[
            "destinations_agree"
        ]
        assert finding.passed
        assert "open since" in finding.sentence

        found.fault.times = 0
        found.pass_minutes(20)
        with dies_once_at(point if point != "failover.after_note" else ""):
            for _ in range(4):
                found.tick()
                found.pass_minutes(1)
        assert hourly.staleness().hours == []
        assert found.rows("elasticsearch_events") == found.expected()
        assert found.rows("spare") == Counter()
        handed_back = ("spare", "elasticsearch_events spare")
        assert set(map(tuple, found.receipts.values())) == {handed_back}
        assert hourly.staleness().lent == {"elasticsearch_events": frozenset()}
        assert hourly.resting(found.clock[0]) == {}
        assert [check for hour in HOURS for check in harness.wrong(hourly, hour)] == []


@contextlib.contextmanager
def dies_once_at(point: str) -> Iterator[None]:
    """The first delivery that passes the point ends there."""
    died: list[str] = []

    def die() -> None:
        if not died:
            died.append(point)
            raise ObsError("the run ends here")

    if not point:
        yield
        return
    with crash.interrupted(point, die):
        yield
    assert died


@pytest.mark.slow
def test_hours_can_stay_where_they_went(server: OsmemServer, tmp_path: Path) -> None:
    """``hand_back: false``: after the outage new hours go to the primary, the others stay, and rebuilds follow."""
    with place(server, tmp_path, hand_back=False, after_minutes=0) as found:
        for _ in range(6):
            found.tick()
        assert found.rows("spare") == found.expected()
        found.fault.times = 0
        found.pass_minutes(20)
        found.tick()
        assert found.hourly.staleness().hours == []
        harness.build(found.hourly, HOURS[0])
        assert found.rows("spare") == found.expected()
        assert found.rows("elasticsearch_events") == Counter()


@pytest.mark.slow
def test_both_down_then_another_spare(server: OsmemServer, tmp_path: Path) -> None:
    """While the spare fails too, hours wait; a spare of another name is not taken for the first."""
    with place(server, tmp_path, after_minutes=0) as found:
        hourly = found.hourly
        # A file in the place of the folder: the spare cannot be written to.
        (tmp_path / "spare").write_text("")
        for _ in range(5):
            found.tick()
        assert found.receipts == {}
        assert set(hourly.resting(found.clock[0])) == {"elasticsearch_events", "spare"}
        assert hourly.staleness().due == []
        (tmp_path / "spare").unlink()
        found.pass_minutes(20)
        for _ in range(2):
            found.tick()
        assert found.rows("spare") == found.expected()

        primary, other = blocks(tmp_path / "other", to="other", after_minutes=0)
        destinations = [primary, {**other, "name": "other"}]
        source = {"events_dir": str(tmp_path / "events")}
        config = pipeline.parse({"source": source, "destinations": destinations})
        changed = HourlyPipeline(config, hourly.settings, clock=lambda: found.clock[0])
        assert changed.holder("elasticsearch_events", HOURS[0]) == "elasticsearch_events"
        found.fault.times = 0
        found.pass_minutes(20)
        after = Place(changed, found.fault, found.clock)
        for _ in range(2):
            after.tick()
        assert after.rows("elasticsearch_events") == after.expected()
        receipt = changed.store.read_receipt("elasticsearch_events", HOURS[0])
        assert receipt.details["figures"]["rows stay at"] == "spare"
        assert after.rows("other") == Counter()
        assert changed.staleness().hours == []


@pytest.mark.slow
def test_two_runs_of_an_hour_do_not_part_it(server: OsmemServer, tmp_path: Path) -> None:
    """While a run leaves the primary, another run that finds it well ends, and the hour is in one store."""
    with place(server, tmp_path, after_minutes=0) as found:
        hourly = found.hourly
        for _ in range(4):
            found.tick()
        held = hourly.failover("elasticsearch_events")
        assert held

        def primary_is_back() -> None:
            found.fault.times = 0
            with pytest.raises(HourBusyError, match="another run delivers"):
                hourly.deliver("elasticsearch_events", HOURS[0], rebuild=True)

        with crash.interrupted("failover.after_note", primary_is_back):
            hourly.deliver("elasticsearch_events", HOURS[0], rebuild=True)
        assert held.holder(HOURS[0]).name == "spare"
        assert found.rows("elasticsearch_events") == Counter()


@pytest.mark.parametrize(
    ("failover", "spare", "words"),
    [
        ({"to": "nowhere"}, {}, "name of another destination"),
        ({"to": "elasticsearch_events"}, {}, "name of another destination"),
        ({}, {"type": "splunk"}, "hand_back: false"),
        ({}, {"type": "webhook", "bucket": None}, "a webhook takes no part"),
    ],
)
def test_a_failover_that_cannot_work_is_refused(
    tmp_path: Path, failover: dict[str, Any], spare: dict[str, Any], words: str
) -> None:
    """The message names the destination and the option to change."""
    primary, other = blocks(tmp_path, **failover)
    if spare:
        other = {"type": spare["type"], "name": "spare"}
    with pytest.raises(ConfigurationError, match=words):
        pipeline.parse({"destinations": [primary, other]})
