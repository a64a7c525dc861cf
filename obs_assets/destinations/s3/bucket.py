"""Objects in a bucket of any server that speaks S3.

Each write is conditional on the version that it replaces, and carries a SHA-256.
"""

import base64
import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore import exceptions

from obs_assets.destinations.s3.config import MIB, S3Config
from obs_assets.destinations.s3.encode import Packed
from obs_assets.destinations.s3.manifest import StoredObject
from obs_assets.errors import ConfigurationError, ObsError, PermanentError, TransientError
from obs_assets.settings import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

MOST_PARTS = 10_000
"""Largest number of parts of an upload, by S3's rules."""

CONNECT_TIMEOUT_S = 5
"""Seconds to wait for a connection."""

READ_TIMEOUT_S = 60
"""Seconds to wait for the next bytes of an answer."""

TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500


class LostRaceError(Exception):
    """The object to be replaced has changed since it was read."""


class ColdError(Exception):
    """An object must be restored from its storage class before it can be read."""


class Bucket:
    """Objects in a bucket.

    Args:
        config: options of the archive.
        server: the bucket, its server and its keys.
        client: boto3 client to use; it is left open. None: the bucket makes its own client.
    """

    def __init__(
        self, config: S3Config, server: S3Settings, client: "S3Client | None" = None
    ) -> None:
        self.config = config
        self.server = server
        self.url = f"s3://{server.bucket}"
        self._given_client = client
        self._lock = threading.Lock()
        self._users = 0
        self._bucket: dict[str, Any] = {"Bucket": server.bucket}
        if config.expected_bucket_owner:
            self._bucket["ExpectedBucketOwner"] = config.expected_bucket_owner

    @cached_property
    def client(self) -> "S3Client":
        """The boto3 client; it is made at its first use."""
        return self._given_client or client_of(self.config, self.server)

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Use of the client; its errors become those of `obs_assets.errors`.

        The last of the threads that use the client closes its connections: an earlier close would
        break a request of another thread.
        """
        with _explained(self.server):
            with self._lock:
                client = self.client
                self._users += 1
            try:
                yield
            finally:
                with self._lock:
                    self._users -= 1
                    if not self._users and client is not self._given_client:
                        client.close()

    @contextlib.contextmanager
    def alone(self, manifest_key: str) -> Iterator[None]:
        """No lock is taken: each write is conditional on the version that it replaces."""
        del manifest_key
        yield

    def read(self, key: str) -> tuple[bytes, str] | None:
        """The bytes of an object, and its ETag; None if there is no such object."""
        try:
            answer = self.client.get_object(**self._bucket, Key=key)
        except self.client.exceptions.NoSuchKey:
            return None
        return answer["Body"].read(), _bare(answer["ETag"])

    def tags(self, base_key: str) -> dict[str, str]:
        """Key → ETag of the objects whose keys begin with ``base_key``."""
        return {stored["Key"]: _bare(stored["ETag"]) for stored in self._list(base_key)}

    def sizes(self, base_key: str) -> dict[str, int]:
        """Key → size in bytes of the objects whose keys begin with ``base_key``."""
        return {stored["Key"]: stored["Size"] for stored in self._list(base_key)}

    def _list(self, base_key: str) -> Iterator[Any]:
        """The objects whose keys begin with ``base_key``; a request gives a thousand of them."""
        paginator = self.client.get_paginator("list_objects_v2")
        for page in paginator.paginate(**self._bucket, Prefix=base_key):
            yield from page.get("Contents", [])

    def put(
        self,
        key: str,
        body: bytes,
        replaces: str | None,
    ) -> None:
        """Write a small document.

        Args:
            key: key of the object.
            body: its bytes.
            replaces: ETag of the version to replace; None if the key must be free.

        Raises:
            LostRaceError: the key holds another version.
        """
        with _racing():
            self.client.put_object(
                **self._bucket,
                Key=key,
                Body=body,
                ContentType="application/json",
                ChecksumSHA256=_base64(hashlib.sha256(body).digest()),
                **_encryption(self.config),
                **_if_still(replaces),
            )

    def upload(
        self,
        key: str,
        packed: Packed,
        replaces: str | None,
    ) -> tuple[str, str | None]:
        """Write an object.

        Args:
            key: key of the object.
            packed: its content.
            replaces: ETag of the version to replace; None if the key must be free.

        Returns:
            the new ETag, and the version id if the bucket keeps versions.

        Raises:
            LostRaceError: the key holds another version.
        """
        options: dict[str, Any] = {
            "ContentType": self.config.content_type,
            "Metadata": {"sha256": packed.sha256},
            **_encryption(self.config),
        }
        if self.config.storage_class != "STANDARD":
            options["StorageClass"] = self.config.storage_class
        is_large = packed.size_bytes > self.config.multipart_threshold
        upload = self._put_in_parts if is_large else self._put
        try:
            with _racing():
                answer = upload(key, packed, options, _if_still(replaces))
        except LostRaceError:
            # If the answer to the first request was lost, a repeated request finds its own object.
            with contextlib.suppress(exceptions.ClientError):
                there: dict[str, Any] = dict(self.client.head_object(**self._bucket, Key=key))
                if there["Metadata"].get("sha256") == packed.sha256:
                    return _bare(there["ETag"]), there.get("VersionId")
            raise
        return _bare(answer["ETag"]), answer.get("VersionId")

    def download(self, key: str, path: Path) -> bool:
        """Write an object into a file; False if there is no such object.

        Raises:
            ColdError: the object must be restored from its storage class before it can be read.
        """
        absent = contextlib.suppress(self.client.exceptions.NoSuchKey)
        with absent, _cold(), path.open("wb") as file:
            answer = self.client.get_object(**self._bucket, Key=key)
            for chunk in answer["Body"].iter_chunks(MIB):
                file.write(chunk)
            return True
        return False

    def is_intact(self, stored: StoredObject) -> bool:
        """Whether size and checksums that the store reports are those of the manifest.

        The object itself is not read.
        """
        try:
            there = self.client.head_object(
                **self._bucket, Key=stored.key, ChecksumMode="ENABLED"
            )
        except exceptions.ClientError as error:
            if _code(error) in _NOT_THERE:
                return False
            raise
        if there["ContentLength"] != stored.bytes or _bare(there["ETag"]) != stored.etag:
            return False
        if there["Metadata"].get("sha256") != stored.sha256:
            return False
        # After an upload in parts, the checksum is a checksum of checksums and has a hyphen.
        checksum = there.get("ChecksumSHA256", "")
        return "-" in checksum or checksum in {"", _base64(bytes.fromhex(stored.sha256))}

    def remove(self, key: str) -> None:
        """Remove an object."""
        self.client.delete_object(**self._bucket, Key=key)

    def clean_up(self, base_key: str) -> None:
        """Abort uploads of runs that were killed: they are invisible, and their storage costs money."""
        paginator = self.client.get_paginator("list_multipart_uploads")
        uploads: list[Any] = []
        for page in paginator.paginate(**self._bucket, Prefix=base_key):
            uploads += page.get("Uploads", [])
        for upload in uploads:
            with contextlib.suppress(self.client.exceptions.NoSuchUpload):
                self.client.abort_multipart_upload(
                    **self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )

    def check(self) -> str:
        """Connect to the bucket; returns its URL and its server as a line of text."""
        self.client.head_bucket(**self._bucket)
        return f"{self.url} at {_where(self.server)}"

    def _put(
        self,
        key: str,
        packed: Packed,
        options: dict[str, Any],
        condition: dict[str, Any],
    ) -> dict[str, Any]:
        """Write an object in a single request."""
        answer = self.client.put_object(
            **self._bucket,
            Key=key,
            Body=packed.file,
            ChecksumSHA256=_base64(bytes.fromhex(packed.sha256)),
            **options,
            **condition,
        )
        return dict(answer)

    def _put_in_parts(
        self,
        key: str,
        packed: Packed,
        options: dict[str, Any],
        condition: dict[str, Any],
    ) -> dict[str, Any]:
        """Write an object in parts; an error aborts the upload, so that no part is left to pay for."""
        target: dict[str, Any] = {**self._bucket, "Key": key}
        upload = self.client.create_multipart_upload(
            **target, ChecksumAlgorithm="SHA256", **options
        )
        target["UploadId"] = upload["UploadId"]
        try:
            parts: list[CompletedPartTypeDef] = []
            # Parts are larger than configured if there would be too many; the division rounds up.
            least_bytes = -(-packed.size_bytes // MOST_PARTS)
            part_bytes = max(self.config.multipart_threshold, least_bytes)
            bodies = iter(lambda: packed.file.read(part_bytes), b"")
            for number, body in enumerate(bodies, 1):
                checksum = _base64(hashlib.sha256(body).digest())
                part = self.client.upload_part(
                    **target, PartNumber=number, Body=body, ChecksumSHA256=checksum
                )
                parts.append(
                    {"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": checksum}
                )
            answer = self.client.complete_multipart_upload(
                **target, MultipartUpload={"Parts": parts}, **condition
            )
        except BaseException:
            with contextlib.suppress(exceptions.ClientError, exceptions.BotoCoreError):
                self.client.abort_multipart_upload(**target)
            raise
        return dict(answer)


def _encryption(config: S3Config) -> dict[str, Any]:
    """Options of a request that ask for the configured encryption."""
    if config.server_side_encryption is None:
        return {}
    options: dict[str, Any] = {"ServerSideEncryption": config.server_side_encryption}
    if config.server_side_encryption == "aws:kms":
        # A bucket key saves a call to KMS for each object, and such a call costs money.
        options["BucketKeyEnabled"] = True
    if config.kms_key_id:
        options["SSEKMSKeyId"] = config.kms_key_id
    return options


def _if_still(etag: str | None) -> dict[str, Any]:
    """The condition that a key holds the version of an ETag; without an ETag, that it is free."""
    return {"IfMatch": f'"{etag}"'} if etag else {"IfNoneMatch": "*"}


def _bare(etag: str) -> str:
    """An ETag without its quotes."""
    return etag.strip('"')


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


# -- connecting, and what can go wrong ---------------------------------------------------------------------------------


def _is_on_this_machine(endpoint_url: str | None) -> bool:
    return urlsplit(endpoint_url or "").hostname in {"127.0.0.1", "::1", "localhost"}


def client_of(
    config: S3Config,
    server: S3Settings,
    *,
    profile: str | None = None,
    verify: bool | None = None,
) -> "S3Client":
    """A boto3 client that gives up within minutes; the retries of the run cover longer outages.

    Args:
        config: options of the archive.
        server: the server of the bucket. Without access keys in it, boto3 searches for keys.
        profile: profile of the AWS configuration; None uses the environment's profile.
        verify: False accepts any certificate.

    Raises:
        ConfigurationError: the profile does not exist, or the address of the server is no URL.
    """
    import boto3
    from botocore.config import Config

    secret = server.secret_access_key
    # Some servers that speak S3 know neither buckets as host names nor CRC32 trailers. The requests
    # of this module carry a SHA-256 in any case.
    style = config.addressing_style
    checksums = config.request_checksums
    if server.endpoint_url:
        style = "path" if style == "auto" else style
        checksums = "when_required" if checksums == "auto" else checksums
    options: dict[str, Any] = {
        "retries": {"mode": "standard", "total_max_attempts": config.max_retries + 1},
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "s3": {"addressing_style": style},
    }
    if checksums != "auto":
        options["request_checksum_calculation"] = checksums
        options["response_checksum_validation"] = checksums
    if _is_on_this_machine(server.endpoint_url):
        # A proxy cannot reach an address of this machine.
        options["proxies"] = {}
    try:
        session = boto3.Session(profile_name=profile) if profile else boto3
        return session.client(
            "s3",
            region_name=server.region,
            endpoint_url=server.endpoint_url,
            verify=verify,
            aws_access_key_id=server.access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=Config(**options),
        )
    except exceptions.ProfileNotFound:
        raise ConfigurationError(f"the AWS configuration has no profile {profile!r}") from None
    except ValueError:
        raise ConfigurationError(
            f"AWS_ENDPOINT_URL_S3 is not a URL: {server.endpoint_url!r}"
        ) from None


# Codes of S3's errors, by consequence. The patterns match the whole code.
_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload", "NoSuchKey"}
_NOT_THERE = {"404", "NoSuchKey", "NotFound"}
_NO_BUCKET = {
    "NoSuchBucket",
    "404",
    "NotFound",
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "301",
}
_NO_RIGHT = re.compile(
    "403|AccessDenied|AllAccessDisabled|.*AccessKey.*|Signature.*|.*Token.*|AccountProblem|.*KMS.*"
)
_TRANSIENT = re.compile(
    "5..|408|BadDigest|.*Throttl.*|.*Timeout|SlowDown|InternalError|ServiceUnavailable|.*Skewed"
)


@contextlib.contextmanager
def _racing() -> Iterator[None]:
    """Raise LostRaceError if the condition of a write did not hold."""
    try:
        yield
    except exceptions.ClientError as error:
        if _code(error) in _CHANGED:
            raise LostRaceError from None
        raise


@contextlib.contextmanager
def _cold() -> Iterator[None]:
    """Raise ColdError if an object must be restored before it can be read."""
    try:
        yield
    except exceptions.ClientError as error:
        if _code(error) == "InvalidObjectState":
            raise ColdError from None
        raise


@contextlib.contextmanager
def _explained(server: S3Settings) -> Iterator[None]:
    """Raise errors of `obs_assets.errors` for errors of botocore, whose messages may hold secrets."""
    try:
        yield
    except exceptions.ClientError as error:
        raise _refusal(error, server) from None
    except (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.ProfileNotFound,
    ):
        raise ConfigurationError(
            "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        ) from None
    except (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
    ):
        raise TransientError(
            f"S3 at {_where(server)} does not answer: check AWS_ENDPOINT_URL_S3 and AWS_REGION, "
            "and that it runs"
        ) from None
    except exceptions.BotoCoreError as error:
        raise ConfigurationError(
            f"s3://{server.bucket} at {_where(server)} cannot be used ({type(error).__name__}): "
            "check AWS_S3_BUCKET, AWS_REGION and the AWS profile"
        ) from None


def _refusal(error: exceptions.ClientError, server: S3Settings) -> ObsError:
    """The error for an answer of the server, by its code and status."""
    code, where = _code(error), _where(server)
    answer = f"{error.operation_name}: {code}"
    if code in _NO_BUCKET:
        return ConfigurationError(
            f"no bucket {server.bucket!r} at {where} ({answer}): create it, or check "
            "AWS_S3_BUCKET and AWS_REGION"
        )
    if _NO_RIGHT.fullmatch(code):
        return ConfigurationError(
            f"{where} refuses access to s3://{server.bucket} ({answer}): check the AWS "
            "credentials and their rights"
        )
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    if _TRANSIENT.fullmatch(code) or status >= SERVER_ERROR or status == TOO_MANY_REQUESTS:
        return TransientError(f"S3 at {where} failed ({answer})")
    return PermanentError(f"S3 at {where} refused ({answer})")


def _code(error: exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _where(server: S3Settings) -> str:
    return server.endpoint_url or f"AWS in {server.region}"
