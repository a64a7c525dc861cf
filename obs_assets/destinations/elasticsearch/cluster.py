"""Requests to a cluster: addresses, credentials, retries, and the verdict on each document."""

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import requests

from obs_assets.destinations.elasticsearch.documents import Body
from obs_assets.errors import ConfigurationError, PermanentError, TransientError
from obs_assets.settings import ElasticsearchSettings

FIRST_WAIT_S = 0.5
"""Seconds before the second attempt; each further wait is twice as long."""

LONGEST_WAIT_S = 30.0
"""Seconds that an attempt waits at most, whatever ``Retry-After`` says."""

BUSY = frozenset({429, 500, 502, 503, 504})
"""Statuses of a request, or of a single document, that can succeed later."""

NDJSON = "application/x-ndjson"


@dataclass
class Verdicts:
    """What the server said of the documents of requests.

    Attributes:
        taken: number of documents that are stored.
        overtaken: number of documents of which the server holds a higher version.
        refused: row_uid → the kind of the error, and the name of the field if the server names one.
    """

    taken: int = 0
    overtaken: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Verdicts") -> None:
        """Count the verdicts of another request."""
        self.taken += other.taken
        self.overtaken += other.overtaken
        self.refused |= other.refused


class Cluster:
    """An Elasticsearch or OpenSearch cluster.

    Args:
        settings: address and credentials.
        timeout_s: seconds to wait for an answer.
        max_retries: further attempts of a request.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        settings: ElasticsearchSettings,
        timeout_s: float,
        max_retries: int,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._settings = settings
        self.url = settings.shown_url
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._sleep = sleep
        self._local = threading.local()

    def ask(
        self,
        method: str,
        path: str,
        document: Any = None,
        *,
        allowed: Mapping[int, Any] | None = None,
    ) -> Any:
        """The answer of a request, parsed.

        Args:
            method: ``GET``, ``PUT``, ``POST`` or ``DELETE``.
            path: path and query, without the first slash.
            document: body, as JSON.
            allowed: status → answer, for statuses that are no error.

        Raises:
            ConfigurationError: the credentials or their permissions are wrong.
            TransientError: the cluster cannot be reached, or is busy.
            PermanentError: it refuses the request.
        """
        body = None if document is None else json.dumps(document).encode()
        answer = self._send(method, path, body, "application/json")
        if allowed and answer.status_code in allowed:
            return allowed[answer.status_code]
        self._refuse_errors(answer, method, path)
        return answer.json()

    def store(self, index: str, body: Body) -> Verdicts:
        """Send documents; those for which the server had no time are sent again.

        Raises:
            ConfigurationError, TransientError, PermanentError: as `ask`.
        """
        found = Verdicts()
        lines = body.lines
        for attempt in range(self._max_retries + 1):
            answer = self._send("POST", f"{index}/_bulk", lines, NDJSON)
            self._refuse_errors(answer, "POST", f"{index}/_bulk")
            # Most answers say that all went well; their items need no reading.
            if b'"errors":false' in answer.content[:200]:
                found.taken += body.rows if attempt == 0 else _rows(lines)
                return found
            items = [next(iter(item.values())) for item in answer.json()["items"]]
            busy = []
            for position, item in enumerate(items):
                if item["status"] in BUSY:
                    busy.append(position)
                elif item["status"] == HTTPStatus.CONFLICT:
                    found.overtaken += 1
                elif "error" in item:
                    found.refused[item["_id"]] = _kind_of(item["error"])
                else:
                    found.taken += 1
            if not busy:
                return found
            lines = _only(lines, busy)
            if attempt < self._max_retries:
                self._wait(attempt, None)
        raise TransientError(
            f"{self.url} had no time for {_rows(lines):,} documents of {index} "
            f"in {self._max_retries + 1} attempts"
        )

    def _send(
        self, method: str, path: str, body: bytes | None, content_type: str
    ) -> requests.Response:
        """The first answer that is not `BUSY`, or the last one."""
        for attempt in range(self._max_retries + 1):
            is_last = attempt == self._max_retries
            try:
                answer = self._session.request(
                    method,
                    f"{self.url}/{path}",
                    data=body,
                    headers={"Content-Type": content_type},
                    timeout=self._timeout_s,
                    # Another address would get the events and the credentials.
                    allow_redirects=False,
                )
            except requests.exceptions.SSLError:
                raise ConfigurationError(
                    f"the certificate of {self.url} is not trusted: "
                    "REQUESTS_CA_BUNDLE names a file with your authority's certificate"
                ) from None
            except requests.RequestException as error:
                if is_last:
                    raise TransientError(
                        f"{self.url} cannot be reached ({type(error).__name__}); "
                        "the address is ELASTICSEARCH_URL"
                    ) from None
                self._wait(attempt, None)
                continue
            if answer.status_code not in BUSY or is_last:
                return answer
            self._wait(attempt, answer.headers.get("Retry-After"))
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, attempt: int, retry_after: str | None) -> None:
        # At random between half and the whole time, so that several runs do not come back together.
        wait_s = FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311
        if retry_after and retry_after.isdecimal():
            wait_s = max(wait_s, float(retry_after))
        self._sleep(min(wait_s, LONGEST_WAIT_S))

    def _refuse_errors(self, answer: requests.Response, method: str, path: str) -> None:
        status = answer.status_code
        request = f"{method} {self.url}/{path.partition('?')[0]}"
        if status < HTTPStatus.MULTIPLE_CHOICES:
            return
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise ConfigurationError(
                f"{request} is not allowed (HTTP {status}): check ELASTICSEARCH_API_KEY, or the "
                "user and password in ELASTICSEARCH_URL, and their permissions"
            )
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise PermanentError(
                f"{request} is refused as too large (HTTP 413): lower request_size_mb, or raise the "
                "server's http.max_content_length"
            )
        if status in BUSY:
            raise TransientError(f"{request} was answered with HTTP {status}")
        raise PermanentError(f"{request} was refused: HTTP {status}, {_error_type(answer)}")

    @property
    def _session(self) -> requests.Session:
        """The session of this thread: a session is not safe to share."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self._new_session()
        return session

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.auth = self._settings.basic_auth or _no_other_credentials
        key = self._settings.api_key
        if key:
            session.headers["Authorization"] = f"ApiKey {key.get_secret_value()}"
            session.auth = _no_other_credentials
        return session


def _no_other_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps ``requests`` from taking credentials out of a ``.netrc`` file."""
    return request


def _kind_of(error: Mapping[str, Any]) -> str:
    """The type of a document's error, and the field; the reason itself can hold text of the event.

    >>> _kind_of({"type": "mapper_parsing_exception", "reason": "failed to parse field [log.level] of type [x]"})
    'mapper_parsing_exception: log.level'
    """
    kind = str(error.get("type", "unknown"))
    reason = str(error.get("reason", ""))
    _, opened, rest = reason.partition("failed to parse field [")
    name, closed, _ = rest.partition("]")
    if opened and closed and len(name) < 100:  # noqa: PLR2004 - longer than any field of ours
        return f"{kind}: {name}"
    return kind


def _error_type(answer: requests.Response) -> str:
    """The type of the error in an answer, without its reason."""
    try:
        error = answer.json()["error"]
        return str(error["type"] if isinstance(error, dict) else "error")
    except (ValueError, KeyError, TypeError):
        return "no reason given"


def _rows(lines: bytes) -> int:
    return lines.count(b"\n") // 2


def _only(lines: bytes, positions: list[int]) -> bytes:
    """The two lines of each document at these positions."""
    parts = lines.split(b"\n")
    kept = [line for at in positions for line in parts[2 * at : 2 * at + 2]]
    return b"\n".join(kept) + b"\n"
