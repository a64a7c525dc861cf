"""AWS CloudTrail's files: ``{"Records": [{"eventTime": …}, …]}``. S3's notifications have the same form."""

from obs_assets.sources.formats.base import Envelope

FORMAT = Envelope(
    "cloudtrail", path=("Records",), keys=frozenset({"Records"}), others=frozenset()
)
