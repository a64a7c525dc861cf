"""`obs test`: the tests of a pipeline file fail exactly when the pipeline does something else."""

import gzip
import json
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner
from typer.testing import Result as Answer

from obs_assets import cli
from obs_assets.audit.expectations import Expected, differences, snapshot
from obs_assets.audit.trial import Record, Result
from obs_assets.cli.app import main
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.pipeline_files import PACKAGED_DIR

AGENTS = PACKAGED_DIR / "agents" / "defs.yaml"

PIPELINE = """\
type: obs_assets.components.ObservabilityPipeline
attributes:
  filter: {drop_levels: [debug]}
  destinations:
    - {type: postgres, table_name: events}
    - type: webhook
      filter: {keep_event_types: [deploy], filter_mode: allowlist}
      rules:
        - {name: many, measure: count, above: 1, levels: [error]}
        - {name: silence, measure: count, below: 1}
"""

TESTS = """\
# The whole file is ours.
tests:
  - name: an error is kept  # a comment
    given: &errors
      - {timestamp: 2025-12-04T10:00:00Z, type: job, level: error, n: 12345678901234567890, a: {b: [1, {c: x}]}}
      - {timestamp: 2025-12-04T10:10:00Z, type: deploy, level: error, user: ann@example.com}
    expect:
      events:
        - event: {type: job, n: 12345678901234567890}
          paths: {a.b.1.c: x}
          absent: [_redaction, a.d]
          columns: {event_level: error, cost_usd: null}
          weight: 1
          destinations: [postgres_events]
        - paths: {user: a***n@example.com}
          destinations: [webhook_alerts, postgres_events]

  - name: the same events again, with their alerts
    given: *errors
    hours: 2025-12-04-10:00...2025-12-04-11:00
    expect:
      counts: {kept: 2}
      alerts:
        - {rule: silence, hour: "2025-12-04-11:00", status: firing}
  - name: debug events and broken lines go
    given:
      text: |
        {"timestamp": "2025-12-04T10:00:00Z", "type": "a", "level": "debug"}
        {"type": "b"}
        broken
        {"unfinished":
    now: 2025-12-04T12:00:00Z
    expect:
      events:
        - {outcome: "filtered:level"}
        - {columns: {event_type: b}}
        - {outcome: not_json}
        - {outcome: unfinished}
"""


def obs_test(folder: Path, *arguments: str) -> Answer:
    """`obs test` of the pipeline of a folder."""
    arguments = ("test", str(folder / "defs.yaml"), *arguments)
    return CliRunner().invoke(cli.app, arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline file and its tests, which pass."""
    (tmp_path / "defs.yaml").write_text(PIPELINE)
    (tmp_path / "tests.yaml").write_text(TESTS)
    return tmp_path


@pytest.mark.slow
def test_the_packaged_pipeline_does_what_its_tests_say() -> None:
    """The suite of the default pipeline passes, in less than a second of work after the start."""
    assert obs_test(AGENTS.parent).exit_code == 0  # the first call also loads the detectors
    began = time.process_time()
    answer = obs_test(AGENTS.parent)
    assert "6 tests, all passed" in answer.output
    assert time.process_time() - began < 1.5


@pytest.mark.slow
def test_a_mistake_in_the_pipeline_is_named(folder: Path) -> None:
    """Each changed line of the pipeline makes the test red that is about it, with both values."""
    assert obs_test(folder).exit_code == 0
    for line, other, said in (
        ("drop_levels: [debug]", "drop_levels: [error]", 'expected "kept", found "filtered:'),
        ("[deploy]", "[job]", 'destinations: expected ["postgres_events"], found'),
        ("above: 1,", "above: 0,", "alerts: expected 1, found 3"),
    ):
        (folder / "defs.yaml").write_text(PIPELINE.replace(line, other))
        answer = obs_test(folder)
        assert answer.exit_code == 1
        assert said in answer.output


EVENT = {"type": "job", "n": 12345678901234567890, "a": {"b": [1, {"c": "x"}]}, "ok": True}

FOUND = Record("kept", EVENT, {"event_level": "error"}, 1.0, ["postgres_events"])


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"event": {"type": "jobs"}}, ['event.type: expected "jobs", found "job"']),
        ({"event": {"n": 12345678901234567000}}, ["event.n: expected 12345678901234567000, "]),
        ({"event": {"ok": 1}}, ["event.ok: expected 1, found true"]),
        ({"event": {"a": {"b": [1]}}}, ["event.a.b: expected 1, found 2: "]),
        ({"exact": {**EVENT, "more": 1}}, ["event.more: expected 1, found nothing"]),
        ({"exact": {"type": "job"}}, ["event.n: expected nothing", "event.a: ", "event.ok: "]),
        ({"paths": {"a.b.2.c": "x"}}, ['a.b.2.c: expected "x", found nothing']),
        ({"absent": ["a.b.0"]}, ["a.b.0: expected nothing, found 1"]),
        ({"weight": 10}, ["weight: expected 10.0, found 1.0"]),
        (
            {"columns": {"event_level": None}},
            ['column event_level: expected null, found "error"'],
        ),
        ({"destinations": []}, ['destinations: expected [], found ["postgres_events"]']),
        ({"outcome": "not_json"}, ['outcome: expected "not_json", found "kept"']),
    ],
)
def test_each_kind_of_expectation_can_fail(expected: dict[str, Any], said: list[str]) -> None:
    """A wrong expectation is a difference with the place, the expected and the found value."""
    entry = Expected.model_validate({"events": [expected]})
    found = differences(entry, Result([FOUND]))
    assert len(found) == len(said)
    for line, begin in zip(found, said, strict=True):
        assert line.startswith(f"event 1: {begin}")
    assert (
        differences(Expected.model_validate(snapshot(entry, Result([FOUND]))), Result([FOUND]))
        == []
    )


@pytest.mark.slow
def test_update_writes_present_results_in_the_same_form(folder: Path) -> None:
    """The difference is shown, comments and passed tests stay, and the tests pass afterwards."""
    changed = PIPELINE.replace(
        "  filter: {drop_levels: [debug]}\n", "  redact: {mode: remove}\n"
    )
    (folder / "defs.yaml").write_text(changed)
    new = "  - name: without an expectation\n    given: [{type: x, user: ann@example.com}]\n"
    (folder / "tests.yaml").write_text(TESTS + new)
    answer = obs_test(folder, "--update")
    assert answer.exit_code == 0
    assert "-        - paths: {user: a***n@example.com}" in answer.output
    text = (folder / "tests.yaml").read_text()
    assert text.startswith(
        "# The whole file is ours.\ntests:\n  - name: an error is kept  # a comment\n"
    )
    assert "    given: *errors\n" in text  # a passed test
    assert "user: '[REDACTED]'" in text
    assert "absent: [_redaction, a.d]" in text
    assert obs_test(folder).exit_code == 0
    assert obs_test(folder, "--update").output.startswith("✓")


def test_results_for_programs(folder: Path, tmp_path: Path) -> None:
    """JUnit XML and JSON name each test, its place and its differences."""
    (folder / "tests.yaml").write_text(TESTS.replace("counts: {kept: 2}", "counts: {kept: 3}"))
    answer = obs_test(folder, "--json", "--junit", str(tmp_path / "junit.xml"))
    first, second, third = json.loads(answer.output)["tests"]
    assert (first["problems"], third["problems"]) == ([], [])
    assert second["problems"] == ["counts.kept: expected 3, found 2"]
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    failure = suite[1].find("failure")
    assert failure is not None
    assert failure.text == second["problems"][0]


def test_files_are_read_as_landing_reads_them(folder: Path) -> None:
    """A compressed file serves two tests, and each sees all of its events."""
    lines = b'{"type": "a", "time": "2025-12-04T10:00:00Z"}\n' * 30
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    tests = [
        {"name": name, "given": {"file": "a.jsonl.gz"}, "expect": {"counts": {"kept": 30}}}
        for name in ("one", "two")
    ]
    (folder / "tests.yaml").write_text(json.dumps({"tests": tests}))
    assert obs_test(folder).exit_code == 0


@pytest.mark.slow
def test_a_sample_that_compares_events_sees_those_of_its_test_alone(folder: Path) -> None:
    """Two tests of an adaptive sample do not share its target."""
    pipeline = PIPELINE.replace(
        "filter: {drop_levels: [debug]}", "sample: {strategy: adaptive, adaptive_target: 2}"
    )
    (folder / "defs.yaml").write_text(pipeline)
    events = [{"timestamp": "2025-12-04T10:00:00Z", "type": "a", "n": n} for n in range(8)]
    expect = {"counts": {"kept": 2, "sampled_out:default": 6}}
    tests = [{"name": name, "given": events, "expect": expect} for name in ("one", "two")]
    (folder / "tests.yaml").write_text(json.dumps({"tests": tests}))
    assert obs_test(folder).output.count("✓") == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tests: []", "tests.yaml:1: tests: "),
        (
            "tests:\n  - {name: a, given: [], expects: {}}",
            "tests.yaml:2: tests.0.expects: unknown",
        ),
        (
            "tests:\n  - name: a\n    given: {file: no.jsonl}\n    expect: {}",
            "no.jsonl is no file",
        ),
        ("tests:\n  - name: a\n    given: []", "'a' expects nothing: add `expect`"),
        ("tests:\n  - name: a\n    given: {}\n", "tests.yaml:3: tests.0.given: must be a list"),
        ("tests:\n  - &a {name: a, given: []}\n  - *a\n", "two tests are called 'a'"),
        ("tests: [", "tests.yaml:1: not YAML"),
    ],
)
def test_a_wrong_test_file_is_named_with_its_line(folder: Path, text: str, said: str) -> None:
    """A mistake in a test file is a sentence with file, line and field."""
    (folder / "tests.yaml").write_text(text)
    error = obs_test(folder).exception
    assert isinstance(error, ConfigurationError)
    assert said in str(error)


def test_without_a_test_file_it_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipeline without tests is no success."""
    (folder / "tests.yaml").unlink()
    monkeypatch.setattr("sys.argv", ["obs", "test", str(folder / "defs.yaml")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "there are no tests" in capsys.readouterr().err


def test_a_new_pipeline_has_tests_that_pass(tmp_path: Path) -> None:
    """`obs init` writes tests, and they pass."""
    assert CliRunner().invoke(cli.app, ["init", str(tmp_path)]).exit_code == 0
    assert obs_test(tmp_path / "pipelines" / "events").exit_code == 0
