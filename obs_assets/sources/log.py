"""What has landed: passes that appear whole, and the state that they add up to.

::

    landed/
    ├── passes/00000012/          one landing pass, put in place by one rename
    │   ├── pass.json             files with their byte ranges, hours with their rows, the collector
    │   ├── 2025120410-0.parquet  a chunk: lines of one hour
    │   └── dead_letters.parquet  if there are any
    ├── folded-00001000.json      the first thousand pass.json as one
    ├── checkpoint.json           the passes added up; made again from them when it is lost or old
    ├── looked.json               what the last pass saw, also one that found nothing
    └── tmp/                      where DuckDB spills

The passes are the truth, those that were folded included. A crash leaves a folder that no rename has published, and the
next pass removes it.
"""

import contextlib
import functools
import itertools
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from functools import lru_cache
from pathlib import Path
from typing import Any

from obs_assets.crash import crash_point
from obs_assets.errors import HourBusyError
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import InputVersion
from obs_assets.sources.files import KnownFile, known_from_json
from obs_assets.storage.disk import explained, make_private_dir, replacing, sync_file

_CHECKPOINT_FORM = 5

FOLD_AT = 1000
"""So many passes are folded into one record: landing once a minute, a year has half a million of them."""


@dataclass(frozen=True)
class LandedHour:
    """What has landed for an hour.

    Attributes:
        generation: the number of the last pass that brought it bytes: grows, never falls.
        rows: events.
        chunks: paths below ``landed/passes``.
        since: when the first pass began that brought it bytes: ISO 8601, UTC.
        expired: the chunks were removed since it was kept long enough.
    """

    generation: int = 0
    rows: int = 0
    chunks: tuple[str, ...] = ()
    since: str = ""
    expired: bool = False


@dataclass(frozen=True)
class FileReceipt:
    """What one pass did with a file: ``end - start`` is the sum of its bytes of events, dead letters, separators,
    copies and envelopes.

    copied_bytes: of a copy, whose original is landed or landed before. envelope_bytes: of envelopes, outside of their
    records.
    """

    file: KnownFile
    start: int
    end: int
    events: int
    event_bytes: int
    dead_letters: int
    dead_bytes: int
    separator_bytes: int
    copied_bytes: int = 0
    envelope_bytes: int = 0

    def __add__(self, later: "FileReceipt") -> "FileReceipt":
        """What this pass and a later one did."""
        return FileReceipt(
            later.file,
            self.start,
            later.end,
            self.events + later.events,
            self.event_bytes + later.event_bytes,
            self.dead_letters + later.dead_letters,
            self.dead_bytes + later.dead_bytes,
            self.separator_bytes + later.separator_bytes,
            self.copied_bytes + later.copied_bytes,
            self.envelope_bytes + later.envelope_bytes,
        )


@dataclass(frozen=True)
class LandingPass:
    """What one pass brought: the content of ``pass.json``.

    Attributes:
        number: passes are counted from 1.
        began_at, finished_at: ISO 8601, UTC.
        collector: host and process that landed it.
        files: what became of each file that was read.
        hours: partition key → rows landed, and chunks.
        dead_letters: reason → count.
        remarks: events landed with something changed or assumed: what → count.
        expired: hours whose chunks are no longer kept.
        forgotten: ids of files that nobody needs to know any more.
        letters: all open dead letters, where they were counted anew: reason → how many, since when.
        log_id: identity of the log that the pass was published to; empty in passes of earlier versions.
    """

    number: int
    began_at: str
    finished_at: str
    collector: Mapping[str, Any]
    files: tuple[FileReceipt, ...]
    hours: Mapping[str, LandedHour]
    dead_letters: Mapping[str, int]
    remarks: Mapping[str, int] = field(default_factory=dict)
    expired: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    letters: Mapping[str, tuple[int, str]] | None = None
    log_id: str = ""


@dataclass(frozen=True)
class Looked:
    """What the last finished pass saw, whether it found anything new or not.

    Attributes:
        began_at: all that was in the files at this moment has landed; None before everything has landed once.
        listing: digest of the listing.
        waiting: path → ``began_at`` before the file was first left for a later pass, ISO 8601, empty for None. In the
            order in which they are served: what was left first, comes first.
    """

    began_at: datetime | None = None
    listing: str = ""
    waiting: Mapping[str, str] = field(default_factory=dict)

    def after(
        self, began_at: datetime, listing: str, left: Iterable[str], begun: Iterable[str]
    ) -> "Looked":
        """What the pass that began at ``began_at`` adds; files that it left, or only begun, hold the moment back."""
        before = self.began_at.isoformat() if self.began_at else ""
        unserved = set(left)
        queue = [
            *(path for path in self.waiting if path in unserved),
            *sorted(unserved - set(self.waiting)),
            *begun,
        ]
        waiting = {path: self.waiting.get(path, before) for path in queue}
        since = min([began_at.isoformat(), *waiting.values()])
        return Looked(datetime.fromisoformat(since) if since else None, listing, waiting)


@dataclass
class Landed:
    """All passes added up."""

    last_pass: int = 0
    log_id: str = ""
    """Identity of the log: made at its first pass, or at the next one of a log of an earlier version."""
    files: dict[str, KnownFile] = field(default_factory=dict)
    hours: dict[str, LandedHour] = field(default_factory=dict)
    letters: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Open dead letters: reason → how many, since when."""
    remarks: dict[str, int] = field(default_factory=dict)
    """Events landed with something changed or assumed: remark → how many."""

    def add(self, landing: LandingPass) -> None:
        """Take in the next pass."""
        self.last_pass = landing.number
        self.log_id = landing.log_id or self.log_id
        for receipt in landing.files:
            self.files[receipt.file.file_id] = receipt.file
        for key, new in landing.hours.items():
            old = self.hours.get(key)
            if old is None or old.expired:  # restored from the archive
                self.hours[key] = replace(new, since=new.since or landing.began_at)
            else:
                self.hours[key] = LandedHour(
                    new.generation, old.rows + new.rows, old.chunks + new.chunks, old.since
                )
        for key in landing.expired:
            self.hours[key] = replace(self.hours[key], chunks=(), expired=True)
        for file_id in landing.forgotten:
            del self.files[file_id]
        self.remarks = dict(Counter(self.remarks) + Counter(landing.remarks))
        self._add_letters(landing)

    def _add_letters(self, landing: LandingPass) -> None:
        if landing.letters is not None:
            self.letters = dict(landing.letters)
            return
        for reason, count in landing.dead_letters.items():
            before, since = self.letters.get(reason, (0, landing.began_at))
            self.letters[reason] = before + count, since
        self.letters = {reason: found for reason, found in self.letters.items() if found[0] > 0}

    def hour(self, hour: Hour) -> LandedHour:
        """What has landed for an hour; generation 0 when nothing has."""
        return self.hours.get(hour.key, LandedHour())

    def version(self, hour: Hour) -> InputVersion:
        """What has landed for an hour, as the first stage is built from it."""
        return InputVersion(self.hour(hour).generation, "", "", self.log_id)


class LandingLog:
    """The passes below a folder."""

    def __init__(self, landed_dir: Path, *, fold_at: int = FOLD_AT) -> None:
        """Nothing is read yet.

        Args:
            landed_dir: the folder, which need not exist.
            fold_at: number of passes that `fold` makes one record of.
        """
        self.fold_at = fold_at
        self.root = landed_dir
        self.passes_dir = landed_dir / "passes"
        self.temp_dir = landed_dir / "tmp"
        self._checkpoint: tuple[tuple[int, int, int], Landed] | None = None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to land, for one process at a time; the system frees it when the process ends.

        Raises:
            HourBusyError: another pass is under way.
        """
        make_private_dir(self.root)
        with (self.root / "lock").open("w") as handle:
            try:
                flock(handle, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                raise HourBusyError(
                    "another landing pass is under way; it lands what this one would have"
                ) from None
            self._remove_debris()
            yield

    def is_held(self) -> bool:
        """Whether a process is landing at this moment."""
        try:
            with (self.root / "lock").open("r+") as handle:
                flock(handle, LOCK_SH | LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _remove_debris(self) -> None:
        """Remove what killed passes left: it may hold events, and nobody else will."""
        for left in [*self.root.glob(".*.tmp"), *self.temp_dir.glob("*")]:
            left.unlink()

    def load(self) -> Landed:
        """The state: the checkpoint and whatever passes came after it."""
        landed = self._read_checkpoint()
        if landed.last_pass < self._folded_until():
            landed = Landed()
            landed.add(read_pass(self._folded_path(self._folded_until())))
        while (path := self.pass_dir(landed.last_pass + 1) / "pass.json").exists():
            landed.add(read_pass(path))
        return landed

    def passes(self) -> Iterator[LandingPass]:
        """All of them in order, the folded ones as one."""
        folded = self._folded_until()
        if folded:
            yield read_pass(self._folded_path(folded))
        for number in itertools.count(folded + 1):
            path = self.pass_dir(number) / "pass.json"
            if not path.exists():
                return
            yield read_pass(path)

    def fold(self, landed: Landed) -> None:
        """Make one record of the passes when there are many, holding the lock; they stay as they are until it is whole.

        Args:
            landed: all passes added up.
        """
        before = self._folded_until()
        if landed.last_pass - before < self.fold_at:
            return
        folded = functools.reduce(_folded, self.passes())
        known = tuple(
            receipt for receipt in folded.files if receipt.file.file_id in landed.files
        )
        folded = replace(folded, files=known, hours=landed.hours, letters=landed.letters)
        with replacing(self._folded_path(landed.last_pass), crash="receipt") as aside:
            aside.write_text(json.dumps(asdict(folded), sort_keys=True))
        crash_point("fold.after_record")
        self.remove_folded()

    def remove_folded(self) -> None:
        """Remove what a newer record has in it, and folded passes of which no chunk is kept; holding the lock.

        The others keep their ``pass.json``, which tells what was read together with the chunks.
        """
        until = self._folded_until()
        for path in self.root.glob("folded-*.json"):
            if path != self._folded_path(until):
                path.unlink()
        for folder in self.passes_dir.glob("[0-9]*"):
            if int(folder.name) <= until and not any(folder.glob("[0-9]*.parquet")):
                (folder / "pass.json").unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # it still holds dead letters
                    folder.rmdir()

    def _folded_until(self) -> int:
        return max(
            (
                int(path.stem.removeprefix("folded-"))
                for path in self.root.glob("folded-*.json")
            ),
            default=0,
        )

    def _folded_path(self, number: int) -> Path:
        return self.root / f"folded-{number:08d}.json"

    def begin(self, number: int) -> Path:
        """A folder to prepare a pass in; whatever an earlier, killed attempt left is removed."""
        make_private_dir(self.passes_dir)
        for left in self.passes_dir.glob(".*.tmp"):
            shutil.rmtree(left)
        return make_private_dir(self.passes_dir / f".{number:08d}.tmp")

    def publish(self, prepared: Path, landing: LandingPass, landed: Landed) -> None:
        """Put a prepared pass in place in one step, then bring the kept state up to it.

        A process that is killed after the first step loses nothing: `load` reads the pass again. The record gets the
        identity of the log, which is made here if it has none.

        Args:
            prepared: the folder that `begin` made.
            landing: the record of the pass.
            landed: all passes before it; the pass is added.

        Raises:
            ObsError: the file system refused.
        """
        crash_point("landing.before_commit")
        landing = replace(landing, log_id=landed.log_id or str(uuid.uuid4()))
        self._put_in_place(prepared, landing)
        crash_point("landing.after_commit")
        landed.add(landing)
        self.save_checkpoint(landed)
        self.fold(landed)

    def _put_in_place(self, prepared: Path, landing: LandingPass) -> None:
        with replacing(prepared / "pass.json", crash="receipt") as aside:
            aside.write_text(json.dumps(asdict(landing), sort_keys=True))
        with explained(prepared):
            sync_file(prepared)
            prepared.replace(self.pass_dir(landing.number))
            sync_file(self.passes_dir)

    def save_checkpoint(self, landed: Landed) -> None:
        """Spare the next pass from reading all passes again."""
        state = {
            "form": _CHECKPOINT_FORM,
            "last_pass": landed.last_pass,
            "log_id": landed.log_id,
            "files": [asdict(file) for file in landed.files.values()],
            "hours": {key: asdict(hour) for key, hour in landed.hours.items()},
            "letters": landed.letters,
            "remarks": landed.remarks,
        }
        with replacing(self.root / "checkpoint.json", crash="receipt") as aside:
            aside.write_text(json.dumps(state))

    def save_looked(self, looked: Looked) -> None:
        """Remember what a pass saw that has finished."""
        moment = looked.began_at.isoformat() if looked.began_at else None
        state = {"began_at": moment, "listing": looked.listing, "waiting": looked.waiting}
        with replacing(self.root / "looked.json", crash="receipt") as aside:
            aside.write_text(json.dumps(state))

    def looked(self) -> Looked:
        """What the last finished pass saw."""
        try:
            state = json.loads((self.root / "looked.json").read_text())
        except FileNotFoundError:
            return Looked()
        moment = state["began_at"]
        began_at = datetime.fromisoformat(moment) if moment else None
        return Looked(began_at, state.get("listing", ""), state.get("waiting", {}))

    def looked_at(self) -> datetime | None:
        """All that was in the files then has landed; what lies before it minus the allowed lateness is closed."""
        return self.looked().began_at

    def chunk_paths(self, landed: LandedHour) -> list[Path]:
        """The files of an hour's chunks."""
        return [self.passes_dir / chunk for chunk in landed.chunks]

    def read_with(self, landed: LandedHour) -> tuple[int, int]:
        """Dead letters that nobody has replayed, and events, of whatever hour, of the passes that brought an hour.

        Passes that were folded long ago have no figures of their own any more and count for nothing.
        """
        records = (
            self.passes_dir / chunk.partition("/")[0] / "pass.json" for chunk in landed.chunks
        )
        sums = [_counts(record) for record in sorted(set(records)) if record.exists()]
        return sum(dead for dead, _ in sums), sum(events for _, events in sums)

    def last_counts(self) -> tuple[int, int]:
        """Dead letters and events of the last pass that read a file; 0 and 0 if none did, or it was folded."""
        for number in range(self.load().last_pass, 0, -1):
            path = self.pass_dir(number) / "pass.json"
            if not path.exists():
                break
            if read_pass(path).files:
                return _counts(path)
        return 0, 0

    def pass_dir(self, number: int) -> Path:
        """The folder of a pass."""
        return self.passes_dir / f"{number:08d}"

    def _read_checkpoint(self) -> Landed:
        """The checkpoint, parsed once for each file that it has been: a range of hours asks for every one of them.

        A copy, since passes are added to it. One that is kept too long would do no harm: the passes after it are read.
        """
        try:
            with (self.root / "checkpoint.json").open() as file:
                status = os.fstat(file.fileno())
                identity = (status.st_ino, status.st_mtime_ns, status.st_size)
                kept = self._checkpoint
                if kept is None or kept[0] != identity:
                    kept = self._checkpoint = (identity, _landed(json.load(file)))
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return Landed()  # a cache: the passes hold all of it
        return replace(
            kept[1],
            files=dict(kept[1].files),
            hours=dict(kept[1].hours),
            letters=dict(kept[1].letters),
            remarks=dict(kept[1].remarks),
        )


def _landed(state: dict[str, Any]) -> Landed:
    if state["form"] != _CHECKPOINT_FORM:
        return Landed()
    files = [known_from_json(file) for file in state["files"]]
    return Landed(
        last_pass=state["last_pass"],
        log_id=state.get("log_id", ""),
        files={file.file_id: file for file in files},
        hours={key: _landed_hour(value) for key, value in state["hours"].items()},
        letters=_letters(state["letters"]),
        remarks=state.get("remarks", {}),
    )


@lru_cache(maxsize=4096)
def _counts(path: Path) -> tuple[int, int]:
    """Dead letters and events of a pass; passes never change, and the hours of a range share many."""
    files = read_pass(path).files
    return sum(receipt.dead_letters for receipt in files), sum(
        receipt.events for receipt in files
    )


def read_pass(path: Path) -> LandingPass:
    """Read a ``pass.json``."""
    values = json.loads(path.read_text())
    receipts = [
        FileReceipt(**{**receipt, "file": known_from_json(receipt["file"])})
        for receipt in values["files"]
    ]
    hours = {parse_hour(key).key: _landed_hour(value) for key, value in values["hours"].items()}
    lists: dict[str, Any] = {
        name: tuple(values.get(name, ())) for name in ("expired", "forgotten")
    }
    if values.get("letters") is not None:
        lists["letters"] = _letters(values["letters"])
    return LandingPass(**{**values, **lists, "files": tuple(receipts), "hours": hours})


def _letters(values: dict[str, Any]) -> dict[str, tuple[int, str]]:
    return {reason: (count, since) for reason, (count, since) in values.items()}


def _folded(before: LandingPass, later: LandingPass) -> LandingPass:
    """Two passes as one, but for the hours: `Landed` adds those up."""
    files = {receipt.file.file_id: receipt for receipt in before.files}
    for receipt in later.files:
        known = files.get(receipt.file.file_id)
        files[receipt.file.file_id] = known + receipt if known else receipt
    return replace(
        later,
        began_at=before.began_at,
        files=tuple(files.values()),
        dead_letters=dict(Counter(before.dead_letters) + Counter(later.dead_letters)),
        remarks=dict(Counter(before.remarks) + Counter(later.remarks)),
        expired=(),
        forgotten=(),
    )


def _landed_hour(value: dict[str, Any]) -> LandedHour:
    return replace(LandedHour(**value), chunks=tuple(value["chunks"]))
