"""Events whose words and values nobody here wrote: sentences of presidio-research, values of Faker in many locales.

Two sets for bench/privacy.py. ``presidio``: the sentence templates that Microsoft's presidio-research ships (PyPI wheel
`presidio-evaluator`, MIT licence, read as it is), filled in by Faker. ``faker``: values of Faker between its sentences,
in the locales in which it knows phone numbers and bank accounts. Look-alikes are Faker's, too.
"""

import json
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faker import Faker

WHEEL = "presidio_evaluator-*.whl"
TEMPLATES = "presidio_evaluator/data_generator/raw_data/templates.txt"
ENTITY = re.compile(r"\{\{(\w+)\}\}")
OURS = {
    "credit_card_number": "credit_card",
    "phone_number": "phone",
    "email": "email",
    "iban": "iban",
    "ssn": "ssn",
    "ip_address": "ip_address",
}
PHONE_LOCALES = (
    "en_US",
    "en_GB",
    "en_CA",
    "en_AU",
    "en_IN",
    "de_DE",
    "de_AT",
    "fr_FR",
    "it_IT",
    "nl_NL",
    "sv_SE",
)
BRITISH_IBAN = 22
LOCALES = (
    *PHONE_LOCALES,
    "es_ES",
    "pt_BR",
    "pl_PL",
    "no_NO",
    "da_DK",
    "fi_FI",
    "de_CH",
    "ja_JP",
    "he_IL",
)


@dataclass
class Foreign:
    """An event, the values planted in it as (type, forms that may not be left), and what must survive."""

    text: str
    planted: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    alike: list[str] = field(default_factory=list)


def sets(data: Path, events: int, seed: int = 13) -> dict[str, list[Foreign]]:
    """The sets that there are; the wheel is looked for in ``data``."""
    Faker.seed(seed)
    r = random.Random(seed)
    found = {"faker": list(between_sentences(r, events))}
    for wheel in sorted(data.glob(WHEEL)):
        templates = (
            zipfile.ZipFile(wheel).read(TEMPLATES).decode("utf-8", "replace").splitlines()
        )
        found["presidio"] = list(
            filled_in(r, [line for line in templates if line.strip()], events)
        )
    return found


def between_sentences(r: random.Random, events: int) -> Iterator[Foreign]:
    fakes = {locale: Faker(locale) for locale in LOCALES}
    makers: dict[str, Callable[[Faker], str]] = {
        "email": lambda fake: fake.email(),
        "phone": lambda fake: fake.phone_number(),
        "ssn": lambda _: fakes["en_US"].ssn(),
        "credit_card": lambda fake: fake.credit_card_number(),
        "iban": lambda fake: fake.iban(),
        "ip_address": lambda fake: r.choice([fake.ipv4(), fake.ipv4_public(), fake.ipv6()]),
        "mac_address": lambda fake: fake.mac_address(),
    }
    for number in range(events):
        if r.random() >= 0.45:
            yield event(r, number, fakes["en_US"].sentence(), [])
            continue
        type_ = r.choice(list(makers))
        fake = fakes[r.choice(PHONE_LOCALES if type_ == "phone" else LOCALES)]
        value = makers[type_](fake)
        while (
            value[:2] == "GB" and len(value) != BRITISH_IBAN
        ):  # Faker's are a digit short: no accounts
            value = makers[type_](fake)
            fake = fakes["de_DE"]
        before = "Call me at " if type_ == "phone" else f"{fakes['en_US'].sentence()} "
        yield event(
            r, number, f"{before}{value}, {fakes['en_US'].sentence()}", [(type_, (value,))]
        )


def filled_in(r: random.Random, templates: list[str], events: int) -> Iterator[Foreign]:
    fake = Faker("en_US")
    others: dict[str, Callable[[], str]] = {
        "person": fake.name,
        "organization": fake.company,
        "age": lambda: str(r.randrange(18, 99)),
        "nationality": fake.country,
        "ip_address": lambda: r.choice([fake.ipv4(), fake.ipv6()]),
        "phone_number": lambda: (
            Faker(r.choice(["en_US", "en_GB", "de_DE", "fr_FR"])).phone_number()
            if r.random() < 0.1
            else fake.phone_number()
        ),
    }
    for number in range(events):
        planted: list[tuple[str, tuple[str, ...]]] = []

        def fill(
            match: re.Match[str], planted: list[tuple[str, tuple[str, ...]]] = planted
        ) -> str:
            entity = match[1]
            value = str(others.get(entity, getattr(fake, entity, fake.word))())
            if entity in OURS:
                planted.append((OURS[entity], (value,)))
            return value

        sentence = ENTITY.sub(fill, r.choice(templates)).replace("\\n", "\n")
        yield event(r, number, sentence, planted)


def event(
    r: random.Random, number: int, message: str, planted: list[tuple[str, tuple[str, ...]]]
) -> Foreign:
    fake = _ALIKE
    makers = (
        fake.uuid4, fake.md5, fake.sha1, fake.sha256, fake.user_agent, fake.iso8601, fake.ean13, fake.isbn13,
        fake.hostname, fake.file_path, fake.slug, lambda: str(fake.unix_time()), lambda: str(fake.port_number()),
        lambda: str(fake.pyfloat()), lambda: f"v{fake.numerify('#.##.#')}", fake.linux_processor, fake.color,
        lambda: fake.bothify("??######"), lambda: fake.time_object().isoformat(), fake.http_method, fake.uri_path,
    )  # fmt: skip
    alike = [str(r.choice(makers)()) for _ in range(r.randrange(4))]
    told = {
        "id": number,
        "type": "note",
        "message": message,
        **{f"ref{n}": text for n, text in enumerate(alike)},
    }
    return Foreign(json.dumps(told, ensure_ascii=False), planted, alike)


_ALIKE = Faker("en_US")
