# ruff: noqa: E501 - tables read best with one row a line
"""Forms of text that hide a secret, each beside a look-alike: files, statements, transcripts, printed objects, encodings.

The rows were written before any rule for them; 15 of these 36 kinds were right at first.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from obs_assets.transforms.redact import RedactConfig, redact_text, redact_texts
from obs_assets_tests.transforms.test_redact_kinds import run

MASK = RedactConfig()
PW = "kR7vTq2mXz"
PW_OF_SIGNS = "Jd4;wB9nLs"
TOKEN, API_KEY = run("alnum", 32, 1), run("alnum", 24, 2)
SIGNATURE, HEX_32 = run("hex", 64, 3), run("hex", 32, 4)
KEY, KEY_2, PUBLIC = (run("base64", 43, seed) + "=" for seed in (5, 6, 7))
BODY = "\n".join(run("base64", 64, seed) for seed in range(60, 64))
SAML = base64.b64encode(
    b'<samlp:Response ID="_4f2a9c"><saml:Assertion><saml:NameID>lena.kraus@till.example</saml:NameID></saml:Assertion></samlp:Response>'
).decode()
JWE = ".".join(
    [
        "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ",
        *(run("word", length, 8 + length) for length in (60, 16, 48, 22)),
    ]
)
UUID = "5f0c2b8e-91d7-4a36-b1c4-7e2d90fa6c13"
SHADOW = f"$6${run('alnum', 16, 12)}${run('alnum', 86, 13)}"
BCRYPT = f"$2b$12${run('alnum', 53, 14)}"
ARGON = f"$argon2id$v=19$m=65536,t=3,p=4${run('base64', 22, 15)}${run('base64', 43, 16)}"
SSHA = base64.b64encode(b"{SSHA}" + PW.encode() * 2).decode()
AGE = run("upper", 58, 18)
PHP_SESSION = run("lower", 26, 20)


def text(message: str) -> dict[str, Any]:
    return {"message": message}


KINDS = [
("manifest of a Kubernetes secret", text(f"apiVersion: v1\nkind: Secret\nstringData:\n  db-password: {PW}\n  username: till\n"), [PW], ["username: till"],
  text("kind: Deployment\nspec:\n  secretName: till-tls\n  automountServiceAccountToken: false\n  tokenExpirationSeconds: 3607\n  imagePullSecrets:\n  - name: registry-pull\n")),
("dump of .env", text(f"export PGPASSWORD='{PW}'\nexport MAIL_API_KEY={API_KEY}\nLOG_LEVEL=info\n"), [PW,API_KEY], ["LOG_LEVEL=info"],
  text("DB_PASSWORD_FILE=/run/secrets/db\nSECRET_KEY_REF=till/db\nTOKEN_TTL=3600\nAPI_KEY=\nAUTH_TYPE=ldap\n")),
("Java properties", text(f"jdbc.user = till\nspring.mail.password : {PW}\njavax.net.ssl.keyStorePassword={PW}9\npool.size=8"), [PW], ["jdbc.user = till","pool.size=8"],
  text("password.encoder = bcrypt\nserver.ssl.key-store-type=PKCS12\nspring.security.oauth2.client.registration.till.client-authentication-method = client_secret_basic")),
("stack trace with a JDBC address", text(f"org.postgresql.util.PSQLException: refused\n\tat jdbc:postgresql://db-1:5432/till?user=app&password={PW}&ssl=true\n\tat com.acme.Db.open(Db.java:41)"), [PW], ["db-1:5432/till","ssl=true","Db.java:41"],
  text("java.lang.IllegalStateException: bad token\n\tat com.acme.auth.PasswordEncoder.encode(PasswordEncoder.java:112)\n\tat com.acme.TokenService$$Lambda$412/0x0000000840.apply(Unknown Source)")),
("Oracle thin driver", text(f"open jdbc:oracle:thin:app/{PW}@db-2:1521:ORCL failed"), [PW], ["db-2:1521:ORCL"],
  text("open jdbc:oracle:thin:@db-2:1521:ORCL and jdbc:oracle:thin:@//db-2:1521/svc failed")),
("ODBC password in braces", text("Driver={ODBC Driver 18};Server=sql-3;UID=app;PWD={"+PW_OF_SIGNS+"};Encrypt=yes"), ["Jd4","wB9nLs"], ["Server=sql-3","Encrypt=yes"],
  text("Driver={ODBC Driver 18};Server=sql-3;Trusted_Connection=yes;Authentication=ActiveDirectoryPassword;Encrypt=yes")),
("keyword string of libpq", text(f"dial host=db-4 user=app password='my \\'old\\' {PW}' sslmode=require"), [PW,"old"], ["host=db-4","sslmode=require"],
  text("dial host=db-4 user=app passfile=/home/app/.pgpass sslkey=/etc/ssl/app.key sslmode=require")),
("UPDATE in an SQL log", text(f"UPDATE users SET password='{PW}', api_token = '{API_KEY}' WHERE id=17"), [PW,API_KEY], ["WHERE id=17"],
  text("SELECT password, api_token FROM users WHERE password IS NOT NULL AND token_type = 'bearer' ORDER BY token_id DESC")),
("INSERT with columns", text(f"INSERT INTO users (name, password, age) VALUES ('till', '{PW}', 41)"), [PW], ["'till'","41"],
  text("INSERT INTO settings (name, password_min_length, token_type) VALUES ('till', 12, 'bearer')")),
("HTTP request with a form", text(f"POST /login HTTP/1.1\r\nHost: shop.example\r\nX-Auth-Key: {API_KEY}\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\nusername=till&password={PW}&remember=1"), [API_KEY,PW], ["Host: shop.example","remember=1","username=till"],
  text('GET /reset-password?step=2 HTTP/1.1\r\nX-Token-Expires: 3600\r\nWWW-Authenticate: Bearer realm="till", error="invalid_token"\r\n\r\n')),
("multipart form", text(f'--b7\r\nContent-Disposition: form-data; name="user"\r\n\r\ntill\r\n--b7\r\nContent-Disposition: form-data; name="password"\r\n\r\n{PW}\r\n--b7--'), [PW], ['name="user"\r\n\r\ntill'],
  text('--b7\r\nContent-Disposition: form-data; name="password_hint"\r\n\r\nfirst dog\r\n--b7--')),
("SAML response", text(f"POST /acs SAMLResponse={SAML}&RelayState=home"), [SAML[:40],"lena.kraus"], ["RelayState=home"],
  text('<samlp:NameIDPolicy Format="urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress" ID="_8e8dc5f69a98cc4c1ff3427e5ce34606fd672f91"/>')),
("JWE of five parts", text(f"got {JWE} back"), [JWE.split(".")[1],JWE.split(".")[3]], ["back"],
  text("load org.eyes.view.created.v2 and a.b.c.d.e of eyJack.module.part.one.two")),
("private key in JSON in JSON", {"message":json.dumps({"type":"service_account","private_key":f"-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END PRIVATE KEY-----\n","universe":"till"})}, BODY.split("\n"), ["service_account","universe"],
  {"message":json.dumps({"cert":f"-----BEGIN CERTIFICATE-----\n{BODY}\n-----END CERTIFICATE-----\n","pub":f"-----BEGIN PUBLIC KEY-----\n{BODY}\n-----END PUBLIC KEY-----\n"})}),
("PuTTY key file", text(f"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: till\nPublic-Lines: 1\n{PUBLIC}\nPrivate-Lines: 1\n{KEY}\nPrivate-MAC: {SIGNATURE}\n"), [KEY], ["Comment: till",PUBLIC],
  text(f"authorized_keys has ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{run('alnum', 43, 17)} till and Public-Lines: 1\n{PUBLIC}\n")),
("WireGuard and age keys", text(f"[Interface]\nPrivateKey = {KEY}\n[Peer]\nPublicKey = {PUBLIC}\nPresharedKey = {KEY_2}\n# AGE-SECRET-KEY-1{AGE}"), [KEY,KEY_2,AGE], [PUBLIC],
  text(f"[Peer]\nPublicKey = {PUBLIC}\nPersistentKeepalive = 25\n# public key: age1{run('lower', 58, 19)}")),
("secret piped into a command", text(f"$ echo '{PW}' | docker login --username till --password-stdin\n$ echo \"{PW}8\" | sudo -S apt update"), [PW], ["--username till","apt update"],
  text("$ cat token.txt | docker login --username till --password-stdin\n$ echo 'done' | tee -a log && sudo -S apt update")),
("hashes of passwords", text(f"till:{SHADOW}:19700:0:99999:7:::\nweb {BCRYPT} and {ARGON} end"), [SHADOW[20:],BCRYPT[8:],ARGON[-43:]], [":19700:0:99999","end"],
  text("till:x:1000:1000:Till:/home/till:/bin/bash\nfrom $6 to $12 a month, s/$1$2/$2$1/ and $argon")),
("UUID in .npmrc", text(f"//npm.shop.example/:_authToken={UUID}\nregistry=https://npm.shop.example/"), [UUID], ["registry=https://npm.shop.example/"],
  text(f"//npm.shop.example/:always-auth=true\nrequest {UUID} auth_id={UUID} ok")),
("presigned address", text(f"GET https://b.s3.eu-west-1.amazonaws.com/f?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=900&X-Amz-Security-Token={TOKEN}%2F{API_KEY}&X-Amz-Signature={SIGNATURE}"), [TOKEN,API_KEY,SIGNATURE], ["X-Amz-Algorithm=AWS4-HMAC-SHA256","X-Amz-Expires=900"],
  text(f"GET https://cdn.example/a.js?v={HEX_32}&etag={SIGNATURE}&X-Amz-Checksum-Mode=ENABLED")),
("plan of Terraform", text(f'  ~ resource "db" "a" {{\n      ~ password = "{PW}" -> "{PW}5b"\n      + port     = 5432\n    }}'), [PW,"5b"], ["5432"],
  text('  + resource "db" "a" {\n      + password = (sensitive value)\n      + key_name = (known after apply)\n      ~ auth_token = (sensitive value) -> null\n    }')),
("printed objects of Python and Go", text(f"Config(host='db', password='{PW}', retries=3) and {{Host:db Port:5432 Password:{PW}7 SSL:true}}"), [PW], ["retries=3","SSL:true"],
  text("Config(host='db', password=SecretStr('**********'), token=None, key=<Key object at 0x7f3c2a10>) and {Host:db Password: Token:<nil> KeyFile:/etc/k}")),
("printed arrays of PHP", text(f'Array\n(\n    [password] => {PW}\n    [role] => admin\n)\narray(1) {{\n  ["api_token"]=>\n  string(24) "{API_KEY}"\n}}'), [PW,API_KEY], ["[role] => admin"],
  text('Array\n(\n    [password_hash_algo] => bcrypt\n    [token_count] => 4\n)\n  ["password"]=>\n  NULL\n')),
("maps of Go", text(f"metadata: map[authorization:[Bearer {TOKEN}] x-api-key:[{API_KEY}] user-agent:[grpc-go/1.60]]"), [TOKEN,API_KEY], ["user-agent:[grpc-go/1.60]"],
  text("metadata: map[content-type:[application/grpc] grpc-timeout:[5S] key-count:[4] token-type:[bearer]]")),
("terms of Erlang", text(f'start [{{user, <<"till">>}}, {{password, <<"{PW}">>}}] #{{token => <<"{API_KEY}">>}}'), [PW,API_KEY], ['<<"till">>'],
  text('start [{user, <<"till">>}, {password, undefined}, {token, <<>>}, {auth, false}]')),
("escapes of nginx", text(f'"POST /login" 200 "{{\\x22user\\x22:\\x22till\\x22,\\x22password\\x22:\\x22{PW}\\x22}}" mail lena\\x40till.example'), [PW,"lena"], ["POST /login"],
  text('"POST /list" 200 "{\\x22page\\x22:\\x222\\x22,\\x22token_type\\x22:\\x22bearer\\x22}"')),
("UTF-16 with a zero behind each letter", text("\0".join(f"login password={PW} ok")+"\0"), ["\0".join(PW[:5]),PW[:5]], ["o\0k"],
  text("\0".join("login token_type=bearer ok")+"\0")),
("sentences in other languages", text(f"пароль пользователя: {PW}1\nmot de passe : {PW}2\nla contraseña es {PW}3\ndas Passwort lautet {PW}4\n密码是{PW}5\nパスワードは{PW}6です\nhasło to {PW}7"), [PW], ["пользователя","lautet"],
  text("Пароль неверный: попробуйте снова\nmot de passe : oublié\nla contraseña es incorrecta\ndas Passwort lautet anders\n密码是必填项\nパスワードは必須です")),
("lists of headers", {"rawHeaders":["Host","shop.example","X-Api-Key",API_KEY,"Accept","*/*"],"headers":{"set-cookie":[f"PHPSESSID={PHP_SESSION}; path=/","lang=de"],"authorization":[f"Bearer {TOKEN}"]}}, [API_KEY,PHP_SESSION,TOKEN], ["shop.example","lang=de","*/*"],
  {"rawHeaders":["Host","shop.example","X-Token-Type","bearer","Content-Length","4711"],"headers":{"set-cookie":["lang=de; Path=/","consent=analytics-2026-01-01; Max-Age=3600"]}}),
("transcripts of FTP and Redis", text(f'> USER till\r\n> PASS {PW}\r\n< 230 ok\r\n1700000000.12 [0 lua] "AUTH" "till" "{PW}6"\r\nCONFIG SET requirepass {PW}9'), [PW], ["USER till","230 ok"],
  text('PASS src/app.test.js\nPASS: TestOpen (0.02s)\n--- PASS: TestRead (0.00s)\n1700000000.12 [0 lua] "GET" "auth:user:17"\n"AUTH" "(redacted)" "(redacted)"')),
("stripes of cards", text("read %B4111111111111111^KRAUS/LENA^25121010000000000? and ;5500005555555559=25121010000000000?"), ["4111111111111111","5500005555555559"], ["read"],
  text("read ;8731=2512? and %E? at 4711=25121010")),
("vCard and SIP", text("BEGIN:VCARD\nTEL;TYPE=CELL:+49 171 2345678\nTEL;TYPE=WORK,VOICE:(0171) 2345678\nEMAIL;TYPE=HOME:lena@till.example\nEND:VCARD\nFrom: <sip:+493012345678@sip.till.example>;tag=1"), ["2345678","lena@","93012345"], ["END:VCARD"],
  text("REV:20260101T120000Z\nPRODID:-//Till//4.2//EN\nCSeq: 102 INVITE\nCall-ID: 8675309412\nContent-Length: 1200")),
("LDIF", text(f"dn: cn=till,dc=shop\nuserPassword:: {SSHA}\nunicodePwd:: {KEY[:28]}\nsn: Kraus"), [SSHA[8:],KEY[:28]], ["sn: Kraus"],
  text("dn: cn=till,dc=shop\nbadPwdCount: 0\npwdLastSet: 133512345678901234\npwdProperties: 1\nlockoutTime: 0")),
("DSN of Sentry", text(f"init https://{HEX_32}@o4711.ingest.sentry.io/42 ok"), [HEX_32], ["o4711.ingest.sentry.io/42"],
  text(f"see https://git.till.example/blob/{HEX_32}/a@v2 and https://till.example/@lena/{HEX_32}")),
("commands of Windows", text(f'net user till {PW} /add\ncmdkey /add:srv /user:till /pass:{PW}7\nConvertTo-SecureString "{PW}8" -AsPlainText -Force'), [PW], ["/add","-Force"],
  text("net user till /active:yes\nGet-Credential -UserName till\nConvertTo-SecureString -String $plain -AsPlainText -Force")),
("Wi-Fi and one-time password codes", text(f"scan WIFI:T:WPA;S:till-guest;P:{PW};; and otpauth://totp/Till:lena?secret=JBSWY3DPEHPK3PXP&issuer=Till"), [PW,"JBSWY3DP"], ["till-guest","issuer=Till"],
  text("scan WIFI:T:nopass;S:till-guest;; and otpauth://totp/Till?issuer=Till&digits=6&period=30")),
]  # fmt: skip
"""(kind, event, what goes, what stays, an event that looks alike and stays as it is)."""


def texts_in(value: Any) -> Iterator[str]:
    """All keys and strings of a value, as they are and without backslashes."""
    if isinstance(value, str):
        yield from (value, value.replace("\\", ""))
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for part in pair for text in texts_in(part))
    elif isinstance(value, list):
        yield from (text for part in value for text in texts_in(part))


def redacted(event: dict[str, Any]) -> tuple[str, dict[str, int]]:
    """An event after redaction, the same in the fast way, the slow way and for a second time."""
    before = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    after, counts = redact_text(before, MASK)
    assert (next(redact_texts([before], MASK)).event or before) == after
    assert redact_text(after, MASK) == (after, {})
    return after, counts


@pytest.mark.parametrize("kind", KINDS, ids=[kind[0] for kind in KINDS])
def test_a_form_of_text_hides_no_secret(
    kind: tuple[str, Any, list[str], list[str], Any],
) -> None:
    """The secret goes, the text around it stays, and what only looks like it keeps its bytes."""
    _, event, gone, stays, alike = kind
    after = "\n".join(texts_in(json.loads(redacted(event)[0])))
    assert [part for part in gone if part in after] == []
    assert [part for part in stays if part not in after] == []
    assert redacted(alike)[1] == {}


SENTENCE = f"mail lena@till.example password={PW} ok"
HARMLESS_BYTES = [42, 77, 88, 99, 34, 56, 78, 90, 91, 92]

LISTS = [
    ("Buffer of Node", {"body": {"type": "Buffer", "data": list(SENTENCE.encode())}}),
    ("list of bytes", {"a": [1, 300, {"b": list(SENTENCE.encode())}]}),
    ("list of letters", {"body": list(SENTENCE)}),
    ("list of bytes in JSON in a string", {"m": json.dumps({"b": list(SENTENCE.encode())})}),
    ("list of letters in JSON in a string", {"m": json.dumps({"b": list(SENTENCE)})}),
    ("printed list of bytes", {"m": f"got {list(SENTENCE.encode())}"}),
    ("printed list of letters", {"m": f"got {list(SENTENCE)}"}),
    ("printed Buffer", {"m": f"<Buffer {SENTENCE.encode().hex(' ')}>"}),
    ("bytes below the key of a secret", {"password": {"data": list(PW.encode())}}),
    ("letters below the key of a secret", {"password": list(PW)}),
]


@pytest.mark.parametrize("case", LISTS, ids=[case[0] for case in LISTS])
def test_a_text_as_a_list_hides_nothing(case: tuple[str, dict[str, Any]]) -> None:
    """Bytes and letters are read as the text that they stand for, wherever the list stands."""
    after, counts = redacted(case[1])
    assert counts
    compact = after.replace(" ", "").replace("\\", "")
    for value in ("lena", PW):
        for left in (list(value), list(value.encode())):
            assert json.dumps(left, separators=(",", ":"))[1:-1] not in compact
            assert ",".join(map(repr, left)) not in compact
        assert value.encode().hex(" ") not in after


def test_a_list_of_bytes_stays_a_list_of_bytes() -> None:
    """What is left stands for the redacted text; the letters of a list become its only string."""
    after = json.loads(redacted({"b": list(SENTENCE.encode()), "l": list(SENTENCE)})[0])
    assert bytes(after["b"]).decode() == "mail l***a@till.example password=*** ok"
    assert after["l"] == ["mail l***a@till.example password=*** ok"]


@pytest.mark.parametrize(
    "event",
    [
        {"histogram": HARMLESS_BYTES, "matrix": [HARMLESS_BYTES, [1.5, 7, 300]]},
        {"grades": list("abcabcabcabc"), "password": [1, 2, 3]},
        {"bytes": [255, 254, 253, 0, 1, 2, 3, 4, 5]},
    ],
)
def test_a_list_that_stands_for_no_value_stays(event: dict[str, Any]) -> None:
    """Counts, grades and bytes that are no text keep their bytes."""
    assert redacted(event)[1] == {}


@pytest.mark.parametrize(
    "event",
    [
        {"set-cookie": ["lang=de", {"a": [1]}, f"sid={TOKEN}"]},
        {"phones": ["unknown", None, "030 1234567"], "n": 1},
        {"env": [{"value": "plain words", "name": "DB_PASSWORD"}]},
    ],
)
def test_the_key_of_a_list_counts_for_each_element(event: dict[str, Any]) -> None:
    """Also behind other elements, and for a value that stands before its name; the fast way sees it too."""
    after, counts = redacted(event)
    assert sum(counts.values()) == 1
    assert all(part not in after for part in (TOKEN, "1234567", "plain words"))
