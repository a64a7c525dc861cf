"""A pipeline's configuration, from the event files to the destinations. Without Dagster.

Each block is declared beside the code that it configures; this module puts the blocks together.
`load` reads the YAML form, `PipelineConfig.builder` is the fluent form.
"""

import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import Environment, StrictUndefined, TemplateError, Undefined
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from obs_assets import settings
from obs_assets.alerts import AlertRule
from obs_assets.delivery import kinds
from obs_assets.delivery.kinds import AnyDestination, asset_name, kind_of, type_names
from obs_assets.destinations.base import DestinationConfig
from obs_assets.errors import ConfigurationError
from obs_assets.hourly.checks_config import ChecksConfig
from obs_assets.hourly.stage_rows import STAGES, Stage, row_of
from obs_assets.hours import Hour, parse_hour
from obs_assets.receipts import NOTHING_LANDED, InputVersion
from obs_assets.sources.files import SourceConfig
from obs_assets.sources.times import EARLIEST
from obs_assets.transforms.enrich import EnrichConfig, Price
from obs_assets.transforms.filter import FilterConfig
from obs_assets.transforms.lookup import GeoIp, Lookup
from obs_assets.transforms.redact import CustomPattern, RedactConfig
from obs_assets.transforms.sample import SampleConfig

EARLIEST_HOUR = Hour(EARLIEST)
"""The first hour whose events can land, and the first hour of a pipeline without ``start``."""

DEFAULT_PIPELINE = "pipeline"
"""Stored name of a pipeline whose ``asset_prefix`` is empty.

It names the pipeline's folder below ``OBS_DATA_DIR/pipelines`` and stands in the tag ``obs/pipeline``
of its runs. Users have data there, so the name must not change.
"""

COMPONENT_TYPE = "obs_assets.components.ObservabilityPipeline"
"""``type`` of a pipeline file."""

_LANDING = ("event_files", "landed_events")
"""Assets of every pipeline beside its stages and destinations."""

PROCESSORS = {
    "enricher": "enrich",
    "pii-redactor": "redact",
    "filter": "filter",
    "sampler": "sample",
}
"""Name of a processor in the fluent form → its block."""

SOURCES = ("event-stream",)
"""Types of sources."""

_REPLACED = {
    "buffer_size": "hours are loaded whole; see batch_size (webhook), part_size_mb (s3)",
    "flush_interval": "hours are loaded whole; allowed_lateness_minutes says when",
    "hash_salt": "the key of redaction tokens is the environment's OBS_HASH_KEY",
    "adaptive_target_rate": "adaptive keeps adaptive_target events of each type and hour",
    "adaptive_window": "adaptive samples over the whole hour",
    "drop_on_error": "an event on which a stage fails is a dead letter, and counted",
}
"""Option of other pipelines → the sentence that says how this pipeline does the same."""

_NAME = re.compile(r"[A-Za-z0-9_]+")
"""Names that assets and jobs may have."""

_OWNER = re.compile(r"team:.+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
"""Owners that Dagster shows."""


class PipelineConfig(BaseModel, frozen=True, extra="forbid", hide_input_in_errors=True):
    """The configuration of a pipeline, from the files to the destinations.

    Attributes:
        start: first hour, UTC. An event from before it is a dead letter. Null takes every event
            since the year 2000; Dagster's partitions then begin with the first day that has landed.
        allowed_lateness_minutes: wait after the end of an hour for late events, before the hour
            closes and is built.
        refresh_open_hour_minutes: also build the open hour at this interval while its events
            arrive, so that tables and alerts are minutes behind; null waits until the hour closes.
            The closed hour is the same in both cases.
        on_config_change: effect of a changed configuration or code version on hours that are
            built. ``mark``: Dagster shows them as stale and nothing else happens; ``rebuild``:
            they are built again.
        retention_days: how long events before redaction are kept (landed events, dead letters, raw
            and enriched frames), counted from the end of their hour or its first landing,
            whichever is later, and until every destination holds the hour. An expired hour cannot
            be built again. Null keeps them for ever.
        owners: owners of every asset in the UI: e-mail addresses or ``team:name``.
        asset_prefix: goes before the names of assets, jobs and sensors, and names the pipeline's
            data below ``OBS_DATA_DIR/pipelines``; null is the name of the pipeline's folder. An
            empty text is no prefix, for one pipeline at most; its data is called ``pipeline``.
        checks: when the asset checks of an hour warn.
        source: which event files are read, and how.
        enrich: fields that are added to events; null adds none.
        redact: how personal data and secrets are removed. Without this block they are masked.
        filter: which events are dropped by rule; null drops none.
        sample: which share of the events is kept; null keeps all.
        destinations: the stores and receivers of the hours. Two destinations of one type need
            different names.
    """

    start: str | None = Field(None, examples=["2025-01-01-00:00"])
    allowed_lateness_minutes: int = Field(5, ge=0, le=24 * 60)
    refresh_open_hour_minutes: int | None = Field(None, ge=1, le=59, examples=[5])
    on_config_change: Literal["mark", "rebuild"] = "mark"
    retention_days: int | None = Field(30, ge=1, le=36_500)
    owners: tuple[str, ...] = Field((), examples=[["team:platform"]])
    asset_prefix: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_]*$",
        examples=["shop"],
    )
    checks: ChecksConfig = Field(ChecksConfig(), examples=[{"dead_letter_share": 0.05}])
    source: SourceConfig = Field(SourceConfig(), examples=[{"events_dir": "/var/log/agents"}])
    enrich: EnrichConfig | None = Field(None, examples=[{"environment": "production"}])
    redact: RedactConfig = Field(RedactConfig(), examples=[{"mode": "hash"}])
    filter: FilterConfig | None = Field(None, examples=[{"drop_levels": ["debug"]}])
    sample: SampleConfig | None = Field(None, examples=[{"success_rate": 0.1}])
    destinations: tuple[AnyDestination, ...] = Field(
        (), examples=[[{"type": "postgres", "table_name": "events"}]]
    )

    @field_validator("start")
    @classmethod
    def _start_is_an_hour(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            return parse_hour(value).key
        except ConfigurationError as error:
            raise ValueError(str(error)) from None

    @field_validator("owners")
    @classmethod
    def _owners_can_be_shown(cls, owners: tuple[str, ...]) -> tuple[str, ...]:
        for owner in owners:
            # Dagster refuses all others, which would take the pipeline down when it is loaded.
            if not _OWNER.fullmatch(owner):
                raise ValueError("an owner is an e-mail address or team:name")
        return owners

    @model_validator(mode="after")
    def _names_differ(self) -> "PipelineConfig":
        names = Counter(map(asset_name, self.destinations))
        repeated = [name for name, number in names.items() if number > 1]
        if repeated:
            # Names of assets must differ, and a ledger is found by the name.
            raise ValueError(
                f"two destinations are called {repeated[0]!r}: give each a name of its own"
            )
        taken = {*STAGES, *_LANDING}.intersection(names)
        if taken:
            raise ValueError(
                f"a destination is called {min(taken)!r}, as another asset is: choose another name"
            )
        return self

    @model_validator(mode="after")
    def _failovers_fit(self) -> "PipelineConfig":
        blocks = {asset_name(block): block for block in self.destinations}
        for name, block in blocks.items():
            if block.failover is None:
                continue
            to = block.failover.to
            spare = blocks.get(to)
            if spare is None or spare is block or spare.failover:
                raise ValueError(
                    f"{name}: failover.to is {to!r}, which must be the name of another destination "
                    "of this pipeline, without a failover of its own"
                )
            if kind_of(block).alerts or kind_of(spare).alerts:
                raise ValueError(f"{name}: a webhook takes no part in a failover")
            if kind_of(spare).takes_hours_by == "append" and block.failover.hand_back:
                raise ValueError(
                    f"{name}: events cannot be removed from {to}, so that its hours cannot be handed "
                    "back: set `hand_back: false`, or choose a destination that replaces hours"
                )
        return self

    def stored_name(self, folder: str) -> str:
        """The name of the pipeline's data, and value of the tag ``obs/pipeline`` of its runs.

        Args:
            folder: name of the pipeline's folder; it is the stored name if ``asset_prefix`` is null.

        Raises:
            ConfigurationError: the folder's name holds characters that assets and jobs may not have.
        """
        if self.asset_prefix is not None:
            return self.asset_prefix or DEFAULT_PIPELINE
        if not _NAME.fullmatch(folder):
            near = re.sub(r"[^A-Za-z0-9_]+", "_", folder).strip("_") or "events"
            raise ConfigurationError(
                f"the folder of a pipeline is called {folder!r}, but assets and jobs begin with "
                "its name: use letters without accents, digits and _, "
                f"for example {near!r}, or set asset_prefix"
            )
        return folder

    @property
    def first_hour(self) -> Hour:
        """The hour of ``start``; without ``start`` the first hour whose events can land."""
        return parse_hour(self.start) if self.start else EARLIEST_HOUR

    @property
    def allowed_lateness(self) -> timedelta:
        """``allowed_lateness_minutes`` as a duration."""
        return timedelta(minutes=self.allowed_lateness_minutes)

    @property
    def enabled_destinations(self) -> tuple[DestinationConfig, ...]:
        """The destinations that hours are delivered to; the secondaries of failovers are not among them."""
        spare = {block.failover.to for block in self.destinations if block.failover}
        return tuple(
            destination
            for destination in self.destinations
            if destination.enabled and asset_name(destination) not in spare
        )

    def version(self, stage: Stage, landed: InputVersion = NOTHING_LANDED) -> InputVersion:
        """The version of a stage's hour, if this configuration and code build it and all stages before it.

        Args:
            stage: name of the stage, for example ``redacted_events``.
            landed: version of the hour's landed events, see `Landed.version`.
        """
        version = landed
        for name in STAGES[: STAGES.index(stage) + 1]:
            version = self.next_version(version, name)
        return version

    def next_version(self, before: InputVersion, stage: Stage) -> InputVersion:
        """The version of a stage that is built now from a frame of version ``before``."""
        blocks = [_block_json(getattr(self, name)) for name in row_of(stage).blocks]
        text = json.dumps([before.config_hash, stage, blocks], sort_keys=True)
        code = f"{before.code_version}.{row_of(stage).code_version}".lstrip(".")
        # 48 bits: versions are compared with their predecessors, not searched among millions.
        config_hash = hashlib.sha256(text.encode()).hexdigest()[:12]
        return replace(before, config_hash=config_hash, code_version=code)

    @staticmethod
    def builder() -> "PipelineConfigBuilder":
        """The fluent form: ``add_source``, ``add_processor``, ``add_destination``, ``build``."""
        return PipelineConfigBuilder()


def _block_json(block: BaseModel | None) -> Any:
    if block is None:
        return None
    if isinstance(block, SourceConfig):
        # The folder of the files does not change the frames.
        return {"name": block.name, "type": block.type}
    return block.model_dump(mode="json")


class PipelineConfigBuilder:
    """Builds a `PipelineConfig` step by step.

    >>> PipelineConfig.builder().add_source("event-stream", events_dir="events").build().source.type
    'event-stream'
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {"destinations": []}

    def add_source(self, type: str, **options: Any) -> "PipelineConfigBuilder":  # noqa: A002 (the word of the API)
        """Set the source of events: ``event-stream``."""
        known = _known("source", type, SOURCES)
        self._values["source"] = {"type": known, **options}
        return self

    def add_processor(self, type: str, **options: Any) -> "PipelineConfigBuilder":  # noqa: A002
        """Add ``enricher``, ``pii-redactor``, ``filter`` or ``sampler``; the order of the stages is fixed."""
        block = PROCESSORS[_known("processor", type, PROCESSORS)]
        self._values[block] = options
        return self

    def add_destination(self, type: str, **options: Any) -> "PipelineConfigBuilder":  # noqa: A002
        """Add ``postgresql`` (or ``postgres``), ``s3``, ``webhook`` or another kind of `KINDS`.

        Several destinations of the same type need different names.
        """
        types = type_names()
        kind = types[_known("destination", type, types)]
        self._values["destinations"].append({"type": kind, **options})
        return self

    def build(self) -> PipelineConfig:
        """The configuration.

        Raises:
            ConfigurationError: a value is wrong; the message names its field.
        """
        return parse(self._values)


def _known(
    block: str,
    type_: str,
    known: Iterable[str],
) -> str:
    if type_ not in set(known):
        raise ConfigurationError(
            f"Unknown {block} type {type_!r}; there are {', '.join(sorted(known))}"
        )
    return type_


def parse(values: Mapping[str, Any], where: str = "") -> PipelineConfig:
    """Check values and make a configuration of them.

    Args:
        values: option → value, as in the block ``attributes`` of a pipeline file.
        where: put before each line of the message.

    Raises:
        ConfigurationError: a value is wrong; the message names its field, and for an unknown option
            the nearest known option.
    """
    try:
        return PipelineConfig.model_validate(values)
    except ValidationError as error:
        lines = [f"{where}{line}" for line in explain(error)]
        # `from None`: pydantic's own error can repeat a wrong value, which can be a secret.
        raise ConfigurationError("\n".join(lines)) from None


def load(
    path: Path, env: Mapping[str, str] | None = None, text: str | None = None
) -> PipelineConfig:
    """Read a pipeline file, a component's ``defs.yaml``.

    Args:
        path: the file.
        env: for ``{{ env.NAME }}``; the process's environment by default.
        text: content to use instead of the file's; messages name the file all the same.

    Raises:
        ConfigurationError: a value is wrong; the message says file, line, field and the allowed
            values.
    """
    document, values = read_yaml(path, text=text)
    if not isinstance(values, dict) or not isinstance(values.get("attributes"), dict):
        raise ConfigurationError(
            f"{path}: a pipeline file has `type:` and a block `attributes:`"
        )
    for name in values:
        problem = _problem_at_the_top(name, values[name])
        if problem:
            raise ConfigurationError(f"{path}:{line_of(document, (name,))}: {problem}")
    if env is None:
        env = settings.environment()
    try:
        return PipelineConfig.model_validate(render(values["attributes"], env))
    except _TemplateMistakeError as error:
        line = line_of(document, ("attributes", *error.location))
        field = ".".join(map(str, error.location))
        raise ConfigurationError(f"{path}:{line}: {field}: {error}") from None
    except RecursionError:
        raise ConfigurationError(
            f"{path}: a value is nested too deeply, or an alias contains itself"
        ) from None
    except ValidationError as error:
        problems = []
        # pydantic names the way to a value, the document knows the line.
        for details, problem in zip(error.errors(), explain(error), strict=True):
            line = line_of(document, ("attributes", *details["loc"]))
            problems.append(f"{path}:{line}: {problem}")
        raise ConfigurationError("\n".join(problems)) from None


def read_yaml(
    path: Path, loader: type[yaml.SafeLoader] | None = None, text: str | None = None
) -> tuple[yaml.Node | None, Any]:
    """The nodes of a YAML file, which know their lines, and its values.

    Args:
        path: the file.
        loader: makes the values; by default dates without quotes are dates.
        text: content to use instead of the file's.

    Raises:
        ConfigurationError: the file cannot be read; the message says file, line and mistake.
    """
    try:
        if text is None:
            text = path.read_text(encoding="utf-8")
        values = yaml.load(text, loader or _Loader)  # noqa: S506 - a SafeLoader
        return yaml.compose(text), values
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the pipeline file {path}: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not YAML: it is not UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = str(path)
        if mark:
            where = f"{path}:{mark.line + 1}"  # PyYAML counts lines from 0
        problem = getattr(error, "problem", error)
        raise ConfigurationError(f"{where}: not YAML: {problem}") from None


def _problem_at_the_top(name: Any, value: Any) -> str:
    """The mistake in a key beside ``attributes``; empty if there is none."""
    if name == "attributes":
        return ""
    if name != "type":
        near = difflib.get_close_matches(
            str(name),
            ("type", "attributes"),
            n=1,
        )
        hint = "a pipeline file has `type:` and `attributes:`, nothing else"
        if near:
            hint = f"did you mean {near[0]!r}?"
        return f"unknown key {name!r}; {hint}"
    if value == COMPONENT_TYPE:
        return ""
    return f"type: there is one type of pipeline; did you mean {COMPONENT_TYPE!r}?"


class _Loader(yaml.SafeLoader):
    """A loader whose error for an impossible date, such as ``2025-13-01``, names the line."""

    def construct_object(
        self,
        node: yaml.Node,
        deep: bool = False,
    ) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            problem = f"{error}: put it in quotes if it is a text"
            raise yaml.constructor.ConstructorError(
                None, None, problem, node.start_mark
            ) from None


class _TemplateMistakeError(ConfigurationError):
    """A template is wrong.

    Attributes:
        location: keys and list indexes on the way to the value, from ``attributes`` on.
    """

    def __init__(
        self,
        message: str,
        location: tuple[int | str, ...],
    ) -> None:
        super().__init__(message)
        self.location = location


class _Env:
    """``env`` in a template: ``env.NAME`` is None if unset, ``env('NAME', 'default')`` has a default."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> str | None:
        return self._values.get(name) or None

    def __call__(
        self,
        name: str,
        default: str | None = None,
    ) -> str | None:
        return self._values.get(name) or default


def render(
    value: Any,
    env: Mapping[str, str],
    location: tuple[int | str, ...] = (),
) -> Any:
    """Fill in ``{{ env.NAME }}`` in every value but an alert's ``summary``, which is filled in when the alert fires.

    Args:
        value: a YAML value: mapping, list, text, number, …
        env: name of a variable → its value.
        location: keys and list indexes on the way to the value.

    Raises:
        ConfigurationError: a template is wrong.
    """
    if isinstance(value, Mapping):
        rendered = dict(value)
        for key, item in value.items():
            # The template of a summary has other names; they are known when the alert fires.
            if key != "summary":
                rendered[key] = render(item, env, (*location, key))
        return rendered
    if isinstance(value, list):
        return [render(item, env, (*location, number)) for number, item in enumerate(value)]
    if isinstance(value, str) and "{{" in value:
        try:
            return _render_text(value, _Env(env))
        except TemplateError as error:
            raise _TemplateMistakeError(
                f"the template {value!r} is wrong: {error}", location
            ) from None
        # A template can raise any error, and the error's text can quote a secret.
        except Exception as error:  # noqa: BLE001
            problem = f"the template {value!r} is wrong: {type(error).__name__}"
            raise _TemplateMistakeError(problem, location) from None
    return value


def _render_text(text: str, env: _Env) -> Any:
    """A text that is a single expression keeps the type of its value: ``{{ env.UNSET }}`` is None.

    A variable is text even if it looks like a number.
    """
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 - this is no HTML
    # An expression alone, as text, would turn an unset variable into the word "None".
    lone = re.fullmatch(r"\s*\{\{((?:(?!\}\}).)*)\}\}\s*", text)
    if lone is None:
        return environment.from_string(text).render(env=env)
    evaluate = environment.compile_expression(lone[1], undefined_to_none=False)
    found = evaluate(env=env)
    if isinstance(found, Undefined):
        return str(found)  # raises an error that names the undefined variable
    return found


def explain(error: ValidationError) -> list[str]:
    """A line for each mistake: the field, the mistake, the allowed values.

    A wrong value is not repeated, since it can be a secret.
    """
    mistakes = error.errors(include_url=False, include_context=True)
    return [_explain(details) for details in mistakes]


def _explain(details: Any) -> str:
    # pydantic puts the chosen type of a destination into the path, where the file has no key.
    tags = (*type_names().values(), "function-after")
    path = [part for part in details["loc"] if part not in tags]
    field = ".".join(map(str, path))
    if details["type"] == "extra_forbidden":
        block = ".".join(map(str, path[:-1])) or "pipeline"
        return f"{block}: {_unknown_option(str(path[-1]), details['loc'][:-1])}"
    if details["type"] in ("union_tag_invalid", "union_tag_not_found"):
        known = sorted(set(type_names().values()))
        return f"{field}: type must be one of {', '.join(known)}"
    said = details["msg"].removeprefix("Value error, ").replace("Input should be ", "must be ")
    problem = _PROBLEMS.get(details["type"]) or said
    return f"{field or 'pipeline'}: {problem}"


_MUST_BE_A_MAPPING = "must be a mapping, `name: value`"

_PROBLEMS = {
    "tuple_type": "must be a list",
    "dict_type": _MUST_BE_A_MAPPING,
    "mapping_type": _MUST_BE_A_MAPPING,
    "model_type": _MUST_BE_A_MAPPING,
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "string_type": "must be text: put the value in quotes",
    "missing": "is missing",
}
"""Type of a mistake that pydantic describes in words of Python → the same in words of YAML."""


def _unknown_option(name: str, location: tuple[int | str, ...]) -> str:
    if name in _REPLACED:
        return f"the option {name!r} has no meaning here: {_REPLACED[name]}"
    fields = _fields_at(location)
    # A lower cutoff than usual: a wrong hint costs less than none.
    near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
    hint = f"there are {', '.join(fields)}"
    if near:
        hint = f"did you mean {near[0]!r}?"
    return f"unknown option {name!r}; {hint}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    blocks: dict[str, type[BaseModel]] = {
        "checks": ChecksConfig,
        "source": SourceConfig,
        "enrich": EnrichConfig,
        "redact": RedactConfig,
        "filter": FilterConfig,
        "sample": SampleConfig,
        **{kind.name: kind.config for kind in kinds.KINDS},
        "rules": AlertRule,
        "patterns": CustomPattern,
        "lookups": Lookup,
        "geoip": GeoIp,
        "prices": Price,
    }
    model: type[BaseModel] = PipelineConfig
    for part in location:
        if isinstance(part, str):
            model = blocks.get(part, model)
    return sorted(field.alias or name for name, field in model.model_fields.items())


def line_of(node: yaml.Node | None, location: Iterable[int | str]) -> int:
    """The line, from 1, of the deepest part of a location that stands in the document."""
    line = 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
            # The type of a destination, which pydantic adds, and a missing field have no key.
            if not found:
                continue
            key, node = found[0]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
