"""`obs dev` runs while a destination is added to the pipeline file: the UI has its asset soon."""

import json
import signal
import subprocess
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.api.process import free_port
from obs_assets_tests.system.deployment import wait_for

pytestmark = pytest.mark.system

ASSETS = {"query": "{ assetNodes { assetKey { path } } }"}


def assets(port: int) -> set[str]:
    """Names of the assets that the UI shows; empty if it does not answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps(ASSETS).encode(),
        {"Content-Type": "application/json"},
    )
    with suppress(OSError), urllib.request.urlopen(request, timeout=30) as answer:
        nodes = json.load(answer)["data"]["assetNodes"]
        return {"/".join(node["assetKey"]["path"]) for node in nodes}
    return set()


def test_a_new_destination_appears_without_a_restart(
    settings: Settings, tmp_path: Path
) -> None:
    """`pipeline_file_sensor` asks the webserver for a reload through Dagster's GraphQL."""
    (tmp_path / "events").mkdir()
    ports = {name: free_port() for name in ("PORT", "OBS_API_PORT", "OBS_RECEIVE_PORT")}
    env = harness.environment(
        settings,
        tmp_path / "events",
        OBS_PIPELINES_DIR=str(tmp_path / "pipelines"),
        **{name: str(port) for name, port in ports.items()},
    )
    assert harness.run("obs", "init", str(tmp_path), env=env).code == 0
    file = tmp_path / "pipelines" / "events" / "defs.yaml"
    with subprocess.Popen(
        [harness.BIN / "obs", "dev"], env=env, cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as dev:
        try:
            wait_for("the UI shows assets", lambda: "raw_events" in assets(ports["PORT"]))
            head = "  destinations:\n"
            more = f"{head}    - {{type: s3, name: second_archive, prefix: second}}\n"
            temporary = file.with_suffix(".tmp")
            temporary.write_text(file.read_text().replace(head, more))
            temporary.replace(file)
            wait_for(
                "the UI shows the new asset",
                lambda: "second_archive" in assets(ports["PORT"]),
                timeout_s=120,
            )
        finally:
            dev.send_signal(signal.SIGINT)
