"""Documents say what is so."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_test_that_the_list_of_faults_names_is_there() -> None:
    """Who looks for the proof of a promise finds it."""
    missing, path = [], ""
    for named in re.findall(
        r"`([\w/]*\.py)?::(test_\w+)`", (ROOT / "docs" / "faults.md").read_text()
    ):
        path = named[0] or path
        if f"def {named[1]}(" not in (ROOT / "obs_assets_tests" / path).read_text():
            missing.append("::".join((path, named[1])))
    assert missing == []


def test_documents_and_docstrings_name_nothing_that_a_newcomer_does_not_know() -> None:
    """No page and no docstring compares with "the original"; the copy of a file has one, which is another matter."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    code = [
        path for path in (ROOT / "obs_assets").rglob("*.py") if path.parent.name != "sources"
    ]
    about_copies = {ROOT / "docs" / "landing.md"}
    named = [
        path
        for path in {*pages, *code} - about_copies
        if re.search(r"\b[Tt]he original\b", path.read_text())
    ]
    assert named == []


def test_every_link_of_the_documents_leads_somewhere() -> None:
    """No page links to a file or a heading that is not there."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, heading = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            if "://" in target:
                continue
            if not linked.exists() or (heading and heading not in _anchors(linked)):
                broken.append(f"{page.name}: {target}")
    assert broken == []


def _anchors(page: Path) -> set[str]:
    """The headings of a page as a link names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
