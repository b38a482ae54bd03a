"""The command `coordinator`: every command and option that can be typed, and the function that does the work.

This file imports nothing slow. The work of the commands is in `coordinator.commands.commands`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from fedcervix import __version__
from fedcervix.core.modes import MODES
from fedcervix.doctor.options import DoctorOptions, doctor_options
from fedcervix.page.options import page_options
from fedcervix.runtime.cli_runtime import exits
from fedcervix.runtime.commandline import (
    ANY_PATH,
    Function,
    Program,
    decision_options,
    given,
    home_option,
    replaced_by_option,
    verbose_option,
)

if TYPE_CHECKING:
    from coordinator.home.home import Home

MODE = click.Choice(list(MODES))
force_retired_option = click.option(
    "--force-retired", is_flag=True, help="Begin a run also from a model that is retired. Without it, that is refused."
)


@click.group("coordinator", cls=Program)
@click.version_option(__version__)
@home_option("coordinator")
@verbose_option
def cli() -> None:
    """Coordinate a federation. Images and patient data are never sent to the coordinator."""


def _home() -> Home:
    from coordinator.home.home import Home

    return Home(given("home").absolute())


def with_home(function: Function) -> Function:
    """Call a command's function with the coordinator's home, once it is known to be one."""

    @functools.wraps(function)
    def called(**options: Any) -> None:
        home = _home()
        home.insist()
        function(home, **options)

    return called  # type: ignore[return-value]


@cli.command()
@click.argument("folder", type=ANY_PATH, required=False)
@click.option("--name", default="cervix", show_default=True, help="The federation's name.")
@click.option(
    "--advertise",
    default="localhost:8443",
    show_default=True,
    help="HOST:PORT at which the sites reach the coordinator.",
)
@click.option(
    "--bind", default="", help="HOST:PORT to listen on. Default: the port of --advertise, on all network interfaces."
)
@click.option("--sites", default="nhs,alts", show_default=True, help="Names of the sites, separated by commas.")
@click.option(
    "--profile",
    default="paper",
    show_default=True,
    help="Name of the training settings to write into coordinator.toml: paper, recommended or demo.",
)
def init(**options: Any) -> None:
    """Make a home folder: keys, certificates, coordinator.toml.

    FOLDER is the new home folder. Without FOLDER: the one that --home names.
    """
    from coordinator.commands.commands import init as work

    work(_home(), **options)


@cli.command()
@click.argument("site")
@click.option("--out", "-o", type=ANY_PATH, help="File to write. Default: SITE.invitation.toml.")
@with_home
def invite(home: Home, **options: Any) -> None:
    """Make a one-time invitation file for a site."""
    from coordinator.commands.commands import invite as work

    work(home, **options)


@cli.command()
@click.argument("site")
@click.option("--out", "-o", type=ANY_PATH, help="File to write. Default: SITE.invitation.toml.")
@with_home
def renew(home: Home, **options: Any) -> None:
    """Make a one-time file that renews a site's expired certificate.

    Certificates are normally renewed automatically. Use this only if one has expired. The site keeps its key and its
    home folder.
    """
    from coordinator.commands.commands import renew as work

    work(home, **options)


@cli.command()
@click.option(
    "--mode",
    type=MODE,
    required=True,
    help="csfssl: average the models of all sites. ppfssl: pass one model around a ring.",
)
@click.option(
    "--new", is_flag=True, help="End the unfinished run, then create a new one. The old run cannot be continued."
)
@force_retired_option
@with_home
def begin(home: Home, **options: Any) -> None:
    """Create a run and exit. The service, or `coordinator start`, then carries it out."""
    from coordinator.commands.commands import begin as work

    work(home, **options)


@cli.command()
@click.option("--mode", type=MODE, help="As in `begin`. Default: the mode of the unfinished run.")
@click.option("--bind", default="", help="HOST:PORT to listen on. Default: [listen] bind of coordinator.toml.")
@click.option(
    "--new", is_flag=True, help="End the unfinished run, then start a new one. The old run cannot be continued."
)
@force_retired_option
@with_home
def start(home: Home, **options: Any) -> None:
    """Run the federation; an unfinished run is continued."""
    from coordinator.commands.commands import start as work

    work(home, **options)


@cli.command()
@doctor_options
@with_home
def doctor(home: Home, **options: Any) -> None:
    """Check everything that a coordinator needs; start here when something is wrong.

    Checks home folder, journal, certificates, clock, limits, disk, port and sites. It changes nothing. Each check is
    ok, a warning or a fault. The exit code is 0, or that of the first fault.

    With --bundle it also writes an archive for support, which names no person, site, file or machine. The list of what
    is inside is printed first. Nothing is sent.
    """
    from coordinator.commands.doctor import doctor as work

    work(home, DoctorOptions(**options))


@cli.command()
@click.argument("files", nargs=-1, type=ANY_PATH)
@click.option("--mode", type=MODE, help="As in `begin`. Default: the mode of the unfinished run.")
@click.option("--json", "as_json", is_flag=True, help="Print the prediction as JSON.")
@with_home
def plan(home: Home, **options: Any) -> None:
    """Predict what a run takes: time, bytes, memory and disk at each site.

    It uses what the sites have measured: before the first round of an earlier run, or with `site-agent plan --json`,
    whose FILES the sites hand over. It names a site for which the others would wait, and what to do.
    """
    from coordinator.commands.planning import plan as work

    work(home, **options)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@with_home
def runs(home: Home, **options: Any) -> None:
    """List all runs of this home, with mode and outcome."""
    from coordinator.commands.looking import runs as work

    work(home, **options)


@cli.command()
@click.argument("run", required=False)
@click.option("--watch", is_flag=True, help="Keep the output up to date; Ctrl-C ends it.")
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@with_home
def status(home: Home, **options: Any) -> None:
    """Show the state of the run and of each site. With RUN: how that run ended."""
    from coordinator.commands.looking import status as work

    work(home, **options)


@cli.command()
@click.option("--textfile", type=ANY_PATH, help="Write to this folder, from which node_exporter reads.")
@click.option("--every", type=click.FloatRange(min=1), help="With --textfile: write again every so many seconds.")
@with_home
def metrics(home: Home, **options: Any) -> None:
    """Print metrics of the run and its sites for Prometheus."""
    from coordinator.commands.metrics import metrics as work

    work(home, **options)


@cli.command()
@page_options
@with_home
def page(home: Home, **options: Any) -> None:
    """Serve a page that shows the federation in a browser.

    It prints the address to open. It runs beside the coordinator, and also while no coordinator runs. Without options
    only this machine reaches it.
    """
    from coordinator.commands.page import page as work

    work(home, **options)


@cli.command()
@with_home
def sites(home: Home) -> None:
    """List the invited sites and the fingerprints of their keys."""
    from coordinator.commands.looking import sites as work

    work(home)


@cli.command()
@click.argument("run", required=False)
@with_home
def verify(home: Home, **options: Any) -> None:
    """Check the complete ledger of RUN (default: the last run).

    It needs no connection. If an entry is wrong, it prints the first wrong one.
    """
    from coordinator.commands.verifying import verify as work

    work(home, **options)


@cli.command()
@click.argument("site")
@with_home
def revoke(home: Home, **options: Any) -> None:
    """Revoke a site's certificates and invitations.

    Its open connections are closed immediately.
    """
    from coordinator.commands.commands import revoke as work

    work(home, **options)


@cli.command()
@click.option("--reason", default="no reason given", help="The reason. It is written into the record of the run.")
@with_home
def abort(home: Home, **options: Any) -> None:
    """End the run. It cannot be continued.

    With secure sums the holders that are connected first close the round in progress. The same command again ends
    the run at once.
    """
    from coordinator.commands.commands import abort as work

    work(home, **options)


@cli.command()
@with_home
def stop(home: Home, **options: Any) -> None:
    """Stop the coordinator; the next start continues the run."""
    from coordinator.commands.commands import stop as work

    work(home, **options)


@cli.command()
@click.argument("run", required=False)
@click.argument("folder", type=ANY_PATH, required=False)
@with_home
def export(home: Home, **options: Any) -> None:
    """Copy a finished run's model and record to FOLDER.

    Without RUN: list the runs.
    """
    from coordinator.commands.commands import export as work

    work(home, **options)


@cli.group()
def models() -> None:
    """The models that the runs have made: where they come from, and which may be used."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@with_home
def models_list(home: Home, **options: Any) -> None:
    """List the models of all ended runs, with what was decided on each."""
    from coordinator.commands.models import list_models as work

    work(home, **options)


@models.command("show")
@click.argument("model")
@click.option("--bom", "as_bill", is_flag=True, help="Print its bill of materials (CycloneDX 1.6, JSON).")
@with_home
def models_show(home: Home, **options: Any) -> None:
    """Show one model: the sites that made it, what it was made from, and every decision on it.

    MODEL is the name of a run, or a digest or its first digits.
    """
    from coordinator.commands.models import show as work

    work(home, **options)


@models.command("verify")
@click.argument("model", required=False)
@with_home
def models_verify(home: Home, **options: Any) -> None:
    """Check files, records and signed decisions of MODEL (default: of all).

    It needs no connection. If something does not hold, it says what, and ends with exit code 10.
    """
    from coordinator.commands.models import verify as work

    work(home, **options)


@models.command("approve")
@click.argument("model")
@decision_options
@with_home
def models_approve(home: Home, model: str, **options: Any) -> None:
    """Approve MODEL. The decision is signed with the operator's key and kept for good.

    Its file and its record are checked before.
    """
    from coordinator.commands.models import decide as work

    work(home, "approved", model, **options)


@models.command("retire")
@click.argument("model")
@decision_options
@replaced_by_option
@with_home
def models_retire(home: Home, model: str, **options: Any) -> None:
    """Retire MODEL for good. The decision is signed with the operator's key.

    The sites do not hear of it by themselves: send them the two files that this command names.
    """
    from coordinator.commands.models import decide as work

    work(home, "retired", model, **options)


@models.command("import")
@click.argument("file", type=ANY_PATH)
@with_home
def models_import(home: Home, **options: Any) -> None:
    """Store a signed decision that came from a site, or from a copy of your own.

    FILE is the text (.json). The signature (.p7s) must lie beside it. What a site says binds that site alone.
    """
    from coordinator.commands.models import take_in as work

    work(home, **options)


@cli.command()
@click.argument("folder", type=ANY_PATH, required=False)
@with_home
def receive(home: Home, **options: Any) -> None:
    """Open the result of a run under seal, which the sites have handed over in FOLDER.

    Without FOLDER: print the key to which the sites hand over.
    """
    from coordinator.commands.receiving import receive as work

    work(home, **options)


@cli.group()
def notify() -> None:
    """Messages to people: by webhook and mail, as [notify] in coordinator.toml says."""


@notify.command("test")
@with_home
def notify_test(home: Home) -> None:
    """Send a test message to every receiver of [notify], and print what each of them said."""
    from coordinator.commands.notifications import test as work

    work(home)


@notify.command("key")
@with_home
def notify_key(home: Home) -> None:
    """Make the key that signs the messages to the webhook: the file keys/webhook.key of the home folder."""
    from coordinator.commands.notifications import key as work

    work(home)


@notify.command("send")
@with_home
def notify_send(home: Home) -> None:
    """Send the messages that an ended or stopped coordinator has left.

    A running coordinator sends them by itself.
    """
    from coordinator.commands.notifications import send as work

    work(home)


@cli.command()
@click.argument("file", type=ANY_PATH, required=False)
@with_home
def backup(home: Home, **options: Any) -> None:
    """Write the home folder into one FILE. The coordinator may be running.

    FILE contains the federation's secret keys. Default: a new file in the current folder.
    """
    from coordinator.commands.backups import backup as work

    work(home, **options)


@cli.command()
@click.argument("file", type=ANY_PATH)
def restore(**options: Any) -> None:
    """Make a home folder from a backup FILE. Give the path of the new folder with --home."""
    from coordinator.commands.backups import restore as work

    work(_home(), **options)


def main() -> None:
    """Run the command line; an error prints what happened, the likely cause, the next command."""
    exits(cli)


if __name__ == "__main__":
    main()
