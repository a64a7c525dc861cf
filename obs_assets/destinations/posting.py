"""HTTP requests of destinations: a session for each thread, retries, and errors that name the setting."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import requests

from obs_assets.errors import ConfigurationError, TransientError

FIRST_WAIT_S = 0.5
"""Seconds before the second attempt; each further wait is twice as long."""

LONGEST_WAIT_S = 30.0
"""Seconds that an attempt waits at most, whatever ``Retry-After`` says."""

BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses of answers that can succeed later."""


@dataclass(frozen=True)
class Poster:
    """Sends requests to a service.

    Attributes:
        shown: address of the service without secrets, for messages.
        setting: variable that holds the address, for messages.
        timeout_s: seconds to wait for an answer.
        max_retries: further attempts of a request.
        headers: headers of each request; they can hold a secret.
        auth: user and password; None for credentials in the headers.
        sleep: waits for a number of seconds.
    """

    shown: str
    setting: str
    timeout_s: float
    max_retries: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    auth: tuple[str, str] | None = field(default=None, repr=False)
    sleep: Callable[[float], object] = time.sleep
    _local: threading.local = field(default_factory=threading.local, repr=False)

    def send(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """The first answer that is not `BUSY`, or the last answer.

        Raises:
            ConfigurationError: the certificate of the service is not trusted.
            TransientError: no attempt got an answer.
        """
        for attempt in range(self.max_retries + 1):
            # The last attempt gives its answer back, whatever it is: the sender explains it.
            is_last = attempt == self.max_retries
            try:
                answer = self.session.request(
                    method,
                    url,
                    data=body,
                    headers=headers,
                    timeout=self.timeout_s,
                    # Another address would get the events and the credentials.
                    allow_redirects=False,
                )
            except requests.exceptions.SSLError:
                raise ConfigurationError(
                    f"the certificate of {self.shown} is not trusted: REQUESTS_CA_BUNDLE names a "
                    "file with your authority's certificate"
                ) from None
            except requests.RequestException as error:
                if is_last:
                    raise TransientError(
                        f"{self.shown} cannot be reached ({type(error).__name__}); "
                        f"the address is {self.setting}"
                    ) from None
                self.wait(attempt)
                continue
            if answer.status_code not in BUSY or is_last:
                return answer
            self.wait(attempt, answer.headers.get("Retry-After"))
        raise AssertionError("the last attempt returns or raises")

    def wait(self, attempt: int, retry_after: str | None = None) -> None:
        """Wait after a failed attempt; the first attempt is 0."""
        # At random between half and the whole time, so that several runs do not come back together.
        wait_s = FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        # The header may also be a date; then the own waiting time is long enough.
        if retry_after and retry_after.isdecimal():
            wait_s = max(wait_s, float(retry_after))
        self.sleep(min(wait_s, LONGEST_WAIT_S))

    @property
    def session(self) -> requests.Session:
        """The session of this thread: a session is not safe to share."""
        # Made at the first use in a thread: a session keeps its connections open.
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.headers.update(self.headers)
            session.auth = self.auth or _no_other_credentials
            self._local.session = session
        return session


def _no_other_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps ``requests`` from taking credentials out of a ``.netrc`` file."""
    return request
