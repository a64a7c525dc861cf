"""CloudWatch Logs by a subscription, as Firehose and Lambda get them: ``{"messageType": …, "logEvents": […]}``.

A ``CONTROL_MESSAGE`` only checks that the receiver is there: it holds no event.
"""

from obs_assets.sources.formats.base import Envelope

FORMAT = Envelope(
    "cloudwatch",
    path=("logEvents",),
    keys=frozenset({"messageType", "logGroup", "logStream", "logEvents"}),
    holds_events=lambda outer: outer.get("messageType") != "CONTROL_MESSAGE",
)
