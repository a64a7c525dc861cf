"""The JSON schema of a pipeline file, for `dg check yaml`, editors and the UI.

It is made from the pydantic models, without `anyOf` and `oneOf` where possible: of these a validator
only says that a value fits none of the variants. `obs_assets.hourly.pipeline.load` checks the rules that
a schema cannot express.
"""

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from obs_assets.config import attribute_texts

Schema = dict[str, Any]
"""A JSON schema, or a part of it."""

Definitions = Mapping[str, Schema]
"""Name of a model → its schema, as in ``$defs``."""

_ANNOTATIONS = ("title", "description", "default", "examples", "unit")
"""Keys of a schema that explain and do not check."""

_LEFT_OPEN: Schema = {"type": ["null", "string"], "pattern": r"\{\{"}
"""An option that is null, or a template such as ``{{ env.NAME }}``."""

_PATH: Schema = {"type": "string"}
"""A variant of an option: the path of a file with the value."""


def schema_of(model: type[BaseModel]) -> Schema:
    """The schema of a model and of the models in it; docstrings explain the options."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    models = {found.__name__: found for found in _ours(BaseModel)}
    schemas = {model.__name__: schema, **definitions}
    for name, part in schemas.items():
        if name in models:
            _explain(part, models[name])
    readable: Schema = _readable(schema, definitions)
    readable["$defs"] = {
        name: _readable(part, definitions) for name, part in definitions.items()
    }
    return readable


def _ours(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The models of this package that are derived from a model."""
    for found in model.__subclasses__():
        if found.__module__.startswith("obs_assets."):
            yield found
        yield from _ours(found)


def _explain(schema: Schema, model: type[BaseModel]) -> None:
    """Copy the docstrings of a model and its options to ``description``, where tools look for them."""
    for name, text in attribute_texts(model).items():
        # A Python keyword as an option has an underscore as an attribute: `from` is `from_`.
        option = schema["properties"].get(name.removesuffix("_"))
        if option is not None:
            option["description"] = text
    document = inspect.cleandoc(model.__doc__ or "")
    schema["description"] = document.partition("\n\nAttributes:")[0]


def _readable(schema: Any, definitions: Definitions) -> Any:
    """A schema whose violations read well, see the module's docstring."""
    # A schema can also be true or false.
    if not isinstance(schema, dict):
        return schema
    schema = _single(schema, definitions)
    if "items" in schema:
        schema["items"] = _readable(schema["items"], definitions)
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        schema["additionalProperties"] = _option(values, definitions)
    # The properties of a schema with `allOf` were made by `_chosen_by_type`.
    if "properties" in schema and "allOf" not in schema:
        options = schema["properties"]
        schema["properties"] = {
            name: _option(option, definitions) for name, option in options.items()
        }
        # A violation of `additionalProperties` gives the line, this violation lists the allowed names.
        schema["propertyNames"] = {"enum": sorted(options)}
    return schema


def _option(schema: Schema, definitions: Definitions) -> Schema:
    """An option: it can also be a template, and null if null is a variant of it."""
    variants = [variant for variant in schema.get("anyOf", []) if variant != {"type": "null"}]
    if len(variants) == 1:
        schema = _without(schema, "anyOf")
        schema |= variants[0]
    readable = _readable(schema, definitions)
    # The annotations explain the option, whichever branch holds.
    annotations = {name: readable.pop(name) for name in _ANNOTATIONS if name in readable}
    is_text = readable == {"type": "string"}
    if is_text and not variants:
        return {**annotations, **readable}
    left_open = _LEFT_OPEN
    if not variants:
        left_open = {**_LEFT_OPEN, "type": "string"}
    return {**annotations, "if": left_open, "else": readable}


def _without(schema: Schema, name: str) -> Schema:
    return {key: value for key, value in schema.items() if key != name}


def _single(schema: Schema, definitions: Definitions) -> Schema:
    """A copy without variants, if the variants are words or differ in their ``type``."""
    variants = schema.get("oneOf") or schema.get("anyOf") or []
    words = [_words(variant) for variant in variants]
    if variants and all(words):
        single = _without(schema, "anyOf")
        single["enum"] = list(itertools.chain.from_iterable(words))
        return single
    others = [variant for variant in variants if variant != _PATH]
    if "anyOf" in schema and _PATH in variants and len(others) == 1:
        single = _without(schema, "anyOf")
        single["if"] = _PATH
        single["else"] = others[0]
        return single
    if "oneOf" in schema:
        references = [variant["$ref"] for variant in variants]
        return _chosen_by_type(schema, references, definitions)
    return dict(schema)


def _words(variant: Schema) -> list[Any]:
    """The words that a variant allows; empty if it allows other values too."""
    if "const" in variant:
        return [variant["const"]]
    return list(variant.get("enum") or [])


def _chosen_by_type(
    schema: Schema,
    references: Sequence[str],
    definitions: Definitions,
) -> Schema:
    """A schema in which the option ``type`` decides which definition holds."""
    known: list[str] = []
    conditions: list[Schema] = []
    for reference in references:
        name = reference.rpartition("/")[2]  # "#/$defs/S3Config" → "S3Config"
        types = _types(definitions[name])
        known += types
        # `properties` alone also holds for an object without `type`.
        has_type = {
            "required": ["type"],
            "properties": {"type": {"enum": types}},
        }
        conditions.append({"if": has_type, "then": {"$ref": reference}})
    chosen = _without(_without(schema, "oneOf"), "discriminator")
    chosen["properties"] = {"type": {"enum": known}}
    chosen["required"] = ["type"]
    chosen["allOf"] = conditions
    return chosen


def _types(definition: Schema) -> list[str]:
    """The values of ``type`` that a definition allows."""
    kind = definition["properties"]["type"]
    return list(kind.get("enum") or [kind["const"]])
