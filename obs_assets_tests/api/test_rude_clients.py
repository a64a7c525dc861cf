"""Clients that drip, hang, and come in floods; TLS. Each on a server in a process of its own."""

import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from obs_assets.api.serving import KEEP_ALIVE_S, MOST_CONNECTIONS
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets_tests.api.process import running

pytestmark = pytest.mark.slow

PATH = "/api/v1/events"

MAKE_CERTIFICATE = (
    "openssl",
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-days",
    "2",
    "-subj",
    "/CN=localhost",
    "-addext",
    "subjectAltName=IP:127.0.0.1",
    "-keyout",
)


def connected(address: str) -> socket.socket:
    host, _, port = address.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def test_dripping_hanging_and_many_clients(hourly: HourlyPipeline, tmp_path: Path) -> None:
    """A request that never ends is cut; connections that send nothing take no place of others."""
    with running(hourly, tmp_path) as (_, address), ExitStack() as stack:
        drip, mute = (stack.enter_context(connected(address)) for _ in range(2))
        began = time.monotonic()
        with suppress(OSError):
            for letter in f"GET {PATH}?q=" + "a" * 200:
                drip.sendall(letter.encode())
                assert time.monotonic() - began < KEEP_ALIVE_S + 10
                time.sleep(0.5)
        assert time.monotonic() - began > KEEP_ALIVE_S - 1
        assert mute.recv(1) == b""
        with ExitStack() as flood:
            for _ in range(MOST_CONNECTIONS):
                flood.enter_context(connected(address))
            assert httpx.get(f"{address}{PATH}", timeout=10).status_code == 200
        assert httpx.get(f"{address}{PATH}", timeout=10).status_code == 200


def test_a_server_with_tls_files(hourly: HourlyPipeline, tmp_path: Path) -> None:
    """It answers over TLS 1.2 and later alone; a key of another certificate is refused at the start."""
    files = {}
    for name in ("own", "other"):
        key, certificate = tmp_path / f"{name}.key", tmp_path / f"{name}.pem"
        subprocess.run(
            [*MAKE_CERTIFICATE, key, "-out", certificate], check=True, capture_output=True
        )
        files[name] = (str(certificate), str(key))
    certificate, key = files["own"]
    tls = {"OBS_API_TLS_CERTIFICATE": certificate, "OBS_API_TLS_KEY": key}
    with running(hourly, tmp_path, **tls) as (_, address):
        context = ssl.create_default_context(cafile=certificate)
        assert httpx.get(f"{address}{PATH}", verify=context).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address.replace('https', 'http')}{PATH}")
    with running(hourly, tmp_path, **tls | {"OBS_API_TLS_KEY": files["other"][1]}) as (
        broken,
        _,
    ):
        _, problem = broken.communicate(timeout=60)
        assert broken.returncode == 2
        assert "the key does not belong to the certificate, or" in problem
