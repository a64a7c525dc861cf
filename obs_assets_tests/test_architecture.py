"""The rooms of the package and the arrows between them stay few, and none points upwards."""

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def architecture(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The script that counts and draws."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import architecture as module

    yield module
    sys.modules.pop("architecture", None)


def test_the_house_stays_in_order(architecture) -> None:  # type: ignore[no-untyped-def]
    """At most 12 loose modules, at most 160 arrows between rooms, none upwards."""
    arrows = architecture.find_arrows()
    assert len(architecture.loose_modules()) <= 12
    assert sum(map(len, arrows.values())) <= 160
    assert architecture.upward_arrows(arrows) == []


def test_a_circle_points_upwards(architecture) -> None:  # type: ignore[no-untyped-def]
    """Rooms that import each other, directly or through a third room, are found; others are not."""
    circle = {"top": {"a"}, "a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()}
    assert architecture.upward_arrows(circle) == [("a", "b"), ("b", "c"), ("c", "a")]
    assert architecture.upward_arrows({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert architecture.floors({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {
        "a": 3,
        "b": 2,
        "c": 1,
    }


def test_the_page_names_every_room(architecture) -> None:  # type: ignore[no-untyped-def]
    """docs/architecture.md says what each folder and each loose module holds."""
    page = (SCRIPTS.parent / "docs" / "architecture.md").read_text()
    rooms = [room for room in architecture.find_arrows() if room != "defs"]
    missing = [
        room for room in rooms if f"`{room}/`" not in page and f"`{room}.py`" not in page
    ]
    assert missing == []
