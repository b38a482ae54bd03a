"""The commands that connect to the coordinator: join, and the agent itself."""

from __future__ import annotations

import contextlib
import functools
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fedcervix.core.rounds.state import Outcome
from fedcervix.disk.files import make_folder, write_secret, write_whole
from fedcervix.disk.storage import read_file
from fedcervix.errors import (
    EXIT_OF_OUTCOME,
    INTERRUPTED,
    ConfigError,
    FedcervixError,
    IdentityError,
    LinkError,
    RunError,
)
from fedcervix.runtime.log_budgets import LineBudgets
from fedcervix.runtime.printing import say
from fedcervix.runtime.signals import end_on_signals
from fedcervix.transport import identity, invitations
from fedcervix.transport.key_files import read_pem
from site_agent.commands.command_line import command_line
from site_agent.federation.joining import check_home
from site_agent.home import BEFORE, RENEWED, SiteHome, configured, write
from site_agent.manifest.manifest_file import read_manifest


def join(
    home: SiteHome, invitation: Path, manifest: Path | None, threads: int | None, ignore_columns: Sequence[str]
) -> None:
    """Join a federation: make this site's key here, obtain its certificate, write site.toml.

    Everything is checked before the invitation is used up, and until the certificate has arrived only the new key is
    written: a site that works goes on working. Raises a FedcervixError.
    """
    invited = invitations.Invitation.parse(read_file(invitation))
    now = datetime.now(UTC)
    identity.check_validity(identity.identify(invited.certificate_pem), now)
    check_home(home, invited)
    if manifest is not None:
        read_manifest(manifest, ignore_columns or _ignored(home))
    config = configured(
        home, coordinator=invited.address, manifest=manifest, threads=threads, ignore_columns=ignore_columns
    )
    who = identity.Identity(invited.federation, "site", invited.site)
    key = _known_key(home, invited) if invited.renews else _new_key(home)
    challenge = identity.identify(invited.certificate_pem).serial if invited.renews else ""
    try:
        certificate = _enroll(home, invited, identity.request(key, who, challenge))
    except LinkError as error:  # `doctor` needs the certificate that is not here yet
        _look(invited)
        again = command_line(home, "join")
        error.next_step = f"ask the coordinator's operator whether the coordinator is running; then repeat: {again}"
        raise
    identity.check_issuer(certificate, invited.authority_pem)
    found = identity.identify(certificate)
    if not identity.matches(key, certificate) or found.identity != who:
        raise IdentityError("the certificate that came back is not for this site's key", cause="a faulty coordinator")
    has_another_key = home.key_file("site.key").exists() and home.pem("site.key") != key
    # The certificate comes last and the new key stays until then: a join that is killed here can be repeated.
    write(home, config)
    write_whole(home.key_file("authority.crt"), invited.authority_pem)
    if invited.ledger_key:
        write_whole(home.key_file("ledger.pub"), invited.ledger_key.encode())
    write_secret(home.key_file("site.key"), key)
    write_whole(home.key_file("site.crt"), certificate)
    for file in (NEW_KEY, RENEWED, BEFORE):
        home.key_file(file).unlink(missing_ok=True)
    done = f"renewed the certificate of site {who.name}; it is" if invited.renews else ""
    done = done or f"joined federation {who.federation} as site {who.name}; certificate"
    say(f"{done} valid until {found.not_after:%Y-%m-%d}")
    say(f"the invitation is used up: delete {invitation}")
    if has_another_key:
        say(f"this site has a new key: partners that pinned the earlier one must pin it: {home.command('identity')}")
    _say_what_is_missing(home)


def _say_what_is_missing(home: SiteHome) -> None:
    _say_refusal(home)
    if not home.config().data.manifest:
        say(f"the manifest is not configured yet: write its path into {home.config_file}, [data] manifest")
    say(f"next: {home.command('doctor')}")


def _say_refusal(home: SiteHome) -> None:
    """Say it where the coordinator's present run does not take this site: it was revoked in it, for example."""
    from site_agent.federation.connecting import welcome

    try:
        welcome(home)
    except RunError as error:
        say(f"note: {error.explain()}")
    except FedcervixError:
        return  # `doctor` finds it, and says more


def _look(invited: invitations.Invitation) -> None:
    """Raise IdentityError where another program than the coordinator answers: gRPC only says that it is not reached."""
    from site_agent.federation import tls

    with contextlib.suppress(LinkError):
        tls.look(invited.address, invited.authority_pem)


def _ignored(home: SiteHome) -> Sequence[str]:
    return home.config().data.ignore_columns if home.config_file.exists() else ()


NEW_KEY = "site.key.new"


def _new_key(home: SiteHome) -> bytes:
    """Return the key to enrol with: an enrolment whose answer was lost is repeated with the same one.

    Until the certificate has come, an earlier key and certificate stay as they are.
    """
    file = home.key_file(NEW_KEY)
    if not file.exists():
        make_folder(file.parent)
        write_secret(file, identity.new_key())
    return read_pem(file, needed="the site's new key", next_step=f"rm {shlex.quote(str(file))}, then join again")


def _known_key(home: SiteHome, invited: invitations.Invitation) -> bytes:
    """Return the site's key, if it is the one whose certificate is renewed. Raises IdentityError, ConfigError."""
    key = home.pem("site.key")
    if identity.key_fingerprint(identity.public_key(key)) == invited.renews:
        return key
    raise IdentityError(
        f"this invitation renews the certificate of another key than the one in {home.key_file('site.key')}",
        cause="a wrong --home, or the site joined anew since it was made",
        next_step="name the site's own home folder (--home), or ask the coordinator's operator for a new invitation "
        f"(`coordinator invite {invited.site}`)",
    )


def _enroll(home: SiteHome, invited: invitations.Invitation, request_pem: bytes) -> bytes:
    from site_agent.federation.link import Books, GrpcLink
    from site_agent.store.egress import Egress

    link = GrpcLink(
        invited.address,
        authority_pem=invited.authority_pem,
        certificate_pem=invited.certificate_pem,
        key_pem=invited.key_pem,
        books=Books(egress=Egress(home.egress, invited.address)),
    )
    with contextlib.closing(link):
        return link.enroll(request_pem)


def run(home: SiteHome) -> None:
    """Take part in the run until it is over."""
    certificate = home.certificate()
    identity.check_validity(certificate, datetime.now(UTC))
    address = _address(home)
    from site_agent.commands.display import Display, echo
    from site_agent.federation import tls
    from site_agent.federation.agent import Agent, Checks
    from site_agent.federation.connecting import connect
    from site_agent.federation.context import AgentContext
    from site_agent.federation.fencing import succeed
    from site_agent.federation.line_probe import measured
    from site_agent.federation.noting import Notes
    from site_agent.federation.renewing import Renewing
    from site_agent.federation.site_ledger import SiteLedger
    from site_agent.store.sum_journal import SumJournal
    from site_agent.worker.worker import Worker

    site, display = certificate.identity.name, Display(LineBudgets())
    with home.locked():
        ledger = SiteLedger(home, site)
        link = connect(home, succeed(home), ledger)
        worker = Worker(home, site)

        look = functools.partial(tls.look, address, home.pem("authority.crt"), home.own_files())
        notes = Notes(home, display.show)
        context = AgentContext(home, site, link, notes.show, ledger=ledger, journal=SumJournal(home))
        agent = Agent(
            context,
            worker,
            federation=certificate.identity.federation,
            checks=Checks(lambda: _check_here(home), look, worker.examine, lambda: measured(link)),
            renewing=Renewing(context),
        )
        end_on_signals(agent.stop, at_once=worker.kill)  # a worker that hangs would not end with its input
        echo(f"site {site} of federation {certificate.identity.federation}, coordinator {address}", err=True)
        try:
            with contextlib.closing(link), contextlib.closing(display):
                leave = agent.run()
        except KeyboardInterrupt:
            notes.end("stopped")
            echo(f"stopped; continue with: {home.command()}", err=True)
            sys.exit(INTERRUPTED)
        except FedcervixError as error:
            notes.end("ended with an error", error)
            raise
        notes.end(f"{leave.outcome}: {leave.reason}")
    echo(f"{leave.outcome}: {leave.reason}" + _next(home, leave.outcome))
    sys.exit(EXIT_OF_OUTCOME[leave.outcome])


def _next(home: SiteHome, outcome: Outcome) -> str:
    return "" if outcome is Outcome.ABORTED else f"\nnext: {home.command('finetune')}"


def _check_here(home: SiteHome) -> None:
    """Raise what can be known without the coordinator and without opening an image."""
    from site_agent.federation import hardware

    data = home.config().data
    read_manifest(home.manifest(), data.ignore_columns, data.covariates, data.label_classes)
    hardware.look(home.config().hardware)


def _address(home: SiteHome) -> str:
    address = home.config().link.coordinator
    if not address:
        raise ConfigError(
            f"{home.config_file} names no coordinator",
            cause="[link] coordinator is empty",
            next_step=home.command("join INVITATION.toml"),
        )
    return address
