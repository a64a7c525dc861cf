"""Caches of results, since values, keys and paths repeat. Their size has a bound, since any text may arrive."""

from collections.abc import Callable
from typing import TypeVar

_Key = TypeVar("_Key")
_Outcome = TypeVar("_Outcome")

MOST = 1 << 15
"""Outcomes in a memory: 70 MB with the longest texts. A full memory is emptied."""

LONGEST = 1_000
"""Characters of a text whose outcome is remembered. Longer texts rarely repeat."""


class Memory(dict[_Key, _Outcome]):
    """The last outcomes, at most `MOST`."""

    def remember(self, key: _Key, outcome: _Outcome, length: int) -> _Outcome:
        """Remember an outcome, and return it.

        Args:
            key: the key of the outcome.
            outcome: the outcome.
            length: characters of the text; above `LONGEST` nothing is remembered.
        """
        if length <= LONGEST:
            if len(self) >= MOST:
                self.clear()
            self[key] = outcome
        return outcome


class Remembered(Memory[str, _Outcome]):
    """The results of a function by its argument, a text; a missing result is computed."""

    def __init__(self, function: Callable[[str], _Outcome]) -> None:
        super().__init__()
        self.function = function

    def __missing__(self, text: str) -> _Outcome:
        return self.remember(text, self.function(text), len(text))
