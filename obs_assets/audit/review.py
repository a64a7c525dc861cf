"""Reads the figures that the checks of an hour need; the rules are in `obs_assets.audit.checks`."""

from collections.abc import Callable, Iterable, Mapping
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

HOURS_BEFORE = 24
"""Hours before an hour whose numbers of events `obs_assets.audit.checks.volume` compares."""

DAYS_BEFORE = 14
"""Days before an hour of which the same hour is compared."""

RECEIPT_CHECK = "receipt_adds_up"
"""Name of the check that every stage and destination has."""

Review = Callable[[HourlyPipeline, Hour, Receipt], Finding]
"""Reads the figures of an hour and judges them. The receipt is that of the stage or destination."""


@dataclass(frozen=True)
class Check:
    """A check of every hour of an asset, made right after the hour is built.

    Attributes:
        name: name of the asset check in Dagster.
        promise: a sentence that is true if the check passes.
        review: reads the figures and judges them.
        blocks: no later stage is built from an hour that fails the check.
        is_always_on: the check is made even with ``checks: {enabled: false}``.
    """

    name: str
    promise: str
    review: Review
    blocks: bool = False
    is_always_on: bool = False


def checks_of(hourly: HourlyPipeline, asset: str) -> tuple[Check, ...]:
    """The checks of a stage or a destination, the receipt check first."""
    stages = {row.name: row for row in ROWS if row.name == asset}
    # A wrong stage must reach no destination; after a wrong destination, nothing is built from it.
    found = [
        replace(
            _RECEIPT,
            blocks=bool(stages),
            is_always_on=True,
        )
    ]
    for row in stages.values():
        found += [_CHECKS[name] for name in row.checks]
    if not stages:
        found.append(_AGREE)
    is_scanned = hourly.config.redact.enabled and hourly.config.checks.leftover_sample > 0
    if asset == "redacted_events" and is_scanned:
        found.append(_LEFTOVERS)
    if hourly.config.checks.enabled:
        return tuple(found)
    return tuple(check for check in found if check.is_always_on)


def review(
    hourly: HourlyPipeline, asset: str, hour: Hour, receipt: Receipt
) -> Mapping[str, Finding]:
    """Name of each check of an asset → its finding for an hour. A check that cannot be made does not pass."""
    found: dict[str, Finding] = {}
    for check in checks_of(hourly, asset):
        try:
            found[check.name] = check.review(hourly, hour, receipt)
        # The hour is built: a check that cannot be made must not fail it.
        except ObsError as error:
            found[check.name] = Finding(False, f"This could not be checked: {error}")
    return found


def _receipt(
    hourly: HourlyPipeline,
    hour: Hour,
    receipt: Receipt,
) -> Finding:
    del hourly, hour
    return checks.receipt_adds_up(receipt)


def _unreadable(
    hourly: HourlyPipeline,
    hour: Hour,
    receipt: Receipt,
) -> Finding:
    del receipt
    dead, events = hourly.log.read_with(hourly.landed().hour(hour))
    limit = hourly.config.checks.dead_letter_share
    # A record that could not be parsed has no hour, so all records of the same passes are counted.
    records = "records of the landing passes of this hour"
    command = hourly.command("obs dead-letters list")
    return checks.dead_letter_share(dead, dead + events, limit, records, command)


def _unredactable(
    hourly: HourlyPipeline,
    hour: Hour,
    receipt: Receipt,
) -> Finding:
    del hourly, hour
    return checks.all_redacted(receipt.taken - receipt.kept, receipt.taken)


def _volume(
    hourly: HourlyPipeline,
    hour: Hour,
    receipt: Receipt,
) -> Finding:
    # More events of an open hour will land: a small number says nothing yet.
    if hour >= hourly.first_open_hour():
        sentence = f"{receipt.taken:,} events so far; the hour is open."
        return Finding(True, sentence, {"events": receipt.taken})
    before = _landed_rows(hourly, hour, range(1, HOURS_BEFORE + 1))
    same_hour = _landed_rows(
        hourly,
        hour,
        range(24, 24 * DAYS_BEFORE + 1, 24),
    )
    deviations = hourly.config.checks.volume_deviations
    return checks.volume(receipt.taken, before, same_hour, deviations)


def _landed_rows(
    hourly: HourlyPipeline,
    hour: Hour,
    hours_back: Iterable[int],
) -> list[int]:
    """Numbers of landed events in hours before an hour; 0 for an hour without events.

    Hours before the first landed hour are left out.
    """
    landed = hourly.landed()
    first = parse_hour(min(landed.hours)) if landed.hours else hour
    earlier = [_hours_before(hour, back) for back in hours_back]
    return [landed.hour(each).rows for each in earlier if each >= first]


def _hours_before(hour: Hour, number: int) -> Hour:
    return Hour(hour.start - timedelta(hours=number))


def _drift(
    hourly: HourlyPipeline,
    hour: Hour,
    receipt: Receipt,
) -> Finding:
    earlier = []
    for back in range(1, hourly.config.checks.schema_hours + 1):
        path = hourly.store.receipt_path(receipt.stage, _hours_before(hour, back))
        earlier.append(_fields_at(path))
    return checks.schema_drift(_fields(receipt), [fields for fields in earlier if fields])


def _fields(receipt: Receipt) -> dict[str, str]:
    fields = receipt.details.get(FIELDS, {})
    return {path: str(types) for path, types in fields.items()}


def _fields_at(path: Path) -> dict[str, str]:
    """The fields in a receipt; empty if the receipt is missing or damaged."""
    try:
        status = path.stat()
        return _fields_of_file(path, status.st_ino, status.st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError):
        return {}


@lru_cache(maxsize=256)
def _fields_of_file(path: Path, *identity: int) -> dict[str, str]:
    # Cached by inode and time of change: each hour of a range reads the receipts of two days before
    del identity  # only a part of the key of the cache
    return _fields(Receipt.from_json(path.read_text()))


def _leftovers(
    hourly: HourlyPipeline,
    hour: Hour,
    receipt: Receipt,
) -> Finding:
    limit = hourly.config.checks.leftover_sample
    sample = limit if receipt.kept > limit else None
    (leaks,) = scan(hourly, hour, [receipt.stage], sample)
    # An event store that cannot be read is no finding about its events.
    if leaks.problem:
        raise ObsError(leaks.problem)
    left = {f"{type_} at {path}": count for (type_, path), count in leaks.leftovers.items()}
    return checks.nothing_left(
        leaks.events,
        left,
        leaks.unreadable,
        hour.key,
    )


def _agree(
    hourly: HourlyPipeline,
    hour: Hour,
    receipt: Receipt,
) -> Finding:
    config = hourly.destination_config(receipt.stage)
    offered = hourly.store.read_receipt(config.stage, hour)
    if config.filter is not None and config.filter.enabled:
        # The destination's own filter drops events of the frame: the rest is compared
        kept = receipt.taken - _filtered(receipt)
        offered = replace(offered, kept=kept, content_hash=receipt.content_hash)
    holder = hourly.holder(receipt.stage, hour)
    held = hourly.destination(holder).holding(hour, count=True)
    takes_all = kind_of(hourly.destination_config(holder)).takes_all
    found = checks.destinations_agree(receipt.stage, offered, held, takes_all=takes_all)
    resting = hourly.breaker(receipt.stage).state().sentence(hourly.clock())
    if resting:
        # The hour itself may be there, or wait in an outbox.
        return replace(found, sentence=f"{found.sentence} The breaker is {resting}.")
    return found


def _filtered(receipt: Receipt) -> int:
    """Number of events that a destination's own filter dropped."""
    other = receipt.other.items()
    return sum(number for reason, number in other if reason.startswith("filtered:"))


_RECEIPT = Check(
    RECEIPT_CHECK,
    "Every event of the input is kept, or set aside for a named reason.",
    _receipt,
)
_AGREE = Check(
    "destinations_agree",
    "The destination's ledger and rows agree with the receipt of the frame that was loaded.",
    _agree,
)
_LEFTOVERS = Check(
    "redaction_leftovers",
    "In a sample of the redacted events, independent rules find no personal data.",
    _leftovers,
)
_CHECKS: Mapping[str, Check] = {
    "unreadable lines": Check(
        "dead_letter_share",
        "Nearly all records of the landing passes of this hour could be parsed.",
        _unreadable,
    ),
    "volume": Check(
        "volume",
        "The hour has about the number of events of the hours before, or of the same hour on the days before.",
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
        "No field of the events is new, and no field has another JSON type than before.",
        _drift,
    ),
}
"""Name in a row of `stage_rows.ROWS` → check."""
