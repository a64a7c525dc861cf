"""Dagster's own home for `make dev` and `make demo`: the settings of the project, runs kept in the embedded PostgreSQL.

Text and addresses only; Dagster itself is not needed here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from obs_assets.embedded.postgres import DAGSTER_DATABASE, postgres
from obs_assets.storage.disk import make_private_dir, replacing

URL_VARIABLE = "OBS_DAGSTER_POSTGRES_URL"

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
"""What the project's ``dagster.yaml`` says, with its reasons."""


def dagster_home(data_dir: Path) -> dict[str, str]:
    """Make Dagster's home in a data folder, and start the PostgreSQL that keeps its runs.

    A ``dagster.yaml`` that is there already stays as it is.

    Returns:
        the environment that Dagster needs to find it.

    Raises:
        ConfigurationError: the folder cannot be made, or PostgreSQL cannot run here.
        TransientError: PostgreSQL is still busy starting.
    """
    home = make_private_dir(data_dir.absolute() / "dagster")
    if not (home / "dagster.yaml").exists():
        storage = {"storage": {"postgres": {"postgres_url": {"env": URL_VARIABLE}}}}
        with replacing(home / "dagster.yaml") as aside:
            aside.write_text(yaml.safe_dump({**SETTINGS, **storage}, sort_keys=False))
    server = postgres(data_dir)
    password = quote(server.password.get_secret_value() if server.password else "", safe="")
    # A bare postgresql:// means psycopg 3 to SQLAlchemy 2.1, and Dagster's event log needs psycopg2.
    url = f"postgresql+psycopg2://{server.user}:{password}@{server.host}:{server.port}/{DAGSTER_DATABASE}"
    return {"DAGSTER_HOME": str(home), URL_VARIABLE: url}
