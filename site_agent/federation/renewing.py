"""The site's certificate renews itself, and a new one takes the place of the old one without a hand.

Steps, each of which may be the last one of a process that is killed:

    1. the coordinator issues a certificate for the same key          asked again, it gives the same one again
    2. keys/site.crt.new is written, whole and durable                at its start, an agent takes the newest one
    3. the line is dialled anew with it                               what is under way is cut, and resumed
    4. the coordinator's welcome: it is accepted, the old one ends    the old one is refused from here on
    5. it takes the place of keys/site.crt                            one step, whole

Rules
1. A certificate that the coordinator does not accept is given up for the other one, where there is one: a coordinator
   that was restored from a backup knows only the old one.
2. Errors of a renewal end nothing. They are tried again, and named when a third of the certificate's life is left.
"""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime

from fedcervix.disk.files import sync_path, write_whole
from fedcervix.disk.storage import disk
from fedcervix.errors import FedcervixError, StorageError
from fedcervix.transport import identity, renewal
from fedcervix.transport.identity import Certificate
from site_agent.federation import shown
from site_agent.federation.context import AgentContext
from site_agent.home import RENEWED

SLEEP_S_MAX = 3600.0
"""a machine's clock may be set, and a laptop sleep: looked at again after this time"""


class Renewing:
    """One agent's certificates. `run` belongs to a thread of its own, `accepted` and `refused` to the listener's."""

    def __init__(self, context: AgentContext) -> None:
        self._context = context
        self._refused: set[str] = set()
        """files of certificates"""
        self._lock = threading.Lock()
        self._said = ""

    # --- renewing ---

    def run(self) -> None:
        """Renew the certificate whenever it is due, until the agent ends."""
        pause_s = 0.0
        while not self._context.stopping.wait(pause_s):
            try:
                pause_s = self._step()
            except FedcervixError as error:  # of the files
                self._say(f"the certificate is not renewed: {error.what}")
                pause_s = SLEEP_S_MAX

    def _step(self) -> float:
        """Renew where it is due; return how long to wait, in seconds. Raises ConfigError, StorageError."""
        certificate = self._context.home.certificate()
        now = datetime.fromtimestamp(self._context.clock_s(), UTC)
        wait_s = (renewal.due_at(certificate) - now).total_seconds()
        if wait_s > 0:
            return min(wait_s, SLEEP_S_MAX)
        why = self._renew(certificate)
        words = renewal.warning("this site", certificate.not_before, certificate.not_after, now)
        if why is not None and words:
            self._say(f"{words}: {why}")
        return renewal.again_s(certificate)

    def _renew(self, present: Certificate) -> str | None:
        """Ask for a certificate, and take it; return why there is no later one."""
        home, link = self._context.home, self._context.link
        key = home.pem("site.key")
        try:
            pem = link.renew(identity.request(key, present.identity))
            made = identity.identify(pem)
            if made.not_after <= present.not_after:
                return "the coordinator gives no later one"
            identity.check_issuer(pem, home.pem("authority.crt"))
            if (made.identity, made.key_fingerprint) != (present.identity, present.key_fingerprint):
                return "the coordinator gives one for another name or key"
            self._take(pem)
        except FedcervixError as error:
            return error.what
        words = f"the certificate of this site was renewed: it ends at {identity.moment(made.not_after)}"
        self._context.show(shown.Message(words))
        return None

    def _take(self, pem: bytes) -> None:
        """Write a renewed certificate beside the one before it, then use it. Raises StorageError."""
        with self._lock:
            write_whole(self._context.home.key_file(RENEWED), pem)
            self._refused.clear()
            self._context.link.use(pem)

    def _say(self, words: str) -> None:
        if words != self._said:
            self._context.show(shown.Message(words))
        self._said = words

    # --- what the coordinator makes of it ---

    def accepted(self) -> None:
        """The coordinator has welcomed this site: a renewed certificate takes the place of the one before it."""
        home = self._context.home
        with self._lock, contextlib.suppress(StorageError):  # where it cannot now, the next welcome does it
            newest, renewed = home.certificates()[0], home.key_file(RENEWED)
            with disk(renewed, "write"):
                if newest == RENEWED and RENEWED not in self._refused:
                    renewed.replace(home.key_file("site.crt"))
                    sync_path(renewed.parent)
                elif renewed.exists():
                    renewed.unlink()

    def refused(self) -> bool:
        """The coordinator does not accept the certificate in use; say whether there is another one to go on with."""
        home = self._context.home
        with self._lock:
            names = [name for name in home.certificates() if name not in self._refused]
            self._refused.update(names[:1])
            other = home.pem(names[1]) if len(names) > 1 else None
        if other is not None:
            self._say("the coordinator does not accept the renewed certificate; going on with the one before it")
            self._context.link.use(other)
        return other is not None
