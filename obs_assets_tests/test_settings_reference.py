"""docs/settings.md says of every option what a user needs to know."""

import ast
import importlib.util
import re
from types import ModuleType

import pytest

from obs_assets import settings
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets_tests.test_docs import ROOT


def load_reference() -> ModuleType:
    """The script that writes docs/settings.md."""
    spec = importlib.util.spec_from_file_location(
        "reference", ROOT / "scripts" / "settings_reference.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return load_reference()


def test_the_page_is_what_the_models_say(reference: ModuleType) -> None:
    """A changed option changes the page: `python scripts/settings_reference.py` writes it anew."""
    assert reference.PAGE.read_text() == reference.page()


def test_every_option_has_a_meaning_a_type_and_an_example(reference: ModuleType) -> None:
    """No option of any model is without a sentence, a type and one example."""
    incomplete = [
        f"{model.__name__}.{option.name}"
        for model in reference.models(PipelineConfig)
        for option in reference.options(model)
        if not (option.meaning and option.type and option.example)
    ]
    assert incomplete == []


def test_every_number_has_a_unit(reference: ModuleType) -> None:
    """A number in a pipeline file never leaves its unit open."""
    without = [
        f"{model.__name__}.{option.name}"
        for model in reference.models(PipelineConfig)
        for option in reference.options(model)
        if option.type in {"number", "whole number"} and not option.unit
    ]
    assert without == []


def test_every_example_is_valid(reference: ModuleType) -> None:
    """An example can be copied into a pipeline file: the option takes its value."""
    names_a_file_or_function = {
        "table",
        "database",
        "lookups",
        "geoip",
        "function",
        "custom_filter",
    }
    for model in reference.models(PipelineConfig):
        for name, field in model.model_fields.items():
            examples = field.examples or []
            if name not in names_a_file_or_function:
                for example in examples:
                    reference.accepts(name, field, example)


def test_every_variable_that_the_settings_read_is_listed() -> None:
    """The table of environment variables is complete."""
    tree = ast.parse((ROOT / "obs_assets" / "settings.py").read_text())
    words = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    read = {
        word
        for word in words
        if re.fullmatch("(OBS|AWS|DD|ELASTICSEARCH|POSTGRES|SPLUNK|WEBHOOK)(_[A-Z0-9]+)+", word)
    }
    assert read == {variable.name for variable in settings.VARIABLES}
