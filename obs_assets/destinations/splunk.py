"""Splunk's HTTP Event Collector (HEC): each event an envelope, appended and never read back.

Sources of the limits and codes: Splunk's documentation "Format events for HTTP Event Collector" and
"Troubleshoot HTTP Event Collector", and measurements on Splunk 10.4.
"""

import gzip
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

import requests
from pydantic import Field

from obs_assets.destinations.appending import Answer, Line, cut
from obs_assets.destinations.mapping import VALUES, MappingName, fields_of, of_frame
from obs_assets.destinations.posting import Poster, PostingConfig
from obs_assets.destinations.sending import Gate, Limit, Request, doors_of, retried
from obs_assets.errors import ConfigurationError, PermanentError, TransientError
from obs_assets.events import quote
from obs_assets.hours import Hour
from obs_assets.settings import SplunkSettings

PATH = "/services/collector"

REASONS = {
    5: "no data",
    6: "invalid data format",
    12: "event field is required",
    13: "event field cannot be blank",
    15: "error in handling indexed fields",
}
"""Code of an answer about a single event → its meaning."""

OK = 0
WRONG_INDEX = 7
NO_ACKNOWLEDGEMENT = 14
HEALTHY = 17
"""Codes that have an action of their own."""

ACK_WAIT_S = 1.0
"""Seconds between two questions whether a request was indexed."""

TIMES = ("event_time", "time_unix_ns")
"""Values that the envelope has in ``time``."""

LONGEST_FIELD = 1_000
"""Characters of the longest indexed field: an index of long texts would be larger than the events."""


class SplunkConfig(PostingConfig, frozen=True):
    """Events in Splunk; address and token come from ``SPLUNK_HEC_URL`` and ``SPLUNK_HEC_TOKEN``.

    Attributes:
        type: ``splunk``.
        index: index of the events; null for the default index of the token.
        sourcetype: source type of the events; ``_json`` makes Splunk find their keys.
        source: source of the events.
        mapping: names of the indexed fields, see docs/mappings.md; the event itself stays as it is.
        request_size_kb: size of a request before compression; Splunk Cloud takes at most 1 MB.
        acknowledge: wait until the indexers have the events. The token must have "indexer
            acknowledgement" on; Splunk Cloud does not have it.
        acknowledge_within_s: longest wait for that.
    """

    type: Literal["splunk"] = "splunk"
    index: str | None = Field(None, pattern=r"^[a-z0-9_][a-z0-9_-]{0,80}$", examples=["agents"])
    sourcetype: str = Field("_json", min_length=1, max_length=100)
    source: str = Field("obs_assets", min_length=1, max_length=1000)
    mapping: MappingName = "splunk_cim"
    request_size_kb: int = Field(900, ge=10, le=800_000, json_schema_extra={"unit": "kB"})
    acknowledge: bool = False
    acknowledge_within_s: float = Field(
        120.0, gt=0, le=3600, json_schema_extra={"unit": "seconds"}
    )


class SplunkSender:
    """Speaks to a collector; see `obs_assets.destinations.appending.Sender`.

    Args:
        config: options of the destination.
        settings: address and token.
        gate: makes the gate of a door from its address.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        config: SplunkConfig,
        settings: SplunkSettings,
        gate: Callable[[str], Gate] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.config = config
        self.limit = Limit(config.connections)
        self._sleep = sleep
        # Splunk's own documents give the address with and without the path.
        addresses = config.doors_or(settings.shown_url)
        urls = [url.removesuffix("/event").removesuffix(PATH) + PATH for url in addresses]
        self._url = urls[0]
        # Acknowledgements are counted by channel; each run has a channel of its own.
        self._channel = str(uuid.uuid4())
        headers = {
            "Authorization": f"Splunk {settings.token.get_secret_value()}",
            "X-Splunk-Request-Channel": self._channel,
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
        }
        self._poster = Poster(
            doors_of(urls, gate),
            config.address_setting("SPLUNK_HEC_URL"),
            config.timeout_s,
            config.max_retries,
            self.limit,
            headers,
            sleep=sleep,
        )

    def lines_sql(self, hour: Hour) -> str:
        """The envelope of a row: time with microseconds, host, source, flat fields, and the whole event."""
        del hour
        about = {"source": self.config.source, "sourcetype": self.config.sourcetype}
        if self.config.index:
            about["index"] = self.config.index
        # Without its last brace: the members that differ from row to row follow.
        text = json.dumps(about, ensure_ascii=False)[:-1]
        fields = {
            ".".join(path): value.sql for path, value in fields_of(self.config.mapping, TIMES)
        }
        fields["row_uid"] = "row_uid"
        names = [
            f"{quote(json.dumps(name) + ':')} || to_json({_short(sql)})::VARCHAR"
            for name, sql in fields.items()
        ]
        # Splunk takes texts as fields. A weight is a number of events, as Splunk's own `sum` reads it.
        weight = """'"weight":"' || weight || '"'"""
        seconds = (
            "printf('%d.%06d', epoch_us(event_time) // 1000000, epoch_us(event_time) % 1000000)"
        )
        return (
            f"{quote(text)} || coalesce(',\"host\":' || {VALUES['hostname'].json}, '') || "
            f"',\"time\":' || {seconds} || ',\"fields\":{{' || "
            f"concat_ws(',', {', '.join([*names, weight])}) || '}},\"event\":' || event || '}}'"
        )

    def remark_sql(self, hour: Hour) -> str:
        """No remark."""
        del hour
        return "NULL"

    def refusal_sql(self, now: datetime) -> str:
        """Splunk takes events of any age."""
        del now
        return "NULL"

    def chunks(self, lines: Iterator[Line]) -> Iterator[list[Line]]:
        """Chunks of ``request_size_kb``."""
        limit = self.config.request_size_kb * 1000
        return cut(lines, most_bytes=limit, most_lines=100_000, extra_bytes=1)

    def send(self, hour: Hour, lines: Sequence[Line]) -> Iterator[Answer]:
        """Send a chunk. Splunk indexes the events before a wrong event; sending goes on behind it.

        Raises:
            ConfigurationError, TransientError, PermanentError: see `Sender.send`.
        """
        del hour
        start = 0
        while start < len(lines):
            rest = lines[start:]
            # Level 1: the network is faster than a better compression. No time of writing: same bytes each time.
            body = gzip.compress(b"\n".join(line.text for line in rest), 1, mtime=0)
            request = Request(path="event", body=body)
            response = self._poster.send(request)
            status, answer = response.status_code, _content(response)
            code = answer.get("code")
            if status == HTTPStatus.OK and code == OK:
                # A channel's acknowledgements are known at the door that took the request.
                self._wait_for(answer.get("ackId"), response.url.removesuffix("/event"))
                yield Answer(len(rest), lost=request.lost)
                return
            # No smaller request is possible, so that the event itself is refused.
            if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and len(rest) == 1:
                yield Answer(1, {0: "too large for the collector"})
                return
            # Without the number of the wrong event nothing is known about the others.
            wrong = answer.get("invalid-event-number")
            if code not in REASONS or not isinstance(wrong, int) or not 0 <= wrong < len(rest):
                raise self._error(status, code)
            yield Answer(wrong + 1, {wrong: REASONS[code]}, lost=request.lost)
            start += wrong + 1

    def check(self) -> str:
        """Ask for the collector's health, which stores no event."""
        answer = self._poster.send(Request("GET", "health"))
        if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise self._error(answer.status_code, None)
        if answer.status_code != HTTPStatus.OK:
            raise TransientError(f"{self._url} is not healthy: HTTP {answer.status_code}")
        return f"Splunk's collector at {self._url}"

    def _wait_for(self, ack_id: object, door: str) -> None:
        """Wait until the indexers behind a door have a request.

        Raises:
            ConfigurationError: the token gives no acknowledgements.
            TransientError: the indexers do not have it in time.
        """
        if not self.config.acknowledge:
            return
        if not isinstance(ack_id, int):
            raise self._error(HTTPStatus.BAD_REQUEST, NO_ACKNOWLEDGEMENT)
        body = gzip.compress(json.dumps({"acks": [ack_id]}).encode(), mtime=0)
        question = Request(path=f"ack?channel={self._channel}", body=body)
        ask = retried(partial(self._poster.post, door), self.config.max_retries, self._sleep)
        # Counted, not measured: tests pass their own `sleep`.
        waited = 0.0
        while waited <= self.config.acknowledge_within_s:
            answer = ask(question)
            if answer.status_code == HTTPStatus.OK and answer.json()["acks"].get(str(ack_id)):
                return
            self._sleep(ACK_WAIT_S)
            waited += ACK_WAIT_S
        raise TransientError(
            f"{self._url} did not acknowledge a request within "
            f"{self.config.acknowledge_within_s:g} seconds; it is sent again"
        )

    def _error(self, status: int, code: object) -> Exception:
        where = f"{self._url} (HTTP {status}, code {code})"
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return ConfigurationError(f"{where}: the token in SPLUNK_HEC_TOKEN is not accepted")
        if code == WRONG_INDEX:
            return ConfigurationError(
                f"{where}: the index is missing, or the token may not write to it: "
                "change `index`, or the token's list of indexes"
            )
        if code == NO_ACKNOWLEDGEMENT:
            return ConfigurationError(
                f"{where}: the token has no indexer acknowledgement: set `acknowledge: false`"
            )
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return PermanentError(f"{where}: the request is too large: lower request_size_kb")
        return PermanentError(f"{where}: Splunk refuses the request")


def _short(sql: str) -> str:
    """SQL of the text of an indexed field."""
    return f"left(({of_frame(sql)})::VARCHAR, {LONGEST_FIELD})"


def _content(response: requests.Response) -> dict[str, Any]:
    """The object in an answer; empty without an object."""
    try:
        # A proxy in between answers with a page of HTML.
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
