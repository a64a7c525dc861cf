"""Rules of other authors for the second opinion on redaction: packages of the extra ``scan``.

Each package is used where it is installed. Neither the redactor nor `obs_assets.audit.leftovers` shares these rules.
"""

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import regex

MOST_CHARACTERS = 64 << 10
"""Of a text are looked at: some of these rules backtrack, so that a longer text could hold up a scan."""

_IBAN = regex.compile(
    r"(?<![0-9A-Za-z])[A-Z]{2}[0-9]{2}(?: ?[0-9A-Z]{4}){2,7}(?: ?[0-9A-Z]{1,3})?(?![0-9A-Za-z])"
)
_SSN = regex.compile(r"(?<![\w-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![\w-])")

_PLUGINS = frozenset(
    (
        "AWSKeyDetector",
        "AzureStorageKeyDetector",
        "DiscordBotTokenDetector",
        "GitHubTokenDetector",
        "GitLabTokenDetector",
        "JwtTokenDetector",
        "MailchimpDetector",
        "NpmDetector",
        "OpenAIDetector",
        "PypiTokenDetector",
        "SendGridDetector",
        "SlackDetector",
        "SquareOAuthDetector",
        "StripeDetector",
        "TelegramBotTokenDetector",
    )
)
"""Rules of detect-secrets that know a token by its shape. Its other rules also report ids that are no secrets."""

_MIN_TOKEN = 16
"""Characters of the shortest of these tokens."""

Find = Callable[[str], Iterator[str]]
"""A text to the types of personal data and secrets in it."""


def types_in(text: str) -> Iterator[str]:
    """The types that the installed packages find in a text; a type can come several times.

    Args:
        text: of an event, without masks; only its first `MOST_CHARACTERS` count.
    """
    part = text[:MOST_CHARACTERS]
    for find in _finders().values():
        yield from find(part)


def installed() -> list[str]:
    """Names of the packages whose rules are used."""
    return list(_finders())


@functools.cache
def _finders() -> dict[str, Find]:
    found = {}
    for package, finder in _PACKAGES.items():
        try:
            found[package] = finder()
        except ImportError:
            continue
    return found


def _phonenumbers() -> Find:
    library: Any = importlib.import_module("phonenumbers")

    def find(text: str) -> Iterator[str]:
        # Without a country, only numbers with `+` are certain; each search takes 0.2 ms
        if "+" in text and library.PhoneNumberMatcher(text, None).has_next():
            yield "phone"

    return find


def _stdnum() -> Find:
    iban: Any = importlib.import_module("stdnum.iban")
    ssn: Any = importlib.import_module("stdnum.us.ssn")

    def find(text: str) -> Iterator[str]:
        if any(map(iban.is_valid, _IBAN.findall(text))):
            yield "iban"
        if any(map(ssn.is_valid, _SSN.findall(text))):
            yield "ssn"

    return find


def _detect_secrets() -> Find:
    util: Any = importlib.import_module("detect_secrets.core.plugins.util")
    classes = util.get_mapping_from_secret_type_to_class().values()
    plugins = [plugin() for plugin in classes if plugin.__name__ in _PLUGINS]

    def find(text: str) -> Iterator[str]:
        if len(text) < _MIN_TOKEN:
            return
        for plugin in plugins:
            if any(True for _ in plugin.analyze_string(text)):
                yield "api_key"
                return

    return find


_PACKAGES: dict[str, Callable[[], Find]] = {
    "phonenumbers": _phonenumbers,
    "python-stdnum": _stdnum,
    "detect-secrets": _detect_secrets,
}
"""Name of a package → what makes its rules. A row for each package."""
