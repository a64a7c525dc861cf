"""Access to the API: every program on loopback, the holder of a token, or the users of a proxy."""

import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import APIRouter, Request, Response
from fastapi.security.utils import get_authorization_scheme_param
from starlette.requests import HTTPConnection

from obs_assets.api.problems import FORBIDDEN, UNAUTHORIZED, ProblemError
from obs_assets.api.tokens import SCOPES, Scope, Token, TokenFile, sha256_of, tokens_path
from obs_assets.errors import ConfigurationError
from obs_assets.settings import ApiSettings, Settings

COOKIE = "obs_session"
"""Cookie of a session. An EventSource and a WebSocket of a browser send no header, but cookies."""

SESSION_S = 12 * 3600
"""Seconds of a session; the token itself may end it earlier."""

MOST_SESSIONS = 1_000
"""Sessions at a time; the oldest ends first."""

USER_HEADER = "x-forwarded-user"
"""Header in which a proxy names the user."""

EVERYTHING = frozenset(SCOPES)

router = APIRouter(prefix="/api/v1", tags=["session"])


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        name: name of the token, or the user of the proxy.
        scopes: what they may do.
    """

    name: str
    scopes: frozenset[Scope]


ANYBODY = Caller("", EVERYTHING)


@dataclass
class Access:
    """Decides who asks.

    Attributes:
        settings: the settings of the machine.
        tokens: the tokens, in the mode ``token``.
        sessions: hash of a session's name → hash of its token, and the moment of `time.monotonic`
            at which it ends.
    """

    settings: Settings
    tokens: TokenFile = field(init=False)
    sessions: OrderedDict[str, tuple[str, float]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.tokens = TokenFile(tokens_path(self.settings))

    def caller(self, client: HTTPConnection) -> Caller:
        """Who asks.

        Raises:
            ProblemError: that is not known.
        """
        match self.settings.api.auth:
            case "none":
                return ANYBODY
            case "proxy":
                return self._user(client)
            case "token":
                return self._holder(client)

    def _user(self, client: HTTPConnection) -> Caller:
        address = _address_of(client)
        # Only the listed proxies are believed: any client can send the header itself.
        networks = self.settings.api.proxies
        trusted = address is not None and any(address in network for network in networks)
        # A proxy that passes on a client's own header would send two.
        users = client.headers.getlist(USER_HEADER)
        if not trusted or len(users) != 1 or not users[0]:
            raise ProblemError(UNAUTHORIZED, "come through the proxy, which says who asks")
        return Caller(users[0], EVERYTHING)

    def _holder(self, client: HTTPConnection) -> Caller:
        scheme, text = get_authorization_scheme_param(client.headers.get("authorization"))
        if scheme.lower() == "bearer" and text:
            token = self.tokens.find(text)
        else:
            # A browser's EventSource cannot send a header: its cookie takes the place of the token.
            token = self._token_of_session(client.cookies.get(COOKIE, ""))
        if token is None:
            raise ProblemError(UNAUTHORIZED, "send a valid token: Authorization: Bearer …")
        return Caller(token.name, frozenset(token.scopes))

    def _token_of_session(self, name: str) -> Token | None:
        sha256, ends_at = self.sessions.get(sha256_of(name), ("", 0.0))
        if time.monotonic() >= ends_at:
            return None
        # The token is asked for again, so that a revoked token ends its sessions, too.
        return self.tokens.find_hash(sha256)

    def open_session(self, token: str) -> str:
        """A session of a valid token; returns its name, for the cookie."""
        name = secrets.token_urlsafe(32)
        # The name is stored as a hash: a dump of the memory holds no usable cookie.
        self.sessions[sha256_of(name)] = (sha256_of(token), time.monotonic() + SESSION_S)
        while len(self.sessions) > MOST_SESSIONS:
            self.sessions.popitem(last=False)
        return name

    def close_session(self, name: str) -> None:
        """End a session."""
        self.sessions.pop(sha256_of(name), None)


def _address_of(client: HTTPConnection) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of the other end of a connection; None where it has none."""
    if client.client is None:
        return None
    try:
        address = ipaddress.ip_address(client.client.host)
    except ValueError:
        return None
    # A server that listens on IPv6 sees 10.0.0.5 as ::ffff:10.0.0.5.
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def refuse_contradictions(settings: ApiSettings) -> None:
    """Raise for settings that refuse every request.

    Raises:
        ConfigurationError: the mode ``proxy`` has no proxy.
    """
    if settings.auth == "proxy" and not settings.proxies:
        raise ConfigurationError(
            "OBS_API_AUTH=proxy believes the proxies that OBS_API_PROXIES lists, and it lists none"
        )


def needs(scope: Scope) -> Callable[[HTTPConnection], Awaitable[None]]:
    """A FastAPI dependency that refuses a caller whose token does not have the scope."""

    async def check(client: HTTPConnection) -> None:
        access: Access = client.app.state.served.access
        caller = access.caller(client)
        # The log of requests is written outside of the routes and takes the name from here.
        client.scope.setdefault("state", {})["caller"] = caller.name
        if scope not in caller.scopes:
            raise ProblemError(
                FORBIDDEN, f"this token has not the scope {scope}: it may not {SCOPES[scope]}"
            )

    return check


def refuse_other_sites(client: HTTPConnection) -> None:
    """Raise for a page of another site: a browser allows every page to open a WebSocket to this server.

    Raises:
        ProblemError: the header ``Origin`` names another host than the header ``Host``.
    """
    origin = client.headers.get("origin")
    # Programs send no such header; a browser names the site of the page that asks.
    if origin is None:
        return
    host = client.headers.get("host", "")
    if origin.partition("://")[2].lower() != host.lower():
        raise ProblemError(FORBIDDEN, "a page of another site may not ask")


@router.post("/session", status_code=204, response_class=Response)
async def open_session(request: Request) -> Response:
    """Get a cookie for a token, so that an EventSource of a browser can ask. Send the token as a header."""
    access: Access = request.app.state.served.access
    refuse_other_sites(request)
    access.caller(request)
    response = Response(status_code=204)
    scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
    if access.settings.api.auth == "token" and scheme.lower() == "bearer":
        response.set_cookie(
            COOKIE,
            access.open_session(token),
            max_age=SESSION_S,
            path="/",
            # Without TLS, as on loopback, a browser may not send a secure cookie back.
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
    return response


@router.delete("/session", status_code=204, response_class=Response)
async def close_session(request: Request) -> Response:
    """End the session of the cookie."""
    access: Access = request.app.state.served.access
    refuse_other_sites(request)
    access.close_session(request.cookies.get(COOKIE, ""))
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response
