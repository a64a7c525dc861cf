"""International bank account numbers (IBAN)."""

import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import EDGE, Detector, Span
from obs_assets.transforms.detectors.masks import mask_start

_IBAN_REGISTRY = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
    "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
    "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 "
    "PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
    "YE30"
)
_IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _IBAN_REGISTRY.split()}
"""Country → number of characters (IBAN registry, ISO 13616)."""

_COUNTRIES = "|".join(_IBAN_LENGTHS)
_IBAN_START = re.compile(rf"(?<![0-9A-Za-z])(?:{_COUNTRIES})[0-9]{{2}}(?=[ -]?[0-9A-Za-z])")
_IBAN_TRIGGER = (
    rf"{EDGE}(?:{_COUNTRIES})[0-9]{{2}}(?:[ -]?[0-9A-Za-z]{{4}}){{2}}(?:[ -]?[0-9A-Za-z]){{3}}"
)
_SEPARATED = re.compile(r"[ -]?[0-9A-Za-z]")


def find_ibans(text: str, _key: str) -> Iterator[Span]:
    """IBANs with the length of their country and the right remainder (ISO 7064 mod 97-10), in groups or unbroken."""
    for match in _IBAN_START.finditer(text):
        end = match.start()
        for _ in range(_IBAN_LENGTHS[match[0][:2]]):
            character = _SEPARATED.match(text, end)
            if character is None:
                break
            end = character.end()
        else:
            account = re.sub("[ -]", "", text[match.start() : end]).upper()
            if (
                not text[end : end + 1].isalnum()
                and int("".join(str(int(c, 36)) for c in account[4:] + account[:4])) % 97 == 1
            ):
                yield match.start(), end


IBAN = Detector("iban", _IBAN_TRIGGER, find_ibans, mask_start)
