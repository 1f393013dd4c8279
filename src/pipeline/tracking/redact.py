"""Keeping passwords out of everything that is written down."""

import re

_PASSWORD = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s:/@'\"]*):(?P<secret>[^\s/'\"]+)@"
)
_TOKEN = re.compile(
    r"(?i)(?P<name>[?&;](?:password|passwd|pwd|token|secret|api_key|apikey|sslpassword)=)[^&;\s'\"]+"
)


def redact(text: str) -> str:
    """Replace the passwords of the addresses in a text: `db://me:pw@host` becomes `db://me:***@host`."""
    return _TOKEN.sub(r"\g<name>***", _PASSWORD.sub(r"\g<scheme>\g<user>:***@", text))


def has_secret(uri: str) -> bool:
    """Whether an address carries a password or token (also one that is already redacted)."""
    return redact(uri) != uri or ":***@" in uri or "=***" in uri
