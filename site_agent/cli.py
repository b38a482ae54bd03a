"""The command `site-agent`: every command and option that can be typed, and the function that does the work.

This file is loaded for help, for completion with the TAB key and for errors in arguments, so it imports nothing slow.
The work of a command is in the module of `site_agent.commands` that its function imports.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from fedcervix import __version__
from fedcervix.core.profiles import PROFILES
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
    is_named,
    replaced_by_option,
    set_up,
    verbose_option,
)
from fedcervix.runtime.printing import say
from site_agent.commands.name_options import fingerprint, folder_name, model_digest, model_name, set_name, site_name

if TYPE_CHECKING:
    from site_agent.home import SiteHome

UNREADABLE_MAX = 0.05
"""as site.toml has it where it says nothing"""
INSTITUTIONS = ("alts", "nhs")
"""that `data phantom` can draw"""
DRAWN_STAGES = ("native", "acetic", "green", "iodine")
"""that it can draw"""
FILE = click.Path(path_type=Path, dir_okay=False, readable=False)
FOLDER = click.Path(path_type=Path, file_okay=False, readable=False)


@click.group("site-agent", cls=Program, invoke_without_command=True)
@click.version_option(__version__)
@home_option("site")
@verbose_option
@click.pass_context
def cli(context: click.Context) -> None:
    """Take part in a federation with this site's images. The images never leave this machine.

    Without a command: run the agent until the federation's run is over.
    """
    if context.invoked_subcommand is None:
        set_up()
        from site_agent.commands.federation import run

        run(_home())


def _home() -> SiteHome:
    from site_agent.home import SiteHome

    return SiteHome(given("home").absolute())


def with_home(function: Function) -> Function:
    """Call a command's function with the site's home."""

    @functools.wraps(function)
    def called(**options: Any) -> None:
        function(_home(), **options)

    return called  # type: ignore[return-value]


def _home_meant(*, needed: bool) -> SiteHome | None:
    """Return the home that gives a command its defaults: a named one, or the usual one if one is needed.

    A home that only the environment names may not exist yet.
    """
    if needed or is_named("home"):
        return _home()
    if click.get_current_context().find_root().get_parameter_source("home") is not ParameterSource.ENVIRONMENT:
        return None
    home = _home()
    if home.config_file.exists():
        return home
    say(f"note: {home.config_file} does not exist; the defaults are used", err=True)
    return None


def recipe_options(function: Function) -> Function:
    """Give a command the options that say with which recipe it trains."""
    for option in (
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            help="Seed of the random numbers. Default: that of the last run, or 0.",
        ),
        click.option("--recipe", "recipe_file", type=ANY_PATH, help="TOML file with training settings."),
        click.option(
            "--profile",
            type=click.Choice(list(PROFILES)),
            help="Recipe to train with. Default: that of the last run, or paper.",
        ),
    ):
        function = option(function)
    return function


force_retired_option = click.option(
    "--force-retired", is_flag=True, help="Use a model also if it is retired. Without it, that is refused."
)


def ignore_column_option(function: Function) -> Function:
    """Give a command the option that names columns of the manifest to be ignored."""
    return click.option(
        "--ignore-column",
        "ignore_columns",
        multiple=True,
        metavar="NAME",
        help="Name of a column that is not used, although it looks like a label or a split. May be repeated.",
    )(function)


# --- the federation -----------------------------------------------------------------------------------------------


@cli.command()
@click.argument("invitation", type=ANY_PATH)
@click.option("--manifest", type=ANY_PATH, help="Path of the site's manifest; written into site.toml.")
@click.option("--threads", type=click.IntRange(min=0), help="CPU threads to train with; 0: all cores.")
@ignore_column_option
@with_home
def join(home: SiteHome, **options: Any) -> None:
    """Join a federation.

    Makes this site's key on this machine, obtains its certificate, and writes site.toml. The invitation works only
    once. `join` checks everything else before it uses it.
    """
    from site_agent.commands.federation import join as work

    work(home, **options)


@cli.command()
@doctor_options
@with_home
def doctor(home: SiteHome, **options: Any) -> None:
    """Check everything that a run needs; start here when something is wrong.

    Checks home folder, certificate, clock, proxy, connection, limits, hardware, images, time, memory and disk. Each
    check is ok, a warning or a fault. The exit code is 0, or that of the first fault.

    With --bundle it also writes an archive for support, which names no patient, person, file or machine. The list of
    what is inside is printed first. Nothing is sent.
    """
    from site_agent.commands.doctor import doctor as work

    work(home, DoctorOptions(**options))


@cli.command(hidden=True)
@with_home
def check(home: SiteHome) -> None:
    """Do what `doctor` does: its name in version 0.1.0."""
    from site_agent.commands.doctor import doctor as work

    say("note: `check` is now called `doctor`", err=True)
    work(home, DoctorOptions())


@cli.command()
@recipe_options
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, for `coordinator plan`.")
@with_home
def plan(home: SiteHome, profile: str | None, recipe_file: Path | None, seed: int | None, **options: Any) -> None:
    """Measure what a round takes at this site: time, bytes, memory and disk.

    It times steps of the coordinator's run; with --recipe or --profile, of that recipe. It also tries how fast the
    line to the coordinator is, with bytes of no meaning.
    """
    from site_agent.commands.planning import plan as work

    work(home, profile, recipe_file, seed, **options)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@with_home
def identity(home: SiteHome, **options: Any) -> None:
    """Show who this site is, with the fingerprint of its key.

    Read the fingerprint to your partners by telephone. They then store it with `site-agent pin`.
    """
    from site_agent.commands.identity import identity as work

    work(home, **options)


@cli.command()
@click.argument("name", callback=site_name)
@click.argument("fingerprint", nargs=-1, required=True, callback=fingerprint)
@with_home
def pin(home: SiteHome, **options: Any) -> None:
    """Store the key that the partner NAME must have.

    FINGERPRINT is what `site-agent identity` prints at the partner: the digits, or the words. It is written into
    [pins] of site.toml. If the coordinator shows another key for NAME, this site refuses to take part.
    """
    from site_agent.commands.identity import pin as work

    work(home, **options)


@cli.command()
@click.argument("run")
@click.argument("files", nargs=-1, type=ANY_PATH)
@click.option("--to", required=True, help="The recipient's key: 64 digits, which `coordinator receive` prints.")
@click.option("--days", type=click.IntRange(1, 366), default=30, show_default=True, help="How long the word holds.")
@click.option("--into", type=ANY_PATH, help="Hand the model over in this new folder.")
@with_home
def release(home: SiteHome, **options: Any) -> None:
    """Agree that the result of RUN, a run under seal, is given to who has a key.

    It writes the signed word of this site into the current folder. With --into: check the words of other sites (FILES),
    and if enough of them agree, encrypt the model for the recipient.
    """
    from site_agent.commands.release import release as work

    work(home, **options)


@cli.command()
@click.argument("name", callback=site_name)
@with_home
def unpin(home: SiteHome, **options: Any) -> None:
    """Remove the pin of NAME. After that, any key is accepted for it.

    Within one run, the key of a partner still must not change.
    """
    from site_agent.commands.identity import unpin as work

    work(home, **options)


@cli.command()
@click.option("--textfile", type=ANY_PATH, help="Write to this folder, from which node_exporter reads.")
@click.option("--every", type=click.FloatRange(min=1), help="With --textfile: write again every so many seconds.")
@with_home
def metrics(home: SiteHome, **options: Any) -> None:
    """Print metrics of this site for Prometheus. Nothing is sent."""
    from site_agent.commands.metrics import metrics as work

    work(home, **options)


@cli.command()
@click.option("--metrics", is_flag=True, help="Serve /metrics, too, for whoever shows the token in keys/metrics.token.")
@page_options
@with_home
def page(home: SiteHome, **options: Any) -> None:
    """Show what this site is doing, in a browser on this machine.

    It prints an address that works once. The page only reads the home folder. The agent need not run, and does not
    notice the page. No picture and no identifier of a woman is on it.
    """
    from site_agent.commands.page import page as work

    work(home, **options)


@cli.command()
@with_home
def pins(home: SiteHome) -> None:
    """List the partners: which are pinned, and with which keys."""
    from site_agent.commands.identity import pins as work

    work(home)


@cli.command()
@click.argument("digest", callback=model_digest)
@with_home
def vouch(home: SiteHome, **options: Any) -> None:
    """After a restore: say that no secure sum was made of the first model DIGEST.

    A home that was restored from a backup, or copied, may have forgotten sums in which it was. So it takes no part in
    the first round of a run with secure sums until a person has asked the other sites.
    """
    from site_agent.commands.vouch import vouch as work

    work(home, **options)


@cli.command()
@click.argument("run", required=False)
@with_home
def verify(home: SiteHome, **options: Any) -> None:
    """Check the complete ledger of RUN (default: the last run).

    It needs no connection. If an entry is wrong, it prints the first wrong one.
    """
    from site_agent.commands.verify import verify as work

    work(home, **options)


@cli.command()
@click.argument("run", required=False)
@with_home
def audit(home: SiteHome, **options: Any) -> None:
    """Show what this site's last update in RUN tells about who was trained on.

    It tries to tell training women from test women, as an attacker would who holds the update. Default: the last run.
    It takes minutes. Nothing leaves this site. With audit_max_auc in [policy] of site.toml, the agent does this before
    it sends an update.
    """
    from site_agent.commands.loading import loading

    loading("audit")
    from site_agent.commands.audit import audit as work

    work(home, **options)


@cli.command()
@click.argument("run", required=False)
@with_home
def egress(home: SiteHome, **options: Any) -> None:
    """Show what has left this site: for each run, or everything that left for RUN.

    It reads the egress ledger of the home folder. Every model, report and request is written into it before it leaves.
    """
    from site_agent.commands.egress import egress as work

    work(home, **options)


@cli.command()
@click.option("--to", type=FOLDER, help="Folder to write to. Default: dossier/ in the home folder.")
@with_home
def dossier(home: SiteHome, **options: Any) -> None:
    """Write the papers for the data protection officer.

    A folder with an impact assessment, a record of processing, what has left this site, plans and approvals, audits,
    bills of software and models, and a control map. They are made from what lies in the home folder; what only people
    know is left blank. Open index.html in a browser. Nothing of a patient is in it.
    """
    from site_agent.commands.dossier import dossier as work

    work(home, **options)


# --- training and results -----------------------------------------------------------------------------------------


@cli.command()
@recipe_options
@click.option(
    "--also",
    type=ANY_PATH,
    multiple=True,
    help="Another manifest whose images are used too (CSSL). Only where pooling is allowed. May be repeated.",
)
@click.option("--tensorboard", type=ANY_PATH, help="Write TensorBoard event files to this folder.")
@click.option("--name", callback=model_name, help="Folder in models/ to save to. Default: ssl, or cssl with --also.")
@click.option("--restart", is_flag=True, help="Start from the beginning; do not continue an interrupted training.")
@force_retired_option
@with_home
def pretrain(home: SiteHome, profile: str | None, recipe_file: Path | None, seed: int | None, **options: Any) -> None:
    """Train a cervix model without a federation.

    It uses this site's images alone (SSL), or pooled manifests (CSSL). An interrupted training continues from its
    last checkpoint when the same command is given again. An earlier model of the same name is moved to history/
    (see site-agent history).
    """
    from site_agent.commands.loading import loading
    from site_agent.commands.setting import setting

    used = setting(home, profile, recipe_file, seed)
    loading("pretrain")
    from site_agent.commands.pretrain import pretrain as work

    work(home, used, **options)


@cli.command()
@recipe_options
@click.option(
    "--start",
    "starts",
    multiple=True,
    help="random, imagenet, or the name or SHA-256 of a model in models/. May be repeated. Default: random and the "
    "newest model of each kind.",
)
@click.option(
    "--name", callback=set_name, help="Save these classifiers as a set in classifiers/NAME/. Default: classifiers/."
)
@click.option(
    "--private",
    type=click.FloatRange(0.1, 20),
    metavar="EPSILON",
    help="Train only the last layer, with differential privacy of this epsilon for each woman. The file "
    "private-head.json beside the classifier may then leave the site.",
)
@force_retired_option
@with_home
def finetune(home: SiteHome, profile: str | None, recipe_file: Path | None, seed: int | None, **options: Any) -> None:
    """Fine-tune classifiers on this site's labels.

    It makes one classifier from each start (initial weights). `evaluate` compares the classifiers of one set with
    each other: use the same recipe for all of them. An earlier classifier from the same start is moved to history/
    (see site-agent history).
    """
    from site_agent.commands.loading import loading
    from site_agent.commands.setting import setting

    used = setting(home, profile, recipe_file, seed)
    loading("finetune")
    from site_agent.commands.finetune import finetune as work

    work(home, used, **options)


def _numbers(_context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise click.BadParameter(f"whole numbers with commas between them, as {parameter.default}") from None


@cli.command()
@recipe_options
@click.option(
    "--batch-images",
    default="8,16,32",
    show_default=True,
    callback=_numbers,
    help="Values of batch_images (the paper's N) to try.",
)
@click.option(
    "--width", default="64,128,256", show_default=True, callback=_numbers, help="Widths of the dense layer to try."
)
@click.option("--name", default="sweep", show_default=True, callback=folder_name, help="Folder in sweeps/ to save to.")
@force_retired_option
@with_home
def sweep(home: SiteHome, profile: str | None, recipe_file: Path | None, seed: int | None, **options: Any) -> None:
    """Compare batch sizes and widths of the dense layer on this site's images.

    It trains a model and a classifier with each combination. The best combination is the one with the lowest
    validation loss of its classifier. Test images are not used. Finished combinations are kept: an interrupted sweep
    continues when started again.

    The number of epochs in a round (E, epochs_per_round) exists only in a federation, so `sweep` cannot vary it: make
    a federated run with each E, and compare the mean validation losses.
    """
    from site_agent.commands.loading import loading
    from site_agent.commands.setting import setting

    used = setting(home, profile, recipe_file, seed)
    loading("sweep")
    from site_agent.commands.sweep import sweep as work

    work(home, used, **options)


@cli.command()
@click.option(
    "--set",
    "name",
    callback=set_name,
    help="Evaluate the classifiers that `finetune --name NAME` made. Default: those made without --name.",
)
@click.option(
    "--run", default="", help="Name of the federated run whose model the report is about. Default: the newest."
)
@click.option(
    "--name",
    "title",
    callback=folder_name,
    help="Name of the report: its folder is reports/DATE-NAME. Default: the name of the run, or NAME of --set.",
)
@click.option(
    "--look",
    is_flag=True,
    help="Also show where the classifier looked (Grad-CAM), on pictures of up to 12 test women, in clinical.html.",
)
@with_home
def evaluate(home: SiteHome, **options: Any) -> None:
    """Test the classifiers on the images of the test women; write a report.

    Writes a new folder reports/DATE-NAME with report.html, clinical.html, results.json, predictions.csv and women.csv.
    The report shows images and names patients: it stays at this site.
    """
    home.config()
    from site_agent.commands.evaluate import evaluate as work

    work(home, **options)


PREDICT_EXIT_CODES = """\b
Exit codes
  0   the file is written and at least one image is scored; column `problem` says what is wrong with the others
  4   no image is scored: there is none, or none can be read (the file is written)
  8   the file cannot be written, or exists already (see --force)
  10  there is no such classifier, it is damaged, or it is retired (see --force-retired)
"""


@cli.command(epilog=PREDICT_EXIT_CODES)
@click.argument("classifier")
@click.argument("images", nargs=-1, required=True, type=ANY_PATH)
@click.option("--out", "-o", type=FILE, default=Path("predictions.csv"), show_default=True, help="The file to write.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--manifest", type=FILE, help="Manifest with the patients of the images. Default: the site's own.")
@force_retired_option
@with_home
def predict(home: SiteHome, **options: Any) -> None:
    """Score new images; write a CSV file. Not a medical device.

    CLASSIFIER is the name of a folder below classifiers/ (random, ssl, csfssl, ...), or a path to one.

    IMAGES are files or folders. The result has a row for each image, also in folders inside these folders and in
    linked ones: its probability, or why it has none. An image is recognised by its content, not by its name. Hidden
    files, tables and text have no row: they are skipped, and their number is printed.
    """
    home.config()
    from site_agent.commands.predict import predict as work

    work(home, **options)


@cli.group("history", invoke_without_command=True)
@click.pass_context
def history(context: click.Context) -> None:
    """List this site's models, classifiers and reports.

    It shows digests and dates. Older versions, in the folder history/, are listed too.
    """
    if context.invoked_subcommand is None:
        set_up()
        from site_agent.commands.history import history as work

        work(_home())


@history.command("compare")
@click.argument("report")
@click.argument("other")
@with_home
def history_compare(home: SiteHome, **options: Any) -> None:
    """Print the scores of two reports side by side, and say whether they can be compared.

    REPORT and OTHER are names of folders below reports/, or paths.
    """
    from site_agent.commands.history import compare_reports as work

    work(home, **options)


@cli.group()
def models() -> None:
    """The models and classifiers of this site: where they come from, and which may be used."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@with_home
def models_list(home: SiteHome, **options: Any) -> None:
    """List models and classifiers, present and earlier ones, with what was decided on each."""
    from site_agent.commands.models import list_models as work

    work(home, **options)


@models.command("show")
@click.argument("model")
@click.option("--bom", "as_bill", is_flag=True, help="Print its bill of materials (CycloneDX 1.6, JSON).")
@with_home
def models_show(home: SiteHome, **options: Any) -> None:
    """Show one: the sites that made it, what it was made from, and every decision on it.

    MODEL is its name in `models list`, or a digest or its first digits. Nobody's name or identifier is printed.
    """
    from site_agent.commands.models import show as work

    work(home, **options)


@models.command("verify")
@click.argument("model", required=False)
@with_home
def models_verify(home: SiteHome, **options: Any) -> None:
    """Check files, records and signed decisions of MODEL (default: of all).

    It needs no connection. If something does not hold, it says what, and ends with exit code 10.
    """
    from site_agent.commands.models import verify as work

    work(home, **options)


@models.command("approve")
@click.argument("model")
@decision_options
@with_home
def models_approve(home: SiteHome, model: str, **options: Any) -> None:
    """Approve MODEL at this site. The decision is signed with the site's key and kept for good.

    Its file and its record are checked before.
    """
    from site_agent.commands.models import decide as work

    work(home, "approved", model, **options)


@models.command("retire")
@click.argument("model")
@decision_options
@replaced_by_option
@with_home
def models_retire(home: SiteHome, model: str, **options: Any) -> None:
    """Stop using MODEL at this site, for good. It is in force at once, and needs no connection.

    `predict`, `finetune`, `pretrain` and `sweep` then refuse it, and all that was made from it. MODEL may be the whole
    digest of a model that is not here.
    """
    from site_agent.commands.models import decide as work

    work(home, "retired", model, **options)


@models.command("import")
@click.argument("file", type=ANY_PATH)
@with_home
def models_import(home: SiteHome, **options: Any) -> None:
    """Store a signed decision that the coordinator's operator or another site has sent.

    FILE is the text (.json). The signature (.p7s) must lie beside it. What the operator says holds here, too; what
    another site says is only shown.
    """
    from site_agent.commands.models import take_in as work

    work(home, **options)


# --- images -------------------------------------------------------------------------------------------------------


@cli.group()
def data() -> None:
    """Check a collection of images before training."""


def _collection_options(function: Function) -> Function:
    """Add the options that decide how a collection is indexed; defaults are those of the home, where one is named."""
    for option in reversed(
        (
            click.option(
                "--splits",
                "splits_file",
                type=FILE,
                help="CSV file with the split of each patient. New splits are added to it. Default with --home: "
                "splits.csv of the home folder, which is not changed.",
            ),
            click.option("--seed", type=click.IntRange(min=0), help="Seed for drawing the splits. Default: 0."),
            click.option(
                "--unreadable-max",
                type=click.FloatRange(0, 1),
                help=f"Largest share of unreadable images that is accepted, 0 to 1. Default: {UNREADABLE_MAX}.",
            ),
            ignore_column_option,
            click.option("--not-same", type=FILE, help="CSV file of image pairs that look alike but show two women."),
            click.option(
                "--cache",
                "cache_folder",
                type=FOLDER,
                help="Folder for a cache: it makes the next check faster. Default with --home: the cache of the home.",
            ),
        )
    ):
        function = option(function)
    return function


@data.command("check")
@click.argument("manifest", type=ANY_PATH, required=False)
@_collection_options
@click.option("--full", is_flag=True, help="List every finding, not only the first ten of each kind.")
@click.option(
    "--write-pairs", type=FILE, help="Write the image pairs that look alike to this CSV file, for a person to judge."
)
def data_check(manifest: Path | None, **options: Any) -> None:
    """Show what MANIFEST contains: women and images by split and class, unreadable files, copies.

    It also lists pictures that stand under several patients. Nothing is sent. Without MANIFEST: the site's own.

    With --home (or FEDCERVIX_SITE_HOME), it uses table [data] of site.toml and the site's splits.csv. So it shows
    what the site trains on. In the home folder, it writes only the cache.
    """
    from site_agent.commands.data import check as work

    work(_home_meant(needed=manifest is None), manifest, **options)


@data.command("sheet")
@click.argument("manifest", type=ANY_PATH)
@_collection_options
@click.argument("picture", metavar="OUT.png", type=FILE)
@click.option(
    "--images",
    "count",
    type=click.IntRange(1, 200),
    default=16,
    show_default=True,
    help="Largest number of images of each split, or of each finding.",
)
@click.option("--findings", is_flag=True, help="Show what was found that images could be set aside for, or were.")
@click.option("--force", is_flag=True, help="Replace OUT.png if it exists already.")
def data_sheet(manifest: Path, **options: Any) -> None:
    """Draw small copies of some of MANIFEST's images into one picture, OUT.png.

    The picture shows patients: it must not leave the site. With --home, it uses table [data] of site.toml and the
    site's splits.csv.
    """
    from site_agent.commands.data import sheet as work

    work(_home_meant(needed=False), manifest, **options)


@data.command("phantom")
@click.argument("folder", type=ANY_PATH)
@click.option(
    "--institution",
    type=click.Choice(INSTITUTIONS),
    required=True,
    help="Institution to imitate (camera, label criteria).",
)
@click.option(
    "--women", type=click.IntRange(min=2), required=True, help="Number of labelled women. Unlabelled ones are added."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the random numbers. The same seed gives the same files.",
)
@click.option(
    "--unlabelled-per-labelled",
    type=click.FloatRange(min=0, max=1000),
    default=None,
    help="Unlabelled visits per labelled woman.  [default: the paper's, Table I: nhs 2.26, alts 2.72]",
)
@click.option(
    "--test-women",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Number of additional labelled women, only for the test. If this is above 0, manifest.csv has a column "
    "`split`.",
)
@click.option(
    "--stage",
    "stages",
    type=click.Choice(DRAWN_STAGES),
    multiple=True,
    help="Stage of the examination to draw, two images of each per visit; repeatable. manifest.csv then has columns "
    "`stage`, `visit` and `device`.  [default: after acetic acid, without these columns]",
)
@click.option(
    "--devices",
    type=click.IntRange(min=1, max=2),
    default=1,
    show_default=True,
    help="Number of devices, which differ in colour. With 2, manifest.csv has columns `stage`, `visit` and `device`.",
)
def data_phantom(**options: Any) -> None:
    """Write a phantom institution to FOLDER (new or empty): drawn images and manifest.csv."""
    from site_agent.commands.phantom import phantom as work

    work(**options)


@data.command("import-dicom")
@click.argument("folder", type=ANY_PATH)
@click.option(
    "--out",
    "to",
    type=FOLDER,
    required=True,
    help="Folder for pictures and manifest.csv: new, or that of the same import.",
)
@click.option(
    "--labels", "labels_file", type=FILE, help="CSV file with the labels: a column `label`, and one named as --key."
)
@click.option(
    "--key",
    type=click.Choice(["AccessionNumber", "PatientID", "StudyInstanceUID", "SOPInstanceUID"]),
    default="AccessionNumber",
    show_default=True,
    help="Header element by which --labels names what a label belongs to.",
)
@click.option(
    "--frames",
    default="sharpest:1",
    show_default=True,
    metavar="all|every:N|sharpest:N",
    help="Which frames of a file with several become pictures.",
)
@click.option(
    "--modality",
    "modalities",
    multiple=True,
    metavar="CODE",
    help="Modality to import; may be repeated.  [default: ES, GM, OP, OT, SC, XC: devices that take photographs]",
)
@click.option("--allow-burned-in", "burned_in", is_flag=True, help="Import pictures that say text is burnt into them.")
@click.option(
    "--max-side",
    "side_max_px",
    type=click.IntRange(min=16),
    help="Largest side of a picture, in pixels; larger ones are made smaller.  [default: as they are]",
)
def data_import_dicom(folder: Path, **options: Any) -> None:
    """Make pictures and a manifest of the DICOM files below FOLDER. Neither names a patient.

    Women, visits and pictures get names that only this site can make again: keyed by keys/dicom.key of the home.
    Killed and started again, it goes on. DICOM files are read, never changed.
    """
    from site_agent.commands.dicom import import_dicom as work

    work(_home(), folder, **options)


def main() -> None:
    """Run the command line; an error prints what happened, the likely cause, the next command."""
    exits(cli)


if __name__ == "__main__":
    main()
