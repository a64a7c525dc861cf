"""The ``redact`` block of a pipeline: types to redact, fields to search, and the replacement of a value."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, TypeAlias

from pydantic import (
    AliasChoices,
    BaseModel,
    Field,
    ValidationInfo,
    computed_field,
    field_validator,
    model_validator,
)

from obs_assets.config import Block
from obs_assets.transforms import detectors as built_in
from obs_assets.transforms.detectors import Detector
from obs_assets.transforms.detectors.custom import VALIDATORS, custom_detector
from obs_assets.transforms.detectors.issuers import PREFIX, prefix_detector
from obs_assets.transforms.functions import digest, resolve

_PREFIX = re.compile(r"[A-Za-z][0-9A-Za-z_.-]{2,39}")

Mode: TypeAlias = Literal["mask", "hash", "remove"]
TypeMode: TypeAlias = Literal["mask", "hash", "remove", "keep"]


class CustomPattern(BaseModel, frozen=True, extra="forbid"):
    """A pattern of yours for values that are to be redacted.

    Attributes:
        name: name of the type: values are counted under it, and ``_redaction`` names it.
        regex: pattern in RE2 syntax, without lookaround and backreferences; RE2 takes linear time
            on any text.
        flags: ``i``: upper and lower case are equal; ``m``: ``^`` and ``$`` match at lines; ``s``:
            a dot matches line breaks. ``g`` and ``u`` are accepted and always on.
        validator: further test of a match: ``luhn``, ``iban``, ``has_digit``,
            ``has_letter_and_digit``, or the dotted path of a pure function of yours, ``str ->
            bool``. An event on which that function fails is a dead letter.
        replacement: text that replaces the value, in every mode; the pattern must not match it.
    """

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$", examples=["employee_id"])
    regex: str = Field(min_length=1, examples=["EMP-[0-9]{6}"])
    flags: str = Field("", pattern=r"^[gimsu]*$", examples=["i"])
    validator: str | None = Field(None, examples=["luhn"])
    replacement: str | None = Field(None, examples=["[EMPLOYEE]"])

    @computed_field  # type: ignore[prop-decorator]
    @property
    def validator_digest(self) -> str | None:
        """Digest of the source of the validator: if its code changes, the configuration is a new configuration."""
        return digest(self.validator) if self.validator not in (None, *VALIDATORS) else None

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        self.detector()
        return self

    def detector(self) -> Detector:
        """The detector of this pattern."""
        flags = "".join(sorted(set(self.flags) - {"g", "u"}))
        return custom_detector(self.name, self.regex, flags, self.is_valid(), self.replacement)

    def is_valid(self) -> Callable[[str], bool]:
        """The validator: a function that returns whether a match is a value to redact."""
        if self.validator is None:
            return bool
        if self.validator in VALIDATORS:
            return VALIDATORS[self.validator]
        if "." not in self.validator:
            known = ", ".join(VALIDATORS)
            raise ValueError(
                f"validator {self.validator!r} is unknown; there are {known}, or a dotted path of your own"
            )
        return _strict(resolve(self.validator))


def _strict(function: Callable[[Any], Any]) -> Callable[[str], bool]:
    """Wrap a user's validator, so that it has to return a boolean.

    A branch without a ``return`` gives None. Without this wrapper, None would leave the value unredacted.

    Raises:
        TypeError: from the wrapped validator, if the answer is not a boolean.
    """

    def is_valid(value: str) -> bool:
        answer = function(value)
        if not isinstance(answer, bool):
            raise TypeError("a validator has to answer True or False")
        return answer

    return is_valid


class RedactConfig(Block, frozen=True):
    """Which values are redacted, where, and what replaces them.

    A pipeline without this block redacts with the defaults below.

    Attributes:
        mode: ``mask`` keeps a small part of a value (nothing of passwords and social security
            numbers); ``hash`` puts a token that is equal for equal values; ``remove`` puts
            ``[REDACTED]``.
        modes: type → mode for that type, built-in or yours; ``keep`` leaves its values as they
            are.
        detect_email: redact e-mail addresses.
        detect_phone: redact phone numbers.
        detect_ssn: redact US social security numbers.
        detect_credit_card: redact card numbers.
        detect_api_key: redact API keys and tokens.
        detect_password: redact passwords and other named secrets.
        detect_ip_address: redact IPv4 and IPv6 addresses.
        detect_iban: redact bank account numbers (IBAN).
        detect_mac_address: redact MAC addresses.
        patterns: patterns of yours; they are applied before the built-in types.
        fields_to_scan: redact only in these fields; null redacts everywhere. A path is names with
            dots between them, elements of lists are numbers from 0, and JSON in a string goes on
            below the string's path. ``*`` is a name or a part of it, ``**`` any number of names.
            A path covers everything below it.
        fields_to_skip: fields that are never redacted; paths as in ``fields_to_scan``.
        secret_prefixes: prefixes of your own tokens; a prefix with 16 letters, digits, ``_`` or
            ``-`` after it is an ``api_key``.
        allow_unredacted: must be true beside ``enabled: false``: events then reach every
            destination unredacted.
    """

    mode: Mode = Field("mask", validation_alias=AliasChoices("mode", "redaction_mode"))
    detect_email: bool = True
    detect_phone: bool = True
    detect_ssn: bool = True
    detect_credit_card: bool = True
    detect_api_key: bool = True
    detect_password: bool = True
    detect_ip_address: bool = True
    detect_iban: bool = True
    detect_mac_address: bool = True
    patterns: tuple[CustomPattern, ...] = Field(
        (), examples=[[{"name": "employee_id", "regex": "EMP-[0-9]{6}"}]]
    )
    modes: Mapping[str, TypeMode] = Field(default_factory=dict, examples=[{"phone": "keep"}])
    fields_to_scan: tuple[str, ...] | None = Field(None, examples=[["message", "data.**"]])
    fields_to_skip: tuple[str, ...] = Field((), examples=[["data.*.build"]])
    secret_prefixes: tuple[str, ...] = Field((), examples=[["acme_live_"]])
    allow_unredacted: bool = False

    @model_validator(mode="after")
    def _is_off_on_purpose(self) -> Self:
        if not self.enabled and not self.allow_unredacted:
            raise ValueError(
                "enabled: false lets personal data reach every destination; set allow_unredacted: true beside it if "
                "that is meant"
            )
        return self

    @field_validator("secret_prefixes")
    @classmethod
    def _prefixes_are_long_enough(cls, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in prefixes:
            if not _PREFIX.fullmatch(prefix):
                raise ValueError(
                    f"secret_prefixes: {prefix!r} must begin with a letter and have 3 to 40 letters, digits, "
                    "'_', '-' or '.': a shorter one is the beginning of many words"
                )
        return prefixes

    @field_validator("modes")
    @classmethod
    def _knows_the_types_of_modes(
        cls, modes: Mapping[str, TypeMode], info: ValidationInfo
    ) -> Mapping[str, TypeMode]:
        # Not a validator of the whole block: it would run only once all other fields are right.
        if "patterns" not in info.data:
            return modes
        known = {detector.type for detector in built_in.DETECTORS}
        known |= {pattern.name for pattern in info.data["patterns"]}
        if unknown := sorted(set(modes) - known):
            raise ValueError(
                f"unknown type {', '.join(unknown)}; there are {', '.join(sorted(known))}"
            )
        return modes

    def __hash__(self) -> int:
        """Equal configurations have equal hashes, so that they share their compiled rules."""
        return hash(self.model_dump_json())

    def detects(self, type_: str) -> bool:
        """Whether a built-in type is searched for: its ``detect_…`` is not off, and its mode is not ``keep``."""
        is_on = getattr(self, f"detect_{type_}", True)
        return bool(is_on) and self.modes.get(type_) != "keep"

    def detectors(self) -> tuple[Detector, ...]:
        """The detectors to apply, in order."""
        custom = (
            pattern.detector()
            for pattern in self.patterns
            if self.modes.get(pattern.name) != "keep"
        )
        detectors: tuple[Detector, ...] = built_in.DETECTORS
        if self.secret_prefixes:
            own = prefix_detector(self.secret_prefixes)
            detectors = tuple(
                own if detector is PREFIX else detector for detector in built_in.DETECTORS
            )
        return (*custom, *(detector for detector in detectors if self.detects(detector.type)))
