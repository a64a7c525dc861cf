"""Tokens that a provider read from its cache or wrote to it, in the objects `tokens_used` and `token_usage`.

Providers count them in two ways. *Inside*: ``input_tokens`` includes them. *Beside*: ``input_tokens`` includes only
the tokens that were not in the cache. The name of the field decides; `COUNTS` is the table of names. A count of
unknown place, or a count that contradicts another count, is *unclear*: then there is no cost estimate.

The functions build SQL over columns of `obs_assets.transforms.enrich`.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Kind = Literal["read", "write"]
KINDS: tuple[Kind, ...] = ("read", "write")

Place = Literal["inside", "beside", "unknown"]


class Count(NamedTuple):
    """A field that counts cached tokens.

    Attributes:
        path: path of the field in its object: names with dots between them.
        kind: tokens read from the cache, or written to it.
        place: whether ``input_tokens`` includes them.
    """

    path: str
    kind: Kind
    place: Place


COUNTS = (
    Count("cache_read_input_tokens", "read", "beside"),  # Anthropic
    Count("cache_creation_input_tokens", "write", "beside"),
    Count("cacheReadInputTokens", "read", "beside"),  # Amazon Bedrock
    Count("cacheWriteInputTokens", "write", "beside"),
    Count("input_tokens_details.cached_tokens", "read", "inside"),  # OpenAI: Responses
    Count("prompt_tokens_details.cached_tokens", "read", "inside"),  # OpenAI: Chat Completions
    Count("input_token_details.cache_read", "read", "inside"),  # LangChain
    Count("input_token_details.cache_creation", "write", "inside"),
    Count("cached_input_tokens", "read", "inside"),  # OpenAI Codex
    Count("cachedInputTokens", "read", "inside"),  # Vercel AI SDK
    Count("prompt_cache_hit_tokens", "read", "inside"),  # DeepSeek
    Count("cached_content_token_count", "read", "inside"),  # Gemini
    Count("cachedContentTokenCount", "read", "inside"),
    Count("cached_tokens", "read", "unknown"),
    Count("cache_read_tokens", "read", "unknown"),
    Count("cache_write_tokens", "write", "unknown"),
    Count("cache_creation_tokens", "write", "unknown"),
)
"""The names of the fields. Each contains the word ``cache``; objects without that word are skipped."""


def found_sql(objects: Sequence[str]) -> str:
    """SQL: the JSON texts of `COUNTS` in the first of these objects that has each; NULL if none has any.

    Args:
        objects: SQL of each object's JSON text.
    """
    paths = ", ".join(_json_path(count.path) for count in COUNTS)
    lists = [
        f"CASE WHEN contains({text}, 'cache') THEN json_extract({text}, [{paths}]) END"
        for text in objects
    ]
    return f"[{', '.join(lists)}]"


def _json_path(path: str) -> str:
    """SQL text of a JSON path, from names with dots between them."""
    names = "".join(f'."{name}"' for name in path.split("."))
    return f"'${names}'"


def columns(
    counted: Callable[[str], str], objects: int, found: str = "cached_found"
) -> dict[str, str]:
    """Column → its SQL, over the columns of `found_sql`.

    ``cached_inside_read``, ``cached_beside_write`` and so on: tokens, NULL without a count.
    ``cached_contradicts``: whether a count is not a number, has no known place, or differs from another count
    of its kind.

    Args:
        counted: makes SQL of a number of tokens from SQL of a JSON text; NULL where the text is not a number.
        objects: number of objects that were searched.
        found: name of the column with the lists of `found_sql`.
    """
    texts = [_text(found, row, objects) for row in range(1, len(COUNTS) + 1)]
    numbers = {
        count: f"nullif({counted(text)}, 0)" for count, text in zip(COUNTS, texts, strict=True)
    }
    wrong = [f"({text} IS NOT NULL AND {counted(text)} IS NULL)" for text in texts]
    wrong += [f"{numbers[count]} IS NOT NULL" for count in COUNTS if count.place == "unknown"]
    lists = " OR ".join(f"{found}[{number}] IS NOT NULL" for number in range(1, objects + 1))
    found_columns = {}
    for kind, place in itertools.product(KINDS, ("inside", "beside")):
        alike = ", ".join(
            numbers[count] for count in COUNTS if (count.kind, count.place) == (kind, place)
        )
        found_columns[f"cached_{place}_{kind}"] = (
            f"CASE WHEN {lists} THEN greatest({alike}) END"
        )
        wrong.append(f"greatest({alike}) <> least({alike})")
    any_wrong = " OR ".join(f"coalesce({condition}, false)" for condition in wrong)
    contradicts = f"CASE WHEN {lists} THEN {any_wrong} ELSE false END"
    return {**found_columns, "cached_contradicts": contradicts}


def _text(found: str, row: int, objects: int) -> str:
    """SQL: the JSON text of a row of `COUNTS` in the first object that has it; NULL for null."""
    texts = [f"nullif({found}[{number}][{row}], 'null')" for number in range(1, objects + 1)]
    return f"coalesce({', '.join(texts)})"


def is_unclear(input_count: str) -> str:
    """SQL: whether the cost cannot be estimated, since the place of cached tokens is not clear.

    Args:
        input_count: SQL of the input tokens; NULL if they are not counted.
    """
    both = [
        f"coalesce(cached_inside_{kind} IS NOT NULL AND cached_beside_{kind} IS NOT NULL, false)"
        for kind in KINDS
    ]
    inside = "coalesce(cached_inside_read, 0) + coalesce(cached_inside_write, 0)"
    return (
        f"(cached_contradicts OR {' OR '.join(both)} OR {inside} > coalesce({input_count}, 0))"
    )
