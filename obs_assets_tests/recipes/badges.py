"""An invented kind of value: numbers of badges, such as ``BADGE-4711-X``."""

import re

from obs_assets.transforms.detectors.base import EDGE, Detector, matches

_BADGE = re.compile(r"(?<![0-9A-Za-z])BADGE-[0-9]{4}-X(?![0-9A-Za-z])")

BADGE = Detector("badge", rf"{EDGE}BADGE-", matches(_BADGE), lambda _: "BADGE-***")
