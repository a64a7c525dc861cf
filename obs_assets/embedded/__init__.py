"""A real PostgreSQL and a real S3 server under the data folder, for those who have not set up their own.

They listen on loopback only, outlive the command that started them, and are shared by all processes that use the same
data folder. What they are used for does not belong here, nor does Dagster.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obs_assets.embedded import postgres as _postgres
from obs_assets.embedded import process
from obs_assets.embedded import s3 as _s3
from obs_assets.embedded.postgres import DAGSTER_DATABASE, postgres
from obs_assets.embedded.process import Server, ServerStatus
from obs_assets.embedded.s3 import s3
from obs_assets.settings import Settings

__all__ = [
    "DAGSTER_DATABASE",
    "POSTGRES",
    "S3",
    "EmbeddedServer",
    "ServerStatus",
    "postgres",
    "resolve",
    "s3",
    "status",
    "stop",
]


@dataclass(frozen=True)
class EmbeddedServer:
    """A server that destinations need, and that can run below the data folder.

    Attributes:
        process: the server of a data folder, running or not.
        start: starts it if it does not run; returns how it is reached.
        named_in: how the environment says that it is reached; None where it says nothing.
    """

    process: Callable[[Path], Server]
    start: Callable[[Path], Any]
    named_in: Callable[[Settings], Any]

    def find(self, settings: Settings) -> Any:
        """How the server is reached: as the environment says, else the embedded one, started.

        Raises:
            ConfigurationError: the embedded server cannot run here.
            TransientError: it is still busy starting.
        """
        return self.named_in(settings) or self.start(settings.data_dir)

    def is_embedded(self, settings: Settings) -> bool:
        """Whether the environment names no server, so that the embedded one is used."""
        return self.named_in(settings) is None


POSTGRES = EmbeddedServer(_postgres.server, postgres, lambda settings: settings.postgres)
S3 = EmbeddedServer(_s3.server, s3, lambda settings: settings.s3)
SERVERS = (POSTGRES, S3)


def resolve(settings: Settings) -> Settings:
    """Fill in the servers that the settings leave open, starting them if they do not run.

    Any number of processes may call it at once, and again: servers that run are only looked at.

    Raises:
        ConfigurationError: a server cannot run here.
        TransientError: a server is still busy starting.
    """
    found = {"postgres": POSTGRES.find(settings), "s3": S3.find(settings)}
    return settings.model_copy(update=found)


def stop(data_dir: Path, servers: Sequence[EmbeddedServer] = SERVERS) -> list[str]:
    """End servers of a data folder and wait until they are gone; returns the names of those that ran.

    Raises:
        TransientError: a server does not end.
    """
    found = [server.process(data_dir) for server in servers]
    return [server.name for server in found if process.stop(server)]


def status(data_dir: Path, servers: Sequence[EmbeddedServer] = SERVERS) -> list[ServerStatus]:
    """Servers of a data folder as they are now; starts none."""
    return [process.status(server.process(data_dir)) for server in servers]
