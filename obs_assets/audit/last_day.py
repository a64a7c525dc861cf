"""Counts the kept and dropped events of the last day, from receipts; no frame is read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.stage_rows import STAGES
from obs_assets.hours import Hour
from obs_assets.receipts import Receipt

SAMPLED_OUT = "sampled_out:"
"""Beginning of the reasons of events that a sample dropped."""

KEEP_ALL = ("filter: null", "sample: null")
"""The two lines of a pipeline file under which no event is dropped by rule or by rate."""


@dataclass(frozen=True)
class LastDay:
    """The 24 hours up to the newest built hour.

    Attributes:
        hours: range from the first to the last built hour of the day; empty if no hour is built.
        kept: number of events that the last stage passed on.
        dropped: reason, such as ``filtered:…`` or ``sampled_out:…`` → number of events that a stage
            dropped, the largest number first.
        dead_letters: reason → number of records of event files that could not be read and are not
            replayed yet.
    """

    hours: str = ""
    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    dead_letters: Mapping[str, int] = field(default_factory=dict)

    @property
    def was_sampled(self) -> bool:
        """Whether events were dropped by rate."""
        return any(reason.startswith(SAMPLED_OUT) for reason in self.dropped)

    def lines(self) -> list[str]:
        """The figures in words, and after sampling the lines that keep every event."""
        if not self.hours:
            return ["no hour is built yet"]
        total = self.kept + sum(self.dropped.values())
        lines = [f"{self.hours}: {self.kept:,} of {total:,} events kept"]
        lines += [f"{count:,} dropped, {reason}" for reason, count in self.dropped.items()]
        lines += [f"{_letters(count)}, {reason}" for reason, count in self.dead_letters.items()]
        if self.was_sampled:
            lines.append(
                "to keep every event, put these two lines into the pipeline file "
                "and build the hours again:"
            )
            lines += [f"  {line}" for line in KEEP_ALL]
        return lines


def last_day(hourly: HourlyPipeline) -> LastDay:
    """The kept and dropped events of the last day of a pipeline."""
    folder = hourly.store.receipt_dir(STAGES[-1])
    built = sorted(_hour_of(path.stem) for path in folder.glob("*.json"))
    letters: Counter[str] = Counter()
    for reason, (count, _) in hourly.landed().letters.items():
        letters[reason] = count
    dead_letters = dict(letters.most_common())
    if not built:
        return LastDay(dead_letters=dead_letters)
    # The day ends with the newest built hour, not now: an old archive has a last day too.
    day_before = built[-1].start - timedelta(days=1)
    day = [hour for hour in built if hour.start > day_before]
    kept = 0
    dropped: Counter[str] = Counter()
    for hour in day:
        for receipt in _receipts(hourly, hour):
            dropped.update(receipt.other)
            # Each stage passes on a part of the events of the stage before it.
            if receipt.stage == STAGES[-1]:
                kept += receipt.kept
    return LastDay(
        hours=f"{day[0]}...{day[-1]}",
        kept=kept,
        dropped=dict(dropped.most_common()),
        dead_letters=dead_letters,
    )


def _receipts(hourly: HourlyPipeline, hour: Hour) -> list[Receipt]:
    found = [hourly.store.find_receipt(stage, hour) for stage in STAGES]
    return [receipt for receipt in found if receipt]


def _hour_of(stamp: str) -> Hour:
    return Hour(datetime.strptime(stamp, "%Y%m%d%H").replace(tzinfo=UTC))


def _letters(count: int) -> str:
    if count == 1:
        return "1 dead letter"
    return f"{count:,} dead letters"
