"""``POST /events``: JSON objects of any logger: one, a list, or one on each line."""

from obs_assets.receive.bodies import RefusedError
from obs_assets.receive.exchange import Answer, Checked, Protocol, Request, json_answer
from obs_assets.receive.records import decoded, objects

_NAMED = 20
"""Refused records that an answer names at most."""


def _check(request: Request) -> Checked:
    found = list(objects(decoded(request.body)))
    accepted = [record.text for record in found if not record.reason]
    refused = [
        {"position": number, "reason": record.reason}
        for number, record in enumerate(found)
        if record.reason
    ]
    answer = {"accepted": len(accepted), "rejected": len(refused), "errors": refused[:_NAMED]}
    if not accepted:
        detail = "the body holds no event"
        if refused:
            detail = f"no record of the body is an event: {refused[0]['reason']}"
        raise RefusedError(400, detail)
    lines = "".join(f"{text}\n" for text in accepted).encode()
    return Checked(lines, json_answer(200, answer), len(accepted), len(refused))


def _refuse(error: RefusedError, content_type: str) -> Answer:
    del content_type
    return json_answer(error.status, {"error": error.detail})


PROTOCOL = Protocol("events", _check, _refuse)
