"""Passwords and tokens in addresses: found before they are written anywhere, masked before they are shown."""

from __future__ import annotations

import re

# scheme://user:password@host, and ?token=… behind any address.
_USER_INFO = re.compile(
    r"(?P<before>[a-z][a-z0-9+.\-]*://[^\s/:@'\"]*:)(?P<secret>[^\s/@'\"$][^\s/'\"]*|[^\s/@'\"])(?=@)", re.I
)
_QUERY = re.compile(
    r"(?P<before>[?&](?:password|passwd|pwd|token|access_token|api_key|secret)=)(?P<secret>[^\s&'\"]+)", re.I
)


def holds_secret(text: str) -> bool:
    """Whether ``text`` holds an address with a password or a token in it."""
    return bool(_USER_INFO.search(text) or _QUERY.search(text))


def mask(text: str) -> str:
    """``text`` with every password and token in an address replaced by ``***``."""
    for pattern in (_USER_INFO, _QUERY):
        text = pattern.sub(lambda found: found["before"] + "***", text)
    return text
