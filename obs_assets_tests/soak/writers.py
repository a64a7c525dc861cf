"""A program that writes event files as the worst do: it appends, tears, garbles, rotates, copies, compresses, dies.

Whatever it does, no byte that it has written is lost: the files tell in the end what should be where.
"""

import gzip
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from obs_assets.hours import Hour

NAMES = ("agent.jsonl", "worker.jsonl", "deep/tool.jsonl")
FILLER = "lorem ipsum " * 20
HEAD = "once upon a time " * 80
"""Begins a file: what is shorter than a kilobyte cannot be told from others that begin alike."""

GARBAGE = (
    "what is %s?",
    '{"a": NaN, "garbage": "%s"}',
    '["%s"]',
    "\0\0 %s",
    '{"%s": 1,}',
    '{"time": "never %s"}',
    "%s \xff",
)


@dataclass
class Writer:
    """One life of the program.

    Attributes:
        folder: of the event files.
        hours: that it writes about.
        progress: a file that says which of them it has come to, from 0 to 1.
        life: makes its names differ from those of its other lives.
    """

    folder: Path
    hours: list[Hour]
    progress: Path
    life: int
    rng: random.Random = field(init=False)
    number: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.life)

    def write_for_ever(self) -> None:
        deeds = [self.append] * 12 + [
            self.tear,
            self.garble,
            self.rotate,
            self.copy_and_truncate,
            self.compress,
        ]
        while True:
            path = self.folder / self.rng.choice(NAMES)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.rng.choice(deeds)(path)
            time.sleep(self.rng.uniform(0.0, 0.1))

    def append(self, path: Path) -> None:
        with path.open("ab") as file:
            for _ in range(self.rng.randrange(1, 12)):
                file.write(self.event(is_first=file.tell() == 0) + b"\n")
                file.flush()

    def tear(self, path: Path) -> None:
        """An event in two halves; if it dies between them, the next life writes on behind the first."""
        with path.open("ab") as file:
            whole = self.event(is_first=file.tell() == 0)
            file.write(whole[: len(whole) // 2])
            file.flush()
            time.sleep(self.rng.uniform(0.1, 1.0))
            file.write(whole[len(whole) // 2 :] + b"\n")

    def garble(self, path: Path) -> None:
        if path.exists() and path.stat().st_size:
            with path.open("ab") as file:
                file.write(
                    (self.rng.choice(GARBAGE) % self.name("garbage")).encode("latin-1") + b"\n"
                )

    def rotate(self, path: Path) -> None:
        if path.exists():
            path.rename(self.rotated(path))

    def copy_and_truncate(self, path: Path) -> None:
        if path.exists():
            shutil.copy(path, self.rotated(path))
            os.truncate(path, 0)

    def compress(self, path: Path) -> None:
        """The oldest rotated file, as logrotate does it: the original goes when its copy is there."""
        rotated = sorted(
            path.parent.glob(f"{path.name}.[0-9]*[0-9]"),
            key=lambda found: found.stat().st_mtime,
        )
        for old in rotated[:1]:
            with old.open("rb") as plain, gzip.open(f"{old}.gz", "wb") as packed:
                shutil.copyfileobj(plain, packed)
            old.unlink()

    def rotated(self, path: Path) -> Path:
        self.number += 1
        return path.with_name(f"{path.name}.{self.life}{self.number:06}")

    def name(self, kind: str) -> str:
        self.number += 1
        return f"{kind}-{self.life}-{self.number}"

    def event(self, *, is_first: bool) -> bytes:
        """An event of the hour it has come to, or of one before."""
        reached = min(
            int(float(self.progress.read_text()) * len(self.hours)), len(self.hours) - 1
        )
        hour = self.hours[
            self.rng.randrange(reached + 1) if self.rng.random() < 0.1 else reached
        ]
        moment = hour.start + timedelta(milliseconds=self.rng.randrange(3_600_000))
        fails = self.rng.random() < 0.2
        values = {
            "timestamp": moment.isoformat(),
            "id": self.name("event"),
            "type": "task_failed" if fails else "task_completed",
            "level": "error" if fails else "info",
            "owner": "Jane <jane@example.com>",
            "filler": HEAD if is_first else FILLER,
        }
        return json.dumps(values).encode()


def write_for_ever(folder: Path, hours: list[Hour], progress: Path, life: int) -> None:
    """Run a life of the program."""
    Writer(folder, hours, progress, life).write_for_ever()


@dataclass(frozen=True)
class Written:
    """What the files hold, each thing once, however many copies there are of it.

    Attributes:
        events: id → hour, of the lines that are events.
        failures: the ids of those that say that something failed.
        other: the lines that are none.
    """

    events: dict[str, str]
    failures: set[str]
    other: set[bytes]

    @property
    def hours(self) -> Counter[str]:
        return Counter(self.events.values())


def read_all(folder: Path) -> Written:
    """Read the files line by line, in the plainest way."""
    written = Written({}, set(), set())
    for line in _lines(folder):
        try:
            event = json.loads(line)
            written.events[event["id"]] = (
                f"{event['timestamp'][:10]}-{event['timestamp'][11:13]}:00"
            )
        except (ValueError, TypeError, KeyError):
            written.other.add(line)
        else:
            if event["level"] == "error":
                written.failures.add(event["id"])
    return written


def _lines(folder: Path) -> Iterator[bytes]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            content = (
                gzip.decompress(path.read_bytes())
                if path.suffix == ".gz"
                else path.read_bytes()
            )
        except EOFError:
            continue  # it died while it compressed a file that is there, too
        yield from (line for line in content.split(b"\n") if line.strip())
