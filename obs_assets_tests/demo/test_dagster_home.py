"""Dagster's own settings: those of the project and those of `make dev` and `make demo` are the same."""

from pathlib import Path

import pytest
import yaml

from obs_assets.embedded.dagster_home import SETTINGS, URL_VARIABLE, dagster_home
from obs_assets.settings import Settings

PROJECT = Path(__file__).parents[2]


def test_the_project_and_the_embedded_home_have_the_same_settings() -> None:
    """The project's dagster.yaml adds its reasons, nothing else."""
    assert yaml.safe_load((PROJECT / "dagster.yaml").read_text()) == SETTINGS


@pytest.mark.slow
def test_a_home_of_ones_own_is_left_alone(servers: Settings) -> None:
    """The file is written once, with the runs in PostgreSQL; what somebody has changed in it stays."""
    environment = dagster_home(servers.data_dir)
    file = Path(environment["DAGSTER_HOME"]) / "dagster.yaml"
    assert yaml.safe_load(file.read_text())["storage"] == {
        "postgres": {"postgres_url": {"env": URL_VARIABLE}}
    }
    assert environment[URL_VARIABLE].startswith("postgresql+psycopg2://")
    file.write_text("telemetry: {enabled: false}\n")
    assert dagster_home(servers.data_dir) == environment
    assert file.read_text() == "telemetry: {enabled: false}\n"


@pytest.mark.slow
def test_dagster_takes_the_settings(tmp_path: Path) -> None:
    """Without any server: SQLite below DAGSTER_HOME, one run per hour, lost runs repeated, failed ones not."""
    from dagster import DagsterInstance
    from dagster._core.instance import InstanceRef

    with DagsterInstance.from_ref(
        InstanceRef.from_dir(str(tmp_path), config_dir=str(PROJECT))
    ) as instance:
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_runtime_seconds == 21_600
        assert not instance.run_retries_retry_on_asset_or_op_failure
        queue = instance.get_concurrency_config().run_queue_config
        assert queue
        assert [limit["key"] for limit in queue.tag_concurrency_limits] == ["dagster/partition"]
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
