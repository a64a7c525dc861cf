"""The archive as a destination: hours are delivered, found by their manifests, and read back."""

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
from obs_assets.destinations.base import Delivery, Holding, Offer, StoredPart, refuse_older
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
    TransientError,
)
from obs_assets.events import Frame
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import InputVersion
from obs_assets.settings import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


MANIFEST_READERS = 8
"""Manifests that are read in parallel."""


class S3Destination:
    """Keeps hours in a bucket or in a local folder.

    Args:
        config: options of the archive.
        settings: the bucket that is used where the options name none. None: the options name a bucket
            or a local folder.
        client: boto3 client to use; None: the bucket makes its own client.
    """

    def __init__(
        self,
        config: S3Config,
        settings: S3Settings | None = None,
        client: "S3Client | None" = None,
    ) -> None:
        self.config = config
        # The options win over the settings of the machine.
        server = server_of(config, settings or S3Settings(bucket=config.bucket or ""))
        self.place: Bucket | Folder
        if server.bucket.startswith(LOCAL):
            self.place = Folder(server.bucket)
        else:
            self.place = Bucket(config, server, client)
        # Key of a manifest → its tag, and the manifest: `holdings` reads changed manifests only.
        self._read_manifests: dict[str, tuple[str, Manifest | None]] = {}

    def deliver(self, offer: Offer) -> Delivery:
        """Upload the objects that differ, then write the manifest; see `base.Destination.deliver`."""
        # A folder is locked; in a bucket, the conditional write of the manifest decides.
        with self.place.session(), self.place.alone(self.config.manifest_key(offer.hour)):
            try:
                return self._deliver(offer)
            # The manifest is written only if it still has the version that this run has read.
            except LostRaceError:
                # Another run was faster. If it delivered the same hour, there is nothing left to do.
                held, _ = self._manifest(offer.hour)
                self._refuse_older(held, offer)
                if held and held.holding == _holding(offer):
                    return Delivery(written=0, already_there=offer.rows)
                raise HourBusyError(
                    f"another run is writing {offer.hour} to {self.place.url}: let it finish, "
                    "then try again"
                ) from None

    def holding(
        self,
        hour: Hour,
        *,
        count: bool = False,
    ) -> Holding | None:
        """The hour's manifest; with ``count`` also the rows of its objects that are unchanged."""
        with self.place.session():
            held, _ = self._manifest(hour)
            if held is None:
                return None
            if not count:
                return held.holding
            # A listing instead of the objects: an object whose tag is unchanged has its rows.
            intact = _intact(held.objects, self._tags(hour))
            rows = sum(stored.rows for stored in intact.values())
            return replace(held.holding, counted=rows)

    def holdings(self) -> dict[Hour, Holding]:
        """Hour → its manifest's holding, for the hours whose objects are all unchanged.

        The prefix is listed once, a thousand keys a request. Only manifests that changed since the
        last call are read.
        """
        with self.place.session():
            tags = self.place.tags(f"{self.config.prefix}/")
            # Manifests have a prefix of their own, so that a listing of events finds no manifest.
            manifests_prefix = f"{self.config.prefix}/_manifests/"
            manifest_keys = [key for key in tags if key.startswith(manifests_prefix)]
            changed = [key for key in manifest_keys if self._known_tag(key) != tags[key]]
            # A reading waits for the network, so parallel readings cost no more processor time.
            with ThreadPoolExecutor(MANIFEST_READERS) as readers:
                read = readers.map(self._read_manifest, changed)
                self._read_manifests.update(zip(changed, read, strict=True))
        found: dict[Hour, Holding] = {}
        # An hour with a lost or changed object counts as not held, so that it is built again.
        for key in manifest_keys:
            _, manifest = self._read_manifests[key]
            if manifest and len(_intact(manifest.objects, tags)) == len(manifest.objects):
                found[parse_hour(manifest.hour)] = manifest.holding
        return found

    def stored(self, hours: Iterable[Hour]) -> dict[Hour, tuple[StoredObject, ...]]:
        """Hour → the objects that its manifest names, for the hours that the archive holds.

        Raises:
            PermanentError: a manifest cannot be read.
        """
        with self.place.session(), ThreadPoolExecutor(MANIFEST_READERS) as readers:
            wanted = tuple(hours)
            found = zip(wanted, readers.map(self._manifest, wanted), strict=True)
            return {hour: manifest.objects for hour, (manifest, _) in found if manifest}

    def _known_tag(self, key: str) -> str:
        """Tag of the version of a manifest that was read; empty if none was."""
        tag, _ = self._read_manifests.get(key, ("", None))
        return tag

    def adopt(
        self,
        hour: Hour,
        held: Holding,
        version: InputVersion,
    ) -> None:
        """Write the manifest with another version; see `base.Destination.adopt`."""
        key = self.config.manifest_key(hour)
        with self.place.session(), self.place.alone(key):
            manifest, tag = self._manifest(hour)
            busy = HourBusyError(
                f"{self.place.url} holds another {hour} than it did a moment ago: try again"
            )
            # The caller has compared this holding: any other content would be adopted unseen.
            expected = (held.version, held.content_hash)
            if manifest is None or (manifest.version, manifest.content_hash) != expected:
                raise busy
            # Conditional on the tag: a delivery between reading and writing is not lost.
            try:
                text = replace(manifest, version=version).to_json()
                self.place.put(key, text.encode(), tag)
            except LostRaceError:
                raise busy from None

    def _read_manifest(self, key: str) -> tuple[str, Manifest | None]:
        """The tag of a manifest, and the manifest; None if its text is no manifest."""
        found = self.place.read(key)
        if found is None:
            return "", None
        text, tag = found
        try:
            return tag, Manifest.from_json(text)
        except (ValueError, KeyError, TypeError):
            # Without a manifest that can be read, the archive does not hold the hour.
            return "", None

    def selected(self, frame: Frame) -> Frame:
        """All rows; in JSON lines, an event's own field ``_obs`` is named ``_obs_original``."""
        if self.config.format == "parquet":
            return frame  # columns of their own hold the fields of ``_obs``
        return frame.project(f"* REPLACE ({archived_event('event')} AS event)")

    def read_back(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> Frame:
        """``row_uid`` and ``event`` of each row of the hour, as a temporary table of ``connection``.

        All objects with the hour's name are read, also objects that the manifest does not name:
        programs that read the archive without manifests read them too.

        Raises:
            ColdArchiveError: the objects must be restored from their storage class before they can be
                read; their sizes and checksums are those of the manifest.
            PermanentError: the objects must be restored, and a size or a checksum differs.
        """
        digest = hashlib.sha256(self.config.base_key(hour).encode()).hexdigest()
        name = f"read_back_s3_{digest[:16]}"
        connection.execute(
            f'CREATE OR REPLACE TEMP TABLE "{name}" (row_uid VARCHAR, event VARCHAR)'
        )
        with (
            self.place.session(),
            tempfile.TemporaryDirectory(dir=_temp_dir(connection)) as folder,
        ):
            held, _ = self._manifest(hour)
            objects = held.objects if held else ()
            # A set: the objects of the manifest are in the listing, too.
            keys = {stored.key for stored in objects}.union(self._tags(hour))
            for number, key in enumerate(sorted(keys)):
                path = Path(folder, f"{number:04}-{key.rpartition('/')[2]}")
                if self._download(key, path, held):
                    rows_of(connection, path).project("row_uid, event").insert_into(name)
                # Deleted at once, so that a single object is on the disk at a time.
                path.unlink(missing_ok=True)
        return connection.table(name)

    @contextlib.contextmanager
    def archived(
        self,
        hour: Hour,
        folder: Path,
    ) -> Iterator[Iterator[StoredPart]]:
        """The objects of a committed hour. Each is fetched when it is needed, then deleted again.

        Args:
            hour: the hour.
            folder: folder for the fetched object.

        Raises:
            PermanentError: the archive does not hold the hour, or an object differs from the manifest.
        """
        with self.place.session(), tempfile.TemporaryDirectory(dir=folder) as tmp_folder:
            held, _ = self._manifest(hour)
            if held is None:
                raise PermanentError(
                    f"{self.place.url} holds no hour {hour}: no {self.config.manifest_key(hour)}"
                )
            yield self._fetch(held, Path(tmp_folder))

    def _fetch(self, held: Manifest, folder: Path) -> Iterator[StoredPart]:
        """The objects of a manifest, compared with its checksums."""
        for stored in held.objects:
            url = f"{self.place.url}/{stored.key}"
            path = folder / stored.key.rpartition("/")[2]
            problem = ""
            if not self._download(stored.key, path, held):
                problem = "missing"
            elif _sha256(path) != stored.sha256:
                problem = "not what its manifest says"
            if problem:
                raise PermanentError(
                    f"{url} is {problem}: nothing of {held.hour} was taken from it"
                )
            yield StoredPart(url, functools.partial(rows_of, path=path))
            path.unlink()

    def _download(
        self,
        key: str,
        path: Path,
        held: Manifest | None,
    ) -> bool:
        """Write an object into a file; False if there is no such object."""
        try:
            return self.place.download(key, path)
        except ColdError:
            objects = held.objects if held else ()
            wrong = [stored.key for stored in objects if not self.place.is_intact(stored)]
            if held is None or wrong:
                raise PermanentError(
                    f"{self.place.url}/{key} is in a class that must be restored before reading, "
                    f"and {len(wrong)} of {len(objects)} objects are not what the manifest says by "
                    "size and checksum"
                ) from None
            raise ColdArchiveError(
                f"{held.rows:,} rows by size and checksum of {len(objects)} objects, unread: they "
                "are in a class that must be restored before reading (aws s3api restore-object)",
                held.rows,
            ) from None

    def check(self) -> str:
        """Connect to the bucket; returns its address as a line of text."""
        try:
            with self.place.session():
                return self.place.check()
        except (TransientError, PermanentError) as error:
            raise ConfigurationError(str(error)) from None

    # -- an hour -------------------------------------------------------------------------------------------------------

    def _deliver(self, offer: Offer) -> Delivery:
        began = time.monotonic()
        held, manifest_tag = self._manifest(offer.hour)
        self._refuse_older(held, offer)
        tags = self._tags(offer.hour)
        objects = held.objects if held else ()
        intact = _intact(objects, tags)
        is_same = held is not None and held.holding == _holding(offer)
        if is_same and len(intact) == len(objects) and not offer.rebuild:
            # A run that was killed after it wrote the manifest left objects of the older version.
            self._remove(tags.keys() - intact.keys())
            return Delivery(written=0, already_there=offer.rows)

        # Before new parts are uploaded: parts of a killed upload are paid for until they are removed.
        self.place.clean_up(self.config.base_key(offer.hour))
        built = self._build(offer, tags, intact)
        manifest = Manifest(
            offer.hour.key,
            offer.version,
            offer.rows,
            offer.content_hash,
            tuple(built),
        )
        if sum(stored.rows for stored in built) != offer.rows:
            raise PermanentError(
                f"{offer.rows:,} rows of {offer.hour} were offered to S3, the frame has others"
            )
        if manifest != held:
            key = self.config.manifest_key(offer.hour)
            self.place.put(
                key,
                manifest.to_json().encode(),
                manifest_tag,
            )
        crash_point("s3.after_manifest")
        # After the manifest: until then, the old objects are the hour.
        older = {stored.key for stored in objects}.union(tags)
        self._remove(older - {stored.key for stored in built})
        uploaded = [stored for stored in built if stored not in intact.values()]
        return _delivery(self.config, manifest, uploaded, time.monotonic() - began)

    def _refuse_older(self, held: Manifest | None, offer: Offer) -> None:
        """Call `refuse_older` with the holding of the manifest."""
        refuse_older(self.place.url, held.holding if held else None, offer)

    def _build(
        self,
        offer: Offer,
        tags: Mapping[str, str],
        intact: Mapping[str, StoredObject],
    ) -> list[StoredObject]:
        """Pack the hour into objects and store them; an object is packed while the last is uploaded."""
        built: list[Future[StoredObject]] = []
        packing = pack(
            self.selected(offer.frame),
            offer.hour,
            self.config,
        )
        with (
            contextlib.closing(packing) as objects,
            ThreadPoolExecutor(1, "upload") as uploader,
        ):
            for number, packed in enumerate(objects):
                try:
                    crash_point("s3.after_packing")
                    # At most two objects are in memory or on disk: this object and the last.
                    if built:
                        built[-1].result()
                except BaseException:
                    packed.file.close()
                    raise
                key = self.config.object_key(offer.hour, number)
                built.append(
                    uploader.submit(
                        self._store,
                        key,
                        packed,
                        tags,
                        intact,
                    )
                )
            return [stored.result() for stored in built]

    def _store(
        self,
        key: str,
        packed: Packed,
        tags: Mapping[str, str],
        intact: Mapping[str, StoredObject],
    ) -> StoredObject:
        """Upload an object unless the bucket has the same bytes, and close its file."""
        with packed.file:
            if key in intact and intact[key].sha256 == packed.sha256:
                return intact[key]
            crash_point("s3.before_object")
            etag, version_id = self.place.upload(
                key,
                packed,
                tags.get(key),
            )
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
        """The hour's manifest and its tag; None and None if there is no manifest."""
        key = self.config.manifest_key(hour)
        found = self.place.read(key)
        if found is None:
            return None, None
        text, tag = found
        try:
            return Manifest.from_json(text), tag
        except (ValueError, KeyError, TypeError):
            raise PermanentError(
                f"{self.place.url}/{key} is no manifest: remove it, then build {hour} again"
            ) from None

    def _tags(self, hour: Hour) -> dict[str, str]:
        """Key → tag of all objects with the hour's name, in each format."""
        base = self.config.base_key(hour)
        # Other objects may share the beginning of the name: they are not ours to remove.
        ours = re.compile(re.escape(base) + r"(-\d{4,})?\.(jsonl(\.gz)?|parquet)")
        return {key: tag for key, tag in self.place.tags(base).items() if ours.fullmatch(key)}

    def _remove(self, keys: Iterable[str]) -> None:
        for key in sorted(keys):
            self.place.remove(key)


def _intact(
    objects: Iterable[StoredObject], tags: Mapping[str, str]
) -> dict[str, StoredObject]:
    """Key → object, for the objects whose present tag is that of the manifest."""
    return {stored.key: stored for stored in objects if tags.get(stored.key) == stored.etag}


def _holding(offer: Offer) -> Holding:
    """The ledger's row of an hour after its delivery."""
    return Holding(offer.version, offer.rows, offer.content_hash)


def _delivery(
    config: S3Config, manifest: Manifest, uploaded: list[StoredObject], seconds: float
) -> Delivery:
    """The figures of a delivery, with the monthly cost of the hour in each storage class."""
    written = sum(stored.rows for stored in uploaded)
    uploaded_bytes = sum(stored.bytes for stored in uploaded)
    sizes = [stored.bytes for stored in manifest.objects]
    text_bytes = sum(stored.uncompressed_bytes for stored in manifest.objects)
    stored_bytes = sum(sizes)
    batches = len(uploaded)
    stats: dict[str, Any] = {
        "total_events_uploaded": written,
        "total_batches_uploaded": batches,
        "total_bytes_uploaded": uploaded_bytes,
        "compression_ratio": 1.0,
        "average_events_per_batch": 0,
        "average_bytes_per_batch": 0,
        "average_bytes_per_event": 0.0,
        "storage_class": config.storage_class,
        "seconds": round(seconds, 3),
        "rows_per_s": round(manifest.rows / seconds),
    }
    # An empty hour, or an hour whose objects are all there, has no average.
    if stored_bytes:
        stats["compression_ratio"] = round(text_bytes / stored_bytes, 2)
    if batches:
        stats["average_events_per_batch"] = round(written / batches)
        stats["average_bytes_per_batch"] = round(uploaded_bytes / batches)
    if manifest.rows:
        stats["average_bytes_per_event"] = round(stored_bytes / manifest.rows, 1)
    for name in USD_PER_GIB_MONTH:
        stats[f"USD per month in {name}"] = round(usd_per_month(sizes, name), 8)
    stats["prices"] = PRICES_OF
    return Delivery(
        written=written,
        already_there=manifest.rows - written,
        size_bytes=uploaded_bytes,
        stats=stats,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temp_dir(connection: duckdb.DuckDBPyConnection) -> str | None:
    """The folder in which the connection spills, if it exists: events are written to no other folder."""
    folder = str(connection.sql("SELECT current_setting('temp_directory')").fetchall()[0][0])
    return folder if Path(folder).is_dir() else None
