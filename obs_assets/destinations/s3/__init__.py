"""S3: an hour is an object (a large hour is several), and a manifest that names the objects.

::

    cortex-events/year=2025/month=12/day=04/hour=10/events-2025120410.jsonl.gz
                                                    events-2025120410-0001.jsonl.gz
    cortex-events/_manifests/2025120410.json

Key and bytes follow from the hour's content, so that a rebuild overwrites the same objects. The
manifest is the ledger and is written last: an hour consists of the objects that its manifest names.
Each write is conditional on the version that it replaces, so that a second writer of an hour fails.

==============  ===========================================================
`config`        options, and the keys of objects
`encode`        a frame as the bytes of objects: JSON lines or Parquet
`manifest`      the objects of an hour, and the version of its inputs
`bucket`        objects in a bucket of any server that speaks S3
`folder`        objects in a local folder
`prices`        estimate of storage costs
`destination`   delivers hours, reads them back
==============  ===========================================================
"""

from obs_assets.destinations.s3.config import S3Config
from obs_assets.destinations.s3.destination import S3Destination
from obs_assets.destinations.s3.manifest import Manifest, StoredObject

__all__ = ["Manifest", "S3Config", "S3Destination", "StoredObject"]
