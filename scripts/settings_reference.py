"""Write docs/settings.md: every option of a pipeline file and every environment variable.

The models are the source: types and defaults come from their fields, meanings from their docstrings,
units and examples from the fields. A test compares the page with what this script prints.

    python scripts/settings_reference.py          # write the page
    python scripts/settings_reference.py --print  # print it
"""

import collections.abc
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretStr, create_model
from pydantic.fields import FieldInfo

from obs_assets.config import attribute_texts
from obs_assets.delivery.kinds import KINDS
from obs_assets.destinations.base import DestinationConfig
from obs_assets.hourly.pipeline import PipelineConfig
from obs_assets.settings import VARIABLES

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"

HEAD = """\
# Settings

This page is made from the code by `python scripts/settings_reference.py`; do not edit it.

A pipeline is one YAML file, `$OBS_PIPELINES_DIR/<name>/defs.yaml`. Its options stand below
`attributes:`. A value may be a template: `{{ env.NAME }}` is the environment variable NAME, and
`{{ env('NAME', 'default') }}` gives a default. `obs validate` names file, line and option of a
mistake. Values of the YAML file win over the environment.

"""

UNIT_BY_LAST_WORD = {
    "minutes": "minutes",
    "hours": "hours",
    "days": "days",
    "s": "seconds",
    "ms": "milliseconds",
    "mb": "MiB",
    "bytes": "bytes",
}
"""The last word of an option's name is its unit."""

NAMES_OF_TYPES = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    SecretStr: "secret text",
    Decimal: "number",
}


WORDS_BY_ORIGIN: Mapping[Any, str] = {
    Annotated: "{0}",
    Union: "{any}",
    types.UnionType: "{any}",
    tuple: "list of {0}",
    dict: "mapping of {0} to {1}",
    collections.abc.Mapping: "mapping of {0} to {1}",
}


@dataclass(frozen=True)
class Option:
    """A row of the page.

    Attributes:
        name: the key in YAML.
        type: of the value, in words.
        default: as YAML; "required" or "none" where there is none.
        unit: of a number; empty for other types.
        example: ``name: value`` as YAML.
        meaning: sentences from the docstring.
    """

    name: str
    type: str
    default: str
    unit: str
    example: str
    meaning: str


def options(model: type[BaseModel]) -> Iterator[Option]:
    """The options of a model, in their order."""
    texts = attribute_texts(model)
    for name, field in model.model_fields.items():
        key = field.alias or name
        yield Option(
            name=key,
            type=_type(field.annotation),
            default=_default(field),
            unit=_unit(key, field),
            example=_example(key, field),
            meaning=texts.get(name, ""),
        )


def accepts(name: str, field: FieldInfo, value: Any) -> None:
    """Check a value of an option as its model would.

    Raises:
        pydantic.ValidationError: the option does not take the value.
    """
    fields: dict[str, Any] = {name: (field.annotation, field)}
    create_model("WithOneOption", **fields).model_validate({field.alias or name: value})


def models(root: type[BaseModel]) -> list[type[BaseModel]]:
    """A model and all models inside it, each once, in the order of their first mention."""
    found: dict[type[BaseModel], None] = {root: None}
    waiting = [root]
    while waiting:
        model = waiting.pop(0)
        for field in model.model_fields.values():
            new = [inner for inner in _models_in(field.annotation) if inner not in found]
            found.update(dict.fromkeys(new))
            waiting += new
    return list(found)


def page() -> str:
    """The whole page."""
    sections = [_section(model) for model in models(PipelineConfig)]
    return HEAD + "\n".join(sections) + "\n" + _environment()


def _section(model: type[BaseModel]) -> str:
    summary = " ".join((model.__doc__ or "").partition("Attributes:")[0].split())
    rows = [_row(option) for option in options(model)]
    head = [
        "| option | type | default | unit | example | meaning |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([f"## {_title(model)}", "", _plain(summary), "", *head, *rows, ""])


def _row(option: Option) -> str:
    cells = [
        f"`{option.name}`",
        option.type,
        f"`{option.default}`",
        option.unit,
        f"`{option.example}`",
        _plain(option.meaning),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _environment() -> str:
    head = ["| variable | default | example | meaning |", "|---|---|---|---|"]
    rows = [
        f"| `{row.name}` | {row.default} | `{row.example}` | {row.meaning} |"
        for row in VARIABLES
    ]
    return "\n".join(["## Environment", "", *head, *rows, ""])


def _title(model: type[BaseModel]) -> str:
    blocks = {
        inner: name
        for name, field in PipelineConfig.model_fields.items()
        for inner in _models_in(field.annotation)
        if name != "destinations"
    }
    if model is PipelineConfig:
        return "The pipeline"
    if model in blocks:
        return f"`{blocks[model]}`"
    kind = model.model_fields.get("type")
    if kind is not None:
        return f"Destination `{kind.default}`"
    return f"`{model.__name__}`"


def _plain(text: str) -> str:
    """Double backquotes of docstrings as the single ones of Markdown."""
    return text.replace("``", "`")


def _type(annotation: Any) -> str:
    """A type in words, for example "list of text"."""
    if annotation is DestinationConfig:
        return _type(Union[tuple(kind.config for kind in KINDS)])  # noqa: UP007 - made at run time
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _link(annotation)
    parts = [_type(part) for part in get_args(annotation) if part is not type(None)]
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in get_args(annotation))
    if origin in WORDS_BY_ORIGIN:
        return WORDS_BY_ORIGIN[origin].format(*parts, any=" or ".join(dict.fromkeys(parts)))
    return NAMES_OF_TYPES.get(annotation, "any value") if origin is None else "any value"


def _link(model: type[BaseModel]) -> str:
    title = _title(model)
    anchor = title.lower().replace("`", "").replace(" ", "-")
    return f"[{title}](#{anchor})"


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if annotation is DestinationConfig:
        return [kind.config for kind in KINDS]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found: list[type[BaseModel]] = []
    for argument in get_args(annotation):
        found += _models_in(argument)
    return found


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = _plain_value(field.get_default(call_default_factory=True))
    return "none" if value is None else _yaml(value)


def _unit(name: str, field: FieldInfo) -> str:
    extra = _extra(field)
    if "unit" in extra:
        return str(extra["unit"])
    return UNIT_BY_LAST_WORD.get(name.rpartition("_")[2], "")


def _extra(field: FieldInfo) -> Mapping[str, Any]:
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def _example(name: str, field: FieldInfo) -> str:
    """The field's first example, else its default, which must say something then."""
    if field.examples:
        return _yaml({name: field.examples[0]})
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    value = _plain_value(default)
    return "" if value is None or value in ([], {}, "") else _yaml({name: value})


def _plain_value(value: Any) -> Any:
    """A default as YAML writes it: without models, tuples and secrets."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, tuple):
        return [_plain_value(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain_value(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    text = text.strip().removesuffix("...").strip()
    return text[1:-1] if isinstance(value, dict) and value else text


def main() -> None:
    """Write or print the page."""
    if "--print" in sys.argv[1:]:
        print(page(), end="")
    else:
        PAGE.write_text(page())


if __name__ == "__main__":
    main()
