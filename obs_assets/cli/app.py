"""Shared by all commands: the typer application, common options, printing."""

import json
import platform
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from obs_assets.cli.commands import CommandsOnDemand
from obs_assets.errors import ConfigurationError, ObsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from obs_assets.hourly.hourly_pipeline import HourlyPipeline
    from obs_assets.hourly.present import Present

app = typer.Typer(
    cls=CommandsOnDemand,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Event files in, trusted hours out. An hour is written as Dagster's key, "
        "2025-12-04-10:00, a day as 2025-12-04, a range as A...B."
    ),
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        typer.echo(
            f"obs_assets {metadata.version('obs_assets')}, Python {platform.python_version()}"
        )
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Declare the options of ``obs`` itself."""
    del version  # `_print_version` has printed it.


PIPE_COLUMNS = 240
"""Columns of the output into a pipe or a file, where lines must not be cut at 80 columns."""

# No markup: names of files and texts of errors can have brackets.
out = Console(soft_wrap=True, markup=False, emoji=False)
if not sys.stdout.isatty():
    out.width = PIPE_COLUMNS

Pipeline = Annotated[
    str,
    typer.Option(
        "--pipeline",
        show_default=False,
        help=(
            "Pipeline name (its folder in OBS_PIPELINES_DIR); by default the only pipeline, "
            "or the pipeline without an asset prefix."
        ),
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Hours = Annotated[
    str,
    typer.Argument(
        metavar="HOUR|DAY|A...B",
        help="An hour (2025-12-04-10:00), a day (2025-12-04) or a range (A...B).",
    ),
]


def main() -> None:
    """Run the command line. Every error is printed as a sentence, without a traceback."""
    try:
        app()
    except ConfigurationError as error:
        fail(str(error), 2)
    except ObsError as error:
        fail(str(error), 1)
    except OSError as error:
        # A full disk or an unreadable folder, for example.
        # Only the path and the system's reason: the rest of the error can hold a secret.
        where = ""
        if isinstance(error.filename, str):
            where = f"{error.filename}: "
        fail(f"{where}{error.strerror or type(error).__name__}", 1)


def fail(message: str, code: int) -> NoReturn:
    """Print a sentence to standard error and exit with ``code``."""
    typer.echo(f"obs: {message}", err=True)
    sys.exit(code)


def verdict(line: str, *, ok: bool) -> Text:
    """A line after a green ✓ or a red ✗."""
    mark = ("✗", "red")
    if ok:
        mark = ("✓", "green")
    return Text.assemble(mark, f" {line}")


def print_json(value: Any) -> None:
    """Print a value as JSON, for scripts. Hours, paths and times become text."""
    typer.echo(json.dumps(value, indent=2, default=str))


def counted(number: int, noun: str) -> str:
    """A number and its noun, for example ``1 event file`` and ``1,204 event files``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}s"


def hourly_pipeline(name: str) -> "HourlyPipeline":
    """The pipeline of that name (see ``--pipeline``), with this machine's settings."""
    from obs_assets.hourly.pipeline_files import open_pipeline

    return open_pipeline(name)


def present_pipeline(
    name: str, refuse: "Callable[[HourlyPipeline, HourlyPipeline], str]"
) -> "Present":
    """The pipeline of that name for a program that runs on, see `Present`."""
    from obs_assets.hourly.present import open_present

    return open_present(name, refuse=refuse)
