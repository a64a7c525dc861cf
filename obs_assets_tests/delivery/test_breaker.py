"""Circuit breakers: closed, open, half open with a single probe; the state outlives the process."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from obs_assets.audit.metrics import measure
from obs_assets.audit.review import review
from obs_assets.delivery.breaker import PROBE_S, Breaker, Breakers, guarded
from obs_assets.errors import (
    ConfigurationError,
    HourBusyError,
    ObsError,
    PermanentError,
    TransientError,
)
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import utc_now
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.frames import HOUR

START = datetime(2025, 12, 4, 10, tzinfo=UTC)


class Service:
    """Takes numbers, or fails; counts the calls."""

    def __init__(self, folder: Path) -> None:
        self.now = START
        self.calls = 0
        self.error: BaseException | None = None
        self.breakers = Breakers(folder)

    @property
    def breaker(self) -> Breaker:
        """A breaker that has read its file anew, as that of another process."""
        return self.breakers.of_destination("splunk_events")

    def send(self, number: int) -> int:
        self.calls += 1
        if self.error:
            raise self.error
        return number

    def deliver(self) -> int:
        """A delivery of another process."""
        return guarded(self.send, self.breaker, lambda: self.now)(7)

    def fail(self, error: BaseException, times: int = 1) -> None:
        self.error = error
        for _ in range(times):
            with pytest.raises(type(error)):
                self.deliver()
        self.error = None

    def stage(self) -> str:
        return self.breaker.state().stage(self.now)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def test_failures_in_a_row_open_it_and_one_probe_closes_it(service: Service) -> None:
    """Three failures, a pause without calls, then a single caller probes while the others wait."""
    service.fail(TransientError("no answer"), times=3)
    assert service.stage() == "open"
    with pytest.raises(
        TransientError, match=r"open since 2025-12-04T10:00:00Z, asked again at 10:00:30"
    ):
        service.deliver()
    assert service.calls == 3
    service.now += timedelta(seconds=31)
    assert service.stage() == "half open"
    answers: list[bool] = []

    def probe(number: int) -> int:
        answers.append(service.breaker.admit(service.now))
        return number

    assert guarded(probe, service.breaker, lambda: service.now)(7) == 7
    assert answers == [False]
    assert service.stage() == "closed"
    assert list(service.breaker.path.parent.glob("*.json")) == []


def test_a_failed_probe_doubles_the_pause_up_to_a_limit(service: Service) -> None:
    """The first failure stays the begin of the outage; the pause never exceeds a quarter of an hour."""
    service.fail(TransientError("no answer"), times=3)
    for seconds in (30, 60, 120, 240, 480, 900, 900):
        assert service.breaker.state().not_before == service.now + timedelta(seconds=seconds)
        service.now += timedelta(seconds=seconds)
        service.fail(ConfigurationError("DD_API_KEY is not accepted"))
    state = service.breaker.state()
    assert state.failing_since == START
    assert "DD_API_KEY is not accepted" in state.sentence(service.now)


def test_successes_between_failures_keep_it_closed(service: Service) -> None:
    """Only failures in a row count."""
    for _ in range(3):
        service.fail(TransientError("no answer"), times=2)
        assert service.deliver() == 7
    assert service.stage() == "closed"


@pytest.mark.parametrize(
    ("error", "stage"),
    [
        (PermanentError("refused"), "closed"),
        (ObsError("cannot write /srv/spare: disk full"), "open"),
        (HourBusyError("another run"), "half open"),
        (KeyboardInterrupt(), "half open"),
    ],
)
def test_a_probe_without_a_verdict_is_given_back(
    service: Service, error: BaseException, stage: str
) -> None:
    """A refused hour is an answer, a full disk is none; a busy hour and a cancelled run leave the probe to others."""
    service.fail(TransientError("no answer"), times=3)
    service.now += timedelta(seconds=31)
    service.fail(error)
    assert service.stage() == stage
    service.now += timedelta(seconds=61)
    assert service.deliver() == 7


def test_a_process_that_dies_while_it_probes_blocks_for_a_while_only(service: Service) -> None:
    """After the longest time of a probe the next caller probes."""
    service.fail(TransientError("no answer"), times=3)
    service.now += timedelta(seconds=31)
    assert service.breaker.admit(service.now)
    service.now += timedelta(seconds=PROBE_S - 1)
    assert not service.breaker.admit(service.now)
    service.now += timedelta(seconds=1)
    assert service.deliver() == 7


def test_a_wait_that_the_receiver_asks_for_is_kept_at_once(service: Service) -> None:
    """``Retry-After`` opens the breaker after a single failure."""
    service.fail(TransientError("busy", retry_after_s=600))
    assert service.breaker.state().not_before == START + timedelta(seconds=600)
    assert service.stage() == "open"


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", '{"unknown": 1}', '{"not_before": "soon"}', '{"failures": "many"}'),
        # A time without its zone, as a person writes it.
        '{"failures": 3, "not_before": "2025-12-04T11:00:00"}',
    ],
)
def test_a_damaged_file_lets_requests_pass(service: Service, content: str) -> None:
    """A file that cannot be read is no reason to stop a delivery, and the next failure replaces it."""
    service.breaker.path.parent.mkdir(exist_ok=True)
    service.breaker.path.write_text(content)
    assert service.deliver() == 7
    service.breaker.path.write_text(content)
    service.fail(TransientError("no answer"), times=3)
    assert service.stage() == "open"


def test_a_clock_that_was_ahead_keeps_no_breaker_open(service: Service) -> None:
    """A machine starts in a wrong year, fails, and gets the right time: the next hour is a probe."""
    service.now = START + timedelta(days=400)
    service.fail(TransientError("no answer"), times=3)
    assert service.stage() == "open"
    service.now = START
    assert service.stage() == "half open"
    service.fail(TransientError("no answer"))
    state = service.breaker.state()
    assert state.stage(START) == "open"
    assert state.failing_since == START
    service.now += timedelta(seconds=61)
    assert service.deliver() == 7


@pytest.mark.slow
def test_an_open_breaker_stops_the_hours_of_its_destination_alone(
    settings: Settings, tmp_path: Path
) -> None:
    """While it is open its hours are not due, others are; status, metrics and check say since when and why."""
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    now = utc_now()
    config = pipeline.parse(
        {
            "source": {"events_dir": str(tmp_path / "events")},
            "destinations": [{"type": "postgres"}, {"type": "s3"}],
        }
    )
    assert settings.postgres
    hourly = HourlyPipeline(config, settings, clock=lambda: now)
    hourly.land()
    harness.build(hourly, HOUR)
    out_of_reach = settings.postgres.model_copy(update={"port": 9})
    broken = HourlyPipeline(
        config, settings.model_copy(update={"postgres": out_of_reach}), clock=lambda: now
    )
    for _ in range(3):
        with pytest.raises(ObsError):
            broken.deliver("postgres_events", HOUR, rebuild=True)
    with pytest.raises(TransientError, match="the breaker of postgres_events is open since"):
        hourly.deliver("postgres_events", HOUR)
    harness.write_events(tmp_path / "events" / "b.jsonl", harness.an_hour()[5:8])
    hourly.land()
    staleness = hourly.staleness()
    assert set(staleness.resting) == staleness.left_out == {"postgres_events"}
    assert staleness.due == [HOUR]
    for stage in STAGES:
        hourly.build(stage, HOUR)
    hourly.deliver("s3_archive", HOUR)
    assert (hourly.staleness().hours, hourly.staleness().due) == ([HOUR], [])
    assert not hourly.needs_build(HOUR)
    samples = {
        (sample.metric, sample.labels.get("destination")): sample.value
        for sample in measure(hourly, now)
    }
    assert samples["obs_breaker_open", "postgres_events"] == 1
    assert samples["obs_breaker_open", "s3_archive"] == 0
    now += timedelta(seconds=31)
    assert hourly.staleness().is_probe
    assert hourly.staleness().due == [HOUR]
    receipt = hourly.store.read_receipt("postgres_events", HOUR)
    finding = review(hourly, "postgres_events", HOUR, receipt)["destinations_agree"]
    assert "The breaker is half open since" in finding.sentence
    hourly.deliver("postgres_events", HOUR)
    assert (hourly.staleness().hours, hourly.resting(now)) == ([], {})
