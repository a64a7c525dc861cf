"""A receiver, in this process or in its own, and what lands from its files."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from starlette.testclient import TestClient

from obs_assets.api.tokens import TokenFile
from obs_assets.hours import Hour
from obs_assets.receive.app import Receiver
from obs_assets.receive.bodies import Limits
from obs_assets.receive.keys import Keys
from obs_assets.receive.spool import Rotation, Spool
from obs_assets.sources.files import SourceConfig
from obs_assets.sources.landing import land
from obs_assets.sources.times import EARLIEST
from obs_assets_tests.sources.place import NOW, Place

MAIN = Path("receiver") / "main"

ARRIVED_AT = 1_935_738_000.0
"""Time of arrival of every request: 2031-05-05 09:00 UTC."""


@dataclass
class Inside:
    """A receiver in this process: a client for its application, and its files."""

    place: Place
    limits: Limits = field(default_factory=Limits)
    rotation: Rotation = field(default_factory=Rotation)
    tokens: TokenFile | None = None

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin, or begin again."""
        self.spool = Spool(self.place.path(str(MAIN)), "main", self.rotation)
        keys = Keys(self.spool.folder, time.time())
        self.spool.note_keys = keys.store
        self.app = Receiver(self.spool, keys, self.tokens, self.limits, lambda: ARRIVED_AT)
        self.client = TestClient(self.app, base_url="http://localhost")

    def landed(self) -> list[dict[str, Any]]:
        """End, and land all files; the events in their order."""
        self.spool.close()
        return landed(self.place)


def landed(place: Place) -> list[dict[str, Any]]:
    """Land all files; the events in the order of the files, of which none has a dead letter."""
    config = SourceConfig(events_dir=place.events_dir, seal_after_minutes=0)
    report = land(config, place.log, first_hour=Hour(EARLIEST), now=NOW)
    assert not report.dead_letters
    rows = sorted(place.rows(), key=lambda row: (row["event_file"], row["file_offset"]))
    return [json.loads(row["line"]) for row in rows]


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    """A receiver in this process."""
    made = Inside(Place(tmp_path))
    yield made
    made.spool.close()


@dataclass
class Process:
    """`obs receive` as a process of its own, which can be killed and started again."""

    root: Path
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.place = Place(self.root)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """The environment of its commands."""
        return {
            **os.environ,
            "OBS_EVENTS_DIR": str(self.place.events_dir),
            "OBS_DATA_DIR": str(self.root / "data"),
            "OBS_RECEIVE_PORT": str(self.port),
            **self.env,
        }

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [str(Path(sys.executable).parent / "obs"), "receive", *self.options]
        with (self.root / "receiver.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment(), stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"{self.url}/healthz", timeout=5)
                return
            assert self.process.poll() is None, (self.root / "receiver.log").read_text()
            time.sleep(0.05)
        raise AssertionError("the receiver does not answer")

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it as a service manager does."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=30) in (0, -signal.SIGTERM)

    def landed(self) -> list[dict[str, Any]]:
        """The events of all files; whole events only, and no dead letter."""
        return landed(self.place)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """A process that is not started yet."""
    made = Process(tmp_path)
    yield made
    if hasattr(made, "process"):
        made.kill()


def wait_for(is_done: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
