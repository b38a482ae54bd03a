"""What the commands of `coordinator` do; which options they have says `coordinator.cli`."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import grpc
from rich.live import Live

from coordinator import results
from coordinator.engine import Engine, begin_of
from coordinator.home import Home, certify_self, create
from coordinator.overview import overview
from coordinator.registry import Registry
from coordinator.service import STOP_GRACE, Service, check_free, serve
from coordinator.terminal import render
from fedcervix import identity, rpc
from fedcervix.allocator import share_memory_among_threads
from fedcervix.blobs import BlobStore
from fedcervix.errors import ConfigError, LinkError, RunError
from fedcervix.events import SiteRevoked
from fedcervix.files import write_secret, write_whole
from fedcervix.journal import Journal, RunRecord
from fedcervix.log import logger
from fedcervix.pauses import Pauses
from fedcervix.plan import Mode, differences
from fedcervix.process import stdout_console
from fedcervix.rounds import Outcome, replay
from fedcervix.weights import digest_file, disk, vet_base
from fedcervix.wire import federation_pb2 as wire

EXIT_OF = {Outcome.OK: 0, Outcome.DEGRADED: 20, Outcome.ABORTED: 21}


def init(home: Home, folder: Path | None, name: str, advertise: str, bind: str, sites: str, profile: str) -> None:
    """Make a home folder: authority, certificates, commented configuration."""
    home = Home(folder.absolute()) if folder else home
    roster = tuple(site.strip() for site in sites.split(",") if site.strip())
    bind = bind or f"0.0.0.0:{advertise.rpartition(':')[2]}"
    create(home, name=name, bind=bind, advertise=advertise, sites=roster, profile=profile, now=datetime.now(UTC))
    home.plan("csfssl")
    click.echo(f"made {home.folder}: federation {name}, sites {', '.join(roster)}, profile {profile}")
    click.echo(f"back up {home.key_file('authority.key')}: it signs every certificate of this federation")
    click.echo(f"next: look at {home.config_file}, then {home.command('start --mode csfssl')}")


def invite(home: Home, site: str, out: Path | None) -> None:
    """Make a one-time invitation file for a site."""
    config = home.config()
    if site not in config.run.sites:
        raise ConfigError(
            f"site {site!r} is not in the roster: {', '.join(config.run.sites)}",
            cause="[run] sites does not name it",
            next_step=f"add it in {home.config_file}, then invite it",
        )
    now, key = datetime.now(UTC), identity.new_key()
    who = identity.Identity(config.federation.name, "enroll", site)
    lifetime = identity.INVITATION_LIFETIME
    authority = home.authority()
    certificate = identity.issue(authority, identity.public_key(key), who, now, lifetime)
    invitation = identity.Invitation(who.federation, site, home.address(), authority.certificate_pem, certificate, key)
    made = identity.identify(certificate)
    out = out or Path(f"{site}.invitation.toml")
    Registry(home.registry).invite(site, made.serial, made.not_after, now)
    write_secret(out, invitation.to_toml().encode())
    click.echo(
        f"wrote {out}: works once, until {made.not_after:%Y-%m-%d %H:%M} UTC; whoever holds it can join as {site}"
    )
    click.echo(f"next, at the site: site-agent join {shlex.quote(out.name)} --manifest MANIFEST.csv")


def start(home: Home, mode: Mode | None, bind: str, *, new: bool) -> None:
    """Run the federation; goes on by itself with an unfinished run."""
    share_memory_among_threads()
    bind = bind or home.config().listen.bind
    with home.locked():
        check_free(bind, home.config_file)
        certify_self(home, datetime.now(UTC))
        journal, blobs = Journal(home.journal), BlobStore(home.blobs)
        record = _run_to_do(home, journal, blobs, mode, new=new)
        engine = Engine(journal, blobs, record)
        _heed_revocations(home, engine)
        _serve(home, engine, blobs, bind)
        journal.close()
        run = engine.run
    if not run.ended:
        click.echo(f"stopped; the run goes on with: {home.command('start')}", err=True)
        sys.exit(130)
    _announce(home, run.outcome or Outcome.ABORTED, run.reason, results.store(run, blobs, home.results))


def _run_to_do(home: Home, journal: Journal, blobs: BlobStore, mode: Mode | None, *, new: bool) -> RunRecord:
    """Return the unfinished run, or begin one."""
    last = next(reversed(journal.runs()), None)
    if last is not None:
        run = replay(begin_of(last), journal.events(last.run))
        stored = (home.results / last.run / results.RECORD_FILE).exists()
        if not new and not (run.ended and stored):  # not stored: the process was killed at the very end
            return _resumed(home, last, mode)
        if run.ended:
            results.store(run, blobs, home.results)
    if mode is None:
        raise RunError("no unfinished run to go on with", next_step=home.command("start --mode csfssl (or ppfssl)"))
    plan, now = home.plan(mode), time.time()
    name = f"{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-{mode}-{plan.digest[:8]}"
    record = RunRecord(name, plan, _given_base(home, blobs), now)
    journal.begin(record)
    logger(run=name).info("run begins", mode=mode, sites=",".join(plan.sites), plan=plan.digest)
    return record


def _heed_revocations(home: Home, engine: Engine) -> None:
    """Let the run know of sites that were revoked while no coordinator was running: they are not waited for."""
    for entry in Registry(home.registry).sites():
        if entry.state == "revoked" and entry.site in engine.run.plan.sites:
            engine.submit(SiteRevoked(entry.site, time.time()))


def _resumed(home: Home, record: RunRecord, mode: Mode | None) -> RunRecord:
    if mode is not None and mode != record.plan.mode:
        raise RunError(
            f"run {record.run} is unfinished, and its mode is {record.plan.mode}",
            cause="the coordinator was stopped before the run's end",
            next_step=f"`{home.command('start')}` goes on with it; with --new it is abandoned",
        )
    changed = differences(record.plan, home.plan(record.plan.mode))
    if changed:
        logger(run=record.run).warning(
            "coordinator.toml was changed since this run began; the run keeps its own plan",
            changed="; ".join(changed[:5]),
        )
    logger(run=record.run).info("run goes on", mode=record.plan.mode)
    return record


def _given_base(home: Home, blobs: BlobStore) -> str:
    """Take in the first model that the configuration names; return its digest, or nothing."""
    given = home.config().run.base
    if not given:
        return ""
    file = home.folder / given
    with disk(file, "read"):
        digest = digest_file(file)
    vet_base(file)
    if not blobs.has(digest):
        scratch = blobs.scratch("base")
        with disk(scratch, "write"):
            shutil.copyfile(file, scratch)
        blobs.adopt(scratch, digest)
    return digest


def _serve(home: Home, engine: Engine, blobs: BlobStore, bind: str) -> None:
    service = Service(home, Registry(home.registry), engine, blobs)
    server, port = serve(home, service, bind=bind, sites=len(engine.run.plan.sites))
    try:
        write_whole(home.running, json.dumps({"pid": os.getpid(), "port": port}).encode())
        _on_signals(engine.stop)
        logger(run=engine.run.run).info("listening", bind=f"{bind.rpartition(':')[0]}:{port}")
        engine.drive()
    finally:
        engine.stop()
        server.stop(STOP_GRACE.total_seconds()).wait()
        home.running.unlink(missing_ok=True)


def _on_signals(stop: Callable[[], None]) -> None:
    """The first signal drains; a second one leaves at once (everything acknowledged is on disk)."""

    def in_order() -> None:
        logger().info("stopping", calls_end_within_s=STOP_GRACE.total_seconds(), again="ends it at once")
        stop()

    def handle(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(130))
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        threading.Thread(target=in_order, name="stop").start()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def _announce(home: Home, outcome: Outcome, reason: str, folder: Path) -> None:
    click.echo(f"{outcome.value}: {reason}")
    click.echo(f"model and record: {folder}")
    if outcome is not Outcome.OK:
        click.echo(f"see who was missing, when and why: {home.command('status')}")
    sys.exit(EXIT_OF[outcome])


def status(home: Home, *, watch: bool, as_json: bool) -> None:
    """Show who does what, since when, until when."""
    console = stdout_console()
    if not watch:
        document = _overview(home)
        click.echo(json.dumps(document, indent=2)) if as_json else console.print(render(document))
    elif as_json:
        for document in _pictures(home):
            click.echo(json.dumps(document))
    else:
        with Live(console=console, auto_refresh=False) as live:
            for document in _pictures(home):
                live.update(render(document), refresh=True)


def _pictures(home: Home) -> Iterator[dict[str, Any]]:
    """Yield how things stand as it changes, until the run has ended; while no coordinator runs, by the journal."""
    pauses, awhile = Pauses(), threading.Event()
    while True:
        for document in _watched(home):
            pauses.reset()
            yield document
        document = _from_journal(home)
        yield document
        if document["outcome"] and home.read_running() is None:
            return
        awhile.wait(pauses.next_s())


def _watched(home: Home) -> Iterator[dict[str, Any]]:
    """Yield what the running coordinator says, until it ends; nothing where none is running."""
    running = home.read_running()
    if running is None:
        return
    with _operators_line(home, running) as channel:
        try:
            for reply in rpc.calls(rpc.stub(channel, rpc.WATCH)(wire.OverviewRequest()), _address(running)):
                yield json.loads(reply.json)
        except LinkError:  # it was stopped or killed
            return


def _overview(home: Home) -> dict[str, Any]:
    """Ask the running coordinator; where none runs, read the journal."""
    reply = _ask(home, rpc.OVERVIEW, wire.OverviewRequest())
    if reply is not None:
        document: dict[str, Any] = json.loads(reply.json)
        return document
    return _from_journal(home)


def _from_journal(home: Home) -> dict[str, Any]:
    nothing = RunError("no run has begun here yet", next_step=home.command("start --mode csfssl"))
    if not home.journal.exists():
        raise nothing
    with contextlib.closing(Journal(home.journal)) as journal:
        last = next(reversed(journal.runs()), None)
        if last is None:
            raise nothing
        run = replay(begin_of(last), journal.events(last.run))
    trouble = "" if run.ended else f"the coordinator is not running; go on with: {home.command('start')}"
    return overview(run, {}, now=time.time(), trouble=trouble)


def _ask(home: Home, method: rpc.Method, request: Any) -> Any | None:
    """Call the running coordinator as its operator; None where none is running."""
    running = home.read_running()
    if running is None:
        return None
    with _operators_line(home, running) as channel:
        try:
            return rpc.stub(channel, method)(request, timeout=10, wait_for_ready=True)
        except grpc.RpcError as error:
            raise rpc.translate(error, _address(running), next_step=home.command("status")) from error


def _operators_line(home: Home, running: dict[str, Any]) -> grpc.Channel:
    keys = {f"{part}_pem": home.pem(file) for part, file in _OPERATOR.items()}
    return rpc.channel(_address(running), **keys, here=True)


def _address(running: dict[str, Any]) -> str:
    return f"localhost:{running['port']}"


_OPERATOR = {"authority": "authority.crt", "certificate": "operator.crt", "key": "operator.key"}


def revoke(home: Home, site: str) -> None:
    """Withdraw a site's certificates and invitations; its open connections are cut at once."""
    count = Registry(home.registry).revoke(site, datetime.now(UTC))
    click.echo(f"revoked {count} certificate(s) and invitation(s) of {site}")
    reply = _ask(home, rpc.COMMAND, wire.CommandRequest(revoked=site))
    click.echo(reply.text if reply else "no coordinator is running; it will not be let in at the next start")


def abort(home: Home, reason: str) -> None:
    """End the run before its time."""
    _command_running(home, wire.CommandRequest(abort=reason))


def stop(home: Home) -> None:
    """Stop the coordinator; the run goes on at the next start."""
    _command_running(home, wire.CommandRequest(stop=True))


def _command_running(home: Home, request: wire.CommandRequest) -> None:
    reply = _ask(home, rpc.COMMAND, request)
    if reply is None:
        raise RunError("no coordinator is running", next_step=home.command("start"))
    click.echo(reply.text)


def export(home: Home, run: str | None, folder: Path | None) -> None:
    """Copy a finished run's model and record to FOLDER; without RUN, list what there is."""
    there = sorted(path.name for path in home.results.glob("*") if path.is_dir())
    if run is None or folder is None:
        click.echo("\n".join(there) or "no run has finished yet")
        return
    if run not in there:
        raise RunError(f"no finished run {run!r}", cause=f"finished: {', '.join(there) or 'none'}")
    with disk(folder, "write"):
        shutil.copytree(home.results / run, folder, dirs_exist_ok=True)
    click.echo(f"wrote {folder / results.MODEL_FILE} and {folder / results.RECORD_FILE}")
