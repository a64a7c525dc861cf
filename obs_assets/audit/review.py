"""What the checks need to know of an hour, read; what they say is `obs_assets.audit.checks`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

from obs_assets.audit import checks
from obs_assets.audit.checks import Finding
from obs_assets.audit.scan import scan
from obs_assets.delivery.kinds import kind_of
from obs_assets.errors import ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import ROWS
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import FIELDS, Receipt

HOURS_BEFORE, DAYS_BEFORE = 24, 14
"""What `obs_assets.audit.checks.volume` compares with: the hours just before, and the same hour of so many days."""

RECEIPT_CHECK = "receipt_adds_up"

Review = Callable[[HourlyPipeline, Hour, Receipt], Finding]


@dataclass(frozen=True)
class Check:
    """A check of every hour of an asset, made where the asset is.

    Attributes:
        name: public.
        promise: what holds when it passes, one sentence.
        review: reads what it needs and judges.
        blocks: whether nothing is built of an hour that fails.
        is_always_on: whether it is made with ``checks: {enabled: false}`` too.
    """

    name: str
    promise: str
    review: Review
    blocks: bool = False
    is_always_on: bool = False


def checks_of(hourly: HourlyPipeline, asset: str) -> tuple[Check, ...]:
    """The checks of a stage or a destination, the receipt's first."""
    rows = [row for row in ROWS if row.name == asset]
    receipt = replace(_RECEIPT, blocks=bool(rows), is_always_on=True)
    scans = (
        asset == "redacted_events"
        and hourly.config.redact.enabled
        and hourly.config.checks.leftover_sample > 0
    )
    found = [_CHECKS[name] for row in rows for name in row.checks] if rows else [_AGREE]
    made = (receipt, *found, _LEFTOVERS) if scans else (receipt, *found)
    return tuple(check for check in made if hourly.config.checks.enabled or check.is_always_on)


def review(
    hourly: HourlyPipeline, asset: str, hour: Hour, receipt: Receipt
) -> Mapping[str, Finding]:
    """What the checks of an asset find in an hour, by their names. A check that cannot be made does not pass."""
    found: dict[str, Finding] = {}
    for check in checks_of(hourly, asset):
        try:
            found[check.name] = check.review(hourly, hour, receipt)
        except ObsError as error:
            found[check.name] = Finding(False, f"This could not be checked: {error}")
    return found


def _receipt(hourly: HourlyPipeline, hour: Hour, receipt: Receipt) -> Finding:
    del hourly, hour
    return checks.receipt_adds_up(receipt)


def _unreadable(hourly: HourlyPipeline, hour: Hour, receipt: Receipt) -> Finding:
    del receipt
    dead, events = hourly.log.read_with(hourly.landed().hour(hour))
    limit = hourly.config.checks.dead_letter_share
    return checks.dead_letter_share(
        dead, dead + events, limit, "records of the landing passes that brought this hour"
    )


def _unredactable(hourly: HourlyPipeline, hour: Hour, receipt: Receipt) -> Finding:
    del hourly, hour
    return checks.all_redacted(receipt.taken - receipt.kept, receipt.taken)


def _volume(hourly: HourlyPipeline, hour: Hour, receipt: Receipt) -> Finding:
    if hour >= hourly.first_open_hour():
        return Finding(
            True,
            f"{receipt.taken:,} events so far; the hour is open.",
            {"events": receipt.taken},
        )
    landed = hourly.landed().hours
    first = parse_hour(min(landed)) if landed else hour
    rows = {
        Hour(hour.start - timedelta(hours=back)): None
        for back in (*range(1, HOURS_BEFORE + 1), *range(24, 24 * DAYS_BEFORE + 1, 24))
    }
    counts = {
        each: landed[each.key].rows if each.key in landed else 0
        for each in rows
        if each >= first
    }
    before = [
        n
        for each, n in counts.items()
        if hour.start - each.start <= timedelta(hours=HOURS_BEFORE)
    ]
    same_hour = [n for each, n in counts.items() if each.start.hour == hour.start.hour]
    return checks.volume(
        receipt.taken, before, same_hour, hourly.config.checks.volume_deviations
    )


def _drift(hourly: HourlyPipeline, hour: Hour, receipt: Receipt) -> Finding:
    before = (
        Hour(hour.start - timedelta(hours=back))
        for back in range(1, hourly.config.checks.schema_hours + 1)
    )
    earlier = [_fields_at(hourly.store.receipt_path(receipt.stage, each)) for each in before]
    return checks.schema_drift(_fields(receipt), [fields for fields in earlier if fields])


def _fields(receipt: Receipt) -> dict[str, str]:
    return {path: str(types) for path, types in receipt.details.get(FIELDS, {}).items()}


def _fields_at(path: Path) -> dict[str, str]:
    """The fields that a receipt names; none where there is none that can be read."""
    try:
        status = path.stat()
        return _fields_of_file(path, status.st_ino, status.st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError):
        return {}


@lru_cache(maxsize=256)
def _fields_of_file(path: Path, *identity: int) -> dict[str, str]:
    # Read once: in a range each hour looks back at two days
    del identity
    return _fields(Receipt.from_json(path.read_text()))


def _leftovers(hourly: HourlyPipeline, hour: Hour, receipt: Receipt) -> Finding:
    limit = hourly.config.checks.leftover_sample
    (findings,) = scan(hourly, hour, [receipt.stage], limit if receipt.kept > limit else None)
    if findings.problem:
        raise ObsError(findings.problem)
    left = {
        f"{leftover.type} at {leftover.path}": count
        for leftover, count in findings.leftovers.items()
    }
    return checks.nothing_left(findings.events, left, findings.unreadable, hour.key)


def _agree(hourly: HourlyPipeline, hour: Hour, receipt: Receipt) -> Finding:
    config = hourly.destination_config(receipt.stage)
    offered = hourly.store.read_receipt(config.stage, hour)
    if config.filter is not None and config.filter.enabled:
        offered = replace(
            offered, kept=receipt.taken - _filtered(receipt), content_hash=receipt.content_hash
        )
    held = hourly.destination(receipt.stage).holding(hour, count=True)
    takes_all = kind_of(config).takes_all
    return checks.destinations_agree(receipt.stage, offered, held, takes_all=takes_all)


def _filtered(receipt: Receipt) -> int:
    return sum(n for reason, n in receipt.other.items() if reason.startswith("filtered:"))


_RECEIPT = Check(
    RECEIPT_CHECK,
    "Every event that went in is kept, or set aside for a named reason.",
    _receipt,
)
_AGREE = Check(
    "destinations_agree",
    "The ledger, and the rows that are there, are what the receipt of the frame says: so destinations agree.",
    _agree,
)
_LEFTOVERS = Check(
    "redaction_leftovers",
    "In a sample of the redacted events, other rules and another engine than the redactor's find nothing left.",
    _leftovers,
)
_CHECKS: Mapping[str, Check] = {
    "unreadable lines": Check(
        "dead_letter_share",
        "Few of the lines that were read with this hour could not be read.",
        _unreadable,
    ),
    "volume": Check(
        "volume",
        "The hour has about as many events as the hours before it and as this hour usually has.",
        _volume,
    ),
    "events without redaction": Check(
        "all_redacted",
        "The redactor could handle every event.",
        _unredactable,
        is_always_on=True,
    ),
    "schema": Check(
        "schema_drift",
        "No field of the events is new, none has another JSON type than before.",
        _drift,
    ),
}
"""The checks that a row of `stage_rows.ROWS` may name."""
