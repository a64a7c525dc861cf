"""Splunk, Datadog and CloudWatch: rows are sent once, a ledger in a real PostgreSQL knows which."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import pytest
from pydantic import SecretStr

from obs_assets import crash
from obs_assets.audit.review import review
from obs_assets.destinations.appending import AppendingDestination, Sender
from obs_assets.destinations.cloudwatch import CloudWatchConfig, CloudWatchSender
from obs_assets.destinations.datadog import DatadogConfig, DatadogSender
from obs_assets.destinations.splunk import SplunkConfig, SplunkSender
from obs_assets.errors import (
    ConfigurationError,
    HourBusyError,
    ObsError,
    StaleHourError,
    TransientError,
)
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import DatadogSettings, Settings, SplunkSettings
from obs_assets_tests import harness
from obs_assets_tests.destinations import receivers
from obs_assets_tests.destinations.receivers import KEY, TOKEN, Received, receiving
from obs_assets_tests.frames import HOUR, frame_of, offer_of

NOW = HOUR.end + timedelta(minutes=10)

EVENTS: list[dict[str, Any] | str] = [
    {
        "id": f"e{number}",
        "type": "task",
        "level": "info",
        "message": f"step {number}",
        "n": number,
    }
    for number in range(40)
]


@dataclass
class Service:
    """A service under test.

    Attributes:
        kind: its name.
        sender: speaks to it.
        arrived: the identities of the rows that arrived, in order.
        received: the receiver.
    """

    kind: str
    sender: Sender
    arrived: Callable[[], list[str]]
    received: Received | None = None


def splunk_sender(url: str, token: str = TOKEN, **options: Any) -> SplunkSender:
    """A sender that does not sleep."""
    settings = SplunkSettings(url=SecretStr(url), token=SecretStr(token))
    config = SplunkConfig.model_validate({"max_retries": 2, **options})
    return SplunkSender(config, settings, sleep=lambda _: None)


def datadog_sender(url: str, key: str = KEY, **options: Any) -> DatadogSender:
    """A sender that does not sleep."""
    config = DatadogConfig.model_validate({"max_retries": 2, "url": url, **options})
    return DatadogSender(config, DatadogSettings(api_key=SecretStr(key)), sleep=lambda _: None)


def cloudwatch_sender(url: str, **options: Any) -> CloudWatchSender:
    """A sender that does not sleep."""
    config = CloudWatchConfig.model_validate({"max_retries": 2, **options})
    return CloudWatchSender(
        config, "us-east-1", receivers.logs_client(url), sleep=lambda _: None
    )


@pytest.fixture(params=["splunk", "datadog", "cloudwatch"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """Each service, empty."""
    if request.param == "splunk":
        with receiving(receivers.splunk) as received:
            yield Service(
                "splunk",
                splunk_sender(received.url),
                lambda: [event["fields"]["row_uid"] for event in received.events],
                received,
            )
    elif request.param == "datadog":
        with receiving(receivers.datadog) as received:
            yield Service(
                "datadog",
                datadog_sender(received.url),
                lambda: [log["row_uid"] for log in received.events],
                received,
            )
    else:
        with receiving(receivers.cloudwatch) as received:
            yield Service(
                "cloudwatch",
                cloudwatch_sender(received.url),
                lambda: [event["_obs"]["row_uid"] for event in messages(received)],
                received,
            )


def messages(received: Received) -> list[dict[str, Any]]:
    """The events that CloudWatch has stored."""
    return [json.loads(event["message"]) for event in received.events]


def destination(service: Service, settings: Settings) -> AppendingDestination:
    """The destination of a service, its ledger in the test's own database."""
    assert settings.postgres
    config = {"splunk": SplunkConfig, "datadog": DatadogConfig, "cloudwatch": CloudWatchConfig}
    return AppendingDestination(
        f"{service.kind}_x",
        config[service.kind](),
        settings.postgres,
        service.sender,
        lambda: NOW,
    )


def uids(frame: duckdb.DuckDBPyRelation) -> list[str]:
    return [uid for (uid,) in frame.project("row_uid").fetchall()]


def test_each_row_arrives_once_in_order(
    service: Service, settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """A second offer of the hour sends nothing; the ledger knows each row."""
    frame = frame_of(duck, EVENTS)
    ours = destination(service, settings)
    delivery = ours.deliver(offer_of(frame))
    assert (delivery.written, delivery.already_there) == (len(EVENTS), 0)
    again = ours.deliver(offer_of(frame, rebuild=True))
    assert (again.written, again.already_there) == (0, len(EVENTS))
    assert service.arrived() == uids(frame)
    held = ours.holding(HOUR, count=True)
    assert held
    assert held.counted == held.rows == len(EVENTS)
    assert sorted(uids(ours.read_back(duck, HOUR))) == sorted(uids(frame))


def test_a_late_row_is_sent_alone(
    service: Service, settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """A rebuilt hour sends the difference; rows that it lacks stay there, and the receipt counts them."""
    ours = destination(service, settings)
    ours.deliver(offer_of(frame_of(duck, EVENTS[:30])))
    fewer = frame_of(duck, EVENTS).filter("event NOT LIKE '%step 3\"%'")
    delivery = ours.deliver(offer_of(fewer, generation=2))
    assert (delivery.written, delivery.already_there) == (10, 29)
    assert delivery.stats["rows of older versions that stay there"] == 1
    assert Counter(service.arrived()) == Counter(uids(frame_of(duck, EVENTS)))
    held = ours.holding(HOUR, count=True)
    assert held
    assert held.counted == held.rows == 39
    assert sorted(uids(ours.read_back(duck, HOUR))) == sorted(uids(fewer))
    # The row is back: it is there already.
    back = ours.deliver(offer_of(frame_of(duck, EVENTS), generation=3))
    assert (back.written, back.already_there) == (0, 40)


def test_an_older_generation_is_refused(
    service: Service, settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Nothing is sent for a frame that the ledger knows to be outdated."""
    ours = destination(service, settings)
    ours.deliver(offer_of(frame_of(duck, EVENTS[:3]), generation=2))
    with pytest.raises(StaleHourError):
        ours.deliver(offer_of(frame_of(duck, EVENTS), generation=1))
    assert len(service.arrived()) == 3


@pytest.mark.parametrize(
    ("point", "doubled"),
    [("appending.before_send", 0), ("appending.after_send", 40), ("appending.after_load", 0)],
)
def test_a_run_that_ends_at_any_point_is_repaired(
    service: Service,
    settings: Settings,
    duck: duckdb.DuckDBPyConnection,
    point: str,
    doubled: int,
) -> None:
    """Every row arrives; only the chunk that was in flight may arrive twice, and the run counts it."""
    frame = frame_of(duck, EVENTS)

    def end() -> None:
        raise KeyboardInterrupt

    with crash.interrupted(point, end), pytest.raises(KeyboardInterrupt):
        destination(service, settings).deliver(offer_of(frame))
    repaired = destination(service, settings).deliver(offer_of(frame))
    arrived = Counter(service.arrived())
    assert set(arrived) == set(uids(frame))
    assert arrived.total() - len(arrived) == doubled
    in_flight = 0 if point == "appending.after_load" else 40
    assert repaired.stats.get("sent again after an interruption", 0) == in_flight


def test_two_runs_of_an_hour_do_not_send_together(
    service: Service, settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """The second run ends with an error that says so; nothing arrives twice."""
    frame = frame_of(duck, EVENTS)

    def at_the_same_time() -> None:
        with pytest.raises(HourBusyError):
            destination(service, settings).deliver(offer_of(frame))

    with crash.interrupted("appending.before_send", at_the_same_time):
        destination(service, settings).deliver(offer_of(frame))
    assert service.arrived() == uids(frame)


FAULTS: dict[str, tuple[int, dict[str, str], bool]] = {
    "busy": (429, {"Retry-After": "0"}, False),
    "down": (503, {}, False),
    "closed": (0, {}, False),
    "answer lost": (0, {}, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("lasts", [1, 99])
def test_a_fault_loses_nothing(
    service: Service, settings: Settings, duck: duckdb.DuckDBPyConnection, name: str, lasts: int
) -> None:
    """Counted at the receiver: every row at least once, at most the chunk in flight more than once."""
    status, headers, is_stored = FAULTS[name]
    left = [lasts]

    def answers(_: int) -> tuple[int, dict[str, str], bytes] | None:
        left[0] -= 1
        return (status, headers, b"") if left[0] >= 0 else None

    received = service.received
    assert received
    received.answers, received.is_stored_before = answers, is_stored
    frame = frame_of(duck, EVENTS)
    ours = destination(service, settings)
    if lasts > 1:
        with pytest.raises(TransientError):
            ours.deliver(offer_of(frame))
        left[0] = 0
    ours.deliver(offer_of(frame))
    arrived = Counter(service.arrived())
    assert set(arrived) == set(uids(frame))
    if not is_stored:
        assert arrived.total() == len(EVENTS)


def test_splunk_goes_on_behind_a_wrong_event(
    settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Events before it are stored once, it is counted with its reason, and events behind it are sent."""
    poisoned = [*EVENTS[:10], {"poison": True}, *EVENTS[10:20], {"poison": True}, *EVENTS[20:]]
    frame = frame_of(duck, poisoned)
    with receiving(receivers.splunk) as received:
        service = Service("splunk", splunk_sender(received.url), lambda: [])
        delivery = destination(service, settings).deliver(offer_of(frame))
        assert dict(delivery.refused) == {"event field cannot be blank": 2}
        assert [event["event"]["n"] for event in received.events] == list(range(40))
        times = [event["time"] for event in received.events]
        assert times[1] - times[0] == pytest.approx(1.0)


def test_splunk_waits_for_the_indexers(
    settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """``acknowledge: true`` asks for the request's number; without acknowledgements the setting is named."""
    frame = frame_of(duck, EVENTS)
    with receiving(receivers.splunk) as received:
        sender = splunk_sender(received.url, acknowledge=True)
        with pytest.raises(ConfigurationError, match="acknowledge: false"):
            destination(Service("splunk", sender, list), settings).deliver(offer_of(frame))
        received.acknowledges = True
        delivery = destination(Service("splunk", sender, list), settings).deliver(
            offer_of(frame)
        )
    assert delivery.written == len(EVENTS)


def test_requests_stay_below_the_limits(
    service: Service, settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Thousands of rows, and rows of nearly a megabyte, are cut into requests that the receiver takes."""
    many = [{"n": number} for number in range(2_500)]
    large = [{"n": number, "text": "é" * 150_000} for number in range(20)]
    frame = frame_of(duck, [*many, *large])
    delivery = destination(service, settings).deliver(offer_of(frame))
    assert delivery.written == 2_520
    assert Counter(service.arrived()) == Counter(uids(frame))


@pytest.mark.parametrize("service", ["datadog", "cloudwatch"], indirect=True)
def test_an_event_above_the_limit_is_cut_and_counted(
    service: Service, settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """The service never cuts in silence; the shortened event says that it was cut."""
    frame = frame_of(duck, [{"text": "🙂" * 400_000}, {"text": "short"}])
    delivery = destination(service, settings).deliver(offer_of(frame))
    assert delivery.stats["cut to 1 MB"] == 1
    assert Counter(service.arrived()) == Counter(uids(frame))


@pytest.mark.parametrize(
    ("kind", "age", "reason"),
    [
        ("datadog", timedelta(hours=18), "older than 18 hours"),
        ("cloudwatch", timedelta(days=14), "cw_too_old"),
    ],
)
def test_rows_that_are_too_old_are_refused_with_a_reason(
    settings: Settings, duck: duckdb.DuckDBPyConnection, kind: str, age: timedelta, reason: str
) -> None:
    """They are counted, not sent, and not asked for again; younger rows of the hour are sent."""
    assert settings.postgres
    now = HOUR.start + timedelta(seconds=20) + age
    frame = frame_of(duck, EVENTS)
    with receiving(receivers.datadog) as datadog, receiving(receivers.cloudwatch) as cloudwatch:
        sender: Any = datadog_sender(datadog.url)
        if kind == "cloudwatch":
            sender = cloudwatch_sender(cloudwatch.url)
        ours = AppendingDestination(
            "old", sender.config, settings.postgres, sender, lambda: now
        )
        delivery = ours.deliver(offer_of(frame))
        assert dict(delivery.refused) == {reason: 20}
        assert delivery.written == 20
        assert ours.deliver(offer_of(frame)).already_there == len(EVENTS)


def test_what_cloudwatch_rejects_is_counted(
    settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """The end index of old events is behind them, the start index of new events is their first."""
    frame = frame_of(duck, EVENTS)
    with receiving(receivers.cloudwatch) as received:
        received.rejected = {"tooOldLogEventEndIndex": 3, "tooNewLogEventStartIndex": 38}
        service = Service("cloudwatch", cloudwatch_sender(received.url), list)
        delivery = destination(service, settings).deliver(offer_of(frame))
    assert dict(delivery.refused) == {"cw_too_old": 3, "cw_too_new": 2}
    assert len(received.events) == 35


EMF = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer"},
                "CloudWatchMetrics": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "properties": {
                            "Namespace": {"type": "string", "minLength": 1, "maxLength": 1024},
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "array",
                                    "items": {"type": "string", "maxLength": 250},
                                    "maxItems": 30,
                                },
                            },
                            "Metrics": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "properties": {
                                        "Name": {"type": "string", "maxLength": 1024},
                                        "Unit": {"enum": ["Count"]},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}
"""The schema in AWS's specification of the embedded metric format, without its units that are unused here."""


def test_cloudwatch_makes_metrics_of_an_hours_counts(
    settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """In embedded metric format, for the hour and each level: once, or again if a run ends before the ledger."""
    assert settings.postgres
    mixed = [
        {**event, "level": ("error", "info", "odd")[n % 3]} for n, event in enumerate(EVENTS)
    ]  # type: ignore[dict-item]
    first, all_rows = frame_of(duck, mixed[:30], weight=2.0), frame_of(duck, mixed, weight=2.0)
    with receiving(receivers.cloudwatch) as received:
        sender = cloudwatch_sender(received.url, metrics_namespace="Agents")
        report = partial(sender.send_counts, "cw")
        ours = AppendingDestination(
            "cw", sender.config, settings.postgres, sender, lambda: NOW, report=report
        )

        def sent() -> list[dict[str, Any]]:
            return [found for found in messages(received) if "_aws" in found]

        def end() -> None:
            raise KeyboardInterrupt

        ours.deliver(offer_of(first))
        ours.deliver(offer_of(first, rebuild=True))
        assert len(sent()) == 4
        with (
            crash.interrupted("appending.after_report", end),
            pytest.raises(KeyboardInterrupt),
        ):
            ours.deliver(offer_of(all_rows, generation=2))
        ours.deliver(offer_of(all_rows, generation=2))
    assert sent()[4:8] == sent()[8:]
    for metric in sent():
        jsonschema.validate(metric, EMF)
        (directive,) = metric["_aws"]["CloudWatchMetrics"]
        (dimensions,) = directive["Dimensions"]
        # Every name in a directive is a member of the object.
        assert {*dimensions, "Events", "EventsWeighted"} == set(metric) - {"_aws"}
        assert datetime.fromtimestamp(metric["_aws"]["Timestamp"] / 1000, UTC) == HOUR.start
    counts = {
        found.get("Level"): (found["Events"], found["EventsWeighted"]) for found in sent()
    }
    assert counts == {None: (40, 80), "error": (14, 28), "info": (13, 26), "other": (13, 26)}


def test_errors_name_the_setting_and_no_secret(
    settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Wrong credentials say which variable to change."""
    offer = offer_of(frame_of(duck, EVENTS[:2]))
    with receiving(receivers.splunk) as splunk, receiving(receivers.datadog) as datadog:
        cases: list[tuple[Service, str]] = [
            (Service("splunk", splunk_sender(splunk.url, "wrong-1"), list), "SPLUNK_HEC_TOKEN"),
            (
                Service("splunk", splunk_sender(splunk.url, index="missing"), list),
                "list of indexes",
            ),
            (Service("datadog", datadog_sender(datadog.url, "wrong-1"), list), "DD_API_KEY"),
        ]
        for service, words in cases:
            with pytest.raises(ConfigurationError, match=words) as raised:
                destination(service, settings).deliver(offer)
            assert "wrong-1" not in str(raised.value)
        assert destination(cases[1][0], settings).check().startswith("Splunk's collector")
    with pytest.raises(ObsError, match="SPLUNK_HEC_URL"):
        splunk_sender("http://127.0.0.1:9", max_retries=0).check()


def test_logs_have_datadogs_own_attributes(
    settings: Settings, duck: duckdb.DuckDBPyConnection
) -> None:
    """Status, service, trace and time are found where Datadog looks for them, the event under ``data``."""
    event = {
        "level": "error",
        "source": "agents",
        "trace_id": "t1",
        "message": "no answer",
        "a": {"b": 1},
    }
    with receiving(receivers.datadog) as received:
        sender = datadog_sender(received.url, tags=["env:production", "team:x"])
        destination(Service("datadog", sender, list), settings).deliver(
            offer_of(frame_of(duck, [event]))
        )
    (log,) = received.events
    assert (log["status"], log["service"], log["dd.trace_id"]) == ("error", "agents", "t1")
    assert log["ddtags"] == "env:production,team:x"
    assert log["message"] == "no answer"
    assert log["data"] == event
    assert datetime.fromtimestamp(log["timestamp"] / 1000, UTC) == HOUR.start


def test_an_hour_of_a_pipeline_is_verified_by_the_ledger(
    settings: Settings, tmp_path: Path
) -> None:
    """The checks of the asset and ``obs verify`` agree with the receipt; without the variable it is off."""
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    config = pipeline.parse(
        {
            "source": {"events_dir": str(tmp_path / "events")},
            "destinations": [{"type": "splunk", "from": "redacted"}],
        }
    )
    assert HourlyPipeline(config, settings).off == {"splunk_events": "SPLUNK_HEC_URL"}
    with receiving(receivers.splunk) as received:
        collector = SplunkSettings(url=SecretStr(received.url), token=SecretStr(TOKEN))
        hourly = HourlyPipeline(config, settings.model_copy(update={"splunk": collector}))
        hourly.land()
        harness.build(hourly, HOUR)
    assert len(received.events) == len(harness.an_hour())
    assert harness.wrong(hourly) == []
    assert hourly.staleness().hours == []
    receipt = hourly.store.read_receipt("splunk_events", HOUR)
    assert review(hourly, "splunk_events", HOUR, receipt)["destinations_agree"].passed
