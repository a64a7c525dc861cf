"""What a receiver refuses: strangers, bombs, half bodies, too much at a time."""

import asyncio
import base64
import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from obs_assets.api.tokens import TokenFile, add_token
from obs_assets.receive.bodies import Limits
from obs_assets_tests.receive.conftest import Inside
from obs_assets_tests.sources.place import Place

EVENT = b'{"time": 1935738000}'


@pytest.mark.parametrize(
    "path", ["/events", "/services/collector", "/_bulk", "/v1/logs", "/metrics"]
)
def test_only_holders_of_a_token_may_send(tmp_path: Path, path: str) -> None:
    """Each way in asks for a token with the scope `write`, in the forms that senders have."""
    file = tmp_path / "tokens.json"
    now = datetime.now(UTC)
    may, may_not = (add_token(file, name, [name], now, days=None) for name in ("write", "read"))
    inside = Inside(Place(tmp_path / "place"), tokens=TokenFile(file))
    method = "GET" if path == "/metrics" else "POST"

    def status(authorization: str) -> int:
        headers = {"Authorization": authorization} if authorization else {}
        return inside.client.request(method, path, content=b"", headers=headers).status_code

    def pair(token: str) -> str:
        return base64.b64encode(f"id:{token}".encode()).decode()

    for refused in ("", "Bearer obs_wrong", "Basic ???", f"Digest {may}", "ApiKey"):
        assert status(refused) == 401
    assert status(f"Splunk {may_not}") == 403
    for form in (f"Bearer {may}", f"Splunk {may}", f"ApiKey {pair(may)}", f"Basic {pair(may)}"):
        assert status(form) not in (401, 403)
    inside.spool.close()


BOMB = 200 << 20
"""Bytes of a body that is small while it is packed."""

PACKED: Mapping[str, tuple[str, Callable[[], bytes], int]] = {
    "a gzip bomb": ("gzip", lambda: gzip.compress(bytes(BOMB)), 413),
    "a zstd bomb": ("zstd", lambda: zstd.compress(bytes(BOMB)), 413),
    "a deflate bomb": ("deflate", lambda: zlib.compress(bytes(BOMB)), 413),
    "half of gzip": ("gzip", lambda: gzip.compress(EVENT)[:-5], 400),
    "half of zstd": ("zstd", lambda: zstd.compress(EVENT)[:-2], 400),
    "no gzip": ("gzip", lambda: b"plain", 400),
    "no zstd": ("zstd", lambda: b"plain", 400),
    "an unknown encoding": ("br", lambda: EVENT, 415),
    "gzip twice": ("gzip", lambda: gzip.compress(EVENT) + gzip.compress(EVENT), 200),
    "deflate": ("deflate", lambda: zlib.compress(EVENT), 200),
    "identity": ("identity", lambda: EVENT, 200),
}
"""Name → encoding, function that makes the body, and the expected status."""


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_body_is_unpacked_within_limits(inside: Inside, name: str) -> None:
    """Bombs and damaged bodies are refused; all members of a body are read."""
    encoding, body, status = PACKED[name]
    headers = {"Content-Encoding": encoding}
    assert inside.client.post("/events", content=body(), headers=headers).status_code == status


def test_a_body_that_is_too_long_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """By its declared length, and by its real length."""
    inside = Inside(Place(tmp_path), limits=Limits(body_bytes=100))
    assert inside.client.post("/events", content=b" " * 101).status_code == 413
    stream = (b" " * 60 for _ in range(2))
    assert inside.client.post("/events", content=stream).status_code == 413
    inside.spool.close()


def ask(app: Any, messages: Sequence[dict[str, Any]], wait_s: float = 0.0) -> tuple[int, bytes]:
    """Status and headers of an answer to a body that arrives in these messages, and then no more."""
    sent: list[dict[str, Any]] = []

    async def run() -> None:
        waiting = list(messages)

        async def receive() -> dict[str, Any]:
            if waiting:
                return waiting.pop(0)
            await asyncio.sleep(wait_s)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/events", "query_string": b""}
        await app({**scope, "headers": []}, receive, send)

    asyncio.run(run())
    return sent[0]["status"], b" ".join(name for name, _ in sent[0]["headers"])


def test_half_a_body_is_refused(tmp_path: Path) -> None:
    """A sender that stops, or goes away, holds neither memory nor a request."""
    inside = Inside(Place(tmp_path), limits=Limits(body_s=0.2, open_bytes=100))
    half = {"type": "http.request", "body": b" " * 90, "more_body": True}
    for wait_s, status in ((60.0, 408), (0.0, 400)) * 2:
        assert ask(inside.app, [half], wait_s)[0] == status
    inside.spool.close()


def test_too_much_at_a_time_is_answered_with_retry_after(tmp_path: Path) -> None:
    """Beyond the memory for bodies the answer is 429, and the sender learns when to come again."""
    inside = Inside(Place(tmp_path), limits=Limits(open_bytes=100))
    whole = {"type": "http.request", "body": b" " * 101}
    status, names = ask(inside.app, [whole])
    assert status == 429
    assert b"retry-after" in names.lower()
    inside.spool.close()
