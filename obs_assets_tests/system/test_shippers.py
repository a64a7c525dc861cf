"""Debian's syslog daemons send to `obs receive`, which is killed meanwhile: every line lands."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
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


def send_all(process: Process, command: list[str], env: Mapping[str, str] = os.environ) -> None:
    """Let a daemon send a file while the receiver is killed; then all lines have landed."""
    log = process.root / "app.log"
    log.touch()
    process.start()
    with running(command, process.root, env):
        for first in range(0, LINES, LINES // 4):
            with log.open("a") as file:
                file.writelines(
                    f"line {n} of the shop\n" for n in range(first, first + LINES // 4)
                )
            wait_for(lambda: stored(process) > 0, 60)
            time.sleep(0.2)
            process.kill()
            process.start()
        with log.open("a") as file:
            file.write("the end\n")
        wait_for(lambda: b"the end" in content(process), 120)
    process.stop()
    messages = {event["message"].strip() for event in process.landed()}
    assert messages >= {f"line {n} of the shop" for n in range(LINES)}


def content(process: Process) -> bytes:
    """The bytes of all files of the receiver."""
    folder = process.place.events_dir / "receiver" / "main"
    return b"".join(path.read_bytes() for path in folder.glob("*.jsonl"))


def stored(process: Process) -> int:
    """Number of lines in the files of the receiver."""
    return content(process).count(b"\n")


def test_rsyslog(process: Process) -> None:
    """rsyslog's omelasticsearch sends to `/_bulk`."""
    program = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
    assert program, "apt-get install rsyslog rsyslog-elasticsearch"
    conf = process.root / "rsyslog.conf"
    conf.write_text(RSYSLOG.format(root=process.root, port=process.port))
    send_all(process, [program, "-n", "-f", str(conf), "-i", str(process.root / "pid")])


def test_syslog_ng(process: Process) -> None:
    """syslog-ng's http destination sends to `/events`."""
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
    send_all(process, command, {**os.environ, "LD_LIBRARY_PATH": str(library.parent)})
