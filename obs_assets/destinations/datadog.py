"""Datadog's log intake, version 2: arrays of logs, appended and never read back.

Source of the limits: https://docs.datadoghq.com/api/latest/logs/#send-logs. Datadog cuts logs above 1 MB
without a word, so that they are cut here, and counted.
"""

import gzip
import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Literal

from pydantic import Field, field_validator

from obs_assets.destinations.appending import Answer, Line, cut
from obs_assets.destinations.mapping import VALUES, WHOLE, MappingName, fields_of, of_frame
from obs_assets.destinations.posting import Poster, PostingConfig, without_secrets
from obs_assets.destinations.sending import Gate, Limit, Request, doors_of
from obs_assets.errors import ConfigurationError, PermanentError
from obs_assets.events import quote
from obs_assets.hours import Hour
from obs_assets.settings import DatadogSettings

PATH = "api/v2/logs"

MOST_BYTES = 5_000_000
"""Bytes of a request before compression, brackets and commas included."""

MOST_LOGS = 1_000
"""Logs of a request."""

LONGEST_LOG = 1_000_000
"""Bytes of a log."""

OLDEST = timedelta(hours=18)
"""Age of the oldest log that Datadog takes."""

CUT_CHARACTERS = 200_000
"""Characters that are left of the text of a log that is too long; a character has at most 4 bytes."""

LONGEST_ATTRIBUTE = 1_000
"""Characters that are left of other texts."""

TIMES = ("event_time", "time_unix_ns")
"""Values that are in ``timestamp`` under every mapping."""

TOO_OLD = "older than 18 hours"
CUT = "cut to 1 MB"


class DatadogConfig(PostingConfig, frozen=True):
    """Logs in Datadog; ``DD_API_KEY`` and ``DD_SITE`` name the account.

    Attributes:
        type: ``datadog``.
        service: service of logs whose event names no source.
        ddsource: name of the integration that Datadog uses for the logs.
        tags: tags of each log, for example ``env:production``.
        mapping: names of the attributes, see docs/mappings.md. Attributes that Datadog reserves
            (``message``, ``status``, ``service``, ``hostname``, ``dd.trace_id``) are there in any case, and
            the event is under ``data``.
        url: address of the intake; null for that of ``DD_SITE``. A proxy has another.
    """

    type: Literal["datadog"] = "datadog"
    service: str = Field("obs_assets", min_length=1, max_length=100)
    ddsource: str = Field("obs_assets", min_length=1, max_length=100)
    tags: tuple[str, ...] = Field((), examples=[["env:production"]])
    mapping: MappingName = "datadog"
    url: str | None = Field(None, examples=["https://dd-proxy.example.com"])

    @field_validator("url")
    @classmethod
    def _url_without_secrets(cls, url: str | None) -> str | None:
        return url and without_secrets(url)


class DatadogSender:
    """Speaks to the intake; see `obs_assets.destinations.appending.Sender`.

    Args:
        config: options of the destination.
        settings: API key and site.
        gate: makes the gate of a door from its address.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        config: DatadogConfig,
        settings: DatadogSettings,
        gate: Callable[[str], Gate] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.config = config
        self.limit = Limit(config.connections)
        urls = config.doors_or(config.url or f"https://http-intake.logs.{settings.site}")
        self._url = urls[0]
        headers = {
            "DD-API-KEY": settings.api_key.get_secret_value(),
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
        }
        self._poster = Poster(
            doors_of(urls, gate),
            config.address_setting("DD_SITE"),
            config.timeout_s,
            config.max_retries,
            self.limit,
            headers,
            sleep=sleep,
        )

    def lines_sql(self, hour: Hour) -> str:
        """The log of a row: Datadog's own attributes, and the event under ``data``."""
        del hour
        return f"CASE WHEN {self._is_too_long()} THEN {self._short()} ELSE {self._whole()} END"

    def remark_sql(self, hour: Hour) -> str:
        """Whether the log was cut."""
        del hour
        return f"CASE WHEN {self._is_too_long()} THEN {quote(CUT)} END"

    def refusal_sql(self, now: datetime) -> str:
        """Datadog drops older logs without a word."""
        oldest = (now - OLDEST).isoformat()
        return f"CASE WHEN event_time < TIMESTAMPTZ '{oldest}' THEN {quote(TOO_OLD)} END"

    def chunks(self, lines: Iterator[Line]) -> Iterator[list[Line]]:
        """Chunks of at most 1,000 logs and 5 MB."""
        # The brackets of the list count, and a comma for each log.
        return cut(lines, most_bytes=MOST_BYTES - 2, most_lines=MOST_LOGS, extra_bytes=1)

    def send(self, hour: Hour, lines: Sequence[Line]) -> Iterator[Answer]:
        """Send a chunk: Datadog takes all of it or nothing.

        Raises:
            ConfigurationError, TransientError, PermanentError: see `Sender.send`.
        """
        del hour
        body = b"[" + b",".join(line.text for line in lines) + b"]"
        request = Request(path=PATH, body=gzip.compress(body, 1, mtime=0))
        answer = self._poster.send(request)
        self._refuse_errors(answer.status_code)
        yield Answer(len(lines), lost=request.lost)

    def check(self) -> str:
        """Send an empty list, which stores nothing, to learn whether the key is accepted."""
        answer = self._poster.send(Request(path=PATH, body=gzip.compress(b"[]", mtime=0)))
        # An empty list can be a mistake for the intake; it is after the key that this is found.
        if answer.status_code != HTTPStatus.BAD_REQUEST:
            self._refuse_errors(answer.status_code)
        return f"Datadog's log intake at {self._url}"

    def _refuse_errors(self, status: int) -> None:
        where = f"{self._url} (HTTP {status})"
        # The intake answers 202; some proxies of it answer 200.
        if status in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
            return
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise ConfigurationError(
                f"{where}: the key in DD_API_KEY is not accepted; is DD_SITE the site of its account?"
            )
        raise PermanentError(f"{where}: Datadog refuses the request")

    def _whole(self) -> str:
        return self._log("event", f',"{WHOLE}":', "event")

    def _short(self) -> str:
        return self._log(f"left(event, {CUT_CHARACTERS})", ',"obs_cut":', "'true'")

    def _log(self, text: str, key: str, value: str) -> str:
        """SQL of a log. Long columns are cut: only the event itself can be long for a reason."""
        about = {"ddsource": self.config.ddsource}
        if self.config.tags:
            about["ddtags"] = ",".join(self.config.tags)
        # Without its last brace: the members that differ from row to row follow.
        start = json.dumps(about, ensure_ascii=False)[:-1]
        message = f"coalesce({of_frame('{message}')}, {text})"
        hostname = VALUES["hostname"].json_of_at_most(LONGEST_ATTRIBUTE)
        reserved = {
            "message": _text(message, CUT_CHARACTERS),
            "service": _text(f"coalesce(source_name, {quote(self.config.service)})"),
            "status": _text("event_level"),
            "hostname": hostname,
            "dd.trace_id": _text("trace_id"),
            "row_uid": _text("row_uid"),
        }
        mapped = {
            ".".join(path): value.json_of_at_most(LONGEST_ATTRIBUTE)
            for path, value in fields_of(self.config.mapping, TIMES)
        }
        # A reserved attribute keeps its meaning, whatever another schema means by its name.
        members = mapped | reserved
        texts = [
            f"{quote(json.dumps(name) + ':')} || {value}" for name, value in members.items()
        ]
        # Milliseconds are the finest time that Datadog stores.
        texts += ["'\"timestamp\":' || epoch_ms(event_time)", "'\"weight\":' || weight"]
        return f"{quote(start + ',')} || concat_ws(',', {', '.join(texts)}) || {quote(key)} || {value} || '}}'"

    def _is_too_long(self) -> str:
        return f"strlen({self._whole()}) > {LONGEST_LOG}"


def _text(sql: str, characters: int = LONGEST_ATTRIBUTE) -> str:
    """SQL of a text as JSON. It is cut: only the event itself can be long for a reason."""
    return f"to_json(left({sql}, {characters}))::VARCHAR"
