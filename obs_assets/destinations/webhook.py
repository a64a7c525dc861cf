"""Webhooks: the body of a request, its signature, and a single guarded HTTP request.

This module keeps no state: `obs_assets.delivery.outbox` decides on requests and records them.
A request goes to checked addresses only, follows no redirect, uses no proxy, cookie or ``.netrc``,
ends at a deadline, and reads at most 64 KiB of the answer. No message and no log shows its address
or its content.
"""

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
import urllib3
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from obs_assets.alerts import AlertRule
from obs_assets.alerts.receivers import PAGERDUTY_URL, Receiver, with_routing_key
from obs_assets.destinations.base import DestinationConfig
from obs_assets.destinations.guard import Deadline, Guard, GuardedAdapter, unlogged
from obs_assets.destinations.sending import retry_after_s
from obs_assets.errors import ConfigurationError, PermanentError, TransientError

CONTENT_TYPE = "application/json"

USER_AGENT = f"obs_assets/{version('obs_assets')}"

READ_LIMIT_BYTES = 64 * 1024
"""Bytes of an answer that are read; the answer's body is not used."""

LONGEST_REACH_S = 5.0
"""Seconds that a check of the connection may take."""

SAVED_S = 0.5
"""Seconds of unused time that a later request may use: 5 % of ten seconds at the rate limit."""

REQUEST_TIMEOUT = 408
GONE = 410
TOO_EARLY = 425
TOO_MANY_REQUESTS = 429

TRANSIENT_STATUSES = frozenset(
    {REQUEST_TIMEOUT, TOO_EARLY, TOO_MANY_REQUESTS, *range(500, 600)}
)
"""Answers after which the same request may succeed later."""

_DEFAULT_PORTS = {"http": 80, "https": 443}

_REFUSED_NAMES = {
    "retry_delay": "retry_delay (milliseconds) is retry_delay_s here, in seconds",
    "timeout": "timeout (milliseconds) is timeout_s here, in seconds, and covers the whole request",
}
"""Options of an older product whose unit differs → the option to use."""


class WebhookConfig(DestinationConfig, frozen=True, hide_input_in_errors=True):
    """Which events a webhook receives, and how requests are made.

    Attributes:
        type: ``webhook``.
        from_: the frame that rules look at. Rates and absences need every event, so the frame
            before sampling is the default.
        url: address of the receiver, http or https, without user and password. Without it no
            request is sent; the outbox records the requests that would be sent.
        method: HTTP method of the requests.
        headers: further headers of each request. Their values are treated as secrets and never
            shown.
        auth_type: kind of authentication; the options below hold its secret. With ``hmac`` a
            secret is required; ``hmac_secret`` alone also signs.
        auth_token: token for ``auth_type: bearer``; wins over ``WEBHOOK_AUTH_TOKEN``.
        username: user for ``auth_type: basic``.
        password: password for ``auth_type: basic``.
        api_key: key for ``auth_type: api-key``; wins over ``WEBHOOK_API_KEY``.
        api_key_header: name of the header that carries ``api_key``.
        hmac_secret: secret that signs the body: header ``hmac_header`` (hexadecimal) and the
            headers of Standard Webhooks, for which ``whsec_<base64>`` is decoded; wins over
            ``WEBHOOK_HMAC_SECRET``.
        hmac_previous_secrets: older secrets that sign too, while receivers change to a new
            ``hmac_secret``.
        hmac_algorithm: hash of the signature in ``hmac_header``.
        hmac_header: name of the header with the hexadecimal signature.
        receiver: kind of receiver: ``generic`` (a program of yours), ``slack``, ``pagerduty`` or a
            ``teams`` workflow. The last three receive a message instead of events and ignore
            ``payload_format``.
        routing_key: integration key of PagerDuty, for ``receiver: pagerduty``; ``url`` is then
            optional.
        payload_format: ``array``: a list of events; ``object``: that list below ``payload_key``;
            ``individual``: a request for each event.
        payload_key: key of the list of events, for ``payload_format: object``.
        include_metadata: ``payload_format: object`` also holds the number of events, the name of
            the destination and the time at which the request was composed.
        max_retries: attempts at a request in a row; then the request waits in the outbox for the
            next delivery run.
        retry_delay_s: wait before the second attempt; each further wait is ``retry_backoff`` times
            longer.
        retry_backoff: factor between two waits.
        rate_limit: largest number of requests a second, for each process; null is no limit.
        timeout_s: time for a whole request, from connecting to the last byte of the answer.
        batch_size: largest number of events in a request. Slack, PagerDuty and Teams get 1,000 by
            default.
        rules: alert rules: which events are forwarded, and which measures fire. The first rule
            that matches an event forwards it.
        allow_hosts: hosts that may have loopback or private addresses; other private addresses are
            refused.
        max_age_hours: requests about an hour that ended longer ago are recorded and not sent, so
            that a backfill is silent. Null, or ``OBS_WEBHOOK_SEND_OLD=true``, sends them.
        give_up_after_hours: time after which a request that still fails is given up; ``obs alerts
            retry`` sends it.
        history_days: how long the outbox remembers alerts and requests. Rules do not judge older
            hours again, and forward none of their events.
    """

    type: Literal["webhook"] = "webhook"
    from_: Literal["redacted", "sampled"] = Field("redacted", alias="from")
    url: SecretStr | None = Field(None, examples=["{{ env.WEBHOOK_URL }}"])
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    headers: Mapping[str, SecretStr] = Field({}, examples=[{"X-Team": "platform"}])
    auth_type: Literal["none", "bearer", "basic", "api-key", "hmac"] = "none"
    auth_token: SecretStr | None = Field(None, examples=["{{ env.WEBHOOK_AUTH_TOKEN }}"])
    username: str | None = Field(None, examples=["alerts"])
    password: SecretStr | None = Field(None, examples=["{{ env.WEBHOOK_PASSWORD }}"])
    api_key: SecretStr | None = Field(None, examples=["{{ env.WEBHOOK_API_KEY }}"])
    api_key_header: str = "X-API-Key"
    hmac_secret: SecretStr | None = Field(None, examples=["{{ env.WEBHOOK_HMAC_SECRET }}"])
    hmac_previous_secrets: tuple[SecretStr, ...] = Field(
        (), examples=[["{{ env.OLD_WEBHOOK_HMAC_SECRET }}"]]
    )
    hmac_algorithm: Literal["sha256", "sha1", "sha512"] = "sha256"
    hmac_header: str = "X-Signature"
    receiver: Receiver = "generic"
    routing_key: SecretStr | None = Field(None, examples=["{{ env.PAGERDUTY_ROUTING_KEY }}"])
    payload_format: Literal["array", "object", "individual"] = "array"
    payload_key: str = Field("events", min_length=1)
    include_metadata: bool = True
    max_retries: int = Field(
        3,
        ge=1,
        le=10,
        json_schema_extra={"unit": "attempts"},
    )
    retry_delay_s: float = Field(1.0, ge=0)
    retry_backoff: float = Field(
        2.0,
        ge=1,
        json_schema_extra={"unit": "factor"},
    )
    rate_limit: float | None = Field(
        None, gt=0, examples=[5], json_schema_extra={"unit": "requests/s"}
    )
    timeout_s: float = Field(30.0, gt=0, le=300)
    batch_size: int = Field(
        10,
        ge=1,
        le=10_000,
        json_schema_extra={"unit": "events"},
    )
    rules: tuple[AlertRule, ...] = Field(
        (AlertRule(),), examples=[[{"name": "slow", "where": ["duration_ms > 60000"]}]]
    )
    allow_hosts: tuple[str, ...] = Field((), examples=[["alerts.internal"]])
    max_age_hours: float | None = Field(24, ge=0, le=876_000)
    give_up_after_hours: float = Field(24, gt=0, le=876_000)
    # Rules look back 336 hours at most and are silent for 720 at most: the history is longer.
    history_days: int = Field(400, ge=60, le=36_500)

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values  # pydantic explains the wrong type
        for name in _REFUSED_NAMES.keys() & values:
            raise ValueError(_REFUSED_NAMES[name])
        if values.get("receiver", "generic") == "generic":
            return values
        # A message counts events by type and level, so a batch can be large.
        defaults: dict[str, Any] = {"batch_size": 1_000}
        if values["receiver"] == "pagerduty":
            defaults["url"] = PAGERDUTY_URL
        written = {name: value for name, value in values.items() if value is not None}
        return defaults | written

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None or not url.get_secret_value():
            return None
        try:
            parts = urlsplit(url.get_secret_value())
            _ = parts.port
        except ValueError:
            raise ValueError("has a host or port that cannot be read") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must begin with https:// or http:// and name a host")
        if parts.username is not None:
            raise ValueError(
                "must not hold a user or password: use auth_type: basic with username and password"
            )
        return url

    @model_validator(mode="after")
    def _names_differ(self) -> "WebhookConfig":
        if len({rule.name for rule in self.rules}) < len(self.rules):
            raise ValueError("two rules have the same name: give each rule its own name")
        has_metadata = self.payload_format == "object" and self.include_metadata
        if has_metadata and self.payload_key == "metadata":
            raise ValueError(
                "payload_key: metadata is taken by include_metadata: choose another key"
            )
        if (self.receiver == "pagerduty") != (self.routing_key is not None):
            raise ValueError("routing_key and receiver: pagerduty go together")
        return self

    def with_fallbacks(self, **secrets: SecretStr | None) -> "WebhookConfig":
        """This configuration, with values for the options that it leaves out.

        Args:
            secrets: name of an option, for example ``auth_token`` → its value from the environment.

        Raises:
            ConfigurationError: a value from the environment is not valid for its option.
        """
        added = {
            name: value
            for name, value in secrets.items()
            if value and getattr(self, name) is None
        }
        written = {name: getattr(self, name) for name in self.model_fields_set}
        try:
            return self.model_validate(written | added)
        except ValidationError as error:
            first = error.errors()[0]
            option = ".".join(map(str, first["loc"]))
            reason = first["msg"].removeprefix("Value error, ")
            raise ConfigurationError(
                f"the webhook's {option} from the environment: {reason}"
            ) from None


def compose(
    config: WebhookConfig, destination: str, events: Sequence[str], created_at: datetime
) -> bytes:
    """The body of a dispatch.

    Args:
        config: configuration with the format; ``individual`` takes exactly one event.
        destination: name of the destination, for the metadata.
        events: JSON texts. They are copied without parsing, so that numbers keep their digits.
        created_at: time at which the dispatch was composed; later attempts send the same bytes.
    """
    if config.payload_format == "individual":
        (event,) = events
        return event.encode()
    array = f"[{','.join(events)}]"
    if config.payload_format == "array":
        return array.encode()
    timestamp = (
        created_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
    fields = [f"{json.dumps(config.payload_key)}:{array}"]
    if config.include_metadata:
        metadata = {"count": len(events), "destination": destination, "timestamp": timestamp}
        fields.append(f'"metadata":{json.dumps(metadata)}')
    return f"{{{','.join(fields)}}}".encode()


def identify(
    destination: str,
    rule: str,
    row_uids: Sequence[str],
) -> str:
    """The ``webhook-id`` of a dispatch, for example ``msg_0a4f…``: the same for the same content.

    Args:
        destination: name of the destination.
        rule: name of the alert rule.
        row_uids: identities of the rows, or other texts that identify the content.
    """
    content = json.dumps([destination, rule, *row_uids])
    return "msg_" + hashlib.sha256(content.encode()).hexdigest()[:32]


def authorization(config: WebhookConfig) -> dict[str, str]:
    """The headers that ``auth_type`` needs, for example ``Authorization``; empty without authentication.

    Raises:
        ConfigurationError: an option that ``auth_type`` needs is missing.
    """
    if config.auth_type == "bearer":
        return {"Authorization": f"Bearer {_needed(config, 'auth_token')}"}
    if config.auth_type == "basic":
        pair = f"{_needed(config, 'username')}:{_needed(config, 'password')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if config.auth_type == "api-key":
        return {config.api_key_header: _needed(config, "api_key")}
    if config.auth_type == "hmac":
        _needed(config, "hmac_secret")
    return {}


def _needed(config: WebhookConfig, option: str) -> str:
    """The value of an option that ``auth_type`` needs."""
    value = getattr(config, option)
    if not value:
        raise ConfigurationError(
            f"auth_type: {config.auth_type} needs {option} in the webhook's block"
        )
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value)


def signatures(
    config: WebhookConfig, webhook_id: str, at: datetime, body: bytes
) -> dict[str, str]:
    """The headers that prove the sender: those of https://www.standardwebhooks.com, and ``hmac_header``.

    Args:
        config: configuration with the secrets; without a secret the result is ``webhook-id`` and
            ``webhook-timestamp`` alone.
        webhook_id: identity of the dispatch; receivers recognize a repeated request by it.
        at: time of this attempt; receivers refuse old attempts.
        body: the bytes of the request.
    """
    # Standard Webhooks sign whole seconds.
    timestamp = str(int(at.timestamp()))
    headers = {"webhook-id": webhook_id, "webhook-timestamp": timestamp}
    if config.hmac_secret:
        secret = config.hmac_secret.get_secret_value()
        signed = b".".join((webhook_id.encode(), timestamp.encode(), body))
        # While a secret is changed, receivers accept a signature with the new or with an old secret.
        previous = [older.get_secret_value() for older in config.hmac_previous_secrets]
        digests = [
            hmac.digest(_standard_key(key), signed, "sha256") for key in (secret, *previous)
        ]
        versioned = ["v1," + base64.b64encode(digest).decode() for digest in digests]
        headers["webhook-signature"] = " ".join(versioned)
        # The older form of a signature covers the body alone, for receivers that expect it.
        signature = hmac.digest(secret.encode(), body, config.hmac_algorithm)
        headers[config.hmac_header] = signature.hex()
    return headers


def _standard_key(secret: str) -> bytes:
    """The key of Standard Webhooks: the decoded part after ``whsec_``, else the secret's bytes."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ConfigurationError(
            "hmac_secret (WEBHOOK_HMAC_SECRET) must go on in base64 after whsec_"
        ) from None


class WebhookSender:
    """Makes requests. A sender belongs to a single thread: a deadline covers a single request.

    Args:
        config: configuration of the receiver; its ``url`` is set.
        allow_private: let each host have loopback and private addresses
            (``OBS_WEBHOOK_ALLOW_PRIVATE``).
        clock: gives the time, UTC.
        sleep: waits a number of seconds for the rate limit.

    Raises:
        ConfigurationError: ``auth_type`` lacks its option, or a header cannot be sent.
    """

    def __init__(
        self,
        config: WebhookConfig,
        *,
        allow_private: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if config.url is None:
            raise ConfigurationError("webhook sending is off: WEBHOOK_URL is not set")
        self._config = config
        self._url = config.url.get_secret_value()
        self._guard = Guard(allow_private=allow_private, allow_hosts=config.allow_hosts)
        self._adapter = GuardedAdapter(self._guard)
        self._clock = clock
        self._sleep = sleep
        self._next_slot = time.monotonic()  # earliest time of the next request
        self._check_request()

    def send(
        self,
        body: bytes,
        content_type: str,
        webhook_id: str,
    ) -> None:
        """Make a single request.

        Args:
            body: the bytes of the request.
            content_type: value of the header ``Content-Type``.
            webhook_id: identity of the dispatch.

        Raises:
            TransientError: no answer, or an answer after which a later attempt may succeed; the error
                carries the seconds of ``Retry-After``.
            PermanentError: the receiver refuses the request, or its address is refused.
        """
        self._await_slot()
        # The key is a secret: it is added here, so that the outbox does not store it.
        if self._config.routing_key:
            body = with_routing_key(body, self._config.routing_key.get_secret_value())
        request = self._request(body, content_type, webhook_id)
        # The timeout of the library bounds each read alone; the deadline bounds the whole request.
        # Its log lines hold the address, which is a secret.
        with self._guard.watching(self._config.timeout_s) as deadline, unlogged():
            try:
                response = self._adapter.send(
                    request, stream=True, timeout=self._config.timeout_s, verify=True
                )
                deadline.check()  # headers that were cut off look like complete headers
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                raise self._no_answer(error, deadline) from None
            _drain_start(response)
        wait_s = retry_after_s(response.headers.get("Retry-After"), self._clock())
        judge(response.status_code, wait_s)

    def _no_answer(self, error: Exception, deadline: Deadline) -> TransientError:
        """The error for a request without answer. The library's own message holds the URL."""
        is_timeout = isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError)
        if deadline.passed or is_timeout:
            return TransientError(f"no answer within {self._config.timeout_s:g} s")
        return TransientError(f"no answer: {type(error).__name__}")

    def reach(self) -> str:
        """Connect to the receiver without a request; returns ``host:port``.

        Raises:
            TransientError: the receiver cannot be reached.
            PermanentError: its address is refused.
        """
        parts = urlsplit(self._url)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        with self._guard.watching(min(LONGEST_REACH_S, self._config.timeout_s)):
            try:
                self._guard.connect(str(parts.hostname), port).close()
            except OSError as error:
                raise TransientError(f"no connection: {type(error).__name__}") from None
        return f"{parts.hostname}:{port}"

    def _request(
        self, body: bytes, content_type: str, webhook_id: str
    ) -> requests.PreparedRequest:
        """A request with all its headers."""
        request = requests.Request(
            self._config.method,
            self._url,
            data=body,
        ).prepare()
        own = {
            "User-Agent": USER_AGENT,
            # A compressed answer could expand without limit.
            "Accept-Encoding": "identity",
            "Content-Type": content_type,
        }
        configured = {
            name: value.get_secret_value() for name, value in self._config.headers.items()
        }
        request.headers.update(own)
        request.headers.update(configured)
        request.headers.update(authorization(self._config))
        request.headers.update(
            signatures(
                self._config,
                webhook_id,
                self._clock(),
                body,
            )
        )
        return request

    def _check_request(self) -> None:
        """Compose a request without sending it, so that a bad header is an error at the start."""
        try:
            request = self._request(b"", CONTENT_TYPE, "msg_")
            request.prepare_headers(request.headers)
            "".join(request.headers).encode("ascii")
            "".join(request.headers.values()).encode("latin-1")
        except (requests.RequestException, ValueError):
            raise ConfigurationError(
                "the webhook's url, headers or credentials cannot be sent: "
                "look for line breaks, spaces at an end and characters beyond Latin-1"
            ) from None

    def _await_slot(self) -> None:
        """Wait until the rate limit allows a request."""
        if self._config.rate_limit:
            self._sleep(max(0.0, self._next_slot - time.monotonic()))
            # Counted from the slot, not from now: a process that wakes late must not lower the rate.
            earliest = max(self._next_slot, time.monotonic() - SAVED_S)
            self._next_slot = earliest + 1 / self._config.rate_limit


class RateLimitedError(TransientError):
    """The receiver answered 429."""


class GoneError(PermanentError):
    """The receiver answered 410: its address no longer exists."""


def judge(status: int, asked_wait_s: float | None = None) -> None:
    """Raise the error that an answer stands for; return after an answer of 2xx.

    Args:
        status: status of the answer.
        asked_wait_s: seconds of pause that the receiver asked for.

    Raises:
        TransientError: 408, 425 and 5xx; `RateLimitedError` for 429.
        PermanentError: all others except 2xx; `GoneError` for 410. A redirect is an error because it
            would carry the credentials to another address.
    """
    if status in TRANSIENT_STATUSES:
        kind = RateLimitedError if status == TOO_MANY_REQUESTS else TransientError
        raise kind(f"the webhook answered {status}", retry_after_s=asked_wait_s)
    if 300 <= status < 400:  # noqa: PLR2004
        raise PermanentError(
            f"the webhook answered {status}: redirects are refused, set the final address as url"
        )
    if status == GONE:
        raise GoneError(
            "the webhook answered 410: it is not called until its url changes or a dispatch is "
            "retried"
        )
    if not 200 <= status < 300:  # noqa: PLR2004
        raise PermanentError(f"the webhook answered {status}")


def _drain_start(response: requests.Response) -> None:
    """Read the start of an answer's body, so that the connection can serve another request."""
    with contextlib.suppress(urllib3.exceptions.HTTPError, OSError, ValueError):
        response.raw.read(READ_LIMIT_BYTES, decode_content=False)
    response.close()
