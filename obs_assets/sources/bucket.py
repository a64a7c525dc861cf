"""Event files in a bucket: the same listing and the same reading as from a folder, over the S3 API.

Credentials, region and endpoint come from the standard AWS chain (``AWS_ENDPOINT_URL_S3`` for other servers). It is
not possible to append to an object: a longer object replaces it and gets a new ETag. The landed bytes are then found
at the beginning of the new object.
"""

import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obs_assets.errors import ConfigurationError, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READ_AHEAD = 64 << 10
"""Bytes of the smallest request: reading a small object costs a single request."""


@dataclass(frozen=True)
class FoundObject:
    """An object of a listing.

    Attributes:
        path: key below the prefix.
        key: whole key.
        size: bytes of the object.
        etag: ETag, which changes when the object is replaced.
        modified_at: time of the last change.
    """

    path: str
    key: str
    size: int
    etag: str
    modified_at: datetime


@functools.cache
def client() -> "S3Client":
    """The S3 client of the process; creating a client takes 0.1 s."""
    import boto3
    from botocore.config import Config

    common = Config(
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=5,
        read_timeout=60,
    )
    made = boto3.client("s3", config=common)
    host = urlsplit(made.meta.endpoint_url).hostname or ""
    if host.endswith("amazonaws.com"):
        return made
    made.close()
    # Some S3 servers do not support buckets as host names. No proxy leads back to this machine
    own = common.merge(
        Config(s3={"addressing_style": "path"}, response_checksum_validation="when_required")
    )
    direct = Config(proxies={}) if host in {"127.0.0.1", "::1", "localhost"} else Config()
    return boto3.client("s3", config=own.merge(direct))


def list_objects(url: str) -> Iterator[FoundObject]:
    """The objects below ``s3://bucket/prefix``. A prefix is a folder; its trailing slash is optional.

    Raises:
        ConfigurationError: the bucket does not exist, or may not be listed.
        TransientError: the server does not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, prefix = split_url(url)
    try:
        for page in (
            client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        ):
            for item in page.get("Contents", ()):
                path = item["Key"].removeprefix(prefix)
                yield FoundObject(
                    path,
                    item["Key"],
                    item["Size"],
                    item["ETag"].strip('"'),
                    item["LastModified"],
                )
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise ConfigurationError(
            f"cannot list the event files in {url} (OBS_EVENTS_DIR): {code}"
        ) from None
    except BotoCoreError as error:
        raise TransientError(
            f"cannot list the event files in {url} (OBS_EVENTS_DIR): {type(error).__name__}"
        ) from None


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key prefix of ``s3://bucket/prefix``; the prefix is empty or ends with a slash.

    A key may hold any character, ``#``, ``?`` and ``%`` included: nothing is decoded and nothing is cut off.

    >>> split_url("s3://events/team#1/logs")
    ('events', 'team#1/logs/')
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/")
    return bucket, f"{prefix}/" if prefix else ""


def open_object(url: str, found: FoundObject) -> io.BufferedReader:
    """Open a listed object; reading fails if it was replaced since."""
    return io.BufferedReader(_Object(split_url(url)[0], found), buffer_size=READ_AHEAD)


class _Object(io.RawIOBase):
    """Reads an object by ranges. Every failure is an `OSError`, also if the object was replaced."""

    def __init__(self, bucket: str, found: FoundObject) -> None:
        self._bucket = bucket
        self._found = found
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._found.size}[
            whence
        ]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        from botocore.exceptions import BotoCoreError, ClientError

        end = min(self._position + len(buffer), self._found.size)
        if end <= self._position:
            return 0
        try:
            answer = client().get_object(
                Bucket=self._bucket,
                Key=self._found.key,
                Range=f"bytes={self._position}-{end - 1}",
                IfMatch=self._found.etag,
            )
            with answer["Body"] as body:
                data = body.read()
        except (ClientError, BotoCoreError) as error:
            raise OSError(f"object not readable: {type(error).__name__}") from None
        if answer["ETag"].strip('"') != self._found.etag:
            raise OSError("object replaced since it was listed")
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
