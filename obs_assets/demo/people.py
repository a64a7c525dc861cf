"""Personal data and secrets of invented people, for sample events.

No value belongs to a real person: example domains, phone numbers 555-01xx, card prefixes of tests, the
social security number that was printed on wallet cards, IP addresses reserved for documentation.
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
_PHONES = ("+1 {}-555-01{:02}", "({}) 555-01{:02}", "{}-555-01{:02}", "+1{}55501{:02}")
_ALPHANUMERIC = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"


@dataclass(frozen=True)
class Person:
    """An invented person, with a value of each kind that redaction looks for."""

    email: str
    phone: str
    ssn: str
    card: str
    ip: str
    password: str
    api_key: str

    def values(self) -> tuple[str, ...]:
        """The values that must not be seen after redaction."""
        return astuple(self)


def make_people(number: int, rng: random.Random) -> list[Person]:
    """Invent ``number`` people, at most 90. No two of them share a value."""
    return [_make_person(index, rng) for index in range(number)]


def _make_person(index: int, rng: random.Random) -> Person:
    # Prefixes that payment services reserve for tests; without a right check digit it is no card.
    card = _with_check_digit(f"{rng.choice(('411111', '424242', '555555'))}{index:09}")
    first, last = rng.choice(_FIRST), rng.choice(_LAST)
    domain = rng.choice(("example.com", "mail.example.org", "example.net"))
    phone = rng.choice(_PHONES)
    area = rng.choice((212, 312, 415, 617))
    separator = rng.choice(("", " ", "-"))
    card_groups = [card[start : start + 4] for start in range(0, len(card), 4)]
    network = rng.choice(("203.0.113", "198.51.100"))
    password = _random_text(rng, 6)
    api_key = rng.choice(("sk-demo{}", "ghp_{}", "glpat-{}"))
    return Person(
        email=f"{first}.{last}{index}@{domain}",
        phone=phone.format(area, index),
        ssn=f"078-05-{1121 + index}",
        card=separator.join(card_groups),
        ip=f"{network}.{100 + index}",
        password=f"Tr0ub4dor-{password}",
        api_key=api_key.format(_random_text(rng, 36)),
    )


def _with_check_digit(digits: str) -> str:
    """The digits and a check digit: together they pass the Luhn test."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        factor = 2 - index % 2
        # The sum of the digits of the product, for example 8 * 2 = 16 → 1 + 6.
        total += sum(divmod(int(digit) * factor, 10))
    return f"{digits}{-total % 10}"


def _random_text(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(_ALPHANUMERIC, k=length))
