"""Redaction with other rows in its table of detectors, as CONTRIBUTING's recipe writes them there."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from obs_assets.transforms import detectors
from obs_assets.transforms.detectors import Detector
from obs_assets.transforms.redact.redactor import redactor_of
from obs_assets.transforms.redact.self_test import check_engine


@contextmanager
def only(*rows: Detector) -> Iterator[None]:
    """Within the block these are all detectors; neither there nor afterwards is a redactor of other rows found."""
    check_engine()  # which is not to judge these rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detectors, "DETECTORS", rows)
        redactor_of.cache_clear()
        yield
    redactor_of.cache_clear()
