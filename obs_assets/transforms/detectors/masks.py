"""Masks: the texts that replace values, and tests that recognize them."""

import re

from obs_assets.transforms.detectors.base import digits_of

ASTERISKS = "***"
SHOWN = 4

# The number stands behind a key whose mask another key has too
_REDACTED = re.compile(r"(?:\[REDACTED(?::[0-9a-f]{32})?\]|\*\*\*)(?:#[0-9]+)?")
_MASKED = re.compile(
    r"(?:[^*]{0,4}\*\*\*"  # mask_start
    r"|\d{0,3}\*\*\*\d{2,4}"  # mask_phone, mask_card
    r"|[^*\s]?\*\*\*[^*\s]?@[^\s@]+"  # mask_email
    r")(?:#[0-9]+)?"
)


def is_redacted(value: str) -> bool:
    """Whether a value is certainly the result of a redaction: a token, or three asterisks and nothing else."""
    return ("*" in value or "[" in value) and _REDACTED.fullmatch(value) is not None


def may_be_masked(value: str) -> bool:
    """Whether a value is the result of a redaction, or looks like a mask that shows a part of the value.

    A password such as ``x***`` looks like a mask too. Use this function only for values without asterisks in them.
    """
    return ("*" in value and _MASKED.fullmatch(value) is not None) or is_redacted(value)


def mask_all(_value: str) -> str:
    """``***``, for values in which each character shown would help to guess the rest."""
    return ASTERISKS


def mask_start(value: str) -> str:
    """The first fifth of the value, four characters at most: ``sk-a***``."""
    return value[: min(SHOWN, len(value) // 5)] + ASTERISKS


def mask_email(value: str) -> str:
    """First and last character of the local part, ``u***r@example.com``; ``***@example.com`` if it has two or fewer."""
    local, _, domain = value.rpartition("@")
    return (
        f"{local[0]}{ASTERISKS}{local[-1]}@{domain}" if local[2:] else f"{ASTERISKS}@{domain}"
    )


def mask_card(value: str) -> str:
    """The last four digits, which receipts may print (PCI DSS 3.4.1): ``***1111``."""
    return ASTERISKS + digits_of(value)[-4:]


def mask_phone(value: str) -> str:
    """The first three and the last two digits: ``212***23``."""
    digits = digits_of(value)
    return digits[:3] + ASTERISKS + digits[-2:]
