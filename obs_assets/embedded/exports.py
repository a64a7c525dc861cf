"""Variables with which psql, AWS tools and Dagster reach the same servers."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from obs_assets.embedded.dagster_home import dagster_home
from obs_assets.embedded.postgres import program_path
from obs_assets.settings import PostgresSettings, S3Settings, Settings


def exports(machine: Settings, env: Mapping[str, str]) -> dict[str, str]:
    """Variables for psql, AWS tools and Dagster, secrets included.

    Args:
        machine: the settings, with their servers filled in.
        env: the environment of the process; the user's own ``DAGSTER_HOME`` in it stays.
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
        data_dir: its folder ``dagster`` is created if it does not exist, and its PostgreSQL is started.
        env: the environment. If its ``DAGSTER_HOME`` is another folder, that stays and nothing is started.
    """
    home = env.get("DAGSTER_HOME")
    own = data_dir.absolute() / "dagster"
    variables = {"OBS_DATA_DIR": str(data_dir.absolute())}
    if not home or Path(home).resolve() == own.resolve():
        variables |= dagster_home(data_dir)
    return variables


def for_psql(server: PostgresSettings) -> dict[str, str]:
    """Variables of libpq, with which psql, pg_dump and drivers reach the tables of events."""
    variables = {
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGDATABASE": server.database,
        "PGUSER": server.user,
    }
    if server.password:
        variables["PGPASSWORD"] = server.password.get_secret_value()
    return variables


def for_aws(server: S3Settings) -> dict[str, str]:
    """Variables with which AWS tools reach the bucket. Credentials only if the settings hold them."""
    variables = {"AWS_DEFAULT_REGION": server.region}
    if server.endpoint_url:
        variables["AWS_ENDPOINT_URL_S3"] = server.endpoint_url
    if server.access_key_id and server.secret_access_key:
        variables["AWS_ACCESS_KEY_ID"] = server.access_key_id
        variables["AWS_SECRET_ACCESS_KEY"] = server.secret_access_key.get_secret_value()
    return variables


def search_path(env: Mapping[str, str]) -> str:
    """``PATH`` with this installation's programs first, and the embedded PostgreSQL's programs last."""
    present = env.get("PATH") or os.defpath
    folders = (
        str(Path(sys.executable).parent),
        *present.split(os.pathsep),
        str(Path(program_path("psql")).parent),
    )
    # Each folder once, where it stands first.
    return os.pathsep.join(dict.fromkeys(folders))
