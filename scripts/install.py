"""Install a lock file into this environment: ``.venv/bin/python scripts/install.py requirements.lock``.

Runs pip, which prints either nothing for minutes or hundreds of lines, and prints one line of progress
instead. Knows nothing but Python's own library: nothing else is installed yet.
"""

import collections
import re
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any

PIP = (
    sys.executable,
    "-m",
    "pip",
    "install",
    "--disable-pip-version-check",
    "--progress-bar=off",
    "--no-compile",
)
"""Compiled all at once afterwards, by every core: that takes half of the time."""

TEXT: Any = {"encoding": "utf-8", "errors": "replace"}

STEP_S = 15.0
"""Seconds between two lines where the output is no terminal."""


class Progress:
    """One line that says how far something is."""

    def __init__(self) -> None:
        self._began = self._said_at = time.monotonic()

    def say(self, text: str, *, now: bool = False) -> None:
        """Show a text: on a terminal in place of the one before, elsewhere from time to time, or ``now``."""
        passed = time.monotonic() - self._began
        if sys.stdout.isatty():
            print(f"\r\033[K  {passed:4.0f} s  {text}", end="\n" if now else "", flush=True)
        elif now or time.monotonic() - self._said_at >= STEP_S:
            self._said_at = time.monotonic()
            print(f"  {passed:4.0f} s  {text}", flush=True)


def main(lock: Path) -> int:
    """Install; returns the exit code."""
    number = len(re.findall(r"^[\w.-]+(?:\[.*\])?==", lock.read_text(), re.MULTILINE))
    print(
        f"Installing {number} packages of {lock.name} into {sys.prefix}: this takes some minutes, once.",
        flush=True,
    )
    progress = Progress()
    command = [*PIP, "-r", str(lock)]
    last_lines: collections.deque[str] = collections.deque(maxlen=30)
    done = threading.Event()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **TEXT
    ) as pip:
        assert pip.stdout
        found = 0
        for line in pip.stdout:
            last_lines.append(line)
            if line.startswith(("Collecting ", "Requirement already satisfied")):
                found += 1
                progress.say(f"{found} of {number} packages fetched")
            elif line.startswith("Installing collected packages"):
                threading.Thread(
                    target=watch, args=(progress, line.count(",") + 1, done), daemon=True
                ).start()
        code = pip.wait()
    done.set()
    if code:
        sys.stdout.writelines(["\n", *last_lines])
        print(f"pip could not install {lock.name}: see above", flush=True)
        return code
    progress.say("compiling")
    folder = sysconfig.get_path("purelib")
    # Python 3.14 warns of a `return` in a `finally` in a package: nothing that the user can mend.
    command = [sys.executable, "-W", "ignore", "-m", "compileall", "-qq", "-j", "0", folder]
    subprocess.run(command, check=False)
    progress.say(f"{number} packages installed", now=True)
    return 0


def watch(progress: Progress, number: int, done: threading.Event) -> None:
    """Say how many packages pip has unpacked, which it does not say itself."""
    folder = Path(sysconfig.get_path("purelib"))
    before = len(list(folder.glob("*.dist-info")))
    while not done.wait(1.0):
        unpacked = len(list(folder.glob("*.dist-info"))) - before
        progress.say(f"{min(unpacked, number)} of {number} packages unpacked")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
