"""The explorer's files: all are served, small, and load nothing from elsewhere."""

import gzip
import re
from importlib import resources
from pathlib import Path

import pytest
from starlette.testclient import TestClient

FOLDER = Path(str(resources.files("obs_assets") / "explorer"))
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())
NAMES = [str(path.relative_to(FOLDER)) for path in FILES]

MOST_GZIPPED = 150_000
"""Bytes of all files together, compressed."""


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_served(client: TestClient, name: str) -> None:
    """With its type, under the policy that lets nothing else in; the browser asks again after an upgrade."""
    answered = client.get(f"/{name}")
    assert answered.content == (FOLDER / name).read_bytes()
    kind = {"html": "text/html", "css": "text/css", "js": "text/javascript"}.get(
        name.rpartition(".")[2], "image/svg+xml"
    )
    assert answered.headers["content-type"].startswith(kind)
    assert answered.headers["content-security-policy"].startswith("default-src 'none'")
    assert answered.headers["cache-control"] == "no-cache"


def test_the_page_is_at_the_root(client: TestClient) -> None:
    """And its state in the address changes nothing about the file."""
    page = (FOLDER / "index.html").read_bytes()
    for address in ("/", "/?q=level:error&from=now-6h"):
        assert client.get(address).content == page


def test_every_file_is_used() -> None:
    """Each module is imported, each other file is named by a page; nothing names a file that is not there."""
    # The page of the API's paths is made by the server.
    named = {
        "reference.css",
        "index.html",
        *re.findall(r'(?:src|href)="([\w.]+)"', text_of("index.html")),
    }
    for name in NAMES:
        if name.endswith(".js"):
            named |= set(re.findall(r'from "\./([\w.]+)"', text_of(name)))
    assert sorted(named) == NAMES


def test_the_files_are_small() -> None:
    """All together, compressed, as a proxy sends them."""
    total = sum(len(gzip.compress(path.read_bytes())) for path in FILES)
    assert total < MOST_GZIPPED


def test_text_becomes_no_markup() -> None:
    """No module writes HTML or runs text as code, so that the text of an event cannot either."""
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function"
    guilty = [name for name in NAMES if re.search(ways, text_of(name))]
    assert guilty == []


def test_no_file_names_another_host() -> None:
    """The names of XML's vocabularies are no addresses."""
    known = "http://www.w3.org/2000/svg"
    foreign = [
        (name, found)
        for name in NAMES
        for found in re.findall(
            r"(?:https?:)?//[a-z][\w.-]+\.[a-z]{2,}[^\s\"']*", text_of(name)
        )
        if found != known
    ]
    assert foreign == []


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
