"""Events of an agent platform in an hour: tasks, heartbeats, incidents with personal data."""

import json
import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from obs_assets.demo.people import Person
from obs_assets.hours import Hour

Event = dict[str, Any]

MASTERS = ("coordinator-master", "development-master", "security-master", "inventory-master")
WORKERS = ("implementation", "review", "scan", "documentation")
MODELS = ("large-1", "small-2")
TOOLS = ("read_file", "run_tests", "search_code", "open_pull_request")
FAILURES = (
    "tests failed: 3 of 41 ❌",
    "run_tests timed out after 300 s",
    "permission denied: null\ncannot spawn",
)
PERSONAL: Mapping[str, tuple[str, ...]] = {
    "login_failed": ("email", "ip_address", "password"),
    "payment_failed": ("email", "phone", "credit_card"),
    "identity_check_failed": ("ssn", "ip_address"),
    "deployment_failed": ("api_key", "ip_address"),
    "mail_sent": ("email",),
    "note_saved": ("phone", "ssn", "credit_card"),
    # The second value is an API key. The name of its field makes the redactor count it as a password.
    "config_loaded": ("password", "password"),
}
"""Type of an incident → types of its personal values, one entry for each occurrence."""

CENTRAL = timezone(timedelta(hours=-6))
"""Local time of the loggers that do not write UTC."""


def iso(at: datetime, form: str = "Z") -> str:
    """A time as loggers write it, for example ``2026-11-29T11:25:30.775Z``.

    Args:
        at: the time.
        form: its ending: ``Z``, ``-06:00``, ``-0600`` or ``+0000``.
    """
    if form == "Z":
        return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    # A negative offset is the local time; `+0000` is UTC in another form.
    zone = CENTRAL if form.startswith("-") else UTC
    local = at.astimezone(zone)
    if ":" in form:
        return local.isoformat(timespec="seconds")
    return local.strftime("%Y-%m-%dT%H:%M:%S%z")


def within(
    hour: Hour,
    rng: random.Random,
    spare_s: int = 0,
) -> datetime:
    """A random time of an hour, at least ``spare_s`` seconds before its end."""
    return hour.start + timedelta(milliseconds=rng.randrange((3600 - spare_s) * 1000))


def task(hour: Hour, rng: random.Random) -> Iterator[tuple[datetime, Event]]:
    """The events of a task, under one trace: calls of models and tools, then success or failure."""
    begin = within(hour, rng, spare_s=600)
    trace = f"trace-{rng.getrandbits(48):012x}"
    common: Event = {"master_type": rng.choice(MASTERS)}
    if chance(rng, 0.7):  # The master does the other tasks itself.
        common |= {
            "worker_type": rng.choice(WORKERS),
            "worker_id": f"worker-{rng.randrange(1000):03}",
        }
    common |= {"trace_id": trace, "session_id": f"session-{trace[-4:]}"}
    at = begin
    yield _timed(at, "task_started", "info", **common, data={"queue": "default"})
    for _ in range(rng.randrange(2, 7)):
        start, at = at, at + timedelta(milliseconds=rng.randrange(400, 60_000))
        span = {"started_at": iso(start), "completed_at": iso(at)}
        if chance(rng, 0.6):
            tokens = {
                "input_tokens": rng.randrange(200, 30_000),
                "output_tokens": rng.randrange(20, 2_000),
            }
            call = {
                "model": rng.choice(MODELS),
                "tokens_used": tokens,
                "status": "success",
            }
            yield _timed(at, "llm_call", "info", **common, **span, **call)
        else:
            # The default filter drops debug events.
            level = "debug" if chance(rng, 0.3) else "info"
            yield _timed(at, "tool_call", level, **common, **span, tool=rng.choice(TOOLS))
    span = {"started_at": iso(begin), "completed_at": iso(at)}
    if chance(rng, 0.06):
        failure = {"status": "failed", "error": rng.choice(FAILURES)}
        yield _timed(at, "task_failed", "error", **common, **span, **failure)
    else:
        success = {"status": "completed", "data": {"summary": "done ✅"}}
        yield _timed(at, "task_completed", "info", **common, **span, **success)


def pulse(hour: Hour, rng: random.Random) -> tuple[datetime, Event]:
    """A heartbeat: noise that the filter drops."""
    at = within(hour, rng)
    worker = f"worker-{rng.randrange(1000):03}"
    # Another logger: its names of fields and its form of the time differ from the agents'.
    return at, {
        "ts": int(at.timestamp() * 1000),
        "event_type": "heartbeat",
        "worker_id": worker,
        "healthy": True,
    }


def incidents(
    hour: Hour, person: Person, rng: random.Random
) -> Iterator[tuple[datetime, Event]]:
    """Events with all values of a person: in free text, nested fields, keys, JSON in a string."""
    login = f"login of {person.email} from {person.ip} refused: password={person.password}"
    customer = {
        "email": person.email,
        "phone": person.phone,
        "payment": {"card": person.card},
    }
    check = {"ssn": person.ssn, "client": {"ip_address": person.ip}}
    deploy = json.dumps({"command": f"deploy --key {person.api_key}", "host": person.ip})
    mail = {"recipients": {person.email: "queued"}, "retries": 0}
    note = f"Called {person.phone}; SSN {person.ssn}, card {person.card}."
    access = {"password": person.password, "api_key": person.api_key}
    session = session_id("desk", rng)
    shapes: tuple[tuple[str, str, Event], ...] = (
        ("login_failed", "error", {"error": login}),
        (
            "payment_failed",
            "error",
            {"error": "declined", "status": "failed", "data": {"customer": customer}},
        ),
        ("identity_check_failed", "error", {"error": "no match", "data": check}),
        ("deployment_failed", "error", {"error": "exit code 1", "data": deploy}),
        ("mail_sent", "info", {"data": mail}),
        ("note_saved", "info", {"message": note}),
        ("config_loaded", "info", {"data": access}),
    )
    for kind, level, fields in shapes:
        at = within(hour, rng)
        yield _timed(
            at,
            kind,
            level,
            session_id=session,
            **fields,
            source="customer-desk",
        )


def session_id(program: str, rng: random.Random) -> str:
    """A new session of a program, for example ``desk-1f0e33a2``.

    The sampler decides by trace or session, so every demonstration keeps the same events.
    """
    return f"{program}-{rng.getrandbits(32):08x}"


def chance(rng: random.Random, probability: float) -> bool:
    """True with this probability (0 to 1)."""
    return rng.random() < probability


def _timed(at: datetime, kind: str, level: str, **fields: Any) -> tuple[datetime, Event]:
    """An event with its time."""
    event = {
        "id": f"evt-{int(at.timestamp() * 1000)}",
        "timestamp": iso(at),
        "type": kind,
        "level": level,
        **fields,
    }
    return at, event
