"""The OpenAPI document is what the server does: frozen, complete, and tried with random requests."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from obs_assets.api.problems import KINDS
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets_tests.api.process import running
from obs_assets_tests.test_docs import ROOT

STREAMS = {"/api/v1/tail", "/api/v1/export"}
"""Paths whose answers do not end, or are no JSON."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that writes the document."""
    spec = importlib.util.spec_from_file_location("openapi", ROOT / "scripts" / "openapi.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_is_frozen(script: ModuleType) -> None:
    """A changed route changes docs/openapi.json: `python scripts/openapi.py` writes it anew."""
    assert script.FILE.read_text() == script.content()


def test_the_document_describes_every_parameter(script: ModuleType) -> None:
    """Every operation has a sentence and answers mistakes as problems."""
    made = json.loads(script.FILE.read_text())
    assert made["openapi"].startswith("3.1")
    for path, methods in made["paths"].items():
        for operation in methods.values():
            assert operation["description"], path
            assert "application/problem+json" in operation["responses"]["default"]["content"]
            assert "422" not in operation["responses"]


def test_pages_of_the_document_load_nothing_from_elsewhere(client: TestClient) -> None:
    """Every path and every type of problem is on a page; there is no script and no other host."""
    reference, problems = client.get("/docs").text, client.get("/problems").text
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in reference
    for kind in KINDS:
        assert f"id='{kind.name}'" in problems
    for page in (reference, problems):
        assert "<script" not in page
        assert re.findall(r"https?://", page) == []
        (style,) = re.findall(r"rel='stylesheet' href='([^']+)'", page)
        assert client.get(style).status_code == 200


WORDS = {
    "q": "level:error",
    "from": "2025-12-04T10:00Z",
    "to": "2025-12-04T12:00Z",
    "event_id": "none",
}
"""Values for the places that an example leaves open."""

REFUSED = {"/archive": 404, "same=trace_id": 400}
"""Examples that this pipeline without an archive, and its events without a trace, must refuse."""


def test_examples_of_the_page_are_answered(
    client: TestClient, stored: list[dict[str, Any]]
) -> None:
    """Every path with parameters in docs/api.md."""
    del stored
    event = client.get("/api/v1/events").json()["events"][0]["id"]
    text = (ROOT / "docs" / "api.md").read_text()
    examples = sorted(set(re.findall(r"(/api/v1/[^\s`']+\?[^\s`']+)", text)))
    assert len(examples) > 12
    for example in examples:
        path = example.replace("{id}", event)
        path = re.sub(r"(\w+)=…", lambda place: f"{place[1]}={WORDS[place[1]]}", path)
        if path.startswith("/api/v1/tail"):
            continue
        refused = [status for part, status in REFUSED.items() if part in path]
        assert [client.get(path).status_code] == (refused or [200]), path


@pytest.mark.slow
def test_random_requests_are_answered_as_documented(
    hourly: HourlyPipeline, stored: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Right and wrong ones: no answer is a fault of the server, and each has the form of the document."""
    del stored
    few = settings(
        max_examples=12,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with running(hourly, tmp_path) as (_, address):
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path in STREAMS:
                continue
            right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
            wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

            @few
            @given(case=st.one_of(right, wrong))
            def check(case: Any) -> None:
                # The text of a query, a time or a cursor has a form that no schema can say.
                case.call_and_validate(timeout=30, excluded_checks=[positive_data_acceptance])

            check()
