"""A proxy before a tracking server that can be made slow or faulty, for benchmarks and tests."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Proxy:
    """Passes requests on to a server, unless told otherwise.

    `fault` is None, `down` (the connection is closed), `error` (500), `slow` (each request waits) or
    `deaf` (the request is passed on, its answer is not).

    Args:
        target: the server's address.
        delay: seconds that a `slow` request waits.
    """

    def __init__(self, target: str, delay: float = 0.5) -> None:
        self.fault: str | None = None
        self.faults_met = 0
        proxy = self
        host = target.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fault = proxy.fault
                if fault is not None:
                    proxy.faults_met += 1
                if fault == "down":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if fault == "error":
                    self.send_error(500)
                    return
                if fault == "slow":
                    time.sleep(delay)
                upstream = http.client.HTTPConnection(host, timeout=30)
                upstream.request(self.command, self.path, body, {**dict(self.headers), "Host": host})
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                if fault == "deaf":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
