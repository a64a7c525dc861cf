"""What tests of hours share."""

from pathlib import Path

import pytest

from obs_assets_tests import harness


@pytest.fixture
def events_dir(tmp_path: Path) -> Path:
    """A folder with one hour of events."""
    return harness.write_events(tmp_path / "events" / "a.jsonl", harness.an_hour()).parent
