"""The expected outcome of the sample events in the default pipeline, computed event by event.

It is independent: it shares no code with the pipeline, and sees only the events as they were written.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from obs_assets.demo.agents import PERSONAL, Event

RATE = 0.1
"""Share of the events without an error that the default pipeline keeps."""

GRAVE = ("error", "critical", "fatal")
"""Levels that make an event an error."""

Fate = Literal["filtered", "sampled out", "written"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of an hour: counts of its events.

    Attributes:
        landed: events that were read.
        dead: events that no stage may pass on; the samples have none.
        filtered: events that are dropped by a rule.
        sampled_out: events that are dropped by the rate.
        redacted: type → number of redacted values.
        written: rows of the table, and lines of the archive's object.
        alerts: events that are sent to the webhook.
    """

    landed: int
    dead: int
    filtered: int
    sampled_out: int
    written: int
    alerts: int
    redacted: Mapping[str, int] = field(default_factory=dict)


def outcome(events: Iterable[Event]) -> Outcome:
    """The expected outcome of an hour.

    Args:
        events: each has a trace or a session, is an error, or has a type or level that is filtered.
    """
    events = list(events)
    fates = Counter(map(fate, events))
    redacted: Counter[str] = Counter()
    for event in events:
        redacted.update(PERSONAL.get(event_type(event), ()))
    return Outcome(
        landed=len(events),
        dead=0,
        filtered=fates["filtered"],
        sampled_out=fates["sampled out"],
        written=fates["written"],
        alerts=sum(level(event) in GRAVE for event in events),
        redacted=dict(redacted),
    )


def fate(event: Event) -> Fate:
    """The expected fate of an event: noise is filtered, errors are written, and a tenth of the other traces."""
    kind = event_type(event)
    if kind == "heartbeat" or level(event) == "debug":
        return "filtered"
    is_error = level(event) in GRAVE or "error" in event or event.get("status") == "failed"
    if is_error or "error" in kind.lower() or "fail" in kind.lower():
        return "written"
    # By trace: all events of a task have the same fate.
    key = event.get("trace_id") or event["session_id"]
    drawn = int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(), 16)
    # An MD5 hash is a number below 2 to the power of 128.
    return "written" if drawn < RATE * 2**128 else "sampled out"


def event_type(event: Event) -> str:
    """The event's type, whatever its file calls it."""
    return str(event.get("type") or event.get("event_type") or "")


def level(event: Event) -> str:
    """The event's level, whatever its file calls it."""
    return str(event.get("level") or event.get("severity") or "")
