"""Debian's syslog daemons send to `obs receive`, and every line lands."""

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from obs_assets_tests.receive.conftest import Process, process, wait_for

__all__ = ["process"]

pytestmark = pytest.mark.system

LINES = 5_000

SYSLOG_NG = Path("/opt/syslog-ng")
"""Folder in which `.ci/run` unpacks syslog-ng: its package cannot be installed beside rsyslog's."""

RSYSLOG = """\
global(workDirectory="{root}")
module(load="imfile" PollingInterval="1")
module(load="omelasticsearch")
template(name="document" type="list" option.jsonf="on") {{
  property(outname="@timestamp" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="message" name="msg" format="jsonf")
}}
input(type="imfile" File="{root}/app.log" Tag="app" Severity="warning")
action(
  type="omelasticsearch" server="127.0.0.1" serverport="{port}" template="document"
  searchIndex="logs" searchType="" bulkmode="on" maxbytes="64k"
  queue.type="linkedlist" queue.dequeueBatchSize="200"
  action.resumeRetryCount="-1" action.resumeInterval="1"
)
"""

SYSLOG_NG_CONF = """\
@version: 3.38
options {{ time-reopen(1); }};
source app {{ file("{root}/app.log" follow-freq(0.5) flags(no-parse) log-fetch-limit(1000)); }};
destination receiver {{
  http(
    url("http://127.0.0.1:{port}/events") method("POST") headers("Content-Type: application/json")
    body("$(format-json --scope none timestamp=$ISODATE message=$MESSAGE)")
    delimiter("\\n") batch-lines(200) batch-timeout(100) retries(10000)
  );
}};
log {{ source(app); destination(receiver); flags(flow-control); }};
"""


@contextlib.contextmanager
def running(
    command: list[str], folder: Path, env: Mapping[str, str] = os.environ
) -> Iterator[None]:
    """A daemon in the foreground; its output is in a file."""
    with (folder / "shipper.log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, env=dict(env))
    try:
        yield
    finally:
        daemon.terminate()
        daemon.wait(timeout=30)


def send_all(
    process: Process,
    command: list[str],
    between: Callable[[int], None],
    env: Mapping[str, str] = os.environ,
    *,
    lines: int = LINES,
    parts: int = 4,
) -> None:
    """Let a daemon send a growing file; then all lines have landed.

    Args:
        process: the receiver.
        command: starts the daemon.
        between: called after each part of the lines, with the number of lines written.
        env: environment of the daemon.
        lines: number of lines; a multiple of the parts.
        parts: number of parts.
    """
    size = lines // parts
    log = process.root / "app.log"
    log.touch()
    process.start()
    with running(command, process.root, env):
        for first in range(0, lines, size):
            with log.open("a") as file:
                file.writelines(f"line {n} of the shop\n" for n in range(first, first + size))
            between(first + size)
        # A daemon may send a line that it tries again after later lines.
        expected = {f"line {n} of the shop" for n in range(lines)}
        wait_for(lambda: expected <= stored(process), 600)
    process.stop()
    assert {event["message"].strip() for event in process.landed()} == expected


def stored(process: Process) -> set[str]:
    """The lines in the files of the receiver."""
    folder = process.place.events_dir / "receiver" / "main"
    content = b"".join(path.read_bytes() for path in folder.glob("*.jsonl"))
    return {found.decode() for found in re.findall(rb"line \d+ of the shop", content)}


def test_rsyslog(process: Process) -> None:
    """rsyslog's omelasticsearch sends to `/_bulk`; the receiver is not killed (docs/receiving.md says why)."""

    def wait(written: int) -> None:
        wait_for(lambda: len(stored(process)) == written, 60)

    program = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
    assert program, "apt-get install rsyslog rsyslog-elasticsearch"
    conf = process.root / "rsyslog.conf"
    conf.write_text(RSYSLOG.format(root=process.root, port=process.port))
    command = [program, "-n", "-f", str(conf), "-i", str(process.root / "pid")]
    send_all(process, command, wait)


@pytest.mark.parametrize(
    ("lines", "kills"),
    [
        (LINES, 4),
        pytest.param(100_000, 20, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_syslog_ng(process: Process, lines: int, kills: int) -> None:
    """syslog-ng's http destination sends to `/events`, and sends again what a kill left unanswered."""

    def kill(written: int) -> None:
        del written
        wait_for(lambda: bool(stored(process)), 60)
        time.sleep(0.2)
        process.kill()
        process.start()

    program = SYSLOG_NG / "usr/sbin/syslog-ng"
    assert program.exists(), ".ci/run unpacks syslog-ng-core and syslog-ng-mod-http"
    conf = process.root / "syslog-ng.conf"
    conf.write_text(SYSLOG_NG_CONF.format(root=process.root, port=process.port))
    (library,) = SYSLOG_NG.glob("usr/lib/*/libsyslog-ng-*.so.0")
    (modules,) = SYSLOG_NG.glob("usr/lib/syslog-ng/*/")
    command = [
        *(str(program), "-F", "-f", str(conf), "--no-caps"),
        *(f"--module-path={modules}", f"--persist-file={process.root}/persist"),
        *(f"--pidfile={process.root}/pid", f"--control={process.root}/control"),
    ]
    env = {**os.environ, "LD_LIBRARY_PATH": str(library.parent)}
    send_all(process, command, kill, env, lines=lines, parts=kills)
