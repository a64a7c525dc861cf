"""``obs serve`` in a process of its own."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets_tests.harness import BIN


def free_port() -> int:
    """A port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    hourly: HourlyPipeline, folder: Path, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``obs serve`` in a process of its own, and its address."""
    postgres = hourly.settings.postgres
    assert postgres
    assert postgres.password
    port = free_port()
    pipeline = folder / "pipelines" / "events" / "defs.yaml"
    pipeline.parent.mkdir(parents=True, exist_ok=True)
    pipeline.write_text(
        "type: obs_assets.components.ObservabilityPipeline\n"
        f"attributes:\n  asset_prefix: ''\n  source: {{events_dir: {folder / 'events'}}}\n"
        "  destinations: [{type: postgres}]\n"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "OBS_DATA_DIR": str(folder / "data"),
        "OBS_PIPELINES_DIR": str(folder / "pipelines"),
        "POSTGRES_HOST": postgres.host,
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_DB": postgres.database,
        "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": postgres.password.get_secret_value(),
        "OBS_API_PORT": str(port),
        **variables,
    }
    with subprocess.Popen(
        [BIN / "obs", "serve"],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            scheme = "https" if "OBS_API_TLS_CERTIFICATE" in variables else "http"
            address = f"{scheme}://127.0.0.1:{port}"
            for _ in range(300):
                with contextlib.suppress(httpx.TransportError):
                    # A test's certificate has no authority.
                    httpx.get(f"{address}/healthz", verify=False)
                    break
                if process.poll() is not None:
                    break
                time.sleep(0.1)
            yield process, address
        finally:
            process.kill()
