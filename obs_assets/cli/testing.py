"""``obs test``: unit tests of pipeline files, without a server."""

import difflib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

import typer

from obs_assets.audit.suites import FILE_PATTERN, Outcome, check, suite_files, updated
from obs_assets.cli.app import AsJson, Pipeline, app, counted, out, print_json, verdict
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.pipeline_files import PipelineFile, find, list_files
from obs_assets.storage.disk import replacing


@app.command("test")
def run_tests(  # noqa: PLR0917 - the options of the command
    file: Annotated[
        Path | None,
        typer.Argument(help="A pipeline file; by default every pipeline of OBS_PIPELINES_DIR."),
    ] = None,
    pipeline_name: Pipeline = "",
    tests: Annotated[
        Path | None,
        typer.Option(
            "--tests", help="A test file; by default tests*.yaml beside the pipeline file."
        ),
    ] = None,
    update: Annotated[
        bool,
        typer.Option(
            "--update", help="Print the difference, then write present results into the tests."
        ),
    ] = False,
    junit: Annotated[
        Path | None, typer.Option("--junit", help="Write the results there, as JUnit XML.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the tests beside pipeline files: given events, expected outcomes. Starts no server."""
    began = time.monotonic()
    outcomes: list[Outcome] = []
    for pipeline in _files(file, pipeline_name):
        paths = suite_files(pipeline.path)
        if tests:
            paths = [tests]
        for path in paths:
            found = check(pipeline.path, path, updates=update)
            if update:
                found = _update(path, found, as_json=as_json) or found
            outcomes += found
    if not outcomes:
        raise ConfigurationError(
            f"there are no tests: write {FILE_PATTERN.replace('*', '')} beside a pipeline "
            "file (docs/testing.md)"
        )
    spent_s = time.monotonic() - began
    if junit:
        _write_junit(junit, outcomes, spent_s)
    failed = [outcome for outcome in outcomes if outcome.problems]
    if as_json:
        print_json({"tests": [_plain(outcome) for outcome in outcomes], "failed": len(failed)})
    else:
        _print(outcomes)
        ending = "all passed"
        if failed:
            ending = f"{len(failed):,} failed"
        out.print(f"{counted(len(outcomes), 'test')}, {ending}, {spent_s:.1f} s")
    if failed:
        raise typer.Exit(1)


def _files(file: Path | None, pipeline_name: str) -> list[PipelineFile]:
    if file:
        return [PipelineFile(file.absolute().parent.name, file)]
    if pipeline_name:
        return [find(pipeline_name)]
    return list_files()


def _print(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        where = ""
        if outcome.problems:
            where = f"  ({outcome.path}:{outcome.line})"
        out.print(verdict(f"{outcome.name}{where}", ok=not outcome.problems))
        for problem in outcome.problems:
            out.print(f"    {problem}", highlight=False)


def _update(path: Path, outcomes: list[Outcome], *, as_json: bool) -> list[Outcome]:
    """Write the present results into a test file; returns the outcomes of the tests afterwards."""
    before = path.read_text(encoding="utf-8")
    after = updated(path, outcomes)
    if before.rstrip("\n") == after.rstrip("\n"):
        return []
    if not as_json:
        difference = difflib.unified_diff(
            before.splitlines(), after.splitlines(), str(path), f"{path} (new)", lineterm=""
        )
        for line in difference:
            out.print(line, highlight=False)
    with replacing(path) as new:
        new.write_text(after, encoding="utf-8")
        shutil.copymode(path, new)
    return [
        Outcome(outcome.name, outcome.path, outcome.line, (), outcome.result)
        for outcome in outcomes
    ]


def _plain(outcome: Outcome) -> dict[str, object]:
    return {
        "name": outcome.name,
        "file": str(outcome.path),
        "line": outcome.line,
        "problems": list(outcome.problems),
    }


def _write_junit(path: Path, outcomes: Sequence[Outcome], spent_s: float) -> None:
    """Write results in the form that GitLab, Jenkins and GitHub's actions read."""
    failures = sum(bool(outcome.problems) for outcome in outcomes)
    suite = ElementTree.Element(
        "testsuite",
        name="obs test",
        tests=str(len(outcomes)),
        failures=str(failures),
        errors="0",
        time=f"{spent_s:.3f}",
    )
    for outcome in outcomes:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=outcome.path.parent.name,
            name=outcome.name,
            file=str(outcome.path),
            line=str(outcome.line),
        )
        if outcome.problems:
            failure = ElementTree.SubElement(case, "failure", message=outcome.problems[0])
            failure.text = "\n".join(outcome.problems)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    with replacing(path) as new:
        ElementTree.ElementTree(root).write(new, encoding="utf-8", xml_declaration=True)
