"""The JSON schema of a pipeline file: what `dg check yaml`, editors and the UI know of it.

It is made from the pydantic models, in the form whose violations read best: a validator that meets `anyOf` or `oneOf`
only says that a value fits none of the variants. What a schema cannot say `obs_assets.hourly.pipeline.load` checks.
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from obs_assets.config import attribute_texts

Schema = dict[str, Any]

_ANNOTATIONS = ("title", "description", "default", "examples", "unit")
_LEFT_OPEN: Schema = {"type": ["null", "string"], "pattern": r"\{\{"}
"""An option that is null, or a template that is yet to be filled in."""

_PATH: Schema = {"type": "string"}
"""As a variant: the path of a file that holds the other one."""


def schema_of(model: type[BaseModel]) -> Schema:
    """The schema of a model and of those within it, its options explained by their docstrings."""
    schema = model.model_json_schema()
    models = {found.__name__: found for found in _ours(BaseModel)}
    definitions = schema.pop("$defs", {})
    for name, part in {model.__name__: schema, **definitions}.items():
        if name in models:
            _explain(part, models[name])
    return {
        **_readable(schema, definitions),
        "$defs": {k: _readable(v, definitions) for k, v in definitions.items()},
    }


def _ours(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for found in model.__subclasses__():
        if found.__module__.startswith("obs_assets."):
            yield found
        yield from _ours(found)


def _explain(schema: Schema, model: type[BaseModel]) -> None:
    """Copy the docstrings' texts of a model and its options to where tools look for them."""
    for name, text in attribute_texts(model).items():
        option = schema["properties"].get(name.removesuffix("_"))
        if option is not None:
            option["description"] = text
    document = inspect.cleandoc(model.__doc__ or "")
    schema["description"] = document.partition("\n\nAttributes:")[0]


def _readable(schema: Any, definitions: Mapping[str, Schema]) -> Any:
    if not isinstance(schema, dict):
        return schema
    schema = _single(schema, definitions)
    if "items" in schema:
        schema["items"] = _readable(schema["items"], definitions)
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = _option(schema["additionalProperties"], definitions)
    if "properties" in schema and "allOf" not in schema:
        schema["properties"] = {
            k: _option(v, definitions) for k, v in schema["properties"].items()
        }
        # The one violation gives the line, the other what is allowed.
        schema["propertyNames"] = {"enum": sorted(schema["properties"])}
    return schema


def _option(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """An option: it may also be a template, and null where it has null as a variant."""
    variants = [variant for variant in schema.get("anyOf", []) if variant != {"type": "null"}]
    if len(variants) == 1:
        schema = {**{k: v for k, v in schema.items() if k != "anyOf"}, **variants[0]}
    readable = _readable(schema, definitions)
    about = {name: readable.pop(name) for name in _ANNOTATIONS if name in readable}
    if readable == {"type": "string"} and not variants:
        return {**about, **readable}
    return {
        **about,
        "if": _LEFT_OPEN if variants else {**_LEFT_OPEN, "type": "string"},
        "else": readable,
    }


def _single(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """A copy without variants, where they can be told apart by their type, or are words."""
    schema = dict(schema)
    variants = schema.get("oneOf") or schema.get("anyOf") or []
    words = [
        variant.get("enum", [variant["const"]] if "const" in variant else None)
        for variant in variants
    ]
    if variants and all(words):
        del schema["anyOf"]
        return {**schema, "enum": [word for some in words for word in some]}
    others = [variant for variant in variants if variant != _PATH]
    if "anyOf" in schema and _PATH in variants and len(others) == 1:
        return {
            **{k: v for k, v in schema.items() if k != "anyOf"},
            "if": _PATH,
            "else": others[0],
        }
    if "oneOf" in schema:
        del schema["oneOf"]
        schema.pop("discriminator", None)
        types = {
            variant["$ref"]: _types(definitions[variant["$ref"].rpartition("/")[2]])
            for variant in variants
        }
        schema["properties"] = {
            "type": {"enum": [word for some in types.values() for word in some]}
        }
        schema["required"] = ["type"]
        schema["allOf"] = [
            {
                "if": {"required": ["type"], "properties": {"type": {"enum": some}}},
                "then": {"$ref": reference},
            }
            for reference, some in types.items()
        ]
    return schema


def _types(definition: Schema) -> list[str]:
    kind = definition["properties"]["type"]
    return list(kind.get("enum") or [kind["const"]])
