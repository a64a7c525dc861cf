"""What was found out is remembered, since values, keys and paths repeat; within bounds, since events are anybody's."""

from collections.abc import Callable
from typing import TypeVar

_Key = TypeVar("_Key")
_Outcome = TypeVar("_Outcome")

MOST = 1 << 15
"""Outcomes in one memory, which with the longest texts are 70 MB. A memory that is full starts anew."""

LONGEST = 1_000
"""Characters of a text whose outcome is remembered: longer ones repeat rarely."""


class Memory(dict[_Key, _Outcome]):
    """The last outcomes, `MOST` of them."""

    def remember(self, key: _Key, outcome: _Outcome, length: int) -> _Outcome:
        """Remember an outcome, unless what it is of has more than `LONGEST` characters; returns it."""
        if length <= LONGEST:
            if len(self) >= MOST:
                self.clear()
            self[key] = outcome
        return outcome


class Remembered(Memory[str, _Outcome]):
    """What a function says of a text, looked up by it."""

    def __init__(self, function: Callable[[str], _Outcome]) -> None:
        super().__init__()
        self.function = function

    def __missing__(self, text: str) -> _Outcome:
        return self.remember(text, self.function(text), len(text))
