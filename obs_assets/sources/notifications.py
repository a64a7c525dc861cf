"""Notifications of a bucket: a queue says that objects are new, so that the bucket is listed less often.

A message only leads to a listing, which decides. So a message that is late, doubled, lost or about
another object changes nothing, and without messages the bucket is still listed every
`LIST_EVERY`.
"""

import functools
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote_plus, urlsplit

from obs_assets.sources.bucket import split_url
from obs_assets.sources.files import SourceConfig

LIST_EVERY = timedelta(minutes=10)
"""Longest time between two listings of a bucket with notifications."""

MOST_MESSAGES = 1_000
"""Messages that a look takes. The next look takes the rest."""

_DEEPEST = 4
"""Envelopes around a notification: SNS in EventBridge, for example."""

_log = logging.getLogger(__name__)


class Notifications:
    """Whether a bucket has to be listed, by the messages of its queue and the time of the last listing."""

    def __init__(self) -> None:
        self._listed_at = datetime.min.replace(tzinfo=UTC)
        self._has_message = True

    def can_skip_listing(self, source: SourceConfig, now: datetime) -> bool:
        """Whether no listing is needed: no message came since the last, and that was a short time ago.

        Messages are removed from the queue. A queue that cannot be asked counts as one with a message.
        """
        if source.notifications is None or not isinstance(source.events_dir, str):
            return False
        # Also if the bucket is listed in any case: the listing answers the messages until now.
        self._has_message |= _names_an_object(source.notifications, source.events_dir)
        return not self._has_message and timedelta(0) <= now - self._listed_at < LIST_EVERY

    def note_nothing_new(self, now: datetime) -> None:
        """Note a listing in which nothing was new."""
        self._has_message = False
        self._listed_at = now


def _names_an_object(queue: str, url: str) -> bool:
    """Take the messages of a queue; whether any is about an object below the prefix."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, prefix = split_url(url)
    is_named = False
    try:
        for body in _taken(queue):
            is_named |= any(
                name == bucket and key.startswith(prefix) for name, key in objects_of(body)
            )
    except (BotoCoreError, ClientError) as error:
        # Without the queue, the bucket is listed at each look, as without notifications.
        _log.warning("the queue of notifications cannot be asked: %s", type(error).__name__)
        return True
    return is_named


def _taken(queue: str) -> Iterator[str]:
    """The bodies of messages, which are removed from the queue."""
    client = _client(queue)
    for _ in range(MOST_MESSAGES // 10):
        answer = client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        messages = answer.get("Messages", [])
        if not messages:
            return
        yield from (message["Body"] for message in messages)
        entries: Any = [
            {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
            for number, message in enumerate(messages)
        ]
        client.delete_message_batch(QueueUrl=queue, Entries=entries)


@functools.cache
def _client(queue: str) -> Any:
    """A client for a queue; the region is in the name of AWS's host: ``sqs.eu-central-1.amazonaws.com``."""
    import boto3
    from botocore.config import Config

    parts = urlsplit(queue)
    host = parts.hostname or ""
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 2},
        connect_timeout=5,
        read_timeout=20,
    )
    if host.endswith("amazonaws.com"):
        return boto3.client("sqs", region_name=host.split(".")[1], config=config)
    return boto3.client("sqs", endpoint_url=f"{parts.scheme}://{parts.netloc}", config=config)


def objects_of(body: str) -> list[tuple[str, str]]:
    """Bucket and key of each object that a message names.

    Knows S3's own messages, EventBridge's, and both within a message of SNS. S3's test message, and any
    message that is none of these, names no object.
    """
    try:
        return list(_objects(json.loads(body), _DEEPEST))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def _objects(message: Any, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(message, str) and depth:
        yield from _objects(json.loads(message), depth - 1)
    elif isinstance(message.get("Message"), str) and depth:
        yield from _objects(json.loads(message["Message"]), depth - 1)
    elif "detail" in message:
        found = message["detail"]
        # EventBridge does not escape the key.
        yield found["bucket"]["name"], found["object"]["key"]
    for record in message.get("Records", ()) if isinstance(message, dict) else ():
        if "s3" in record:
            found = record["s3"]
            yield found["bucket"]["name"], unquote_plus(found["object"]["key"])
        elif "Sns" in record and depth:
            yield from _objects(json.loads(record["Sns"]["Message"]), depth - 1)
