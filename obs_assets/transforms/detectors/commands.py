# ruff: noqa: E501 - patterns read best in one line
"""Passwords that a command, a statement or a protocol takes without a name: ``mysql -pX``, ``IDENTIFIED BY X``."""

import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import DIGIT, Detector, Span, merged
from obs_assets.transforms.detectors.masks import ASTERISKS, mask_all
from obs_assets.transforms.detectors.signs import value_at
from obs_assets.transforms.detectors.values import is_no_value


def _option(command: str, option: str) -> str:
    """A pattern for an option of a command, with other arguments between them."""
    return rf"(?<![\w.-])(?:{command})\s(?:[^\n|;&]{{0,300}}?\s)?{option}"


_LOGIN = r"(?:docker|podman|nerdctl|buildah|skopeo|oras|crane|helm|az|oc|hub|npm|heroku|cf|argocd)\s[^\n|;&]{0,80}?login"
_WITH_DIGIT = r"(?=[^\s0-9]{0,127}[0-9])"
_NO_WORD = r"(?=[A-Za-z.:/-]{0,127}[^\sA-Za-z.:/,;-])"
"""Behind ``-p`` stands a password, not a database, a path or a port."""
_CHANGED = (
    r"(?i:password|passwd|passphrase|secret|token)(?: was)? (?:changed|updated|rotated) from "
)
_IMAP = r"(?<!\S)[A-Za-z]{1,4}[0-9]{1,6} LOGIN \S{1,128} (?=\S)"
_PIPED = r"(?:[^|\n]{1,200}--(?:password|passphrase|stdin)|sudo\s[^|\n]{0,20}?-S|(?:sudo\s)?chpasswd)"
_STATEMENT = r"(?i)(?<!\w)(?:create|alter|grant)\s"

_USES = {
    "mysql": _option(r"mysql(?:dump|admin|import|show|slap|check)?", r"[\"']?-p(?=[^\s\-])"),
    "maria": _option(r"mariadb(?:-dump|-admin)?", r"-p(?=[^\s\-])"),
    "my": _option(r"mycli|mytop", r"-p(?=[^\s\-])"),
    "sshpass": _option("sshpass", r"-p ?(?=\S)"),
    "login": rf"(?:{_option(_LOGIN, '-p[ =]')}|{_IMAP})",
    "auth ": r"(?i)(?<!\w)auth (?:plain|login|xoauth2|oauthbearer|cram-md5) (?=[0-9A-Za-z+/=]{8})",
    "334 ": r"334 UGFzc3dvcmQ6\s{1,4}(?:C: )?(?=[0-9A-Za-z+/=]{4})",
    "set password": r"(?i)set\s{1,4}password\s{1,4}for\s{1,4}[^\s=]{1,128}\s{0,4}=\s{0,4}(?:password\()?(?=[\"'\\])",
    "-u": r"(?<!\S)(?:-U|--user)[ =][\"']?[^\s%\"']{1,64}%(?P<value>[^\s\"']{1,128})",
    " use": r"(?i:net1?(?:\.exe)?\s{1,4}use)\s{1,4}(?:[A-Za-z*]:?\s{1,4})?\\{2,4}\S{1,128}\s{1,4}(?:/\S{1,128}\s{1,4}){0,3}(?P<value>[^\s/]\S{0,126})(?=\s|\Z)",
    " as ": rf"(?<!\S){_WITH_DIGIT}(?P<value>\S{{6,128}}) as (?:(?:the|my|your|a|new) ){{0,2}}(?i:password|passphrase)(?!\w)",
    "d from": rf"{_CHANGED}{_WITH_DIGIT}(?P<value>\S{{4,128}}) to ",
    " to ": rf"{_CHANGED}\S{{1,128}} to {_WITH_DIGIT}(?P<value>\S{{4,128}})",
    "rabbitmqctl": r"rabbitmqctl\s[^\n|;&]{0,80}?(?:add|change|authenticate)_(?:user|password)\s\S{1,64}\s(?=\S)",
    "-cli": _option(r"redis-cli|valkey-cli|keydb-cli", "-a "),
    "ldap": _option(r"ldap(?:search|add|modify|delete|passwd|whoami)", "-w "),
    "sql": _option(r"sqlcmd|isql|osql", r"-P ?(?=\S)"),
    "bcp": _option("bcp", r"-P ?(?=\S)"),
    "mongo": _option(r"mongo(?:sh|dump|restore|export|import)?", "-p[ =]"),
    "cqlsh": _option("cqlsh", "-p[ =]"),
    "snowsql": _option("snowsql", "-p[ =]"),
    "influx": _option("influx", "-p[ =]"),
    "clickhouse": _option("clickhouse-client", "-p[ =]"),
    "zip": _option(r"(?:un)?zip", r"(?:-[pP]|-P )(?=[^\s\-])"),
    " -p": rf"(?<!\S)(?:-[uUl]|--user(?:name)?)[ =]\S{{1,64}}\s{{1,4}}-p[ =](?![0-9.:/]{{1,60}}(?:/\w{{3}})?(?:\s|\Z)){_NO_WORD}(?=[^\s/])",
    "useradd": _option("useradd|usermod", r"-p[ =]"),
    "snmp": _option(
        r"snmp(?:walk|get|getnext|bulkget|bulkwalk|set|table|trap|inform)", r"-c ?"
    ),
    "7z": _option("7za?", r"-[pP](?=[^\s\-])"),
    "openssl": _option("openssl", r"-pass(?:in|out)?[ =]pass:"),
    "<<<": r"(?:--with-token|--password-stdin|passwd\s-\w|(?:expect|sudo)\s(?:[^\n|;&]{0,300}?\s)?-S) <<< ?",
    "/p": r"(?<!\S)/u(?:ser)?:\S{1,64}\s(?:[^\n|;&]{0,200}?\s)?/p(?:wd?|ass)?:(?=\S)",
    "/rp": r"(?<!\S)/ru\s{1,4}\S{1,64}\s{1,4}/rp\s{1,4}(?=\S)",
    " / ": rf"(?i)(?<!\w)(?:login|credentials?|creds|account)[ \t]?[:=][ \t]?[\w.@+-]{{1,64}} / {_WITH_DIGIT}(?P<value>\S{{6,128}})",
    "crypt(": r"(?<!\w)crypt\(\s{0,4}(?=')",
    "add-mask": r"add-mask(?:::|\])(?=\S)",
    "htpasswd": _option(
        "htpasswd", r"-[A-Za-z]{0,8}b[A-Za-z]{0,8}\s\S{1,200}\s\S{1,64}\s(?=\S)"
    ),
    "securestring": r"(?i:ConvertTo-SecureString)\s{1,4}(?i:-String\s{1,4})?(?=[\"'])",
    "user": r"(?i:net1?(?:\.exe)?\s{1,4}user)\s{1,4}[^\s/]{1,64}\s{1,4}(?=[^\s/*]\S{0,126}\s{1,4}/[A-Za-z])",
    "echo": rf"(?<![\w.-])echo\s{{1,4}}(?:-\w{{1,3}}\s{{1,4}})?(?=[^|\n]{{1,200}}\|\s{{0,4}}{_PIPED})",
    "printf": rf"(?<![\w.-])printf\s{{1,4}}(?=[^|\n]{{1,200}}\|\s{{0,4}}{_PIPED})",
    "identified": r"(?i)identified\s{1,8}(?:with\s{1,8}\S{1,64}\s{1,8})?(?:by|as)\s{1,8}(?:password\s{1,8}|values\s{1,8})?(?=[\"'\\])",
    "identified by": rf"{_STATEMENT}[^\n;]{{1,200}}?\sidentified\s{{1,8}}by\s{{1,8}}(?=[^\s\"'\\])",
    "password": rf"{_STATEMENT}{{1,4}}(?:user|role|login|group)\s[^\n;]{{1,200}}?\spassword\s{{1,8}}(?![=]|(?:expire|history|reuse|require|failed|lock))",
    "requirepass": r"(?<![\w-])(?i:requirepass)\s{1,4}(?=\S)",
    "masterauth": r"(?<![\w-])(?i:masterauth)\s{1,4}(?=\S)",
    '"auth"': r"\"(?i:auth)\"\s{1,4}(?:\"[^\"\s]{1,64}\"\s{1,4})?(?=\"[^\"]{1,200}\"(?:\s|\Z))",
    "pass": r"(?:(?:>|C:)[ -]{0,4}|USER\s\S{1,64}\r?\n(?:[^\n]{0,120}\n)?[ >-]{0,6})PASS\s(?=\S)",
    "wifi:": r"WIFI:(?:[^\n]{0,200}?;)?P:(?P<value>(?:\\.|[^;\\\n]){1,63})",
    "jdbc:oracle": r"jdbc:oracle:\w{1,10}:[\w$#]{1,64}/(?P<value>\"[^\"\n]{1,64}\"|[^\s/@\"']{1,128})@",
    "sqlplus": _option(
        "sqlplus", r"[\w$#]{1,64}/(?P<value>\"[^\"\n]{1,64}\"|[^\s/@\"']{1,128})@"
    ),
}
"""A word in lower case → a pattern. The word is in each text that the pattern matches. The password is the group
``value``, or stands behind the match."""

_PATTERNS = [(word, re.compile(pattern)) for word, pattern in _USES.items()]
_USER_OPTION = re.compile(
    r"""(?<!\S)(?:-u|--user|--proxy-user|-U)[ =]["']?(?P<user>[^\s:"'=]{1,64}):(?P<password>[^\s"']{1,256})"""
)
_USER_AND_PASSWORD = re.compile(r"(?P<user>[^\s:\"'=]{1,64}):(?P<password>[^\s\"']{1,256})")
_FETCHES = re.compile(r"(?<![\w-])(?:curl|wget|http|https|xh|httpie)\s")
USER_OPTIONS = frozenset(("-u", "--user", "--proxy-user"))

_TEXT = r'(?:[^"\\]|\\.)*'
_BLANK = r"(?:\s|\\[nrt])"
_TRIGGER = (
    r"(?:-u|-U|--user|--proxy-user)[ =:\"',\\]+[^\s:\"]+:"
    rf"|(?:-[uUl]|--user(?:name)?)[ =][^\s]+\s+-p[ =]"
    rf"|(?:mysql|maria|mycli|mytop|sshpass|login|-cli|ldap|sqlcmd|bcp|[io]sql|mongo|cqlsh|snowsql|influx|clickhouse|zip|7z|openssl|htpasswd|useradd|usermod|snmp){_TEXT}{_BLANK}-[A-Za-z]"
    rf"|<<< ?[^ ]|/(?:user|u):[^\s]+{_BLANK}|/ru{_BLANK}|(?i:login|credentials?|creds|account)[ \t]?[:=][ \t]?[\w.@+-]+ / |crypt\(|add-mask|(?:echo|printf){_BLANK}{_TEXT}\||(?i:securestring|identified|requirepass|masterauth){_BLANK}"
    rf"|(?i:net1?(?:\.exe)?{_BLANK}+user?){_BLANK}|(?i:create|alter|grant){_BLANK}+(?i:user|role|login|group){_BLANK}|(?i:auth)\\+\"{_BLANK}"
    rf"|(?i:auth (?:plain|login|xoauth2|oauthbearer|cram-md5)) |334 UGFz|[0-9] LOGIN |rabbitmqctl{_BLANK}"
    rf"|(?i:set{_BLANK}+password{_BLANK}+for){_BLANK}|(?:-U|--user)[ =][^\s%\"]+%| as (?:(?:the|my|your|a|new) )*(?i:password|passphrase)"
    r"|(?:changed|updated|rotated) from "
    rf"|(?:>|C:|\\n)[ >-]*PASS{_BLANK}|WIFI:|jdbc:oracle:|sqlplus{_BLANK}"
)


def _find_in_commands(text: str, key: str) -> Iterator[Span]:
    """Passwords without a name: ``mysql -pX``, ``curl -u user:X``, ``IDENTIFIED BY X``, not ``docker -u 1000:1000``."""
    spans: list[Span] = []
    if key in USER_OPTIONS and (match := _USER_AND_PASSWORD.fullmatch(text)):
        spans += _logins(match, fetches=False)
    if "-" in text:
        for match in _USER_OPTION.finditer(text):
            before = max(0, match.start() - 300)
            is_fetch = _FETCHES.search(text, before, match.start()) is not None
            spans += _logins(match, fetches=is_fetch)
    folded = text.lower()
    for word, pattern in _PATTERNS:
        if word in folded:
            spans += (span for match in pattern.finditer(text) for span in _passwords(match))
    return merged(spans)


def _passwords(match: re.Match[str]) -> Iterator[Span]:
    """The span of the password of a use, if there is a password."""
    if "value" in match.re.groupindex:
        start, end = match.span("value")
    else:
        value = value_at(match.string, match.end(), is_prose=False)
        start, end = (value.start, value.end) if value else (0, 0)
    password = match.string[start:end]
    if not (is_no_value(password) or ASTERISKS in password or _is_ports(password)):
        yield start, end


def _logins(match: re.Match[str], *, fetches: bool) -> Iterator[Span]:
    """The span of the password in ``user:password``; ``user:group`` looks the same and is left alone."""
    user, password = match["user"], match["password"]
    if is_no_value(password) or (password.isdigit() and user.isdigit()):
        return
    if fetches or (
        password != user and (DIGIT.search(password) is not None or not password.isalpha())
    ):
        yield match.span("password")


def _is_ports(value: str) -> bool:
    return value.replace(":", "").isdigit() and ":" in value


COMMAND = Detector("password", _TRIGGER, _find_in_commands, mask_all)
