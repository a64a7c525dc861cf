"""Finished files of a receiver: upload into a bucket, and removal after they have landed."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from obs_assets.errors import ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.sources.bucket import client, split_url
from obs_assets.sources.files import EventFile, KnownFile

_RETRY_S = 10.0
"""Seconds until a failed upload is tried again."""

_log = logging.getLogger(__name__)


class Uploader:
    """Uploads finished files and removes them from the spool.

    Args:
        url: ``s3://bucket/prefix`` of the event files.
        folder: folder of the receiver below that prefix, such as ``receiver/main``.
        retry_s: seconds until a failed upload is tried again.
    """

    def __init__(self, url: str, folder: str, retry_s: float = _RETRY_S) -> None:
        self.url = url
        self._folder = folder
        self._retry_s = retry_s
        self._queue: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._thread.start()

    def add(self, path: Path) -> None:
        """Upload a finished file soon."""
        self._queue.put(path)

    def move(self, url: str) -> None:
        """Upload all files that wait, and all later files, to another ``s3://bucket/prefix``."""
        before, self.url = self.url, url
        _log.warning(
            "files are uploaded to %s, the new events folder. The files in %s stay: copy those that "
            "the pipeline has not landed",
            url,
            before,
        )

    def close(self) -> None:
        """Upload the files that wait, each once more at most; files that fail stay in the spool."""
        self._ends.set()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (path := self._queue.get()) is not None:
            while not self._upload(path):
                if self._ends.wait(self._retry_s):
                    break

    def _upload(self, path: Path) -> bool:
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, prefix = split_url(self.url)
        key = f"{prefix}{self._folder}/{path.name}"
        try:
            client().upload_file(str(path), bucket, key)
        except (BotoCoreError, ClientError, S3UploadFailedError) as error:
            _log.error(
                "cannot upload %s into the bucket %s (%s): it stays in the spool and is tried again",
                path.name,
                bucket,
                type(error).__name__,
            )
            return False
        path.unlink()
        return True


def remove_landed(
    folder: Path,
    files: Iterable[Path],
    pipelines: Iterable[HourlyPipeline],
    now: datetime,
    keep: timedelta,
) -> list[Path]:
    """Remove finished files that every pipeline that reads them has landed long ago.

    Args:
        folder: the events folder.
        files: finished files of the receiver.
        pipelines: all pipelines; those that read another folder do not matter.
        now: the time, UTC.
        keep: time that a file is kept after it has landed.

    Returns:
        the removed files. If a pipeline cannot be asked, none is removed.
    """
    landed_at: dict[str, datetime | None] = {}
    try:
        for hourly in pipelines:
            if _reads(hourly, folder):
                _note(hourly, landed_at)
    except ObsError as error:
        _log.error("finished files are kept: %s", error)
        return []
    removed = []
    for path in files:
        at = landed_at.get(path.relative_to(folder).as_posix())
        if at is not None and at + keep < now:
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _reads(hourly: HourlyPipeline, folder: Path) -> bool:
    events_dir = hourly.source.events_dir
    return (
        isinstance(events_dir, Path) and events_dir.expanduser().resolve() == folder.resolve()
    )


def _note(hourly: HourlyPipeline, landed_at: dict[str, datetime | None]) -> None:
    """Note when the files of a listing landed; None for a file that a pipeline has not landed whole."""
    known = {file.path: file for file in hourly.landed().files.values()}
    for file in hourly.listing().files:
        found = known.get(file.path)
        moment = None
        if found is not None and found.landed_at and _is_whole(found, file):
            moment = datetime.fromisoformat(found.landed_at)
        before = landed_at.get(file.path, moment)
        landed_at[file.path] = None
        if moment is not None and before is not None:
            landed_at[file.path] = max(before, moment)


def _is_whole(found: KnownFile, file: EventFile) -> bool:
    return found.is_unchanged(file) and not found.has_rest


@contextlib.contextmanager
def every(interval_s: float, act: Callable[[], object]) -> Iterator[None]:
    """Within the block, call a function at an interval, in a thread; its errors are logged."""
    ends = threading.Event()

    def run() -> None:
        while not ends.wait(interval_s):
            try:
                act()
            except Exception:  # noqa: BLE001 - the next call may succeed
                _log.exception("upkeep failed")

    thread = threading.Thread(target=run, name="upkeep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
