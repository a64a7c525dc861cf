"""Fifty clients of every kind for a minute, while hours are loaded and replaced."""

import json
import random
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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


class Crowd:
    """Clients of a server, and the answers that they got.

    Args:
        address: the server.
        words: words that the addresses of questions name.
    """

    def __init__(self, address: str, words: dict[str, str]) -> None:
        self.address = address
        self.words = words
        self.ends_at = time.monotonic() + SECONDS
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.mistakes: list[str] = []
        self.milliseconds: dict[str, list[float]] = defaultdict(list)
        self._lock = threading.Lock()

    def go_on(self) -> bool:
        return time.monotonic() < self.ends_at

    def noting(self, client: Callable[[int], None], seed: int) -> None:
        """Run a client; a connection that fails is a mistake of the server, and the client begins again."""
        while self.go_on():
            try:
                client(seed)
            except httpx.HTTPError as error:
                self.mistakes.append(f"client {seed}: {error!r}")

    def ask_often(self, seed: int, questions: tuple[str, ...]) -> None:
        """A client that asks, looks at the answer for a second, and asks again."""
        chance = random.Random(seed)
        with httpx.Client(base_url=self.address, timeout=30) as client:
            while self.go_on():
                question = chance.choice(questions)
                path = question.format(n=chance.randrange(300), **self.words)
                began = time.perf_counter()
                answer = client.get(path)
                self._note(question, answer, 1000 * (time.perf_counter() - began))
                time.sleep(chance.uniform(0, 2))

    def _note(self, question: str, answer: httpx.Response, milliseconds: float) -> None:
        with self._lock:
            self.statuses[question, answer.status_code] += 1
            if answer.status_code == 200:
                self.milliseconds[question].append(milliseconds)
            elif answer.status_code not in BUSY or "retry-after" not in answer.headers:
                self.mistakes.append(f"{question}: {answer.status_code}")

    def export(self, seed: int) -> None:
        """A client that takes all rows, waits and takes them again."""
        del seed
        while self.go_on():
            path = "/api/v1/export?from={start}&to={end}".format(**self.words)
            answer = httpx.get(self.address + path, timeout=120)
            with self._lock:
                self.statuses["export", answer.status_code] += 1
            if answer.status_code == 200:
                closing = json.loads(answer.text.splitlines()[-1])["obs_export"]
                assert closing["rows"] == len(answer.text.splitlines()) - 1 >= HOURS * ROWS
            else:
                self._note("export", answer, 0)
            time.sleep(10)

    def follow(self, seed: int) -> None:
        """A client of the live stream; each second one leaves and comes again."""
        chance = random.Random(seed)
        while self.go_on():
            until = time.monotonic() + chance.uniform(2, 20)
            with httpx.stream("GET", f"{self.address}/api/v1/tail", timeout=30) as answer:
                with self._lock:
                    self.statuses["tail", answer.status_code] += 1
                if answer.status_code != 200:
                    self._note("tail", answer, 0)
                    continue
                for _ in answer.iter_lines():
                    if time.monotonic() > min(until, self.ends_at):
                        break


def test_fifty_clients_while_hours_are_loaded(
    hourly: HourlyPipeline, load: Load, tmp_path: Path
) -> None:
    """No error but "busy, try again in a moment"; quick answers; little memory."""
    hours = [Hour(HOUR.start + timedelta(hours=number)) for number in range(HOURS)]
    for hour in hours:
        load(hour, events_of(hour))
    words = {"start": f"{hours[0].start:%Y-%m-%dT%H:%M:%SZ}"}
    words["end"] = f"{hours[-1].end + timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}"
    with running(hourly, tmp_path) as (process, address):
        httpx.get(f"{address}/api/v1/events", timeout=30).raise_for_status()
        crowd = Crowd(address, words)
        clients: list[Callable[[int], None]] = [
            *[lambda seed: crowd.ask_often(seed, QUESTIONS)] * 35,
            *[lambda seed: crowd.ask_often(seed, WIDE)] * 4,
            *[crowd.follow] * 10,
            crowd.export,
        ]
        with ThreadPoolExecutor(len(clients)) as threads:
            work = [
                threads.submit(crowd.noting, client, seed)
                for seed, client in enumerate(clients)
            ]
            loads = 0
            while crowd.go_on():
                # A new hour, then the same hour again, with rows of another weight.
                newest = Hour(hours[-1].start + timedelta(hours=1 + loads // 2))
                load(
                    newest, events_of(newest), generation=1 + loads % 2, weight=1.0 + loads % 2
                )
                loads += 1
            for done in work:
                done.result()
        memory = (Path("/proc") / str(process.pid) / "status").read_text()
        times = (Path("/proc") / str(process.pid) / "stat").read_text().split()[13:15]
    listed = sorted(ms for question in QUESTIONS for ms in crowd.milliseconds[question])
    (peak,) = [line.split()[1] for line in memory.splitlines() if line.startswith("VmHWM")]
    p99 = listed[len(listed) * 99 // 100]
    print(
        f"{loads} loads; {len(listed)} answers to listed questions: median "
        f"{statistics.median(listed):.0f} ms, 99 % within {p99:.0f} ms; {int(peak) >> 10} MiB, "
        f"{sum(map(int, times)) / 100:.0f} s of processor time"
    )
    print(dict(crowd.statuses), crowd.mistakes, sep="\n")
    assert not crowd.mistakes
    assert loads > 5
    assert len(listed) > 500
    assert p99 < LIMIT_MS
    assert int(peak) << 10 < MOST_BYTES
