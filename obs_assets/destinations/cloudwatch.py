"""Amazon CloudWatch Logs: a stream for each hour, appended and never read back.

Source of the limits: the API reference of PutLogEvents.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ProxyConnectionError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from pydantic import Field, field_validator

from obs_assets.destinations.appending import Answer, Line, cut
from obs_assets.destinations.mapping import MappingName, line_sql
from obs_assets.destinations.posting import BUSY, RequestsConfig
from obs_assets.destinations.sending import (
    Limit,
    Request,
    UnansweredError,
    limited,
    retried,
    retry_after_s,
)
from obs_assets.errors import ConfigurationError, ObsError, PermanentError, TransientError
from obs_assets.events import Frame, append_fields, one_of, quote
from obs_assets.hours import Hour
from obs_assets.severities import LEVELS

MOST_BYTES = 1_048_576
"""Bytes of a request: of each event the text in UTF-8, and `EXTRA_BYTES`."""

EXTRA_BYTES = 26
"""Bytes that are counted for each event beside its text."""

MOST_EVENTS = 10_000
"""Events of a request."""

LONGEST_EVENT = MOST_BYTES - EXTRA_BYTES
"""Bytes of an event."""

OLDEST = timedelta(days=14)
NEWEST = timedelta(hours=2)
"""Age of the oldest event, and distance in the future of the newest, that the service takes."""

CUT_CHARACTERS = 200_000
"""Characters that are left of an event that is too long; a character has at most 4 bytes."""

CUT = "cut to 1 MB"
TOO_OLD = "cw_too_old"
TOO_NEW = "cw_too_new"
EXPIRED = "cw_expired"
"""Reasons of refused rows: older than 14 days, more than 2 hours in the future, older than the group's retention."""

BUSY_CODES = frozenset(
    {"ThrottlingException", "ServiceUnavailableException", "InternalFailure", "RequestTimeout"}
)
"""Error codes after which a later attempt can succeed."""

MAY_HAVE_ARRIVED = (HTTPClientError, ResponseParserError)
"""Errors after which a request may have arrived, unless it was not sent."""

NOT_SENT = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)
"""Errors before a connection was made."""

DENIED = frozenset(
    {
        "AccessDeniedException",
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "ExpiredTokenException",
        "InvalidClientTokenId",
    }
)


class CloudWatchConfig(RequestsConfig, frozen=True):
    """Events in CloudWatch Logs; region and credentials come from the usual AWS variables.

    Attributes:
        type: ``cloudwatch``.
        log_group: log group; it is made if it is missing.
        stream_prefix: beginning of the names of streams; the hour follows, for example
            ``obs/2025-12-04-10``.
        retention_days: days that a new log group keeps events; null keeps them.
        mapping: names of the fields, see docs/mappings.md. ``none``: the event itself; the others: these
            fields, and the event in ``data``.
        metrics_namespace: CloudWatch gets the hour's counts as metrics of this namespace, each at the
            begin of its hour: ``Events`` and ``EventsWeighted`` of the destination and of each level. A
            rebuilt hour sends them again, so that the statistic ``Maximum`` is right; null sends none.
        kms_key: ARN of the key that encrypts a new log group; null for AWS's own key.
    """

    type: Literal["cloudwatch"] = "cloudwatch"
    log_group: str = Field("/obs_assets/events", pattern=r"^[.\-_/#A-Za-z0-9]{1,512}$")
    stream_prefix: str = Field("obs/", pattern=r"^[^:*]{0,400}$")
    retention_days: (
        Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731] | None
    ) = Field(None, examples=[30], json_schema_extra={"unit": "days"})
    mapping: MappingName = "none"
    metrics_namespace: str | None = Field(
        None, pattern=r"^[A-Za-z0-9._/#-]{1,255}$", examples=["Agents"]
    )
    kms_key: str | None = Field(
        None, pattern="^arn:", examples=["arn:aws:kms:eu-central-1:123456789012:key/1a2b"]
    )

    @field_validator("metrics_namespace")
    @classmethod
    def _is_of_the_user(cls, namespace: str | None) -> str | None:
        if namespace and namespace.startswith("AWS/"):
            raise ValueError(
                "must not begin with AWS/: such namespaces are for services of AWS"
            )
        return namespace


def logs_client(service: str, **options: Any) -> Any:
    """A client of boto3, whose import takes a tenth of a second of processor time."""
    import boto3

    # Its stubs have a function for each service.
    make: Any = boto3.client
    return make(service, **options)


class CloudWatchSender:
    """Speaks to CloudWatch Logs; see `obs_assets.destinations.appending.Sender`.

    Args:
        config: options of the destination.
        region: AWS region.
        make_client: makes the boto3 client from a region and a botocore configuration.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        config: CloudWatchConfig,
        region: str,
        make_client: Callable[..., Any] = logs_client,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.config = config
        self.limit = Limit(config.connections)
        self._sleep = sleep
        self._region = region
        self._client = make_client(
            "logs",
            region_name=region,
            config=Config(
                connect_timeout=config.timeout_s,
                read_timeout=config.timeout_s,
                # `retried` repeats requests, so that `Limit` sees each answer.
                retries={"mode": "standard", "total_max_attempts": 1},
                max_pool_connections=config.connections,
            ),
        )
        self._made: set[str] = set()

    def lines_sql(self, hour: Hour) -> str:
        """The event with ``_obs``: identity of the row, and the number of events for which it stands."""
        del hour
        return f"CASE WHEN {self._is_too_long()} THEN {self._short()} ELSE {self._whole()} END"

    def remark_sql(self, hour: Hour) -> str:
        """Whether the event was cut."""
        del hour
        return f"CASE WHEN {self._is_too_long()} THEN {quote(CUT)} END"

    def refusal_sql(self, now: datetime) -> str:
        """The service rejects older and newer events, without an error."""
        oldest, newest = (now - OLDEST).isoformat(), (now + NEWEST).isoformat()
        return (
            f"CASE WHEN event_time < TIMESTAMPTZ '{oldest}' THEN {quote(TOO_OLD)} "
            f"WHEN event_time > TIMESTAMPTZ '{newest}' THEN {quote(TOO_NEW)} END"
        )

    def chunks(self, lines: Iterator[Line]) -> Iterator[list[Line]]:
        """Chunks of at most 10,000 events and 1 MiB. An hour is shorter than the 24 hours of a request."""
        return cut(
            lines, most_bytes=MOST_BYTES, most_lines=MOST_EVENTS, extra_bytes=EXTRA_BYTES
        )

    def send(self, hour: Hour, lines: Sequence[Line]) -> Iterator[Answer]:
        """Send a chunk in the order of time, as the service demands.

        Raises:
            ConfigurationError, TransientError, PermanentError: see `Sender.send`.
        """
        stream = f"{self.config.stream_prefix}{hour.start:%Y-%m-%d-%H}"
        request = Request(path=stream)
        self._retried(self._make)(request)
        # Rows of a chunk that was in flight, and new rows, are each in the order of time.
        events = [
            {"timestamp": line.at_us // 1000, "message": line.text.decode()} for line in lines
        ]
        answer = self._retried(limited(partial(self._put, events), self.limit))(request)
        rejected = refused_by(answer.get("rejectedLogEventsInfo", {}), len(lines))
        yield Answer(len(lines), rejected, request.lost)

    def send_counts(self, name: str, hour: Hour, frame: Frame) -> None:
        """Send the counts of an hour as log events in embedded metric format, from which metrics are made.

        Args:
            name: name of the destination, a dimension of the metrics.
            hour: the hour.
            frame: its rows.

        Raises:
            ConfigurationError, TransientError, PermanentError: see `Sender.send`.
        """
        at_ms = int(hour.start.timestamp() * 1000)
        events = [
            {"timestamp": at_ms, "message": json.dumps(text)}
            for text in counts_as_metrics(
                name, at_ms, frame, str(self.config.metrics_namespace)
            )
        ]
        request = Request(path=f"{self.config.stream_prefix}metrics")
        self._retried(self._make)(request)
        self._retried(limited(partial(self._put, events), self.limit))(request)

    def _retried(self, send: Callable[[Request], Any]) -> Callable[[Request], Any]:
        return retried(send, self.config.max_retries, self._sleep)

    def _put(self, events: Sequence[Any], request: Request) -> Any:
        """A single attempt to put events into the stream that is the path of the request."""
        with self._explained():
            return self._client.put_log_events(
                logGroupName=self.config.log_group,
                logStreamName=request.path,
                logEvents=events,
            )

    def check(self) -> str:
        """Ask for the log group."""
        with self._explained():
            self._client.describe_log_groups(logGroupNamePrefix=self.config.log_group, limit=1)
        return f"CloudWatch Logs in {self._region}, log group {self.config.log_group}"

    def _make(self, request: Request) -> None:
        """Make the log group and the request's stream where they are missing."""
        stream = request.path
        if stream in self._made:
            return
        group = self.config.log_group
        with self._explained():
            if self._is_made("create_log_group", logGroupName=group, **self._encryption()):
                days = self.config.retention_days
                if days:
                    self._client.put_retention_policy(logGroupName=group, retentionInDays=days)
            self._is_made("create_log_stream", logGroupName=group, logStreamName=stream)
        self._made.add(stream)

    def _encryption(self) -> dict[str, str]:
        if self.config.kms_key is None:
            return {}
        return {"kmsKeyId": self.config.kms_key}

    def _is_made(self, action: str, **arguments: Any) -> bool:
        """Whether something was made; False if it was there."""
        try:
            getattr(self._client, action)(**arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceAlreadyExistsException":
                return False
            raise
        return True

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of boto3, which can quote a request, into errors of ours."""
        try:
            yield
        except NoCredentialsError:
            raise ConfigurationError(
                "CloudWatch Logs: there are no AWS credentials: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, a profile or a role"
            ) from None
        except ClientError as error:
            raise self._error(error.response) from None
        except SSLError:
            raise ConfigurationError(
                f"the certificate of CloudWatch Logs in {self._region} is not trusted: "
                "AWS_CA_BUNDLE names a file with your authority's certificate"
            ) from None
        except BotoCoreError as error:
            message = (
                f"CloudWatch Logs in {self._region} cannot be reached ({type(error).__name__})"
            )
            if isinstance(error, MAY_HAVE_ARRIVED) and not isinstance(error, NOT_SENT):
                raise UnansweredError(message) from None
            raise TransientError(message) from None

    def _error(self, response: Any) -> ObsError:
        code = str(response["Error"]["Code"])
        about = response["ResponseMetadata"]
        status = about["HTTPStatusCode"]
        where = f"CloudWatch Logs in {self._region}, log group {self.config.log_group} ({code})"
        # A proxy or a load balancer answers without AWS's codes.
        if code in DENIED or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return ConfigurationError(f"{where}: the AWS credentials are not accepted for this")
        if code in BUSY_CODES or status in BUSY:
            asked = about["HTTPHeaders"].get("retry-after")
            return TransientError(
                f"{where}: the service has no time",
                retry_after_s=retry_after_s(asked, datetime.now(UTC)),
            )
        return PermanentError(f"{where}: the service refuses the request")

    def _whole(self) -> str:
        about = """',"_obs":{"row_uid":"' || row_uid || '","weight":' || weight || '}'"""
        return append_fields(f"({line_sql(self.config.mapping)})", f"({about})")

    def _short(self) -> str:
        return (
            f"'{{\"message\":' || to_json(left(event, {CUT_CHARACTERS}))::VARCHAR || "
            """',"_obs":{"row_uid":"' || row_uid || '","weight":' || weight || ',"cut":true}}'"""
        )

    def _is_too_long(self) -> str:
        return f"strlen({self._whole()}) > {LONGEST_EVENT}"


def counts_as_metrics(
    name: str, at_ms: int, frame: Frame, namespace: str
) -> list[dict[str, Any]]:
    """An object in embedded metric format for the rows of a frame, then one for each level.

    The format: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html.
    """
    level = f"CASE WHEN {one_of('event_level', LEVELS)} THEN event_level ELSE 'other' END"
    counted = frame.aggregate(f"{level} AS level, count(*) AS n, sum(weight) AS weight")
    rows = counted.order("level").fetchall()
    total = (sum(n for _, n, _ in rows), sum(weight for *_, weight in rows))
    found = [({"Destination": name}, *total)]
    found += [({"Destination": name, "Level": level}, n, weight) for level, n, weight in rows]
    metrics = [{"Name": metric, "Unit": "Count"} for metric in ("Events", "EventsWeighted")]
    return [
        {
            "_aws": {
                "Timestamp": at_ms,
                "CloudWatchMetrics": [
                    {
                        "Namespace": namespace,
                        "Dimensions": [[*dimensions]],
                        "Metrics": metrics,
                    }
                ],
            },
            **dimensions,
            "Events": n,
            "EventsWeighted": weight,
        }
        for dimensions, n, weight in found
    ]


def refused_by(rejected: Mapping[str, int], events: int) -> dict[int, str]:
    """Positions of rejected events → the reason, from ``rejectedLogEventsInfo``.

    Args:
        rejected: ``tooOldLogEventEndIndex`` and ``expiredLogEventEndIndex`` are the first index behind
            the rejected events; ``tooNewLogEventStartIndex`` is the index of the first rejected event.
        events: number of events of the request.

    >>> refused_by({"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 3}, 4)
    {0: 'cw_too_old', 3: 'cw_too_new'}
    """
    refused: dict[int, str] = {}
    refused |= dict.fromkeys(range(rejected.get("expiredLogEventEndIndex", 0)), EXPIRED)
    refused |= dict.fromkeys(range(rejected.get("tooOldLogEventEndIndex", 0)), TOO_OLD)
    refused |= dict.fromkeys(
        range(rejected.get("tooNewLogEventStartIndex", events), events), TOO_NEW
    )
    return {position: reason for position, reason in refused.items() if position < events}
