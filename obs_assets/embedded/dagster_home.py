"""Dagster's home folder for `make dev` and `make demo`: the project's settings, runs in the embedded PostgreSQL.

This module writes text and addresses only; it does not import Dagster.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from obs_assets.embedded.postgres import DAGSTER_DATABASE, postgres
from obs_assets.storage.disk import make_private_dir, replacing

URL_VARIABLE = "OBS_DAGSTER_POSTGRES_URL"
"""Variable with the URL of the database of Dagster's runs, password included."""

SETTINGS: Mapping[str, Any] = {
    "run_monitoring": {"enabled": True, "max_runtime_seconds": 21_600},
    "run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False},
    "concurrency": {
        "runs": {
            "max_concurrent_runs": 4,
            "tag_concurrency_limits": [
                {
                    "key": "dagster/partition",
                    "value": {"applyLimitPerUniqueValue": True},
                    "limit": 1,
                }
            ],
        }
    },
    "telemetry": {"enabled": False},
    "nux": {"enabled": False},
}
"""The settings of the project's ``dagster.yaml``. That file gives the reasons."""


def dagster_home(data_dir: Path) -> dict[str, str]:
    """Create Dagster's home in a data folder, and start the PostgreSQL that stores its runs.

    An existing ``dagster.yaml`` stays as it is.

    Returns:
        Environment variables that name this home and this PostgreSQL to Dagster.

    Raises:
        ConfigurationError: the folder cannot be created, or PostgreSQL cannot run here.
        TransientError: PostgreSQL is still starting.
    """
    home = make_private_dir(data_dir.absolute() / "dagster")
    if not (home / "dagster.yaml").exists():
        storage = {"storage": {"postgres": {"postgres_url": {"env": URL_VARIABLE}}}}
        with replacing(home / "dagster.yaml") as tmp_path:
            tmp_path.write_text(yaml.safe_dump({**SETTINGS, **storage}, sort_keys=False))
    server = postgres(data_dir)
    secret = server.password.get_secret_value() if server.password else ""
    login = f"{server.user}:{quote(secret, safe='')}"
    # SQLAlchemy 2.1 takes psycopg 3 for a bare postgresql://, but Dagster's event log needs psycopg2.
    url = f"postgresql+psycopg2://{login}@{server.host}:{server.port}/{DAGSTER_DATABASE}"
    return {"DAGSTER_HOME": str(home), URL_VARIABLE: url}
