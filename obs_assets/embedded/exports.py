"""The environment in which other programs find the servers that are used: psql, AWS tools, Dagster."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from obs_assets.embedded.dagster_home import dagster_home
from obs_assets.embedded.postgres import program_path
from obs_assets.settings import PostgresSettings, S3Settings, Settings


def exports(machine: Settings, env: Mapping[str, str]) -> dict[str, str]:
    """Variables for psql, AWS tools and Dagster, secrets among them.

    Args:
        machine: with its servers filled in.
        env: the process's environment; a ``DAGSTER_HOME`` of the user's stays.
    """
    assert machine.postgres  # noqa: S101 - servers are filled in
    assert machine.s3  # noqa: S101
    return {
        **for_dagster(machine.data_dir, env),
        **for_psql(machine.postgres),
        **for_aws(machine.s3),
    }


def for_dagster(data_dir: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Variables with which ``dagster`` sees the runs that ``make dev`` shows.

    Args:
        data_dir: its folder ``dagster`` is made if need be, and its PostgreSQL started.
        env: a ``DAGSTER_HOME`` in it that is another folder stays, and nothing is started.
    """
    home = env.get("DAGSTER_HOME")
    own = data_dir.absolute() / "dagster"
    is_another = home and Path(home).resolve() != own.resolve()
    return {
        "OBS_DATA_DIR": str(data_dir.absolute()),
        **({} if is_another else dagster_home(data_dir)),
    }


def for_psql(server: PostgresSettings) -> dict[str, str]:
    """Variables of libpq: how psql, pg_dump and drivers reach the tables of events."""
    password = {"PGPASSWORD": server.password.get_secret_value()} if server.password else {}
    where = {
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGDATABASE": server.database,
        "PGUSER": server.user,
    }
    return {**where, **password}


def for_aws(server: S3Settings) -> dict[str, str]:
    """Variables of AWS tools: how they reach the bucket. Credentials only of an embedded server."""
    keys = {}
    if server.access_key_id and server.secret_access_key:
        secret = server.secret_access_key.get_secret_value()
        keys = {"AWS_ACCESS_KEY_ID": server.access_key_id, "AWS_SECRET_ACCESS_KEY": secret}
    endpoint = {"AWS_ENDPOINT_URL_S3": server.endpoint_url} if server.endpoint_url else {}
    return {"AWS_DEFAULT_REGION": server.region, **endpoint, **keys}


def search_path(env: Mapping[str, str]) -> str:
    """``PATH`` with this installation's programs first, and last those of the embedded PostgreSQL."""
    present = env.get("PATH") or os.defpath
    added = (
        str(Path(sys.executable).parent),
        *present.split(os.pathsep),
        str(Path(program_path("psql")).parent),
    )
    return os.pathsep.join(dict.fromkeys(added))
