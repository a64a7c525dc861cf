"""Where objects lie: a bucket of any server that speaks S3. Writes are conditional, and carry a SHA-256."""

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
TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500


class LostRaceError(Exception):
    """Something that was to be replaced is no longer what it was."""


class ColdError(Exception):
    """An object must be fetched from its storage class before it can be read."""


class Bucket:
    """Objects in a bucket.

    Args:
        config: how they are stored.
        server: the bucket.
        client: a boto3 client to use instead of one of our own; it is left open.
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
        owner = (
            {"ExpectedBucketOwner": config.expected_bucket_owner}
            if config.expected_bucket_owner
            else {}
        )
        self._bucket: dict[str, Any] = {"Bucket": server.bucket, **owner}

    @cached_property
    def client(self) -> "S3Client":
        """The boto3 client."""
        return self._given_client or client_of(self.config, self.server)

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Use of the client: its errors are ours, and no connection stays open after the last of its users, in whatever
        thread: to close it under a request of another would fail that one."""
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
        """Nothing is held: each write says what it replaces."""
        del manifest_key
        yield

    def read(self, key: str) -> tuple[bytes, str] | None:
        """The bytes behind a key, and its ETag."""
        try:
            answer = self.client.get_object(**self._bucket, Key=key)
        except self.client.exceptions.NoSuchKey:
            return None
        return answer["Body"].read(), _bare(answer["ETag"])

    def tags(self, base_key: str) -> dict[str, str]:
        """The keys that begin so, and their ETags."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            **self._bucket, Prefix=base_key
        )
        return {
            stored["Key"]: _bare(stored["ETag"])
            for page in pages
            for stored in page.get("Contents", [])
        }

    def sizes(self, base_key: str) -> dict[str, int]:
        """The keys that begin so, and their sizes in bytes."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            **self._bucket, Prefix=base_key
        )
        return {
            stored["Key"]: stored["Size"]
            for page in pages
            for stored in page.get("Contents", [])
        }

    def put(self, key: str, body: bytes, replaces: str | None) -> None:
        """Write a small document over the version that was seen.

        Raises:
            LostRaceError: it is no longer that version.
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

    def upload(self, key: str, packed: Packed, replaces: str | None) -> tuple[str, str | None]:
        """Write an object over the version that was seen; returns its ETag, and its version id if it has one.

        Raises:
            LostRaceError: it is no longer that version.
        """
        options: dict[str, Any] = {
            "ContentType": self.config.content_type,
            "Metadata": {"sha256": packed.sha256},
            **_encryption(self.config),
        }
        if self.config.storage_class != "STANDARD":
            options["StorageClass"] = self.config.storage_class
        upload = (
            self._put
            if packed.size_bytes <= self.config.multipart_threshold
            else self._put_in_parts
        )
        try:
            with _racing():
                answer = upload(key, packed, options, _if_still(replaces))
        except LostRaceError:
            # A repeated request finds what it wrote itself, if only the answer to the first was lost.
            with contextlib.suppress(exceptions.ClientError):
                there: dict[str, Any] = dict(self.client.head_object(**self._bucket, Key=key))
                if there["Metadata"].get("sha256") == packed.sha256:
                    return _bare(there["ETag"]), there.get("VersionId")
            raise
        return _bare(answer["ETag"]), answer.get("VersionId")

    def download(self, key: str, path: Path) -> bool:
        """Put an object into a file; False if there is none.

        Raises:
            ColdError: its storage class does not let it be read now.
        """
        with (
            contextlib.suppress(self.client.exceptions.NoSuchKey),
            _cold(),
            path.open("wb") as file,
        ):
            for chunk in self.client.get_object(**self._bucket, Key=key)["Body"].iter_chunks(
                MIB
            ):
                file.write(chunk)
            return True
        return False

    def is_intact(self, stored: StoredObject) -> bool:
        """Whether the object has the size and the checksums of the manifest, as far as the store tells unread."""
        try:
            there = self.client.head_object(
                **self._bucket, Key=stored.key, ChecksumMode="ENABLED"
            )
        except exceptions.ClientError as error:
            if _code(error) in _NOT_THERE:
                return False
            raise
        whole = there.get(
            "ChecksumSHA256", ""
        )  # of an object that went in parts, a checksum of checksums
        return (
            (there["ContentLength"], _bare(there["ETag"])) == (stored.bytes, stored.etag)
            and there["Metadata"].get("sha256") == stored.sha256
            and ("-" in whole or whole in {"", _base64(bytes.fromhex(stored.sha256))})
        )

    def remove(self, key: str) -> None:
        """Remove an object."""
        self.client.delete_object(**self._bucket, Key=key)

    def clean_up(self, base_key: str) -> None:
        """Abort the uploads that a killed run left behind: nobody sees them, and they are paid for."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            **self._bucket, Prefix=base_key
        )
        for upload in [upload for page in pages for upload in page.get("Uploads", [])]:
            with contextlib.suppress(self.client.exceptions.NoSuchUpload):
                self.client.abort_multipart_upload(
                    **self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )

    def check(self) -> str:
        """One line that says which bucket was reached."""
        self.client.head_bucket(**self._bucket)
        return f"{self.url} at {_where(self.server)}"

    def _put(
        self, key: str, packed: Packed, options: dict[str, Any], condition: dict[str, Any]
    ) -> dict[str, Any]:
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
        self, key: str, packed: Packed, options: dict[str, Any], condition: dict[str, Any]
    ) -> dict[str, Any]:
        place: dict[str, Any] = {**self._bucket, "Key": key}
        upload = self.client.create_multipart_upload(
            **place, ChecksumAlgorithm="SHA256", **options
        )
        place["UploadId"] = upload["UploadId"]
        try:
            parts: list[CompletedPartTypeDef] = []
            size = max(self.config.multipart_threshold, -(-packed.size_bytes // MOST_PARTS))
            for number, body in enumerate(iter(lambda: packed.file.read(size), b""), 1):
                checksum = _base64(hashlib.sha256(body).digest())
                part = self.client.upload_part(
                    **place, PartNumber=number, Body=body, ChecksumSHA256=checksum
                )
                parts.append(
                    {"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": checksum}
                )
            answer = self.client.complete_multipart_upload(
                **place, MultipartUpload={"Parts": parts}, **condition
            )
        except BaseException:
            with contextlib.suppress(exceptions.ClientError, exceptions.BotoCoreError):
                self.client.abort_multipart_upload(**place)
            raise
        return dict(answer)


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
    """A boto3 client that gives up within minutes: the long wait belongs to the run's retries.

    Args:
        config: how the bucket is spoken to.
        server: where it is. Without keys in it the standard AWS chain finds them.
        profile: of the AWS configuration, instead of the environment's.
        verify: False accepts any certificate.
    """
    import boto3
    from botocore.config import Config

    secret = server.secret_access_key
    # Not every server that speaks S3 knows buckets as host names and CRC32 trailers; we send SHA-256 ourselves.
    style = config.addressing_style
    checksums = config.request_checksums
    if server.endpoint_url:
        style = "path" if style == "auto" else style
        checksums = "when_required" if checksums == "auto" else checksums
    options: dict[str, Any] = {
        "retries": {"mode": "standard", "total_max_attempts": config.max_retries + 1},
        "connect_timeout": 5,
        "read_timeout": 60,
        "s3": {"addressing_style": style},
        **(
            {
                "request_checksum_calculation": checksums,
                "response_checksum_validation": checksums,
            }
            if checksums != "auto"
            else {}
        ),
        **(
            {"proxies": {}} if _is_on_this_machine(server.endpoint_url) else {}
        ),  # no proxy leads back here
    }
    try:
        return (boto3.Session(profile_name=profile) if profile else boto3).client(
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
    """Tell a condition that did not hold from the other errors of a request."""
    try:
        yield
    except exceptions.ClientError as error:
        if _code(error) in _CHANGED:
            raise LostRaceError from None
        raise


@contextlib.contextmanager
def _cold() -> Iterator[None]:
    """Tell an object that cannot be read now from the other errors of a request."""
    try:
        yield
    except exceptions.ClientError as error:
        if _code(error) == "InvalidObjectState":
            raise ColdError from None
        raise


@contextlib.contextmanager
def _explained(server: S3Settings) -> Iterator[None]:
    """Errors of ours for botocore's, whose messages may hold more than is to be shown."""
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
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    if _TRANSIENT.fullmatch(code) or status >= SERVER_ERROR or status == TOO_MANY_REQUESTS:
        return TransientError(f"S3 at {where} failed ({said})")
    return PermanentError(f"S3 at {where} refused ({said})")


def _code(error: exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _where(server: S3Settings) -> str:
    return server.endpoint_url or f"AWS in {server.region}"
