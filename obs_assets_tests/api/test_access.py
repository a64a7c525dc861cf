"""Who may ask: tokens, sessions, proxies."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from obs_assets.api.access import refuse_contradictions
from obs_assets.api.app import make_app
from obs_assets.api.reader import Limits
from obs_assets.api.serving import Stop
from obs_assets.api.tokens import TokenFile, add_token, read_tokens, revoke_token
from obs_assets.cli import app
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import ApiSettings

NOW = datetime.now(UTC)
PATH = "/api/v1/events"

Opens = Callable[..., TestClient]


@pytest.fixture
def opened(hourly: HourlyPipeline) -> Iterator[Opens]:
    """Makes clients of servers with these settings: ``opened(auth="token", tokens=path)``."""
    with ExitStack() as stack:

        def make(address: str = "127.0.0.1", **api: Any) -> TestClient:
            settings = hourly.settings.model_copy(update={"api": ApiSettings(**api)})
            served = make_app(replace(hourly, settings=settings), Stop(), Limits())
            client = TestClient(served, "http://localhost", client=(address, 1))
            return stack.enter_context(client)

        yield make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the tokens, not there yet."""
    return tmp_path / "secret" / "tokens.json"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_token_opens_its_scopes_alone(opened: Opens, path: Path) -> None:
    """Without a valid token nothing is answered but the health of the process."""
    reads = add_token(path, "reader", ["read"], NOW, days=1)
    sends = add_token(path, "sender", ["write"], NOW, days=None)
    client = opened(auth="token", tokens=path)
    for address in (PATH, "/metrics", "/api/events", "/api/stats", "/api/v1/histogram"):
        assert client.get(address, headers=bearer(reads)).status_code == 200
        refused = client.get(address, headers=bearer(sends))
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems#forbidden")
        for wrong in ({}, bearer("obs_x"), {"Authorization": f"Basic {reads}"}):
            refused = client.get(address, headers=wrong)
            assert (refused.status_code, refused.json()["type"]) == (
                401,
                "/problems#unauthorized",
            )
            assert refused.headers["www-authenticate"] == "Bearer"
    for address in ("/healthz", "/readyz", "/health"):
        assert client.get(address).status_code == 200


def test_a_token_in_an_address_is_refused(opened: Opens, path: Path) -> None:
    """It would be in logs and histories."""
    token = add_token(path, "reader", ["read"], NOW, days=1)
    client = opened(auth="token", tokens=path)
    for name in ("token", "access_token"):
        assert client.get(PATH, params={name: token}).status_code in {400, 401}


def test_a_change_of_the_file_holds_at_once(opened: Opens, path: Path) -> None:
    """A new token is let in; a revoked or expired token is not; a damaged file admits no request."""
    client = opened(auth="token", tokens=path)
    token = add_token(path, "reader", ["read"], NOW, days=1)
    assert client.get(PATH, headers=bearer(token)).status_code == 200
    ended = add_token(path, "old", ["read"], NOW - timedelta(days=2), days=1)
    assert client.get(PATH, headers=bearer(ended)).status_code == 401
    path.chmod(0o644)
    assert client.get(PATH, headers=bearer(token)).status_code == 401
    path.chmod(0o600)
    assert client.get(PATH, headers=bearer(token)).status_code == 200
    revoke_token(path, "reader")
    assert client.get(PATH, headers=bearer(token)).status_code == 401
    path.write_text("{")
    assert client.get(PATH, headers=bearer(ended)).status_code == 401


def test_a_session_takes_the_place_of_the_header(opened: Opens, path: Path) -> None:
    """Its cookie is for this site alone and no script; it ends with its token, or by a request."""
    token = add_token(path, "page", ["read"], NOW, days=1)
    client = opened(auth="token", tokens=path)
    assert client.post("/api/v1/session").status_code == 401
    answered = client.post("/api/v1/session", headers=bearer(token))
    assert answered.status_code == 204
    cookie = answered.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert token not in cookie
    assert client.get(PATH).status_code == 200
    assert client.delete("/api/v1/session").status_code == 204
    assert client.get(PATH).status_code == 401
    client.post("/api/v1/session", headers=bearer(token))
    assert client.get(PATH).status_code == 200
    revoke_token(path, "page")
    assert client.get(PATH).status_code == 401


def test_another_site_gets_no_session(opened: Opens, path: Path) -> None:
    """Its page names itself in the header Origin."""
    token = add_token(path, "page", ["read"], NOW, days=1)
    client = opened(auth="token", tokens=path)
    headers = bearer(token) | {"Origin": "http://evil.example"}
    assert client.post("/api/v1/session", headers=headers).status_code == 403
    own = bearer(token) | {"Origin": "http://localhost"}
    assert client.post("/api/v1/session", headers=own).status_code == 204


def test_a_user_comes_through_a_listed_proxy(opened: Opens) -> None:
    """The header of anybody else is not believed; a header that stands twice is not either."""
    user = {"X-Forwarded-User": "jane"}
    api = {"auth": "proxy", "proxies": "10.0.0.5, 10.1.0.0/16"}
    for address in ("10.0.0.5", "10.1.2.3", "::ffff:10.0.0.5"):
        client = opened(address, **api)
        assert client.get(PATH, headers=user).status_code == 200
        assert client.get(PATH).status_code == 401
        twice = [("X-Forwarded-User", "jane"), ("X-Forwarded-User", "eve")]
        assert client.get(PATH, headers=twice).status_code == 401
    for address in ("10.0.0.6", "127.0.0.1", "testclient"):
        refused = opened(address, **api).get(PATH, headers=user)
        assert refused.status_code == 401


def test_a_proxy_mode_without_proxies_is_refused() -> None:
    """Nobody could ask."""
    with pytest.raises(ConfigurationError, match="OBS_API_PROXIES"):
        refuse_contradictions(ApiSettings(auth="proxy"))
    refuse_contradictions(ApiSettings(auth="proxy", proxies="10.0.0.5"))  # type: ignore[arg-type]


# -- the file ----------------------------------------------------------------------------------------------------------


def test_the_file_has_hashes_and_is_its_owners(path: Path) -> None:
    """A token is not in it; nobody else may read it."""
    token = add_token(path, "a", ["read", "read", "tail"], NOW, days=30)
    assert token.startswith("obs_")
    assert len(token) > 40
    assert token not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    (stored,) = read_tokens(path)
    assert (stored.name, stored.scopes) == ("a", ("read", "tail"))
    assert stored.expires_at == NOW + timedelta(days=30)
    assert TokenFile(path).find(token) == stored
    assert TokenFile(path).find(stored.sha256) is None


def test_names_are_not_given_twice(path: Path) -> None:
    """A name is a word; an unknown name cannot be revoked; the message lists the known ones."""
    add_token(path, "a", ["read"], NOW, days=None)
    with pytest.raises(ConfigurationError, match="a token a already"):
        add_token(path, "a", ["read"], NOW, days=None)
    with pytest.raises(ConfigurationError, match="no name of a token"):
        add_token(path, "a b\n", ["read"], NOW, days=None)
    with pytest.raises(ConfigurationError, match="no token 'b'; there are: a"):
        revoke_token(path, "b")
    revoke_token(path, "a")
    assert read_tokens(path) == ()


def test_the_command_line_makes_lists_and_revokes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`obs tokens add` prints the token alone; nothing prints it or its hash again."""
    monkeypatch.setenv("OBS_TOKENS", str(path))
    run = CliRunner().invoke
    added = run(app, ["tokens", "add", "grafana", "--scope", "read", "--days", "7"])
    assert added.exit_code == 0, added.output
    token = added.stdout.strip()
    assert TokenFile(path).find(token)
    listed = run(app, ["tokens", "list"]).stdout
    assert "grafana  read, ends" in listed
    as_json = run(app, ["tokens", "list", "--json"]).stdout
    assert json.loads(as_json)[0]["name"] == "grafana"
    (stored,) = read_tokens(path)
    assert token not in listed + as_json
    assert stored.sha256 not in listed + as_json
    assert run(app, ["tokens", "revoke", "grafana"]).exit_code == 0
    assert TokenFile(path).find(token) is None
    wrong = run(app, ["tokens", "add", "x", "--scope", "all"])
    assert "'all' is no scope: choose from read, tail, write" in str(wrong.exception)
