"""The self-test of redaction: on an installation that redacts wrongly, nothing is redacted."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from obs_assets.cli import app
from obs_assets.errors import EngineError
from obs_assets.storage import engine
from obs_assets.transforms.redact import (
    RedactConfig,
    Workers,
    redact,
    redact_text,
    redact_texts,
    self_test,
    walk,
)
from obs_assets.transforms.redact import redactor as redactor_module
from obs_assets_tests.frames import frame_of

EVENT = '{"message":"hello bob.smith@example.com"}'


@pytest.fixture(autouse=True)
def untested(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in which the self-test has not run yet, and whose result no other test sees."""
    self_test.check_engine.cache_clear()
    redactor_module.redactor_of.cache_clear()
    yield
    monkeypatch.undo()
    self_test.check_engine.cache_clear()
    redactor_module.redactor_of.cache_clear()


@pytest.fixture
def unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that does not open JSON in strings."""
    monkeypatch.setattr(walk, "_DOCUMENT", re.compile(r"(?!)"))


@pytest.fixture
def frames_connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with engine.connect(tmp_path, threads=2) as connection:
        yield connection


def test_it_passes_here_quickly() -> None:
    """The first redaction of a process waits for less than 50 milliseconds of a processor."""
    began = time.thread_time()
    self_test.check_engine()
    assert time.thread_time() - began < 0.05


BREAKAGES: dict[str, tuple[Any, str, Any]] = {
    "members are passed over": (walk, "_MEMBERS", re.compile(r"(?:[^@]|@(?!$))*")),
    "strings with escapes end early": (
        walk,
        "_TOKEN",
        re.compile(walk._TOKEN.pattern.replace(r"\\.", r"\\u")),
    ),
    "a walk finds nothing": (walk.Walk, "run", lambda self: None),
    "RE2 finds nothing in many events": (
        redactor_module.Redactor,
        "hits_in",
        lambda self, events: {},
    ),
    "Arrow is given nothing": (self_test, "to_arrow", lambda outcomes, length: None),
    "JSON in a string is not opened": (walk, "_DOCUMENT", re.compile(r"(?!)")),
    "an edit in place is lost": (
        redactor_module,
        "redact_in_place",
        lambda *_: redactor_module.UNCHANGED,
    ),
    "a detector finds nothing": (
        walk.Members,
        "judge_all",
        lambda self, members: dict.fromkeys(members, walk.HARMLESS),
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_it_goes_red(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever part of the engine returns another result, the error says so, and what to install."""
    target, attribute, replacement = BREAKAGES[name]
    monkeypatch.setattr(target, attribute, replacement)
    with pytest.raises(EngineError) as raised:
        self_test.check_engine()
    for word in (
        "self-test of redaction failed",
        "CPython 3.",
        "duckdb ",
        "google-re2 ",
        "requirements.lock",
    ):
        assert word in str(raised.value)
    assert "bob" not in str(raised.value)


@pytest.mark.parametrize("name", self_test.CASES)
def test_every_case_counts(name: str) -> None:
    """A case whose known result is another one is a difference: none of them is passed over."""
    event, expected = self_test.CASES[name]
    another = "{}" if expected is self_test.FAILED else self_test.FAILED
    assert self_test.first_difference() == ""
    found = self_test.first_difference({**self_test.CASES, name: (event, another)})
    assert found.startswith(f"{name}, ")


@pytest.mark.usefixtures("unfit")
def test_nothing_is_redacted_by_an_engine_that_fails(
    frames_connection: duckdb.DuckDBPyConnection,
) -> None:
    """Every way to redact asks the self-test first: one event, many, a frame, a frame by other processes."""
    with pytest.raises(EngineError):
        redact_text(EVENT, RedactConfig())
    with pytest.raises(EngineError):
        next(redact_texts([EVENT], RedactConfig()))
    frame = frame_of(frames_connection, [EVENT])
    with pytest.raises(EngineError):
        redact(frames_connection, frame, RedactConfig())
    with Workers(RedactConfig(), None, 1) as workers, pytest.raises(EngineError):
        redact(frames_connection, frame, RedactConfig(), workers=workers)


@pytest.mark.usefixtures("unfit")
def test_the_command_line_says_so(tmp_path: Path) -> None:
    """``obs redact`` prints no event, and ends with the sentence."""
    (tmp_path / "events.jsonl").write_text(EVENT + "\n")
    result = CliRunner().invoke(app, ["redact", str(tmp_path / "events.jsonl")])
    assert isinstance(result.exception, EngineError)
    assert result.stdout == ""
