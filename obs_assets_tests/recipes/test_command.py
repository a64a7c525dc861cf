"""CONTRIBUTING's recipe for a command: one module and one row, and ``obs`` has it."""

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from obs_assets import cli
from obs_assets.cli.commands import COMMANDS, Row


@pytest.fixture
def registered() -> Iterator[None]:
    """The row of the invented command stands in the table, as if it were written there."""
    before = [*cli.app.registered_commands]
    COMMANDS["greet"] = Row("obs_assets_tests.recipes.greeting", "Greet a person.")
    yield
    del COMMANDS["greet"]
    cli.app.registered_commands[:] = before


def test_obs_has_it(registered: None) -> None:
    """``--help`` lists it with its first sentence, and it runs, for people and for scripts."""
    runner = CliRunner()
    listed = runner.invoke(cli.app, ["--help"]).output
    assert "greet" in listed
    assert "Greet a person." in listed
    assert runner.invoke(cli.app, ["greet", "Ana"]).output == "good day, Ana\n"
    answer = runner.invoke(cli.app, ["greet", "Ana", "--json"]).output
    assert json.loads(answer) == {"greeted": "Ana"}
