"""A PostgreSQL server that tests start, stop and start again."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest


class Server:
    """A new database on a server of its own, which refuses to run as root; skips the test where there is none.

    Args:
        address: Where it is reached.
        subnet: Whom it lets in beside this machine.

    Attributes:
        url: Address of the database.
    """

    def __init__(self, address: str = "127.0.0.1", subnet: str | None = None) -> None:
        initdb, server = binary("initdb"), binary("postgres")
        if initdb is None or server is None:
            pytest.skip("PostgreSQL is not installed here (its server's binaries initdb and postgres)")
        root = os.geteuid() == 0
        user = "postgres" if root else getpass.getuser()
        if root and subprocess.run(["id", user], capture_output=True).returncode:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        # Not below a test's own directory, which other users may not enter.
        self.home = Path(f"/tmp/pipeline-postgres-{os.getpid()}-{time.time_ns()}")
        self.home.mkdir()
        if root:
            shutil.chown(self.home, user)
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if root else []
        data, self.port = self.home / "data", free_port()
        subprocess.run(
            [*as_user, initdb, "-D", str(data), "-U", "sweep", "--auth=trust", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=self.home,
        )
        command = [
            server,
            "-D",
            str(data),
            "-p",
            str(self.port),
            "-h",
            ",".join({"127.0.0.1", address}),
            "-k",
            str(self.home),
            "-F",
            # Two for each of 64 workers, and some.
            "-c",
            "max_connections=200",
        ]
        self._command = [*as_user, *command]
        if subnet is not None:
            with (data / "pg_hba.conf").open("a") as trusted:
                trusted.write(f"host all all {subnet} trust\n")
        self.url = f"postgresql+psycopg://sweep@{address}:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, cwd=self.home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self._answers)

    def stop(self) -> None:
        """Have it break all connections and end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """It hears, and does not answer, for as long as the block lasts."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        all_of_it = [server, *server.children()]
        try:
            for process in all_of_it:
                # Those that tidy up come and go by themselves.
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            yield
        finally:
            for process in all_of_it:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def remove(self) -> None:
        """Stop it, and delete what it kept."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def _answers(self) -> bool:
        import psycopg

        address = f"host=127.0.0.1 port={self.port} user=sweep dbname=postgres"
        try:
            psycopg.connect(address, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is so, for a minute at most."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def binary(name: str) -> str | None:
    """The path of one of PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)
