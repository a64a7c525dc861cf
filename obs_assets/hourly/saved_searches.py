"""Searches that a team keeps: ``searches.yaml`` beside the pipeline file. The product never writes it.

.. code-block:: yaml

    searches:
      - name: Errors of agents
        q: level:error -type:heartbeat
        from: now-6h
        note: look at these first
"""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError, field_validator

from obs_assets.errors import ConfigurationError, ObsError
from obs_assets.hourly.pipeline import line_of, read_yaml
from obs_assets.search.language import parse
from obs_assets.search.moments import moment

FILE_NAME = "searches.yaml"
"""Name of the file."""

_A_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
"""A present moment, to check texts such as ``now-6h``."""


class SavedSearch(BaseModel, frozen=True, extra="forbid", hide_input_in_errors=True):
    """A search with a name.

    Attributes:
        name: its name in the list.
        q: the query.
        since: start of the range, ``from`` in the file; empty for the last day that has events.
        until: end of the range, ``to`` in the file.
        by: field that divides the bars over time.
        cols: further columns of the list, with commas between them.
        note: a sentence about its use.
    """

    name: str = Field(min_length=1, max_length=100)
    q: str = ""
    since: str = Field("", alias="from")
    until: str = Field("", alias="to")
    by: str = "event_level"
    cols: str = ""
    note: str = Field("", max_length=500)

    @field_validator("q")
    @classmethod
    def _is_query(cls, text: str) -> str:
        try:
            parse(text)
        except ObsError as error:
            raise ValueError(str(error)) from None
        return text

    @field_validator("since", "until", mode="before")
    @classmethod
    def _is_moment(cls, written: object) -> str:
        # YAML reads 2025-12-04 as a date.
        text = written.isoformat() if hasattr(written, "isoformat") else str(written)
        if text:
            try:
                moment(text, _A_MOMENT)
            except ConfigurationError as error:
                raise ValueError(str(error)) from None
        return text


class SavedSearches(BaseModel, frozen=True, extra="forbid", hide_input_in_errors=True):
    """The file.

    Attributes:
        searches: in the order of the list.
    """

    searches: tuple[SavedSearch, ...] = ()


def read_searches(path: Path) -> SavedSearches:
    """The searches of a file; none if there is no file.

    Raises:
        ConfigurationError: the file is wrong; the message says file, line and field.
    """
    if not path.exists():
        return SavedSearches()
    document, values = read_yaml(path)
    try:
        return SavedSearches.model_validate(values or {})
    except ValidationError as error:
        problems = []
        for details in error.errors():
            place = ".".join(map(str, details["loc"]))
            problem = details["msg"].removeprefix("Value error, ")
            if details["type"] == "extra_forbidden":
                known = [
                    field.alias or name for name, field in SavedSearch.model_fields.items()
                ]
                problem = f"unknown option; there are {', '.join(known)}"
            line = line_of(document, details["loc"])
            problems.append(f"{path}:{line}: {place or 'the file'}: {problem}")
        raise ConfigurationError("\n".join(problems)) from None
