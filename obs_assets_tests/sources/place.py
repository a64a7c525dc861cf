"""A folder of event files, what has landed from it, and an auditor."""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from obs_assets.crash import interrupted
from obs_assets.hours import parse_hour
from obs_assets.sources.files import SourceConfig
from obs_assets.sources.landing import BatchSizes, LandingReport, land
from obs_assets.sources.log import FOLD_AT, FileReceipt, LandingLog
from obs_assets.sources.replay import open_rows

START = parse_hour("2031-01-01-00:00")
NEVER = 5_256_000
"""Minutes after which an unfinished end is given up: the clock of these tests is not that of the files."""

NOW = datetime(2031, 5, 6, 12, 0, tzinfo=UTC)

_numbers = itertools.count()


def event(moment: datetime = NOW, **fields: Any) -> str:
    """An event that no other is equal to; the time of every other one is seen without parsing it."""
    number = next(_numbers)
    written = moment.isoformat()
    time = (
        {"timestamp": written.replace("+00:00", "Z")} if number % 2 else {"time": written}
    )  # equally long
    return json.dumps({**time, "n": number, **fields})


def events(count: int, moment: datetime = NOW) -> list[str]:
    """Several of them."""
    return [event(moment) for _ in range(count)]


def text(lines: list[str]) -> bytes:
    """Lines as a file holds them."""
    return "".join(f"{line}\n" for line in lines).encode()


@contextmanager
def once_at(point: str, act: Callable[[], object]) -> Iterator[None]:
    """Within the block, let something happen at a crash point, the first time that a pass comes by."""
    pending = [act]
    with interrupted(point, lambda: pending and pending.pop()()):
        yield


def after_listing(act: Callable[[], object]) -> AbstractContextManager[None]:
    """Let something happen between the listing and the reading of the next pass."""
    return once_at("landing.after_listing", act)


@dataclass
class Place:
    """A folder of event files and its landing log, below one root."""

    root: Path
    now: datetime = NOW
    sizes: BatchSizes = field(default_factory=BatchSizes)
    fold_at: int = FOLD_AT
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.events_dir.mkdir(parents=True, exist_ok=True)

    @property
    def events_dir(self) -> Path:
        return self.root / "events"

    @property
    def log(self) -> LandingLog:
        return LandingLog(self.root / "landed", fold_at=self.fold_at)

    def path(self, name: str) -> Path:
        """A file in the folder."""
        return self.events_dir / name

    def write(self, name: str, lines: list[str]) -> list[str]:
        """Create or overwrite a file; returns the lines."""
        self.path(name).write_bytes(text(lines))
        return lines

    def append(self, name: str, lines: list[str]) -> list[str]:
        """Append to a file; returns the lines."""
        with self.path(name).open("ab") as file:
            file.write(text(lines))
        return lines

    def land(self, **options: Any) -> LandingReport:
        """One pass; a minute goes by with each."""
        self.now += timedelta(minutes=1)
        config = SourceConfig(
            **{
                "events_dir": self.events_dir,
                "seal_after_minutes": NEVER,
                **self.options,
                **options,
            }
        )
        return land(config, self.log, first_hour=START, now=self.now, sizes=self.sizes)

    def rows(self) -> list[dict[str, Any]]:
        """All landed rows."""
        hours = self.log.load().hours.values()
        return [
            row
            for hour in hours
            for path in self.log.chunk_paths(hour)
            for row in pq.read_table(path).to_pylist()
        ]

    def lines(self) -> list[str]:
        """The landed events, sorted."""
        return sorted(row["line"] for row in self.rows())

    def dead(self) -> list[tuple[str, bytes]]:
        """Reason and bytes of all dead letters, in the order of their landing."""
        paths = sorted(self.log.passes_dir.glob("[0-9]*/dead_letters.parquet"))
        rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
        return [(row["reason"], row["raw"]) for row in rows]

    def receipts(self) -> dict[str, list[FileReceipt]]:
        """File id → what each pass did with it, the folded ones together."""
        receipts = defaultdict(list)
        for landing_pass in self.log.passes():
            for receipt in landing_pass.files:
                receipts[receipt.file.file_id].append(receipt)
        return receipts

    def audit(self) -> "Place":
        """Recount everything that landing says of itself."""
        rows = self.rows()
        landed = self.log.load()
        starts = Counter(row["event_time"].strftime("%Y-%m-%d-%H:00") for row in rows)
        assert {key: hour.rows for key, hour in landed.hours.items()} == starts
        assert len({row["row_uid"] for row in rows}) == len(rows)
        assert all(
            row["row_uid"] == f"{row['file_id'][-20:]}{row['file_offset']:012x}" for row in rows
        )
        letters = Counter(
            row["reason"]
            for _, row in open_rows(self.log, ["file_id", "file_offset", "reason"])
        )
        assert {reason: count for reason, (count, _) in landed.letters.items()} == letters
        of_file = Counter(row["file_id"] for row in rows)
        for file_id, receipts in self.receipts().items():
            assert receipts[0].start == 0
            assert all(
                one.end == following.start for one, following in itertools.pairwise(receipts)
            )
            assert sum(receipt.events for receipt in receipts) == of_file[file_id]
            for one in receipts:
                counted = (
                    one.event_bytes + one.dead_bytes + one.separator_bytes + one.copied_bytes
                )
                counted += one.envelope_bytes
                assert counted == one.end - one.start == one.file.offset - one.start
        return self
