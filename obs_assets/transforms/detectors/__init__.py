r"""The rules of redaction: how personal data and secrets are found.

Each file has the rules for a kind of value. `obs_assets.transforms.redact` applies the rules to events.

A `Detector` has two parts:

- Its *trigger* is an RE2 pattern over raw JSON text. It takes linear time and runs over many events at once. It may
  fire where there is no value. But it always fires where ``find`` would find a value, whatever escapes the raw text
  has. (Escapes that can hide a letter, such as ``\u0040`` and ``%40``, are triggers too: see `encodings.ENCODED`.)
- Its *find* is exact. It runs on a decoded string and gives the spans of the values.

Every `re` pattern here takes linear time. It begins with a literal, or with a lookbehind that allows a single start in
each run of its characters. Its repetitions are bounded, possessive, or end at the end of the run.

No rule finds the result of a redaction (`masks`), so that a second redaction changes nothing.
"""

from obs_assets.transforms.detectors.base import Detector, Span
from obs_assets.transforms.detectors.cards import CREDIT_CARD
from obs_assets.transforms.detectors.commands import COMMAND
from obs_assets.transforms.detectors.credentials import (
    HEADER,
    JWK,
    LINK,
    PHRASE,
    PRIVATE_KEY,
    URL_USER,
)
from obs_assets.transforms.detectors.emails import EMAIL
from obs_assets.transforms.detectors.ibans import IBAN
from obs_assets.transforms.detectors.ips import IP_ADDRESS
from obs_assets.transforms.detectors.issuers import PREFIX, SHAPE, UNKNOWN
from obs_assets.transforms.detectors.macs import MAC_ADDRESS
from obs_assets.transforms.detectors.passwords import PASSWORD
from obs_assets.transforms.detectors.phones import PHONE
from obs_assets.transforms.detectors.ssns import SSN
from obs_assets.transforms.detectors.statements import STATEMENT

__all__ = ["DETECTORS", "NUMBERS", "TYPES", "WORDS", "Detector", "Span"]

WORDS = (
    PRIVATE_KEY,
    URL_USER,
    SHAPE,
    PREFIX,
    UNKNOWN,
    HEADER,
    JWK,
    LINK,
    PHRASE,
    PASSWORD,
    COMMAND,
    STATEMENT,
    EMAIL,
)
"""Detectors whose triggers are words and signs."""

NUMBERS = (IBAN, MAC_ADDRESS, CREDIT_CARD, SSN, IP_ADDRESS, PHONE)
"""Detectors whose triggers are digits. A single automaton for both groups would be larger and slower than two."""

DETECTORS = (*WORDS, *NUMBERS)
"""The built-in detectors in the order of use, the most specific first: each sees the text that earlier rules left."""

TYPES = frozenset(detector.type for detector in DETECTORS)
"""Names of the built-in types, under which values are counted."""
