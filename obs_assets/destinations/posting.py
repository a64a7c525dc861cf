"""HTTP requests of destinations: a session for each thread, and errors that name the setting."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from urllib.parse import urlsplit

import requests
from pydantic import Field, field_validator

from obs_assets.destinations.base import DestinationConfig
from obs_assets.destinations.sending import (
    Doors,
    Limit,
    Request,
    UnansweredError,
    balanced,
    limited,
    retried,
    retry_after_s,
)
from obs_assets.errors import ConfigurationError, TransientError

BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses of answers that can succeed later."""

DENIED = frozenset({301, 302, 303, 307, 308, 401, 403, 407})
"""Statuses of a door that is set up otherwise than its siblings, for example behind a page for logging in."""


class RequestsConfig(DestinationConfig, frozen=True):
    """Options of destinations that get requests.

    Attributes:
        connections: requests that are sent at the same time at most; the number adapts to the receiver. If a
            run dies, the rows of these requests can arrive twice: see docs/appending.md before you raise it.
        timeout_s: seconds to wait for an answer.
        max_retries: further attempts of a request that the receiver could not take (429, 5xx).
    """

    connections: int = Field(1, ge=1, le=64, json_schema_extra={"unit": "requests"})
    timeout_s: float = Field(60.0, gt=0, le=600, json_schema_extra={"unit": "seconds"})
    max_retries: int = Field(5, ge=0, le=20, json_schema_extra={"unit": "attempts"})


class PostingConfig(RequestsConfig, frozen=True):
    """Options of destinations that get HTTP requests at addresses of their users.

    Attributes:
        endpoints: several doors to the same store, such as nodes of a cluster or forwarders, in the
            place of the address in the environment, whose credentials they share. A request goes to the
            healthy door with the least outstanding bytes; a door that fails is set aside and probed.
    """

    endpoints: tuple[str, ...] = Field(
        (),
        examples=[["https://node-1.example.com:9200", "https://node-2.example.com:9200"]],
    )

    @field_validator("endpoints")
    @classmethod
    def _without_secrets(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(without_secrets, endpoints))

    def address_setting(self, variable: str) -> str:
        """The setting that names the doors, for messages: ``endpoints`` or the variable."""
        return "endpoints" if self.endpoints else variable

    def doors_or(self, url: str) -> tuple[str, ...]:
        """The doors, without a slash at the end; a single door without ``endpoints``."""
        return tuple(endpoint.rstrip("/") for endpoint in self.endpoints or (url,))


def without_secrets(address: str) -> str:
    """The address, if it is one that messages and files may show: ``https://node-1.example.com:9200``.

    Raises:
        ValueError: it is no address, or has a user, a password, a query or a fragment.
    """
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_plain = parts.username is None and not parts.query and not parts.fragment
        # A port that is no number raises here.
        is_known = is_address and is_plain and parts.port != 0
    except ValueError:
        is_known = False
    if not is_known:
        raise ValueError(
            "an address is http:// or https://, a host and perhaps a port and a path, without a "
            "user or a query: credentials come from the environment"
        )
    return address


@dataclass(frozen=True)
class Poster:
    """Sends requests to a service.

    Attributes:
        doors: addresses of the service, without secrets.
        setting: variable that holds the address, for messages.
        timeout_s: seconds to wait for an answer.
        max_retries: further attempts of a request.
        limit: requests at the same time.
        headers: headers of each request; they can hold a secret.
        auth: user and password; None for credentials in the headers.
        sleep: waits for a number of seconds.
    """

    doors: Doors
    setting: str
    timeout_s: float
    max_retries: int
    limit: Limit
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    auth: tuple[str, str] | None = field(default=None, repr=False)
    sleep: Callable[[float], object] = time.sleep
    _local: threading.local = field(default_factory=threading.local, repr=False)

    @cached_property
    def send(self) -> Callable[[Request], requests.Response]:
        """Sends a request; returns the first answer whose status is not in `BUSY`.

        Raises (when called):
            ConfigurationError: the certificate of the service is not trusted, or each of several doors
                refuses the credentials.
            TransientError: no attempt got such an answer.
        """
        return retried(
            limited(balanced(self.post, self.doors), self.limit), self.max_retries, self.sleep
        )

    def post(self, url: str, request: Request) -> requests.Response:
        """A single attempt at the door ``url``; see `send`."""
        try:
            answer = self.session.request(
                request.method,
                f"{url}/{request.path}",
                data=request.body,
                headers=request.headers,
                timeout=self.timeout_s,
                # Another address would get the events and the credentials.
                allow_redirects=False,
            )
        except requests.exceptions.SSLError:
            raise ConfigurationError(
                f"the certificate of {url} is not trusted: REQUESTS_CA_BUNDLE names a "
                "file with your authority's certificate"
            ) from None
        except requests.RequestException as error:
            message = (
                f"{url} cannot be reached ({type(error).__name__}); "
                f"the address is {self.setting}"
            )
            if _was_not_sent(error):
                raise TransientError(message) from None
            raise UnansweredError(message) from None
        if answer.status_code in BUSY:
            path = request.path.partition("?")[0]
            raise TransientError(
                f"{request.method} {url}/{path} was answered with HTTP {answer.status_code}: "
                "the service has no time",
                retry_after_s=_asked_s(answer),
            )
        # Of a single door, the destination knows more exactly what the answer means.
        if answer.status_code in DENIED and len(self.doors.urls) > 1:
            raise ConfigurationError(
                f"{url} answered with HTTP {answer.status_code}: all addresses in {self.setting} must "
                "lead to the same service and take the same credentials"
            )
        return answer

    @property
    def session(self) -> requests.Session:
        """The session of this thread: a session is not safe to share."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.headers.update(self.headers)
            session.auth = self.auth or _no_other_credentials
            self._local.session = session
        return session


def _was_not_sent(error: requests.RequestException) -> bool:
    """Whether no connection was made, so that the request cannot have arrived."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    return "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error)


def _asked_s(answer: requests.Response) -> float | None:
    return retry_after_s(answer.headers.get("Retry-After"), datetime.now(UTC))


def _no_other_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps ``requests`` from taking credentials out of a ``.netrc`` file."""
    return request
