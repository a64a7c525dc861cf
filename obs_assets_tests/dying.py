"""A crash point that raises instead of killing, so that a test can look at what is left without a child process."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from obs_assets.crash import interrupted


class DiedError(Exception):
    """Raised where the armed crash point would have killed this process."""


@contextmanager
def dies_at(spec: str) -> Iterator[None]:
    """Within the block, raise `DiedError` at a crash point: ``name``, or ``name:3`` for its third passing."""
    name, _, nth = spec.partition(":")
    passes = itertools.count(1)

    def die() -> None:
        if next(passes) == int(nth or 1):
            raise DiedError(spec)

    with interrupted(name, die):
        yield
