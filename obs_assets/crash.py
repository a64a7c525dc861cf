"""Named points at which a test kills the process, to prove that a new run repairs an unfinished hour.

``OBS_CRASH_AT=name`` arms a point, ``name:3`` its third pass. The settings module reads the variable and
calls `arm`, so that the environment is read in a single module. A point costs a set lookup.
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

"""All points, by the step that they precede or follow."""

_armed: dict[str, int] = {}
"""Armed point → passes until the process is killed."""


def arm(spec: str | None) -> None:
    """Arm a point, ``name`` or ``name:n``; ``None`` disarms all points.

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
    _armed[name] = int(nth or 1)


def crash_point(name: str) -> None:
    """Kill this process with SIGKILL if the point is armed: no data is flushed, no handler runs."""
    if name not in CRASH_POINTS:
        raise LookupError(f"unregistered crash point {name!r}")
    if name in _armed:
        _armed[name] -= 1
        if _armed[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
