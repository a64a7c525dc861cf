"""Separates words from random text by pairs of letters.

Entropy is not enough: digests and long names have as much entropy as tokens.
"""

import itertools
import re

_COSTS = [
    "533345354642326372324455454",
    "244424552462552563353656463",
    "254425523733552463423667453",
    "244314452564443563343555463",
    "353244454653324452235453554",
    "244422562663552573433666472",
    "254525332753433572343556464",
    "255525652654442573433657463",
    "343334366543313463236475645",
    "255425653335542476352536354",
    "254415542653442563343546464",
    "244425552652452475333567364",
    "235525662764352265343566464",
    "253224253545543565224467555",
    "443354454543324372333345656",
    "254425533852552362334557374",
    "454444554862445453341556654",
    "254425462644342473334457455",
    "353525532744453355223556454",
    "254525632764552472334556354",
    "333434463652325372326565653",
    "154515562765443474455564564",
    "254425632754533573245655574",
    "353434753665455375425464461",
    "243424453643333264234545443",
    "255415542644443465444555434",
    "443343666666666576556676770",
]
"""Cost of a pair of characters. The row is the first character, the column the second: a to z, then all digits.

The cost is minus the natural logarithm of the frequency with which the second character follows the first, in 500,000
identifiers of Python packages.
"""

_DIGITS = 26
_RANDOM_COST = 3.15
"""Mean cost of a pair above which a text is random.

1 name in 25 lies above it. Of random runs of 20 letters and digits, 99 in 100 lie above it.
"""

_ALPHANUMERIC = re.compile(r"[^0-9A-Za-z]+")
_HEX = re.compile(r"(?:[0-9a-f]+|[0-9A-F]+)\Z")


def _row(character: str) -> int:
    return _DIGITS if character.isdecimal() else ord(character) - ord("a")


_COST_OF = {
    first + second: int(_COSTS[_row(first)][_row(second)])
    for first in "abcdefghijklmnopqrstuvwxyz0123456789"
    for second in "abcdefghijklmnopqrstuvwxyz0123456789"
    # The number of digits does not show whether a text is random
    if not (first.isdecimal() and second.isdecimal())
}


def is_random(text: str) -> bool:
    """Whether the sequence of letters and digits is unlike any word: ``kD93hf2QzL`` is random, ``tokenizer_v2`` is not.

    Only ASCII letters and digits count; upper and lower case are equal. Digits alone are not random.
    """
    folded = _ALPHANUMERIC.sub("", text).lower()
    costs = [
        _COST_OF[pair] for pair in map("".join, itertools.pairwise(folded)) if pair in _COST_OF
    ]
    return bool(costs) and sum(costs) > _RANDOM_COST * len(costs)


def is_hex(text: str) -> bool:
    """Whether a text has only hexadecimal digits in the same case, as digests and ids have."""
    return _HEX.match(text) is not None
