"""Requests to a cluster: addresses, credentials, retries, and the verdict on each document."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import requests

from obs_assets.destinations.elasticsearch.documents import Body
from obs_assets.destinations.posting import BUSY, Poster, PostingConfig
from obs_assets.destinations.sending import Gate, Limit, Request, doors_of, wait_s
from obs_assets.errors import ConfigurationError, PermanentError, TransientError
from obs_assets.settings import ElasticsearchSettings

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
        config: the cluster's doors, time limits and retries.
        settings: address and credentials.
        gate: makes the gate of a door from its address.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        config: PostingConfig,
        settings: ElasticsearchSettings,
        gate: Callable[[str], Gate] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.limit = Limit(config.connections)
        self._max_retries = config.max_retries
        self._sleep = sleep
        headers = {}
        auth = settings.basic_auth
        if settings.api_key:
            headers["Authorization"] = f"ApiKey {settings.api_key.get_secret_value()}"
            auth = None
        urls = config.doors_or(settings.shown_url)
        self.url = urls[0]
        self.poster = Poster(
            doors_of(urls, gate),
            config.address_setting("ELASTICSEARCH_URL"),
            config.timeout_s,
            config.max_retries,
            self.limit,
            headers,
            auth,
            sleep,
        )

    def _send(
        self, method: str, path: str, body: bytes | None, content_type: str
    ) -> requests.Response:
        return self.poster.send(Request(method, path, body, {"Content-Type": content_type}))

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
                self._sleep(wait_s(attempt))
        raise TransientError(
            f"{self.url} had no time for {_rows(lines):,} documents of {index} "
            f"in {self._max_retries + 1} attempts"
        )

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
        raise PermanentError(f"{request} was refused: HTTP {status}, {_error_type(answer)}")


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
    kept: list[bytes] = []
    for position in positions:
        kept += parts[2 * position : 2 * position + 2]
    return b"\n".join(kept) + b"\n"
