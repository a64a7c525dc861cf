"""Rules of other packages in the second opinion: each sees what is left, also when no rule here does."""

import json

import pytest

from obs_assets.audit import borrowed, leftovers
from obs_assets.audit.leftovers import Leftover, Scanner, Scope

SEEN = [
    ("phone", "call +353 1 234 5678 soon"),
    ("iban", "to NL91 ABNA 0417 1643 00 now"),
    ("ssn", "for 536-90-4399"),
    ("api_key", "got SG." + "a1B2c3D4e5F6g7H8i9J0kL" + "." + "a1B2c3D4e5" * 4 + "xyz"),
]


def test_the_packages_are_installed() -> None:
    """The checks of this repository run with all of them."""
    assert borrowed.installed() == ["phonenumbers", "python-stdnum", "detect-secrets"]


@pytest.mark.parametrize(("type_", "text"), SEEN)
def test_a_value_is_seen_without_the_rules_of_this_project(
    type_: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an event and in a column, with every rule of `leftovers` taken away."""
    monkeypatch.setattr(leftovers, "_RULES", {})
    scanner = Scanner(Scope())
    assert scanner.event(json.dumps({"note": text})) == [Leftover(type_, "note")]
    assert scanner.text(text, "status") == [Leftover(type_, "status")]


@pytest.mark.parametrize(
    "text",
    [
        "call +353***78 soon",
        "to NL91*** now",
        "AC" + "0123456789abcdef" * 2,
        "SK***",
        "order 000-12-3456",
        "APACHE2server started",
        "BEGIN RSA PRIVATE KEY is how a key begins",
    ],
)
def test_masks_ids_and_words_are_left_alone(text: str) -> None:
    """A mask, an account's id, an impossible number and a word are no leftovers."""
    assert Scanner(Scope()).event(json.dumps({"note": text})) == []


def test_a_type_that_is_kept_is_not_reported() -> None:
    """Types in the mode ``keep`` are left out of these rules too."""
    scanner = Scanner(Scope(types=frozenset(("email",))))
    assert [scanner.event(json.dumps({"note": text})) for _, text in SEEN] == [[]] * len(SEEN)


def test_a_long_text_is_looked_at_in_part() -> None:
    """The first 64 KiB count, so that no text makes a scan slow."""
    before = "x " * (borrowed.MOST_CHARACTERS // 2)
    assert list(borrowed.types_in(f"{SEEN[0][1]} {before}")) == ["phone"]
    assert list(borrowed.types_in(f"{before} {SEEN[0][1]}")) == []
