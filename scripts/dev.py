"""``make dev``: Dagster's UI, schedule and sensors, on the embedded servers unless the environment names others.

PORT chooses the UI's port. DAGSTER_HOME, when it is set, is used as it is; otherwise Dagster keeps its runs in the
embedded PostgreSQL, below OBS_DATA_DIR.
"""

import os
import signal
import socket
import sys
from pathlib import Path

from obs_assets import embedded, settings
from obs_assets.embedded.dagster_home import dagster_home
from obs_assets.errors import ConfigurationError, ObsError
from obs_assets.storage.frames import make_private_dir

PROJECT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Start the servers, then become ``dagster dev``."""
    try:
        port = free_port(os.environ.get("PORT") or "3000")
        environment = prepare()
    except ObsError as error:
        sys.exit(f"make dev: {error}")
    print(f"  Dagster's UI  http://127.0.0.1:{port} in a few seconds; Ctrl-C ends it, `make dev` takes it up again")
    sys.stdout.flush()
    # A shell that starts us in the background ignores SIGINT, and dagster would too: then nothing would end it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    dagster = str(Path(sys.executable).parent / "dagster")
    where = ["--host", "127.0.0.1", "--port", str(port)]
    os.chdir(PROJECT)
    os.execve(dagster, [dagster, "dev", "-w", "workspace.yaml", *where], {**os.environ, **environment})


def free_port(text: str) -> int:
    """The port, if it can be had.

    Raises:
        ConfigurationError: it is none, or somebody listens on it.
    """
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ConfigurationError(f"PORT is {text!r}, but must be a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(text)))
        except OSError as error:
            raise ConfigurationError(
                f"PORT {text} cannot be had ({error.strerror}): choose another one, for example PORT=3100 make dev"
            ) from None
    return int(text)


def prepare() -> dict[str, str]:
    """Start what the environment leaves open, say so, and return what Dagster's environment must say besides.

    Raises:
        ConfigurationError: a setting is wrong, or a server cannot run here.
        TransientError: a server is still busy starting.
    """
    machine = settings.load()
    data_dir = machine.data_dir
    added = {"OBS_DATA_DIR": str(data_dir)}
    home = os.environ.get("DAGSTER_HOME")
    if not home or Path(home).resolve() == (data_dir / "dagster").resolve():
        added |= dagster_home(data_dir)
    used = embedded.resolve(machine)
    assert used.postgres
    assert used.s3
    if not os.environ.get("OBS_EVENTS_DIR"):
        added["OBS_EVENTS_DIR"] = str(make_private_dir(data_dir / "events"))
    events = Path(added.get("OBS_EVENTS_DIR") or os.environ["OBS_EVENTS_DIR"]).absolute()
    added["OBS_EVENTS_DIR"] = str(events)
    print(f"  PostgreSQL    {used.postgres.host}:{used.postgres.port}{'' if machine.postgres else '  (embedded)'}")
    print(f"  S3            {used.s3.endpoint_url or 'AWS'} {used.s3.bucket}{'' if machine.s3 else '  (embedded)'}")
    print(f"  Dagster home  {added.get('DAGSTER_HOME', home)}")
    print(f"  Event files   {events}  (drop .jsonl files here; they are landed within a minute)")
    print("  `obs down` stops the embedded servers")
    return added


if __name__ == "__main__":
    main()
