"""CONTRIBUTING's recipe for a kind of value: one module and one row, and redaction knows it."""

import json
from collections.abc import Iterator

import duckdb
import pytest

from obs_assets.transforms.detectors import DETECTORS
from obs_assets.transforms.redact import RedactConfig, redact
from obs_assets_tests.detecting import only
from obs_assets_tests.frames import frame_of
from obs_assets_tests.recipes.badges import BADGE


@pytest.fixture
def registered() -> Iterator[None]:
    """The row of the invented detector stands in the table, as if it were written there."""
    with only(BADGE, *DETECTORS):
        yield


def redacted(config: RedactConfig) -> tuple[str, list[str]]:
    """The message of an event after redaction, and the types that were redacted in it."""
    with duckdb.connect() as connection:
        frame = frame_of(
            connection, [{"message": "door opened by BADGE-4711-X, not by XBADGE-4711-X"}]
        )
        ((event, types),) = (
            redact(connection, frame, config).project("event, redactions").fetchall()
        )
    return json.loads(event)["message"], types


def test_it_is_found_and_masked(registered: None) -> None:
    """The value goes, its look-alike stays, and it is counted under its type."""
    message, types = redacted(RedactConfig())
    assert message == "door opened by BADGE-***, not by XBADGE-4711-X"
    assert "badge" in str(types)


def test_its_mode_can_be_set(registered: None) -> None:
    """``modes`` knows the type: it can be kept, and an unknown type is still a mistake."""
    message, types = redacted(RedactConfig(modes={"badge": "keep"}))
    assert "BADGE-4711-X," in message
    assert not types
    with pytest.raises(ValueError, match="unknown type bagde"):
        RedactConfig(modes={"bagde": "keep"})
