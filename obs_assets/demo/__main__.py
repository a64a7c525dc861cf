"""``python -m obs_assets.demo``, which is ``make demo``. ``KEEP=1`` leaves the servers running."""

import io
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from obs_assets import settings
from obs_assets.demo.run import run
from obs_assets.errors import ObsError

PLAIN_WIDTH = 120
"""Columns of output into a pipe or a file."""


def main() -> int:
    """Run the demonstration; returns the exit code."""
    began = time.monotonic()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An encoding without ✓ must not stop the demonstration.
        sys.stdout.reconfigure(errors="replace")
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    # SIGTERM raises KeyboardInterrupt, so that the servers are stopped too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    environment = settings.environment()
    data_dir = Path(environment.get("OBS_DATA_DIR") or ".obs/demo").absolute()
    keep = environment.get("KEEP", "").lower() in {"1", "true", "yes", "on"}
    try:
        run(console, data_dir, keep=keep)
    except ObsError as error:
        console.print(f"[red]demo:[/] {error}", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("[red]demo:[/] interrupted", highlight=False)
        return 130
    console.print(f"[dim]{time.monotonic() - began:.0f} s in all[/]", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
