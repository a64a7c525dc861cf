"""Named points at which a test may kill the process, to prove that a re-run repairs whatever was half done.

A point costs a set lookup. ``OBS_CRASH_AT=name`` (or ``name:3`` for the third time it is passed) arms one; the settings
module hands it over, so that the environment has a single reader.
"""

import os
import signal

from obs_assets.errors import ConfigurationError

CRASH_POINTS = frozenset(
    {
        "landing.before_chunk",
        "landing.after_chunk",
        "landing.before_commit",
        "landing.after_commit",
        "fold.after_record",
        "retention.after_commit",
        "frame.before_rename",
        "frame.after_rename",
        "receipt.before_rename",
        "postgres.after_delete",
        "postgres.after_copy",
        "postgres.after_index",
        "postgres.before_commit",
        "postgres.after_commit",
        "s3.before_object",
        "s3.after_object",
        "s3.after_manifest",
        "webhook.before_outbox",
        "webhook.after_outbox",
        "webhook.before_send",
        "webhook.after_send",
    }
)

_armed: dict[str, int] = {}


def arm(spec: str | None) -> None:
    """Arm one point, ``name`` or ``name:n``; ``None`` disarms.

    Raises:
        ConfigurationError: no point has that name, or ``n`` is no number from 1.
    """
    _armed.clear()
    if not spec:
        return
    name, _, nth = spec.partition(":")
    if name not in CRASH_POINTS:
        raise ConfigurationError(
            f"OBS_CRASH_AT names no crash point: {name!r}; there are {', '.join(sorted(CRASH_POINTS))}"
        )
    if nth and not (nth.isdecimal() and int(nth)):
        raise ConfigurationError(f"OBS_CRASH_AT={spec}: after the colon goes a number from 1")
    _armed[name] = int(nth or 1)


def crash_point(name: str) -> None:
    """Kill this process with SIGKILL if the point is armed; nothing is flushed, no handler runs."""
    if name not in CRASH_POINTS:
        raise LookupError(f"unregistered crash point {name!r}")
    if name in _armed:
        _armed[name] -= 1
        if _armed[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
