"""A crash point that raises instead of killing, so that a test can look at what is left without a child process."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from obs_assets import crash


class DiedError(Exception):
    """Raised where the armed crash point would have killed this process."""


@contextmanager
def dies_at(spec: str) -> Iterator[None]:
    """Within the block, raise `DiedError` at a crash point: ``name``, or ``name:3`` for its third passing."""

    def die(*_: object) -> None:
        raise DiedError(spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crash.os, "kill", die)
        crash.arm(spec)
        try:
            yield
        finally:
            crash.arm(None)
