"""Receipts: counts that add up, or say so."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_assets.errors import ReceiptError
from obs_assets.receipts import InputVersion, Receipt

VERSION = InputVersion(3, "c0ffee", "2")


def receipt(taken: int, kept: int, **other: int) -> Receipt:
    return Receipt("2031-05-06-10:00", "sampled_events", VERSION, taken, kept, other)


def test_a_receipt_that_adds_up_is_passed_on() -> None:
    """taken = kept + everything set aside."""
    good = receipt(10, 6, filtered=3, sampled_out=1)
    assert good.unaccounted == 0
    assert good.check() is good


@pytest.mark.parametrize(("taken", "kept", "difference"), [(1000, 1, 999), (1, 1000, -999)])
def test_a_receipt_that_does_not_is_an_error(taken: int, kept: int, difference: int) -> None:
    """Missing and surplus rows are both told, with the stage and the hour."""
    bad = receipt(taken, kept)
    assert bad.unaccounted == difference
    with pytest.raises(
        ReceiptError, match=rf"^sampled_events 2031-05-06-10:00: .* {difference} unaccounted"
    ):
        bad.check()


def test_details_do_not_count() -> None:
    """They explain and need not add up."""
    detailed = Receipt("h", "s", VERSION, 2, 2, details={"redacted": {"email": 7}})
    assert detailed.check().unaccounted == 0


def test_version_as_text() -> None:
    """The text of a version names all that an hour was built from, the generation first."""
    assert str(VERSION) == "3-c0ffee-2"


@pytest.mark.slow
@given(
    st.builds(
        Receipt,
        hour=st.text(),
        stage=st.text(),
        version=st.builds(InputVersion, st.integers(), st.text(), st.text()),
        taken=st.integers(),
        kept=st.integers(),
        other=st.dictionaries(st.text(), st.integers()),
        details=st.dictionaries(st.text(), st.dictionaries(st.text(), st.integers())),
        content_hash=st.text(),
        size_bytes=st.integers(),
    )
)
def test_what_is_written_is_read_back(told: Receipt) -> None:
    """The same receipt, and the same text for it whatever the order of its counts."""
    assert Receipt.from_json(told.to_json()) == told
    backwards = Receipt.from_json(
        json.dumps(dict(reversed(json.loads(told.to_json()).items())))
    )
    assert backwards.to_json() == told.to_json()
