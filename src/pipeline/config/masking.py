"""Passwords and tokens: found before they are written anywhere, masked before they are shown."""

from __future__ import annotations

import os
import re

# scheme://user:password@host. A password may hold an @, and SQLAlchemy takes one with a slash; what follows a port
# does not belong to one. ${oc.env:...} in its place is no secret, but where it comes from.
_USER_INFO = re.compile(
    r"(?P<before>[a-z][a-z0-9+.\-]*://[^\s/:@'\"]*:)"
    r"(?!\$\{)(?:[^\s/'\"]+|(?!\d{1,5}/)[^\s'\"]+?)(?=@)",
    re.I,
)
_QUERY = re.compile(
    r"(?P<before>[?&;](?:password|passwd|pwd|sslpassword|(?:access_|auth_)?token|secret|api_?key)=)"
    r"(?!\$\{)[^\s&;'\"]+",
    re.I,
)
_VARIABLES = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD")
"""Variables whose value is a secret by itself; one shorter than 6 characters would mask ordinary words."""


def holds_secret(text: str) -> bool:
    """Whether ``text`` holds an address with a password or a token in it, masked already or not."""
    return bool(_USER_INFO.search(text) or _QUERY.search(text))


def mask(text: str) -> str:
    """``text`` with every password and token replaced: ``db://me:pw@host`` becomes ``db://me:***@host``.

    Passwords and tokens in addresses, and what the environment holds as a tracking token or password.
    """
    for pattern in (_USER_INFO, _QUERY):
        text = pattern.sub(lambda found: found["before"] + "***", text)
    for name in _VARIABLES:
        if len(value := os.environ.get(name, "")) >= 6:
            text = text.replace(value, "***")
    return text
