"""The server process: its address, who may ask it, and its end."""

import fcntl
import signal
from pathlib import Path

import httpx
import pytest

from obs_assets.api.serving import Listener, host_name, refuse_open
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets_tests.api.process import running


@pytest.mark.slow
def test_a_process_serves_until_it_is_told_to_end(
    hourly: HourlyPipeline, tmp_path: Path
) -> None:
    """Unknown names are refused, values are not logged, a second server finds the port in use."""
    with running(hourly, tmp_path) as (process, address):
        assert httpx.get(f"{address}/readyz").json() == {"status": "ok"}
        strange = httpx.get(f"{address}/readyz", headers={"Host": "evil.example"})
        assert (strange.status_code, strange.json()["type"]) == (421, "/problems#host")
        assert "add the name to OBS_API_HOSTS." in strange.json()["detail"]
        for known in ("localhost:1", "[::1]:3001", "10.0.0.1"):
            assert httpx.get(f"{address}/healthz", headers={"Host": known}).status_code == 200
        assert httpx.get(f"{address}/api/v1/events?q=secret").status_code == 200
        port = address.rpartition(":")[2]
        with running(hourly, tmp_path, OBS_API_PORT=port) as (second, _):
            _, problem = second.communicate(timeout=30)
            assert second.returncode == 2
            assert f"port {port} is in use: set OBS_API_PORT, for example" in problem
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=5)
        assert "GET /api/v1/events [q] 200" in log
        assert "secret" not in log


@pytest.mark.slow
def test_a_log_that_nothing_reads_stops_no_request(
    hourly: HourlyPipeline, tmp_path: Path
) -> None:
    """The server answers all the same, and ends when it is told to."""
    with (
        running(hourly, tmp_path) as (process, address),
        httpx.Client(base_url=address) as client,
    ):
        assert process.stderr
        # A page of memory: it has room for some forty lines.
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        for _ in range(200):
            assert client.get("/healthz", timeout=5).status_code == 200
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
        assert "GET /healthz [] 200" in process.stderr.read()


def test_only_loopback_is_served_to_anybody() -> None:
    """An address that other machines reach needs a mode; the message names the settings."""
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        refuse_open(Listener(host, 1, "OBS_API_"))
    refuse_open(Listener("0.0.0.0", 1, "OBS_API_", is_guarded=True))
    for host in ("0.0.0.0", "::", "10.1.2.3", "db.example.com", ""):
        with pytest.raises(ConfigurationError, match="set OBS_API_AUTH to token, or"):
            refuse_open(Listener(host, 1, "OBS_API_"))


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("LocalHost:3001", "localhost"),
        ("[::1]:3001", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("obs.example.com.", "obs.example.com"),
        ("", ""),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    """Without port, brackets, capitals and the dot of the root."""
    assert host_name(header) == name
