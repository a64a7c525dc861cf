"""The archive's options, and the keys that follow from them."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from obs_assets.destinations.base import DestinationConfig
from obs_assets.hours import Hour
from obs_assets.settings import S3Settings

MIB = 1024 * 1024

PARTITIONS = {
    "year/month/day": "year=%Y/month=%m/day=%d/",
    "year-month-day": "%Y-%m-%d/",
    "year/month/day/hour": "year=%Y/month=%m/day=%d/hour=%H/",
}
"""Folders of an hour. It keeps its own objects in all of them: their names hold the hour."""

LOCAL = "file://"

StorageClass = Literal[
    "STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"
]


class S3Config(DestinationConfig, frozen=True):
    """An archive in a bucket, or in a local directory.

    Attributes:
        bucket, region, endpoint_url: win over ``AWS_S3_BUCKET`` and its fellows. A bucket ``file:///archive`` is a
            local directory.
        prefix: of all keys.
        partitioning: False puts all objects directly under the prefix.
        format: ``jsonl``, or ``parquet`` with lineage, promoted columns, ``weight`` and ``event``.
        compression: gzip of lines, Zstandard within Parquet.
        compression_level: 1 is fastest, 9 smallest.
        storage_class: of the objects; manifests stay in STANDARD. It holds for what is uploaded from now on.
        server_side_encryption: None leaves it to the bucket's default.
        multipart_threshold: bytes above which an object is uploaded in parts of this size.
        max_retries: of each request, within seconds; longer outages are for the run's retries.
        part_size_mb: an object ends with the line that reaches this size, uncompressed.
        expected_bucket_owner: account id; requests fail when the bucket is another account's.
        addressing_style: where the bucket's name stands in URLs. ``auto`` is ``path`` with an endpoint_url, else AWS's.
        request_checksums: whether requests carry checksums that a store may not know; ``auto`` is ``when_required``
            with an endpoint_url (R2, MinIO, Ceph), else ``when_supported``. Objects have a SHA-256 in any case.
    """

    type: Literal["s3"] = "s3"
    bucket: str | None = None
    region: str | None = None
    endpoint_url: str | None = None
    prefix: str = Field("cortex-events", pattern=r"^[A-Za-z0-9!_.*'()=-]+(/[A-Za-z0-9!_.*'()=-]+)*$")
    partitioning: bool = True
    partition_format: Literal["year/month/day", "year-month-day", "year/month/day/hour"] = "year/month/day/hour"
    format: Literal["jsonl", "parquet"] = "jsonl"
    compression: bool = True
    compression_level: int = Field(6, ge=1, le=9)
    storage_class: StorageClass = "STANDARD"
    server_side_encryption: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: str | None = None
    multipart_threshold: int = Field(5 * MIB, ge=5 * MIB)
    max_retries: int = Field(3, ge=0)
    part_size_mb: int = Field(128, ge=1)
    expected_bucket_owner: str | None = Field(None, pattern=r"^\d{12}$")
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
            raise ValueError("kms_key_id has a meaning only with server_side_encryption: aws:kms")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the bucket is a directory, whatever the environment says."""
        return (self.bucket or "").startswith(LOCAL)

    @property
    def suffix(self) -> str:
        """What the keys of objects end with."""
        if self.format == "parquet":
            return ".parquet"
        return ".jsonl.gz" if self.compression else ".jsonl"

    @property
    def content_type(self) -> str:
        """What objects say that they are."""
        return {
            ".parquet": "application/vnd.apache.parquet",
            ".jsonl.gz": "application/gzip",
            ".jsonl": "application/x-ndjson",
        }[self.suffix]

    def base_key(self, hour: Hour) -> str:
        """What the keys of an hour's objects begin with, and those of no other hour."""
        folder = hour.start.strftime(PARTITIONS[self.partition_format]) if self.partitioning else ""
        return f"{self.prefix}/{folder}events-{hour.stamp}"

    def object_key(self, hour: Hour, number: int) -> str:
        """The key of an hour's object; the first has no number."""
        return self.base_key(hour) + (f"-{number:04}" if number else "") + self.suffix

    def manifest_key(self, hour: Hour) -> str:
        """The key of an hour's manifest."""
        return f"{self.prefix}/_manifests/{hour.stamp}.json"


def server_of(config: S3Config, settings: S3Settings) -> S3Settings:
    """Where a configured destination is: the settings, with what the configuration says in their place."""
    said = {name: getattr(config, name) for name in ("bucket", "region", "endpoint_url")}
    return settings.model_copy(update={name: value for name, value in said.items() if value is not None})
