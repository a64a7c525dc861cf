"""A real PostgreSQL and a real S3 server under the data folder, for those who have not set up their own.

They listen on loopback only, outlive the command that started them, and are shared by all processes that use the same
data folder. What they are used for does not belong here, nor does Dagster.
"""

from pathlib import Path

from obs_assets.embedded import postgres as _postgres
from obs_assets.embedded import process
from obs_assets.embedded import s3 as _s3
from obs_assets.embedded.postgres import DAGSTER_DATABASE, postgres
from obs_assets.embedded.process import Server, ServerStatus
from obs_assets.embedded.s3 import s3
from obs_assets.settings import Settings

__all__ = ["DAGSTER_DATABASE", "ServerStatus", "postgres", "resolve", "s3", "status", "stop"]


def resolve(settings: Settings) -> Settings:
    """Fill in the servers that the settings leave open, starting them if they do not run.

    Any number of processes may call it at once, and again: servers that run are only looked at.

    Raises:
        ConfigurationError: a server cannot run here.
        TransientError: a server is still busy starting.
    """
    found = {
        "postgres": settings.postgres or postgres(settings.data_dir),
        "s3": settings.s3 or s3(settings.data_dir),
    }
    return settings.model_copy(update=found)


def stop(data_dir: Path) -> list[str]:
    """End the servers of a data folder and wait until they are gone; returns the names of those that ran.

    Raises:
        TransientError: one does not end.
    """
    return [server.name for server in _servers(data_dir) if process.stop(server)]


def status(data_dir: Path) -> list[ServerStatus]:
    """The servers of a data folder as they are now."""
    return [process.status(server) for server in _servers(data_dir)]


def _servers(data_dir: Path) -> list[Server]:
    return [_postgres.server(data_dir), _s3.server(data_dir)]
