"""What keeping objects costs a month, by storage class: an estimate from list prices."""

from collections.abc import Sequence

PRICES_OF = "us-east-1, first tier, list prices of March 2026"
USD_PER_GIB_MONTH = {
    "STANDARD": 0.023,
    "STANDARD_IA": 0.0125,
    "ONEZONE_IA": 0.01,
    "INTELLIGENT_TIERING": 0.023,
    "GLACIER_IR": 0.004,
    "GLACIER": 0.0036,
    "DEEP_ARCHIVE": 0.00099,
}
"""Storage alone: neither requests nor retrieval, nor deletion before the class's minimum duration."""

BILLED_AT_LEAST = dict.fromkeys(("STANDARD_IA", "ONEZONE_IA", "GLACIER_IR"), 128 * 1024)
"""Bytes for which an object of the class is charged even when it is smaller."""

INDEX_BYTES = dict.fromkeys(("GLACIER", "DEEP_ARCHIVE"), 32 * 1024)
"""What the class adds to each object at its own price; another 8 KiB are charged as STANDARD."""

_GIB = 1024**3


def usd_per_month(sizes: Sequence[int], storage_class: str) -> float:
    """The price of keeping objects of these sizes, bytes, for a month."""
    least, index = BILLED_AT_LEAST.get(storage_class, 0), INDEX_BYTES.get(storage_class, 0)
    stored = sum(max(size, least) + index for size in sizes) * USD_PER_GIB_MONTH[storage_class]
    named = len(sizes) * 8 * 1024 * USD_PER_GIB_MONTH["STANDARD"] if index else 0.0
    return (stored + named) / _GIB
