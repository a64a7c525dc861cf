"""S3: an hour is an object, or numbered ones when it is large, and a manifest that says which they are.

::

    cortex-events/year=2025/month=12/day=04/hour=10/events-2025120410.jsonl.gz
                                                    events-2025120410-0001.jsonl.gz
    cortex-events/_manifests/2025120410.json

Key and bytes are a function of the hour's content, so that a rebuild overwrites in place. The manifest is the ledger
and is written last: an hour is the objects that it names. Every write of a key says which version of it it replaces, so
that of two writers of an hour one is stopped.

==============  ===========================================================
`config`        the options, and the keys that follow from them
`encode`        a frame as the bytes of objects: JSON lines or Parquet
`manifest`      what an hour is
`bucket`        where objects lie: any server that speaks S3
`folder`        where objects lie: a local directory
`prices`        what keeping them costs
`destination`   takes hours, holds hours, gives them back
==============  ===========================================================
"""

from obs_assets.destinations.s3.config import S3Config
from obs_assets.destinations.s3.destination import S3Destination
from obs_assets.destinations.s3.manifest import Manifest, StoredObject

__all__ = ["Manifest", "S3Config", "S3Destination", "StoredObject"]
