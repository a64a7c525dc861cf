"""Fifty clients of every kind for a minute, while hours are loaded and replaced.

The clients whose answers are timed have a process of their own: beside loads, exports and streams in
the same process they would time their own wait for Python's interpreter.
"""

import json
import multiprocessing
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets_tests.api.conftest import Load
from obs_assets_tests.api.process import running
from obs_assets_tests.frames import HOUR

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

SECONDS = 60
HOURS, ROWS = 48, 2_000
BUSY = {429, 503}
LIMIT_MS = 500
MOST_SILENT_S = 15
MOST_BYTES = 300 << 20

QUESTIONS = (
    "/api/v1/events?q=level:error&limit=100",
    "/api/v1/events?q=level:error type:task -master:m1",
    "/api/v1/events?q=trace:trace-{n}&from={start}&to={end}",
    "/api/v1/histogram?by=event_level&from={start}&to={end}",
    "/api/v1/stats?by=type&from={start}&to={end}",
    "/api/v1/stats?step=1h&from={start}&to={end}",
    "/api/v1/hours?from={start}&to={end}",
    "/api/events?limit=20",
    "/api/events?level=error&page=3",
    "/api/stats/summary",
    "/api/masters",
)
"""Questions of dashboards and of people; the answer to each is measured."""

WIDE = (
    "/api/v1/events?q=nothing-like-it&from={start}&to={end}",
    "/api/v1/facets?field=level&field=status&field=worker_type&from={start}&to={end}",
    "/api/v1/fields?from={start}&to={end}",
)
"""Questions that read many rows: they have a time limit instead."""


def events_of(hour: Hour) -> list[dict[str, Any]]:
    """Events of an hour, with the same ids each time."""
    step = timedelta(hours=1) / ROWS
    return [
        {
            "id": f"{hour.stamp}-{number}",
            "type": ("task", "beat", "note")[number % 3],
            "level": ("info", "warning", "error", "debug")[number % 4],
            "timestamp": (hour.start + number * step).isoformat(),
            "master": f"m{number % 7}",
            "worker_id": f"w{number % 40}",
            "trace_id": f"trace-{number % 300}",
            "duration_ms": number,
            "cost": number / 1000,
            "status": ("done", "failed")[number % 2],
            "message": f"message {number} " + "x" * 300,
        }
        for number in range(ROWS)
    ]


@dataclass
class Noted:
    """What clients got.

    Attributes:
        statuses: (question, status) → answers.
        mistakes: answers that no client may get.
        milliseconds: question → time of each answer.
        silences: the longest silence of each stream, in seconds.
    """

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    mistakes: list[str] = field(default_factory=list)
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    silences: list[float] = field(default_factory=list)


class Crowd:
    """Clients of a server, each in a thread.

    Args:
        address: the server.
        words: words that the addresses of questions name.
    """

    def __init__(self, address: str, words: dict[str, str]) -> None:
        self.address = address
        self.words = words
        self.ends_at = time.monotonic() + SECONDS
        self.noted = Noted()
        self._lock = threading.Lock()

    def run(self, clients: Sequence[Callable[[int], None]]) -> Noted:
        """Run clients until the time is over."""
        with ThreadPoolExecutor(len(clients)) as threads:
            for done in threads.map(self._noting, clients, range(len(clients))):
                assert done is None
        return self.noted

    def _go_on(self) -> bool:
        return time.monotonic() < self.ends_at

    def _noting(self, client: Callable[[int], None], seed: int) -> None:
        """Run a client; a connection that fails is a mistake of the server, and the client begins again."""
        while self._go_on():
            try:
                client(seed)
            except httpx.HTTPError as error:
                left_s = self.ends_at - time.monotonic()
                self.noted.mistakes.append(f"client {seed}, {left_s:.1f} s left: {error!r}")

    def ask_listed(self, seed: int) -> None:
        """A client of quick questions."""
        self._ask_often(seed, QUESTIONS)

    def ask_wide(self, seed: int) -> None:
        """A client of questions that read many rows."""
        self._ask_often(seed, WIDE)

    def _ask_often(self, seed: int, questions: tuple[str, ...]) -> None:
        """Ask, look at the answer for a second, and ask again."""
        chance = random.Random(seed)
        with httpx.Client(base_url=self.address, timeout=30) as client:
            while self._go_on():
                question = chance.choice(questions)
                path = question.format(n=chance.randrange(300), **self.words)
                began = time.perf_counter()
                answer = client.get(path)
                self._note(question, answer, 1000 * (time.perf_counter() - began))
                time.sleep(chance.uniform(0, 2))

    def _note(self, question: str, answer: httpx.Response, milliseconds: float) -> None:
        with self._lock:
            self.noted.statuses[question, answer.status_code] += 1
            if answer.status_code == 200:
                self.noted.milliseconds.setdefault(question, []).append(milliseconds)
            elif answer.status_code not in BUSY or "retry-after" not in answer.headers:
                self.noted.mistakes.append(f"{question}: {answer.status_code}")

    def export(self, seed: int) -> None:
        """A client that takes all rows, waits and takes them again."""
        del seed
        path = "/api/v1/export?from={start}&to={end}".format(**self.words)
        answer = httpx.get(self.address + path, timeout=120)
        self._note("export", answer, 0)
        if answer.status_code == 200:
            lines = answer.content.splitlines()
            closing = json.loads(lines[-1])["obs_export"]
            assert closing["rows"] == len(lines) - 1 >= HOURS * ROWS
        time.sleep(10)

    def follow(self, seed: int) -> None:
        """A client of the live stream that leaves after a while and comes again."""
        until = time.monotonic() + random.Random(seed).uniform(2, 20)
        with httpx.stream("GET", f"{self.address}/api/v1/tail", timeout=30) as answer:
            # The body of a stream is not read to its end.
            self._note("tail", answer, 0)
            if answer.status_code != 200:
                return
            heard_at, longest = time.monotonic(), 0.0
            for _ in answer.iter_raw():
                longest = max(longest, time.monotonic() - heard_at)
                heard_at = time.monotonic()
                if heard_at > min(until, self.ends_at):
                    break
        with self._lock:
            self.noted.silences.append(longest)


def asking(address: str, words: dict[str, str]) -> Noted:
    """The clients that ask, in a process of their own."""
    crowd = Crowd(address, words)
    return crowd.run([*[crowd.ask_listed] * 35, *[crowd.ask_wide] * 4])


def taking(address: str, words: dict[str, str]) -> Noted:
    """The clients of streams and exports, in a process of their own."""
    crowd = Crowd(address, words)
    return crowd.run([*[crowd.follow] * 10, crowd.export])


def seconds_of(pid: int) -> float:
    """Processor time of a process."""
    user, system = (Path("/proc") / str(pid) / "stat").read_text().split()[13:15]
    return (int(user) + int(system)) / 100


def test_fifty_clients_while_hours_are_loaded(
    hourly: HourlyPipeline, load: Load, tmp_path: Path
) -> None:
    """No error but "busy, try again in a moment"; quick answers; no silent stream; little memory."""
    hours = [Hour(HOUR.start + timedelta(hours=number)) for number in range(HOURS)]
    for hour in hours:
        load(hour, events_of(hour))
    words = {"start": f"{hours[0].start:%Y-%m-%dT%H:%M:%SZ}"}
    words["end"] = f"{hours[-1].end + timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}"
    spawned = multiprocessing.get_context("spawn")
    with (
        running(hourly, tmp_path) as (process, address),
        ProcessPoolExecutor(2, spawned) as processes,
    ):
        httpx.get(f"{address}/api/v1/events", timeout=30).raise_for_status()
        crowds = [processes.submit(crowd, address, words) for crowd in (asking, taking)]
        loads = 0
        while not all(crowd.done() for crowd in crowds):
            # A new hour, then the same hour again, with rows of another weight.
            newest = Hour(hours[-1].start + timedelta(hours=1 + loads // 2))
            load(newest, events_of(newest), generation=1 + loads % 2, weight=1.0 + loads % 2)
            loads += 1
        asked, taken = [crowd.result() for crowd in crowds]
        memory = (Path("/proc") / str(process.pid) / "status").read_text()
        seconds = seconds_of(process.pid)
    listed = sorted(ms for question in QUESTIONS for ms in asked.milliseconds[question])
    (peak,) = [line.split()[1] for line in memory.splitlines() if line.startswith("VmHWM")]
    p99 = listed[len(listed) * 99 // 100]
    print(
        f"{loads} loads; {len(listed)} answers to listed questions: median "
        f"{statistics.median(listed):.0f} ms, 99 % within {p99:.0f} ms; longest silence of a "
        f"stream {max(taken.silences):.1f} s; {int(peak) >> 10} MiB, {seconds:.0f} s of processor time"
    )
    print(dict(asked.statuses + taken.statuses), asked.mistakes, taken.mistakes, sep="\n")
    assert not asked.mistakes
    assert not taken.mistakes
    assert max(taken.silences) < MOST_SILENT_S
    assert loads > 5
    assert len(listed) > 500
    assert p99 < LIMIT_MS
    assert int(peak) << 10 < MOST_BYTES
