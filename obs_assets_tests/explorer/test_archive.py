"""Hours that retention dropped: the page offers the archive, and tries a rule on frames of this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

from obs_assets.embedded.exports import for_aws
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import Settings
from obs_assets_tests import harness
from obs_assets_tests.api.process import running
from obs_assets_tests.explorer.conftest import WIDE, Seen, open_page, watch
from obs_assets_tests.frames import HOUR

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ODD = '<script>alert(1)</script> "\u202e"'


ARCHIVED = "?from=2025-12-04T10:00&to=2025-12-04T11:00"

ASK = """
import json, sys
import duckdb
from importlib.util import find_spec
folder = find_spec("duckdb_ext").submodule_search_locations[0]
connection = duckdb.connect(config={"extension_directory": f"{folder}/extensions"})
found = connection.execute(sys.stdin.read())
names = [column[0] for column in found.description]
print(json.dumps([dict(zip(names, row)) for row in found.fetchall()], default=str))
"""
"""A program that runs statements in DuckDB with the extensions of its environment, and prints the rows."""


@pytest.fixture(scope="session")
def duckdb_with_s3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with DuckDB and the extensions that read S3, as a user would install them."""
    folder = tmp_path_factory.mktemp("duckdb")
    uv, python = Path(sys.executable).with_name("uv"), folder / "bin" / "python"
    packages = ["duckdb-ext-httpfs==1.4.4.20260205", "duckdb-ext-aws==1.4.4.20260205"]
    for arguments in (
        ["venv", "-q", folder],
        ["pip", "install", "-q", "--python", python, "duckdb==1.4.4", "pytz", *packages],
    ):
        subprocess.run([uv, *arguments], check=True)
    return python


@pytest.fixture
def address(settings: Settings, tmp_path: Path) -> Iterator[str]:
    """A server whose only hour is in the archive."""
    events = tmp_path / "events"
    odd = harness.at(HOUR, 60, {"type": "odd", "error": ODD})
    harness.write_events(events / "a.jsonl", [*harness.an_hour(HOUR), odd])

    def made(**options: object) -> HourlyPipeline:
        blocks = [{"type": "postgres", **options}, {"type": "s3"}]
        config = {"source": {"events_dir": str(events)}, "destinations": blocks}
        return HourlyPipeline(pipeline.parse(config), settings)

    hourly = made()
    hourly.searched_table().init(reader="obs_reader")
    hourly.land()
    harness.build(hourly, HOUR)
    after = made(retention_days=1)
    after.searched_table().upkeep.drop_expired(datetime.now(UTC))
    pipelines = harness.write_pipeline(tmp_path / "own", after.config)
    variables = harness.environment(settings) | {"OBS_PIPELINES_DIR": str(pipelines)}
    with running(after, tmp_path, **variables) as (_, url):
        yield url


@pytest.fixture
def seen(browser: Browser, address: str) -> Iterator[Seen]:
    """A page in a new context."""
    context = browser.new_context(viewport=WIDE)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    watched = Seen(context.new_page())
    watch(watched, address)
    yield watched
    context.close()
    assert (watched.errors, watched.foreign) == ([], [])


def test_an_expired_hour_is_searched_in_the_archive(seen: Seen, address: str) -> None:
    """One button away; the answer says what was read, and text of events is text.

    The search is copied as an alert rule that was tried on the hour.
    """
    page = open_page(seen, address, f"{ARCHIVED}&q=type:odd")
    empty = page.locator("#empty")
    empty.get_by_role("button", name="Search the archive").click()
    expect(empty.locator(".archive .sentence")).to_contain_text(
        "1 event found, 1 archived hour"
    )
    line = empty.locator(".archived details")
    expect(line.locator("summary")).to_contain_text("<script>alert(1)</script>")
    line.locator("summary").click()
    expect(line.locator("pre")).to_contain_text("‹U+202E›")
    copied = copied_as(page, "Alert rule")
    assert "tried on 1 hour from 2025-12-04T10:00:00" in copied
    assert "would have fired in 1 hour, with 1 message." in copied
    assert yaml.safe_load(copied)["rules"][0]["where"] == ["event_type == odd"]


def copied_as(page: Page, name: str) -> str:
    """The search in a form of the menu Copy."""
    page.locator("#copy-button").click()
    page.get_by_role("menuitem", name=name).click()
    expect(page.locator("#toast")).to_contain_text("copied", timeout=30_000)
    return str(page.evaluate("navigator.clipboard.readText()"))


QUERIES = {
    "": 20,
    "level:error": 5,
    "data.task:>15 -data.task:17": 3,
    "usage.model:* OR answer": 5,
    'type:odd "<script>"': 1,
}
"""Query → rows that match, at least."""

COLUMNS = ("event_level", "event_type", "master_type", "error")


def test_a_search_runs_in_duckdb_over_the_archive(
    seen: Seen, address: str, settings: Settings, duckdb_with_s3: Path
) -> None:
    """The copied text, unchanged, finds in the S3 server's objects the same rows as the server does."""
    assert settings.s3
    # A person's own credentials, and no setting of this process.
    environment = {"PATH": os.environ["PATH"], **for_aws(settings.s3)}
    del environment["AWS_ENDPOINT_URL_S3"]
    for query, least in QUERIES.items():
        page = open_page(seen, address, f"{ARCHIVED}&q={quote(query)}")
        text = copied_as(page, "DuckDB on the archive")
        assert environment["AWS_SECRET_ACCESS_KEY"] not in text
        asked = subprocess.run(
            [duckdb_with_s3, "-c", ASK],
            input=text,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        found = json.loads(asked.stdout)
        answer = page.request.get(f"{address}/api/v1/archive{ARCHIVED}&q={quote(query)}")
        expected = answer.json()["events"]
        assert len(expected) >= least
        assert [row["row_uid"] for row in found] == [event["row_uid"] for event in expected]
        for row, event in zip(found, expected, strict=True):
            assert {name: row[name] for name in COLUMNS} == {
                name: event[name] for name in COLUMNS
            }
