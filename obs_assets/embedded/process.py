"""One server program with a folder of its own: started apart from us, found again by any process, ended for certain.

What PostgreSQL and SeaweedFS share belongs here; what one of them needs does not. The folder::

    <data_dir>/servers/<name>/
    ├── lock          held while somebody starts or stops the server
    ├── server.json   its port, its password and its process (mode 0600)
    ├── server.log    what it printed since its last start; server.log.1 before that
    └── data/         its own files
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
# Below the ports that Linux lends to outgoing connections (from 32768), also once SeaweedFS has added 10000.
PORTS = range(10_240, 22_000)
MAX_STARTS = 4
START_TIMEOUT_S = 120.0  # PostgreSQL may have gigabytes of its log to replay
PORT_PATIENCE_S = 1.0  # A killed process holds its ports a moment longer.
POLL_S = 0.02

_log = logging.getLogger(__name__)


class Access(BaseModel, frozen=True, extra="forbid"):
    """How a server is reached, as its folder remembers it; ``ready`` once the process ``pid`` has answered."""

    port: int
    password: str = Field(repr=False)
    pid: int = 0
    ready: bool = False


@dataclass(frozen=True)
class ServerStatus:
    """One embedded server as it is now; ``address`` is None when it has never run."""

    name: str
    running: bool
    address: str | None
    pid: int | None
    folder: Path


@dataclass(frozen=True)
class Server(ABC):
    """A kind of server in a folder.

    Attributes:
        name: as people call it.
        setting: the variable that names a server of the user's own instead.
        program: the name of its process.
        endings: signals that end it, the gentlest first, each with the seconds that it may take.
    """

    folder: Path
    name: ClassVar[str]
    setting: ClassVar[str]
    program: ClassVar[str]
    endings: ClassVar[tuple[tuple[signal.Signals, float], ...]]

    @property
    @abstractmethod
    def mark(self) -> str:
        """An argument of its command line that no other process of that program has."""

    @abstractmethod
    def address(self, access: Access) -> str:
        """Where it listens, for people."""

    @abstractmethod
    def prepare(self, access: Access) -> list[str]:
        """Make what it needs on disk; returns its command line."""

    @abstractmethod
    def answers(self, access: Access) -> bool:
        """Whether it is ready to serve."""

    def environment(self, access: Access) -> dict[str, str]:  # noqa: ARG002 (for the S3 server's)
        """What its environment holds. The user's own PG… and AWS_… variables and home stay out of it."""
        return {"PATH": os.defpath, "HOME": str(self.folder), "LC_ALL": "C", "TZ": "UTC"}

    def can_use(self, port: int) -> bool:
        """Whether nobody has the port, nor those that go with it."""
        return is_free(port)

    @abstractmethod
    def clean_up(self, access: Access) -> None:
        """Remove what a dead one left behind."""

    @property
    def data(self) -> Path:
        """Its own files."""
        return self.folder / "data"

    @property
    def log_file(self) -> Path:
        """What it printed."""
        return self.folder / "server.log"

    @property
    def access_file(self) -> Path:
        """Where its `Access` is kept."""
        return self.folder / "server.json"


def ensure(server: Server) -> Access:
    """How to reach the server, which is started if it does not run.

    Raises:
        ConfigurationError: it cannot run here.
        TransientError: it is still busy starting.
    """
    with _locked(server):
        access = _load(server)
        pid = _find(server, access)
        if access and access.ready and access.pid == pid:
            return access
        if pid and not access:
            _end(server, pid)  # Its folder was deleted under it, and its password with that.
        return _started(server, access or Access(port=0, password=secrets.token_hex(20)))


def stop(server: Server) -> bool:
    """End the server and wait until it is gone; False when it did not run.

    Raises:
        TransientError: it does not end.
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
    """The server as it is now; changes nothing."""
    access = _load(server)
    pid = _find(server, access)
    return ServerStatus(
        server.name,
        pid is not None,
        server.address(access) if access else None,
        pid,
        server.folder,
    )


def pids_of(program: str) -> list[int]:
    """The processes of a program."""
    return [
        process.pid
        for process in psutil.process_iter(["name"])
        if process.info["name"] == program
    ]


def command_line(pid: int) -> list[str]:
    """The arguments of a process; none when it is gone, or a zombie that nobody has reaped."""
    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.Error:
        return []


def is_free(port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def reason(output: str) -> str:
    """The line of a program's output that says why it stopped."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or [
        "it printed nothing"
    ]
    return next(
        (line for line in reversed(lines) if re.search(r"FATAL|PANIC|error:|^F\d{4} ", line)),
        lines[-1],
    )[:300]


@contextlib.contextmanager
def _locked(server: Server) -> Iterator[None]:
    try:
        with (make_private_dir(server.folder) / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise ConfigurationError(
            f"cannot run the embedded {server.name} in {server.folder} (OBS_DATA_DIR): {error.strerror}; "
            f"repair that, or set {server.setting} to use a server of your own"
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
            f"{server.access_file} is damaged: restore it, or remove {server.folder} with all its data"
        ) from None


def _save(server: Server, access: Access) -> Access:
    with replacing(server.access_file) as aside:
        aside.write_text(access.model_dump_json())
    return access


def _find(server: Server, access: Access | None) -> int | None:
    # By number alone, a process that was given the number of a dead server would pass for it.
    if access and access.pid and server.mark in command_line(access.pid):
        return access.pid
    return next(
        (pid for pid in pids_of(server.program) if server.mark in command_line(pid)), None
    )


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
            time.sleep(starts * 0.3)  # What is left of a killed one may need a moment to go.
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
        f"the embedded {server.name} is not ready after {START_TIMEOUT_S:.0f} s; its log: {server.log_file}"
    )


def _start(server: Server, access: Access) -> Access:
    server.clean_up(access)
    access = _save(
        server, Access(port=_choose_port(server, access.port), password=access.password)
    )
    command = server.prepare(access)
    if server.log_file.exists():
        server.log_file.replace(server.log_file.with_suffix(".log.1"))
    # The shell ends at once, so the server is not our child: no Ctrl-C, hang-up or end of ours reaches it, and the
    # system reaps it.
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
    for number, patience_s in server.endings:
        if server.mark in command_line(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if _is_gone(pid):
                return
            time.sleep(POLL_S)
    raise TransientError(
        f"the embedded {server.name} (process {pid}) does not end; its log: {server.log_file}"
    )


def _is_gone(pid: int) -> bool:
    # Its command line goes first, when it still holds its ports.
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
