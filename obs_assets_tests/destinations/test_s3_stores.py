"""Other places for the archive: buckets with keys, versions and owners (moto), a directory, a server that dies."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import duckdb
import pytest
import tenacity
from moto.server import ThreadedMotoServer
from pydantic import SecretStr, ValidationError

from obs_assets import embedded
from obs_assets.audit.verify import verify
from obs_assets.destinations.base import Delivery
from obs_assets.destinations.s3 import Manifest, S3Config, S3Destination
from obs_assets.destinations.s3.config import MIB
from obs_assets.errors import (
    ColdArchiveError,
    ConfigurationError,
    HourBusyError,
    PermanentError,
    TransientError,
)
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import S3Settings, Settings
from obs_assets_tests import harness
from obs_assets_tests.conftest import connect_s3
from obs_assets_tests.frames import HOUR, frame_of, offer_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DOCS = Path(__file__).resolve().parents[2] / "docs" / "s3.md"
MANIFEST = "cortex-events/_manifests/2025120410.json"
LARGE: list[dict[str, Any]] = [{"n": n, "text": "x" * MIB} for n in range(11)]


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Settings]:
    """A server with what SeaweedFS lacks."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Settings(
        bucket="bucket",
        endpoint_url=f"http://{host}:{port}",
        access_key_id="CANARY_ID_9f",
        secret_access_key=SecretStr("CANARY_SECRET_9f"),
    )
    server.stop()


@pytest.fixture
def bucket(
    moto: S3Settings, request: pytest.FixtureRequest
) -> Iterator[tuple[S3Settings, "S3Client"]]:
    """A bucket of this test's own there."""
    server = moto.model_copy(
        update={"bucket": re.sub(r"\W+", "-", request.node.name.lower())[:60].strip("-")}
    )
    with contextlib.closing(connect_s3(server)) as client:
        client.create_bucket(Bucket=server.bucket)
        yield server, client


@pytest.mark.slow
@pytest.mark.parametrize(
    ("events", "encryption"),
    [(1, "AES256"), (11, "AES256"), (1, "aws:kms"), (11, "aws:kms")],
)
def test_objects_and_manifest_are_encrypted_as_configured(
    bucket: tuple[S3Settings, "S3Client"],
    duck: duckdb.DuckDBPyConnection,
    events: int,
    encryption: Any,
) -> None:
    """With AES256 and with a KMS key of one's own, small objects and such that go in parts."""
    server, client = bucket
    key_id = None
    if encryption == "aws:kms":
        secret = server.secret_access_key
        assert secret
        with contextlib.closing(
            boto3.client(
                "kms",
                endpoint_url=server.endpoint_url,
                region_name=server.region,
                aws_access_key_id=server.access_key_id,
                aws_secret_access_key=secret.get_secret_value(),
            )
        ) as kms:
            key_id = kms.create_key()["KeyMetadata"]["KeyId"]
    config = S3Config(
        compression=False,
        server_side_encryption=encryption,
        kms_key_id=key_id,
        storage_class="STANDARD_IA",
    )
    destination = S3Destination(config, server)
    offer = offer_of(frame_of(duck, LARGE[:events]))
    assert destination.deliver(offer).written == events
    assert destination.deliver(offer) == Delivery(written=0, already_there=events)
    for key in (config.object_key(HOUR, 0), MANIFEST):
        head = client.head_object(Bucket=server.bucket, Key=key)
        assert head["ServerSideEncryption"] == encryption
        assert (key_id or "") in head.get("SSEKMSKeyId", "")
        assert head.get("StorageClass", "STANDARD") == (
            "STANDARD" if key == MANIFEST else "STANDARD_IA"
        )
    assert len(destination.read_back(duck, HOUR).fetchall()) == events


@pytest.mark.slow
def test_the_manifest_names_versions_where_the_bucket_keeps_them(
    bucket: tuple[S3Settings, "S3Client"], duck: duckdb.DuckDBPyConnection
) -> None:
    """A version that was replaced can still be fetched by the id that the older manifest named."""
    server, client = bucket
    client.put_bucket_versioning(
        Bucket=server.bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    destination = S3Destination(S3Config(), server)

    def named() -> Any:
        text = client.get_object(Bucket=server.bucket, Key=MANIFEST)["Body"].read()
        return Manifest.from_json(text).objects[0]

    destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    first = named()
    destination.deliver(offer_of(frame_of(duck, [{"n": 2}]), generation=2))
    assert first.version_id
    assert named().version_id not in {None, first.version_id}
    old = client.get_object(Bucket=server.bucket, Key=first.key, VersionId=first.version_id)
    assert len(old["Body"].read()) == first.bytes


@pytest.mark.slow
def test_the_owner_goes_with_every_request(
    bucket: tuple[S3Settings, "S3Client"], duck: duckdb.DuckDBPyConnection
) -> None:
    """A bucket that has come into other hands gets nothing: each request names whose it must be."""
    server, _ = bucket
    destination = S3Destination(
        S3Config(compression=False, expected_bucket_owner="123456789012"), server
    )
    owners: list[str | None] = []
    destination.place.client.meta.events.register(  # type: ignore[union-attr]
        "before-send.s3",
        lambda request, **_: owners.append(request.headers.get("x-amz-expected-bucket-owner")),
    )
    destination.check()
    destination.deliver(offer_of(frame_of(duck, LARGE)))
    destination.deliver(offer_of(frame_of(duck, []), generation=2))
    destination.read_back(duck, HOUR)
    assert len(owners) > 12
    assert {owner.decode() if isinstance(owner, bytes) else owner for owner in owners} == {
        "123456789012"
    }
    with pytest.raises(ValidationError):
        S3Config(expected_bucket_owner="me")


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"endpoint_url": "https://store.example"}, "https://store.example/bucket/k"),
        (
            {"endpoint_url": "https://store.example", "addressing_style": "virtual"},
            "https://bucket.store.example/k",
        ),
        ({}, "https://bucket.s3.us-east-1.amazonaws.com/k"),
        ({"addressing_style": "path"}, "https://s3.us-east-1.amazonaws.com/bucket/k"),
    ],
)
def test_a_bucket_stands_where_the_store_wants_it(options: dict[str, Any], url: str) -> None:
    """In the path or in the host name; AWS's checksums only where the store knows them."""
    server = S3Settings(bucket="bucket", access_key_id="a", secret_access_key=SecretStr("b"))
    client = S3Destination(S3Config(**options), server).place.client  # type: ignore[union-attr]
    with contextlib.closing(client):
        signed = client.generate_presigned_url(
            "get_object", Params={"Bucket": "bucket", "Key": "k"}
        )
        assert signed.partition("?")[0] in {url, url.replace("s3.us-east-1", "s3")}
        required = "when_required" if "endpoint_url" in options else "when_supported"
        assert client.meta.config.request_checksum_calculation == required


@pytest.mark.slow
def test_no_key_shows_anywhere(
    bucket: tuple[S3Settings, "S3Client"],
    duck: duckdb.DuckDBPyConnection,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither in what is stored, nor in figures, errors, logs or prints."""
    server, client = bucket
    caplog.set_level("INFO")
    destination = S3Destination(S3Config(), server)
    delivery = destination.deliver(offer_of(frame_of(duck, [{"n": 1}])))
    shown = [
        repr(delivery),
        repr(server),
        destination.check(),
        caplog.text,
        *capsys.readouterr(),
    ]
    with pytest.raises(ConfigurationError) as raised:
        S3Destination(S3Config(bucket="none"), server).check()
    for stored in client.list_objects_v2(Bucket=server.bucket)["Contents"]:
        answer = client.get_object(Bucket=server.bucket, Key=stored["Key"])
        shown += [str(answer["Metadata"]), answer["Body"].read().decode("latin-1")]
    assert "CANARY_SECRET" not in "".join([*shown, str(raised.value)])
    assert "CANARY_ID" not in "".join([*shown[3:], str(raised.value)])


@pytest.mark.slow
def test_what_lies_cold_is_compared_by_checksums(
    bucket: tuple[S3Settings, "S3Client"], duck: duckdb.DuckDBPyConnection
) -> None:
    """A class that must be restored before reading: sizes and checksums are compared, and a difference is found."""
    server, client = bucket
    destination = S3Destination(S3Config(storage_class="DEEP_ARCHIVE", part_size_mb=1), server)
    destination.deliver(offer_of(frame_of(duck, LARGE[:3])))
    with pytest.raises(
        ColdArchiveError, match=r"3 rows by size and checksum of 3 objects, unread"
    ) as raised:
        destination.read_back(duck, HOUR)
    assert raised.value.rows == 3
    key = destination.config.object_key(HOUR, 1)
    client.put_object(
        Bucket=server.bucket, Key=key, Body=b"another", StorageClass="DEEP_ARCHIVE"
    )
    with pytest.raises(PermanentError, match="1 of 3 objects are not what the manifest says"):
        destination.read_back(duck, HOUR)
    client.delete_object(Bucket=server.bucket, Key=key)
    with pytest.raises(PermanentError, match="1 of 3 objects"):
        destination.read_back(duck, HOUR)


@pytest.mark.slow
@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_obs_verify_of_a_cold_hour(
    bucket: tuple[S3Settings, "S3Client"], tmp_path: Path, storage_class: str
) -> None:
    """The hour counts as held, and the verdict says that it was compared unread; an exchanged object is found."""
    server, client = bucket
    harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour())
    config = harness.everything_kept(
        tmp_path / "events",
        destinations=[{"type": "s3", "storage_class": storage_class, "from": "redacted"}],
    )
    hourly = HourlyPipeline(config, Settings(data_dir=tmp_path / "data", s3=server))
    hourly.land()
    harness.build(hourly, HOUR)
    (verdict,) = [verdict for verdict in verify(hourly, HOUR) if verdict.store == "s3_archive"]
    assert (verdict.ok, verdict.rows) == (True, len(harness.an_hour()))
    assert "unread" in (verdict.note or "")
    (block,) = [block for block in config.destinations if isinstance(block, S3Config)]
    client.put_object(
        Bucket=server.bucket,
        Key=block.object_key(HOUR, 0),
        Body=b"x",
        StorageClass=storage_class,
    )  # type: ignore[arg-type]
    (damaged,) = harness.wrong(hourly)
    assert damaged.store == "s3_archive"
    assert "size and checksum" in (damaged.problem or "")


# -- rights ------------------------------------------------------------------------------------------------------------

ACTIONS = {
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
}
"""The right that each call needs, by AWS's service authorization reference."""


def documented(name: str) -> Any:
    """A JSON block of the documentation."""
    found = re.search(rf"```json {name}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.mark.slow
def test_the_documented_rights_are_those_that_are_used(
    bucket: tuple[S3Settings, "S3Client"], duck: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Over all that the archive does: no call without its right in the documentation, and no right without a call."""
    server, client = bucket
    config = S3Config(compression=False, server_side_encryption="AES256")
    destination = S3Destination(config, server)
    called: set[str] = set()
    destination.place.client.meta.events.register(  # type: ignore[union-attr]
        "before-call.s3", lambda model, **_: called.add(model.name)
    )
    client.create_multipart_upload(Bucket=server.bucket, Key=config.object_key(HOUR, 0))
    destination.check()
    destination.deliver(offer_of(frame_of(duck, LARGE)))
    destination.deliver(offer_of(frame_of(duck, LARGE[:1]), generation=2))
    destination.deliver(offer_of(frame_of(duck, []), generation=3))
    destination.holding(HOUR)
    destination.holdings()
    destination.deliver(offer_of(frame_of(duck, LARGE[:1]), generation=4))
    destination.read_back(duck, HOUR)
    with destination.archived(HOUR, tmp_path) as objects:
        assert [len(stored.rows(duck)) for stored in objects] == [1]
        destination.place.is_intact(destination._manifest(HOUR)[0].objects[0])  # type: ignore[union-attr]
    statements = documented("iam")["Statement"]
    allowed = {action for statement in statements for action in statement["Action"]}
    assert {ACTIONS[name] for name in called} == {
        action for action in allowed if action.startswith("s3:")
    }
    assert allowed - set(ACTIONS.values()) == {"kms:GenerateDataKey", "kms:Decrypt"}


def test_the_documented_lifecycle_and_policy_are_accepted(
    bucket: tuple[S3Settings, "S3Client"],
) -> None:
    """Both are what S3 takes, and the lifecycle leaves manifests alone."""
    server, client = bucket
    rules = documented("lifecycle")
    client.put_bucket_lifecycle_configuration(
        Bucket=server.bucket, LifecycleConfiguration=rules
    )
    client.put_bucket_policy(Bucket=server.bucket, Policy=json.dumps(documented("policy")))
    (cold, _) = client.get_bucket_lifecycle_configuration(Bucket=server.bucket)["Rules"]
    config = S3Config()
    assert config.object_key(HOUR, 0).startswith(cold["Filter"]["Prefix"])
    assert not config.manifest_key(HOUR).startswith(cold["Filter"]["Prefix"])


# -- a local directory -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_directory_is_the_same_archive(
    duck: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """The same keys; a rebuild replaces, removes what is too much, and writes nothing when nothing changed."""
    destination = S3Destination(S3Config(bucket=f"file://{tmp_path}/archive", part_size_mb=1))
    offer = offer_of(frame_of(duck, LARGE[:3]))
    assert destination.deliver(offer).written == 3
    folder = tmp_path / "archive/cortex-events/year=2025/month=12/day=04/hour=10"
    names = [
        "events-2025120410-0001.jsonl.gz",
        "events-2025120410-0002.jsonl.gz",
        "events-2025120410.jsonl.gz",
    ]
    assert sorted(path.name for path in folder.iterdir()) == names
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert destination.deliver(offer) == Delivery(written=0, already_there=3)
    assert destination.deliver(offer_of(frame_of(duck, LARGE[:3]), rebuild=True)).written == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    (folder / ".events-2025120410.jsonl.gz.x.tmp").write_text("left by a killed run")
    assert (
        destination.deliver(offer_of(frame_of(duck, LARGE[:1]), generation=2)).already_there
        == 1
    )
    assert [path.name for path in folder.iterdir()] == names[-1:]
    assert list(destination.holdings()) == [HOUR]
    assert len(destination.read_back(duck, HOUR).fetchall()) == 1
    with destination.place.alone(MANIFEST), pytest.raises(HourBusyError, match="let it finish"):
        destination.deliver(offer_of(frame_of(duck, LARGE[:2]), generation=3))


@pytest.mark.parametrize("url", ["file://relative/path", "file:///", "file://"])
def test_a_directory_is_named_by_an_absolute_path(url: str) -> None:
    """Anything else is a mistake that is found before an hour is written to a strange place."""
    with pytest.raises(ConfigurationError, match="absolute"):
        S3Destination(S3Config(bucket=url))


# -- kill -9 -----------------------------------------------------------------------------------------------------------

UPLOAD = """
import duckdb, json, os, time
from obs_assets.destinations.s3 import S3Config, S3Destination
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import S3Settings, Settings
from obs_assets.audit.verify import verify
from obs_assets_tests import harness
from obs_assets_tests.destinations.test_s3_stores import LARGE
from obs_assets_tests.frames import frame_of, offer_of

with duckdb.connect() as connection:
    server = S3Settings.model_validate_json(os.environ["SERVER"])
    destination = S3Destination(S3Config(compression=False), server)
    def wait(**_):
        print("uploading", flush=True)
        time.sleep(60)
    destination.place.client.meta.events.register("before-call.s3.CompleteMultipartUpload", wait)
    destination.deliver(offer_of(frame_of(connection, LARGE), generation=2))
"""


@pytest.mark.slow
@pytest.mark.parametrize("who", ["client", "server"])
def test_killed_amid_a_multipart_upload(
    duck: duckdb.DuckDBPyConnection, tmp_path: Path, who: str
) -> None:
    """The old hour stays, the failure is one to repeat, and the next run uploads the new hour and leaves no debris."""
    data_dir = tmp_path / "data"
    server = embedded.s3(data_dir)
    try:
        destination = S3Destination(S3Config(compression=False, max_retries=0), server)
        destination.deliver(offer_of(frame_of(duck, [{"n": 0}])))
        new = offer_of(frame_of(duck, LARGE), generation=2)
        if who == "client":
            assert server.secret_access_key
            said = {
                **server.model_dump(),
                "secret_access_key": server.secret_access_key.get_secret_value(),
            }
            environment = {**os.environ, "SERVER": json.dumps(said)}
            with subprocess.Popen(
                [sys.executable, "-c", UPLOAD], env=environment, stdout=subprocess.PIPE
            ) as child:
                assert child.stdout
                assert child.stdout.readline() == b"uploading\n"
                child.kill()
        else:
            (status,) = [one for one in embedded.status(data_dir) if "S3" in one.name]

            def kill(**_: Any) -> None:
                assert status.pid
                with contextlib.suppress(ProcessLookupError):
                    os.kill(status.pid, signal.SIGKILL)
                time.sleep(0.5)

            events = destination.place.client.meta.events  # type: ignore[union-attr]
            events.register("before-call.s3.CompleteMultipartUpload", kill)
            with pytest.raises(TransientError, match="does not answer"):
                destination.deliver(new)
            events.unregister("before-call.s3.CompleteMultipartUpload", kill)
            server = embedded.s3(data_dir)  # started again
        again = S3Destination(S3Config(compression=False), server)
        # A server that has just come up may say for a moment that it cannot read: transient, as its error says
        patiently = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_after_delay(20),
            wait=tenacity.wait_fixed(0.5),
            reraise=True,
        )
        held = patiently(lambda: again.read_back(duck, HOUR).fetchall())
        assert [event for _, event in held] == ['{"n": 0}']
        with contextlib.closing(connect_s3(server)) as client:
            assert (
                len(client.list_multipart_uploads(Bucket=server.bucket).get("Uploads", [])) == 1
            )
            assert again.deliver(new).written == len(LARGE)
            assert client.list_multipart_uploads(Bucket=server.bucket).get("Uploads", []) == []
        assert len(again.read_back(duck, HOUR).fetchall()) == len(LARGE)
    finally:
        embedded.stop(data_dir)
