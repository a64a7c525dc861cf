"""Passwords and other secrets that are recognized by the name before them: a name, a sign, a value."""

import re
from collections.abc import Iterator

from obs_assets.transforms.detectors import names
from obs_assets.transforms.detectors.base import DIGIT, Detector, Span, digits_of, merged
from obs_assets.transforms.detectors.commands import USER_OPTIONS
from obs_assets.transforms.detectors.issuers import is_key_mask
from obs_assets.transforms.detectors.masks import is_redacted, mask_all, may_be_masked
from obs_assets.transforms.detectors.names import Meaning, judge
from obs_assets.transforms.detectors.randomness import is_hex, is_random
from obs_assets.transforms.detectors.signs import Value, element_after, sign_after, value_at
from obs_assets.transforms.detectors.values import (
    is_left_out,
    is_no_value,
    is_random_token,
    is_secret,
    is_strict_secret,
)

_STEMS = (
    r"pass|pw|psw|psk|secret|token|cred|key|auth|jwt|bearer|sess|sid|sig|cookie|otp|salt|seed|hmac|code"
    r"|kennwort|contrase|senha|motdepasse|mdp|wachtwoord|parol|has[lł]o|heslo|lozinka|losenord|lösenord|adgangskode"
    r"|salasana|jelsz|[sş]ifre|sandi|пароль|密[码碼钥鑰]|口令|令牌|パスワード|トークン|비밀번호|비번|패스워드|토큰|סיסמה|токен|секрет|wagtwoord"
    r"|geslo|slaptazodis|clave|geheimnis|segreto|segredo|secreto"
)
_STEM, _STEM_OF_ANY_CASE = re.compile(_STEMS), re.compile(_STEMS, re.IGNORECASE)
_REST = re.compile(r"[\w.-]{0,64}")
_LONGEST_BEFORE = 64
_WORD_BEFORE = re.compile(r"(?<![A-Za-z])[A-Za-z]{2,20} \Z")
_LONGEST_WORD = 22
"""Characters before ``key`` or ``code`` in which a word is searched for that belongs to the name: ``api key``."""

_NEXT_PAIR = re.compile(r"[A-Za-z_]{2,30}=[^=]")
"""The next name and its value: ``auth: rip=10.0.0.1``."""

_KEY_OF_SETTING = re.compile(r"(?=[^0-9]{1,100}[0-9])[A-Za-z][\w-]{15,200}")
"""A key that is not random, behind the name of a variable of the environment: ``OPENAI_KEY=blue-horse-4471-staple``."""

_IN_ARN = re.compile(r"arn:[\w:-]{1,100}:\Z")
"""The beginning of the name of a resource of AWS, in which words such as ``secret`` stand: ``arn:aws:…:secret:db``."""


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,24} {1,4}(?=[^\s:=]{6})")
_KNOWN_SCHEME = re.compile(
    r"(?i)(?:bearer|basic|token|digest|apikey|negotiate|ntlm) {1,4}(?=\S)"
)
_SPOKEN = re.compile(
    rf"(?: (?:{'|'.join(sorted(names.PREPOSITIONS))}) [\w .@-]{{1,30}}?)?"
    rf"(?:(?: (?:{'|'.join(sorted(names.VERBS))})|(?<=[lł]o) to)"
    r"(?: now)?(?: (?:changed|reset|set) to)?| (?:changed|reset|set) to)[: ] ?"
    r"""(?:"(?P<double>[^"]{1,200})"|'(?P<single>[^']{1,200})'|(?P<bare>[^\s"'<>]{3,200}))""",
    re.IGNORECASE,
)
# In reverse order a longer word comes before its beginning; the order of a set differs from process to process.
_UNSPACED = re.compile(
    rf"(?:{'|'.join(sorted(names.UNSPACED, reverse=True))})"
    rf"(?:{'|'.join(sorted(names.PARTICLES, reverse=True))}) ?(?P<value>[!-~]{{4,200}})"
)
_NOT_LETTERS = re.compile(r"[^A-Za-z'\u2019-]")
_COMMAND_BEFORE = re.compile(
    r"(?:(?i:login[ \t]{1,4}\S{1,64}|(?:config|configure)[ :]set)|(?<!\S)(?:ENV|setenv|set -[A-Za-z]{1,3}))[ \t]{1,4}\Z"
)
"""Words behind which a name and its value follow without a sign: ``configure set aws_secret_access_key X``."""
_COMPARED_BEFORE = re.compile(
    r"""["'](?P<value>[^"']{4,200})["']\s{0,4}[=!]={1,2}\s{0,4}\(?\Z"""
)
_FOLLOWING = re.compile(
    r"[\"'\\]{0,9}(?:[ \t]{1,4}->[ \t]{1,4}|(?P<comma>,)[ \t]{0,4}(?=\\{0,9}[\"']))"
)
_IN_LIST = re.compile(r"\[[ \t]{0,4}\\{0,9}[\"']\Z")
"""A list opens before a value: a comma may lead to another value of the same name."""

_ENCLOSING = ("<", ">", ":", '"')
_BLANKS = re.compile(r"[ \t]{1,8}(?=[^\s-])")
_UNLIKE_WORDS = re.compile(
    r"[ \t]{1,4}(?:[0-9] )?"
    r"(?P<value>(?=[^\sa-z]{0,40}[a-z])(?=[^\sA-Z]{0,40}[A-Z])(?=[^\s0-9]{0,40}[0-9])[0-9A-Za-z!#$%&*+=?@^_~]{12,200})"
    r"(?=[\s\"',;.]|\Z)"
)
"""A run with small letters, capitals and digits behind a blank, maybe behind the kind of an encryption, as of Cisco."""

_WORD_IN = re.compile(r"[a-z]{5}")
"""Five small letters in a row: the value is made of words, as ``Sqs3QueueWorker``. One random run in eight has them."""

_COOKIE = re.compile(r"(?i)cookies?\\{0,8}[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\\\"']{0,9}")
_COOKIE_KEY = re.compile(r"(?i)(?:\A|[_-])(?:set[_-]?)?cookies?\Z")
_COOKIE_STEM = re.compile(
    r"(?i)sess|sid\b|sid\Z|auth|token|ticket|login|remember|[cx]srf|jwt|secret|identity|key"
)

_MIN_SPOKEN = _MIN_IN_QUERY = 8
"""Characters of a secret in a sentence (``token is …``) and in a query string."""

_MIN_COOKIE = 8
"""Characters of a cookie that is a secret."""

_MIN_HEX_COOKIE = 24
"""Characters from which a hexadecimal cookie is a secret under any name."""

_SECRET_NUMBER_DIGITS = 4
"""Digits of a number under the name of a secret, from which it is a secret (a PIN). A shorter number is a count."""

_DIRECTORY = re.compile(r"[/~]|[A-Za-z]:[\\/]")
"""The beginning of a directory: ``pwd`` is also the name of a working directory."""

_TESTED = re.compile(r"[A-Za-z]{1,200}\Z|(?i:\S{0,40}test)|\S{1,80}(?:/|::)")
"""The name of a test: ``PASS: TestOpen`` reports its result."""


_LONGEST_NAME = 120
_LAST_NAME = re.compile(r"(?:[A-Za-z]{2,20} )?[\w.-]{1,120}\Z")


def is_secret_key(key: str) -> bool:
    """Whether the value of this key is redacted as a whole: ``db_password``, ``X-Api-Key``, ``accessToken``."""
    name = _LAST_NAME.search(key[-_LONGEST_NAME:])
    return name is not None and judge(name[0]) in (Meaning.PASSWORD, Meaning.SECRET)


_NAME = re.compile(r"[\w.:-]{1,120}")


def is_naming(text: str) -> bool:
    """Whether a string is only the name of a secret. The secret is then a sibling or the next element."""
    return _NAME.fullmatch(text) is not None and (
        is_secret_key(text) or _COOKIE_KEY.search(text) is not None
    )


def is_option(text: str) -> bool:
    """Whether an argument is an option with a secret as the next argument: ``--password``, ``-u``."""
    return text in USER_OPTIONS or (_NAME.fullmatch(text) is not None and is_secret_key(text))


def is_secret_value(key: str, value: str, *, is_number: bool) -> bool:
    """Whether a value under the key of a secret is a secret: not empty, not redacted, not a count, not a directory."""
    if is_number:
        return len(digits_of(value)) >= _SECRET_NUMBER_DIGITS
    is_directory = key[-3:].lower() == "pwd" and _DIRECTORY.match(value) is not None
    return not (
        value == ""
        or is_redacted(value.strip())
        or is_left_out(value)
        or is_directory
        or value.lower() in ("true", "false", "null", "none")
    )


def _find_passwords(text: str, key: str) -> Iterator[Span]:
    """All secrets in a string: behind a name, in a cookie, on a command line, or under a key that names a secret."""
    spans: list[Span] = []
    if key and is_strict_secret(judge(key), text):
        spans.append((0, len(text)))
    if _COOKIE_KEY.search(key):
        spans += _find_in_cookies(text, 0, len(text))
    elif "ookie" in text or "OOKIE" in text:
        position = 0
        while header := _COOKIE.search(text, position):
            line = text.find("\n", header.end())
            position = len(text) if line < 0 else line
            spans += _find_in_cookies(text, header.end(), position)
    for start, end in _names_in(text):
        if meaning := judge(text[start:end]):
            spans += _values_of(text, start, end, meaning)
    if not text.isascii():
        spans += [
            match.span("value")
            for match in _UNSPACED.finditer(text)
            if _NOT_LETTERS.search(match["value"]) and not may_be_masked(match["value"])
        ]
    return merged(spans)


def _names_in(text: str) -> Iterator[Span]:
    """Possible names of secrets: runs of letters, digits, ``_``, ``-`` and dots that hold the stem of such a name."""
    # Search in lower case: without the flag for any case, a search is five times as fast. In scripts other than ASCII
    # the lower case may have more characters, so that spans would be wrong.
    stems, folded = (_STEM, text.lower()) if text.isascii() else (_STEM_OF_ANY_CASE, text)
    position = 0
    while stem := stems.search(folded, position):
        start, least = stem.start(), max(position, stem.start() - _LONGEST_BEFORE)
        while start > least and (text[start - 1].isalnum() or text[start - 1] in "_-."):
            start -= 1
        rest = _REST.match(text, stem.end())
        position = rest.end() if rest else stem.end()
        if text[start:position].lower() in ("key", "keys", "code") and (
            word := _WORD_BEFORE.search(text[max(0, start - _LONGEST_WORD) : start])
        ):
            start -= len(word[0])
        yield start, start + len(text[start:position].rstrip(".-"))


def _values_of(text: str, start: int, end: int, meaning: Meaning) -> Iterator[Span]:
    """The secret that belongs to a name, and those that follow it: ``"old" -> "new"``, ``["first", "second"]``."""
    span = _value_of(text, start, end, meaning)
    is_list = span is not None and _IN_LIST.search(text[max(0, span[0] - 16) : span[0]])
    while span:
        yield span
        following = _FOLLOWING.match(text, span[1])
        if following is None or (following["comma"] and not is_list):
            return
        value = value_at(text, following.end(), is_prose=False)
        if value is None or not _is_assigned(meaning, "", text[value.start : value.end], value):
            return
        span = value.start, value.end


def _value_of(text: str, start: int, end: int, meaning: Meaning) -> Span | None:
    """The secret that belongs to a name.

    It stands in an XML element, behind a sign, behind an option, in a sentence or in a comparison.
    """
    name = text[start:end]
    value = element_after(text, start, end) if text[start - 1 : start] in _ENCLOSING else None
    sign = None if value else sign_after(text, end)
    if (
        sign
        and text[start - 1 : start] == ":"
        and _IN_ARN.search(text[max(0, start - 110) : start])
    ):
        return None
    if sign:
        value = _credential_at(text, name, *sign)
    elif value is None and (
        name[0] == "-"
        or (
            meaning in (Meaning.PASSWORD, Meaning.SECRET)
            and _COMMAND_BEFORE.search(text[max(0, start - 80) : start])
        )
    ):
        blanks = _BLANKS.match(text, end)
        value = value_at(text, blanks.end(), is_prose=False) if blanks else None
    if value is None and meaning in (Meaning.PASSWORD, Meaning.SECRET):
        value = _behind_blank(text, end)
    if value and _is_assigned(meaning, name, text[value.start : value.end], value):
        return value.start, value.end
    if (
        value
        and meaning not in (Meaning.KEY, Meaning.CODE)
        and text[start - 1 : start] in ("?", "&")
        and _is_in_query(text[value.start : value.end])
    ):
        return value.start, value.end
    if spoken := _SPOKEN.match(text, end):
        return _spoken_span(meaning, spoken)
    before = text[max(0, start - 220) : start]
    if "=" in before[-4:] and (compared := _COMPARED_BEFORE.search(before)):
        shift = start - len(before)
        if not is_no_value(compared["value"]):
            return shift + compared.start("value"), shift + compared.end("value")
    return None


def _behind_blank(text: str, end: int) -> Value | None:
    """The value behind a name and a blank, without any sign: ``radius secret X``, ``enable secret 0 X``.

    Most words behind a name are prose, so the value must be unlike any word.
    """
    match = _UNLIKE_WORDS.match(text, end)
    if match is None or not is_random(match["value"]) or _WORD_IN.search(match["value"]):
        return None
    return Value(*match.span("value"), is_quoted=False, is_prose=True)


def _credential_at(text: str, name: str, start: int, is_prose: bool) -> Value | None:
    """The value behind a sign, without the scheme of an ``Authorization`` header, such as ``Bearer``."""
    scheme = (_SCHEME if name.lower().endswith("authorization") else _KNOWN_SCHEME).match(
        text, start
    )
    if (
        scheme
        and (value := value_at(text, scheme.end(), is_prose=False))
        and not value.is_quoted
    ):
        return value
    return value_at(text, start, is_prose=is_prose)


def _is_assigned(meaning: Meaning, name: str, value: str, at: Value) -> bool:
    """Whether the value of a name is a secret: not the result of a redaction, and not a directory."""
    is_left = (
        is_redacted(value) or is_key_mask(value)
        if meaning is Meaning.PASSWORD
        else may_be_masked(value)
    )
    if is_left or (name[-3:].lower() == "pwd" and _DIRECTORY.match(value)):
        return False
    if at.is_prose and meaning is Meaning.WEAK and _NEXT_PAIR.match(value):
        return False
    if at.is_prose and not at.is_quoted and _is_word_of(name, value):
        return False
    if meaning is Meaning.KEY and name.isupper() and _KEY_OF_SETTING.fullmatch(value):
        return not is_no_value(value)
    return is_secret(meaning, value, is_quoted=at.is_quoted, is_prose=at.is_prose)


def _is_word_of(name: str, value: str) -> bool:
    """Whether a value behind a blank is a word: in letters beyond ASCII, or the name of a test behind ``PASS:``."""
    if value.isalpha() and not value.isascii():
        return True
    return name.lower() == "pass" and _TESTED.match(value) is not None


def _is_in_query(value: str) -> bool:
    """Whether the value of ``?sig=`` or ``&code=`` is a secret: in a URL such names rarely have another meaning."""
    is_left = is_no_value(value) or may_be_masked(value)
    return len(value) >= _MIN_IN_QUERY and DIGIT.search(value) is not None and not is_left


def _spoken_span(meaning: Meaning, match: re.Match[str]) -> Span | None:
    """The span of the secret after ``password is``; None if the text there is prose.

    A password stands in quotes, or has digits or signs in it. Other secrets have a digit and 8 characters or more.
    """
    start, end = match.span(match.lastgroup or 0)
    if match.lastgroup == "bare":
        end = start + len(match["bare"].rstrip(".,;:!?)"))
    value = match.string[start:end]
    is_left = (
        is_redacted(value) or is_key_mask(value)
        if meaning is Meaning.PASSWORD
        else may_be_masked(value)
    )
    if is_left or is_no_value(value):
        return None
    if meaning is Meaning.CODE:
        is_told = is_strict_secret(meaning, value)
    elif meaning is Meaning.PASSWORD:
        is_told = match.lastgroup != "bare" or _NOT_LETTERS.search(value) is not None
    else:
        is_told = len(value) >= _MIN_SPOKEN and DIGIT.search(value) is not None
    return (start, end) if is_told else None


def _find_in_cookies(text: str, start: int, end: int) -> Iterator[Span]:
    """The values of a Cookie header (RFC 6265) that give access to a session."""
    for pair in text[start:end].split(";"):
        name, sign, value = pair.partition("=")
        bare = re.split(r"[\s\"'\\]", value, maxsplit=1)[0]
        if sign and _is_cookie_secret(name.strip(), bare):
            begin = start + len(name) + 1
            yield begin, begin + len(bare)
        start += len(pair) + 1


def _is_cookie_secret(name: str, value: str) -> bool:
    """Whether the value of a cookie gives access to a session, by its name or because it is random."""
    if len(value) < _MIN_COOKIE or is_no_value(value) or may_be_masked(value):
        return False
    if _COOKIE_STEM.search(name):
        return DIGIT.search(value) is not None
    return is_random_token(value) or (len(value) >= _MIN_HEX_COOKIE and is_hex(value))


_QUOTES = r"[\"'`\\]"
_WHOSE = r"(?:(?: (?:[а-яё]|\\u04[345][0-9a-f])+)*| #?[0-9]{1,2})"
_SIGN_TRIGGER = (
    rf"{_QUOTES}*(?:&quot;)?(?:\[[^\]]*\])?(?:{_QUOTES}|[)\]])*{_WHOSE}"
    r"(?:(?:[\s,;:]|\\[rnt])+[\"'\\]*[A-Za-z&*][\w.<>\[\]?&*:]*[\"'\\]*\s*:?=|[\s,;\\rnt]+[\"'\\]*(?i:value|val|content|default)[\"'\\]*\s*:|\s*(?:\\t)*[:?!.+-]*[:=>]"
    r"|\s*[,(|]?\s*[bruf@$]?[\"'`\\]|\s*\||[^<>\"]*>|</)"
)
_COMMAND_TRIGGER = r"(?:(?i:login\s+\S+|(?:config|configure)[ :]set)|ENV|setenv|set -[A-Za-z]+)\s+[0-9A-Za-z_.-]*"
_OPTION_TRIGGER = (
    rf"(?:-[0-9A-Za-z_.-]*|{_COMMAND_TRIGGER})(?i:{_STEMS})[0-9A-Za-z_.-]*[\"'\\,]* [^\s-]"
)
_VALUE_FIRST = (
    r'"(?i:value|val|v|content|default)"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[0-9.eE+-]+)\s*,'
    r'\s*"(?i:name|key|k|header|variable|field|property|parameter|option|attribute)"\s*:\s*"[^"\\]*'
)
"""RE2: a value and the beginning of its name in the member behind it: ``{"value": "X", "name": "DB_``."""

_BLANK_TRIGGER = rf"(?i:{_STEMS})[0-9A-Za-z_.-]*[ \t]+(?:[0-9] )?[0-9A-Za-z!#$%&*+=?@^_~]{{12}}"
_OTHER_TRIGGER = rf"{_VALUE_FIRST}(?i:{_STEMS})|(?i:cookies?){_QUOTES}*\s*[:=]|[=!]=+\s*\(?[0-9A-Za-z_.-]*(?i:{_STEMS})"
_RANDOM_TRIGGER = r"(?:[A-Za-z][0-9A-Za-z-]* +)?[\w+/=.~%-]{16}"
_QUERY_TRIGGER = rf"[?&][0-9A-Za-z_.-]*(?i:{_STEMS})[0-9A-Za-z_.-]*=[^\s&\"]{{8}}"
_TRIGGER = "|".join(
    (
        _QUERY_TRIGGER,
        names.trigger(_SIGN_TRIGGER, _RANDOM_TRIGGER),
        _OPTION_TRIGGER,
        _BLANK_TRIGGER,
        _OTHER_TRIGGER,
    )
)
PASSWORD = Detector("password", _TRIGGER, _find_passwords, mask_all)
