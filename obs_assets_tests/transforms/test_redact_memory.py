"""What the redactor remembers is bounded."""

from obs_assets.transforms.redact import memory
from obs_assets.transforms.redact.memory import Memory, Remembered


def test_a_memory_holds_no_more_than_its_bound() -> None:
    """However many values an hour has."""
    held: Memory[int, str] = Memory()
    sizes = {
        len(held)
        for number in range(2 * memory.MOST + 5)
        if held.remember(number, "outcome", 1)
    }
    assert max(sizes) == memory.MOST
    assert held[2 * memory.MOST + 4] == "outcome"


def test_an_outcome_is_computed_once_and_that_of_a_long_text_is_not_kept() -> None:
    """A long text would fill memory, and hardly comes twice."""
    asked: list[str] = []
    lengths = Remembered(lambda text: asked.append(text) or len(text))
    short, long = "x" * memory.LONGEST, "x" * (memory.LONGEST + 1)
    assert [lengths[short], lengths[short], lengths[long], lengths[long]] == [
        1_000,
        1_000,
        1_001,
        1_001,
    ]
    assert asked == [short, long, long]
    assert list(lengths) == [short]
