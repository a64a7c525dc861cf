"""A day of sample event files, as messy as real ones, with counts of what is in them.

The same seed and first hour give the same bytes. What ought to become of each line is counted while it is written.
"""

import gzip
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from obs_assets.demo.agents import (
    MASTERS,
    Event,
    chance,
    incidents,
    iso,
    pulse,
    session_id,
    task,
    within,
)
from obs_assets.demo.people import Person, make_people
from obs_assets.hours import Hour, hours_between
from obs_assets.storage.disk import replacing

TASKS_AN_HOUR = 50
PULSES_AN_HOUR = 60
ROTATED_HOURS = 4
AGENTS, ROTATED = "agent-events.jsonl", "agent-events.1.jsonl.gz"
DASHBOARD, ACCESS, SCANS = "dashboard-events.jsonl", "access-log.jsonl", "security-scans.jsonl"
FILES = (ROTATED, AGENTS, DASHBOARD, ACCESS, SCANS)


@dataclass(frozen=True)
class Planted:
    """What the sample files hold.

    Attributes:
        events: partition key → events of that hour, as they were written.
        untimed: events without a time; they belong to the hour in which they are landed.
        dead_letters: reason → lines that cannot be landed.
        unfinished: last lines without an end, which wait for the rest.
        personal: personal values and secrets, as they are written.
    """

    events: Mapping[str, tuple[Event, ...]]
    untimed: int
    dead_letters: Mapping[str, int]
    unfinished: int
    personal: tuple[str, ...]

    @property
    def hours(self) -> Mapping[str, int]:
        """Partition key → number of events of that hour."""
        return {key: len(events) for key, events in self.events.items()}


@dataclass(frozen=True)
class _Line:
    """Bytes of a file in their place; they are an event, or dead for a reason, or neither (``torn``)."""

    at: datetime
    raw: bytes
    verdict: str = "event"
    event: Event = field(default_factory=dict)


def write_samples(folder: Path, first_hour: Hour, hours: int = 9, seed: int = 1) -> Planted:
    """Write the files of `FILES` into a folder.

    Args:
        folder: is made if need be.
        first_hour: of the events.
        hours: how many hours the events span, at least 6.
        seed: another one gives other events.
    """
    rng = random.Random(seed)  # noqa: S311 (samples, not secrets)
    last_hour = Hour(first_hour.start + timedelta(hours=hours - 1))
    span = list(hours_between(first_hour, last_hour.next))
    people = make_people(3 * hours, rng)
    timed = [event for hour in span for event in _ordinary(hour, rng)]
    for place, person in enumerate(people):
        timed += incidents(span[place % hours], person, rng)
    agents = sorted(
        [*(_written(at, event) for at, event in timed), *_mess(span)], key=lambda line: line.at
    )
    rotated_until = span[ROTATED_HOURS].start
    contents = {
        ROTATED: [line for line in agents if line.at < rotated_until],
        AGENTS: [line for line in agents if line.at >= rotated_until],
        DASHBOARD: list(_dashboard(span, rng)),
        ACCESS: list(_access_log(span, rng)),
        SCANS: list(_security_scans(span, rng)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in contents.items():
        data = b"".join(line.raw for line in lines)
        with replacing(folder / name) as aside:
            aside.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    return _counts([line for lines in contents.values() for line in lines], people)


def _counts(lines: list[_Line], people: list[Person]) -> Planted:
    verdicts = Counter(line.verdict for line in lines)
    events: defaultdict[str, list[Event]] = defaultdict(list)
    for line in lines:
        if line.verdict == "event":
            events[Hour.of(line.at).key].append(line.event)
    return Planted(
        events={key: tuple(events[key]) for key in sorted(events)},
        untimed=verdicts.pop("untimed", 0),
        unfinished=verdicts.pop("torn", 0),
        dead_letters={
            reason: count for reason, count in sorted(verdicts.items()) if reason != "event"
        },
        personal=tuple(value for person in people for value in person.values()),
    )


def _ordinary(hour: Hour, rng: random.Random) -> Iterator[tuple[datetime, Event]]:
    for _ in range(TASKS_AN_HOUR):
        yield from task(hour, rng)
    for _ in range(PULSES_AN_HOUR):
        yield pulse(hour, rng)


def _written(at: datetime, event: Event, end: str = "\n", indent: int | None = None) -> _Line:
    separators = None if indent else (",", ":")
    raw = (
        json.dumps(event, ensure_ascii=False, indent=indent, separators=separators) + end
    ).encode()
    return _Line(at, raw, event=event)


def _mess(span: list[Hour]) -> Iterator[_Line]:
    """What goes wrong in the field, apart from one another so that no two become one dead letter."""
    moments = iter(
        [hour.start + timedelta(minutes=minute) for minute in (20, 40) for hour in span]
    )
    damaged = (
        ("not_an_object", b"--- log rotated ---\n"),
        ("not_an_object", b"Traceback (most recent call last):\n"),
        ("not_an_object", b'"a string, not an event"\n'),
        ("not_json", b'{"type":"task_started","level":}\n'),
        ("not_json", b"{'type': 'task_started', 'level': 'info'}\n"),
        ("number_not_finite", b'{"type":"score","level":"info","value":NaN}\n'),
        ("invalid_utf8", b'{"type":"note_saved","level":"info","message":"\xff\xfe"}\n'),
        ("time_before_2000", b'{"type":"task_started","timestamp":"1999-12-31T23:59:59Z"}\n'),
        ("time_unreadable", b'{"type":"task_started","timestamp":"yesterday, after lunch"}\n'),
        (
            "untimed",
            b'{"type":"task_started","level":"info","master_type":"coordinator-master"}\n',
        ),
    )
    for verdict, raw in damaged:
        yield _Line(next(moments), raw, verdict)
    ahead = _written(
        next(moments),
        {"type": "task_started", "timestamp": iso(span[-1].start + timedelta(days=9))},
    )
    yield replace(ahead, verdict="time_too_far_ahead")
    at = next(moments)
    clock = {"timestamp": iso(at, "-06:00"), "type": "clock_changed", "session_id": "clock-1"}
    yield _written(at, clock, end="\r\n\n")
    yield _Line(span[-1].end, b'{"type":"task_started","level":"info","timesta', "torn")


def _dashboard(span: list[Hour], rng: random.Random) -> Iterator[_Line]:
    """One-line objects between pretty-printed ones; local time; all kinds of ``data``; an id of three events."""
    for hour in span:
        at = hour.start + timedelta(minutes=1)
        session = {"session_id": session_id("dashboard", rng)}
        started: Event = {
            "type": "coordinator_started",
            **session,
            "data": {"pid": rng.randrange(9999)},
        }
        yield _written(at, {"timestamp": iso(at, "-0600"), **started})
        worker = json.dumps({"worker_id": f"worker-scan-{rng.randrange(99):03}", "data": {}})
        for kind, data in (
            ("zombie_detected", ""),
            ("zombie_ended", worker),
            ("zombie_cleaned_up", "Done. 🧹"),
        ):
            event = {
                "id": f"evt-{hour.stamp}-52199",
                "timestamp": iso(at, "-06:00"),
                "type": kind,
            }
            yield _written(at, {**event, **session, "data": data})
        pool = {"pool_size": rng.randrange(8, 20), "threshold": 10, "severity": "warning"}
        at = within(hour, rng)
        yield _written(
            at,
            {"timestamp": iso(at, "-0600"), "type": "pool_size_alert", **session, "data": pool},
            indent=2,
        )
        at = within(hour, rng)
        failure = {
            "type": "system_ERROR",
            "severity": "critical",
            "data": "❌ FAIL: version check",
        }
        yield _written(at, {"timestamp": iso(at, "-06:00"), **failure})


def _access_log(span: list[Hour], rng: random.Random) -> Iterator[_Line]:
    """Neither type nor level."""
    for hour in span:
        for at in sorted(within(hour, rng) for _ in range(25)):
            allowed = chance(rng, 0.9)
            asked = {
                "principal": rng.choice(MASTERS),
                "asset": "task-queue",
                "operation": "write",
            }
            answered = {
                "allowed": allowed,
                "reason": "has permission" if allowed else "not in the catalog: denied",
            }
            session = {"session_id": session_id("access", rng)}
            yield _written(
                at,
                {
                    "timestamp": iso(at),
                    **session,
                    **asked,
                    **answered,
                    "latency_ms": rng.randrange(40),
                },
            )


def _security_scans(span: list[Hour], rng: random.Random) -> Iterator[_Line]:
    """One JSON array over the whole file."""
    for hour in span:
        at = within(hour, rng)
        found = {"severity": rng.choice(("low", "medium")), "finding_count": rng.randrange(5)}
        scan = {
            "event_id": f"scan-{hour.stamp}",
            "event_type": "security.scan_completed",
            "payload": found,
        }
        scan |= {"session_id": session_id("scan", rng)}
        line = _written(
            at,
            {**scan, "timestamp": iso(at, "+0000")},
            end="\n]\n" if hour == span[-1] else ",\n",
            indent=1,
        )
        yield replace(line, raw=(b"[\n" if hour == span[0] else b"") + line.raw)
