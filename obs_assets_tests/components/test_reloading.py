"""A running code server and a changed pipeline file: values are followed, other assets are loaded anew."""

import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pytest_httpserver import HTTPServer

from obs_assets.components.project import project_definitions
from obs_assets.hourly.present import restart_reason
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS

pytestmark = [*DAGSTER_WARNINGS, pytest.mark.slow]

TEXT = """\
type: obs_assets.components.ObservabilityPipeline
attributes:
  asset_prefix: ""
  source: {events_dir: EVENTS, seal_after_minutes: 0}
"""


class CodeServer:
    """The definitions that a code server has loaded, and the pipeline file beside it."""

    def __init__(self, root: Path, webserver: str) -> None:
        self.root = root
        self.file = root / "pipelines" / "events" / "defs.yaml"
        self.file.parent.mkdir(parents=True)
        self.write()
        (root / "events").mkdir()
        self.env = {
            "OBS_PIPELINES_DIR": str(root / "pipelines"),
            "OBS_DATA_DIR": str(root / "data"),
            "OBS_DAGSTER_URL": webserver,
        }
        self.load()

    def write(self, more: str = "") -> None:
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(TEXT.replace("EVENTS", str(self.root / "events")) + more)
        temporary.replace(self.file)

    def load(self) -> None:
        """Load the code, as after a reload."""
        self.definitions = project_definitions(self.env)

    def tick(self, sensor: str, instance: dg.DagsterInstance) -> str:
        """Evaluate a sensor; the reason for no request."""
        with dg.build_sensor_context(
            instance=instance, definitions=self.definitions
        ) as context:
            data = self.definitions.resolve_sensor_def(sensor).evaluate_tick(context)
        return data.skip_message or ""

    def job(self, name: str) -> Any:
        """A job as a new run has it: the process of a run loads the definitions anew."""
        return project_definitions(self.env).resolve_job_def(name)


@pytest.fixture
def server(tmp_path: Path, httpserver: HTTPServer) -> CodeServer:
    return CodeServer(tmp_path, httpserver.url_for(""))


@pytest.fixture
def instance() -> Any:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def asked(httpserver: HTTPServer, times: int) -> bool:
    """Whether the webserver was asked so often for a reload, soon."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends and len(httpserver.log) < times:
        time.sleep(0.1)
    return len(httpserver.log) == times


def answer(httpserver: HTTPServer, typename: str) -> None:
    httpserver.expect_request("/graphql", method="POST").respond_with_json(
        {"data": {"reloadRepositoryLocation": {"__typename": typename}}}
    )


def test_sensors_follow_a_value_without_a_reload(
    server: CodeServer, instance: dg.DagsterInstance, httpserver: HTTPServer
) -> None:
    """The next tick reads another folder; no webserver answers, and nobody has to restart anything."""
    del httpserver
    (server.root / "other").mkdir()
    (server.root / "other" / "a.jsonl").write_text('{"n": 1}\n')
    text = server.file.read_text().replace(
        str(server.root / "events"), str(server.root / "other")
    )
    server.file.write_text(text)
    context = dg.build_sensor_context(instance=instance, definitions=server.definitions)
    with context:
        sensor = server.definitions.resolve_sensor_def("event_file_sensor")
        (request,) = sensor.evaluate_tick(context).run_requests or []
    assert request.tags["obs/seen"].startswith("1 new, ")
    server.tick("pipeline_file_sensor", instance)
    assert not restart_reason(server.root / "data")


def test_another_set_of_assets_is_loaded_anew(
    server: CodeServer, instance: dg.DagsterInstance, httpserver: HTTPServer
) -> None:
    """The webserver is asked for a reload; until then sensors keep the old configuration."""
    answer(httpserver, "WorkspaceLocationEntry")
    server.write("  destinations: [{type: postgres}]\n  allowed_lateness_minutes: 7\n")
    assert str(server.file) in server.tick("pipeline_file_sensor", instance)
    assert asked(httpserver, 1)
    assert not restart_reason(server.root / "data")
    server.load()
    keys = {key.to_user_string() for key in server.definitions.resolve_all_asset_keys()}
    assert "postgres_events" in keys
    assert "as it was" in server.tick("pipeline_file_sensor", instance)
    assert asked(httpserver, 1)


def test_without_a_webserver_a_restart_is_asked_for(
    server: CodeServer, instance: dg.DagsterInstance, httpserver: HTTPServer
) -> None:
    """`obs status` says it until the code has been loaded again; a refused reload counts as none."""
    answer(httpserver, "UnauthorizedError")
    other = server.root / "pipelines" / "audit" / "defs.yaml"
    other.parent.mkdir()
    other.write_text(TEXT.replace('asset_prefix: ""', "asset_prefix: audit"))
    server.tick("pipeline_file_sensor", instance)
    assert asked(httpserver, 1)
    ends = time.monotonic() + 10
    while not restart_reason(server.root / "data") and time.monotonic() < ends:
        time.sleep(0.1)
    assert restart_reason(server.root / "data") == (
        f"restart the code server: {other} changed the set of assets"
    )
    server.load()
    server.tick("pipeline_file_sensor", instance)
    assert not restart_reason(server.root / "data")


def test_a_run_that_starts_while_the_file_is_wrong_uses_the_last_valid_text(
    server: CodeServer, instance: dg.DagsterInstance
) -> None:
    """No hour waits for a mistake to be mended: the run lands the file, and the sensor fails with file and line."""
    (server.root / "events" / "a.jsonl").write_text('{"n": 1}\n')
    server.write("  sample: {success_rat: 1}\n")
    job = server.job("land_event_files")
    assert job.execute_in_process(instance=instance).success
    assert server.tick("event_file_sensor", instance) == "nothing new in 1 files"
    with pytest.raises(dg.Failure, match=r"defs.yaml:5: sample: unknown option 'success_rat'"):
        server.tick("pipeline_file_sensor", instance)
