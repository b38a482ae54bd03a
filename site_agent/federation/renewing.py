"""The site's certificate renews itself: a new one takes the place of the old one, and nobody has to do anything.

Steps, each of which may be the last one of a process that is killed:

    1. the coordinator issues a certificate for the same key          asked again, it gives the same one again
    2. keys/site.crt.new is written, whole and durable                at its start, an agent takes the newest one
    3. the line is dialled anew with it                               what is under way is cut, and resumed
    4. the coordinator's welcome: it is accepted, the old one ends    the old one is refused from here on
    5. it takes the place of keys/site.crt                            one step, whole; the one before it is kept

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
from site_agent.home import BEFORE, RENEWED

SLEEP_S_MAX = 3600.0
"""a machine's clock may be set, and a laptop sleep: looked at again after this time"""


class Renewing:
    """One agent's certificates. `run` belongs to a thread of its own, `accepted` and `refused` to the listener's."""

    def __init__(self, context: AgentContext) -> None:
        self._context = context
        self._refused: set[str] = set()
        """files of certificates, until another one is accepted"""
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
        with self._lock:  # else the newest file could be taking its place at this moment
            certificate = self._context.home.certificate()
        now = datetime.fromtimestamp(self._context.clock_s(), UTC)
        wait_s = (renewal.due_at(certificate) - now).total_seconds()
        if wait_s > 0:
            return min(wait_s, SLEEP_S_MAX)
        why = self._renew(certificate, now)
        words = renewal.warning("this site", certificate.not_before, certificate.not_after, now)
        if why is not None and words:
            self._say(f"{words}: {why}")
        return renewal.again_s(certificate)

    def _renew(self, present: Certificate, now: datetime) -> str | None:
        """Ask for a certificate, and take it; return why there is no later one."""
        home, link = self._context.home, self._context.link
        key = home.pem("site.key")
        try:
            pem = link.renew(identity.request(key, present.identity))
            made = identity.identify(pem)
            if made.not_after <= present.not_after:
                return "the coordinator gives no later one"
            if made.not_before > now + identity.CLOCK_SKEW:
                return "the new one is not valid yet: this machine's clock or the coordinator's is wrong"
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
        """The coordinator has welcomed this site: the certificate in use becomes site.crt."""
        home = self._context.home
        present = home.key_file("site.crt")
        with self._lock, contextlib.suppress(StorageError):  # where it cannot now, the next welcome does it
            used = self._left()[0]
            with disk(present, "write"):
                if used == RENEWED:
                    write_whole(home.key_file(BEFORE), present.read_bytes())
                if used != present.name:
                    home.key_file(used).replace(present)
                    sync_path(present.parent)
                home.key_file(RENEWED).unlink(missing_ok=True)
            self._refused.clear()  # their files are gone

    def refused(self) -> bool:
        """The coordinator does not accept the certificate in use; say whether there is another one to go on with."""
        with self._lock:
            used, *others = self._left()
            if not others:
                return False
            self._refused.add(used)
            pem = self._context.home.pem(others[0])
        self._say("the coordinator does not accept this site's newest certificate; going on with the one before it")
        self._context.link.use(pem)
        return True

    def _left(self) -> list[str]:
        """Return the files of the certificates that were not refused, the one in use first."""
        return [name for name in self._context.home.certificates() if name not in self._refused]
