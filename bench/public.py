#!/usr/bin/env python3
# ruff: noqa: E501, PLR0911, RUF005, SIM905 - one branch for each kind of node; lists of words
"""Suites of other projects, read from a folder that the reader names; nothing of them is kept in this repository.

`DIR` holds checkouts or unpacked archives, each under its own name: `gitleaks`, `CredSweeper`, `detect-secrets`,
`presidio`, `loghub`. The packages `phonenumbers` and `python-stdnum` are imported if they are installed or lie in `DIR`.

A suite is a list of `Case`: a text, the part that must vanish, whether the part is recognisable by itself (*shaped*).
One family in three is *unseen*: whoever works on the rules reads the misses of the others only.
"""

import ast
import hashlib
import json
import random
import re
import string
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLES = 3
"""Random tokens of each family."""

LONGEST_RUN = 120
"""Characters that an unbounded repetition is sampled with at most."""


@dataclass(frozen=True)
class Case:
    """One thing to judge.

    Attributes:
        suite: the project it comes from, and which of its parts.
        family: of which kind of token; the unit that is seen or unseen.
        text: as it may stand in a log message.
        value: the part of the text that must vanish; empty if the text must stay as it is.
    """

    suite: str
    family: str
    text: str
    value: str

    @property
    def is_unseen(self) -> bool:
        """Whether it is among the third whose misses are not read before the end."""
        return hashlib.sha256(self.family.encode()).digest()[0] % 3 == 0


def cases(folder: Path) -> tuple[list[Case], list[str]]:
    """All cases of the suites in a folder, and the names of the suites that are missing."""
    sys.path.append(str(folder))
    found: list[Case] = []
    missing: list[str] = []
    for name, read in SUITES.items():
        try:
            suite = list(read(folder))
        except (OSError, ImportError):  # no such folder, no such package
            suite = []
        found += suite
        if not suite:
            missing.append(name)
    return found, missing


# --- Tokens made from a regular expression ---------------------------------------------------------------------------

_WORDS = string.ascii_letters + string.digits


def sample(pattern: str, r: random.Random) -> str:
    """A text that a regular expression matches; of one with a group, the first group's."""
    pattern = re.sub(r"\(\?<(?![=!])", "(?P<", pattern).replace(r"\z", r"\Z")
    pattern = pattern.replace("[[:alnum:]]", "[0-9A-Za-z]").replace("[[:xdigit:]]", "[0-9a-f]")
    flags = re.IGNORECASE if "(?i)" in pattern else 0
    tree = re._parser.parse(re.sub(r"\(\?[imsx]+\)", "", pattern), flags)  # type: ignore[attr-defined]
    groups: dict[int, str] = {}
    whole = "".join(_sampled(tree, r, groups))
    return groups.get(1) or whole


def _sampled(tree: Any, r: random.Random, groups: dict[int, str]) -> Iterator[str]:
    for op, argument in tree:
        yield _one(str(op), argument, r, groups)


def _one(op: str, argument: Any, r: random.Random, groups: dict[int, str]) -> str:
    if op == "LITERAL":
        return chr(argument)
    if op == "NOT_LITERAL":
        return r.choice([c for c in _WORDS if c != chr(argument)])
    if op == "ANY":
        return r.choice(_WORDS)
    if op == "IN":
        return r.choice(_characters(argument))
    if op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, inner = argument
        most = min(most, max(least, LONGEST_RUN)) if least > 1 else min(most, least + 1)
        times = r.randint(least, min(most, least + 8))
        return "".join("".join(_sampled(inner, r, groups)) for _ in range(times))
    if op == "SUBPATTERN":
        number, _, _, inner = argument
        text = "".join(_sampled(inner, r, groups))
        groups[number] = text
        return text
    if op == "ATOMIC_GROUP":
        return "".join(_sampled(argument, r, groups))
    if op == "BRANCH":
        return "".join(_sampled(r.choice(argument[1]), r, groups))
    if op == "GROUPREF":
        return groups.get(argument, "")
    if op == "GROUPREF_EXISTS":
        number, yes, no = argument
        return "".join(_sampled(yes if groups.get(number) else no or [], r, groups))
    return ""  # assertions


def _characters(argument: Any) -> str:
    chosen: set[str] = set()
    negated = str(argument[0][0]) == "NEGATE"
    for op, value in argument:
        if str(op) == "LITERAL":
            chosen.add(chr(value))
        elif str(op) == "RANGE":
            chosen |= {chr(code) for code in range(value[0], min(value[1], 126) + 1)}
        elif str(op) == "CATEGORY":
            named = {
                "DIGIT": string.digits,
                "WORD": _WORDS,
                "SPACE": " ",
                "NOT_SPACE": _WORDS,
                "NOT_DIGIT": "abcdef",
            }
            chosen |= set(named.get(str(value).removeprefix("CATEGORY_"), _WORDS))
    if negated:
        return "".join(sorted(set(_WORDS) - chosen)) or "~"
    printable = {c for c in chosen if c.isprintable() and c.isascii()}
    return "".join(sorted(printable or chosen))


# --- Suites ----------------------------------------------------------------------------------------------------------

_NAMES = (
    '{}_API_TOKEN="{}"',
    "{}_SECRET_KEY={}",
    '{{"{}Token": "{}"}}',
    "{}_password: {}",
    "{}.api_key = '{}'",
) + (
    "--{}-token {}",
    "/v1/x?{}_token={}&page=2",
    'var {}Secret string = "{}"',
    "{}_ACCESS_TOKEN ?= {}",
)
_BARE = (
    "sync worker got {} from vault, retrying",
    "{}",
    "[warn] rejected ({}) twice",
    '{{"note": "using {} now"}}',
)
_PLACEHOLDER = re.compile(r"([A-Za-z])\1{8}")
"""A letter nine times, as in ``AKCxxxxxxxxxx``: the issue calls placeholders no values, so they have to stay."""

_KEYWORD_FORM = re.compile(r"\[\\w\.-\]\{0,50\}\?|\\w\{0,50\}|\(\?:=\|>\|")


def gitleaks(folder: Path) -> Iterator[Case]:
    """gitleaks: tokens of its rules, alone and behind a name, and the strings of its own tests."""
    rules = tomllib.loads((folder / "gitleaks/config/gitleaks.toml").read_text())["rules"]
    r = random.Random(21)
    lines = _sample_lines(folder / "gitleaks/cmd/generate/config/utils/generate.go")
    for rule in rules:
        pattern = rule.get("regex")
        if not pattern or rule["id"] in (
            "generic-api-key",
            "private-key",
            "kubernetes-secret-yaml",
        ):
            continue
        for _ in range(SAMPLES):
            yield from _tokens(rule["id"], pattern, lines, r)
    for file in sorted((folder / "gitleaks/cmd/generate/config/rules").glob("*.go")):
        yield from _go_strings(file)


def _tokens(family: str, pattern: str, lines: list[str], r: random.Random) -> Iterator[Case]:
    vendor = family.split("-", maxsplit=1)[0]
    token = sample(pattern, r)
    if " " in token or len(token) < 8:
        return
    if not _KEYWORD_FORM.search(pattern):
        yield Case("gitleaks bare", family, r.choice(_BARE).format(token), token)
    yield Case("gitleaks named", family, r.choice(_NAMES).format(vendor, token), token)
    kind = "unshaped" if _KEYWORD_FORM.search(pattern) else "shaped"
    for line in r.sample(lines, SAMPLES):
        text = line.replace("{i}", vendor).replace("{I}", vendor.upper()).replace("{s}", token)
        yield Case(f"gitleaks own {kind}", family, text, token)


def _sample_lines(file: Path) -> list[str]:
    """The lines that gitleaks puts its samples into."""
    block = (
        file.read_text()
        .partition("samples := map[string]string{")[2]
        .partition("replacer :=")[0]
    )
    lines = [line for line in block.splitlines() if not line.strip().startswith("//")]
    found = re.findall(r":\s+(?:`([^`]*)`|(\"(?:[^\"\\]|\\.)*\")),", "\n".join(lines))
    return [raw or json.loads(quoted) for raw, quoted in found]


def _go_strings(file: Path) -> Iterator[Case]:
    """Texts that gitleaks' rules must leave alone."""
    source = file.read_text()
    for block in re.findall(r"fps\s*:?=\s*\[\]string\{(.*?)\n\t\}", source, re.DOTALL):
        for raw, quoted in re.findall(
            r"^\s*(?:`([^`]*)`|\"((?:[^\"\\]|\\.)*)\"),", block, re.MULTILINE
        ):
            text = raw or quoted.replace('\\"', '"').replace("\\n", "\n")
            if text.strip():
                yield Case("gitleaks look-alikes", file.stem, text, "")


def detect_secrets(folder: Path) -> Iterator[Case]:
    """detect-secrets: the parameters of its plugins' tests, and their lines of settings."""
    r = random.Random(22)
    for file in sorted((folder / "detect-secrets/tests/plugins").glob("*_test.py")):
        if file.stem in ("high_entropy_strings_test", "ip_public_test", "base_test"):
            continue
        for text, wanted in _flagged(file):
            is_named = file.stem in ("keyword_test", "basic_auth_test") or re.search(
                "[=: ]", text
            )
            if file.stem == "keyword_test":
                if isinstance(wanted, str) and len(wanted) > 12:
                    yield Case(
                        "detect-secrets own unshaped", file.stem + text[:5], text, wanted
                    )
            elif wanted is True and _PLACEHOLDER.search(text):
                place = r.choice(_BARE).format(text)
                yield Case("detect-secrets placeholders", file.stem, place, "")
            elif wanted is True and not is_named:
                yield Case("detect-secrets bare", file.stem, r.choice(_BARE).format(text), text)
                name = r.choice(_NAMES).format(file.stem.split("_")[0], text)
                yield Case("detect-secrets named", file.stem, name, text)
            elif wanted is True:
                login = re.search(r"://[^/:]*:([^@]+)@", text)
                parts = re.split(r"[\s\"'`=:,;/@]+", text)
                value = login[1] if login else max(parts, key=len)
                yield Case("detect-secrets own unshaped", file.stem, text, value)
            elif wanted is False and file.stem not in ("ibm_cos_hmac_test", "softlayer_test"):
                yield Case("detect-secrets look-alikes", file.stem, text, "")


def _flagged(file: Path) -> Iterator[tuple[str, Any]]:
    scope: dict[str, Any] = {}
    tree = ast.parse(file.read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign):
            try:
                exec(
                    compile(ast.Module([node], []), file.name, "exec"),
                    {"base64": __import__("base64")},
                    scope,
                )
            except Exception:  # noqa: BLE001 - what needs the package itself
                continue
    for value in scope.values():
        if isinstance(value, list):
            yield from (
                pair for pair in value if isinstance(pair, tuple) and isinstance(pair[0], str)
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List) and len(node.elts) in (2, 3):
            try:
                parts = eval(compile(ast.Expression(node), file.name, "eval"), {}, dict(scope))
            except Exception:  # noqa: BLE001
                continue
            if isinstance(parts[0], str) and isinstance(parts[1], bool):
                yield parts[0], parts[1]


_CONTAINED = (
    "keyword",
    "DOC_",
    "PASSWD_PAIR",
    "SECRET_PAIR",
    "IP_ID",
    "ID_PASSWD",
    "ID_PAIR",
    "UUID",
    "Nonce",
    "Salt",
)


def credsweeper(folder: Path) -> Iterator[Case]:
    """CredSweeper: the lines of its samples with the values that it expects; tokens of its rules."""
    base = folder / "CredSweeper"
    r = random.Random(23)
    rules = base / "credsweeper/rules/config.yaml"
    informing = _informing(rules)
    for name, pattern in _yaml_rules(rules):
        for _ in range(SAMPLES):
            token = sample(pattern, r).strip("\"'`;= \n\\")
            if len(token) >= 8 and " " not in token:
                yield Case("CredSweeper bare", name, r.choice(_BARE).format(token), token)
                vendor = re.split(r"\W", name)[0]
                yield Case(
                    "CredSweeper named", name, r.choice(_NAMES).format(vendor, token), token
                )
    seen: set[tuple[str, str]] = set()
    for found in json.loads((base / "tests/data/output.json").read_text()):
        for line in found["line_data_list"]:
            text, value = line["line"], line["value"]
            if (
                (text, value) in seen
                or not value
                or value not in text
                or line["info"]
                or "PEM" in found["rule"]
                or found["rule"] in informing
            ):
                continue
            seen.add((text, value))
            is_shaped = line["variable"] is None
            yield Case(
                f"CredSweeper own {'shaped' if is_shaped else 'unshaped'}",
                found["rule"],
                text[:4000],
                value,
            )


def _informing(file: Path) -> set[str]:
    """Names of the rules whose severity is ``info``: CredSweeper itself says that they find no secrets, but host names
    and ids."""
    import yaml

    return {
        rule["name"] for rule in yaml.safe_load(file.read_text()) if rule["severity"] == "info"
    }


def _yaml_rules(file: Path) -> Iterator[tuple[str, str]]:
    """Names and patterns of the rules that know a secret by its shape."""
    import yaml

    informing = _informing(file)
    for rule in yaml.safe_load(file.read_text()):
        if rule["name"] in informing:
            continue
        values = [str(value) for value in rule["values"]]
        is_shaped = rule["type"] == "pattern" and not any(
            part in rule["name"] for part in _CONTAINED
        )
        if (
            is_shaped
            and "code" in rule["target"]
            and "variable" not in values[0]
            and len(values) == 1
        ):
            match = re.search(r"\(\?P<value>", values[0])
            if match:
                yield rule["name"], _group(values[0], match.start())


def _group(pattern: str, start: int) -> str:
    """The group of a pattern that begins there."""
    depth, position, in_set = 0, start, False
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            position += 2
            continue
        if character == "[" and not in_set:
            in_set = True
        elif character == "]":
            in_set = False
        elif not in_set and character in "()":
            depth += 1 if character == "(" else -1
            if depth == 0:
                return pattern[start : position + 1]
        position += 1
    return pattern[start:]


_ENTITIES = {
    "credit_card": "credit_card",
    "email": "email",
    "iban": "iban",
    "ip": "ip",
    "mac": "mac",
    "us_ssn": "ssn",
}


def presidio(folder: Path) -> Iterator[Case]:
    """Presidio: the parameters of its recognizers' tests whose kinds are claimed here."""
    for name in _ENTITIES:
        file = folder / f"presidio/presidio-analyzer/tests/test_{name}_recognizer.py"
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Tuple) or not node.elts:
                continue
            try:
                parts = ast.literal_eval(node)
            except ValueError:
                continue
            if len(parts) < 3 or not isinstance(parts[0], str) or not isinstance(parts[1], int):
                continue
            text, count = parts[:2]
            spans = [
                span
                for part in parts[2:]
                if isinstance(part, tuple)
                for span in part
                if isinstance(span, tuple) and all(isinstance(end, int) for end in span)
            ]
            if count == 0:
                yield Case(f"presidio {name} look-alikes", f"{name}", text, "")
            elif spans and spans[0][1] <= len(text):
                yield Case(f"presidio {name}", name, text, text[spans[0][0] : spans[0][1]])


INHABITED = (
    "IN CN US ID PK NG BR BD RU ET MX JP EG PH CD VN IR TR DE TH TZ GB FR ZA IT KE MM CO KR SD UG ES AR DZ IQ AF PL "
    "CA MA SA UZ UA AO PE MY MZ GH"
).split()
"""The 47 countries with most inhabitants."""

_CALLS = (
    "call {} now",
    "Tel. {}",
    "phone: {}",
    "her number is {} ok",
    "reach me at {} after five",
)


def phones(_folder: Path) -> Iterator[Case]:
    """phonenumbers: its example numbers of the countries with most inhabitants, in national form."""
    import phonenumbers as library

    for region in INHABITED:
        for kind in (library.PhoneNumberType.MOBILE, library.PhoneNumberType.FIXED_LINE):
            number = library.example_number_for_type(region, kind)
            if number is None:
                continue
            national = library.format_number(number, library.PhoneNumberFormat.NATIONAL)
            for call in _CALLS:
                yield Case("phones national", region, call.format(national), national)
            plus = library.format_number(number, library.PhoneNumberFormat.INTERNATIONAL)
            yield Case("phones international", region, f"seen {plus} again", plus)


def cards(_folder: Path) -> Iterator[Case]:
    """Faker: a number for each of its prefixes and lengths, bare, in blanks and in dashes; family: the prefix."""
    from faker.providers.credit_card import Provider

    r = random.Random(24)
    for network in Provider.credit_card_types.values():
        for prefix in network.prefixes:
            first = re.sub("[#%]", lambda _: r.choice("0123456789"), prefix)
            rest = "".join(r.choices(string.digits, k=network.length - len(first) - 1))
            number = _with_check_digit(first + rest)
            groups = [part for part in re.split(_GROUPS[network.length], number) if part]
            for way, text in (
                ("bare", number),
                ("blanks", " ".join(groups)),
                ("dashes", "-".join(groups)),
            ):
                yield Case(
                    f"cards {way}",
                    f"{prefix} {network.length}",
                    f"card {text} was charged",
                    text,
                )


_GROUPS = {
    12: r"(.{4})",
    13: r"^(.{4})(.{3})(.{3})",
    14: r"^(.{4})(.{6})",
    15: r"^(.{4})(.{6})",
    16: r"(.{4})",
    19: r"(.{4})",
}
"""Digits of a number → how issuers group them."""


def _with_check_digit(number: str) -> str:
    doubled = (
        sum(divmod(int(digit) * 2, 10)) if place % 2 == 0 else int(digit)
        for place, digit in enumerate(reversed(number))
    )
    return f"{number}{-sum(doubled) % 10}"


def logs(folder: Path) -> Iterator[Case]:
    """loghub: real lines. They hold addresses too, so that privacy.py counts other findings only."""
    for file in sorted((folder / "loghub").glob("*/*_2k.log")):
        for line in file.read_text(errors="replace").splitlines():
            yield Case("loghub", file.parent.name, line, "")


SUITES: dict[str, Callable[[Path], Iterator[Case]]] = {
    "gitleaks": gitleaks,
    "detect-secrets": detect_secrets,
    "CredSweeper": credsweeper,
    "presidio": presidio,
    "phonenumbers": phones,
    "Faker": cards,
    "loghub": logs,
}
