"""A day of sample event files, as messy as real files, with counts of their content.

The same seed and first hour give the same bytes. Each line is counted under its expected outcome while
it is written.
"""

import gzip
import itertools
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
"""Tasks of the agent platform in an hour."""

PULSES_AN_HOUR = 60
"""Heartbeats in an hour."""

REQUESTS_AN_HOUR = 25
"""Requests in an hour of the access log."""

ROTATED_HOURS = 4
"""First hours of the agents' events, which are in the rotated file."""

AGENTS = "agent-events.jsonl"
ROTATED = "agent-events.1.jsonl.gz"
DASHBOARD = "dashboard-events.jsonl"
ACCESS = "access-log.jsonl"
SCANS = "security-scans.jsonl"
FILES = (ROTATED, AGENTS, DASHBOARD, ACCESS, SCANS)
"""Names of all sample files."""


@dataclass(frozen=True)
class Planted:
    """The content of the sample files.

    Attributes:
        events: partition key → events of that hour, as they were written.
        untimed: number of events without a time; they belong to the hour in which they are landed.
        dead_letters: reason → number of lines that cannot be landed.
        unfinished: number of incomplete last lines, which are landed once they are complete.
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
    """A line of a file.

    Attributes:
        at: time of the event; lines of the agents' files are sorted by it.
        raw: the bytes, with the line's end.
        verdict: ``event``; ``untimed``; ``torn``, an incomplete last line; else the reason of a dead letter.
        event: the event, if ``verdict`` is ``event``.
    """

    at: datetime
    raw: bytes
    verdict: str = "event"
    event: Event = field(default_factory=dict)


def write_samples(
    folder: Path,
    first_hour: Hour,
    hours: int = 9,
    seed: int = 1,
) -> Planted:
    """Write the files of `FILES` into a folder.

    Args:
        folder: is created if it does not exist.
        first_hour: first hour of the events.
        hours: number of hours that the events span, at least 6.
        seed: another seed gives other events.
    """
    # The order of the calls below decides every value: a call between them changes all later files.
    rng = random.Random(seed)  # noqa: S311 (samples, not secrets)
    last_hour = Hour(first_hour.start + timedelta(hours=hours - 1))
    span = list(hours_between(first_hour, last_hour.next))
    people = make_people(3 * hours, rng)
    timed: list[tuple[datetime, Event]] = []
    for hour in span:
        timed += _ordinary(hour, rng)
    # Three people in each hour, so that every hour has every type of personal value.
    for number, person in enumerate(people):
        timed += incidents(span[number % hours], person, rng)
    written = [_written(at, event) for at, event in timed]
    agents = sorted([*written, *_mess(span)], key=lambda line: line.at)
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
        if name.endswith(".gz"):
            data = gzip.compress(data, mtime=0)  # without a time: the same bytes at every call
        # A sensor can look at the folder at any moment, and must not see half a file.
        with replacing(folder / name) as tmp_path:
            tmp_path.write_bytes(data)
    return _counts(list(itertools.chain.from_iterable(contents.values())), people)


def _counts(lines: list[_Line], people: list[Person]) -> Planted:
    verdicts = Counter(line.verdict for line in lines)
    events: defaultdict[str, list[Event]] = defaultdict(list)
    for line in lines:
        if line.verdict == "event":
            events[Hour.of(line.at).key].append(line.event)
    dead_letters = {
        verdict: count
        for verdict, count in sorted(verdicts.items())
        if verdict not in {"event", "untimed", "torn"}
    }
    return Planted(
        events={key: tuple(events[key]) for key in sorted(events)},
        untimed=verdicts["untimed"],
        unfinished=verdicts["torn"],
        dead_letters=dead_letters,
        personal=tuple(itertools.chain.from_iterable(person.values() for person in people)),
    )


def _ordinary(hour: Hour, rng: random.Random) -> Iterator[tuple[datetime, Event]]:
    for _ in range(TASKS_AN_HOUR):
        yield from task(hour, rng)
    for _ in range(PULSES_AN_HOUR):
        yield pulse(hour, rng)


def _written(
    at: datetime,
    event: Event,
    end: str = "\n",
    indent: int | None = None,
) -> _Line:
    """An event as a line; with ``indent``, pretty-printed on several lines."""
    # Agents write compact JSON; a pretty-printed event has blanks after its signs.
    separators = None if indent else (",", ":")
    text = json.dumps(
        event,
        ensure_ascii=False,
        indent=indent,
        separators=separators,
    )
    return _Line(at, (text + end).encode(), event=event)


def _mess(span: list[Hour]) -> Iterator[_Line]:
    """Damaged lines as they occur in real files, at times that no two of them share.

    Two damaged lines next to each other would be a single dead letter.
    """
    first_times = [hour.start + timedelta(minutes=20) for hour in span]
    second_times = [hour.start + timedelta(minutes=40) for hour in span]
    moments = iter([*first_times, *second_times])
    damaged = (
        ("not_json", b"--- log rotated ---\n"),
        ("not_json", b"Traceback (most recent call last):\n"),
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
    future = iso(span[-1].start + timedelta(days=9))
    ahead = _written(next(moments), {"type": "task_started", "timestamp": future})
    yield replace(ahead, verdict="time_too_far_ahead")
    # A time with an offset, a line end of Windows and an empty line are right, and land.
    at = next(moments)
    clock = {
        "timestamp": iso(at, "-06:00"),
        "type": "clock_changed",
        "session_id": "clock-1",
    }
    yield _written(at, clock, end="\r\n\n")
    # The newest bytes of the newest file: an agent was stopped while it wrote.
    yield _Line(span[-1].end, b'{"type":"task_started","level":"info","timesta', "torn")


def _dashboard(span: list[Hour], rng: random.Random) -> Iterator[_Line]:
    """Compact and pretty-printed objects, local time, all kinds of ``data``, an id of three events."""
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
        # The same id three times: an id of an event is no identity of a row.
        states = (
            ("zombie_detected", ""),
            ("zombie_ended", worker),
            ("zombie_cleaned_up", "Done. 🧹"),
        )
        for kind, data in states:
            event = {
                "id": f"evt-{hour.stamp}-52199",
                "timestamp": iso(at, "-06:00"),
                "type": kind,
            }
            yield _written(at, {**event, **session, "data": data})
        pool = {
            "pool_size": rng.randrange(8, 20),
            "threshold": 10,
            "severity": "warning",
        }
        at = within(hour, rng)
        alert = {
            "timestamp": iso(at, "-0600"),
            "type": "pool_size_alert",
            **session,
            "data": pool,
        }
        yield _written(at, alert, indent=2)
        at = within(hour, rng)
        failure = {
            "type": "system_ERROR",
            "severity": "critical",
            "data": "❌ FAIL: version check",
        }
        yield _written(at, {"timestamp": iso(at, "-06:00"), **failure})


def _access_log(span: list[Hour], rng: random.Random) -> Iterator[_Line]:
    """Events without type and level."""
    for hour in span:
        for at in sorted(within(hour, rng) for _ in range(REQUESTS_AN_HOUR)):
            allowed = chance(rng, 0.9)
            reason = "has permission" if allowed else "not in the catalog: denied"
            asked = {
                "principal": rng.choice(MASTERS),
                "asset": "task-queue",
                "operation": "write",
            }
            answered = {"allowed": allowed, "reason": reason}
            event: Event = {
                "timestamp": iso(at),
                "session_id": session_id("access", rng),
                **asked,
                **answered,
                "latency_ms": rng.randrange(40),
            }
            yield _written(at, event)


def _security_scans(span: list[Hour], rng: random.Random) -> Iterator[_Line]:
    """A file that is a single JSON array."""
    for hour in span:
        at = within(hour, rng)
        found = {"severity": rng.choice(("low", "medium")), "finding_count": rng.randrange(5)}
        scan = {
            "event_id": f"scan-{hour.stamp}",
            "event_type": "security.scan_completed",
            "payload": found,
            "session_id": session_id("scan", rng),
            "timestamp": iso(at, "+0000"),
        }
        # All scans together are a single array: its brackets are in the first and the last line.
        end = "\n]\n" if hour == span[-1] else ",\n"
        line = _written(at, scan, end=end, indent=1)
        if hour == span[0]:
            line = replace(line, raw=b"[\n" + line.raw)
        yield line
