"""Tests use what users use: few of them put something else in the place of our own names."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

TESTS = Path(__file__).parent

MOST = 7
"""Places that may do it: a fault there has no cause outside of our code. This number may only fall."""

REGISTRIES = {"KINDS", "DETECTORS"}
"""Tables to which CONTRIBUTING's recipes add a row: to add one in a test is to follow the recipe."""

PATCHES = {"setattr", "setitem", "patch", "object"}
"""Functions of pytest and `unittest.mock` that replace a name."""


def names_of_others(tree: ast.AST) -> set[str]:
    """Names that a module imports from elsewhere than obs_assets: ``sys``, ``socket``, ``boto3``."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                (alias.asname or alias.name).partition(".")[0]
                for alias in node.names
                if not alias.name.startswith("obs_assets.")
            }
        elif isinstance(node, ast.ImportFrom) and not is_import_of_ours(node):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def is_ours(target: ast.expr, others: set[str]) -> bool:
    """Whether the first argument of a patch is a name of obs_assets, or may be one."""
    if isinstance(target, ast.Constant):
        return str(target.value).partition(".")[0] == "obs_assets"
    inner = target
    while isinstance(inner, ast.Attribute | ast.Subscript | ast.Call):
        inner = inner.func if isinstance(inner, ast.Call) else inner.value
    return not (isinstance(inner, ast.Name) and inner.id in others)


def patched_lines(text: str) -> Iterator[int]:
    """Lines of a test module that replace a name of obs_assets, registries left out."""
    tree = ast.parse(text)
    others = names_of_others(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            called = node.func
            is_patch = isinstance(called, ast.Attribute) and called.attr in PATCHES
            replaced = ast.literal_eval(node.args[1]) if is_named(node) else ""
            if is_patch and replaced not in REGISTRIES and is_ours(node.args[0], others):
                yield node.lineno
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Attribute) and is_module(target.value, tree):
                    yield node.lineno


def is_named(call: ast.Call) -> bool:
    """Whether a patch names what it replaces in a second argument."""
    return len(call.args) > 1 and isinstance(call.args[1], ast.Constant)


def is_module(value: ast.expr, tree: ast.AST) -> bool:
    """Whether an expression is a name that the module imports from obs_assets, so that ``name.x = 1`` is a patch."""
    ours: set[str] = set()
    for node in filter(is_import_of_ours, ast.walk(tree)):
        ours |= {alias.asname or alias.name for alias in node.names}
    return isinstance(value, ast.Name) and value.id in ours


def is_import_of_ours(node: ast.AST) -> TypeGuard[ast.ImportFrom]:
    """Whether a statement imports names from obs_assets."""
    return (
        isinstance(node, ast.ImportFrom)
        and (node.module or "").partition(".")[0] == "obs_assets"
    )


def patches_by_test() -> dict[str, list[int]]:
    """``file::function`` → lines that patch in it."""
    found: dict[str, list[int]] = {}
    for path in sorted(TESTS.rglob("*.py")):
        text = path.read_text()
        functions = [
            node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for line in patched_lines(text):
            around = [one for one in functions if one.lineno <= line <= (one.end_lineno or 0)]
            outermost = min(around, key=lambda one: one.lineno).name if around else ""
            found.setdefault(f"{path.relative_to(TESTS)}::{outermost}", []).append(line)
    return found


@pytest.mark.slow
def test_few_tests_patch_our_names() -> None:
    """Sizes, waits and clocks are arguments; faults are real, or happen at crash points (`crash.interrupted`)."""
    found = patches_by_test()
    assert len(found) <= MOST, f"use a public way: {found}"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("from obs_assets.sources import landing\nm.setattr(landing, 'SIZE', 1)", 1),
        ("from obs_assets.sources import landing\nm.setattr(landing.Pass, '_run', f)", 1),
        ("m.setattr('obs_assets.sources.landing.SIZE', 1)", 1),
        ("from obs_assets import crash\nm.setattr(crash.os, 'kill', f)", 1),
        ("destination = make()\nm.setattr(destination.place, 'upload', f)", 1),
        ("from obs_assets.sources import landing\nlanding.SIZE = 1", 1),
        ("from unittest import mock\nmock.patch('obs_assets.cli.app')", 1),
        ("import sys\nm.setattr(sys, 'argv', [])", 0),
        ("import sys\nm.setattr(sys.modules[__name__], 'f', g)", 0),
        ("m.setattr('requests.adapters.PATH', '')", 0),
        ("from obs_assets.delivery import kinds\nm.setattr(kinds, 'KINDS', ())", 0),
    ],
)
def test_patches_are_counted(text: str, number: int) -> None:
    """Each form that the test is about is found once; names of others and rows of recipes are not."""
    assert len(list(patched_lines(text))) == number


if __name__ == "__main__":
    for place, lines in patches_by_test().items():
        print(place, *lines)
