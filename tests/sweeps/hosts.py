"""Machines of one network, which are namespaces of this one: each with an address and a host name of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

_NETWORK = "10.77.0"
_BRIDGE = "pipelinebr"


class Hosts:
    """A bridge to which hosts are joined one by one; skips the test where the machine does not allow it.

    Attributes:
        address: Address of this machine in their network.
        subnet: The network.
    """

    address = f"{_NETWORK}.1"
    subnet = f"{_NETWORK}.0/24"

    def __init__(self) -> None:
        if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
            pytest.skip("network namespaces need root, ip and unshare")
        self._names: list[str] = []
        made = _ip("link", "add", _BRIDGE, "type", "bridge", check=False)
        if made.returncode:
            pytest.skip(f"no bridge can be made here: {made.stderr.decode()}")
        _ip("addr", "add", f"{self.address}/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")

    def add(self) -> str:
        """Join another host; returns its name."""
        number = len(self._names) + 1
        name = f"pipeline-host{number}"
        self._names.append(name)
        _ip("netns", "add", name)
        outside = f"pipelineve{number}"
        _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", outside, "master", _BRIDGE, "up")
        _ip("-n", name, "addr", "add", f"{self.address_of(name)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        # Programs learn their own address from the way out.
        _ip("-n", name, "route", "add", "default", "via", self.address)
        return name

    def address_of(self, name: str) -> str:
        """The address of a host."""
        return f"{_NETWORK}.{10 + self._names.index(name)}"

    def command(self, name: str, words: Sequence[str]) -> list[str]:
        """A command as one that runs on a host."""
        inside = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', name, *words]
        return ["ip", "netns", "exec", name, *inside]

    def remove(self) -> None:
        """Take all of it away; what runs on a host has ended before."""
        for name in self._names:
            _ip("netns", "delete", name, check=False)
        _ip("link", "delete", _BRIDGE, check=False)


def _ip(*words: str, check: bool = True) -> subprocess.CompletedProcess[Any]:
    return subprocess.run(["ip", *words], check=check, capture_output=True)
