"""Compares the demonstration's outcome with what was written into its files; each difference is a sentence."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields

from obs_assets.demo.expected import Outcome, outcome
from obs_assets.demo.measure import Holdings
from obs_assets.demo.samples import Planted
from obs_assets.hours import Hour
from obs_assets.receipts import Receipt
from obs_assets.sources.log import LandingPass

Receipts = Mapping[Hour, Mapping[str, Receipt]]
"""Hour → asset → receipt."""


def counted(receipts: Mapping[str, Receipt]) -> Outcome:
    """What became of the events of an hour, by its receipts.

    Args:
        receipts: asset → receipt.
    """
    dropped = receipts["sampled_events"].other
    redacted = receipts["redacted_events"].details.get("redacted values", {})
    return Outcome(
        landed=receipts["raw_events"].taken,
        dead=sum(receipts["redacted_events"].other.values()),
        filtered=sum(count for reason, count in dropped.items() if reason.startswith("filtered")),
        sampled_out=sum(count for reason, count in dropped.items() if reason.startswith("sampled_out")),
        written=receipts["sampled_events"].kept,
        alerts=receipts["webhook_alerts"].kept,
        redacted={kind: int(count) for kind, count in redacted.items() if count},
    )


def landing_differences(planted: Planted, landing: LandingPass) -> list[str]:
    """What landed otherwise than it was written.

    Args:
        planted: what the files hold.
        landing: the pass that read them.
    """
    landed = {key: hour.rows for key, hour in landing.hours.items()}
    untimed = sum(rows for key, rows in landed.items() if key not in planted.hours)
    return [
        *_different("events landed of {}", planted.hours, {key: landed.get(key, 0) for key in planted.hours}),
        *_different("{}", {"events without a time": planted.untimed}, {"events without a time": untimed}),
        *_different("dead letters, {}", planted.dead_letters, landing.dead_letters),
    ]


def differences(planted: Planted, receipts: Receipts, held: Holdings) -> list[str]:
    """What became of the events otherwise than it must; empty when all is well.

    Args:
        planted: what the files hold.
        receipts: of all hours of ``planted``, after their first run.
        held: what the destinations hold.
    """
    expected = {key: outcome(events) for key, events in planted.events.items()}
    found = {hour.key: counted(of_hour) for hour, of_hour in receipts.items()}
    written = {key: of_hour.written for key, of_hour in expected.items()}
    by_receipt = {
        name: {hour.key: of_hour[name].kept for hour, of_hour in receipts.items()}
        for name in ("postgres_events", "s3_archive")
    }
    return [
        *(line for key in expected if key in found for line in _of_hour(key, expected[key], found[key])),
        *_different("hours with receipts, {}", dict.fromkeys(expected, 1), dict.fromkeys(found, 1)),
        *_different("rows by the receipt of postgres_events in {}", written, by_receipt["postgres_events"]),
        *_different("rows by the receipt of s3_archive in {}", written, by_receipt["s3_archive"]),
        *_different("rows in PostgreSQL in {}", written, held.rows_by_hour),
        *_different("lines in S3 in {}", written, held.lines_by_hour),
        *_different(
            "{}", {"alerts received": _total_alerts(expected.values())}, {"alerts received": held.alert_events}
        ),
    ]


def _total_alerts(outcomes: Iterable[Outcome]) -> int:
    return sum(of_hour.alerts for of_hour in outcomes)


def _of_hour(key: str, expected: Outcome, found: Outcome) -> Iterator[str]:
    for field in fields(Outcome):
        if field.name != "redacted":
            name = field.name.replace("_", " ")
            counts = {name: getattr(expected, field.name)}, {name: getattr(found, field.name)}
            yield from _different(f"events {{}} in {key}", *counts)
    yield from _different(f"redacted values of type {{}} in {key}", expected.redacted, found.redacted)


def _different(sentence: str, expected: Mapping[str, int], found: Mapping[str, int]) -> Iterator[str]:
    """A sentence for each name with another count; ``{}`` in it stands for the name."""
    for name in sorted({*expected, *found}):
        must, does = expected.get(name, 0), found.get(name, 0)
        if must != does:
            yield f"{sentence.format(name)}: {does:,} instead of {must:,}"
