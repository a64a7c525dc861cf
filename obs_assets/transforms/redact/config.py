"""What is redacted, where, and what is left in its place: the ``redact`` block of a pipeline."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, TypeAlias

from pydantic import AliasChoices, BaseModel, Field, computed_field, model_validator

from obs_assets.config import Block
from obs_assets.transforms.detectors import DETECTORS, TYPES, Detector
from obs_assets.transforms.detectors.custom import VALIDATORS, custom_detector
from obs_assets.transforms.functions import digest, resolve

Mode: TypeAlias = Literal["mask", "hash", "remove"]
TypeMode: TypeAlias = Literal["mask", "hash", "remove", "keep"]


class CustomPattern(BaseModel, frozen=True, extra="forbid"):
    """A pattern of one's own.

    Attributes:
        name: what its values are counted as, and their type in ``_redaction``.
        regex: RE2 syntax: linear in time whatever the text, without lookaround and backreferences.
        flags: ``i`` ignore case, ``m`` lines, ``s`` dot matches newlines; the original's ``g`` and ``u`` are implied.
        validator: what a match must pass besides: ``luhn``, ``iban``, ``has_digit``, ``has_letter_and_digit``, or a
            function of one's own by its dotted path, ``my_package.checks.is_employee``: ``str -> bool``, pure, since
            answers are remembered. An event on which it raises, or answers anything else, is a dead letter.
        replacement: left in a value's place, whatever the mode; the pattern may not match it.
    """

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$")
    regex: str = Field(min_length=1)
    flags: str = Field("", pattern=r"^[gimsu]*$")
    validator: str | None = None
    replacement: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def validator_digest(self) -> str | None:
        """Of the validator's source: another code is another configuration."""
        return digest(self.validator) if self.validator not in (None, *VALIDATORS) else None

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        self.detector()
        return self

    def detector(self) -> Detector:
        """The rule that it stands for."""
        flags = "".join(sorted(set(self.flags) - {"g", "u"}))
        return custom_detector(self.name, self.regex, flags, self.is_valid(), self.replacement)

    def is_valid(self) -> Callable[[str], bool]:
        """What a match must pass besides."""
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
    """A user's validator whose answer is a boolean: None, forgotten in a branch, must not let a value pass.

    Raises:
        TypeError: it answered anything else.
    """

    def is_valid(value: str) -> bool:
        answer = function(value)
        if not isinstance(answer, bool):
            raise TypeError("a validator has to answer True or False")
        return answer

    return is_valid


class RedactConfig(Block, frozen=True):
    """What is redacted, where, and what is left in its place.

    No redact block means this class's defaults: redaction is on.

    Attributes:
        mode: ``mask`` shows a little (see `obs_assets.transforms.detectors.masks`; nothing of passwords and social
            security numbers), ``hash`` leaves a token that is equal for equal values, ``remove`` leaves ``[REDACTED]``.
        modes: another mode for single types, built-in or custom: ``{ip_address: hash, phone: keep}``; ``keep`` lets
            the values of that type be.
        detect_email: and so on: whether that type is looked for.
        patterns: further patterns; they come before the built-in ones.
        fields_to_scan: redact only here; everywhere by default. Paths are dot-separated, a list's elements are numbered
            from 0, JSON inside a string goes on below the string's path. ``*`` stands for one segment or a part of it,
            ``**`` for any number of segments. A path covers what is below it.
        fields_to_skip: never here, paths as above.
        allow_unredacted: must stand beside ``enabled: false``.
    """

    mode: Mode = Field("mask", validation_alias=AliasChoices("mode", "redaction_mode"))
    modes: Mapping[str, TypeMode] = Field(default_factory=dict)
    detect_email: bool = True
    detect_phone: bool = True
    detect_ssn: bool = True
    detect_credit_card: bool = True
    detect_api_key: bool = True
    detect_password: bool = True
    detect_ip_address: bool = True
    detect_iban: bool = True
    detect_mac_address: bool = True
    patterns: tuple[CustomPattern, ...] = ()
    fields_to_scan: tuple[str, ...] | None = None
    fields_to_skip: tuple[str, ...] = ("_id", "timestamp", "type", "_source", "_destination", "_enrichment")
    allow_unredacted: bool = False

    @model_validator(mode="after")
    def _is_off_on_purpose(self) -> Self:
        if not self.enabled and not self.allow_unredacted:
            raise ValueError(
                "enabled: false lets personal data reach every destination; set allow_unredacted: true beside it if "
                "that is meant"
            )
        return self

    @model_validator(mode="after")
    def _knows_the_types_of_modes(self) -> Self:
        known = TYPES.union(pattern.name for pattern in self.patterns)
        if unknown := sorted(set(self.modes) - known):
            raise ValueError(f"modes: unknown type {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        return self

    def __hash__(self) -> int:
        """Equal configurations share their compiled rules."""
        return hash(self.model_dump_json())

    def detects(self, type_: str) -> bool:
        """Whether a built-in type is looked for."""
        return bool(getattr(self, f"detect_{type_}")) and self.modes.get(type_) != "keep"

    def detectors(self) -> tuple[Detector, ...]:
        """The rules to apply, in order."""
        custom = (pattern.detector() for pattern in self.patterns if self.modes.get(pattern.name) != "keep")
        return (*custom, *(detector for detector in DETECTORS if self.detects(detector.type)))
