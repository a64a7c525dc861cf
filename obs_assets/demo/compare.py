"""The outcome of the demonstration compared with its event files; each difference is a sentence."""

import itertools
from collections.abc import Iterator, Mapping
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
    """The outcome of an hour, according to its receipts.

    Args:
        receipts: asset → receipt.
    """
    dropped = receipts["sampled_events"].other
    filtered = sampled_out = 0
    for reason, count in dropped.items():
        filtered += count * reason.startswith("filtered")
        sampled_out += count * reason.startswith("sampled_out")
    redacted = receipts["redacted_events"].details.get("redacted values", {})
    return Outcome(
        landed=receipts["raw_events"].taken,
        dead=sum(receipts["redacted_events"].other.values()),
        filtered=filtered,
        sampled_out=sampled_out,
        written=receipts["sampled_events"].kept,
        alerts=receipts["webhook_alerts"].kept,
        redacted={kind: int(count) for kind, count in redacted.items() if count},
    )


def landing_differences(planted: Planted, landing: LandingPass) -> list[str]:
    """Differences between the event files and the landed events.

    Args:
        planted: content of the event files.
        landing: the pass that read them.
    """
    landed = {key: hour.rows for key, hour in landing.hours.items()}
    of_planted_hours = {key: rows for key, rows in landed.items() if key in planted.hours}
    untimed = sum(landed.values()) - sum(of_planted_hours.values())
    return [
        *_different("events landed of {}", planted.hours, of_planted_hours),
        *_different(
            "events without a {}",
            {"time": planted.untimed},
            {"time": untimed},
        ),
        *_different("dead letters, {}", planted.dead_letters, landing.dead_letters),
    ]


def differences(
    planted: Planted,
    receipts: Receipts,
    held: Holdings,
) -> list[str]:
    """Differences of receipts, rows, objects and alerts from the expected outcome; empty if none.

    Args:
        planted: content of the event files.
        receipts: receipts of all hours of ``planted``, after their first run.
        held: content of the destinations.
    """
    expected = {key: outcome(events) for key, events in planted.events.items()}
    found = {hour.key: counted(of_hour) for hour, of_hour in receipts.items()}
    written = {key: of_hour.written for key, of_hour in expected.items()}
    by_hour = [_of_hour(key, expected[key], found[key]) for key in expected if key in found]
    total_alerts = sum(of_hour.alerts for of_hour in expected.values())
    in_postgres = _kept(receipts, "postgres_events")
    in_s3 = _kept(receipts, "s3_archive")
    # Receipts and stores are compared singly: a wrong receipt must not excuse a wrong store.
    return [
        *itertools.chain.from_iterable(by_hour),
        *_different(
            "hours with receipts, {}", dict.fromkeys(expected, 1), dict.fromkeys(found, 1)
        ),
        *_different("rows by the receipt of postgres_events in {}", written, in_postgres),
        *_different("rows by the receipt of s3_archive in {}", written, in_s3),
        *_different("rows in PostgreSQL in {}", written, held.rows_by_hour),
        *_different("lines in S3 in {}", written, held.lines_by_hour),
        *_different("alerts {}", {"received": total_alerts}, {"received": held.alert_events}),
    ]


def _kept(receipts: Receipts, name: str) -> dict[str, int]:
    return {hour.key: of_hour[name].kept for hour, of_hour in receipts.items()}


def _of_hour(
    key: str,
    expected: Outcome,
    found: Outcome,
) -> Iterator[str]:
    for field in fields(Outcome):
        if field.name == "redacted":
            continue
        name = field.name.replace("_", " ")
        expected_count = {name: getattr(expected, field.name)}
        found_count = {name: getattr(found, field.name)}
        yield from _different(f"events {{}} in {key}", expected_count, found_count)
    yield from _different(
        f"redacted values of type {{}} in {key}", expected.redacted, found.redacted
    )


def _different(
    sentence: str,
    expected: Mapping[str, int],
    found: Mapping[str, int],
) -> Iterator[str]:
    """A sentence for each name whose counts differ.

    Args:
        sentence: its beginning; ``{}`` stands for the name.
        expected: name → expected count.
        found: name → count that was found.
    """
    for name in sorted({*expected, *found}):
        expected_count = expected.get(name, 0)
        found_count = found.get(name, 0)
        if expected_count != found_count:
            yield f"{sentence.format(name)}: {found_count:,} instead of {expected_count:,}"
