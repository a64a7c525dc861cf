"""CloudWatch Logs as a subscription sends them to Firehose and Lambda: ``{"messageType": …, "logEvents": […]}``.

A ``CONTROL_MESSAGE`` only checks that the receiver can be reached: it holds no event.
"""

from obs_assets.sources.formats.base import Envelope

FORMAT = Envelope(
    "cloudwatch",
    path=("logEvents",),
    keys=frozenset({"messageType", "logGroup", "logStream", "logEvents"}),
    holds_events=lambda outer: outer.get("messageType") != "CONTROL_MESSAGE",
)
