"""API keys and other credentials that are known by their shape."""

import base64
import binascii
import re

from obs_assets.transforms.detectors.base import DIGIT, EDGE, Detector, matches
from obs_assets.transforms.detectors.masks import mask_all, mask_start

_KEY_SHAPES = "|".join(
    (
        r"sk-[0-9A-Za-z_-]{16,}",  # OpenAI, Anthropic (sk-ant-), OpenRouter and others
        r"(?:AKIA|ASIA)[0-9A-Z]{16}",  # AWS access key id
        r"gh[pousr]_[0-9A-Za-z]{20,}|github_pat_[0-9A-Za-z_]{20,}",  # GitHub
        r"glpat-[0-9A-Za-z_-]{16,}",  # GitLab
        r"xox[abeoprs]-[0-9A-Za-z-]{10,}",  # Slack
        r"[rs]k_(?:live|test)_[0-9A-Za-z]{10,}",  # Stripe
        r"AIza[0-9A-Za-z_-]{30,}",  # Google
        r"npm_[0-9A-Za-z]{30,}",
        r"pypi-[0-9A-Za-z_-]{16,}",
    )
)
_JWT_SHAPE = r"eyJ[0-9A-Za-z_-]{5,}\.[0-9A-Za-z_-]{5,}(?:\.[0-9A-Za-z_-]*){1,3}"
"""JSON Web Token (RFC 7519), signed or encrypted: base64url parts, the first begins with ``{"``."""

KEY_MASK = re.compile(
    r"(?:sk-.|AKIA|ASIA|gh[pousr]_|gith|glpa|xox.|[rs]k_[lt]|AIza|npm_|pypi|eyJ.)\*\*\*"
)
"""What their mask shows: none of the secret's own characters but one or two."""

_KEY = re.compile(rf"(?<![0-9A-Za-z])(?:{_KEY_SHAPES})|(?<![0-9A-Za-z_-]){_JWT_SHAPE}")
_KEY_TRIGGER = rf"{EDGE}(?:{_KEY_SHAPES}|{_JWT_SHAPE})"

_HEADER = re.compile(
    r"(?i)(?<![0-9A-Z])(?:bearer {1,4}([0-9A-Z._~+/=-]{8,})|basic {1,4}([0-9A-Z_+/=-]{6,}))"
)
_HEADER_TRIGGER = r"(?i:bearer|basic) {1,4}[0-9A-Za-z._~+/=\\-]{6}"

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?s:.*?)(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)"  # a cut-off block ends with its string
)
_PRIVATE_KEY_TRIGGER = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY"

_URL_USER = re.compile(r"""://[^\s/?#:@"'\[]*+:([^\s/?#"']+)@""")
_URL_USER_TRIGGER = r':\\*/\\*/[^\s/"]*@'


_LONG_CREDENTIAL = 24


def _is_random(match: re.Match[str]) -> bool:
    """Not a name in words, such as ``sk-learn-compatible-estimator``."""
    return not match[0].startswith("sk-") or re.search(r"[0-9A-Z]", match[0][3:]) is not None


def _is_credential(match: re.Match[str]) -> bool:
    """Whether what follows ``Bearer`` or ``Basic`` is a credential and not prose.

    Basic credentials are base64 of ``user:password`` (RFC 7617). Bearer tokens have no form, but prose has no digits.
    """
    if match[1]:
        return len(match[1]) >= _LONG_CREDENTIAL or DIGIT.search(match[1]) is not None
    encoded = match[2].rstrip("=")
    try:
        return b":" in base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_")
    except binascii.Error:
        return False


PRIVATE_KEY = Detector("api_key", _PRIVATE_KEY_TRIGGER, matches(_PRIVATE_KEY), mask_all)
URL_USER = Detector("api_key", _URL_USER_TRIGGER, matches(_URL_USER), mask_all)
KEY = Detector("api_key", _KEY_TRIGGER, matches(_KEY, _is_random), mask_start)
HEADER = Detector("api_key", _HEADER_TRIGGER, matches(_HEADER, _is_credential), mask_start)
