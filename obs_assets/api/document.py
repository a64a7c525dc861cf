"""The OpenAPI document, and pages made from it: no script, nothing from another host."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse

from obs_assets.api.problems import KINDS, MEDIA_TYPE

router = APIRouter(include_in_schema=False)

PROBLEM = {
    "description": "A problem (RFC 9457); `/problems` lists the types.",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application."""
    # Made once: FastAPI walks all routes and models for it.
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        for methods in made["paths"].values():
            for operation in methods.values():
                responses = operation["responses"]
                # FastAPI describes its own form of mistakes, which this server does not answer.
                responses.pop("422", None)
                responses["default"] = PROBLEM
        for unused in ("HTTPValidationError", "ValidationError"):
            made["components"]["schemas"].pop(unused, None)
        app.openapi_schema = made
    return app.openapi_schema


@router.get("/docs")
async def reference(request: Request) -> HTMLResponse:
    """Every path with its parameters."""
    made = document(request.app)
    sections = "".join(_section(path, methods) for path, methods in made["paths"].items())
    intro = (
        "<p>The document itself: <a href='/openapi.json'>openapi.json</a>. "
        "Mistakes: <a href='/problems'>problems</a>. Events: <a href='/'>explorer</a>.</p>"
    )
    return HTMLResponse(_page("API", intro + sections))


def _section(path: str, methods: Mapping[str, Any]) -> str:
    return "".join(_operation(path, method, found) for method, found in methods.items())


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>"]
    parts.append(f"<p>{escape(operation.get('description', ''))}</p>")
    rows = "".join(map(_row, operation.get("parameters", ())))
    if rows:
        head = "<tr><th>parameter<th>in<th>values<th>default<th>meaning"
        parts.append(f"<table>{head}{rows}</table>")
    return "".join(parts)


def _row(parameter: Mapping[str, Any]) -> str:
    schema = parameter["schema"]
    name = parameter["name"] + (" (required)" if parameter.get("required") else "")
    # 0 and false are defaults that must be shown; only a missing default is empty.
    default = schema.get("default")
    cells = [
        name,
        parameter["in"],
        ", ".join(_values(schema)),
        "" if default is None else str(default),
        parameter.get("description", ""),
    ]
    return "<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells)


def _values(schema: Mapping[str, Any]) -> Iterator[str]:
    """The values that a schema allows, in words."""
    for kind in schema.get("anyOf", [schema]):
        if "enum" in kind:
            yield from map(str, kind["enum"])
        elif kind.get("type") == "array":
            yield f"list of {kind['items'].get('type', 'values')}"
        elif kind.get("type") != "null":
            yield str(kind.get("type", ""))
        if "minimum" in kind or "maximum" in kind:
            yield f"{kind.get('minimum', '…')} to {kind.get('maximum', '…')}"


@router.get("/problems")
async def problems() -> HTMLResponse:
    """Every type of problem, with its meaning."""
    sections = "".join(
        f"<h2 id='{kind.name}'>{kind.status} {escape(kind.title)}</h2><p>{escape(kind.meaning)}</p>"
        for kind in KINDS
    )
    return HTMLResponse(_page("Problems", sections))


def _page(title: str, body: str) -> str:
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>obs_assets: {title}</title><link rel='stylesheet' href='/reference.css'>"
        f"<h1>{title}</h1>{body}</html>"
    )
