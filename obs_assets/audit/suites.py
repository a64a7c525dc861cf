"""Tests of a pipeline: a YAML file beside the pipeline file says which events go in and which come out.

The file is checked when it is read. `check` runs its tests, `updated` is its text with the results
of the failed tests in place of their expectations.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from obs_assets.audit.expectations import Expected, differences, snapshot
from obs_assets.audit.trial import Given, Result, run
from obs_assets.errors import ConfigurationError
from obs_assets.hourly import pipeline
from obs_assets.hours import parse_hours

FILE_PATTERN = "tests*.yaml"
"""Names of test files, beside the pipeline file."""


class Input(BaseModel, frozen=True, extra="forbid"):
    """The input of a test. In YAML, a list is short for ``events``.

    Attributes:
        events: JSON objects.
        file: an event file, relative to the test file; it can be compressed.
        text: the content of an event file, for lines that are not JSON.
    """

    events: list[dict[str, Any]] | None = None
    file: Path | None = None
    text: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _list_is_events(cls, value: Any) -> Any:
        if isinstance(value, list):
            return {"events": value}
        return value

    @model_validator(mode="after")
    def _is_a_single_form(self) -> "Input":
        if len(self.model_fields_set) != 1:
            raise ValueError("must be a list of events, or `file: …`, or `text: …`")
        return self

    def content(self, folder: Path) -> bytes | Path:
        """The content of an event file, or its path; relative paths begin at ``folder``."""
        if self.file is not None:
            return folder / self.file
        if self.text is not None:
            return self.text.encode()
        lines = [f"{json.dumps(event)}\n" for event in self.events or ()]
        return "".join(lines).encode()


class Case(BaseModel, frozen=True, extra="forbid"):
    """A test.

    Attributes:
        name: a sentence that says what the pipeline does; names of a file differ.
        given: a list of events, or `Input`.
        now: landing time, for events without a time; the present time by default.
        hours: hours over which alert rules are judged, as ``A...B``; by default the hours with
            events.
        expect: the result.
    """

    name: str = Field(min_length=1)
    given: Input
    now: datetime | None = None
    hours: str | None = None
    expect: Expected | None = None

    @field_validator("hours")
    @classmethod
    def _hours_are_a_range(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse_hours(value)
            except ConfigurationError as error:
                raise ValueError(str(error)) from None
        return value

    def trial(self, folder: Path, *, judges_alerts: bool) -> Given:
        """The test's input; relative paths begin at ``folder``."""
        now = self.now
        if now is not None and now.tzinfo is None:
            now = now.replace(tzinfo=UTC)
        content = self.given.content(folder)
        return Given(self.name, content, now, self.hours, judges_alerts)


class _Suite(BaseModel, frozen=True, extra="forbid"):
    tests: list[Case] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> "_Suite":
        names = [case.name for case in self.tests]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two tests are called {name!r}: give each a name of its own")
        return self


@dataclass(frozen=True)
class Outcome:
    """The outcome of a test.

    Attributes:
        name: name of the test.
        path: the test file.
        line: line of the test in it, from 1.
        problems: a line for each difference; none if the test passed.
        result: the result.
    """

    name: str
    path: Path
    line: int
    problems: tuple[str, ...]
    result: Result = field(repr=False)


def suite_files(pipeline_file: Path) -> list[Path]:
    """The test files beside a pipeline file."""
    return sorted(pipeline_file.parent.glob(FILE_PATTERN))


def check(
    pipeline_file: Path,
    path: Path,
    env: Mapping[str, str] | None = None,
    *,
    updates: bool = False,
) -> list[Outcome]:
    """Run the tests of a file.

    Args:
        pipeline_file: the pipeline's ``defs.yaml``.
        path: the test file.
        env: for ``{{ env.NAME }}`` in the pipeline file; the process's environment by default.
        updates: also accept tests that expect nothing yet.

    Raises:
        ConfigurationError: one of both files is wrong; the message says file, line and field.
        ObsError: the pipeline fails on the events.
    """
    config = pipeline.load(pipeline_file, env)
    document, cases = _read(path)
    trials = []
    for number, case in enumerate(cases):
        line = pipeline.line_of(document, ("tests", number))
        if case.expect is None and not updates:
            raise ConfigurationError(
                f"{path}:{line}: {case.name!r} expects nothing: add `expect`, or run "
                "`obs test --update`"
            )
        file = case.given.file
        if file is not None and not (path.parent / file).is_file():
            raise ConfigurationError(f"{path}:{line}: given.file: {file} is no file")
        expect = case.expect or Expected()
        trials.append(case.trial(path.parent, judges_alerts=expect.has_alerts))
    results = run(config, trials)
    outcomes = []
    for number, case in enumerate(cases):
        result = results[case.name]
        problems = ["expects nothing yet"]
        if case.expect is not None:
            problems = differences(case.expect, result)
        line = pipeline.line_of(document, ("tests", number))
        outcomes.append(Outcome(case.name, path, line, tuple(problems), result))
    return outcomes


def _read(path: Path) -> tuple[yaml.Node | None, list[Case]]:
    document, values = pipeline.read_yaml(path, _Loader)
    try:
        return document, _Suite.model_validate(values).tests
    except ValidationError as error:
        problems = []
        for details in error.errors(include_url=False):
            line = pipeline.line_of(document, details["loc"])
            field = ".".join(map(str, details["loc"]))
            problem = details["msg"].removeprefix("Value error, ")
            if details["type"] == "extra_forbidden":
                problem = "unknown option; docs/testing.md lists the options"
            problems.append(f"{path}:{line}: {field}: {problem}")
        raise ConfigurationError("\n".join(problems)) from None


class _Loader(yaml.SafeLoader):
    """A loader for which a time without quotes is a text, as it is in JSON."""


_Loader.yaml_implicit_resolvers = {}
for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items():
    others = [resolver for resolver in resolvers if not resolver[0].endswith(":timestamp")]
    _Loader.yaml_implicit_resolvers[sign] = others


# -- update ----------------------------------------------------------------------------------------


def updated(path: Path, outcomes: Sequence[Outcome]) -> str:
    """The text of a test file in which failed tests expect their present results.

    Everything else, such as comments, stays. An expectation keeps its form: the fields of events
    that it names, `exact`, `paths` and so on.

    Args:
        path: the test file.
        outcomes: the outcomes of `check`.

    Raises:
        ConfigurationError: a failed test is written in braces, which cannot be replaced line by
            line.
    """
    document, cases = _read(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    nodes = _children(document, "tests")
    # From the last test to the first, so that the lines of the others stay where they are.
    for node, case, outcome in reversed(list(zip(nodes, cases, outcomes, strict=True))):
        if not outcome.problems:
            continue
        if not isinstance(node, yaml.MappingNode) or node.flow_style:
            raise ConfigurationError(
                f"{path}:{outcome.line}: write this test over several lines, without braces, "
                "so that it can be updated"
            )
        indent = node.start_mark.column
        text = _dumped(snapshot(case.expect, outcome.result), indent)
        begin, end = _span(node, lines)
        lines[begin:end] = text
    return "\n".join(lines) + "\n"


def _children(document: yaml.Node | None, name: str) -> list[yaml.Node]:
    assert isinstance(document, yaml.MappingNode)  # noqa: S101 - `_read` has checked it
    for key, value in document.value:
        if key.value == name:
            return list(value.value)
    return []


def _span(case: yaml.MappingNode, lines: Sequence[str]) -> tuple[int, int]:
    """First line of ``expect`` and the line behind it; both are behind the test if it has none."""
    for key, value in case.value:
        if key.value == "expect":
            return key.start_mark.line, _last_line(value, lines) + 1
    behind = _last_line(case, lines) + 1
    return behind, behind


def _last_line(node: yaml.Node, lines: Sequence[str]) -> int:
    """Number of the last line of a value, from 0. A block ends for PyYAML where the next begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        if isinstance(last, tuple):
            last = last[1]
        return _last_line(last, lines)
    line: int = node.end_mark.line
    # The end of a block of text (`|`) is the begin of a later line.
    if node.end_mark.column == 0 and line > node.start_mark.line:
        line -= 1
    while line > node.start_mark.line and not lines[line].strip():
        line -= 1
    return line


def _dumped(expect: Mapping[str, Any], indent: int) -> Iterator[str]:
    text = yaml.safe_dump(
        {"expect": dict(expect)},
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=100 - indent,
    )
    for line in text.splitlines():
        yield " " * indent + line
