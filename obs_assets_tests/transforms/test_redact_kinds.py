# ruff: noqa: E501 - tables read best with one row a line
"""Kinds of secrets, personal data and look-alikes: a row a kind, with values invented here."""

import json
import random
import string

import pytest

from obs_assets.transforms.redact import RedactConfig, redact_text, redact_texts
from obs_assets.transforms.redact.self_test import check_engine

MASK = RedactConfig()
ALPHABETS = {
    "hex": "0123456789abcdef",
    "digit": string.digits,
    "upper": string.ascii_uppercase + "234567",
    "alnum": string.ascii_letters + string.digits,
    "lower": string.ascii_lowercase + string.digits,
    "letters": string.ascii_letters,
    "word": string.ascii_letters + string.digits + "_-",
    "base64": string.ascii_letters + string.digits + "+/",
}


def run(alphabet: str, length: int, seed: int = 5) -> str:
    """Random characters of an alphabet, the same ones for the same seed."""
    return "".join(random.Random(seed).choices(ALPHABETS[alphabet], k=length))


def pieces(*parts: str | tuple[str, int]) -> str:
    """A token: text as it is, random runs as (alphabet, length)."""
    return "".join(
        part if isinstance(part, str) else run(*part, seed)
        for seed, part in enumerate(parts, start=40)
    )


TOKENS = {
    "Hugging Face": pieces("hf_", ("letters", 34)),
    "SendGrid": pieces("SG.", ("alnum", 22), ".", ("word", 43)),
    "Twilio": pieces("SK", ("hex", 32)),
    "Mailchimp": pieces(("hex", 32), "-us7"),
    "Mailgun": pieces("key-", ("lower", 32)),
    "Telegram": pieces("7", ("digit", 9), ":AA", ("alnum", 33)),
    "Discord bot": pieces("M", ("alnum", 25), ".", ("alnum", 6), ".", ("alnum", 38)),
    "Atlassian": pieces("ATATT3", ("alnum", 180), "=", ("upper", 8)),
    "New Relic": pieces("NRAK-", ("upper", 27)),
    "Square": pieces("sq0csp-", ("alnum", 43)),
    "Airtable": pieces("pat", ("alnum", 14), ".", ("hex", 64)),
    "xAI": pieces("xai-", ("alnum", 80)),
    "Perplexity": pieces("pplx-", ("alnum", 48)),
    "Google access": pieces("ya29.", ("alnum", 120)),
    "Google client": pieces("GOCSPX-", ("alnum", 28)),
    "DigitalOcean": pieces("dop_v1_", ("hex", 64)),
    "Docker Hub": pieces("dckr_pat_", ("alnum", 27)),
    "Shopify": pieces("shpca_", ("hex", 32)),
    "Stripe webhook": pieces("whsec_", ("alnum", 32)),
    "GitLab deploy": pieces("gldt-", ("alnum", 20)),
    "Slack app": pieces("xapp-1-A", ("upper", 10), "-", ("digit", 13), "-", ("hex", 64)),
    "AWS id": pieces("ACCA", ("upper", 16)),
    "Bedrock": pieces("ABSK", ("base64", 128)),
    "Entra ID": pieces(("alnum", 3), "8Q~", ("alnum", 34)),
    "Alibaba": pieces("LTAI5t", ("alnum", 18)),
    "Meta": pieces("EAA", ("alnum", 150)),
    "Cloudflare": pieces("cfk_", ("alnum", 48)),
    "Postman": pieces("PMAK-", ("hex", 24), "-", ("hex", 34)),
    "Vault": pieces("hvs.", ("alnum", 95)),
    "Grafana": pieces("glsa_", ("alnum", 32), "_", ("hex", 8)),
    "Sentry": pieces("sntryu_", ("hex", 64)),
    "Artifactory": pieces("AKCp8", ("alnum", 68)),
}
"""A token of each of 32 issuers, in its documented form."""

PLACES = (
    "batch job read {} and went on",
    "({}) refused",
    "{}",
    "first line\n{}\nlast line",
    "[{}, null]",
)


@pytest.mark.parametrize("issuer", TOKENS)
def test_the_token_of_an_issuer_goes_wherever_it_stands(issuer: str) -> None:
    """Alone, in a sentence, in brackets, on a line: no eight characters of it are left; the words around are."""
    token = TOKENS[issuer]
    for place in PLACES:
        message = redacted({"message": place.format(token)})
        assert left_of(token, message) == "", place
        assert all(
            word in message for word in place.replace("{}", " ").split() if word.isalpha()
        )


SECRET = pieces(("alnum", 24))
PASSWORD = pieces("velvet-", ("lower", 6))
LONG = pieces(("alnum", 40))
HEX = pieces(("hex", 40))
BASE64 = pieces(("base64", 86), "==")

GO = [
    # names of settings
    ("PASS last", f"start: DB_PASS={PASSWORD} LEVEL=low", PASSWORD, "LEVEL=low"),
    ("PWD behind a word", f"start: ORACLE_SYS_PWD={PASSWORD}! LEVEL=low", PASSWORD, "LEVEL=low"),
    ("CREDS", f"start: IMAP_CREDS=postman/{SECRET} LEVEL=low", SECRET, "LEVEL=low"),
    ("account key", f"start: STORAGE_ACCOUNT_KEY={BASE64} LEVEL=low", BASE64, "LEVEL=low"),
    ("key of a role", f"start: APP_SIGNING_KEY={HEX} LEVEL=low", HEX, "LEVEL=low"),
    ("words behind PASSWORD", f"start: root_password_previous={PASSWORD} LEVEL=low", PASSWORD, "LEVEL=low"),
    ("camel case", f"start: dbPass={PASSWORD} LEVEL=low", PASSWORD, "LEVEL=low"),
    ("secret first", f"start: secretKeyBase={HEX} LEVEL=low", HEX, "LEVEL=low"),
    ("a field", {"message": "up", "settings": {"QUEUE_PASS": PASSWORD, "tries": 4}}, PASSWORD, '"tries":4'),
    ("name and value", {"message": "up", "env": [{"name": "CACHE_PASSWORD", "value": SECRET}]}, SECRET, "CACHE_PASSWORD"),
    ("PW", f"start: PGBOUNCER_PW={PASSWORD} LEVEL=low", PASSWORD, "LEVEL=low"),
    # signs between name and value
    ("make", f'step API_TOKEN ::= "{SECRET}"', SECRET, "step"),
    ("element over lines", f"step <apiToken>\n   {SECRET}\n </apiToken>", SECRET, "step"),
    ("type between", f'step var apiToken string = "{SECRET}"', SECRET, "step"),
    ("blank and quotes", f'step password "{SECRET}"', SECRET, "step"),
    ("JSON in JSON in JSON", {"message": "step", "body": json.dumps({"x": json.dumps({"apiToken": SECRET})})}, SECRET, "step"),
    ("attributes", f'step <add key="ApiToken" value="{SECRET}"/>', SECRET, "step"),
    ("comparison", f'step when (apiToken == "{SECRET}") pass()', SECRET, "step"),
    ("a second time", f"step api_token={SECRET} failed; again with {SECRET}", SECRET, "step"),
    # headers
    ("cookie pairs", f"POST /a Cookie: colour=blue; sessionid={LONG}; lang=fr", LONG, "colour=blue", "lang=fr"),
    ("cookie field", {"message": "in", "headers": {"cookie": f"sid={LONG}; tz=UTC", "accept": "text/html"}}, LONG, "text/html"),
    ("X token", f"got 403 X-Shop-Access-Token: {LONG} host=node-8", LONG, "host=node-8"),
    ("scheme of its own", f"head Authorization: ShopKey {LONG} done", LONG, "done"),
    ("subscription key", f"send Ocp-Apim-Subscription-Key: {HEX} size=77", HEX, "size=77"),
    ("set-cookie", f"out Set-Cookie: login_ticket={LONG}; Path=/; SameSite=Strict", LONG, "Path=/", "SameSite=Strict"),
    # addresses
    ("Slack webhook", f"sent https://hooks.slack.com/services/T0AB12CD3/B0EF45GH6/{SECRET} -> 200", SECRET, "hooks.slack.com", "-> 200"),
    ("token as user", f"fetch https://{LONG}@code.shop.test/x/y.git stopped", LONG, "code.shop.test/x/y.git"),
    ("awkward password", "dial amqp://app:fern/Qx7#t9@rabbit-2:5672/work closed", "fern/Qx7#t9", "rabbit-2:5672/work"),
    ("SAS", f"GET https://shop.blob.core.windows.net/a/b.csv?sv=2025-01-05&sr=c&sig={SECRET}{SECRET}%3D", SECRET, "sv=2025-01-05", "sr=c"),
    ("Discord webhook", f"sent https://discord.com/api/webhooks/71{run('digit', 16)}/{LONG}{SECRET} 204", LONG, "discord.com/api/webhooks", "204"),
    ("query", f"GET /v2/items?limit=9&access_token={LONG}&order=up 200", LONG, "limit=9", "order=up"),
    # connection strings, SQL, commands
    ("account key in a string", f"use AccountName=shop;AccountKey={BASE64};EndpointSuffix=core.windows.net", BASE64, "AccountName=shop", "EndpointSuffix=core.windows.net"),
    ("ADO", f"use Server=db-7;Database=till;User ID=app;Pwd={PASSWORD}!;Encrypt=True", PASSWORD, "Database=till", "Encrypt=True"),
    ("identified by", f"CREATE USER 'till'@'%' IDENTIFIED BY '{PASSWORD}' -- done", PASSWORD, "'till'@'%'"),
    ("option", f"run loader --db-password {PASSWORD} --rows 7", PASSWORD, "--rows 7"),
    ("system property", f"java -Dspring.datasource.password={PASSWORD} -jar app.jar", PASSWORD, "-jar app.jar"),
    ("mysql -p", f"run mysql -u copy -p{PASSWORD} -h db-9 till", PASSWORD, "-h db-9 till"),
    ("shared access key", f"use SharedAccessKeyName=read;SharedAccessKey={BASE64}", BASE64, "SharedAccessKeyName=read"),
    ("role with password", f"ALTER ROLE till WITH PASSWORD '{PASSWORD}' VALID UNTIL 'infinity'", PASSWORD, "VALID UNTIL 'infinity'"),
    ("docker login", f"run docker login -u bot -p {PASSWORD} images.shop.test", PASSWORD, "images.shop.test"),
    ("docker auth", {"message": "set", "auths": {"images.shop.test": {"auth": BASE64[:48]}}}, BASE64[:48], "images.shop.test"),
    # personal data
    ("quoted local part", 'returned from "paul weber"@post.example yesterday', "paul weber", "yesterday"),
    ("international domain", "mail to günter@MÜLLEREI-nord.example failed", "günter", "failed"),
    ("mobile of India", "call 091234 56780 today", "091234 56780", "today"),
    ("UnionPay of 18 digits", "paid 6217 0012 3456 7890 11 once", "0012 3456", "once"),
    ("SSN behind words", "SSN as given: 431 52 7790 (new)", "431 52 7790", "new"),
    ("number is", "his number is 0811 234 5670 yes", "0811 234 5670", "yes"),
    ("trunk 8", "call 8 (495) 612-30-74 today", "612-30-74", "today"),
    # rows, blocks, protocols and keys
    ("column of CSV", f"name,password,team\nkim,{PASSWORD},north", PASSWORD, "kim", "north"),
    ("quoted column", f'"no";"api_token";"day"\n"4";"{SECRET}";"2026-05-30"', SECRET, "2026-05-30"),
    ("block of YAML", f"step\ntoken: |\n  {SECRET}\nregion: west", SECRET, "region: west"),
    ("list over lines", f"<key>apiToken</key>\n<string>{SECRET}</string>", SECRET, "apiToken"),
    ("N of SQL", f"CREATE LOGIN till WITH PASSWORD = N'{SECRET}', CHECK_POLICY = ON", SECRET, "CHECK_POLICY = ON"),
    ("configure set", f"run aws configure set aws_secret_access_key {LONG} --profile till", LONG, "--profile till"),
    ("setenv", f"setenv API_TOKEN {SECRET}", SECRET, "setenv"),
    ("IMAP", f'b7 LOGIN "kim" "{SECRET}"', SECRET, "LOGIN"),
    ("SMTP", "C: AUTH PLAIN AGtpbQB2ZWx2ZXQtZ2F0ZS03", "AGtpbQB2ZWx2ZXQtZ2F0ZS03", "AUTH PLAIN"),
    ("user and %", f"smbclient //nas/till -U kim%{PASSWORD}", PASSWORD, "//nas/till"),
    ("from and to", f"password changed from {SECRET} to {SECRET[::-1]}", SECRET, "changed from"),
    ("driver of Go", f"open kim:{SECRET}@tcp(db-4:3306)/till", SECRET, "@tcp(db-4:3306)/till"),
    ("link to a reset", f"GET /password/reset/{LONG} 200", LONG, "/password/reset/"),
    ("member of a JWK", {"kty": "EC", "crv": "P-256", "d": pieces(("word", 43))}, pieces(("word", 43)), "P-256"),
    ("JWK in a text", f'read {{"kty":"oct","k":"{pieces(("word", 86))}","alg":"HS512"}}', pieces(("word", 86)), "HS512"),
    ("hexadecimal key", f"load tenant_key={HEX} ok", HEX, "tenant_key"),
    ("key of the environment", "start: MODEL_KEY=plum-garden-7731-rope LEVEL=low", "plum-garden-7731-rope", "LEVEL=low"),
    ("words of a wallet", {"seed_phrase": " ".join(["ladder", "pony", "velvet"] * 4)}, "pony velvet ladder", "seed_phrase"),
    ("code used once", "Your verification code is 604817, keep it", "604817", "keep it"),
    ("digits under otp", {"message": "sent", "otp": "604817"}, "604817", "sent"),
    ("word and UUID", "with pat-eu1-1f0c9a52-77aa-4b3c-9d54-5f1c2b3a4d5e", "1f0c9a52-77aa-4b3c", "with"),
    ("issuer with digits of base 16", f"with orbit_token_{HEX}", HEX, "with"),
    ("issuer with base64url", f"with orbit_live_{run('alnum', 9)}-{LONG}_{SECRET}", LONG, "with"),
    ("SSN with dots", "SSN: 431.52.7790 (new)", "431.52.7790", "new"),
    # quotes in the text, code around the value, words without signs between them, no sign at all
    ("quoted command", f'"HELLO" "3" "AUTH" "app" "{SECRET}"', SECRET, "HELLO"),
    ("quoted and piped", f'echo "kim:{SECRET}" | chpasswd', SECRET, "chpasswd"),
    ("option of Rust", f'Settings {{ host: "db", password: Some("{SECRET}"), tries: 3 }}', SECRET, "tries: 3"),
    ("option of Java", f"Login[user=kim, password=Optional[{SECRET}], tries=3]", SECRET, "tries=3"),
    ("constructor", f'client_secret = new SecretString("{SECRET}");', SECRET, "client_secret"),
    ("pointer", f'&Config{{Token:&"{SECRET}", Tries:3}}', SECRET, "Tries:3"),
    ("brackets of a random run", f"token: [{SECRET}] tries=3", SECRET, "tries=3"),
    ("joined words", f"read sshkey={SECRET} rootpw={SECRET[::-1]} LEVEL=low", SECRET[::-1], "LEVEL=low"),
    ("joined key", f"read privkey={LONG} LEVEL=low", LONG, "LEVEL=low"),
    ("shared key of a network", f'10.0.0.1 : PSK "{SECRET}" end', SECRET, "end"),
    ("blank alone", f"radius secret {SECRET} for nas-3", SECRET, "for nas-3"),
    ("kind before the value", f"username kim secret 0 {SECRET}", SECRET, "username kim"),
    ("user and password option", f"psexec -u kim -p {PASSWORD}7 cmd", PASSWORD, "cmd"),
    ("community", f"snmpwalk -v2c -c {SECRET} 192.0.2.1 ifTable", SECRET, "ifTable"),
    ("net use behind options", f"net use Z: \\\\nas\\till /user:SHOP\\kim {SECRET}", SECRET, "till"),
    ("JWE without a key", f"session eyJhbGciOiJkaXIifQ..{LONG[:16]}.{LONG}.{SECRET} open", SECRET, "open"),
    ("element in an element", f"<Password><Value>{SECRET}</Value></Password><Plain>true</Plain>", SECRET, "Plain"),
    ("option in quotes", f"+ mysql -uroot '-p{PASSWORD}' -e 'select 1'", PASSWORD, "select 1"),
    ("here string", f"run gh auth login --with-token <<< {SECRET}", SECRET, "--with-token"),
    ("options with slashes", f"xfreerdp /u:kim /p:{SECRET} /v:host-2", SECRET, "/v:host-2"),
    ("login without a scheme", f"run psexec.py shop/kim:{SECRET}@nas.test ls", SECRET, "nas.test ls"),
    ("login and slash", f"credentials: kim / {SECRET} for the wiki", SECRET, "for the wiki"),
    ("numbered key", f"Unseal Key 3: {BASE64}\nseals left 0", BASE64, "seals left 0"),
    ("owner between", f"das neue Kennwort für kim lautet {SECRET}.", SECRET, "kim"),
    ("hexadecimal key in a path", f"GET /v1/api_key/{HEX}/items 200", HEX, "/items 200"),
    ("international prefix", "call 0049 151 23456789 today", "23456789", "today"),
]  # fmt: skip
"""(kind, text or event, what goes, what stays …); a tenth of the rows have the value in a field."""

STAYS = [
    ("printed object", "Dropped token=Token{4d02b9e TaskRecord{a91c55 u10 org.shop/.Till t7}}"),
    ("object and address", "Odd activity token: android.os.BinderProxy@7c90ab1"),
    ("Windows component", "Package_1_for_KB3098765~31bf3856ad364e35~amd64~~10.0.2.31"),
    ("HDFS block", "Removed block blk_-6205531884120934418 of size 1048576"),
    ("counters", "REPORT : 6180 4423 1901 3377 118"),
    ("ids of models and payments", "made chatcmpl-Kq8rT2vX5zB7nM4cJ6wP1s for cus_Lp7mWq2RtVx9Kz, req_4Nc8Xv3TbQ6mYs2K"),
    ("pod", "pod basket-api-6c8d5f7b9-q7m4t restarted"),
    ("digests", f"pull sha256:{run('hex', 64)} trace_id={run('hex', 32)}"),
    ("counts", "usage total_tokens=9071 max_tokens=2048 token_type=bearer"),
    ("settings about passwords", "password_max_length=64 password_help_url=/help token_lifetime=900 key_id=4"),
    ("part of a word", "turkey=walnut88x keypad=numeric10 detokenizer=bpe_base32 authored=eve3 encompass=se45 underpass=open2"),
    ("keys of caches and partitions", f"idempotency_key={run('hex', 32)} cache_key=item:77:v9 partition_key=2026-05-30"),
    ("empty setting", "API_KEY=\nRUN_MODE_NAME=trial7"),
    ("references", "password = var.till_password token = ${{ secrets.SHOP_TOKEN }} apiKey: process.env.SHOP_KEY"),
    ("the next pair", "dovecot: login (plaintext auth): rip=zone.mars.test.org, lip=x token_type=Bearer lifetime_s=3600"),
    ("a name as a value", 'op=password acct="kim" mi="Bad password" us="kim"'),
    ("a printed list", "Supplied credentials: [UsernamePasswordCredential(username=kim, source=null)]"),
    ("algorithms and packages", "HostKey:ssh-ed25519 signing_key_type=rsa io.jsonwebtoken:jjwt-jackson-0.11.2"),
    ("a name of AWS", "read arn:aws:secretsmanager:eu-west-1:123456789012:secret:till/db-Qw4rTy"),
    ("a handler of Java", "o.s.s.w.CustomAuthenticationFailureHandler refused"),
    ("a key of a cache", f"restored from key: Linux-build-{run('hex', 64)} content_key={run('hex', 32)}"),
    ("a name of a host", f"ldap:relay.c72{run('lower', 30)}.interact.example"),
    ("other codes", "exit code 137 status code: 404 zip code 80331 error_code=500123"),
    ("words with digits behind a name", "PASS TestRun2Xyz token OAuth2AccessToken secret K8sSecretStore password Argon2PasswordEncoder"),
    ("words and digits joined", "token Pkcs11Wrapper password Zookeeper3Quorum secret Sqs3QueueWorker token Http2Xhr2Bridge"),
    ("port, path and database", "ssh -l kim -p 2222 host; docker run -u app -p 8080:80 x; mysql -u kim -p till; mkdir -u x -p /tmp/a"),
    ("types and empty options", 'password: Some(...) token: Optional[String] secret: Option<String> pin: Optional.empty x: String("till")'),
    ("tags and addresses", f"pull shop/api:1.25.3-alpine@sha256:{run('hex', 64)} app:{run('hex', 8)}@node-3 to:kim@ "),
    ("a path of tokens", "GET /token/refresh-session-of-tenant /secret/data/till/db /api_keys/list 200"),
    ("status and sizes", 'PUT /f HTTP/1.1" 207 386 1186 -'),
]  # fmt: skip
"""Look-alikes: they pass unchanged."""


def redacted(event: dict[str, object]) -> str:
    """An event after redaction, as its values read; the fast way and the slow way agree."""
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    slow, _ = redact_text(text, MASK)
    fast = next(redact_texts([text], MASK))
    assert (fast.event or text) == slow
    assert redact_text(slow, MASK) == (slow, {})
    body = json.loads(slow)
    body.pop("_redaction", None)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).replace("\\", "")


def left_of(value: str, text: str) -> str:
    """A run of eight characters of a value that stands in a text; empty if there is none."""
    runs = (value[start : start + 8] for start in range(max(1, len(value) - 7)))
    return next((part for part in runs if part in text), "")


@pytest.mark.parametrize("row", GO, ids=[row[0] for row in GO])
def test_a_kind_goes(row: tuple[str, str | dict[str, object], str, str]) -> None:
    """A value that is known by its name, sign, header, address, command or form goes; its neighbours stay."""
    _, told, value, *stays = row
    event = told if isinstance(told, dict) else {"message": told}
    text = redacted(event)
    assert left_of(value, text) == ""
    assert all(part in text for part in stays)


@pytest.mark.parametrize(("kind", "text"), STAYS)
def test_a_look_alike_stays(kind: str, text: str) -> None:
    """A text that looks like a secret or personal data, and holds none, keeps its bytes."""
    event = json.dumps({"message": text})
    assert redact_text(event, MASK) == (event, {}), kind


@pytest.mark.parametrize(
    "event",
    [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"password": "[FILTERED]", "token": "__REDACTED__", "api_key": "********"},
        {"d": "2026-05-30", "k": "v", "p": 1, "q": "select 1", "session": "s-42"},
    ],
    ids=["about a token", "left out by others", "short names"],
)
def test_a_member_that_looks_like_a_secret_stays(event: dict[str, object]) -> None:
    """Members that tell something about a secret, or stand in its place, keep their bytes."""
    text = json.dumps(event)
    assert redact_text(text, MASK) == (text, {})


def test_tokens_of_ones_own_go_behind_their_prefix() -> None:
    """`secret_prefixes` adds an issuer: 16 characters behind it are a token; without it, and shorter, they stay."""
    config = RedactConfig(secret_prefixes=("till_",))
    event = json.dumps({"message": f"got till_{run('lower', 16)} now"})
    assert redact_text(event, MASK) == (event, {})
    text, counts = redact_text(event, config)
    assert counts == {"api_key": 1}
    assert left_of(run("lower", 16), text) == ""
    short = json.dumps({"message": f"got till_{run('lower', 15)} now"})
    assert redact_text(short, config) == (short, {})


CASES = [
    ("export of documents", {"_id": "max.muster@example.org", "_source": {"message": "card 4111 1111 1111 1111 of max.muster1@example.org", "client": {"ip": "203.0.113.60"}, "password": PASSWORD}}, ["max.muster", "4111 1111", "113.60", PASSWORD]),
    ("an object under type", {"type": {"mail": "max.muster@example.org"}}, ["max.muster"]),
    ("environment of a pod", {"env": [{"name": "LEVEL", "value": "low"}, {"name": "SESSION_SECRET", "value": "green lake"}]}, ["green lake"]),
    ("headers of HAR", {"headers": [{"name": "X-Api-Key", "value": "m3n4b5v6c7x8"}, {"name": "Cookie", "value": f"sid={HEX[:12]}; tz=UTC"}]}, ["m3n4b5v6", HEX[:12]]),
    ("attributes of OpenTelemetry", {"attributes": [{"key": "authorization", "value": {"stringValue": "Negotiate QUJD="}}, {"key": "db.password", "value": {"stringValue": PASSWORD}}]}, ["QUJD", PASSWORD]),
    ("environment of a task", {"environment": [{"Name": "client_secret", "Value": "red-roof-31"}]}, ["red-roof-31"]),
    ("a pair", {"tags": [["client_secret", "red-roof-31"], ["team", "green"]]}, ["red-roof-31"]),
    ("an option of a list", {"args": ["pg_dump", "--password", PASSWORD, "--user", "app"]}, [PASSWORD]),
    ("user and password of a list", {"args": ["curl", "-u", f"bot:{PASSWORD}", "https://a.example"]}, [PASSWORD]),
    ("sshpass", {"message": f"sshpass -p '{PASSWORD}' ssh root@host"}, [PASSWORD]),
    ("redis", {"message": f"redis-cli -h cache-1 -a {PASSWORD} ping"}, [PASSWORD]),
    ("netrc", {"message": f"machine a.example login bot password {PASSWORD}"}, [PASSWORD]),
    ("a key of colours", {"message": f"\x1b[32msk-ant-api03-{LONG}\x1b[0m"}, [LONG]),
    ("a colour within", {"message": f"token: sk-ant-api03-{LONG[:8]}\x1b[32m{LONG[8:]}\x1b[0m"}, [LONG[8:24]]),
    ("an address of colours", {"message": "peer \x1b[33m203.0.113.78\x1b[0m left"}, ["113.78"]),
    ("a number of colours", {"message": "ssn \x1b[38;5;196m431-52-7790\x1b[0m"}, ["52-7790"]),
    ("an IBAN of colours", {"message": "iban \x1b[36mDE89370400440532013000\x1b[39m"}, ["3704004405"]),
    ("a MAC of colours", {"message": "mac \x1b[36m00:1b:3c:4d:5e:6f\x1b[39m"}, ["3c:4d:5e"]),
    ("IPv6 of mail", {"message": "from mx (mx [IPv6:2001:db8:77::31]) by in"}, ["2001:db8"]),
    ("IPv6 behind a word", {"message": "peer=tcp:2001:db8::7a left"}, ["2001:db8"]),
    ("VERP", {"message": "from=<bounce+max.muster=example.org@list.example.net>"}, ["max.muster"]),
    ("SRS", {"message": "from=<SRS0=AB=CD=example.org=max.muster@fwd.example.net>"}, ["max.muster"]),
    ("signs of RFC 5321", {"message": "to=</g=max/s=muster/@gate.example.net>"}, ["muster", "max"]),
    ("a literal", {"message": "to=<max.muster@[192.0.2.44]>"}, ["max.muster", "192.0.2.44"]),
]  # fmt: skip
"""Inputs in the shape of public reports, and what is not to be left of them."""


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_an_input_of_a_public_report(case: tuple[str, dict[str, object], list[str]]) -> None:
    """Exports, siblings, lists of arguments, colours of terminals and mail logs hide nothing."""
    _, event, gone = case
    text = redacted(event)
    assert [part for part in gone if part in text] == []


HARMLESS = [
    {"params": [{"name": "password", "value": ""}, {"name": "max_tokens", "value": "512"}]},
    {"command": "docker run -p 9090:90 -u 1001:1001 app && ssh -p 2200 host && cp -a x y", "args": ["--password", "--quiet"]},
    {"stdout": "fine \x1b[32mPASS\x1b[0m build \x1b[33mv4.3.2.1\x1b[0m"},
    {"text": "times 08:10:02:456 and std::map and left-pad@1.3.0"},
]  # fmt: skip


@pytest.mark.parametrize("event", HARMLESS)
def test_an_input_of_a_public_report_that_holds_nothing(event: dict[str, object]) -> None:
    """Empty passwords, ports, numeric users, versions and clock times keep their bytes."""
    text = json.dumps(event)
    assert redact_text(text, MASK) == (text, {})


def test_the_engine_is_right() -> None:
    """The self-test that runs before the first redaction passes with these rules."""
    check_engine()
