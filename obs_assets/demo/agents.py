"""What an agent platform writes down in an hour: tasks of masters and workers, pulses, incidents that name people."""

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
    "config_loaded": (
        "password",
        "password",
    ),  # the second one is an API key, told by the name of its field
}
"""Type of an incident → types of the personal values in it, each as often as it stands there."""

CENTRAL = timezone(timedelta(hours=-6))


def iso(at: datetime, form: str = "Z") -> str:
    """A moment as loggers write it: ``Z``, ``-06:00``, ``-0600`` or ``+0000``."""
    if form == "Z":
        return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    local = at.astimezone(CENTRAL if form.startswith("-") else UTC)
    return (
        local.isoformat(timespec="seconds")
        if ":" in form
        else local.strftime("%Y-%m-%dT%H:%M:%S%z")
    )


def within(hour: Hour, rng: random.Random, spare_s: int = 0) -> datetime:
    """Some moment of an hour, at least so many seconds before its end."""
    return hour.start + timedelta(milliseconds=rng.randrange((3600 - spare_s) * 1000))


def task(hour: Hour, rng: random.Random) -> Iterator[tuple[datetime, Event]]:
    """A task from start to end, under one trace: calls of models and tools, then success or failure."""
    begin = within(hour, rng, spare_s=600)
    trace = f"trace-{rng.getrandbits(48):012x}"
    who: Event = {"master_type": rng.choice(MASTERS)}
    if chance(rng, 0.7):  # the others are done by the master itself
        who |= {
            "worker_type": rng.choice(WORKERS),
            "worker_id": f"worker-{rng.randrange(1000):03}",
        }
    who |= {"trace_id": trace, "session_id": f"session-{trace[-4:]}"}
    at = begin
    yield at, _event(at, "task_started", "info", **who, data={"queue": "default"})
    for _ in range(rng.randrange(2, 7)):
        start, at = at, at + timedelta(milliseconds=rng.randrange(400, 60_000))
        span = {"started_at": iso(start), "completed_at": iso(at)}
        if chance(rng, 0.6):
            tokens = {
                "input_tokens": rng.randrange(200, 30_000),
                "output_tokens": rng.randrange(20, 2_000),
            }
            call = {"model": rng.choice(MODELS), "tokens_used": tokens, "status": "success"}
            yield at, _event(at, "llm_call", "info", **who, **span, **call)
        else:
            level = "debug" if chance(rng, 0.3) else "info"
            yield at, _event(at, "tool_call", level, **who, **span, tool=rng.choice(TOOLS))
    span = {"started_at": iso(begin), "completed_at": iso(at)}
    if chance(rng, 0.06):
        yield (
            at,
            _event(
                at,
                "task_failed",
                "error",
                **who,
                **span,
                status="failed",
                error=rng.choice(FAILURES),
            ),
        )
    else:
        yield (
            at,
            _event(
                at,
                "task_completed",
                "info",
                **who,
                **span,
                status="completed",
                data={"summary": "done ✅"},
            ),
        )


def pulse(hour: Hour, rng: random.Random) -> tuple[datetime, Event]:
    """A heartbeat: nobody misses it when it is filtered."""
    at = within(hour, rng)
    worker = f"worker-{rng.randrange(1000):03}"
    return at, {
        "ts": int(at.timestamp() * 1000),
        "event_type": "heartbeat",
        "worker_id": worker,
        "healthy": True,
    }


def incidents(
    hour: Hour, person: Person, rng: random.Random
) -> Iterator[tuple[datetime, Event]]:
    """Events in which all of a person's values stand: in free text, nested fields, keys, and JSON within a string."""
    login = f"login of {person.email} from {person.ip} refused: password={person.password}"
    customer = {"email": person.email, "phone": person.phone, "payment": {"card": person.card}}
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
        yield at, _event(at, kind, level, session_id=session, **fields, source="customer-desk")


def session_id(program: str, rng: random.Random) -> str:
    """A new session of a program. The sampler draws by trace or session: the same events are kept in every demo."""
    return f"{program}-{rng.getrandbits(32):08x}"


def chance(rng: random.Random, probability: float) -> bool:
    """True with a probability."""
    return rng.random() < probability


def _event(at: datetime, kind: str, level: str, **fields: Any) -> Event:
    return {
        "id": f"evt-{int(at.timestamp() * 1000)}",
        "timestamp": iso(at),
        "type": kind,
        "level": level,
        **fields,
    }
