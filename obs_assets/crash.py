"""Named points at which a test kills the process, to prove that a new run repairs an unfinished hour.

``OBS_CRASH_AT=name`` arms a point, ``name:3`` its third pass. The settings module reads the variable and
calls `arm`, so that the environment is read in a single module. A point costs a set lookup. Within a
process, `interrupted` lets anything else happen at a point: an error, a wait, another program's change.
"""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from obs_assets.errors import ConfigurationError

CRASH_POINTS = frozenset(
    {
        "landing.after_listing",
        "landing.before_read",
        "landing.before_chunk",
        "landing.after_chunk",
        "landing.after_write",
        "landing.before_commit",
        "landing.after_commit",
        "fold.after_record",
        "retention.after_commit",
        "frame.before_rename",
        "frame.after_rename",
        "receipt.before_rename",
        "receive.before_sync",
        "receive.after_sync",
        "postgres.before_swap",
        "postgres.after_delete",
        "postgres.after_copy",
        "postgres.after_index",
        "postgres.before_commit",
        "postgres.after_commit",
        "s3.after_packing",
        "s3.before_object",
        "s3.after_object",
        "s3.after_manifest",
        "elasticsearch.after_ledger",
        "elasticsearch.after_request",
        "elasticsearch.after_documents",
        "elasticsearch.after_removal",
        "elasticsearch.after_commit",
        "appending.before_send",
        "appending.after_send",
        "appending.after_load",
        "appending.after_report",
        "failover.after_note",
        "failover.before_removal",
        "failover.after_removal",
        "webhook.before_outbox",
        "webhook.after_outbox",
        "webhook.before_send",
        "webhook.after_send",
    }
)
"""All points, by the step that they precede or follow."""

_armed: dict[str, Callable[[], object]] = {}
"""Armed point → the action that runs there."""


def arm(spec: str | None) -> None:
    """Let a point kill this process: ``name``, or ``name:n`` for its n-th pass; ``None`` disarms all points.

    The process dies of SIGKILL: no data is flushed, no handler runs.

    Raises:
        ConfigurationError: no point has that name, or ``n`` is not a whole number from 1.
    """
    _armed.clear()
    if not spec:
        return
    name, _, nth = spec.partition(":")
    if name not in CRASH_POINTS:
        known = ", ".join(sorted(CRASH_POINTS))
        raise ConfigurationError(
            f"OBS_CRASH_AT names no crash point: {name!r}; there are {known}"
        )
    if nth and not (nth.isdecimal() and int(nth)):
        raise ConfigurationError(f"OBS_CRASH_AT={spec}: after the colon goes a number from 1")
    passes = itertools.count(1)

    def kill() -> None:
        if next(passes) == int(nth or 1):
            os.kill(os.getpid(), signal.SIGKILL)

    _armed[name] = kill


@contextmanager
def interrupted(name: str, act: Callable[[], object]) -> Iterator[None]:
    """Within the block, call ``act`` whenever a point is passed; an error that it raises goes on from there.

    Raises:
        LookupError: no point has that name.
    """
    if name not in CRASH_POINTS:
        raise LookupError(f"unregistered crash point {name!r}")
    _armed[name] = act
    try:
        yield
    finally:
        _armed.pop(name, None)


def crash_point(name: str) -> None:
    """Run the action of the point, if the point is armed."""
    # A misspelt point would never be reached, and its test would prove nothing.
    if name not in CRASH_POINTS:
        raise LookupError(f"unregistered crash point {name!r}")
    if name in _armed:
        _armed[name]()
