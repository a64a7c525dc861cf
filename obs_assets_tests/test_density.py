"""Statements stay loose: a comprehension or a condition inside another expression gets a name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "obs_assets"

NOT_MEASURED = {"sources", "transforms/detectors", "transforms/redact"}
"""Folders whose loops are dense for speed; they are rewritten on their own."""

LEFT: dict[str, int] = {}
"""Folder → findings of today. A number here may only fall; a folder that is missing here has none."""

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def nested_comprehensions(tree: ast.AST) -> Iterator[int]:
    """Line of each comprehension that has two ``for``, or that holds another comprehension."""
    for node in ast.walk(tree):
        if isinstance(node, COMPREHENSIONS):
            inner = [child for child in ast.walk(node) if isinstance(child, COMPREHENSIONS)]
            if len(node.generators) > 1 or inner != [node]:
                yield node.lineno


def buried_conditions(tree: ast.AST) -> Iterator[int]:
    """Line of each ``a if b else c`` inside a comprehension, an f-string or another such condition."""
    holders = (*COMPREHENSIONS, ast.JoinedStr, ast.IfExp)
    buried = set()
    for node in ast.walk(tree):
        if isinstance(node, holders):
            buried.update(child for child in ast.walk(node) if child is not node)
    for node in buried:
        if isinstance(node, ast.IfExp):
            yield node.lineno


def findings_in(text: str) -> list[int]:
    """Lines of a module with a finding."""
    tree = ast.parse(text)
    return sorted([*nested_comprehensions(tree), *buried_conditions(tree)])


def findings_by_folder() -> dict[str, list[str]]:
    """Folder → ``file:line`` of each finding."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        folder = path.parent.relative_to(PACKAGE).as_posix()
        if folder in NOT_MEASURED:
            continue
        for line in findings_in(path.read_text()):
            found.setdefault(folder, []).append(f"{path.relative_to(PACKAGE)}:{line}")
    return found


def test_statements_do_not_get_denser() -> None:
    """No folder has more findings than `LEFT` allows; most folders have none."""
    found = findings_by_folder()
    denser = {folder: at for folder, at in found.items() if len(at) > LEFT.get(folder, 0)}
    assert not denser, f"give the inner expression a name: {denser}"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("[x for y in z for x in y]", 1),
        ("{a: [b for b in c] for a in d}", 1),
        ("sum(n for n in [m for m in k])", 1),
        ("[f(x) for x in y]", 0),
        ("[a if b else c for b in d]", 1),
        ("f'{a if b else c}'", 1),
        ("a if b else c if d else e", 1),
        ("x = a if b else c", 0),
        ("[a for a in b]\nx = c if d else e", 0),
    ],
)
def test_findings_are_counted(text: str, number: int) -> None:
    """Each form that the test is about is found once; loose statements are not."""
    assert len(findings_in(text)) == number


if __name__ == "__main__":
    for folder, places in findings_by_folder().items():
        print(folder, len(places), *places)
