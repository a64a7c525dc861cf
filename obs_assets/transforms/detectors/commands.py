# ruff: noqa: E501 - patterns read best in one line
"""Passwords on command lines after options whose names do not say so, such as ``mysql -p``."""

import re
from collections.abc import Iterator

from obs_assets.transforms.detectors.base import DIGIT, Span
from obs_assets.transforms.detectors.signs import value_at
from obs_assets.transforms.detectors.values import is_no_value

_OPTIONS = (
    (
        r"mysql(?:dump|admin|import|show|slap|check)?|mariadb(?:-dump|-admin)?|mycli|mytop",
        r"-p(?=[^\s\-])",
    ),
    (r"sshpass", r"-p ?(?=\S)"),
    (
        r"(?:docker|podman|nerdctl|buildah|skopeo|oras|crane|helm|az|oc|hub|npm|heroku|cf|argocd)\s[^\n|;&]{0,80}?login",
        r"-p[ =]",
    ),
    (r"redis-cli|valkey-cli|keydb-cli", r"-a "),
    (r"ldap(?:search|add|modify|delete|passwd|whoami)", r"-w "),
    (r"sqlcmd|bcp|isql|osql", r"-P ?(?=\S)"),
    (
        r"mongo(?:sh|dump|restore|export|import)?|cqlsh|snowsql|influx|clickhouse-client",
        r"-p[ =]",
    ),
    (r"(?:un)?zip|7z|7za", r"-[pP](?=[^\s\-])"),
    (r"openssl", r"-pass(?:in|out)?[ =]pass:"),
    (r"expect|sudo", r"-S <<< ?"),
)
"""Rows of (command, option): the password stands after the option."""

_COMMANDS = [
    re.compile(rf"(?<![\w.-])(?:{command})\s(?:[^\n|;&]{{0,300}}?\s)?{option}")
    for command, option in _OPTIONS
]
_USER_OPTION = re.compile(
    r"""(?<!\S)(?:-u|--user|--proxy-user|-U)[ =]["']?(?P<user>[^\s:"'=]{1,64}):(?P<password>[^\s"']{1,256})"""
)
_USER_AND_PASSWORD = re.compile(r"(?P<user>[^\s:\"'=]{1,64}):(?P<password>[^\s\"']{1,256})")
_FETCHES = re.compile(r"(?<![\w-])(?:curl|wget|http|https|xh|httpie)\s")
USER_OPTIONS = frozenset(("-u", "--user", "--proxy-user"))

_TEXT = r'(?:[^"\\]|\\.)*'
COMMAND_TRIGGER = (
    r"(?:-u|-U|--user|--proxy-user)[ =:\"',\\]+[^\s:\"]+:"
    rf"|(?:mysql|maria|mycli|mytop|sshpass|login|-cli|ldap|sqlcmd|bcp|[io]sql|mongo|cqlsh|snowsql|influx|clickhouse|zip|7z|openssl){_TEXT}\s-[pawP]"
)
"""RE2: fires at least where `find_in_commands` finds a password."""


def find_in_commands(text: str, key: str) -> Iterator[Span]:
    """Passwords after short options: ``mysql -pX``, ``docker login -p X``, ``curl -u user:X``, not ``docker -u 1:1``."""
    if key in USER_OPTIONS:
        match = _USER_AND_PASSWORD.fullmatch(text)
        if match and _is_login(match, fetches=False):
            yield match.span("password")
    if "-" not in text:
        return
    for match in _USER_OPTION.finditer(text):
        if _is_login(
            match,
            fetches=_FETCHES.search(text, max(0, match.start() - 300), match.start())
            is not None,
        ):
            yield match.span("password")
    for command in _COMMANDS:
        for match in command.finditer(text):
            value = value_at(text, match.end(), is_prose=False)
            if (
                value
                and not is_no_value(text[value.start : value.end])
                and not _is_ports(text[value.start : value.end])
            ):
                yield value.start, value.end


def _is_login(match: re.Match[str], *, fetches: bool) -> bool:
    """Whether ``A:B`` is a user and a password and not a user and a group."""
    user, password = match["user"], match["password"]
    if is_no_value(password) or (password.isdigit() and user.isdigit()):
        return False
    return fetches or (
        password != user and (DIGIT.search(password) is not None or not password.isalpha())
    )


def _is_ports(value: str) -> bool:
    return value.replace(":", "").isdigit() and ":" in value
