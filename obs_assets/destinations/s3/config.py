"""The options of the archive, and the keys of its objects."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from obs_assets.destinations.base import DestinationConfig
from obs_assets.destinations.mapping import MappingName
from obs_assets.hours import Hour
from obs_assets.settings import S3Settings

MIB = 1024 * 1024

PARTITIONS = {
    "year/month/day": "year=%Y/month=%m/day=%d/",
    "year-month-day": "%Y-%m-%d/",
    "year/month/day/hour": "year=%Y/month=%m/day=%d/hour=%H/",
}
"""Option ``partition_format`` → pattern of an hour's folder.

Hours can share a folder, because the name of an object holds its hour.
"""

LOCAL = "file://"
"""Begin of a ``bucket`` that is a local folder."""

StorageClass = Literal[
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
]


class S3Config(DestinationConfig, frozen=True):
    """An archive of whole hours in a bucket, or in a local folder.

    Attributes:
        type: ``s3``, for any store that speaks S3's protocol, and for local folders.
        bucket: name of the bucket, or ``file:///archive`` for a local folder; wins over
            ``AWS_S3_BUCKET``.
        region: region of the bucket; wins over ``AWS_REGION``.
        endpoint_url: address of a store that is not AWS; wins over ``AWS_ENDPOINT_URL_S3``.
        prefix: first part of every object key.
        partitioning: ``false`` puts all objects directly below the prefix, without folders by
            time.
        partition_format: folders by time below the prefix; the key of an object always names its
            hour.
        format: ``jsonl``: one JSON event a line; ``parquet``: typed columns, ``weight`` and
            ``event``.
        mapping: names of the fields, see docs/mappings.md. ``none``: a line is the event itself; the
            others: a line is these fields, and the event in ``data``. In ``parquet`` the columns have
            these names. Hours that were stored under another mapping can be read.
        compression: compress objects: gzip for ``jsonl``, Zstandard inside ``parquet``.
        compression_level: 1 is fastest, 9 makes the smallest objects.
        storage_class: S3 storage class of new objects; manifests stay in STANDARD.
        server_side_encryption: encryption that S3 applies; null uses the default of the bucket.
        kms_key_id: key for ``server_side_encryption: aws:kms``; null uses the default key of the
            account.
        multipart_threshold: an object above this size is uploaded in parts of this size.
        max_retries: retries of each request within seconds; Dagster's run retries cover longer
            outages.
        part_size_mb: size of uncompressed lines after which the next object of the hour begins;
            one line may exceed it.
        expected_bucket_owner: AWS account number of the owner; requests fail when the bucket
            belongs to another account.
        addressing_style: place of the bucket's name in URLs: ``path`` or ``virtual`` (host name).
            ``auto`` is ``path`` with an ``endpoint_url``, else the choice of AWS's library.
        request_checksums: send AWS's newer checksum headers: ``when_supported`` or
            ``when_required``. ``auto`` is ``when_required`` with an ``endpoint_url``, because R2,
            MinIO and Ceph refuse them, else ``when_supported``. The SHA-256 of an object is stored
            in any case.
    """

    type: Literal["s3"] = "s3"
    bucket: str | None = Field(None, examples=["my-event-archive"])
    region: str | None = Field(None, examples=["eu-central-1"])
    endpoint_url: str | None = Field(None, examples=["https://minio.example.com:9000"])
    prefix: str = Field(
        "cortex-events", pattern=r"^[A-Za-z0-9!_.*'()=-]+(/[A-Za-z0-9!_.*'()=-]+)*$"
    )
    partitioning: bool = True
    partition_format: Literal["year/month/day", "year-month-day", "year/month/day/hour"] = (
        "year/month/day/hour"
    )
    format: Literal["jsonl", "parquet"] = "jsonl"
    mapping: MappingName = "none"
    compression: bool = True
    compression_level: int = Field(
        6,
        ge=1,
        le=9,
        json_schema_extra={"unit": "level"},
    )
    storage_class: StorageClass = "STANDARD"
    server_side_encryption: Literal["AES256", "aws:kms"] | None = Field(
        None, examples=["aws:kms"]
    )
    kms_key_id: str | None = Field(None, examples=["alias/event-archive"])
    multipart_threshold: int = Field(
        5 * MIB,
        ge=5 * MIB,
        json_schema_extra={"unit": "bytes"},
    )
    max_retries: int = Field(
        3,
        ge=0,
        json_schema_extra={"unit": "retries"},
    )
    part_size_mb: int = Field(128, ge=1)
    expected_bucket_owner: str | None = Field(
        None, pattern=r"^\d{12}$", examples=["123456789012"]
    )
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    request_checksums: Literal["auto", "when_supported", "when_required"] = "auto"

    @field_validator("prefix")
    @classmethod
    def _stays_below(cls, prefix: str) -> str:
        if {".", ".."}.intersection(prefix.split("/")):
            raise ValueError("must not have . or .. for a folder")
        return prefix

    @model_validator(mode="after")
    def _has_use_for_the_key(self) -> Self:
        if self.kms_key_id and self.server_side_encryption != "aws:kms":
            raise ValueError(
                "kms_key_id has a meaning only with server_side_encryption: aws:kms"
            )
        return self

    @property
    def is_local(self) -> bool:
        """Whether the option ``bucket`` names a local folder."""
        return (self.bucket or "").startswith(LOCAL)

    @property
    def suffix(self) -> str:
        """End of the keys of objects, for example ``.jsonl.gz``."""
        if self.format == "parquet":
            return ".parquet"
        return ".jsonl.gz" if self.compression else ".jsonl"

    @property
    def content_type(self) -> str:
        """Header ``Content-Type`` of objects."""
        return {
            ".parquet": "application/vnd.apache.parquet",
            ".jsonl.gz": "application/gzip",
            ".jsonl": "application/x-ndjson",
        }[self.suffix]

    def base_key(self, hour: Hour) -> str:
        """Begin of the keys of an hour's objects; no key of another hour begins with it."""
        folder = ""
        if self.partitioning:
            folder = hour.start.strftime(PARTITIONS[self.partition_format])
        return f"{self.prefix}/{folder}events-{hour.stamp}"

    def object_key(self, hour: Hour, number: int) -> str:
        """The key of an hour's object.

        Args:
            hour: the hour.
            number: index of the object in the hour, from 0; the first key has no number.
        """
        base = self.base_key(hour)
        if number == 0:
            return f"{base}{self.suffix}"
        return f"{base}-{number:04}{self.suffix}"

    def manifest_key(self, hour: Hour) -> str:
        """The key of an hour's manifest."""
        return f"{self.prefix}/_manifests/{hour.stamp}.json"


def server_of(config: S3Config, settings: S3Settings) -> S3Settings:
    """The bucket of a destination: the machine's settings, replaced by the options that are set."""
    options = {name: getattr(config, name) for name in ("bucket", "region", "endpoint_url")}
    named = {name: value for name, value in options.items() if value is not None}
    return settings.model_copy(update=named)
