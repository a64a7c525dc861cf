"""A real PostgreSQL and a real S3 server below the data folder, for users without servers of their own.

They listen on loopback only, go on after the command that started them, and are shared by all processes
that use the same data folder. This package knows neither their content nor Dagster.
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
        process: data folder → the server, running or not.
        start: starts the server of a data folder if it does not run; returns its address and credentials.
        named_in: address and credentials of the server that the environment names; None if it names none.
    """

    process: Callable[[Path], Server]
    start: Callable[[Path], Any]
    named_in: Callable[[Settings], Any]

    def find(self, settings: Settings) -> Any:
        """Address and credentials of the named server, else of the embedded server, which is started.

        Raises:
            ConfigurationError: the embedded server cannot run here.
            TransientError: the embedded server is still starting.
        """
        return self.named_in(settings) or self.start(settings.data_dir)

    def is_embedded(self, settings: Settings) -> bool:
        """Whether the embedded server is used, because the environment names no server."""
        return self.named_in(settings) is None


POSTGRES = EmbeddedServer(_postgres.server, postgres, lambda settings: settings.postgres)
S3 = EmbeddedServer(_s3.server, s3, lambda settings: settings.s3)
SERVERS = (POSTGRES, S3)


def resolve(settings: Settings) -> Settings:
    """The settings with both servers filled in. An embedded server is started if it does not run.

    Several processes can call it at the same time and again: a running server is left as it is.

    Raises:
        ConfigurationError: a server cannot run here.
        TransientError: a server is still starting.
    """
    found = {"postgres": POSTGRES.find(settings), "s3": S3.find(settings)}
    return settings.model_copy(update=found)


def stop(data_dir: Path, servers: Sequence[EmbeddedServer] = SERVERS) -> list[str]:
    """Stop servers of a data folder and wait for their end; returns the names of the stopped servers.

    Raises:
        TransientError: a server does not stop.
    """
    found = [server.process(data_dir) for server in servers]
    return [server.name for server in found if process.stop(server)]


def status(data_dir: Path, servers: Sequence[EmbeddedServer] = SERVERS) -> list[ServerStatus]:
    """The present state of servers of a data folder. Starts no server."""
    return [process.status(server.process(data_dir)) for server in servers]
