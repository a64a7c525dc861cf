"""A server program with its own folder: detached from our process, found by any process, always stopped.

Code that PostgreSQL and SeaweedFS share belongs here; code that only one of them needs does not.
The folder::

    <data_dir>/servers/<name>/
    ├── lock          locked while a process starts or stops the server
    ├── server.json   port, password and process id (mode 0600)
    ├── server.log    output since the last start; server.log.1 has the output before
    └── data/         the server's own files
"""

import contextlib
import fcntl
import logging
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil
from pydantic import BaseModel, Field, ValidationError

from obs_assets.errors import ConfigurationError, TransientError
from obs_assets.storage.disk import make_private_dir, replacing

LOOPBACK = "127.0.0.1"

PORTS = range(10_240, 22_000)
"""Ports of the servers.

Linux gives ports from 32768 on to outgoing connections. SeaweedFS also uses each port plus 10000.
"""

MAX_STARTS = 4
"""Starts of a server that ends at once, before it is an error."""

START_TIMEOUT_S = 120.0
"""Seconds until a started server must answer. PostgreSQL can have gigabytes of its log to replay."""

PORT_PATIENCE_S = 1.0
"""Seconds to wait for the port of the last start: a killed process holds its ports a moment longer."""

POLL_S = 0.02
"""Seconds between two looks at a server that starts or stops."""

MAX_REASON = 300
"""Largest number of characters of a reason in an error message."""

# PostgreSQL writes FATAL or PANIC, its tools "error:", SeaweedFS F and the date: "F1129 …".
_ERROR_LINE = re.compile(r"FATAL|PANIC|error:|^F\d{4} ")

_log = logging.getLogger(__name__)


class Access(BaseModel, frozen=True, extra="forbid"):
    """Address and password of a server, as stored in its folder.

    Attributes:
        port: port on loopback; 0 before the first start.
        password: password or secret key of its only user.
        pid: id of its process; 0 before it has started.
        ready: whether this process has answered.
    """

    port: int
    password: str = Field(repr=False)
    pid: int = 0
    ready: bool = False


@dataclass(frozen=True)
class ServerStatus:
    """The present state of an embedded server.

    Attributes:
        name: its name in messages, for example ``PostgreSQL``.
        running: whether its process runs.
        address: host and port, or URL; None if it has never run.
        pid: id of its process; None if it does not run.
        folder: its folder.
    """

    name: str
    running: bool
    address: str | None
    pid: int | None
    folder: Path


@dataclass(frozen=True)
class Server(ABC):
    """A server of some kind in a folder.

    Attributes:
        folder: its folder.
        name: its name in messages, for example ``PostgreSQL``.
        setting: the variable that names a server of the user's own instead.
        program: the name of its process.
        endings: signals that stop it, the gentlest first, each with the seconds to wait for its end.
    """

    folder: Path
    name: ClassVar[str]
    setting: ClassVar[str]
    program: ClassVar[str]
    endings: ClassVar[tuple[tuple[signal.Signals, float], ...]]

    @property
    @abstractmethod
    def mark(self) -> str:
        """An argument of its command line that no other process of the same program has."""

    @abstractmethod
    def address(self, access: Access) -> str:
        """Host and port, or URL, for messages."""

    @abstractmethod
    def prepare(self, access: Access) -> list[str]:
        """Create its files; returns its command line."""

    @abstractmethod
    def answers(self, access: Access) -> bool:
        """Whether it is ready to serve."""

    def environment(self, access: Access) -> dict[str, str]:  # noqa: ARG002 (the S3 server needs it)
        """Its environment: without the user's PG… and AWS_… variables and home folder."""
        return {"PATH": os.defpath, "HOME": str(self.folder), "LC_ALL": "C", "TZ": "UTC"}

    def can_use(self, port: int) -> bool:
        """Whether the port, and all ports that belong to it, are free."""
        return is_free(port)

    @abstractmethod
    def clean_up(self, access: Access) -> None:
        """Remove processes and files that a dead server left behind."""

    @property
    def data(self) -> Path:
        """Folder of its own files."""
        return self.folder / "data"

    @property
    def log_file(self) -> Path:
        """File with its output."""
        return self.folder / "server.log"

    @property
    def access_file(self) -> Path:
        """File with its `Access`."""
        return self.folder / "server.json"


def ensure(server: Server) -> Access:
    """Start the server if it does not run; returns its address and password.

    Raises:
        ConfigurationError: it cannot run here.
        TransientError: it is still starting.
    """
    with _locked(server):
        access = _load(server)
        pid = _find(server, access)
        if access and access.ready and access.pid == pid:
            return access
        if pid and not access:
            # Its folder was deleted while it ran, and its password with the folder.
            _end(server, pid)
        return _started(server, access or Access(port=0, password=secrets.token_hex(20)))


def stop(server: Server) -> bool:
    """Stop the server and wait for its end; False if it did not run.

    Raises:
        TransientError: it does not stop.
    """
    if not server.folder.is_dir():
        return False
    with _locked(server):
        access = _load(server)
        pid = _find(server, access)
        if pid:
            _end(server, pid)
        if access:
            server.clean_up(access)
    return pid is not None


def status(server: Server) -> ServerStatus:
    """The present state of the server; changes nothing."""
    access = _load(server)
    pid = _find(server, access)
    address = server.address(access) if access else None
    return ServerStatus(server.name, pid is not None, address, pid, server.folder)


def pids_of(program: str) -> list[int]:
    """Ids of the processes of a program."""
    processes = psutil.process_iter(["name"])
    return [process.pid for process in processes if process.info["name"] == program]


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty if it has ended or is a zombie."""
    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.Error:
        return []


def is_free(port: int) -> bool:
    """Whether no process listens on a port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def reason(output: str) -> str:
    """The line of a program's output that says why it stopped, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if not lines:
        return "it printed nothing"
    errors = [line for line in lines if _ERROR_LINE.search(line)]
    return (errors or lines)[-1][:MAX_REASON]


@contextlib.contextmanager
def _locked(server: Server) -> Iterator[None]:
    try:
        with (make_private_dir(server.folder) / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise ConfigurationError(
            f"cannot run the embedded {server.name} in {server.folder} (OBS_DATA_DIR): "
            f"{error.strerror}; repair that, or set {server.setting} to use a server of your own"
        ) from error


def _load(server: Server) -> Access | None:
    try:
        return Access.model_validate_json(server.access_file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {server.access_file} (OBS_DATA_DIR): {error.strerror}"
        ) from None
    except ValidationError:
        raise ConfigurationError(
            f"{server.access_file} is damaged: restore it, or remove {server.folder} "
            f"with all its data"
        ) from None


def _save(server: Server, access: Access) -> Access:
    with replacing(server.access_file) as tmp_path:
        tmp_path.write_text(access.model_dump_json())
    return access


def _find(server: Server, access: Access | None) -> int | None:
    # The process id alone is not enough: a later process can have the id of a dead server.
    if access and access.pid and server.mark in command_line(access.pid):
        return access.pid
    for pid in pids_of(server.program):
        if server.mark in command_line(pid):
            return pid
    return None


def _started(server: Server, access: Access) -> Access:
    starts = 0
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        pid = _find(server, access)
        if pid:
            access = access.model_copy(update={"pid": pid})
            if server.answers(access):
                return _save(server, access.model_copy(update={"ready": True}))
        elif starts < MAX_STARTS:
            # Processes of a killed server can need a moment to end.
            time.sleep(starts * 0.3)
            access = _start(server, access)
            starts += 1
        else:
            why = reason(server.log_file.read_text(errors="replace"))
            raise ConfigurationError(
                f"the embedded {server.name} does not start: {why} (its log: {server.log_file}); "
                f"repair that, or set {server.setting} to use a server of your own"
            )
        time.sleep(POLL_S)
    raise TransientError(
        f"the embedded {server.name} is not ready after {START_TIMEOUT_S:.0f} s; "
        f"its log: {server.log_file}"
    )


def _start(server: Server, access: Access) -> Access:
    server.clean_up(access)
    port = _choose_port(server, access.port)
    access = _save(server, Access(port=port, password=access.password))
    command = server.prepare(access)
    if server.log_file.exists():
        server.log_file.replace(server.log_file.with_suffix(".log.1"))
    # The shell ends at once, so the server is not our child: Ctrl-C, a hang-up or our end do not reach
    # it, and the system reaps it.
    script = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
    shell = subprocess.run(  # noqa: S603 (our own programs)
        ["/bin/sh", "-c", script, "sh", str(server.log_file), *command],
        cwd=server.folder,
        env=server.environment(access),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        umask=0o077,
        check=True,
    )
    return _save(server, access.model_copy(update={"pid": int(shell.stdout)}))


def _choose_port(server: Server, remembered: int) -> int:
    """The port of the last start (0: none) if it is free soon, else a random free port."""
    deadline = time.monotonic() + PORT_PATIENCE_S
    while remembered and time.monotonic() < deadline:
        if server.can_use(remembered):
            return remembered
        time.sleep(POLL_S)
    for port in random.sample(PORTS, 1000):
        if server.can_use(port):
            if remembered:
                _log.warning(
                    "port %d is taken: the embedded %s moves to port %d",
                    remembered,
                    server.name,
                    port,
                )
            return port
    raise ConfigurationError(
        f"no port is free for the embedded {server.name}: set {server.setting} to use another"
    )


def _end(server: Server, pid: int) -> None:
    """Send the signals of `Server.endings`, one after another, until the process has ended."""
    for number, patience_s in server.endings:
        # Another process can have the id by now: only the server gets a signal.
        if server.mark in command_line(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if is_gone(pid):
                return
            time.sleep(POLL_S)
    raise TransientError(
        f"the embedded {server.name} (process {pid}) does not end; its log: {server.log_file}"
    )


def is_gone(pid: int) -> bool:
    """Whether a process and all its threads have ended, though perhaps its parent has not reaped it.

    A process loses its command line first, while it still holds its ports. Its first thread can be a zombie
    while another still creates a socket. So neither of the two is a sign of its end.
    """
    try:
        found = psutil.Process(pid)
        return bool(found.status() == psutil.STATUS_ZOMBIE) and found.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True
