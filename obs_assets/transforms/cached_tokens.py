"""Tokens that a provider read from its cache or wrote to it, in the objects `tokens_used` and `token_usage`.

Providers count them in two ways. *Inside*: ``input_tokens`` includes them. *Beside*: ``input_tokens`` includes only
the tokens that were not in the cache. The name of the field decides; `COUNTS` is the table of names. A count of
unknown place or under another name, or a count that contradicts another count, is *unclear*: then there is no cost
estimate.

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


def counts_sql(objects: Sequence[str], counted: Callable[[str], str]) -> str:
    """SQL: the numbers of `COUNTS`, a list, of the first of these objects with the word ``cache``; else NULL.

    A field that is not there is 0, one that is no number of tokens is NULL.

    Args:
        objects: SQL of each object's JSON text.
        counted: SQL of a number of tokens, from SQL of a JSON text; NULL where it is none.
    """
    paths = ", ".join(_json_path(count.path) for count in COUNTS)
    lists = [
        f"""CASE WHEN contains(lower({text}), 'cache') THEN CASE WHEN {_has_others(text)}
        THEN ['"unclear"'] ELSE json_extract({text}, [{paths}])::VARCHAR[] END END"""
        for text in objects
    ]
    number = f"CASE WHEN coalesce(x, 'null') = 'null' THEN 0 ELSE {counted('x')} END"
    return f"list_transform(coalesce({', '.join(lists)}), lambda x: {number})"


def _has_others(text: str) -> str:
    """SQL: whether an object counts cached tokens in a field that is not in `COUNTS`, at any depth."""
    names = f"regexp_extract_all({text}, {_COUNTED}, 1)"
    unknown = f"len(list_filter({names}, lambda name: NOT regexp_matches(name, '{_NO_COUNT}')))"
    paths = ", ".join(_json_path(count.path) for count in COUNTS)
    numbers = f"json_extract_string({text}, [{paths}])"
    known = f"len(list_filter({numbers}, lambda x: try_cast(x AS DOUBLE) > 0))"
    return f"({unknown} > {known} OR regexp_matches({text}, {_IN_OBJECT}))"


_COUNTED = r"""'"([^"]*(?i:cache)[^"]*)"\s*:\s*"?[0-9.]*[1-9]'"""
"""Name of a field with a number above 0 and the word ``cache``."""
_NO_COUNT = (
    "(?i)cost|usd|price|rate|ratio|perc|pct|ttl|time|second|hits?$|request|size|bytes|_ms$"
)
"""Names of such fields that count no tokens."""
_IN_OBJECT = r"""'"cache"\s*:\s*\{[^{}]*:\s*[0-9.]*[1-9]'"""
"""An object ``cache`` with a number above 0."""


def _json_path(path: str) -> str:
    """SQL text of a JSON path, from names with dots between them."""
    names = "".join(f'."{name}"' for name in path.split("."))
    return f"'${names}'"


def columns(counts: str = "cached_counts") -> dict[str, str]:
    """Column → its SQL, over the column of `counts_sql`.

    ``cached_inside_read``, ``cached_beside_write`` and so on: tokens, NULL without a count.
    ``cached_contradicts``: whether a count is not a number, has no known place, or differs from another count
    of its kind.

    Args:
        counts: name of the column with the list of `counts_sql`.
    """
    numbers = {
        count: f"nullif({counts}[{place}], 0)" for place, count in enumerate(COUNTS, start=1)
    }
    wrong = [f"list_count({counts}) < {len(COUNTS)}"]
    wrong += [f"{numbers[count]} IS NOT NULL" for count in COUNTS if count.place == "unknown"]
    found = {}
    for kind, place in itertools.product(KINDS, ("inside", "beside")):
        alike = ", ".join(
            numbers[count] for count in COUNTS if (count.kind, count.place) == (kind, place)
        )
        found[f"cached_{place}_{kind}"] = f"greatest({alike})"
        wrong.append(f"greatest({alike}) <> least({alike})")
    any_wrong = " OR ".join(f"coalesce({condition}, false)" for condition in wrong)
    contradicts = f"CASE WHEN {counts} IS NULL THEN false ELSE {any_wrong} END"
    return {**found, "cached_contradicts": contradicts}


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
