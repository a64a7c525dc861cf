"""A test of redaction that runs before the first event: are results on this machine the known results?

Python's `re`, RE2, Arrow and DuckDB have each had versions that return wrong results without an error. The test suite
finds such versions on the machines of developers. This test finds them on the machine of the user, where events would
be lost or pass unredacted.
"""

import functools
import platform
from importlib import metadata
from typing import TYPE_CHECKING

from obs_assets.errors import EngineError
from obs_assets.transforms.redact.arrays import to_arrow, to_texts
from obs_assets.transforms.redact.config import CustomPattern, RedactConfig
from obs_assets.transforms.redact.redactor import Redactor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obs_assets.transforms.redact.in_place import Outcome

_CONFIG = RedactConfig(
    modes={"phone": "hash"},
    patterns=(
        CustomPattern(
            name="order", regex=r"order-(?P<number>[0-9]{4})", replacement="order-####"
        ),
    ),
    fields_to_scan=("**",),
    fields_to_skip=("kept.*",),
)
_KEY = b"the key of the self-test"

_MARK = ',"_redaction":{{"redacted":true,"mode":"mask","fields":[{}]}}}}'


def _marked(begin: str, *fields: tuple[str, str]) -> str:
    """A redacted event: its text without the last bracket, then ``_redaction`` with these paths and types."""
    shown = []
    for path, type_ in fields:
        mode = ',"mode":"hash"' if type_ == "phone" else ""
        shown.append(f'{{"field":"{path}","type":"{type_}"{mode}}}')
    return begin + _MARK.format(",".join(shown))


FAILED = None
"""In `CASES`: the event must not pass."""

CASES: "Mapping[str, tuple[str, str | None]]" = {
    "a value in a flat event": (
        '{"message":"mail bob.smith@example.com now","n":1.10}',
        _marked('{"message":"mail b***h@example.com now","n":1.10', ("message", "email")),
    ),
    "values behind escapes, lists and objects": (
        r'{"a":"x \"y\" \\","tags":["a",1,true],"o":{"k":"v","n":-2.5e3},"in":[{"to":"bob.smith@example.com"}],"end":'
        r'null,"cc":"eve@example.org"}',
        _marked(
            r'{"a":"x \"y\" \\","tags":["a",1,true],"o":{"k":"v","n":-2.5e3},"in":[{"to":"b***h@example.com"}],"end":'
            r'null,"cc":"e***e@example.org"',
            ("cc", "email"),
            ("in.0.to", "email"),
        ),
    ),
    "everything below a secret's key": (
        '{"password":{"old":"hunter2secret","pin":[1234,"x"]},"n":1}',
        _marked(
            '{"password":{"old":"***","pin":["***","***"]},"n":1',
            ("password.old", "password"),
            ("password.pin.0", "password"),
            ("password.pin.1", "password"),
        ),
    ),
    "a key": (
        '{"seen":{"bob.smith@example.com":1,"n":2}}',
        _marked('{"seen":{"b***h@example.com":1,"n":2}', ("seen.b***h@example.com", "email")),
    ),
    "JSON in a string": (
        r'{"body":"{\"to\":\"bob.smith@example.com\",\"n\":1.10}"}',
        _marked(r'{"body":"{\"to\":\"b***h@example.com\",\"n\":1.10}"', ("body.to", "email")),
    ),
    "other spellings": (
        r'{"url":"/u?m=bob.smith%40example.com","b":"bob.smith\u0040example.com"}',
        _marked(
            '{"url":"/u?m=b***h@example.com","b":"b***h@example.com"',
            ("b", "email"),
            ("url", "email"),
        ),
    ),
    "values of many types": (
        '{"text":"card 4111 1111 1111 1111, ssn 219-09-9999, ip 75.166.8.11, order-1234",'
        '"more":"password=hunter2secret iban DE89370400440532013000 mac 00:1b:63:84:45:e6"}',
        _marked(
            '{"text":"card ***1111, ssn ***, ip 75***, order-####","more":"password=*** iban DE89*** mac 00:***"',
            ("more", "iban"),
            ("more", "mac_address"),
            ("more", "password"),
            ("text", "credit_card"),
            ("text", "ip_address"),
            ("text", "order"),
            ("text", "ssn"),
        ),
    ),
    "a keyed hash": (
        '{"text":"call (303) 211-8737 now"}',
        _marked(
            '{"text":"call [REDACTED:89a61a65c862112401fb59bdd40bc1de] now"', ("text", "phone")
        ),
    ),
    "letters beyond ASCII": (
        '{"to":"пользователь@пример.рф","card":4111111111111111}',
        _marked(
            '{"to":"п***ь@пример.рф","card":"***1111"', ("card", "credit_card"), ("to", "email")
        ),
    ),
    "nothing to redact": (
        '{"n":1.10,"text":"é 12.30 of 2031-05-06","big":12345678901234567890,"kept":{"to":"bob.smith@example.com"}}',
        '{"n":1.10,"text":"é 12.30 of 2031-05-06","big":12345678901234567890,"kept":{"to":"bob.smith@example.com"}}',
    ),
    "a list": ('[{"to":"bob.smith@example.com"}]', FAILED),
    "broken JSON": ('{"to":"bob.smith@example.com"', FAILED),
}
"""Name of the case → an invented event, and the same event after redaction."""


@functools.cache
def check_engine() -> None:
    """Redact `CASES` the fast and the slow way, once in each process; it takes about 12 milliseconds.

    Raises:
        EngineError: a result differs from the known result. This process must not redact.
    """
    try:
        wrong = first_difference()
    except Exception as error:  # noqa: BLE001 - a library that raises is as unfit as a library with wrong results
        wrong = type(error).__name__
    if wrong:
        raise EngineError(f"the self-test of redaction failed ({wrong}){_ADVICE}{_versions()}")


def first_difference(cases: "Mapping[str, tuple[str, str | None]]" = CASES) -> str:
    """Case and way of the first result that differs from the known result; empty if all are equal.

    Args:
        cases: name → event, and the event after redaction.
    """
    redactor = Redactor(_CONFIG, _KEY)
    events = [event for event, _ in cases.values()]
    many = redactor.redact_all(to_texts(events))
    rows = to_arrow(many, len(events)).to_pylist()
    for number, (name, (event, expected)) in enumerate(cases.items()):
        results = {
            "one at a time": _text(event, redactor.redact(event)),
            "many at a time": _text(event, many.get(number)),
            "as the database takes it": _text_of_row(event, rows[number]),
        }
        for way, result in results.items():
            if result != expected:
                return f"{name}, {way}"
    return ""


def _text(event: str, outcome: "Outcome | None") -> str | None:
    """The event after an outcome; `FAILED` if it must not pass."""
    if outcome is None:
        return event
    return FAILED if outcome.failed else outcome.event or event


def _text_of_row(event: str, row: "Mapping[str, str | bool] | None") -> str | None:
    """The event after an outcome that was converted to Arrow; `FAILED` if it must not pass."""
    if row is None:
        return event
    return FAILED if row["failed"] else str(row["event"])


_ADVICE = (
    ": on this installation events would be lost or pass with personal data in them, so none is redacted. "
    "Install the versions of requirements.lock, on another Python if it stays, and build the hours again that this "
    "installation has redacted. Versions: "
)

_LIBRARIES = ("duckdb", "google-re2", "numpy", "pyarrow", "pydantic")


def _versions() -> str:
    libraries = [f"{name} {metadata.version(name)}" for name in _LIBRARIES]
    return ", ".join(
        [f"{platform.python_implementation()} {platform.python_version()}", *libraries]
    )
