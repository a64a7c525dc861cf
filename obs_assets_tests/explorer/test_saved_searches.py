"""Saved searches: a file beside the pipeline file, read with the line of each mistake."""

from pathlib import Path

import pytest

from obs_assets.errors import ConfigurationError
from obs_assets.hourly.saved_searches import read_searches


def written(folder: Path, text: str) -> Path:
    path = folder / "searches.yaml"
    path.write_text(text)
    return path


def test_a_file_of_searches(tmp_path: Path) -> None:
    """Each has a name; dates need no quotes; without a file there is no search."""
    assert read_searches(tmp_path / "searches.yaml").searches == ()
    path = written(
        tmp_path,
        "searches:\n"
        "  - {name: Errors, q: 'level:error -type:beat', from: now-6h, note: first}\n"
        "  - {name: A day, from: 2025-12-04, to: 2025-12-05}\n",
    )
    errors, day = read_searches(path).searches
    assert (errors.name, errors.q, errors.since) == (
        "Errors",
        "level:error -type:beat",
        "now-6h",
    )
    assert (day.q, day.since, day.until) == ("", "2025-12-04", "2025-12-05")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("searches:\n  - name: a\n    q: 'level:('\n", ":3: searches.0.q: the query ends too early"),
        ("searches:\n  - name: a\n    from: soon\n", ":3: searches.0.from: 'soon' is no moment"),
        ("searches:\n  - name: a\n    qq: b\n", ":3: searches.0.qq: unknown option; there are name, q,"),
        ("searches:\n  - q: b\n", ":2: searches.0.name: Field required"),
        ("- a\n", ":1: the file: "),
        ("searches: [\n", ":2: not YAML"),
    ],
)  # fmt: skip
def test_a_mistake_is_shown_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    """And with its field."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as refused:
        read_searches(path)
    assert f"{path}{problem}" in str(refused.value)
