#!/usr/bin/env python3
# ruff: noqa: E501, RUF005 - tables of templates read best one a line
"""Measure what the redactor finds and what it leaves alone, beside seven regular expressions of the original's kinds.

Sets of synthetic events with planted values and look-alikes, made anew from a seed: `tuned`, whose forms the rules were
written with in view; `held out`, with other words, sentences and formats; `faker` and `presidio`, whose words or values
nobody here wrote (see foreign.py). A value is found if neither it nor the form in which it was planted is left anywhere
in the event. Exits 1 below the promised figures on the tuned set.

    python bench/privacy.py [--events N] [--missed] [--public DIR]

With ``--public``, suites of other projects are measured too, from a folder that the reader fills (see public.py). It
prints which suites are missing, and no text of any.
"""

import argparse
import base64
import json
import math
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import foreign
import public
from foreign import Foreign as Made
from place import DATA
from rich.console import Console
from rich.table import Table

from obs_assets.audit.leftovers import Scanner, Scope
from obs_assets.transforms.redact import RedactConfig, redact_text, redact_texts

out = Console()
R = random.Random
ALNUM = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789"
SURVIVES_AT_MOST = {
    "tuned": (0.99, 0.97, 0.001, 0.005),
    "held out": (0.99, 0.97, 0.003, 0.005),
    "faker": (0.99, 0.97, 0.003, 0.005),
    "presidio": (0.99, 0.97, 0.003, 0.005),
}
"""Least recall in all and of a type; most look-alikes and events without personal data that are altered."""


# --- Values ----------------------------------------------------------------------------------------------------------


def some(r: R, alphabet: str, n: int) -> str:
    return "".join(r.choices(alphabet, k=n))


def digits(r: R, n: int) -> str:
    return some(r, "0123456789", n)


def token(r: R, n: int) -> str:
    """A random secret that certainly has a digit and a letter."""
    return some(r, ALNUM, n - 2) + some(r, "abcdefgh", 1) + some(r, "23456789", 1)


def with_check_digit(number: str) -> str:
    total = sum(
        int(d) if i % 2 else sum(divmod(int(d) * 2, 10)) for i, d in enumerate(reversed(number))
    )
    return number + str(-total % 10)


def card(r: R) -> str:
    prefix, length = r.choice(
        [
            ("4", 16),
            ("4", 16),
            ("4", 13),
            ("51", 16),
            ("2223", 16),
            ("34", 15),
            ("37", 15),
            ("6011", 16),
            ("3530", 16),
        ]
        + [
            ("305", 14),
            ("38", 14),
            ("5018", 12),
            ("6304", 12),
            ("6759", 16),
            ("2131", 15),
            ("62", 16),
            ("4", 19),
        ]
    )
    number = with_check_digit(prefix + digits(r, length - len(prefix) - 1))
    groups = (
        [number[:4], number[4:10], number[10:]]
        if length in (14, 15)
        else re.findall(".{1,4}", number)
    )
    if length in (13, 19):
        return number
    return r.choice([number, "-".join(groups), " ".join(groups)])


def iban(r: R) -> str:
    country, bank = r.choice(
        [("DE", digits(r, 18)), ("GB", "WEST" + digits(r, 14)), ("FR", digits(r, 23))]
    )
    if r.random() < 0.4:
        country, bank = r.choice(
            [("NL", "ABNA" + digits(r, 10)), ("NO", digits(r, 11)), ("ES", digits(r, 20))]
        )
    check = 98 - int("".join(str(int(c, 36)) for c in f"{bank}{country}00")) % 97
    whole = f"{country}{check:02d}{bank}"
    return r.choice([whole, " ".join(re.findall(".{1,4}", whole))])


def mac(r: R) -> str:
    pairs = [f"{r.randrange(256):02x}" for _ in range(5)] + [f"a{r.randrange(10)}"]
    joined = "".join(pairs)
    text = r.choice(
        [":".join(pairs), "-".join(pairs), f"{joined[:4]}.{joined[4:8]}.{joined[8:]}"]
    )
    return r.choice([text, text.upper()])


def ipv4(r: R) -> str:
    return f"{r.randrange(11, 224)}.{r.randrange(256)}.{r.randrange(256)}.{r.randrange(1, 255)}"


def ipv6(r: R) -> str:
    groups = [f"{r.randrange(4096, 65536):x}" for _ in range(8)]
    return r.choice(
        [
            ":".join(["2001", "db8", *groups[:6]]),
            f"2001:db8::{groups[0]}:1{groups[1][1:]}",
            f"fe80::{groups[2]}:1",
        ]
    )


def ssn(r: R) -> str:
    return f"{r.randrange(100, 665)}-{r.randrange(10, 99)}-{r.randrange(1000, 9999)}"


def api_key(r: R) -> str:
    return r.choice(
        [
            "sk-" + token(r, 40),
            "sk-ant-" + "api03-" + token(r, 60),
            "AK" + "IA" + some(r, "ABCDEFGHJKLMNPQR234567", 16),
        ]
        + [
            "gh" + "p_" + token(r, 36),
            "glp" + "at-" + token(r, 20),
            "xo" + "xb-" + digits(r, 12) + "-" + token(r, 24),
        ]
        + [
            "sk_" + "live_" + token(r, 24),
            "AI" + "za" + token(r, 35),
            "npm" + "_" + token(r, 36),
            "py" + "pi-" + token(r, 60),
        ]
        + ["ey" + "J" + token(r, 20) + "." + "ey" + "J" + token(r, 40) + "." + token(r, 43)]
    )


@dataclass(frozen=True)
class Words:
    """What the two sets do not share."""

    people: list[str]
    domains: list[str]
    phones: list[Callable[[R], str]]
    sentences: dict[str, list[str]]
    passwords: list[str]
    alike: list[Callable[[R], str]]
    plain: list[str]
    keys: list[str]


def hexes(n: int) -> Callable[[R], str]:
    return lambda r: some(r, "0123456789abcdef", n)


def uuid(r: R) -> str:
    return "-".join(some(r, "0123456789abcdef", n) for n in (8, 4, 4, 4, 12))


def failing_luhn(r: R) -> str:
    right = with_check_digit("4" + digits(r, 14))
    return right[:-1] + str((int(right[-1]) + r.randrange(1, 10)) % 10)


TUNED = Words(
    people=["ana.silva", "ben.okafor", "chloe_meyer", "d.tanaka+ops", "jörg.novak", "用户.kim"],
    domains=["example.com", "mail.example.org", "example.co.uk", "пример.рф"],
    phones=[
        lambda r: f"({r.randrange(201, 989)}) {r.randrange(200, 999)}-{digits(r, 4)}",
        lambda r: f"{r.randrange(201, 989)}-{r.randrange(200, 999)}-{digits(r, 4)}",
        lambda r: f"+1{r.randrange(201, 989)}{r.randrange(200, 999)}{digits(r, 4)}",
        lambda r: f"+44 20 {digits(r, 4)} {digits(r, 4)}",
        lambda r: f"020 7{digits(r, 3)} {digits(r, 4)}",
        lambda r: "0" + str(r.randrange(1, 8)) + "".join(f" {digits(r, 2)}" for _ in range(4)),
    ],
    sentences={
        "email": ["contact {} about the build", "mailto:{}", "from <{}> to all", "user={} logged in"],
        "phone": ["callback requested at {}", "tel {}", "customer called from {}.", "phone: {}"],
        "ssn": ["ssn on file {}", "{}", "applicant {} verified"],
        "credit_card": ["payment with card {} was declined", "charged {}", "pan={}"],
        "ip_address": ["request from {} took longer", "peer [{}] closed", "src={} dst=internal", "{}"],
        "iban": ["transfer to {} done", "iban {}", "account={}"],
        "mac_address": ["lease for {} renewed", "mac {}", "hw={} up"],
        "api_key": ["using key {}", "Authorization: Bearer {}", "{}", "key={} rejected"],
    },
    passwords=["password={}", "--password {}", "PGPASSWORD={} psql", "passwd: {}", "password is {}", "pwd={};x=1",
               '{{"password": "{}"}}', "postgres://bob:{}@db/app", "GET /x?access_token={}&y=1"],
    alike=[
        lambda r: f"2025-{r.randrange(1, 13):02d}-{r.randrange(1, 29):02d}T{r.randrange(24):02d}:10:{digits(r, 1)}7.828Z",
        lambda r: f"17640{digits(r, 5)}", lambda r: f"17640{digits(r, 8)}", uuid, hexes(32), hexes(16), hexes(40), hexes(64),
        lambda r: f"v{r.randrange(9)}.{r.randrange(30)}.{r.randrange(9)}", lambda r: f"version 1.{digits(r, 1)}.3.4",
        lambda r: f"Chrome/12{digits(r, 1)}.0.0.0", failing_luhn, lambda r: f"ord-{digits(r, 10)}",
        lambda r: f"/var/log/app-{digits(r, 6)}.log", lambda r: f"localhost:{r.randrange(1024, 65000)}",
        lambda r: f"api-7d9f8b6c5-x{some(r, 'bcdfghjk', 4)}", lambda r: f"@property_{digits(r, 3)}",
        lambda r: f"lodash@4.17.{r.randrange(30)}", lambda r: f"git@github.com:org/repo{digits(r, 3)}",
        lambda r: f"max_tokens={r.randrange(4096)}", lambda r: f"build 2025.11.{digits(r, 1)}.1",
    ],
    plain=["cloned repository and resolved 214 dependencies", "all checks passed", "password: required", "queue depth is 12"],
    keys=["message", "note", "detail", "data", "text"],
)  # fmt: skip

HELD_OUT = Words(
    people=["m.garcia", "Priya_Nair", "lars-erik", "oconnor77", "x", "sales+eu"],
    domains=["acme.test.io", "uni-mail.de", "shop.example.com.br", "bücher.example"],
    phones=[
        lambda r: f"{r.randrange(201, 989)}.{r.randrange(200, 999)}.{digits(r, 4)}",
        lambda r: f"+49 (0) 30 {digits(r, 3)} {digits(r, 4)}",
        lambda r: f"(0{r.randrange(2, 9)}) {r.randrange(2, 9)}{digits(r, 3)} {digits(r, 4)}",
        lambda r: f"04{digits(r, 2)} {digits(r, 3)} {digits(r, 3)}",
        lambda r: f"07{digits(r, 1)} {digits(r, 3)} {digits(r, 2)} {digits(r, 2)}",
        lambda r: f"0043 1 {r.randrange(200, 999)} {digits(r, 4)}",
        lambda r: f"+91-{r.randrange(70000, 99999)}-{digits(r, 5)}",
    ],
    sentences={
        "email": ["Please write to {}, thanks!", "To: {}; Cc: none", "owner '{}' not found", "Could you forward it to {}?"],
        "phone": ["You can reach me at {} after 5 pm", "My mobile is {}", "I tried to call {} twice", "fax no. {}"],
        "ssn": ["My social security number is {}.", "SSN {} belongs to the claimant", "verify {}, please"],
        "credit_card": ["I lost my card {} yesterday", "Bitte {} belasten", "refund to {} please", "CC: {}; exp 09/27"],
        "ip_address": ["Failed login for root from {} port 22 ssh2", "blocked {} at the edge", "/{}:50010 connected"],
        "iban": ["Überweisung an {} ausgeführt", "IBAN: {}, BIC unknown", "pay into {}"],
        "mac_address": ["DHCPACK to ({}) via eth0", "device {} joined wlan0", "station={}, rssi -61"],
        "api_key": ["export API_KEY={}", "Got 401 with token {}", "x-api-key: {}", "curl -H 'Authorization: Bearer {}'"],
    },
    passwords=["My password is {}", "DB_PASSWORD: '{}'", "login failed, pass_word={}", "mongodb://root:{}@10-db/x",
               "secret={}", "client_secret: {}", "curl -u admin:{} http://x", "&refresh_token={}&z", "<password>{}</password>"],
    alike=[
        lambda r: f"{r.randrange(10, 28)}/Dec/2025:10:11:{r.randrange(10, 60)} +0000", lambda r: f"11178{digits(r, 5)} 2005.06.03",
        lambda r: f"blk_-{r.randrange(1, 9)}{digits(r, 18)}", lambda r: f"R{digits(r, 2)}-M1-N0-C:J12-U{digits(r, 2)}",
        lambda r: f"2025-06-03-15.42.{r.randrange(10, 60)}.{digits(r, 6)}", lambda r: f"sha256:{hexes(64)(r)}", uuid,
        lambda r: f"SKU-{digits(r, 3)}-{digits(r, 2)}-{digits(r, 4)}", lambda r: f"req_{some(r, ALNUM, 24)}",
        lambda r: f"took 0.{digits(r, 16)} s", lambda r: f"rev {hexes(7)(r)}", lambda r: f"jdk-17.0.{r.randrange(9)}+{r.randrange(9)}",
        lambda r: f"2025120410{digits(r, 4)}", failing_luhn, lambda r: f"pid={r.randrange(9, 99999)} tid={r.randrange(9, 99999)}",
        lambda r: f"std::map<int>::at+0x{hexes(6)(r)}", lambda r: f"10:{r.randrange(10, 60)}:{r.randrange(10, 60)},{digits(r, 3)}",
        lambda r: f"next_page_token={token(r, 20)}", lambda r: f"icon@2x.png?{r.randrange(99)}", lambda r: f"ticket #{digits(r, 8)}",
    ],
    plain=["GC pause 12 ms, heap 512M->200M", "Password must contain 8 characters", "token expired", "Accepted connection on port 8080"],
    keys=["msg", "log", "payload", "description", "body"],
)  # fmt: skip


def value_of(r: R, type_: str, words: Words) -> str:
    makers: dict[str, Callable[[R], str]] = {
        "email": lambda r: f"{r.choice(words.people)}{r.randrange(100)}@{r.choice(words.domains)}",
        "phone": lambda r: r.choice(words.phones)(r),
        "ssn": ssn, "credit_card": card, "iban": iban, "mac_address": mac, "api_key": api_key,
        "ip_address": lambda r: r.choice([ipv4, ipv4, ipv6])(r),
        "password": lambda r: token(r, r.randrange(8, 20)),
    }  # fmt: skip
    return makers[type_](r)


TYPES = (
    "email",
    "phone",
    "ssn",
    "credit_card",
    "ip_address",
    "iban",
    "mac_address",
    "api_key",
    "password",
)


def plant(r: R, words: Words, event: dict[str, object]) -> tuple[str, str, dict[str, object]]:
    """Hide one value somewhere; returns its type, the value, the event."""
    type_ = r.choice(TYPES)
    value = value_of(r, type_, words)
    key = r.choice(words.keys)
    templates = words.passwords if type_ == "password" else words.sentences[type_]
    sentence = r.choice(templates).format(value)
    encodable = type_ in ("email", "api_key") and value.isascii()
    place = r.choice(
        ["text"] * 8
        + ["nested", "list", "json", "json twice", "key", "number", "encoded", "base64", "wide"]
    )
    if place == "nested":
        event["ctx"] = {"a": {"b": [{key: sentence}]}}
    elif place == "list":
        event["items"] = ["first", sentence, 3]
    elif place == "json":
        event[key] = json.dumps({"inner": {"told": sentence}})
    elif place == "json twice":
        event[key] = json.dumps({"inner": json.dumps([sentence])})
    elif place == "key" and type_ not in ("password", "phone"):
        event["seen"] = {value: r.randrange(9)}
    elif place == "number" and type_ == "credit_card":
        value = re.sub("[ -]", "", value)
        event["card"] = int(value)
    elif place == "number" and type_ == "password":
        event["auth"] = {
            r.choice(["password", "client_secret", "api_key", "Authorization"]): value
        }
    elif place == "encoded" and encodable:
        event["url"] = f"/find?q={quote(value, safe='')}&page=2"
    elif place == "base64" and encodable:
        encode = r.choice([base64.b64encode, base64.urlsafe_b64encode])
        event["blob"] = (
            "x "
            + encode(
                r.choice(["{}", "user {} said so", '{{"v": "{}"}}']).format(value).encode()
            ).decode()
        )
    elif place == "wide" and type_ == "credit_card":
        event[key] = f"card {value.replace('-', chr(0x2011)).replace(' ', chr(0xA0))} seen"
    elif place == "wide" and type_ == "email" and value.isascii():
        event[key] = (
            f"write to {value.replace('@', r.choice(['&#64;', '&#x40;', chr(0xFF20)]))} now"
        )
    else:
        event[key] = sentence
    return type_, value, event


def make(r: R, words: Words, number: int) -> Made:
    event: dict[str, object] = {
        "id": f"evt-{number:010d}",
        "type": r.choice(["task_completed", "llm_call", "heartbeat"]),
        "level": r.choice(["info", "error", "debug"]),
        "timestamp": f"2025-12-04T10:{r.randrange(60):02d}:{r.randrange(60):02d}.{digits(r, 3)}Z",
        "trace_id": hexes(32)(r),
        "duration_ms": r.randrange(9999),
        "tokens_used": {"input_tokens": r.randrange(9000), "output_tokens": r.randrange(2500)},
    }
    alike = [r.choice(words.alike)(r) for _ in range(r.randrange(4))]
    for index, text in enumerate(alike):
        event[f"{r.choice(['ref', 'info', 'line'])}{index}"] = r.choice(
            ["{}", "saw {}", "{} ok"]
        ).format(text)
    event["about"] = r.choice(words.plain)
    planted: list[tuple[str, tuple[str, ...]]] = []
    if r.random() < 0.45:
        type_, value, event = plant(r, words, event)
        keep = {value, quote(value, safe=""), json.dumps(value)[1:-1]}
        keep |= {event["blob"][2:]} if "blob" in event else set()  # type: ignore[index]
        keep |= (
            {value.replace("@", at) for at in ("&#64;", "&#x40;", "\uff20")}
            if type_ == "email"
            else set()
        )
        keep |= (
            {value.replace("-", "\u2011").replace(" ", "\xa0")}
            if type_ == "credit_card"
            else set()
        )
        planted.append((type_, tuple(sorted(keep))))
    return Made(
        json.dumps(event, ensure_ascii=r.random() < 0.5, separators=(",", ":")), planted, alike
    )


def made(words: Words, seed: int, events: int) -> list[Made]:
    r = R(seed)
    return [make(r, words, number) for number in range(events)]


# --- Redactors and the judgement -------------------------------------------------------------------------------------

SEVEN = [
    re.compile(regex, re.IGNORECASE)
    for regex in (
        r"\b[a-z0-9._%+-]+@[a-z0-9.-]+\.[a-z]{2,}\b",
        r"(?:\+?1[-. ]?)?\(?[0-9]{3}\)?[-. ]?[0-9]{3}[-. ]?[0-9]{4}",
        r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",
        r"\b(?:[0-9]{4}[- ]?){3}[0-9]{4}\b",
        r"\b(?:sk|pk|api[_-]?key)[-_][a-z0-9_-]{16,}",
        r"password[\"']?\s*[:=]\s*[\"']?[^\s\"',}]+",
        r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b",
    )
]


def seven(text: str) -> str:
    """The original's way: every string value, its skipped keys left out."""

    def walk(value: object) -> object:
        if isinstance(value, str):
            for regex in SEVEN:
                value = regex.sub("[REDACTED]", value)
        elif isinstance(value, list):
            value = [walk(item) for item in value]
        elif isinstance(value, dict):
            value = {
                k: v if any(s in k for s in ("_id", "timestamp", "type")) else walk(v)
                for k, v in value.items()
            }
        return value

    return json.dumps(walk(json.loads(text)), ensure_ascii=False, separators=(",", ":"))


def ours(text: str) -> str:
    return redact_text(text, RedactConfig())[0]


def judge(
    title: str,
    sets: dict[str, list[Made]],
    redactors: dict[str, Callable[[str], str]],
    *,
    missed: bool,
) -> bool:
    is_good = True
    for name, events in sets.items():
        table = Table("what", *redactors, title=f"{title}: {name}, {len(events):,} events")
        columns = [
            figures(events, redactor, missed and label == "obs_assets")
            for label, redactor in redactors.items()
        ]
        for row in columns[0]:
            table.add_row(row, *(f"{column[row]:.2%}" for column in columns))
        out.print(table)
        found, of_type, alike, plain = SURVIVES_AT_MOST[name]
        mine = columns[0]
        worst = min(
            recall
            for row, recall in mine.items()
            if row.startswith("recall ") and not math.isnan(recall)
        )
        reached = mine["recall"] >= found and worst >= of_type
        reached &= (
            mine["look-alikes altered"] <= alike and mine["events without any altered"] <= plain
        )
        is_good &= reached or name != "tuned"
    return is_good


def figures(events: list[Made], redactor: Callable[[str], str], show: bool) -> dict[str, float]:
    planted, found, alike, altered, plain, touched = Counter[str](), Counter[str](), 0, 0, 0, 0
    for event in events:
        text = redactor(event.text)
        flat = text + json.dumps(json.loads(text), ensure_ascii=False).replace("\\", "")
        for type_, forms in event.planted:
            planted[type_] += 1
            is_left = any(form in flat for form in forms)
            found[type_] += not is_left
            if is_left and show:
                out.print("missed", type_, event.text, markup=False)
        for look in event.alike:
            alike += 1
            altered += look not in flat
            if show and look not in flat:
                out.print("altered", look, markup=False)
        if not event.planted:
            plain += 1
            touched += json.loads(text) != json.loads(event.text)
    return {
        "recall": found.total() / planted.total(),
        **{
            f"recall {type_}": found[type_] / planted[type_] if planted[type_] else math.nan
            for type_ in TYPES
        },
        "look-alikes altered": altered / alike,
        "events without any altered": touched / plain,
    }


def second_opinion(sets: dict[str, list[Made]]) -> None:
    """What `obs scan` sees: of the events as they came, of those without personal data, and of those redacted."""
    scanner = Scanner(Scope(skipped=RedactConfig().fields_to_skip))
    table = Table("obs scan", *sets, title="second opinion")
    columns = [seen_by(scanner, events) for events in sets.values()]
    for row in columns[0]:
        table.add_row(row, *(column[row] for column in columns))
    out.print(table)


def seen_by(scanner: Scanner, events: list[Made]) -> dict[str, str]:
    planted, seen = Counter[str](), Counter[str]()
    false_alarms = left = 0
    began = time.perf_counter()
    for event in events:
        found = scanner.event(event.text)
        false_alarms += bool(found) and not event.planted
        for type_, _ in event.planted:
            planted[type_] += 1
            seen[type_] += bool(found)
    rate = len(events) / (time.perf_counter() - began)
    left = sum(bool(scanner.event(ours(event.text))) for event in events)
    return {
        **{
            f"seen of {type_}": f"{seen[type_] / (planted[type_] or math.nan):.2%}"
            for type_ in TYPES
        },
        "false alarms": f"{false_alarms:,}",
        "redacted events with leftovers": f"{left:,}",
        "events a second and core": f"{rate:,.0f}",
    }


def suites_of_others(folder: Path) -> None:
    """The share of each public suite that is right: its value vanished, or, without one, its text unchanged."""
    cases, missing = public.cases(folder)
    events = [
        json.dumps({"id": "evt-1", "message": case.text}, ensure_ascii=False) for case in cases
    ]
    outcomes = redact_texts(events, RedactConfig())
    right, of, lines, wrong = Counter[str](), Counter[str](), 0, Counter[str]()
    unseen_right, unseen = Counter[str](), Counter[str]()
    for case, event, outcome in zip(cases, events, outcomes, strict=True):
        if case.suite == "loghub":
            lines += 1
            wrong.update(set(outcome.types) - ADDRESSES)
            continue
        message = json.loads(outcome.event or event)["message"]
        is_right = case.value not in message if case.value else not outcome.types
        of[case.suite] += 1
        right[case.suite] += is_right
        unseen[case.suite] += case.is_unseen
        unseen_right[case.suite] += is_right and case.is_unseen
    table = Table(
        "suite", "cases", "right", "unseen", "right", title=f"suites of others in {folder}"
    )
    for suite in sorted(of):
        share = unseen_right[suite] / (unseen[suite] or math.nan)
        row = (
            f"{of[suite]:,}",
            f"{right[suite] / of[suite]:.1%}",
            f"{unseen[suite]:,}",
            f"{share:.1%}",
        )
        table.add_row(suite, *row)
    if lines:
        shares = [f"{type_} in {count:,}" for type_, count in wrong.most_common()]
        told = ", ".join(shares) or "nothing"
        table.add_row("loghub: found besides addresses", f"{lines:,}", told, "", "")
    out.print(table)
    if missing:
        out.print(f"missing in {folder}: {', '.join(missing)}")


ADDRESSES = {"email", "ip_address", "mac_address"}
"""Types that loghub's lines really hold."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument(
        "--missed",
        action="store_true",
        help="show what was missed or altered (all of it is synthetic)",
    )
    parser.add_argument("--public", type=Path, help="a folder with suites of other projects")
    parser.add_argument("--only", choices=list(SURVIVES_AT_MOST))
    args = parser.parse_args()
    sets = {"tuned": made(TUNED, 11, args.events), "held out": made(HELD_OUT, 12, args.events)}
    sets |= foreign.sets(DATA, args.events)
    sets = {name: events for name, events in sets.items() if args.only in (None, name)}
    is_good = judge(
        "privacy", sets, {"obs_assets": ours, "seven regexes": seven}, missed=args.missed
    )
    second_opinion(sets)
    if args.public:
        suites_of_others(args.public)
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
