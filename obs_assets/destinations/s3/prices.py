"""Estimate of the monthly storage cost of objects, by storage class, from list prices."""

from collections.abc import Sequence

PRICES_OF = "us-east-1, first tier, list prices of March 2026"
"""Region and date of the prices, for the UI."""

USD_PER_GIB_MONTH = {
    "STANDARD": 0.023,
    "STANDARD_IA": 0.0125,
    "ONEZONE_IA": 0.01,
    "INTELLIGENT_TIERING": 0.023,
    "GLACIER_IR": 0.004,
    "GLACIER": 0.0036,
    "DEEP_ARCHIVE": 0.00099,
}
"""US dollars per GiB and month, for storage alone.

Requests, retrieval and deletion before the minimum duration of a class cost more.
"""

BILLED_AT_LEAST = dict.fromkeys(("STANDARD_IA", "ONEZONE_IA", "GLACIER_IR"), 128 * 1024)
"""Bytes that an object of the class costs at least, even if it is smaller."""

INDEX_BYTES = dict.fromkeys(("GLACIER", "DEEP_ARCHIVE"), 32 * 1024)
"""Bytes that the class adds to each object, at the price of the class."""

_NAME_BYTES = 8 * 1024
"""Bytes that such a class adds to each object at the price of STANDARD, for its name."""

_GIB = 1024**3


def usd_per_month(sizes: Sequence[int], storage_class: str) -> float:
    """US dollars a month for objects in a storage class.

    Args:
        sizes: sizes of the objects, in bytes.
        storage_class: a key of `USD_PER_GIB_MONTH`.
    """
    least_bytes = BILLED_AT_LEAST.get(storage_class, 0)
    index_bytes = INDEX_BYTES.get(storage_class, 0)
    billed_bytes = sum(max(size, least_bytes) + index_bytes for size in sizes)
    cost = billed_bytes * USD_PER_GIB_MONTH[storage_class]
    if index_bytes:
        cost += len(sizes) * _NAME_BYTES * USD_PER_GIB_MONTH["STANDARD"]
    return cost / _GIB
