"""The landing log: passes, each put in place in a single step, and the state that is their sum.

::

    landed/
    ├── passes/00000012/          one landing pass, put in place by one rename
    │   ├── pass.json             files with their byte ranges, hours with their rows, the collector
    │   ├── 2025120410-0.parquet  a chunk: lines of one hour
    │   └── dead_letters.parquet  if there are any
    ├── folded-00001000.json      the first thousand pass.json as one
    ├── checkpoint.json           the sum of the passes; rebuilt from them when it is lost or old
    ├── looked.json               the listing of the last pass, also of a pass that found nothing
    └── tmp/                      where DuckDB spills

The passes, including the folded passes, are the source of truth. A crash leaves a folder that was not renamed; the next
pass removes it.
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
"""Version of the format of the checkpoint. A checkpoint of another version is rebuilt from the passes."""

FOLD_AT = 1000
"""Number of passes that are folded into a single record. Landing each minute makes half a million passes a year."""


@dataclass(frozen=True)
class LandedHour:
    """Landed data of an hour.

    Attributes:
        generation: number of the last pass that landed bytes of the hour. It only grows.
        rows: number of events.
        chunks: paths below ``landed/passes``.
        since: begin of the first pass that landed bytes of the hour: ISO 8601, UTC.
        expired: retention has removed the chunks.
    """

    generation: int = 0
    rows: int = 0
    chunks: tuple[str, ...] = ()
    since: str = ""
    expired: bool = False


@dataclass(frozen=True)
class FileReceipt:
    """Byte counts of a file in a pass.

    ``end - start`` is the sum of the bytes of events, dead letters, separators, copies and envelopes.

    Attributes:
        file: state of the file after the pass.
        start, end: the range of the pass, in bytes of the decompressed file.
        events, event_bytes: events, and their bytes.
        dead_letters, dead_bytes: dead letters, and their bytes.
        separator_bytes: bytes of separators.
        copied_bytes: bytes of a copy; its original is landed in this pass or was landed before.
        envelope_bytes: bytes of envelopes outside their records.
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
        """Sum of this receipt and a later receipt of the same file."""
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
    """Record of a pass: the content of ``pass.json``.

    Attributes:
        number: number of the pass, from 1.
        began_at, finished_at: ISO 8601, UTC.
        collector: host and process that landed the pass.
        files: receipt of each file that was read.
        hours: partition key → rows landed, and chunks.
        dead_letters: reason → number of dead letters.
        remarks: remark → number of events that landed with a changed text or an assumption.
        expired: hours whose chunks are no longer kept.
        forgotten: ids of files that are no longer needed.
        letters: all open dead letters, if the pass counted them again: reason → number, and first time seen.
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
    """State after the last finished pass, whether it found anything new or not.

    Attributes:
        began_at: all bytes that the files held at this moment have landed; None before everything has landed once.
        listing: digest of the listing.
        waiting: path of a file left for a later pass → ``began_at`` before the file was first left, ISO 8601, empty for
            None. The longest waiting file comes first, and is read first.
        folder: identity of the log's folder, see `LandingLog.folder`; empty in logs of earlier versions.
    """

    began_at: datetime | None = None
    listing: str = ""
    waiting: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""

    def after(
        self, began_at: datetime, listing: str, left: Iterable[str], begun: Iterable[str]
    ) -> "Looked":
        """State after the pass that began at ``began_at``.

        While a file is left, or only partly read, ``began_at`` of the state stays at an older time.
        """
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
    """Sum of all passes.

    Attributes:
        last_pass: number of the last pass; 0 before the first pass.
        files: file id → state of the file.
        hours: partition key → landed data of the hour.
    """

    last_pass: int = 0
    log_id: str = ""
    """Identity of the log. Its first pass sets it; in a log of an earlier version, the next pass does."""
    files: dict[str, KnownFile] = field(default_factory=dict)
    hours: dict[str, LandedHour] = field(default_factory=dict)
    letters: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Open dead letters: reason → number, and first time seen."""
    remarks: dict[str, int] = field(default_factory=dict)
    """Remark → number of events that landed with a changed text or an assumption."""

    def add(self, landing: LandingPass) -> None:
        """Add the next pass."""
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
        """Landed data of an hour; generation 0 if no data has landed."""
        return self.hours.get(hour.key, LandedHour())

    def version(self, hour: Hour) -> InputVersion:
        """Version of the landed data of an hour, as input of the first stage."""
        return InputVersion(self.hour(hour).generation, "", "", self.log_id)


class LandingLog:
    """The passes in a folder."""

    def __init__(self, landed_dir: Path, *, fold_at: int = FOLD_AT) -> None:
        """Open a log; nothing is read yet.

        Args:
            landed_dir: the folder; it may be missing.
            fold_at: number of passes that `fold` combines in a record.
        """
        self.fold_at = fold_at
        self.root = landed_dir
        self.passes_dir = landed_dir / "passes"
        self.temp_dir = landed_dir / "tmp"
        self._checkpoint: tuple[tuple[int, int, int], Landed] | None = None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of the log, so that only one process lands. The system releases it when the process ends.

        Raises:
            HourBusyError: another pass is running.
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
        """Remove temporary files of killed passes. They may hold events, and no other code removes them."""
        for left in [*self.root.glob(".*.tmp"), *self.temp_dir.glob("*")]:
            left.unlink()

    def load(self) -> Landed:
        """The current state: the checkpoint plus all later passes."""
        landed = self._read_checkpoint()
        if landed.last_pass < self._folded_until():
            landed = Landed()
            landed.add(read_pass(self._folded_path(self._folded_until())))
        while (path := self.pass_dir(landed.last_pass + 1) / "pass.json").exists():
            landed.add(read_pass(path))
        return landed

    def passes(self) -> Iterator[LandingPass]:
        """All passes in order; the folded passes are a single pass."""
        folded = self._folded_until()
        if folded:
            yield read_pass(self._folded_path(folded))
        for number in itertools.count(folded + 1):
            path = self.pass_dir(number) / "pass.json"
            if not path.exists():
                return
            yield read_pass(path)

    def fold(self, landed: Landed) -> None:
        """Combine the passes in a single record, if there are many. The caller holds the lock.

        The passes stay unchanged until the record is complete.

        Args:
            landed: sum of all passes.
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
        """Remove folded passes without chunks, and records that a newer record includes. The caller holds the lock.

        The other passes keep their ``pass.json``, which names the files that were read for the chunks.
        """
        until = self._folded_until()
        for path in self.root.glob("folded-*.json"):
            if path != self._folded_path(until):
                path.unlink()
        for folder in self.passes_dir.glob("[0-9]*"):
            if int(folder.name) <= until and not any(folder.glob("[0-9]*.parquet")):
                (folder / "pass.json").unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # the folder still holds dead letters
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
        """Create the folder of a new pass. Files of an earlier, killed attempt are removed."""
        make_private_dir(self.passes_dir)
        for left in self.passes_dir.glob(".*.tmp"):
            shutil.rmtree(left)
        return make_private_dir(self.passes_dir / f".{number:08d}.tmp")

    def publish(self, prepared: Path, landing: LandingPass, landed: Landed) -> None:
        """Put a prepared pass in place in a single step, then update the checkpoint.

        If the process is killed after the first step, nothing is lost: `load` reads the pass again. The record gets the
        identity of the log; if the log has none, it is created here.

        Args:
            prepared: the folder that `begin` created.
            landing: the record of the pass.
            landed: sum of all earlier passes; this pass is added.

        Raises:
            ObsError: the file system reported an error.
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
        """Save the state, so that the next pass does not have to read all passes again."""
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
        """Save the state after a finished pass."""
        moment = looked.began_at.isoformat() if looked.began_at else None
        state = {
            "began_at": moment,
            "listing": looked.listing,
            "waiting": looked.waiting,
            "folder": self.folder(),
        }
        with replacing(self.root / "looked.json", crash="receipt") as aside:
            aside.write_text(json.dumps(state))

    def folder(self) -> str:
        """Identity of the log's folder: a copy has another, although the identity of its log is the same."""
        return str(self.root.stat().st_ino)

    def looked(self) -> Looked:
        """State after the last finished pass."""
        try:
            state = json.loads((self.root / "looked.json").read_text())
        except FileNotFoundError:
            return Looked()
        moment = state["began_at"]
        began_at = datetime.fromisoformat(moment) if moment else None
        listing, waiting = state.get("listing", ""), state.get("waiting", {})
        return Looked(began_at, listing, waiting, state.get("folder", ""))

    def looked_at(self) -> datetime | None:
        """Time of the last complete landing: all bytes that the files held then have landed.

        Hours that end before this time minus the allowed lateness are closed.
        """
        return self.looked().began_at

    def chunk_paths(self, landed: LandedHour) -> list[Path]:
        """Paths of the chunks of an hour."""
        return [self.passes_dir / chunk for chunk in landed.chunks]

    def read_with(self, landed: LandedHour) -> tuple[int, int]:
        """Open dead letters and events of all passes that landed data of an hour. Events of other hours are included.

        Folded passes have no counts of their own, so they are left out.
        """
        records = (
            self.passes_dir / chunk.partition("/")[0] / "pass.json" for chunk in landed.chunks
        )
        sums = [_counts(record) for record in sorted(set(records)) if record.exists()]
        return sum(dead for dead, _ in sums), sum(events for _, events in sums)

    def last_counts(self) -> tuple[int, int]:
        """Dead letters and events of the last pass that read a file; 0 and 0 if there is none, or if it was folded."""
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
        """The checkpoint. Each version of the file is parsed only once, because a range of hours asks for each hour.

        Returns a copy, since passes are added to it. An old checkpoint is harmless: the later passes are read too.
        """
        try:
            with (self.root / "checkpoint.json").open() as file:
                status = os.fstat(file.fileno())
                identity = (status.st_ino, status.st_mtime_ns, status.st_size)
                kept = self._checkpoint
                if kept is None or kept[0] != identity:
                    kept = self._checkpoint = (identity, _landed(json.load(file)))
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return Landed()  # the checkpoint is only a cache: the passes hold the same data
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
    """Dead letters and events of a pass. Cached: passes never change, and the hours of a range share many passes."""
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
    """Combine two passes, except for the hours: `Landed` adds those."""
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
