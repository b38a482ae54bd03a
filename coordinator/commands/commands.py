"""What the commands of `coordinator` do. `coordinator.cli` declares their options."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import click

from coordinator.calls.control import Control
from coordinator.calls.service import Service
from coordinator.calls.serving import STOP_GRACE, Serving, check_free
from coordinator.commands.looking import runs
from coordinator.commands.models import check_start, export_decisions
from coordinator.commands.operator import ask
from coordinator.home import first_model
from coordinator.home.founding import Founding, certify_self, create, ledger_key
from coordinator.home.home import Home
from coordinator.home.registry import Registry
from coordinator.limits.descriptor_shares import bounds
from coordinator.notify.notifying import notifying
from coordinator.run import history, results
from coordinator.run.engine import Engine
from coordinator.run.paces import Paces
from coordinator.run.prediction import ended_rounds
from coordinator.run.run_ledger import first_entries
from coordinator.run.traffic import RunTraffic
from fedcervix.core.events import SiteRevoked
from fedcervix.core.modes import Mode
from fedcervix.core.plan import differences
from fedcervix.core.rounds.state import Outcome, Presence
from fedcervix.disk.descriptors import raise_limit
from fedcervix.disk.files import write_secret
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.disk.ownership import open_to_others
from fedcervix.disk.storage import disk
from fedcervix.errors import (
    EXIT_OF_OUTCOME,
    INTERRUPTED,
    ConfigError,
    FullDiskError,
    IdentityError,
    RunError,
    StorageError,
)
from fedcervix.models.blobs import BlobStore
from fedcervix.runtime.commandline import is_named
from fedcervix.runtime.log import logger, ration
from fedcervix.runtime.log_budgets import LineBudgets
from fedcervix.runtime.malloc_tuning import share_memory_among_threads
from fedcervix.runtime.printing import say
from fedcervix.runtime.signals import end_on_signals
from fedcervix.transport import identity, invitations, renewal, rpc
from fedcervix.transport.address import Address
from fedcervix.trust import key_texts
from fedcervix.wire import federation_pb2 as wire


def init(home: Home, folder: Path | None, name: str, advertise: str, bind: str, sites: str, profile: str) -> None:
    """Make a home folder: authority, certificates, commented configuration.

    Raises click.UsageError, ConfigError, StorageError.
    """
    if folder and is_named("home") and folder.absolute() != home.folder:
        raise click.UsageError(f"two folders are named, {folder} and {home.folder} (by --home): give one")
    home = Home(folder.absolute()) if folder else home
    roster = tuple(site.strip() for site in sites.split(",") if site.strip())
    told = Founding(name=name, advertise=advertise, bind=bind or _bind(advertise), sites=roster, profile=profile)
    create(home, told, datetime.now(UTC))
    say(f"made {home.folder}: federation {name}, sites {', '.join(roster)}, profile {profile}")
    say(f"back up {home.key_file('authority.key')}: it signs every certificate of this federation")
    say(f"next: look at {home.config_file}, then {home.command('start --mode csfssl')}")


def _bind(advertise: str) -> str:
    """Return the default address to listen on: all interfaces, at the advertised port."""
    everywhere = "[::]" if advertise.startswith("[") else "0.0.0.0"  # noqa: S104  (the operator chose to be reached)
    return f"{everywhere}:{advertise.rpartition(':')[2]}"


def invite(home: Home, site: str, out: Path | None) -> None:
    """Make a one-time invitation file for a site. Raises ConfigError, IdentityError, StorageError."""
    out, until = _invited(home, site, out, "", invitations.LIFETIME)
    say(f"wrote {out}: works once, until {identity.moment(until)}; anyone who has it can join as {site}")
    _say_of_invitation(home, site, out)
    say(f"next, at the site: site-agent join {shlex.quote(out.name)} --manifest MANIFEST.csv")


def renew(home: Home, site: str, out: Path | None) -> None:
    """Make an invitation that renews the certificate of a site, for the key that the site has.

    Raises ConfigError, IdentityError where there is no certificate or it ended too long ago, StorageError.
    """
    known = Registry(home.registry, home.held_to_upgrade).roll().certificate(site)
    if known is None or known.key_fingerprint is None:
        raise IdentityError(
            f"site {site} has no certificate that could be renewed",
            cause="it never joined, or it was revoked",
            next_step=home.command(f"invite {site}"),
        )
    if not renewal.is_renewable(known.not_after, datetime.now(UTC)):
        raise IdentityError(
            f"the certificate of site {site} ended at {identity.moment(known.not_after)}",
            cause=f"a certificate is renewed for {renewal.GRACE.days} days after its end; then the site joins anew",
            next_step=home.command(f"invite {site}"),
        )
    out, until = _invited(home, site, out, known.key_fingerprint, invitations.RENEWAL_LIFETIME)
    say(f"wrote {out}: works once, until {identity.moment(until)}, and only with the key that {site} has")
    _say_of_invitation(home, site, out)
    say(f"next, at the site: site-agent join {shlex.quote(out.name)}")


def _invited(home: Home, site: str, out: Path | None, renews: str, lifetime: timedelta) -> tuple[Path, datetime]:
    """Write an invitation; return its file and its end. Raises ConfigError, IdentityError, StorageError."""
    config = home.config()
    if site not in config.run.sites:
        raise ConfigError(
            f"site {site!r} is not in the roster: {', '.join(config.run.sites)}",
            cause="[run] sites does not name it",
            next_step=f"add it in {home.config_file}, then invite it",
        )
    out = _invitation_file(site, out)
    _check_ours(home, site, out)
    now, key = datetime.now(UTC), identity.new_key()
    who = identity.Identity(config.federation.name, "enroll", site)
    authority = home.authority()
    certificate = identity.issue(authority, identity.public_key(key), who, now, lifetime)
    invitation = invitations.Invitation(
        who.federation,
        site,
        home.address(),
        authority.certificate_pem,
        certificate,
        key,
        renews,
        own_ledger_key(home),
    )
    made = identity.identify(certificate)
    if _is_invited(home, site):
        say(f"note: the earlier invitation of {site} no longer works: send the new one", err=True)
    write_secret(out, invitation.to_toml().encode())
    try:
        Registry(home.registry).invite(site, made.serial, made.not_after, now, renews or None)
    except BaseException:
        out.unlink(missing_ok=True)  # it would not work
        raise
    return out, made.not_after


def _say_of_invitation(home: Home, site: str, out: Path) -> None:
    if out.stat().st_mode & 0o077:
        say(f"warning: others on this machine can read {out}: its file system keeps no permissions", err=True)
    if revoked_in := _revoked_in(home, site):
        say(f"note: {site} was revoked during run {revoked_in} and takes part from the next run on", err=True)


def own_ledger_key(home: Home) -> str:
    """Return the public half of the ledger key (PEM). Raises StorageError."""
    return key_texts.public_pem(identity.public_key(ledger_key(home)))


def _is_invited(home: Home, site: str) -> bool:
    """Say whether an invitation of this site is still open."""
    known = Registry(home.registry).roll().credentials.values()
    return any((one.site, one.role, one.state) == (site, "enroll", "valid") for one in known)


def _revoked_in(home: Home, site: str) -> str:
    """Return the unfinished run during which a site was revoked; empty where there is none."""
    if all(entry.outcome == history.UNREAD for entry in history.entries(home)):
        return ""
    now = history.stands(home, whole=False)
    gone = any((one.site, one.presence) == (site, Presence.REVOKED) for one in now.sites)
    return now.run if gone and not now.outcome else ""


def _invitation_file(site: str, out: Path | None) -> Path:
    """Return where to write an invitation. Raises RunError if another file is there, StorageError."""
    out = out or Path(f"{site}.invitation.toml")
    with disk(out, "write"):
        out = out / f"{site}.invitation.toml" if out.is_dir() else out
        if out.exists() and not _is_invitation(out, site):
            raise RunError(
                f"{out} exists already and is not an invitation of {site}: nothing was written",
                cause="--out names a file with other content, or the invitation of another site",
                next_step="name another file with --out",
            )
    return out


def _check_ours(home: Home, site: str, out: Path) -> None:
    """Raise StorageError if another user could replace the invitation with their own."""
    with disk(out, "write"):
        found = open_to_others(out.parent)
    if found is not None:
        folder, who = found
        raise StorageError(
            f"{who} can write to {folder}: no invitation was made",
            cause="they could replace the invitation with their own, and the site would join another federation",
            next_step=f"chmod go-w {shlex.quote(str(folder))}, or name a file in a folder of yours: "
            + home.command(f"invite {site} --out ~/{site}.invitation.toml"),
        )


def _is_invitation(file: Path, site: str) -> bool:
    head = f"# Invitation of site {site} ".encode()
    if not file.is_file():
        return False
    with file.open("rb") as content:
        return content.read(len(head)) == head


def begin(home: Home, mode: Mode, *, new: bool, force_retired: bool = False) -> None:
    """Begin a run without listening: the next start of the coordinator continues it.

    Raises RunError, ConfigError, ModelError, StorageError.
    """
    home.config()
    home.authority()
    with home.locked():
        if not new:
            history.check_numerics(home)
        with contextlib.closing(Journal(home.journal)) as journal:
            last = history.unfinished(home, journal)
            if last is not None and not new:
                raise _is_unfinished(home, last)
            blobs = BlobStore(home.blobs)
            record = _begun(home, journal, blobs, mode, "begin", instead_of=last, force_retired=force_retired)
    say(f"created: run {record.run}, sites {', '.join(record.plan.sites)}")
    say(f"next: start the service, or {home.command('start')}")


def start(home: Home, mode: Mode | None, bind: str, *, new: bool, force_retired: bool = False) -> None:
    """Run the federation; an unfinished run is continued, unless this version computes otherwise."""
    share_memory_among_threads()
    ration(LineBudgets())
    config = home.config()
    to = _bound(bind, config.listen.bind)
    bounds(raise_limit(), len(config.run.sites))
    with home.locked():
        if not new:
            history.check_numerics(home)
        check_free(to, home.config_file)
        home.reserve.make()
        home.reserve.spend(lambda: certify_self(home, datetime.now(UTC)))
        journal, blobs = Journal(home.journal), BlobStore(home.blobs)
        record = _run_to_do(home, journal, blobs, mode, new=new, force_retired=force_retired)
        paces, traffic = Paces(record.run, home.paces), RunTraffic(record.run, home.paces)
        engine = Engine(journal, blobs, record, paces=paces, traffic=traffic)
        _check_ledger(home, engine)
        _apply_revocations(home, engine)
        with notifying(home, engine, record.begun_at):
            _serve(home, engine, blobs, to)
        journal.close()
        run = engine.run
        if not run.ended:
            traffic.keep(ended_rounds(run) + 1)
    if not run.ended:
        say(f"stopped; to continue the run: {home.command('start')}", err=True)
        sys.exit(INTERRUPTED)
    results.store(run, blobs, home.results, paces.known, traffic.rounds)
    _announce(home, run.run, run.outcome or Outcome.ABORTED, run.reason)


def _bound(option: str, configured: str) -> Address:
    """Return where to listen. Raises ConfigError."""
    try:
        return Address.parse(option or configured, port_min=0)
    except ValueError as error:
        raise ConfigError(
            f"--bind {error}",
            cause="--bind must have the same form as [listen] bind",
            next_step="give the command again with --bind HOST:PORT",
        ) from error


def _run_to_do(
    home: Home, journal: Journal, blobs: BlobStore, mode: Mode | None, *, new: bool, force_retired: bool
) -> RunRecord:
    """Return the unfinished run, or begin one."""
    last = history.unfinished(home, journal)
    if last is not None and not new:
        return _resumed(home, last, mode)
    if mode is None:
        raise RunError(
            "no unfinished run to continue",
            cause="the last run has ended, or there was none yet; --mode csfssl or --mode ppfssl starts a new one",
            next_step=home.command("start --mode csfssl"),
        )
    return _begun(home, journal, blobs, mode, "start", instead_of=last, force_retired=force_retired)


def _begun(
    home: Home,
    journal: Journal,
    blobs: BlobStore,
    mode: Mode,
    command: str,
    *,
    instead_of: RunRecord | None,
    force_retired: bool,
) -> RunRecord:
    """Begin a run, and abandon an unfinished one. Errors in the plan or in its first model are reported before that.

    `command`: the one that was typed, begin or start.

    Raises ConfigError, ModelError, StorageError.
    """
    plan, now = home.plan(mode), time.time()
    base = first_model.taken_in(home, blobs, plan)
    words = f"{command} --mode {mode}{' --new' if instead_of else ''} --force-retired"
    check_start(home, plan, base, forced=force_retired, again=home.command(words))
    if instead_of is not None:
        history.abandon(home, journal, blobs, instead_of, now)
    record = history.new_record(plan, base, now, taken={one.run for one in journal.runs()})
    authority = home.authority()
    first = first_entries(record, authority.federation, authority.certificate_pem.decode(), own_ledger_key(home))
    journal.begin(record, (0, first))
    logger(run=record.run).info("run begins", mode=mode, sites=",".join(plan.sites), plan=plan.digest)
    return record


def _check_ledger(home: Home, engine: Engine) -> None:
    """Say it where the run has no ledger. Raises ConfigError where its key is another one, StorageError."""
    known = engine.ledger.known
    own = key_texts.public_pem(identity.public_key(home.pem("ledger.key"))) if known.ledger_key else ""
    if not known.ledger_key:
        logger(run=engine.run.run).warning("the run keeps no ledger: it began with an earlier version")
    elif known.ledger_key != own:
        file = home.key_file("ledger.key")
        raise ConfigError(
            f"{file} is not the key with which the ledger of run {engine.run.run} began",
            cause="the home was restored in part, or the key was made anew",
            next_step=f"restore {file} from your backup; only without one: {home.command('start --new --mode csfssl')}",
        )


def _apply_revocations(home: Home, engine: Engine) -> None:
    """Tell the run which sites were revoked while no coordinator was running: it does not wait for them."""
    for entry in Registry(home.registry, contextlib.nullcontext).sites():
        if entry.state == "revoked" and entry.site in engine.run.plan.sites:
            engine.submit(SiteRevoked(entry.site, time.time()))


def _resumed(home: Home, record: RunRecord, mode: Mode | None) -> RunRecord:
    if mode is not None and mode != record.plan.mode:
        raise _is_unfinished(home, record)
    changed = differences(record.plan, home.plan(record.plan.mode))
    if changed:
        logger(run=record.run).warning(
            "coordinator.toml was changed since this run began; the run keeps its own plan",
            changed="; ".join(changed[:5]),
        )
    logger(run=record.run).info("run continues", mode=record.plan.mode)
    return record


def _is_unfinished(home: Home, record: RunRecord) -> RunError:
    return RunError(
        f"run {record.run} is unfinished, and its mode is {record.plan.mode}",
        cause="the coordinator was stopped before the run ended",
        next_step=f"`{home.command('start')}` continues it; with --new it is ended and a new run begins",
    )


def _serve(home: Home, engine: Engine, blobs: BlobStore, to: Address) -> None:
    registry = Registry(home.registry, contextlib.nullcontext)
    serving = Serving(home, registry, engine, Service(home, registry, engine, blobs), Control(engine))
    serving.start(to)
    bound = Address(to.host, serving.port)
    try:
        home.reserve.spend(lambda: home.write_running(os.getpid(), bound, serving.operator))
        end_on_signals(lambda: _stop(engine))
        logger(run=engine.run.run).info("listening", bind=str(bound))
        engine.drive()
    finally:
        engine.stop()
        serving.stop(STOP_GRACE.total_seconds())
        home.running.unlink(missing_ok=True)


def _stop(engine: Engine) -> None:
    """Stop in order; everything acknowledged is on disk, also where a second signal ends the process at once."""
    logger().info(
        "stopping", calls_end_within_s=STOP_GRACE.total_seconds(), again="press Ctrl-C again to stop immediately"
    )
    engine.stop()


def _announce(home: Home, run: str, outcome: Outcome, reason: str) -> None:
    has_model = results.model_of(home.results, run).exists()
    say(f"{outcome.value}: {reason}")
    say(f"{'model and record' if has_model else 'record (there is no model here)'}: {home.results / run}")
    if outcome is not Outcome.OK:
        say(f"see who was missing, when and why: {home.command('status')}")
    sys.exit(EXIT_OF_OUTCOME[outcome])


def revoke(home: Home, site: str) -> None:
    """Withdraw a site's certificates and invitations; its open connections are closed immediately."""
    try:
        count = Registry(home.registry).revoke(site, datetime.now(UTC))
    except FullDiskError as error:
        _refused_for_now(home, site, error)
    except IdentityError as error:
        error.cause += f"; the roster is {', '.join(home.config().run.sites)}"
        raise
    say(
        f"revoked {count} certificate(s) and invitation(s) of {site}"
        if count
        else f"{site} has no certificate or invitation in force: it was revoked before, or they have ended"
    )
    reply = ask(home, rpc.COMMAND, wire.CommandRequest(revoked=site))
    say(reply.text if reply else "no coordinator is running; the site will be refused at the next start")


def _refused_for_now(home: Home, site: str, error: FullDiskError) -> NoReturn:
    """Make the running coordinator refuse a site although this cannot be saved. Raises FullDiskError."""
    if home.read_running() is None:
        raise error
    with contextlib.suppress(StorageError):  # its journal has no room, either; it still refuses the site
        ask(home, rpc.COMMAND, wire.CommandRequest(revoked=site))
    raise FullDiskError(
        f"the running coordinator refuses {site} from now on, but this could not be saved: {error.what}",
        cause="the disk is full; after a restart the site would be accepted again",
        next_step=f"free some space (df -h {home.folder}), then {home.command(f'revoke {site}')}",
    ) from error


def abort(home: Home, reason: str) -> None:
    """Abort the run, also while no coordinator is running. Raises RunError, StorageError."""
    reply = ask(home, rpc.COMMAND, wire.CommandRequest(abort=reason))
    if reply is not None:
        say(reply.text)
        return
    with home.locked(), contextlib.closing(Journal(home.journal)) as journal:
        last = history.unfinished(home, journal)
        if last is None:
            raise RunError(
                "there is no unfinished run to abort",
                cause="the last run has ended, or none has begun",
                next_step=home.command("runs"),
            )
        words = f"aborted by the operator: {reason[:400]}"
        history.abandon(home, journal, BlobStore(home.blobs), last, time.time(), reason=words)
    say(f"run {last.run} is aborted; the sites are told when the next run begins")


def stop(home: Home) -> None:
    """Stop the coordinator; the next start continues the run. Raises RunError."""
    reply = ask(home, rpc.COMMAND, wire.CommandRequest(stop=True))
    if reply is None:
        raise RunError(
            "no coordinator is running",
            cause="it has stopped already, or --home names another folder",
            next_step=home.command("status"),
        )
    say(reply.text)


def export(home: Home, run: str | None, folder: Path | None) -> None:
    """Copy an ended run's model and record to FOLDER; without RUN, list the runs. Raises RunError, StorageError."""
    if run is None:
        runs(home, as_json=False)
        return
    there = results.names(home.results)
    if run not in there:
        raise _not_to_export(home, run, there)
    folder = folder or Path(run)
    files = results.export(home.results, run, folder)
    say(f"wrote {' and '.join(map(str, files))}")
    export_decisions(home, run, folder)
    if not results.model_of(home.results, run).exists():
        at_sites = results.read(home.results, run).model
        why = "the sites alone have it, under seal" if at_sites else "it was aborted before a round was completed"
        say(f"run {run} has no model here: {why}")


def _not_to_export(home: Home, run: str, there: list[str]) -> RunError:
    known = {entry.run: entry for entry in history.entries(home)}
    if run not in known:
        return history.no_such_run(run, [*known], home)
    return RunError(
        f"run {run} is not finished: it cannot be exported yet",
        cause=f"runs that have ended: {', '.join(there) or 'none'}",
        next_step=home.command(f"status {run}"),
    )
