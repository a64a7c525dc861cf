"""The embedded S3 server, alone."""

import contextlib
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from obs_assets import embedded
from obs_assets.settings import S3Settings, Settings
from obs_assets_tests.conftest import connect_s3
from obs_assets_tests.embedded.conftest import kill, pid_of


@pytest.fixture
def own(servers: Settings) -> S3Settings:
    """The session's server."""
    assert servers.s3
    return servers.s3


def port(settings: S3Settings) -> int:
    return int(str(settings.endpoint_url).rsplit(":", 1)[1])


def pid(data_dir: Path) -> int:
    return pid_of(data_dir, "S3 server")


def put(settings: S3Settings, key: str, body: bytes) -> None:
    with contextlib.closing(connect_s3(settings)) as client:
        client.put_object(Bucket=settings.bucket, Key=key, Body=body)


def objects(settings: S3Settings) -> dict[str, bytes]:
    with contextlib.closing(connect_s3(settings)) as client:
        keys = [
            found["Key"]
            for found in client.list_objects_v2(Bucket=settings.bucket).get("Contents", [])
        ]
        return {
            key: client.get_object(Bucket=settings.bucket, Key=key)["Body"].read()
            for key in keys
        }


def inner_sockets(settings: S3Settings) -> list[Path]:
    return list(Path("/tmp").glob(f"seaweedfs-*-grpc-{port(settings) + 10_000}.sock"))


@pytest.mark.slow
def test_objects_outlive_a_stop_and_kill_9(data_dir: Path) -> None:
    """The bucket is there, empty; what was acknowledged is there again after any end, at the same address."""
    settings = embedded.s3(data_dir)
    assert objects(settings) == {}
    stored = {f"day/{n}": bytes([n]) * n * 300_000 for n in range(5)}
    for key, body in stored.items():
        put(settings, key, body)
    kill(pid(data_dir))
    assert embedded.s3(data_dir) == settings
    assert objects(settings) == stored
    assert inner_sockets(settings)
    assert embedded.stop(data_dir) == ["S3 server"]
    assert not inner_sockets(settings)
    assert embedded.stop(data_dir) == []
    assert embedded.s3(data_dir) == settings
    assert objects(settings) == stored


def test_only_loopback_is_served(servers: Settings, own: S3Settings) -> None:
    """No other machine reaches any of its ports."""
    connections = psutil.Process(pid(servers.data_dir)).net_connections("inet")
    listening = {
        connection.laddr for connection in connections if connection.status == "LISTEN"
    }
    ports = range(port(own), port(own) + 4)
    assert listening == {
        ("127.0.0.1", number + grpc) for number in ports for grpc in (0, 10_000)
    }


def test_keys_are_asked_for(own: S3Settings) -> None:
    """Neither a user without keys nor a page in the user's browser reads an object."""
    put(own, "kept", b"1")
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        objects(own.model_copy(update={"access_key_id": "another"}))
    filer = f"http://127.0.0.1:{port(own) + 3}"
    for url in (
        f"{own.endpoint_url}/{own.bucket}/kept",
        f"{filer}/buckets/{own.bucket}/kept",
        f"{filer}/",
    ):
        with pytest.raises(urllib.error.HTTPError, match=r"40[13]") as refused:
            urllib.request.urlopen(url)
        refused.value.close()


def test_its_files_are_for_their_owner_alone(servers: Settings) -> None:
    """Neither keys nor objects can be read by others."""
    folder = servers.data_dir / "servers" / "s3"
    names = [".", "data", "s3.json", "server.json", "server.log"]
    assert {name: (folder / name).stat().st_mode & 0o077 for name in names} == dict.fromkeys(
        names, 0
    )
