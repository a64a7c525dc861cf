"""``obs init`` writes a pipeline file; ``obs validate`` checks files, folders and servers."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from obs_assets import embedded
from obs_assets.cli.app import AsJson, Pipeline, app, counted, out, print_json
from obs_assets.delivery.kinds import kind_of
from obs_assets.errors import ConfigurationError, ObsError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.hourly.pipeline_files import (
    FILE_NAME,
    OWN_DIR,
    PipelineFile,
    find,
    list_files,
    open_all,
)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,30}")
"""Names of pipelines. They become parts of asset keys, job names and table names."""

_COLOURS = {"✓": "green", "!": "yellow", "✗": "red"}
"""Mark of a finding → its colour."""

_MIN_WIDTH = 18
"""Least width, in characters, of the column of names."""


@dataclass(frozen=True)
class Finding:
    """A result of ``obs validate``.

    Attributes:
        mark: ``✓`` valid, ``!`` a warning, ``✗`` wrong.
        line: the result as a sentence.
    """

    mark: str
    line: str


@app.command("init")
def init_pipeline(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder; created if it does not exist.")
    ],
    name: Annotated[str, typer.Option("--name", help="Pipeline name.")] = "events",
    as_json: AsJson = False,
) -> None:
    """Write a pipeline, DIR/pipelines/NAME/defs.yaml, its tests, and a README with the next commands."""
    pipelines = folder.absolute() / OWN_DIR
    refuse_wrong_name(name)
    prefix = prefix_of(pipelines, name)
    # A table name in lower case needs no quotes in SQL.
    values = {"@name@": name.lower(), "@prefix@": prefix, "@pipelines@": str(pipelines)}
    file = pipelines / name / FILE_NAME
    readme = folder.absolute() / "README.md"
    templates = {file: "defs.yaml", file.parent / "tests.yaml": "tests.yaml"}
    # A README of an earlier `obs init` may have been edited.
    if not readme.exists():
        templates[readme] = "README.md"
    for path, template in templates.items():
        _write_new(path, template, values)
    if as_json:
        print_json({"wrote": [str(path) for path in templates]})
        return
    for path in templates:
        out.print(f"wrote {path}")
    following = "obs validate"
    if folder.absolute() != Path.cwd():
        following = f"cd {shlex.quote(str(folder))}; {following}"
    out.print(f"Next: {following}")


def refuse_wrong_name(name: str) -> None:
    """Raise unless a new pipeline can have this name.

    Raises:
        ConfigurationError: see above.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"--name {name!r}: a pipeline's name has letters, digits and _, a letter first"
        )


def prefix_of(pipelines: Path, name: str) -> str:
    """The line of a new pipeline file about the prefix of its assets.

    Args:
        pipelines: folder of the pipelines.
        name: name of the new pipeline.
    """
    # At most a single pipeline can be without a prefix, or names would not be unique.
    if not list(pipelines.glob(f"*/{FILE_NAME}")):
        return (
            '  asset_prefix: ""  # assets are called raw_events; '
            "only a single pipeline can be without a prefix"
        )
    return (
        f"  # Assets are called {name}/raw_events, jobs {name}_land_event_files; "
        f"data lies below pipelines/{name}."
    )


def _write_new(path: Path, template: str, values: Mapping[str, str]) -> None:
    """Write a new file from a template.

    Args:
        path: the new file.
        template: name of a file in ``templates/``.
        values: placeholder → its text.

    Raises:
        ConfigurationError: the file exists; it stays as it is.
    """
    templates = resources.files("obs_assets.cli") / "templates"
    text = (templates / template).read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(name, value)
    write_new(path, text)


def write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet.

    Raises:
        ConfigurationError: the file exists; it stays as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Mode "x" fails if the file exists, even if another process made it a moment ago.
        with path.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        raise ConfigurationError(
            f"{path} exists already: choose another --name, or change the file by hand"
        ) from None


@app.command()
def validate(
    file: Annotated[
        Path | None,
        typer.Argument(help="A pipeline file; by default every pipeline of OBS_PIPELINES_DIR."),
    ] = None,
    pipeline_name: Pipeline = "",
    offline: Annotated[bool, typer.Option("--offline", help="Check the files only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check pipeline files, then whether events folders and servers can be reached. Starts no server."""
    files = _files(file, pipeline_name)
    opened, mistakes = open_all(files)
    findings: dict[str, Finding] = {}
    for found, hourly in opened.items():
        prefix = ""
        if len(files) > 1:
            prefix = f"{found.name}: "
        findings[f"{prefix}configuration"] = Finding("✓", f"{found.path} is valid")
        if offline:
            continue
        for name, finding in _reached(hourly).items():
            findings[prefix + name] = finding
    wrong = {name: finding.line for name, finding in findings.items() if finding.mark == "✗"}
    if as_json:
        checks = {name: finding.line for name, finding in findings.items()}
        print_json({"checks": checks, "findings": wrong, "mistakes": list(mistakes.values())})
    else:
        width = max([_MIN_WIDTH, *map(len, findings)])
        for name, finding in findings.items():
            mark = (finding.mark, _COLOURS[finding.mark])
            out.print(Text.assemble(mark, f" {name:>{width}}  {finding.line}"))
    # The findings of the valid pipelines are printed before the mistakes of the others.
    if mistakes:
        raise ConfigurationError("\n".join(mistakes.values()))
    if wrong:
        raise typer.Exit(1)


def _files(file: Path | None, pipeline_name: str) -> list[PipelineFile]:
    if file:
        return [PipelineFile(file.absolute().parent.name, file)]
    if pipeline_name:
        return [find(pipeline_name)]
    return list_files()


def _reached(hourly: HourlyPipeline) -> dict[str, Finding]:
    """Whether the events folder and each destination can be reached."""
    found = {"events folder": _finding_of(partial(_check_source, hourly))}
    if skipped := _passed_over(hourly):
        found["passed over"] = Finding("!", skipped)
    for name, variable in hourly.off.items():
        found[name] = Finding("!", f"off: {variable} is not set")
    for name in hourly.destination_names:
        sleeping = _sleeping_server(hourly, name)
        if sleeping:
            line = f"not checked: the embedded {sleeping} does not run; `obs up` starts it"
            found[name] = Finding("!", line)
        else:
            found[name] = _finding_of(partial(_check_destination, hourly, name))
    return found


def _finding_of(check: Callable[[], str]) -> Finding:
    """The result of a check: the sentence that it returns, or the error that it raises."""
    try:
        return Finding("✓", check())
    except ObsError as error:
        return Finding("✗", str(error))


def _check_source(hourly: HourlyPipeline) -> str:
    number = counted(len(hourly.listing().files), "event file")
    return f"{number} in {hourly.source.events_dir}"


def _passed_over(hourly: HourlyPipeline) -> str:
    try:
        return hourly.listing().passed_over
    except ObsError:
        # `_check_source` reports the same error.
        return ""


def _check_destination(hourly: HourlyPipeline, name: str) -> str:
    return hourly.destination(name).check()


def _sleeping_server(hourly: HourlyPipeline, name: str) -> str:
    """Name of the embedded server that a destination needs, if it does not run; else "".

    A check of the destination would start that server.
    """
    config, machine = hourly.destination_config(name), hourly.settings
    server = kind_of(config).server_of(config)
    if server is None or not server.is_embedded(machine):
        return ""
    (found,) = embedded.status(machine.data_dir, [server])
    if found.running:
        return ""
    return found.name
