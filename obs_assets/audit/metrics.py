"""Samples for monitoring: the lag of a pipeline, and its kept and dropped events.

`measure` makes the list of samples; every program that shows metrics prints this list. Every metric
is a gauge: it is read from stored receipts and ledgers, and a rebuilt hour counts once.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from obs_assets.delivery.kinds import asset_name
from obs_assets.errors import ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hourly.staleness import Staleness
from obs_assets.hours import parse_hour
from obs_assets.receipts import Receipt

MEANINGS = {
    "obs_landing_age_seconds": "Since the last finished landing pass began.",
    "obs_landed_partitions": "Hours that have landed.",
    "obs_landed_events": "Events that have landed.",
    "obs_dead_letters": "Records that could not be parsed, by reason.",
    "obs_landing_remarks": "Events that landed with a change or an assumption, by remark.",
    "obs_lag_seconds": "From the end of the newest hour of a stage or destination to now; 0 before.",
    "obs_events": "Events of all hours, by stage or destination and by outcome.",
    "obs_missing_partitions": "Closed hours that a destination lacks or holds in an old version.",
    "obs_other_folder_partitions": "Closed hours that a destination holds of another data folder.",
    "obs_destination_up": "1 if the destination answers, 0 if it does not.",
    "obs_breaker_open": "1 if the breaker of the destination is open or half open, 0 if it is closed.",
    "obs_breaker_open_seconds": "Since the first of the failures in a row; 0 while closed.",
    "obs_dispatches": "Webhook dispatches by state.",
}
"""Metric → its meaning, in the order in which they are printed."""


class Sample(NamedTuple):
    """One value of one metric.

    Attributes:
        metric: a key of `MEANINGS`.
        labels: name → value. All samples of a metric have the same names.
        value: events, hours or seconds, as the metric's name says.
    """

    metric: str
    labels: Mapping[str, str]
    value: float


def measure(hourly: HourlyPipeline, now: datetime) -> list[Sample]:
    """Every sample of a pipeline. A destination that does not answer is down and has no other samples.

    Args:
        hourly: the pipeline.
        now: the time, UTC, for ages and lags.
    """
    found = list(_landing(hourly, now))
    for stage in (*STAGES, *hourly.destination_names):
        found += _stage(hourly, stage, now)
    found += _destinations(hourly)
    found += _breakers(hourly, now)
    return found


def _landing(hourly: HourlyPipeline, now: datetime) -> Iterator[Sample]:
    labels = {"pipeline": hourly.name}
    hours = hourly.landed().hours
    yield Sample("obs_landed_partitions", labels, len(hours))
    events = sum(hour.rows for hour in hours.values())
    yield Sample("obs_landed_events", labels, events)
    watermark = hourly.log.looked_at()
    if watermark:
        age = now - watermark
        yield Sample("obs_landing_age_seconds", labels, age.total_seconds())
    # By reason alone: a label with names of files would make a new series for each file.
    letters: Counter[str] = Counter()
    for _, reason, count, *_ in hourly.dead_letters():
        letters[reason] += count
    for reason, count in sorted(letters.items()):
        yield Sample("obs_dead_letters", {**labels, "reason": reason}, count)
    for remark, count in sorted(hourly.landed().remarks.items()):
        yield Sample("obs_landing_remarks", {**labels, "remark": remark}, count)
    if hours:
        lag = _lag(max(hours), now)
        yield Sample("obs_lag_seconds", {**labels, "stage": "landed_events"}, lag)


def _lag(newest: str, now: datetime) -> float:
    """Seconds since the end of an hour; 0 before its end, because no newer hour can have closed.

    Args:
        newest: key of the hour.
        now: the time, UTC.
    """
    since_end = now - parse_hour(newest).end
    return max(0.0, since_end.total_seconds())


def _stage(
    hourly: HourlyPipeline,
    stage: str,
    now: datetime,
) -> Iterator[Sample]:
    labels = {"pipeline": hourly.name, "stage": stage}
    outcomes: Counter[str] = Counter()
    newest = ""
    for path in sorted(hourly.store.receipt_dir(stage).glob("*.json")):
        receipt = Receipt.from_json(path.read_text())
        newest = max(newest, receipt.hour)
        outcomes["kept"] += receipt.kept
        outcomes.update(receipt.other)
    if not newest:
        return
    yield Sample("obs_lag_seconds", labels, _lag(newest, now))
    for outcome, count in sorted(outcomes.items()):
        yield Sample("obs_events", {**labels, "outcome": outcome}, count)


def _destinations(hourly: HourlyPipeline) -> Iterator[Sample]:
    staleness = hourly.staleness()
    for name in hourly.destination_names:
        labels = {"pipeline": hourly.name, "destination": name}
        is_up = name not in staleness.unreachable
        yield Sample("obs_destination_up", labels, is_up)
        # Without an answer the numbers are unknown: a 0 would end an alert on missing hours.
        if not is_up:
            continue
        missing = sum(name in names for names in staleness.missing.values())
        yield Sample("obs_missing_partitions", labels, missing)
        elsewhere = sum(name in logs for logs in staleness.elsewhere.values())
        yield Sample("obs_other_folder_partitions", labels, elsewhere)
    yield from _dispatches(hourly, staleness)


def _breakers(hourly: HourlyPipeline, now: datetime) -> Iterator[Sample]:
    for name in hourly.destination_names:
        labels = {"pipeline": hourly.name, "destination": name}
        state = hourly.breaker(name).state()
        is_closed = state.stage(now) == "closed"
        yield Sample("obs_breaker_open", labels, not is_closed)
        seconds = 0.0
        if state.failing_since and not is_closed:
            seconds = (now - state.failing_since).total_seconds()
        yield Sample("obs_breaker_open_seconds", labels, seconds)


def _dispatches(hourly: HourlyPipeline, staleness: Staleness) -> Iterator[Sample]:
    for config in hourly.enabled("alerts"):
        name = asset_name(config)
        if name in staleness.unreachable:
            continue
        labels = {"pipeline": hourly.name, "destination": hourly.ledger_name(name)}
        try:
            states = hourly.outbox(name).states()
        except ObsError:
            continue  # the server went down after the ledger was read
        for state, count in states.items():
            yield Sample("obs_dispatches", {**labels, "state": state}, count)


def exposition(samples: Iterable[Sample]) -> str:
    """The samples in Prometheus' text format, grouped by metric, each group below its meaning."""
    registry = CollectorRegistry()
    registry.register(_Collector(samples))
    return generate_latest(registry).decode()


class _Collector(Collector):
    """Hands samples to prometheus-client."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = list(samples)

    def collect(self) -> Iterator[Metric]:
        """One family for each metric that has samples."""
        # Prometheus wants all samples of a metric in one block.
        by_metric: defaultdict[str, list[Sample]] = defaultdict(list)
        for sample in self._samples:
            by_metric[sample.metric].append(sample)
        for metric, meaning in MEANINGS.items():
            found = by_metric.get(metric)
            if not found:
                continue
            names = list(found[0].labels)
            family = GaugeMetricFamily(metric, meaning, labels=names)
            for sample in found:
                family.add_metric([*sample.labels.values()], float(sample.value))
            yield family
