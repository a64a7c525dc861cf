r"""What is personal or secret, and how to be sure: the redactor's rules.

Only rules live here, a kind of value a file; how they are applied to an event is in `obs_assets.transforms.redact`.

A `Detector` has two halves. Its *trigger* is RE2 over raw JSON text, linear in time and run over many events at once:
it may fire in vain, but wherever the exact half finds something in a decoded string, the trigger fires on the raw text
of that string, whatever its escapes. (Escapes that could hide a letter, ``\u0040`` and ``%40``, are triggers
themselves, see `encodings.ENCODED`.) Its *find* is exact, runs on a decoded string and says where the values are.

Every `re` pattern here is linear: it begins with a literal, or with a lookbehind that allows one start per run of its
characters, and its repetitions are bounded, possessive, or end where the run ends.

What a redaction leaves behind (`masks`) is found by no rule, so that redacting twice is redacting once.
"""

from obs_assets.transforms.detectors.base import Detector, Span
from obs_assets.transforms.detectors.cards import CREDIT_CARD
from obs_assets.transforms.detectors.credentials import HEADER, PRIVATE_KEY, URL_USER
from obs_assets.transforms.detectors.emails import EMAIL
from obs_assets.transforms.detectors.ibans import IBAN
from obs_assets.transforms.detectors.ips import IP_ADDRESS
from obs_assets.transforms.detectors.issuers import PREFIX, SHAPE, UNKNOWN
from obs_assets.transforms.detectors.macs import MAC_ADDRESS
from obs_assets.transforms.detectors.passwords import PASSWORD
from obs_assets.transforms.detectors.phones import PHONE
from obs_assets.transforms.detectors.ssns import SSN

__all__ = ["DETECTORS", "NUMBERS", "TYPES", "WORDS", "Detector", "Span"]

WORDS = (PRIVATE_KEY, URL_USER, SHAPE, PREFIX, UNKNOWN, HEADER, PASSWORD, EMAIL)
"""Values whose triggers are words and signs."""

NUMBERS = (IBAN, MAC_ADDRESS, CREDIT_CARD, SSN, IP_ADDRESS, PHONE)
"""Values whose triggers are digits. One automaton for both kinds would be larger and slower than two."""

DETECTORS = (*WORDS, *NUMBERS)
"""Applied in this order, the most specific first: a rule sees what the rules before it have left."""

TYPES = frozenset(detector.type for detector in DETECTORS)
"""What values are counted as."""
