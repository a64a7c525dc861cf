"""Events for the page: agents at work, with traces, errors, costs, odd texts."""

from datetime import timedelta
from typing import Any

from obs_assets.hours import Hour
from obs_assets_tests.frames import HOUR

HOURS = tuple(Hour(HOUR.start + timedelta(hours=offset)) for offset in (0, 1, 2, 4))
"""Three hours side by side, a gap of one hour, one hour more."""

EVENTS = 150
"""Events of an hour."""

ODD = "<script>document.title='run'</script> \"double\" 'single' &amp; & \u202etxt.exe"
"""A text that a page must show as it is."""

_TYPES = ("task_completed", "task_started", "llm_call", "tool_call", "heartbeat")
_MASTERS = ("development-master", "security-master", "inventory-master")


def events_of(hour: Hour) -> list[dict[str, Any]]:
    """Events of an hour, every 24 seconds; each tenth is an error, each hour has an odd one."""
    made = [_event(hour, number) for number in range(EVENTS)]
    made[7] |= {"message": ODD, "type": ODD, "master": ODD, "odd<b>": {ODD: ODD}}
    made[9] |= {"n": None, "tags": ["old", "new"], "big": 9007199254740993, "price": 1.10}
    return made


def _event(hour: Hour, number: int) -> dict[str, Any]:
    at = hour.start + timedelta(seconds=24 * number, milliseconds=7 * number)
    event: dict[str, Any] = {
        "id": f"{hour.stamp}-{number}",
        "timestamp": at.isoformat(),
        "type": _TYPES[number % len(_TYPES)],
        "level": ("info", "info", "debug", "warning")[number % 4],
        "master": _MASTERS[number % len(_MASTERS)],
        "worker_id": f"w-{number % 7}",
        "trace_id": f"{hour.stamp}{number // 6:04d}",
        "message": f"step {number} of the plan",
        "usage": {"model": ("small", "large")[number % 2], "tokens": {"in": number, "out": 7}},
    }
    if number % 3 == 0:
        event |= {"duration_ms": 100 + 37 * number, "cost_usd": number / 1000}
    if number % 10 == 3:
        event |= {
            "level": "error",
            "error": f"connection lost after {number} s",
            "type": "task_failed",
        }
    return event
