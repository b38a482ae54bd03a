"""Who may see the page on loopback: whoever came by the address that was printed, which works once.

Other users of the machine reach a loopback port too, and so does every web page that is open in the browser. So the
address that the command prints holds a token. It works once and becomes a cookie; then a new address is printed. What
stands in a browser's history, or was read over a shoulder, opens nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable

SESSIONS_MAX = 64
TOKEN_CHARS_MAX = 200


class Sessions:
    """The token that is valid now, and the sessions that were opened. `draw` returns a new secret text."""

    def __init__(self, draw: Callable[[], str], announce: Callable[[str], None] = lambda _: None) -> None:
        self._draw, self._announce = draw, announce
        self._lock = threading.Lock()
        self._open: OrderedDict[bytes, None] = OrderedDict()
        self.token = draw()

    def enter(self, token: str) -> str | None:
        """Return a new session if the token is the valid one, which it then is no more; else None."""
        with self._lock:
            if not hmac.compare_digest(_digest(token), _digest(self.token)):
                return None
            session, self.token = self._draw(), self._draw()
            self._open[_digest(session)] = None
            while len(self._open) > SESSIONS_MAX:
                self._open.popitem(last=False)
            token = self.token
        self._announce(token)
        return session

    def knows(self, session: str) -> bool:
        """Say whether a session was opened here."""
        return _digest(session) in self._open  # by its digest: the time that it takes says nothing of the session


def _digest(text: str) -> bytes:
    return hashlib.sha256(text[:TOKEN_CHARS_MAX].encode(errors="replace")).digest()
