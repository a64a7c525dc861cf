"""The base of every configurable block of a pipeline, and types that several blocks use."""

import inspect
import json
import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, Field, JsonValue


class Block(BaseModel, frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False):
    """A strict, immutable block of configuration.

    Attributes:
        enabled: ``false`` turns the block off. A disabled ``redact`` block also needs ``allow_unredacted: true``.
        name: name of the block in the UI and in messages; by default its type.
    """

    enabled: bool = True
    name: str | None = Field(None, examples=["nightly"])


_SECTION = re.compile(r"^Attributes:\n(.*?)(?:\n\S|\Z)", re.DOTALL | re.MULTILINE)
"""The section ``Attributes:`` of a docstring."""

_ATTRIBUTE = re.compile(r"^    (\w[\w, ]*): (.*(?:\n     +.*)*)", re.MULTILINE)
"""Names and text of an attribute in that section."""


def attribute_texts(model: type) -> dict[str, str]:
    """Field → its text in the ``Attributes:`` sections of a model's docstring and of its bases' docstrings.

    The model's own text wins over a base's. A text for several names, ``host, port: …``, is the text of each.
    """
    texts: dict[str, str] = {}
    # The bases come first, so that the model's own text wins.
    for base in reversed(model.__mro__):
        docstring = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        section = _SECTION.search(docstring)
        if section is None:
            continue
        for names, text in _ATTRIBUTE.findall(section[1]):
            texts |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return texts


def _is_kept(value: JsonValue) -> JsonValue:
    """The value, if every destination can store it; PostgreSQL's JSONB has no NUL character."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise ValueError(
            "must not be NaN, Infinity or half a surrogate pair: no destination takes that"
        ) from None
    if b"\\u0000" in text:
        raise ValueError("must not hold \\u0000: no destination takes that")
    return value


Json = Annotated[JsonValue, AfterValidator(_is_kept)]
"""A JSON value that every destination can store in an event."""


def mapping_or_yaml_file(value: Any) -> Any:
    """The value of an option that is a mapping or the path of a YAML file with a mapping.

    The content of the file becomes part of the configuration, so a changed file is a changed
    configuration.

    Raises:
        ValueError: the file cannot be read, or is not YAML.
    """
    if not isinstance(value, str | Path):
        return value
    try:
        return yaml.safe_load(Path(value).read_text())
    except OSError as error:
        raise ValueError(f"cannot read the file {value}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"cannot read the file {value}: it is not UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = ""
        if mark:
            # yaml counts lines from 0.
            line = f", line {mark.line + 1}"
        problem = getattr(error, "problem", error)
        raise ValueError(f"the file {value}{line} is not YAML: {problem}") from None
