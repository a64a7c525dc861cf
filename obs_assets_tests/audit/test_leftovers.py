"""The second opinion on redaction: it sees what is left, wherever it hides, and cries for nothing else."""

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest

from obs_assets.audit.leftovers import TYPES, CustomRule, Leftover, Scanner, Scope
from obs_assets.transforms.detectors import DETECTORS
from obs_assets.transforms.redact import RedactConfig, redact_text
from obs_assets_tests.detecting import only

LEFT = {
    "email": ["ana.silva@example.com", "jörg+ops@mail.example.co.uk"],
    "phone": ["+1 212 555 0123", "(212) 555-0123", "+442079460958", "01 23 45 67 89"],
    "ssn": ["123-45-6789"],
    "credit_card": ["4111 1111 1111 1111", "4111-1111-1111-1111", "378282246310005"],
    "ip_address": ["10.1.2.3", "2001:db8::8a2e:1", "/2001:db8::8a2e:1:50010"],
    "iban": ["DE89370400440532013000", "GB29 NWBK 6016 1331 9268 19"],
    "mac_address": ["3c:22:fb:0a:9e:11", "3C22.FB0A.9E11"],
    "api_key": [
        "sk-" + "a1B2c3D4e5F6g7H8i9J0k1L2",
        "AK" + "IAIOSFODNN7EXAMPLE",
        "https://me:hunter22@db.example.com/x",
        "-----BEGIN RSA PRIVATE KEY-----",
    ],
    "password": [
        "password=hunter2x",
        "--password hunter22",
        "my password is hunter22",
        "<password>hunter22</password>",
    ],
}

ALIKE = (
    *("2025-12-04T10:11:12.131Z", "1764842400", "1764842400123", "20251204101112", "10:11:12"),
    *(
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "0ee15d3d8d4d4ddc9ab7682e867e91d2f4246dee",
        "v1.2.3.4",
        "version 10.0.19045.1",
    ),
    *(
        "6f1c1a52-6f5e-4f0e-9a3c-0c6c7bb1f5ae",
        "sha256:9d5f705b9e01ffe284a52528cc701a44cc3da9e26f00e82206c4bfc72c736594",
    ),
    *(
        "Chrome/124.0.0.0",
        "Mozilla/5.0 (X11; rv:1.9.5.20) Gecko/2010",
        "git@github.com:org/repo.git",
        "@property",
        "logo@2x.png",
        "lodash@4.17.21",
        "localhost:8080",
    ),
    *(
        "4111111111111112",
        "order 1234567890",
        "api-7d9f8b6c5-x2k4p",
        "/var/log/app/2025/12/04.log",
        "std::map<int>::at",
    ),
    *(
        "max_tokens=128",
        "password: required",
        "token expired",
        "password=***",
        "${DB_PASSWORD}",
        "password=$PGPASSWORD",
    ),
    *(
        "14/Dec/2025:10:11:45 +0000",
        "blk_-6046341566513997937",
        "R50-M1-N0-C:J12-U45",
        "pid=65937 tid=37187",
    ),
    *(
        "aGVsbG8gd29ybGQgaGVsbG8=",
        "50:06:01:60:3b:20:11:22",
        "ff:ff:ff:ff:ff:ff",
        "12.5 ms",
        "1,234,567.89",
    ),
)

EACH = [(type_, value) for type_, values in LEFT.items() for value in values]


def found(event: dict[str, Any], **scope: Any) -> list[Leftover]:
    return Scanner(Scope(**scope)).event(json.dumps(event))


@pytest.mark.parametrize(("type_", "value"), [*EACH, ("phone", "212-555-0123x045")])
def test_what_is_left_is_seen_with_its_type_and_path(type_: str, value: str) -> None:
    """In a sentence, deep in lists, in JSON inside a string."""
    assert Leftover(type_, "note") in found({"note": f"saw {value} today"})
    assert Leftover(type_, "a.b.*.c") in found({"a": {"b": [1, {"c": value}]}})
    assert Leftover(type_, "raw.inner.*") in found({"raw": json.dumps({"inner": [value]})})


@pytest.mark.parametrize(
    "type_", ["email", "ssn", "credit_card", "ip_address", "iban", "mac_address"]
)
def test_a_key_that_is_left_is_shown_by_its_type_alone(type_: str) -> None:
    """Never the value, not even as part of a path."""
    assert Leftover(type_, f"seen.‹{type_}›") in found({"seen": {LEFT[type_][0]: {"n": 1}}})
    assert "example.com" not in str(
        found({"seen": {"ana@example.com": {"to": "ben@example.com"}}})
    )


@pytest.mark.parametrize(
    "encoded",
    [
        quote("ana@example.com", safe=""),
        quote(quote("ana@example.com", safe=""), safe=""),
        "ana&#64;example.com",
        "ana\\u0040example.com",
        "ana＠example.com",
        "ana\u200b@example.com",
        f"x {base64.b64encode(b'user ana@example.com said so').decode()}",
        base64.urlsafe_b64encode(b'{"v": "ana@example.com"}').decode(),
        "ana\u2011b@example.com",
    ],
)
def test_encodings_are_undone(encoded: str) -> None:
    """What anybody can read is not hidden."""
    assert Leftover("email", "url") in found({"url": encoded})


def test_names_make_values_personal() -> None:
    """Under the name of a secret anything is one, numbers as they are written; a phone's digits need its name."""
    assert found({"db_password": "correct horse"}) == [Leftover("password", "db_password")]
    assert found({"client_secret": {"a": ["x"]}}) == [Leftover("password", "client_secret.a.*")]
    assert found({"password": 12345}) == [Leftover("password", "password")]
    assert found({"card": 4111111111111111}) == [Leftover("credit_card", "card")]
    assert found({"phone": 2125550123, "count": 2125550123}) == [Leftover("phone", "phone")]
    assert found({"ssn": "123456789", "n": "123456789"}) == [Leftover("ssn", "ssn")]
    assert (
        found(
            {
                "total_tokens": 12345,
                "tokens": {"input": 12345},
                "next_page_token": "abc123def456",
            }
        )
        == []
    )


@pytest.mark.parametrize("value", ALIKE)
def test_look_alikes_are_left_alone(value: str) -> None:
    """Times, ids, versions, digests, placeholders: a second opinion that cries wolf is switched off."""
    assert found({"note": value, "b": f"saw {value}", value: 1, "c": json.dumps([value])}) == []


@pytest.mark.parametrize("mode", ["mask", "hash", "remove"])
def test_what_a_redaction_leaves_behind_is_no_leftover(mode: Any) -> None:
    """In every mode, for every value, in sentences, keys, numbers and under the names of secrets."""
    for _, value in EACH:
        event = {
            "a": f"saw {value} today",
            "seen": {value: 1},
            "j": json.dumps({"k": value}),
            "password": value,
        }
        redacted, _ = redact_text(json.dumps(event), RedactConfig(mode=mode), b"key")
        assert found(json.loads(redacted)) == []


@pytest.mark.parametrize("forgotten", TYPES)
def test_a_broken_redactor_is_found_out(forgotten: str) -> None:
    """Whichever type it forgets, the scan names that type, and no other."""
    event = {
        "note": f"saw {LEFT[forgotten][0]} today",
        "other": "ana@example.com" if forgotten != "email" else "10.1.2.3",
    }
    with only(*(row for row in DETECTORS if row.type != forgotten)):
        redacted, _ = redact_text(json.dumps(event), RedactConfig())
    assert found(json.loads(redacted)) == [Leftover(forgotten, "note")]


def test_what_was_not_to_be_redacted_is_not_looked_for() -> None:
    """Types that are kept, paths that are skipped, paths outside of those that are scanned."""
    event = {
        "owner": {"mail": "ana@example.com"},
        "items": [{"mail": "ben@example.com", "ip": "10.1.2.3"}],
    }
    assert found(event, types=frozenset({"ip_address"})) == [
        Leftover("ip_address", "items.*.ip")
    ]
    assert found(event, skipped=("owner", "items.*.mail")) == [
        Leftover("ip_address", "items.*.ip")
    ]
    assert found(event, skipped=("**.mail",)) == [Leftover("ip_address", "items.*.ip")]
    assert found(event, scanned=("owner",)) == [Leftover("email", "owner.mail")]
    assert found({"email_type": "ana@example.com"}, skipped=("type",)) == [
        Leftover("email", "email_type")
    ]


def test_custom_patterns_are_looked_for_too() -> None:
    """By RE2, with their validators, and not in what a redaction left."""
    rule = CustomRule("badge", r"EMP-\d{4}", lambda text: text != "EMP-0000")
    assert found({"note": "EMP-1234, EMP-0000"}, custom=(rule,)) == [Leftover("badge", "note")]
    assert found({"note": "EMP-0000", "b": "EMP-***"}, custom=(rule,)) == []


def test_the_mark_of_a_redaction_is_no_leftover_and_hides_none() -> None:
    """Its paths may look like anything; whatever else stands there is looked at."""
    mark = {
        "redacted": True,
        "mode": "mask",
        "fields": [{"field": "ips.10.1.2.3", "type": "phone"}],
    }
    assert found({"_redaction": mark}) == []
    assert found({"_redaction": {**mark, "by": "ana@example.com"}}) == [
        Leftover("email", "_redaction.by")
    ]


@pytest.mark.parametrize(
    "text", ["no json", '{"a": ', "[" * 5_000 + "]" * 5_000, '{"a":' * 500 + "1" + "}" * 500]
)
def test_what_cannot_be_looked_into_is_an_error(text: str) -> None:
    """Not a clean bill of health; and the error shows nothing of it."""
    with pytest.raises(ValueError, match=r"^(Expecting|nested too deeply)"):
        Scanner(Scope()).event(text)
