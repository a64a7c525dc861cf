"""The server behind Debian's nginx with default settings: streams stream, and exports are whole."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hours import Hour
from obs_assets_tests.api.conftest import Load, some_events
from obs_assets_tests.api.process import free_port, running
from obs_assets_tests.api.test_live import begin, parsed, rows_until
from obs_assets_tests.frames import HOUR

pytestmark = pytest.mark.system

WAIT_S = 10
"""Seconds for a message on a busy machine; the next sign of life comes after 15."""

PACKAGED = Path("/etc/nginx/nginx.conf")
SITES = "include /etc/nginx/sites-enabled/*;"

SITE = """
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass {upstream}; }}
    }}
"""
"""A site as a first tutorial has it: no setting about buffers, times or versions of HTTP."""


@contextmanager
def nginx(upstream: str, folder: Path) -> Iterator[str]:
    """Debian's nginx in front of a server, and its address; only files and the site are this test's."""
    port = free_port()
    text = PACKAGED.read_text()
    assert SITES in text
    text = text.replace(SITES, SITE.format(port=port, upstream=upstream))
    for path in ("/run/nginx.pid", "/var/log/nginx/error.log", "/var/log/nginx/access.log"):
        text = text.replace(path, str(folder / Path(path).name))
    config = folder / "nginx.conf"
    config.write_text(text)
    with subprocess.Popen(["nginx", "-c", config, "-g", "daemon off;"]) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(100):
                try:
                    httpx.get(f"{address}/healthz")
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield address
        finally:
            process.terminate()


def test_streams_come_through_nginx_at_once(
    hourly: HourlyPipeline, load: Load, tmp_path: Path
) -> None:
    """Each message of a live stream comes when it is sent; an export is the same as without nginx."""
    hour = Hour(HOUR.start + timedelta(days=9))
    with running(hourly, tmp_path) as (_, server), nginx(server, tmp_path) as address:
        began = time.monotonic()
        with httpx.stream("GET", f"{address}/api/v1/tail", timeout=20) as answer:
            stream = parsed(answer.iter_lines())
            begin(stream)
            assert time.monotonic() - began < WAIT_S
            for generation in (1, 2):
                late = {
                    "id": f"late-{generation}",
                    "type": "late",
                    "timestamp": hour.start.isoformat(),
                }
                load(hour, [*some_events(hour), late], generation=generation)
                loaded = time.monotonic()
                rows_until(stream, 1)
                # A proxy that collects would wait for kilobytes, or for the end.
                assert time.monotonic() - loaded < WAIT_S
        path = f"/api/v1/export?from={hour.start:%Y-%m-%d}"
        through, direct = (httpx.get(at + path, timeout=30) for at in (address, server))
        assert through.content == direct.content
        assert '"complete": true' in through.text
