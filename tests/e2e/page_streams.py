"""A page without a browser: the address that is opened, and the stream of events, as a browser reads it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time

from tests.e2e.loopback import Process, until


def merged(value: object, patch: object) -> object:
    """Apply a merge patch, as RFC 7396, section 2, has it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), change)
    return result


class Stream:
    """One event stream, read by a thread as a browser does."""

    def __init__(self, port: int, cookie: str) -> None:
        self._line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._line.request("GET", "/events", headers={"Cookie": cookie})
        self._answer = self._line.getresponse()
        self.bytes = self.first_bytes = 0
        self.parts: list[tuple[float, dict[str, object]]] = []
        self.view: object = {}
        """what a browser would show"""
        self.keeps = True
        """whether parts are kept, each with when it came"""
        threading.Thread(target=self._read, daemon=True).start()
        until("the whole is there", lambda: self.first_bytes)

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            while line := self._answer.readline():
                self.bytes += len(line)
                if line.startswith(b"data:"):
                    self.first_bytes = self.first_bytes or self.bytes
                    if self.keeps:
                        told = json.loads(line[5:])
                        self.view = merged(self.view, told)
                        self.parts.append((time.monotonic(), told))

    def close(self) -> None:
        self._line.close()


def enter(process: Process) -> tuple[int, str]:
    """Open the address that a page has printed; return its port and the cookie."""
    process.says("token=")
    port, path = re.findall(r"http://127.0.0.1:(\d+)(/\S+)", process.text)[-1]
    line = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
    line.request("GET", path)
    answer = line.getresponse()
    return int(port), str(answer.headers["set-cookie"]).partition(";")[0]
