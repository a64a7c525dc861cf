"""Steps one after another, each with its title, its duration and a log of its output."""

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
    """A step of the demonstration failed. The message is a sentence and names the log."""


class Steps:
    """Shows steps on a console: a live line on a terminal, plain lines elsewhere.

    Args:
        console: the output.
        log_dir: folder of the logs, a file for each command.
    """

    def __init__(self, console: Console, log_dir: Path) -> None:
        self._console = console
        self._log_dir = make_private_dir(log_dir)
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print the title of a step, and at its end how long it took."""
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
        self,
        title: str,
        program: str,
        *arguments: str,
        env: Mapping[str, str],
        cwd: Path,
    ) -> None:
        """Run a program of this Python installation as a step; print it as a user would type it.

        Args:
            title: title of the step, and name of its log.
            program: name of the program, for example ``dagster``.
            arguments: its arguments.
            env: its whole environment.
            cwd: its working directory.

        Raises:
            StepFailedError: its exit code is not 0.
        """
        # The number in front keeps the logs in the order of the steps.
        self._number += 1
        self._console.print(
            f"\n[bold]$ {shlex.join((program, *arguments))}[/]", highlight=False, soft_wrap=True
        )
        slug = re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")
        log = self._log_dir / f"{self._number}-{slug}.log"
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
            output_text = log.read_text(errors="replace")
            reason = last_error(output_text) or f"{program} ended with {done.returncode}"
            raise StepFailedError(f"{title} failed: {reason} (its whole output: {log})")


def last_error(text: str) -> str | None:
    """The message of the last Python error in a program's output; None without an error.

    For example ``obs_assets.errors.PermanentError: the disk is full.`` → ``the disk is full``.
    """
    # From the end: the last error of a traceback is the error that ended the program.
    for line in reversed(text.splitlines()):
        match = _RAISED.match(line.strip())
        if match:
            return match[1].rstrip(".")
    return None
