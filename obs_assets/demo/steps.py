"""Steps one after the other: what is being done and for how long, and a log of what each command said."""

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from obs_assets.errors import ObsError
from obs_assets.storage.disk import make_private_dir

_RAISED = re.compile(r"^[\w.]*\w(?:Error|Exception|Failure|Interrupt): (.+)")


class StepFailedError(ObsError):
    """A step of the demonstration failed. The message is one sentence and names the log."""


class Steps:
    """Shows steps on a console: a live line on a terminal, plain lines elsewhere.

    Args:
        console: where to.
        log_dir: a file for each command.
    """

    def __init__(self, console: Console, log_dir: Path) -> None:
        self._console = console
        self._log_dir = make_private_dir(log_dir)
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Say what is being done, and when it is done how long it took."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        began = time.monotonic()
        if self._console.is_terminal:
            with Progress(*columns, console=self._console, transient=True) as progress:
                progress.add_task(title, total=None)
                yield
        else:
            self._console.print(f"… {title}", highlight=False)
            yield
        self._console.print(
            f"[green]✓[/] {title} [dim]{time.monotonic() - began:.1f} s[/]", highlight=False
        )

    def run(
        self, title: str, program: str, *arguments: str, env: Mapping[str, str], cwd: Path
    ) -> None:
        """Run a program of this Python installation as a step, and show it as a user would type it.

        Raises:
            StepFailedError: it ended with another code than 0.
        """
        self._number += 1
        self._console.print(
            f"\n[bold]$ {shlex.join((program, *arguments))}[/]", highlight=False, soft_wrap=True
        )
        log = (
            self._log_dir
            / f"{self._number}-{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}.log"
        )
        command = [str(Path(sys.executable).parent / program), *arguments]
        with self.step(title), log.open("wb") as output:
            done = subprocess.run(  # noqa: S603 (our own programs)
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            said = (
                last_error(log.read_text(errors="replace"))
                or f"{program} ended with {done.returncode}"
            )
            raise StepFailedError(f"{title} failed: {said} (all that it said: {log})")


def last_error(text: str) -> str | None:
    """The last error that a program's output names."""
    found = [match[1] for line in text.splitlines() if (match := _RAISED.match(line.strip()))]
    return found[-1].rstrip(".") if found else None
