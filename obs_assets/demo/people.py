"""Personal data and secrets of people that do not exist, for sample events.

All of it is made up and none of it can reach anybody: example domains, 555-01xx numbers, test card prefixes, the
social security number that was printed on wallet cards, addresses reserved for documentation.
"""

import random
from dataclasses import astuple, dataclass

_FIRST = (
    "maria",
    "jonas",
    "aiko",
    "priya",
    "tomas",
    "zola",
    "erik",
    "fatima",
    "liam",
    "irene",
    "noah",
    "mei",
)
_LAST = (
    "lopez",
    "berg",
    "tanaka",
    "shah",
    "novak",
    "dube",
    "lind",
    "haddad",
    "walsh",
    "costa",
    "okafor",
    "chen",
)
_ALPHANUMERIC = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"


@dataclass(frozen=True)
class Person:
    """Somebody, with one value of each kind that redaction looks for."""

    email: str
    phone: str
    ssn: str
    card: str
    ip: str
    password: str
    api_key: str

    def values(self) -> tuple[str, ...]:
        """Everything that must not be seen after redaction."""
        return astuple(self)


def make_people(number: int, rng: random.Random) -> list[Person]:
    """So many people, no two of whom share a value; at most 90."""
    return [_make_person(index, rng) for index in range(number)]


def _make_person(index: int, rng: random.Random) -> Person:
    card = _with_check_digit(f"{rng.choice(('411111', '424242', '555555'))}{index:09}")
    first, last = rng.choice(_FIRST), rng.choice(_LAST)
    return Person(
        email=f"{first}.{last}{index}@{rng.choice(('example.com', 'mail.example.org', 'example.net'))}",
        phone=rng.choice(
            ("+1 {}-555-01{:02}", "({}) 555-01{:02}", "{}-555-01{:02}", "+1{}55501{:02}")
        ).format(rng.choice((212, 312, 415, 617)), index),
        ssn=f"078-05-{1121 + index}",
        card=rng.choice(("", " ", "-")).join(
            card[start : start + 4] for start in range(0, len(card), 4)
        ),
        ip=f"{rng.choice(('203.0.113', '198.51.100'))}.{100 + index}",
        password=f"Tr0ub4dor-{_random_text(rng, 6)}",
        api_key=rng.choice(("sk-demo{}", "ghp_{}", "glpat-{}")).format(_random_text(rng, 36)),
    )


def _with_check_digit(digits: str) -> str:
    """Digits and the one that makes them pass the Luhn test."""
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(digits))]
    return f"{digits}{-sum(value - 9 if value > 9 else value for value in doubled) % 10}"  # noqa: PLR2004 (two digits)


def _random_text(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(_ALPHANUMERIC, k=length))
