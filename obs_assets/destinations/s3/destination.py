"""The archive as a destination: takes hours, holds hours, gives them back."""

import contextlib
import functools
import hashlib
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from obs_assets.crash import crash_point
from obs_assets.destinations.base import Delivery, Holding, Offer, StoredPart
from obs_assets.destinations.s3.bucket import Bucket, ColdError, LostRaceError
from obs_assets.destinations.s3.config import LOCAL, S3Config, server_of
from obs_assets.destinations.s3.encode import Packed, archived_event, pack, rows_of
from obs_assets.destinations.s3.folder import Folder
from obs_assets.destinations.s3.manifest import Manifest, StoredObject
from obs_assets.destinations.s3.prices import PRICES_OF, USD_PER_GIB_MONTH, usd_per_month
from obs_assets.errors import (
    ColdArchiveError,
    ConfigurationError,
    HourBusyError,
    PermanentError,
    StaleHourError,
    TransientError,
)
from obs_assets.events import Frame
from obs_assets.hours import Hour, parse_hour
from obs_assets.settings import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


MANIFEST_READERS = 8


class S3Destination:
    """Holds hours in a bucket or in a local directory.

    Args:
        config: under which keys, and how they are stored.
        settings: the bucket; may be None where the configuration names a directory.
        client: a boto3 client to use instead of one of our own.
    """

    def __init__(
        self,
        config: S3Config,
        settings: S3Settings | None = None,
        client: "S3Client | None" = None,
    ) -> None:
        self.config = config
        server = server_of(config, settings or S3Settings(bucket=config.bucket or ""))
        self.place: Bucket | Folder = (
            Folder(server.bucket)
            if server.bucket.startswith(LOCAL)
            else Bucket(config, server, client)
        )
        self._read_manifests: dict[str, tuple[str, Manifest | None]] = {}

    def deliver(self, offer: Offer) -> Delivery:
        """Upload what differs, then publish the manifest; see `base.Destination.deliver`."""
        with self.place.session(), self.place.alone(self.config.manifest_key(offer.hour)):
            try:
                return self._deliver(offer)
            except LostRaceError:
                held, _ = self._manifest(offer.hour)
                _refuse_stale(held, offer)
                if held and held.holding == _holding(offer):
                    return Delivery(written=0, already_there=offer.rows)
                raise HourBusyError(
                    f"another run is writing {offer.hour} to {self.place.url}: let it finish, then try again"
                ) from None

    def holding(self, hour: Hour, *, count: bool = False) -> Holding | None:
        """What the hour's manifest says; counted are the rows of those of its objects that are there, unchanged."""
        with self.place.session():
            held, _ = self._manifest(hour)
            if held is None or not count:
                return held.holding if held else None
            tags = self._tags(hour)
            there = sum(
                stored.rows for stored in held.objects if tags.get(stored.key) == stored.etag
            )
            return replace(held.holding, counted=there)

    def holdings(self) -> dict[Hour, Holding]:
        """What the manifests say of the hours whose objects are all there, each the version that the manifest names.

        One listing, a thousand keys a request; of manifests, those are read that were not read before.
        """
        with self.place.session():
            there = self.place.tags(f"{self.config.prefix}/")
            manifests = {
                key: tag
                for key, tag in there.items()
                if key.startswith(f"{self.config.prefix}/_manifests/")
            }
            unread = [
                key
                for key, tag in manifests.items()
                if self._read_manifests.get(key, ("",))[0] != tag
            ]
            with ThreadPoolExecutor(MANIFEST_READERS) as readers:
                for key, (tag, manifest) in zip(
                    unread, readers.map(self._read_manifest, unread), strict=True
                ):
                    self._read_manifests[key] = (tag, manifest)
        known = [self._read_manifests[key][1] for key in manifests]
        return {
            parse_hour(manifest.hour): manifest.holding
            for manifest in known
            if manifest
            and all(there.get(stored.key) == stored.etag for stored in manifest.objects)
        }

    def _read_manifest(self, key: str) -> tuple[str, Manifest | None]:
        found = self.place.read(key)
        try:
            return (found[1], Manifest.from_json(found[0])) if found else ("", None)
        except (ValueError, KeyError, TypeError):
            return "", None  # no manifest of ours: the hour is not held

    def selected(self, frame: Frame) -> Frame:
        """All rows; in lines of JSON, an event's own ``_obs`` has another name."""
        if self.config.format == "parquet":
            return frame  # its columns stand beside the event
        return frame.project(f"* REPLACE ({archived_event('event')} AS event)")

    def read_back(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> Frame:
        """``row_uid`` and ``event`` of every row of the hour, as a temporary table of ``connection``.

        Of the objects that the manifest names and of any other that bears the hour's name: whoever reads the archive
        without manifests, reads those too.

        Raises:
            ColdArchiveError: they lie in a class that must be restored before reading; sizes and checksums agree.
            PermanentError: they lie there, and do not agree.
        """
        name = f"read_back_s3_{hashlib.sha256(self.config.base_key(hour).encode()).hexdigest()[:16]}"
        connection.execute(
            f'CREATE OR REPLACE TEMP TABLE "{name}" (row_uid VARCHAR, event VARCHAR)'
        )
        with (
            self.place.session(),
            tempfile.TemporaryDirectory(dir=_temp_dir(connection)) as folder,
        ):
            held, _ = self._manifest(hour)
            keys = {stored.key for stored in held.objects} if held else set()
            for number, key in enumerate(sorted(keys | self._tags(hour).keys())):
                path = Path(folder, f"{number:04}-{key.rpartition('/')[2]}")
                if self._download(key, path, held):
                    rows_of(connection, path).project("row_uid, event").insert_into(name)
                path.unlink(missing_ok=True)
        return connection.table(name)

    @contextlib.contextmanager
    def archived(self, hour: Hour, folder: Path) -> Iterator[Iterator[StoredPart]]:
        """The objects of a committed hour, fetched one at a time, each gone when the next is asked for.

        Raises:
            PermanentError: the archive does not hold the hour, or not as its manifest says.
        """
        with self.place.session(), tempfile.TemporaryDirectory(dir=folder) as aside:
            held, _ = self._manifest(hour)
            if held is None:
                raise PermanentError(
                    f"{self.place.url} holds no hour {hour}: no {self.config.manifest_key(hour)}"
                )
            yield self._fetch(held, Path(aside))

    def _fetch(self, held: Manifest, folder: Path) -> Iterator[StoredPart]:
        for stored in held.objects:
            path = folder / stored.key.rpartition("/")[2]
            there = self._download(stored.key, path, held)
            if not there or _sha256(path) != stored.sha256:
                raise PermanentError(
                    f"{self.place.url}/{stored.key} is {'not what its manifest says' if there else 'missing'}: "
                    f"nothing of {held.hour} was taken from it"
                )
            read = functools.partial(rows_of, path=path)
            yield StoredPart(f"{self.place.url}/{stored.key}", read)
            path.unlink()

    def _download(self, key: str, path: Path, held: Manifest | None) -> bool:
        try:
            return self.place.download(key, path)
        except ColdError:
            objects = held.objects if held else ()
            wrong = [stored.key for stored in objects if not self.place.is_intact(stored)]
            if held is None or wrong:
                raise PermanentError(
                    f"{self.place.url}/{key} is in a class that must be restored before reading, and "
                    f"{len(wrong)} of {len(objects)} objects are not what the manifest says by size and checksum"
                ) from None
            raise ColdArchiveError(
                f"{held.rows:,} rows by size and checksum of {len(objects)} objects, unread: they are in a class that "
                "must be restored before reading (aws s3api restore-object)",
                held.rows,
            ) from None

    def check(self) -> str:
        """One line that says which bucket was reached."""
        try:
            with self.place.session():
                return self.place.check()
        except (TransientError, PermanentError) as error:
            raise ConfigurationError(str(error)) from None

    # -- an hour -------------------------------------------------------------------------------------------------------

    def _deliver(self, offer: Offer) -> Delivery:
        began = time.monotonic()
        held, manifest_tag = self._manifest(offer.hour)
        _refuse_stale(held, offer)
        tags = self._tags(offer.hour)
        objects = held.objects if held else ()
        intact = {
            stored.key: stored for stored in objects if tags.get(stored.key) == stored.etag
        }
        if (
            held
            and held.holding == _holding(offer)
            and len(intact) == len(objects)
            and not offer.rebuild
        ):
            self._remove(
                tags.keys() - intact.keys()
            )  # left by a run that was killed after its manifest
            return Delivery(written=0, already_there=offer.rows)

        self.place.clean_up(self.config.base_key(offer.hour))
        built = self._build(offer, tags, intact)
        manifest = Manifest(
            offer.hour.key, offer.version, offer.rows, offer.content_hash, tuple(built)
        )
        if sum(stored.rows for stored in built) != offer.rows:
            raise PermanentError(
                f"{offer.rows:,} rows of {offer.hour} were offered to S3, the frame has others"
            )
        if manifest != held:
            self.place.put(
                self.config.manifest_key(offer.hour), manifest.to_json().encode(), manifest_tag
            )
        crash_point("s3.after_manifest")
        self._remove(
            (tags.keys() | {stored.key for stored in objects})
            - {stored.key for stored in built}
        )
        uploaded = [stored for stored in built if stored not in intact.values()]
        return _delivery(self.config, manifest, uploaded, time.monotonic() - began)

    def _build(
        self, offer: Offer, tags: Mapping[str, str], intact: Mapping[str, StoredObject]
    ) -> list[StoredObject]:
        """Pack the hour into objects and store them: while one is on its way, the next is packed."""
        built: list[Future[StoredObject]] = []
        with (
            contextlib.closing(
                pack(self.selected(offer.frame), offer.hour, self.config)
            ) as objects,
            ThreadPoolExecutor(1, "upload") as uploader,
        ):
            for number, packed in enumerate(objects):
                try:
                    for last in built[-1:]:
                        last.result()
                except BaseException:
                    packed.file.close()
                    raise
                key = self.config.object_key(offer.hour, number)
                built.append(uploader.submit(self._store, key, packed, tags, intact))
            return [stored.result() for stored in built]

    def _store(
        self,
        key: str,
        packed: Packed,
        tags: Mapping[str, str],
        intact: Mapping[str, StoredObject],
    ) -> StoredObject:
        """Upload one object, unless the bucket has these bytes already; its file is closed."""
        with packed.file:
            if key in intact and intact[key].sha256 == packed.sha256:
                return intact[key]
            crash_point("s3.before_object")
            etag, version_id = self.place.upload(key, packed, tags.get(key))
            crash_point("s3.after_object")
        return StoredObject(
            key,
            packed.rows,
            packed.size_bytes,
            packed.uncompressed_bytes,
            packed.sha256,
            etag,
            version_id,
        )

    def _manifest(self, hour: Hour) -> tuple[Manifest | None, str | None]:
        """The hour's manifest and its tag."""
        found = self.place.read(self.config.manifest_key(hour))
        if found is None:
            return None, None
        try:
            return Manifest.from_json(found[0]), found[1]
        except (ValueError, KeyError, TypeError):
            raise PermanentError(
                f"{self.place.url}/{self.config.manifest_key(hour)} is no manifest: remove it, then build {hour} again"
            ) from None

    def _tags(self, hour: Hour) -> dict[str, str]:
        """The keys of all objects that bear the hour's name, and their tags."""
        base = self.config.base_key(hour)
        ours = re.compile(re.escape(base) + r"(-\d{4,})?\.(jsonl(\.gz)?|parquet)")
        return {key: tag for key, tag in self.place.tags(base).items() if ours.fullmatch(key)}

    def _remove(self, keys: Iterable[str]) -> None:
        for key in sorted(keys):
            self.place.remove(key)


def _holding(offer: Offer) -> Holding:
    return Holding(offer.version, offer.rows, offer.content_hash)


def _refuse_stale(held: Manifest | None, offer: Offer) -> None:
    if held and held.version.generation > offer.version.generation:
        raise StaleHourError(
            f"the archive holds generation {held.version.generation} of {offer.hour}, newer than the offered "
            f"{offer.version.generation}: materialize the stages before it again"
        )


def _delivery(
    config: S3Config, manifest: Manifest, uploaded: list[StoredObject], seconds: float
) -> Delivery:
    """What was done, and what keeping the hour costs."""
    written, size = (
        sum(stored.rows for stored in uploaded),
        sum(stored.bytes for stored in uploaded),
    )
    sizes = [stored.bytes for stored in manifest.objects]
    text_bytes = sum(stored.uncompressed_bytes for stored in manifest.objects)
    stats: dict[str, Any] = {
        "total_events_uploaded": written,
        "total_batches_uploaded": len(uploaded),
        "total_bytes_uploaded": size,
        "compression_ratio": round(text_bytes / sum(sizes), 2) if any(sizes) else 1.0,
        "average_events_per_batch": round(written / len(uploaded)) if uploaded else 0,
        "average_bytes_per_batch": round(size / len(uploaded)) if uploaded else 0,
        "average_bytes_per_event": round(sum(sizes) / manifest.rows, 1)
        if manifest.rows
        else 0.0,
        "storage_class": config.storage_class,
        "seconds": round(seconds, 3),
        "rows_per_s": round(manifest.rows / seconds),
        **{
            f"USD per month in {name}": round(usd_per_month(sizes, name), 8)
            for name in USD_PER_GIB_MONTH
        },
        "prices": PRICES_OF,
    }
    return Delivery(
        written=written, already_there=manifest.rows - written, size_bytes=size, stats=stats
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temp_dir(connection: duckdb.DuckDBPyConnection) -> str | None:
    """Where the connection spills, if it has such a place: events are put nowhere else."""
    folder = str(connection.sql("SELECT current_setting('temp_directory')").fetchall()[0][0])
    return folder if Path(folder).is_dir() else None
