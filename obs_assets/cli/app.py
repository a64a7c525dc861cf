"""What every command shares: the typer application, its options, and how things are printed."""

import json
import platform
import sys
from importlib import metadata
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from obs_assets.errors import ConfigurationError, ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline_files import open_pipeline

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Event files in, trusted hours out. Hours are written as Dagster's keys, 2025-12-04-10:00, ranges as A...B, "
    "a whole day as 2025-12-04.",
)


def _print_version(asked: bool) -> None:
    if asked:
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
            help="Print the version and end.",
        ),
    ] = False,
) -> None:
    """Hold the options of ``obs`` itself."""
    del version  # its callback has printed it


# A pipe has no width: what scripts and grep read must not be cut at 80 columns. No markup: names of files and errors
# may have brackets.
out = Console(
    soft_wrap=True, markup=False, emoji=False, width=None if sys.stdout.isatty() else 240
)

Pipeline = Annotated[
    str,
    typer.Option(
        "--pipeline",
        show_default=False,
        help="The name of the pipeline's folder below OBS_PIPELINES_DIR; by default the only pipeline, or the one "
        "without an asset prefix.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Hours = Annotated[
    str,
    typer.Argument(
        metavar="HOUR|DAY|A...B", help="An hour, 2025-12-04-10:00, a day, or a range A...B."
    ),
]


def main() -> None:
    """Run the command line; every error is one sentence."""
    try:
        app()
    except ConfigurationError as error:
        fail(str(error), 2)
    except ObsError as error:
        fail(str(error), 1)
    except (
        OSError
    ) as error:  # a full disk, an unreadable folder; the rest of the message may hold a secret
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        fail(f"{where}{error.strerror or type(error).__name__}", 1)


def fail(message: str, code: int) -> NoReturn:
    """End with one sentence on standard error."""
    typer.echo(f"obs: {message}", err=True)
    sys.exit(code)


def verdict(line: str, *, ok: bool) -> Text:
    """A line with a green or a red mark before it."""
    return Text.assemble(("✓", "green") if ok else ("✗", "red"), f" {line}")


def print_json(value: Any) -> None:
    """Print for scripts."""
    typer.echo(json.dumps(value, indent=2, default=str))


def hourly_pipeline(name: str) -> HourlyPipeline:
    """The pipeline of that name, with this machine's settings."""
    return open_pipeline(name)
