"""Code and prose stay easy to read: the figures of the whole package and its documents."""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from obs_assets_tests.test_density import NOT_MEASURED, PACKAGE

ROOT = PACKAGE.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

CODE_TOKENS = {tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING}

TURNS = {
    "free what": (10, r"(?<![?])\b[Ww]hat (?!is wrong\b|happen)\w+"),
    "told": (2, r"\b(?:told|tells?|telling)\b"),
    "one": (30, r"\bones?\b"),
    "who": (3, r"(?:^|[.;:,(] |for |of |to |by |and )\b[Ww]ho(?:ever)?\b(?! are you)"),
    "so many": (3, r"\b[Ss]o (?:many|long|much)\b(?! as| that)"),
    "nobody": (3, r"\b(?:nobody|no one|somebody|anybody|everybody)\b"),
}
"""A turn that a reader has to unfold → its limit in 10,000 words, and its pattern."""

pytestmark = pytest.mark.slow


def measured_files() -> list[Path]:
    """The modules whose density is measured."""
    left_out = [PACKAGE / folder for folder in NOT_MEASURED]
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if not any(path.is_relative_to(folder) for folder in left_out)
    ]


def figures_of(text: str) -> Counter[str]:
    """Lines of code, tokens, comment lines, long lines and conditional expressions of a module.

    Docstrings and empty lines do not count.
    """
    tree = ast.parse(text)
    prose: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose.update(range(node.lineno, (node.end_lineno or 0) + 1))
    found: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and number not in prose:
            is_comment = line.strip().startswith("#")
            found["comments" if is_comment else "lines"] += 1
            found["long"] += len(line) > 100 and not is_comment
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        found["tokens"] += token.type in CODE_TOKENS and token.start[0] not in prose
    found["conditions"] = sum(isinstance(node, ast.IfExp) for node in ast.walk(tree))
    return found


def lengths_of(text: str) -> Iterator[int]:
    """Lines of each function, without its docstring."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            if ast.get_docstring(node) and len(node.body) > 1:
                first = node.body[1]
            yield (node.end_lineno or 0) - first.lineno + 1


def texts_of(text: str) -> Iterator[str]:
    """Docstrings, messages and comments of a module."""
    for node in ast.walk(ast.parse(text)):
        value = getattr(node, "value", None)
        # A shorter text is a name, and a statement is no prose.
        is_prose = isinstance(node, ast.Constant) and isinstance(value, str)
        if is_prose and len(value.split()) >= 5 and "SELECT" not in value:
            yield value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string[1:]


def test_code_is_not_dense() -> None:
    """At most 7.5 tokens a line, few long lines and conditions inside expressions; comments say why."""
    total: Counter[str] = Counter()
    for path in measured_files():
        total += figures_of(path.read_text())
    lines = total["lines"]
    assert total["tokens"] / lines <= 7.5
    assert total["comments"] / lines >= 0.03
    assert total["long"] / lines <= 0.01
    assert total["conditions"] / lines <= 0.012


def test_functions_are_short() -> None:
    """Nine of ten functions of the whole package have at most 25 lines."""
    lengths = [
        length for path in PACKAGE.rglob("*.py") for length in lengths_of(path.read_text())
    ]
    assert sorted(lengths)[len(lengths) * 9 // 10] <= 25


def test_prose_names_the_thing() -> None:
    """Docstrings, messages, comments and documents rarely use a turn that a reader has to unfold."""
    texts = [text for path in PACKAGE.rglob("*.py") for text in texts_of(path.read_text())]
    texts += [re.sub(r"```.*?```", "", path.read_text(), flags=re.S) for path in DOCUMENTS]
    prose = "\n".join(texts)
    words = len(prose.split())
    too_many = {}
    for turn, (limit, pattern) in TURNS.items():
        found = re.findall(pattern, prose, re.MULTILINE)
        if 10_000 * len(found) / words > limit:
            too_many[turn] = Counter(found).most_common(5)
    assert too_many == {}


def test_figures_are_counted() -> None:
    """A module of three lines of code, a comment, a docstring and a condition."""
    text = '"""Doc."""\n# why\nx = 1\ny = 2 if x else 3\n\nz = f(x)\n'
    assert figures_of(text) == Counter(lines=3, tokens=16, comments=1, conditions=1, long=0)
    assert list(lengths_of('def f():\n    """Doc."""\n    a()\n    return b')) == [2]
    assert list(texts_of("f('a message of some five words', 'name')  # why")) == [
        "a message of some five words",
        " why",
    ]
