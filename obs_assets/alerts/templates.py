"""Summaries: a line of Jinja, in a sandbox without loops and calls, so that no text can grow."""

from collections.abc import Mapping
from typing import Annotated, Any

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator

LONGEST = 1000
"""Characters of a summary: PagerDuty and a section of Slack accept this length."""

NAMES = frozenset(
    {
        "rule",
        "severity",
        "group",
        "groups",
        "value",
        "measure",
        "threshold",
        "hour",
        "since",
        "labels",
        "status",
    }
)
"""Names that a summary can use."""

_FILTERS = (
    "round",
    "upper",
    "lower",
    "title",
    "trim",
    "default",
    "d",
    "int",
    "float",
    "length",
    "abs",
)
_ALLOWED = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.If,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Const,
    nodes.Compare,
    nodes.Operand,
    nodes.CondExpr,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Filter,
    nodes.Add,
    nodes.Sub,
    nodes.Div,
    nodes.Neg,
    nodes.Pair,
    nodes.Keyword,
)
"""Parts of a template. Multiplication and powers are missing: they make a short text long."""

_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_environment.filters = {name: _environment.filters[name] for name in _FILTERS}


def checked(text: str) -> str:
    """The template, if `render` accepts it.

    Raises:
        ValueError: names the part that is not allowed, or the name that is unknown.
    """
    try:
        tree = _environment.parse(text)
        _environment.compile(tree)
    except TemplateError as error:
        raise ValueError(f"is not a template: {error}") from None
    for node in _nodes(tree):
        _check_node(node)
    return text


def _check_node(node: nodes.Node) -> None:
    """Raise if a summary must not hold this part of a template."""
    problem = ""
    if not isinstance(node, _ALLOWED):
        problem = f"a summary takes values, filters and conditions, no {type(node).__name__}"
    elif isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        known = ", ".join(sorted(_FILTERS))
        problem = f"a summary knows no filter {node.name!r}; there are {known}"
    elif isinstance(node, nodes.Name) and node.name not in NAMES:
        known = ", ".join(sorted(NAMES))
        problem = f"a summary knows no {node.name!r}; there are {known}"
    if problem:
        raise ValueError(problem)


def _nodes(node: nodes.Node) -> list[nodes.Node]:
    found = [node]
    for child in node.iter_child_nodes():
        found += _nodes(child)
    return found


Summary = Annotated[str, AfterValidator(checked)]


def render(template: str, values: Mapping[str, Any]) -> str | None:
    """The text as a line of at most `LONGEST` characters; None if a value is missing or unfit."""
    try:
        text = _environment.from_string(template).render(values)
    # The default text replaces such a summary: an alert must be sent in any case.
    except (TemplateError, TypeError, ValueError, ArithmeticError):
        return None
    return " ".join(text.split())[:LONGEST]
