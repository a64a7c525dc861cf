"""A queue of notifications saves listings of a bucket; what is listed never depends on it."""

import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import pytest
from moto.server import ThreadedMotoServer

from obs_assets.components import pipeline_definitions
from obs_assets.errors import ConfigurationError
from obs_assets.hourly import pipeline
from obs_assets.hourly.hourly_pipeline import HourlyPipeline
from obs_assets.settings import Settings
from obs_assets.sources import bucket as bucket_module
from obs_assets.sources.files import SourceConfig
from obs_assets.sources.notifications import LIST_EVERY, Notifications, objects_of
from obs_assets_tests.components.conftest import DAGSTER_WARNINGS

pytestmark = DAGSTER_WARNINGS

NOW = datetime(2031, 5, 6, 12, 0, tzinfo=UTC)

S3_EVENT = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "eu-central-1",
            "eventTime": "2031-05-06T12:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "userIdentity": {"principalId": "AWS:AIDAEXAMPLE"},
            "requestParameters": {"sourceIPAddress": "192.0.2.1"},
            "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "events",
                "bucket": {
                    "name": "logs",
                    "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                    "arn": "arn:aws:s3:::logs",
                },
                "object": {
                    "key": "shop/a+b%C3%A4.jsonl",
                    "size": 1024,
                    "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                    "sequencer": "0055AED6DCD90281E5",
                },
            },
        }
    ]
}
"""A message as S3 sends it; the key is escaped as in a form."""

EVENTBRIDGE = {
    "version": "0",
    "id": "17793124-05d4-b198-2fde-7ededc63b103",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "account": "123456789012",
    "time": "2031-05-06T12:00:00Z",
    "region": "eu-central-1",
    "resources": ["arn:aws:s3:::logs"],
    "detail": {
        "version": "0",
        "bucket": {"name": "logs"},
        "object": {
            "key": "shop/a bä.jsonl",
            "size": 5,
            "etag": "b1946ac92492d2347c6235b4d2611184",
        },
        "request-id": "N4N7GDK58NMKJ12R",
        "requester": "123456789012",
        "reason": "PutObject",
    },
}

TEST_EVENT = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2031-05-06T12:00:00.000Z",
    "Bucket": "logs",
    "RequestId": "5582815E1AEA5ADF",
    "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE",
}
"""What S3 sends when the notification is set up."""


def of_sns(message: object) -> dict[str, Any]:
    """A message of SNS around another."""
    return {
        "Type": "Notification",
        "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
        "TopicArn": "arn:aws:sns:eu-central-1:123456789012:logs",
        "Subject": "Amazon S3 Notification",
        "Message": json.dumps(message),
        "Timestamp": "2031-05-06T12:00:00.000Z",
        "SignatureVersion": "1",
    }


@pytest.mark.parametrize(
    "message", [S3_EVENT, EVENTBRIDGE, of_sns(S3_EVENT), of_sns(EVENTBRIDGE)]
)
def test_the_object_of_a_message(message: dict[str, Any]) -> None:
    """S3's own form, EventBridge's form, and both through SNS name the same object."""
    assert objects_of(json.dumps(message)) == [("logs", "shop/a bä.jsonl")]


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(TEST_EVENT),
        json.dumps(of_sns(TEST_EVENT)),
        "",
        "no JSON",
        "[1]",
        "null",
        '{"Records": [{"s3": {}}]}',
        '{"Records": 5}',
        '{"detail": {}}',
        '{"Message": "no JSON"}',
        "[" * 100_000,
    ],
)
def test_a_message_without_an_object(body: str) -> None:
    """S3's test message and foreign messages name none, and stop nothing."""
    assert objects_of(body) == []


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Aws:
    """A bucket whose notifications go to a queue."""

    def __init__(self, address: str) -> None:
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
        common: Any = {"endpoint_url": address, "region_name": "us-east-1", **keys}
        self.s3 = boto3.client("s3", **common)
        self.sqs = boto3.client("sqs", **common)
        self.s3.create_bucket(Bucket="logs")
        self.queue = self.sqs.create_queue(QueueName=f"events-{secrets.token_hex(4)}")[
            "QueueUrl"
        ]
        asked = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])
        arn = asked["Attributes"]["QueueArn"]
        configuration: Any = {
            "QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]
        }
        self.s3.put_bucket_notification_configuration(
            Bucket="logs", NotificationConfiguration=configuration
        )
        self.source = SourceConfig(events_dir="s3://logs/shop", notifications=self.queue)

    def put(self, key: str) -> None:
        self.s3.put_object(Bucket="logs", Key=key, Body=b'{"n": 1}\n')

    def send(self, message: object) -> None:
        self.sqs.send_message(QueueUrl=self.queue, MessageBody=json.dumps(message))

    def waiting(self) -> int:
        name: Any = "ApproximateNumberOfMessages"
        asked = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=[name])
        return int(asked["Attributes"][name])


@pytest.fixture
def aws(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": address,
    }.items():
        monkeypatch.setenv(name, value)
    bucket_module.client.cache_clear()
    made = Aws(address)
    yield made
    bucket_module.client.cache_clear()


@pytest.mark.slow
def test_a_message_leads_to_a_listing(aws: Aws) -> None:
    """The first look lists; then nothing is listed until an object comes, which S3 itself announces."""
    notifications = Notifications()
    assert not notifications.can_skip_listing(aws.source, NOW)
    notifications.note_nothing_new(NOW)
    assert notifications.can_skip_listing(aws.source, NOW)
    aws.put("shop/new file.jsonl")
    assert not notifications.can_skip_listing(aws.source, NOW)
    # Until a listing has found nothing new, each look lists, although the message is taken.
    assert aws.waiting() == 0
    assert not notifications.can_skip_listing(aws.source, NOW)
    notifications.note_nothing_new(NOW)
    assert notifications.can_skip_listing(aws.source, NOW)


@pytest.mark.slow
def test_other_messages_change_nothing(aws: Aws) -> None:
    """A test message, an object elsewhere, a foreign message: taken from the queue, and no listing."""
    notifications = Notifications()
    notifications.note_nothing_new(NOW)
    aws.put("elsewhere/a.jsonl")
    for message in (TEST_EVENT, of_sns(TEST_EVENT), {"hello": 1}, []):
        aws.send(message)
    assert notifications.can_skip_listing(aws.source, NOW)
    assert aws.waiting() == 0


@pytest.mark.slow
def test_doubled_and_late_messages_cost_a_listing(aws: Aws) -> None:
    """A message about an object that has landed long ago leads to a listing that finds nothing."""
    notifications = Notifications()
    notifications.note_nothing_new(NOW)
    for _ in range(25):
        aws.send(S3_EVENT)
    assert not notifications.can_skip_listing(aws.source, NOW)
    assert aws.waiting() == 0
    notifications.note_nothing_new(NOW)
    assert notifications.can_skip_listing(aws.source, NOW)


@pytest.mark.slow
def test_without_messages_the_bucket_is_listed_all_the_same(aws: Aws) -> None:
    """After ten minutes, after a clock that was set back, and at each look while the queue does not answer."""
    notifications = Notifications()
    notifications.note_nothing_new(NOW)
    assert not notifications.can_skip_listing(aws.source, NOW + LIST_EVERY)
    assert not notifications.can_skip_listing(aws.source, NOW - timedelta(hours=1))
    gone = aws.source.model_copy(update={"notifications": f"{aws.queue}-gone"})
    assert not notifications.can_skip_listing(gone, NOW)
    plain = aws.source.model_copy(update={"notifications": None})
    assert not Notifications().can_skip_listing(plain, NOW)


def test_a_folder_has_no_notifications() -> None:
    """The mistake is in the pipeline file, and so is the message."""
    source = {"events_dir": "/var/log", "notifications": "https://sqs.example.com/1/events"}
    with pytest.raises(ConfigurationError, match="notifications are of a bucket"):
        pipeline.parse({"source": source})


@pytest.mark.slow
def test_the_sensor_lists_when_a_message_came(aws: Aws, tmp_path: Path) -> None:
    """With a queue it lists once, then rests; a new object is landed at the next look."""
    source = {"events_dir": "s3://logs/looked", "notifications": aws.queue}
    config = pipeline.parse({"source": source})
    now = NOW

    def ticked() -> Any:
        definitions = pipeline_definitions(
            config, machine=Settings(data_dir=tmp_path), clock=lambda: now
        )
        if not sensors:
            sensors.append(definitions.resolve_sensor_def("event_file_sensor"))
        with dg.build_sensor_context(instance=instance, definitions=definitions) as context:
            return sensors[0].evaluate_tick(context)

    sensors: list[dg.SensorDefinition] = []
    hourly = HourlyPipeline(config, Settings(data_dir=tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        aws.put("looked/a.jsonl")
        assert ticked().run_requests
        hourly.land(now)
        assert (ticked().skip_message or "").startswith("nothing new in 1 files")
        assert "no notification" in (ticked().skip_message or "")
        aws.put("looked/b.jsonl")
        (request,) = ticked().run_requests or []
        assert request.tags["obs/seen"].startswith("1 new")
        # The run was lost: the next look requests it again, although the message is gone.
        assert ticked().run_requests
