"""S3: an hour is a gzipped object, or numbered ones when it is large, and a manifest that says which they are.

::

    cortex-events/year=2025/month=12/day=04/hour=10/events-2025120410.jsonl.gz
                                                    events-2025120410-0001.jsonl.gz
    cortex-events/_manifests/2025120410.json

Key and bytes are a function of the hour's content, so that a rebuild overwrites in place. The manifest is the ledger
and is written last: an hour is the objects that it names. Every write of a key says which version of it it replaces, so
that of two writers of an hour one is stopped. A line is the event with one more field at its end::

    {…,"_obs":{"row_uid":"…","weight":10.0,"hour":"2025-12-04-10:00"}}
"""

import base64
import contextlib
import hashlib
import json
import re
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from botocore import exceptions
from pydantic import Field, model_validator

from obs_assets.crash import crash_point
from obs_assets.destinations.base import Delivery, DestinationConfig, Holding, Offer
from obs_assets.errors import (
    ConfigurationError,
    HourBusyError,
    ObsError,
    PermanentError,
    StaleHourError,
    TransientError,
)
from obs_assets.events import Frame, append_fields, quote
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import InputVersion
from obs_assets.settings import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

MIB = 1024 * 1024

PARTITIONS = {
    "year/month/day": "year=%Y/month=%m/day=%d/",
    "year-month-day": "%Y-%m-%d/",
    "year/month/day/hour": "year=%Y/month=%m/day=%d/hour=%H/",
}
"""Folders of an hour. It keeps its own objects in all of them: their names hold the hour."""

BATCH_ROWS = 2048
LONGEST_LINE = 32 * MIB
MANIFEST_READERS = 8
MOST_PARTS = 10_000
SERVER_ERROR = 500


class S3Config(DestinationConfig, frozen=True):
    """An archive in a bucket.

    Attributes:
        bucket, region, endpoint_url: win over ``AWS_S3_BUCKET`` and its fellows.
        prefix: of all keys.
        partitioning: False puts all objects directly under the prefix.
        compression_level: of gzip.
        storage_class: of the objects; manifests stay in STANDARD. It holds for what is uploaded from now on.
        server_side_encryption: None leaves it to the bucket's default.
        multipart_threshold: bytes above which an object is uploaded in parts of this size.
        max_retries: of each request, within seconds; longer outages are for the run's retries.
        part_size_mb: an object ends with the line that reaches this size, uncompressed.
    """

    type: Literal["s3"] = "s3"
    bucket: str | None = None
    region: str | None = None
    endpoint_url: str | None = None
    prefix: str = Field("cortex-events", pattern=r"^[A-Za-z0-9!_.*'()=-]+(/[A-Za-z0-9!_.*'()=-]+)*$")
    partitioning: bool = True
    partition_format: Literal["year/month/day", "year-month-day", "year/month/day/hour"] = "year/month/day/hour"
    compression: bool = True
    compression_level: int = Field(6, ge=1, le=9)
    storage_class: Literal[
        "STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"
    ] = "STANDARD"
    server_side_encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: str | None = None
    multipart_threshold: int = Field(5 * MIB, ge=5 * MIB)
    max_retries: int = Field(3, ge=0)
    part_size_mb: int = Field(128, ge=1)

    @model_validator(mode="after")
    def _has_use_for_the_key(self) -> Self:
        if self.kms_key_id and self.server_side_encryption != "aws:kms":
            raise ValueError("kms_key_id has a meaning only with server_side_encryption: aws:kms")
        return self

    def base_key(self, hour: Hour) -> str:
        """What the keys of an hour's objects begin with, and those of no other hour."""
        folder = hour.start.strftime(PARTITIONS[self.partition_format]) if self.partitioning else ""
        return f"{self.prefix}/{folder}events-{hour.stamp}"

    def object_key(self, hour: Hour, number: int) -> str:
        """The key of an hour's object; the first has no number."""
        return (
            self.base_key(hour) + (f"-{number:04}" if number else "") + (".jsonl.gz" if self.compression else ".jsonl")
        )

    def manifest_key(self, hour: Hour) -> str:
        """The key of an hour's manifest."""
        return f"{self.prefix}/_manifests/{hour.stamp}.json"


def server_of(config: S3Config, settings: S3Settings) -> S3Settings:
    """Where a configured destination is: the settings, with what the configuration says in their place."""
    said = {name: getattr(config, name) for name in ("bucket", "region", "endpoint_url")}
    return settings.model_copy(update={name: value for name, value in said.items() if value is not None})


# -- the manifest ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredObject:
    """One object of an hour. ``sha256`` is of the bytes as stored; ``etag`` is the store's name for this version."""

    key: str
    rows: int
    bytes: int
    uncompressed_bytes: int
    sha256: str
    etag: str


@dataclass(frozen=True)
class Manifest:
    """What an hour is: its objects, in order, and what they were built from."""

    hour: str
    version: InputVersion
    rows: int
    content_hash: str
    objects: tuple[StoredObject, ...]

    @property
    def holding(self) -> Holding:
        """The manifest as the ledger's row that it is."""
        return Holding(self.version, self.rows, self.content_hash)

    def to_json(self) -> str:
        """The manifest as a JSON document, the same text for the same manifest."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Read what `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        objects = tuple(StoredObject(**stored) for stored in values["objects"])
        return cls(**{**values, "version": InputVersion(**values["version"]), "objects": objects})


# -- lines and objects -------------------------------------------------------------------------------------------------

_SUFFIX = r"""'(,?"_obs":\{"row_uid":"([^"]*)","weight":[^,{}]*,"hour":"[^"]*"\})\}$', ['suffix', 'row_uid']"""
_LONGEST_SUFFIX = 200


def line_of(frame: Frame, hour: Hour) -> Frame:
    """A column ``line``: each event with ``_obs``, and a line feed."""
    added = f"""concat(',"_obs":{{"row_uid":"', row_uid, '","weight":', weight, ',"hour":"{hour}"}}') AS added"""
    return frame.project(f"event, {added}").project(f"concat({append_fields('event', 'added')}, chr(10)) AS line")


def lines_of(connection: duckdb.DuckDBPyConnection, path: Path) -> Frame:
    """A column ``line`` of the lines of a file; NULL for one that is not JSON."""
    options = f"maximum_object_size={LONGEST_LINE}, ignore_errors=true"
    return connection.sql(f"SELECT json::VARCHAR AS line FROM read_ndjson_objects({quote(str(path))}, {options})")


def event_of(lines: Frame) -> Frame:
    """The reverse of `line_of`, on the text: ``row_uid`` (NULL without ``_obs``) and ``event``."""
    found = lines.project(f"line, regexp_extract(right(line, {_LONGEST_SUFFIX}), {_SUFFIX}) AS found")
    return found.project(
        "nullif(found.row_uid, '') AS row_uid, CASE WHEN found.suffix = '' THEN line "
        "ELSE left(line, length(line) - length(found.suffix) - 1) || '}' END AS event"
    )


def _texts(lines: Frame) -> Iterator[tuple[memoryview, npt.NDArray[np.int64]]]:
    """Batches of lines as one text each, and where its lines end: Arrow's own buffers, nothing is copied."""
    for batch in lines.to_arrow_reader(BATCH_ROWS):
        column = batch.column(0).cast(pa.large_string())
        _, offsets_buffer, data = column.buffers()
        offsets = np.frombuffer(offsets_buffer, np.int64)[column.offset : column.offset + len(column) + 1]
        yield memoryview(data)[offsets[0] : offsets[-1]], offsets[1:] - offsets[0]


@dataclass(frozen=True)
class Packed:
    """An object before its upload; ``file`` stands at its beginning and is gone once closed."""

    file: IO[bytes]
    rows: int
    size_bytes: int
    uncompressed_bytes: int
    sha256: str


class _Packer:
    """Compresses and hashes one object into a temporary file, in memory while it is small."""

    # A compressor's output may depend on how its input was cut (zlib: hardly ever, but it may): always cut it alike.
    PIECE = MIB

    def __init__(self, config: S3Config) -> None:
        # 31: a gzip member whose header says neither time nor file name
        self._compressor = zlib.compressobj(config.compression_level, zlib.DEFLATED, 31) if config.compression else None
        self._file = tempfile.SpooledTemporaryFile(max_size=16 * MIB)  # noqa: SIM115 - handed on open, in `Packed`
        self._pending = bytearray()
        self._sha256 = hashlib.sha256()
        self._rows = 0
        self.uncompressed_bytes = 0

    def write(self, text: memoryview, rows: int) -> None:
        self._rows += rows
        self.uncompressed_bytes += len(text)
        self._pending += text
        whole = len(self._pending) // self.PIECE * self.PIECE
        with memoryview(self._pending) as pending:
            for start in range(0, whole, self.PIECE):
                self._store(pending[start : start + self.PIECE])
        del self._pending[:whole]

    def finish(self) -> Packed:
        self._store(self._pending)
        if self._compressor:
            self._store_raw(self._compressor.flush())
        size = self._file.tell()
        self._file.seek(0)
        return Packed(self._file, self._rows, size, self.uncompressed_bytes, self._sha256.hexdigest())

    def _store(self, text: bytearray | memoryview) -> None:
        self._store_raw(self._compressor.compress(text) if self._compressor else text)

    def _store_raw(self, stored: bytes | bytearray | memoryview) -> None:
        self._sha256.update(stored)
        self._file.write(stored)


def pack(lines: Frame, config: S3Config) -> Iterator[Packed]:
    """Pack lines into objects, one at a time: close each before asking for the next."""
    target = config.part_size_mb * MIB
    packer: _Packer | None = None
    for text, ends in _texts(lines):
        start = first = 0
        while first < len(ends):
            packer = packer or _Packer(config)
            room = target - packer.uncompressed_bytes
            stop = min(int(np.searchsorted(ends, start + room)) + 1, len(ends))
            end = int(ends[stop - 1])
            packer.write(text[start:end], stop - first)
            start, first = end, stop
            if packer.uncompressed_bytes >= target:
                yield packer.finish()
                packer = None
    if packer:
        yield packer.finish()


# -- the destination ---------------------------------------------------------------------------------------------------


class _LostRaceError(Exception):
    """Something that was to be replaced is no longer what it was."""


class S3Destination:
    """Holds hours in a bucket.

    Args:
        config: under which keys, and how they are stored.
        settings: the bucket.
        client: a boto3 client to use instead of one of our own.
    """

    def __init__(self, config: S3Config, settings: S3Settings, client: "S3Client | None" = None) -> None:
        self.config = config
        self.server = server_of(config, settings)
        self._given_client = client
        self._read_manifests: dict[str, tuple[str, Manifest | None]] = {}

    @cached_property
    def _client(self) -> "S3Client":
        return self._given_client or client_of(self.config, self.server)

    @contextlib.contextmanager
    def _session(self) -> Iterator[None]:
        """Use of the client: its errors are ours, and no connection stays open afterwards."""
        with _explained(self.server):
            client = self._client
            try:
                yield
            finally:
                if client is not self._given_client:
                    client.close()

    def deliver(self, offer: Offer) -> Delivery:
        """Upload what differs, then publish the manifest; see `base.Destination.deliver`."""
        with self._session():
            try:
                return self._deliver(offer)
            except _LostRaceError:
                held, _ = self._manifest(offer.hour)
                _refuse_stale(held, offer)
                if held and held.holding == _holding(offer):
                    return Delivery(written=0, already_there=offer.rows)
                raise HourBusyError(
                    f"another run is writing {offer.hour} to s3://{self.server.bucket}: let it finish, then try again"
                ) from None

    def holding(self, hour: Hour) -> Holding | None:
        """What the hour's manifest says."""
        with self._session():
            held, _ = self._manifest(hour)
            return held.holding if held else None

    def holdings(self) -> dict[Hour, Holding]:
        """What the manifests say of the hours whose objects are all there, each the version that the manifest names.

        One listing, a thousand keys a request; of manifests, those are read that were not read before.
        """
        with self._session():
            there = self._list(f"{self.config.prefix}/")
            manifests = {
                key: etag for key, etag in there.items() if key.startswith(f"{self.config.prefix}/_manifests/")
            }
            unread = [key for key, etag in manifests.items() if self._read_manifests.get(key, ("",))[0] != etag]
            with ThreadPoolExecutor(MANIFEST_READERS) as readers:
                for key, (etag, manifest) in zip(unread, readers.map(self._read_manifest, unread), strict=True):
                    self._read_manifests[key] = (etag, manifest)
        known = [self._read_manifests[key][1] for key in manifests]
        return {
            parse_hour(manifest.hour): manifest.holding
            for manifest in known
            if manifest and all(there.get(stored.key) == stored.etag for stored in manifest.objects)
        }

    def _list(self, prefix: str) -> dict[str, str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.server.bucket, Prefix=prefix)
        return {stored["Key"]: _bare(stored["ETag"]) for page in pages for stored in page.get("Contents", [])}

    def _read_manifest(self, key: str) -> tuple[str, Manifest | None]:
        try:
            answer = self._client.get_object(Bucket=self.server.bucket, Key=key)
            return _bare(answer["ETag"]), Manifest.from_json(answer["Body"].read())
        except (self._client.exceptions.NoSuchKey, ValueError, KeyError, TypeError):
            return "", None  # gone since, or no manifest of ours: the hour is not held

    def selected(self, frame: Frame) -> Frame:
        """All rows, as they are."""
        return frame

    def read_back(self, connection: duckdb.DuckDBPyConnection, hour: Hour) -> Frame:
        """``row_uid`` and ``event`` of every line of the hour, as a temporary table of ``connection``.

        Of the objects that the manifest names and of any other that bears the hour's name: whoever reads the archive
        without manifests, reads those too.
        """
        name = f"read_back_s3_{hashlib.sha256(self.config.base_key(hour).encode()).hexdigest()[:16]}"
        connection.execute(f'CREATE OR REPLACE TEMP TABLE "{name}" (row_uid VARCHAR, event VARCHAR)')
        with self._session(), tempfile.TemporaryDirectory(dir=_temp_dir(connection)) as folder:
            held, _ = self._manifest(hour)
            keys = {stored.key for stored in held.objects} if held else set()
            for number, key in enumerate(sorted(keys | self._etags(hour).keys())):
                path = Path(folder, f"{number:04}-{key.rpartition('/')[2]}")
                with contextlib.suppress(self._client.exceptions.NoSuchKey), path.open("wb") as file:
                    for chunk in self._client.get_object(Bucket=self.server.bucket, Key=key)["Body"].iter_chunks(MIB):
                        file.write(chunk)
                    file.flush()
                    event_of(lines_of(connection, path)).insert_into(name)
                path.unlink()
        return connection.table(name)

    def check(self) -> str:
        """One line that says which bucket was reached."""
        try:
            with self._session():
                self._client.head_bucket(Bucket=self.server.bucket)
        except (TransientError, PermanentError) as error:
            raise ConfigurationError(str(error)) from None
        return f"s3://{self.server.bucket} at {_where(self.server)}"

    # -- an hour -------------------------------------------------------------------------------------------------------

    def _deliver(self, offer: Offer) -> Delivery:
        began = time.monotonic()
        held, manifest_etag = self._manifest(offer.hour)
        _refuse_stale(held, offer)
        etags = self._etags(offer.hour)
        objects = held.objects if held else ()
        intact = {stored.key: stored for stored in objects if etags.get(stored.key) == stored.etag}
        if held and held.holding == _holding(offer) and len(intact) == len(objects) and not offer.rebuild:
            self._remove(etags.keys() - intact.keys())  # left by a run that was killed after its manifest
            return Delivery(written=0, already_there=offer.rows)

        self._abort_leftovers(offer.hour)
        built = []
        for number, packed in enumerate(pack(line_of(offer.frame, offer.hour), self.config)):
            with packed.file:
                built.append(self._store(self.config.object_key(offer.hour, number), packed, etags, intact))
        manifest = Manifest(offer.hour.key, offer.version, offer.rows, offer.content_hash, tuple(built))
        if sum(stored.rows for stored in built) != offer.rows:
            raise PermanentError(f"{offer.rows:,} rows of {offer.hour} were offered to S3, the frame has others")
        if manifest != held:
            self._publish(offer.hour, manifest, manifest_etag)
        crash_point("s3.after_manifest")
        self._remove((etags.keys() | {stored.key for stored in objects}) - {stored.key for stored in built})
        return _delivery(
            manifest, [stored for stored in built if stored not in intact.values()], time.monotonic() - began
        )

    def _store(
        self, key: str, packed: Packed, etags: Mapping[str, str], intact: Mapping[str, StoredObject]
    ) -> StoredObject:
        """Upload one object, unless the bucket has these bytes already."""
        if key in intact and intact[key].sha256 == packed.sha256:
            return intact[key]
        crash_point("s3.before_object")
        etag = self._upload(key, packed, etags.get(key))
        crash_point("s3.after_object")
        return StoredObject(key, packed.rows, packed.size_bytes, packed.uncompressed_bytes, packed.sha256, etag)

    def _manifest(self, hour: Hour) -> tuple[Manifest | None, str | None]:
        """The hour's manifest and its ETag."""
        try:
            answer = self._client.get_object(Bucket=self.server.bucket, Key=self.config.manifest_key(hour))
        except self._client.exceptions.NoSuchKey:
            return None, None
        return Manifest.from_json(answer["Body"].read()), _bare(answer["ETag"])

    def _publish(self, hour: Hour, manifest: Manifest, replaces: str | None) -> None:
        body = manifest.to_json().encode()
        with _racing():
            self._client.put_object(
                Bucket=self.server.bucket,
                Key=self.config.manifest_key(hour),
                Body=body,
                ContentType="application/json",
                ChecksumSHA256=_base64(hashlib.sha256(body).digest()),
                **_encryption(self.config),
                **_if_still(replaces),
            )

    def _etags(self, hour: Hour) -> dict[str, str]:
        """The keys of all objects that bear the hour's name, and their ETags."""
        base = self.config.base_key(hour)
        ours = re.compile(re.escape(base) + r"(-\d{4,})?\.jsonl(\.gz)?")
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.server.bucket, Prefix=base)
        found = (stored for page in pages for stored in page.get("Contents", []))
        return {stored["Key"]: _bare(stored["ETag"]) for stored in found if ours.fullmatch(stored["Key"])}

    def _remove(self, keys: Iterable[str]) -> None:
        for key in sorted(keys):
            self._client.delete_object(Bucket=self.server.bucket, Key=key)

    # -- an object -----------------------------------------------------------------------------------------------------

    def _upload(self, key: str, packed: Packed, replaces: str | None) -> str:
        """Write an object over the version that was seen; returns its ETag."""
        options: dict[str, Any] = {
            "ContentType": "application/gzip" if self.config.compression else "application/x-ndjson",
            "Metadata": {"sha256": packed.sha256},
            **_encryption(self.config),
        }
        if self.config.storage_class != "STANDARD":
            options["StorageClass"] = self.config.storage_class
        upload = self._put if packed.size_bytes <= self.config.multipart_threshold else self._put_in_parts
        try:
            with _racing():
                return _bare(upload(key, packed, options, _if_still(replaces)))
        except _LostRaceError:
            # A repeated request finds what it wrote itself, if only the answer to the first was lost.
            with contextlib.suppress(exceptions.ClientError):
                there = self._client.head_object(Bucket=self.server.bucket, Key=key)
                if there["Metadata"].get("sha256") == packed.sha256:
                    return _bare(there["ETag"])
            raise

    def _put(self, key: str, packed: Packed, options: dict[str, Any], condition: dict[str, Any]) -> str:
        answer = self._client.put_object(
            Bucket=self.server.bucket,
            Key=key,
            Body=packed.file,
            ChecksumSHA256=_base64(bytes.fromhex(packed.sha256)),
            **options,
            **condition,
        )
        return answer["ETag"]

    def _put_in_parts(self, key: str, packed: Packed, options: dict[str, Any], condition: dict[str, Any]) -> str:
        place: dict[str, Any] = {"Bucket": self.server.bucket, "Key": key}
        upload = self._client.create_multipart_upload(**place, ChecksumAlgorithm="SHA256", **options)
        place["UploadId"] = upload["UploadId"]
        try:
            parts: list[CompletedPartTypeDef] = []
            size = max(self.config.multipart_threshold, -(-packed.size_bytes // MOST_PARTS))
            for number, body in enumerate(iter(lambda: packed.file.read(size), b""), 1):
                checksum = _base64(hashlib.sha256(body).digest())
                part = self._client.upload_part(**place, PartNumber=number, Body=body, ChecksumSHA256=checksum)
                parts.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": checksum})
            answer = self._client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts}, **condition)
        except BaseException:
            with contextlib.suppress(exceptions.ClientError, exceptions.BotoCoreError):
                self._client.abort_multipart_upload(**place)
            raise
        return answer["ETag"]

    def _abort_leftovers(self, hour: Hour) -> None:
        """Abort the uploads that a killed run left behind: nobody sees them, and they are paid for."""
        bucket = self.server.bucket
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=bucket, Prefix=self.config.base_key(hour)
        )
        for upload in [upload for page in pages for upload in page.get("Uploads", [])]:
            with contextlib.suppress(self._client.exceptions.NoSuchUpload):
                self._client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def _holding(offer: Offer) -> Holding:
    return Holding(offer.version, offer.rows, offer.content_hash)


def _refuse_stale(held: Manifest | None, offer: Offer) -> None:
    if held and held.version.generation > offer.version.generation:
        raise StaleHourError(
            f"the archive holds generation {held.version.generation} of {offer.hour}, newer than the offered "
            f"{offer.version.generation}: materialize the stages before it again"
        )


def _delivery(manifest: Manifest, uploaded: list[StoredObject], seconds: float) -> Delivery:
    written, size = sum(stored.rows for stored in uploaded), sum(stored.bytes for stored in uploaded)
    stored_bytes = sum(stored.bytes for stored in manifest.objects)
    text_bytes = sum(stored.uncompressed_bytes for stored in manifest.objects)
    stats = {
        "total_events_uploaded": written,
        "total_batches_uploaded": len(uploaded),
        "total_bytes_uploaded": size,
        "compression_ratio": round(text_bytes / stored_bytes, 2) if stored_bytes else 1.0,
        "seconds": round(seconds, 3),
        "rows_per_s": round(manifest.rows / seconds),
    }
    return Delivery(written=written, already_there=manifest.rows - written, size_bytes=size, stats=stats)


def _encryption(config: S3Config) -> dict[str, Any]:
    if config.server_side_encryption is None:
        return {}
    # A bucket key saves a call to KMS, which is paid for, with each object.
    kms = {"BucketKeyEnabled": True} if config.server_side_encryption == "aws:kms" else {}
    key = {"SSEKMSKeyId": config.kms_key_id} if config.kms_key_id else {}
    return {"ServerSideEncryption": config.server_side_encryption, **kms, **key}


def _if_still(etag: str | None) -> dict[str, Any]:
    """The condition that a key still holds the version that was seen, or still nothing."""
    return {"IfMatch": f'"{etag}"'} if etag else {"IfNoneMatch": "*"}


def _bare(etag: str) -> str:
    return etag.strip('"')


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _temp_dir(connection: duckdb.DuckDBPyConnection) -> str | None:
    """Where the connection spills, if it has such a place: events are put nowhere else."""
    folder = str(connection.sql("SELECT current_setting('temp_directory')").fetchall()[0][0])
    return folder if Path(folder).is_dir() else None


# -- connecting, and what can go wrong ---------------------------------------------------------------------------------


def _is_on_this_machine(endpoint_url: str | None) -> bool:
    return urlsplit(endpoint_url or "").hostname in {"127.0.0.1", "::1", "localhost"}


def client_of(config: S3Config, server: S3Settings) -> "S3Client":
    """A boto3 client that gives up within minutes: the long wait belongs to the run's retries."""
    import boto3
    from botocore.config import Config

    secret = server.secret_access_key
    elsewhere = {
        # Not every server that speaks S3 knows buckets as host names and CRC32 trailers; we send SHA-256 ourselves.
        "s3": {"addressing_style": "path"},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    options: dict[str, Any] = {
        "retries": {"mode": "standard", "total_max_attempts": config.max_retries + 1},
        "connect_timeout": 5,
        "read_timeout": 60,
        **(elsewhere if server.endpoint_url else {}),
        **({"proxies": {}} if _is_on_this_machine(server.endpoint_url) else {}),  # no proxy leads back here
    }
    try:
        return boto3.client(
            "s3",
            region_name=server.region,
            endpoint_url=server.endpoint_url,
            aws_access_key_id=server.access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=Config(**options),
        )
    except ValueError:
        raise ConfigurationError(f"AWS_ENDPOINT_URL_S3 is not a URL: {server.endpoint_url!r}") from None


_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload", "NoSuchKey"}
_NO_BUCKET = {"NoSuchBucket", "404", "NotFound", "PermanentRedirect", "AuthorizationHeaderMalformed", "301"}
_NO_RIGHT = re.compile("403|AccessDenied|AllAccessDisabled|.*AccessKey.*|Signature.*|.*Token.*|AccountProblem|.*KMS.*")
_TRANSIENT = re.compile(
    "5..|429|408|BadDigest|.*Throttl.*|.*Timeout|SlowDown|InternalError|ServiceUnavailable|.*Skewed"
)


@contextlib.contextmanager
def _racing() -> Iterator[None]:
    """Tell a condition that did not hold from the other errors of a request."""
    try:
        yield
    except exceptions.ClientError as error:
        if _code(error) in _CHANGED:
            raise _LostRaceError from None
        raise


@contextlib.contextmanager
def _explained(server: S3Settings) -> Iterator[None]:
    """Errors of ours for botocore's, whose messages may hold more than is to be shown."""
    try:
        yield
    except exceptions.ClientError as error:
        raise _refusal(error, server) from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound):
        raise ConfigurationError(
            "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        ) from None
    except (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError):
        raise TransientError(
            f"S3 at {_where(server)} does not answer: check AWS_ENDPOINT_URL_S3 and AWS_REGION, and that it runs"
        ) from None
    except exceptions.BotoCoreError as error:
        raise ConfigurationError(
            f"s3://{server.bucket} at {_where(server)} cannot be used ({type(error).__name__}): "
            "check AWS_S3_BUCKET, AWS_REGION and the AWS profile"
        ) from None


def _refusal(error: exceptions.ClientError, server: S3Settings) -> ObsError:
    code, where = _code(error), _where(server)
    said = f"{error.operation_name}: {code}"
    if code in _NO_BUCKET:
        return ConfigurationError(
            f"no bucket {server.bucket!r} at {where} ({said}): create it, or check AWS_S3_BUCKET and AWS_REGION"
        )
    if _NO_RIGHT.fullmatch(code):
        return ConfigurationError(
            f"{where} refuses access to s3://{server.bucket} ({said}): check the AWS credentials and their rights"
        )
    if _TRANSIENT.fullmatch(code) or error.response["ResponseMetadata"]["HTTPStatusCode"] >= SERVER_ERROR:
        return TransientError(f"S3 at {where} failed ({said})")
    return PermanentError(f"S3 at {where} refused ({said})")


def _code(error: exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _where(server: S3Settings) -> str:
    return server.endpoint_url or f"AWS in {server.region}"
