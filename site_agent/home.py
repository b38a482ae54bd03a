"""The site's home folder: its paths, and the configuration in it.

site.toml             the configuration, edited by the site's engineer: data, hardware, policy, pins
keys/                 the site's key (0600), its certificate, the federation's authority; a renewed certificate until it
                      has been used, and the one before the present one; pins that were changed
splits.csv            which woman is in which split; keep it: it makes splits stable as patients are added
site-colour.json      how the colours of the site's pictures are brought to the reference; keep it: models depend on it
cache/                decoded images
blobs/                models in use, named by digest
checkpoints/          where an interrupted `pretrain` goes on
sweeps/NAME/          what was tried out: finished combinations, and the recipe that was chosen
runs/RUN/             what this site did in a run, and the checkpoint of a round in progress
models/               cervix models, each with whose images made it
classifiers/          fine-tuned classifiers, each with its provenance
history/              earlier models, classifiers and choices: nothing is overwritten
decisions/            which models are approved or retired, each decision with its signature; never changed
reports/DATE-NAME/    a report with its numbers and predictions; they hold images, name patients and stay here
egress.jsonl          what has left this site, entry by entry
account.json          how much federations have had of this site: runs, rounds, epochs and bytes of the last 30 days
doing.json            what the agent is doing, for `site-agent page`
instances.json        which processes of the agent ran here last
sums.jsonl            what this home remembers of secure sums, over all its runs
secrets/RUN.json      the secrets of a run with secure sums; they are in no backup, and go when the run ends
incidents/            full traces of failures; they stay here
untold/               scrubbed reports of failures that the coordinator has not heard yet
"""

from __future__ import annotations

import contextlib
import json
import shlex
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from fedcervix.core.bounds import Within, check_values
from fedcervix.core.formats import contents
from fedcervix.core.modes import MODES, Mode
from fedcervix.core.plan import SITE_NAME, Architecture, check
from fedcervix.disk.files import append_line, make_folder, write_whole
from fedcervix.disk.locks import held, holder
from fedcervix.disk.paths import Below
from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError, FedcervixError, RunError
from fedcervix.json_text import parsed
from fedcervix.runtime.config import build, read_toml
from fedcervix.transport.address import check_address
from fedcervix.trust.pins import FormerPin, Pins, PinSetting
from site_agent import site_toml
from site_agent.manifest.classes import Classes, classes_of

if TYPE_CHECKING:
    from fedcervix.transport.identity import Certificate
    from fedcervix.trust.fingerprints import Fingerprint


RENEWED = "site.crt.new"
"""in keys/: a renewed certificate, until it has been used"""
BEFORE = "site.crt.before"
"""in keys/: the certificate before the present one"""
FORMER_PINS = "former-pins.jsonl"
"""in keys/: pins that were changed or taken back"""


class _Section:
    """A table of site.toml: values out of their bounds are refused."""

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSection(_Section):
    """Table [link]."""

    coordinator: str = ""

    def __post_init__(self) -> None:
        if self.coordinator:
            check_address("coordinator", self.coordinator)


FindingName = Literal[
    "green", "iodine", "colourless", "blurred", "dark", "overexposed", "glare",
    "flat", "black", "transparent", "narrow", "half-empty", "pages",
]  # fmt: skip
"""what a picture may be set aside for"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSection(_Section):
    """Table [data]."""

    manifest: str = ""
    unreadable_max: Annotated[float, Within(0, below=1)] = 0.05
    split_seed: int = 0
    not_same: str = ""
    """file of pairs of images that look alike and show two women"""
    ignore_columns: tuple[str, ...] = ()
    """columns of the manifest to ignore, although they look like known ones"""
    prevalence: Annotated[float, Within(0, below=1)] = 0.0
    """share of cases among the women whom a classifier would meet here; 0: not stated"""
    covariates: tuple[str, ...] = ()
    """further columns of the manifest to read, for tables by group; they stay here"""
    set_aside: tuple[FindingName, ...] = ()
    """findings of the gate for which a picture is not used (see site_agent.images.gate, .quality)"""
    classes: tuple[str, ...] = ()
    """of labels in an order, the mildest first; none: 0 is control and 1 is case"""
    case_from: str = ""
    """which of these classes is the first that is a case"""

    def __post_init__(self) -> None:
        check_values(self)
        classes_of(self.classes, self.case_from)

    @property
    def label_classes(self) -> Classes:
        """What a label may be."""
        return classes_of(self.classes, self.case_from)


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareSection(_Section):
    """Table [hardware]."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Within(0, 1024)] = 0
    """of each process"""
    processes: Annotated[int, Within(0, 64)] = 1
    launcher: tuple[str, ...] = ()
    """arguments of torch's launcher for several hosts; empty: this host alone"""
    checkpoint_s: Annotated[float, Within(0, 86_400)] = 60.0
    """at least so long between two checkpoints of a round in progress; more where writing one is slow"""
    images_in_memory_gib: Annotated[float, Within(0, 4096)] = 4.0
    """decoded images of one part; more than that stay on the disk"""
    imagenet_weights: str = ""
    start_weights: str = ""
    acceleration: Literal["auto", "eager", "graph", "compile"] = "auto"
    deterministic: Literal["auto", "on", "off"] = "auto"


Limit = Annotated[int, Within(0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(_Section):
    """Table [policy]: what this site lets a federation ask of it."""

    modes: tuple[Mode, ...] = tuple(MODES)
    sites: tuple[str, ...] = ()
    rounds_max: Limit = 1000
    epochs_max: Limit = 10_000
    plan: str = ""
    architectures: tuple[Architecture, ...] = get_args(Architecture)
    image_px_max: Limit = 512
    width_max: Limit = 1024
    batch_images_max: Limit = 1024
    share_max: Annotated[float, Within(above=0, most=1)] = 1.0
    runs_per_month: Limit = 300
    """of all runs together, in 30 days, as the next three"""
    rounds_per_month: Limit = 10_000
    epochs_per_month: Limit = 30_000
    upload_gib_per_month: Limit = 2000
    releases: Limit = 0
    """how many sites of a run must agree, this one included, before it hands a result over; 0: all of the plan"""
    sealed: Literal["allowed", "required"] = "allowed"
    """whether models must travel under seal, so that the coordinator cannot read them"""
    secure_sum: Literal["allowed", "required"] = "allowed"
    """whether the coordinator may learn sums of updates alone; if `sealed` is required too, a plan needs one of them"""
    colluders_min: Limit = 0
    """with how many colluding sites a secure sum must hide this one's update: the coordinator names the holders"""
    audit_max_auc: Annotated[float, Within(0.5, 1)] = 1.0
    """an update from which training women can be told better than this stays here; 1: no update is audited"""
    first_model: str = ""
    """digest of the only given model with which a run with secure sums may begin here; empty: none"""
    pins: PinSetting = "auto"
    """whether every partner must be in [pins]; auto: where the plan keeps something from the coordinator"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteConfig(_Section):
    """The file site.toml."""

    link: LinkSection = field(default_factory=LinkSection)
    data: DataSection = field(default_factory=DataSection)
    hardware: HardwareSection = field(default_factory=HardwareSection)
    policy: Policy = field(default_factory=Policy)
    pins: dict[str, str] = field(default_factory=dict)
    """name of a partner -> fingerprint of its key, in either form"""

    def __post_init__(self) -> None:
        self.fingerprints()

    def fingerprints(self) -> dict[str, Fingerprint]:
        """Return the pins as values. Raises ValueError, which names the one that is wrong."""
        return {name: _pin(name, text) for name, text in self.pins.items()}


def _pin(name: str, text: str) -> Fingerprint:
    from fedcervix.trust.fingerprints import Fingerprint  # most homes pin nobody, and most commands ask for no key

    try:
        check(SITE_NAME.fullmatch(name) is not None, "not a site's name")
        return Fingerprint.parse(text)
    except ValueError as error:
        raise ValueError(f"pins.{name}: {error}") from error


@dataclass(frozen=True, slots=True)
class SiteHome:
    """Paths below a home folder, and what is read from them."""

    folder: Path

    config_file = Below("site.toml")
    """What the site's engineer edits."""
    splits = Below("splits.csv")
    """Which woman is in which split."""
    cache = Below("cache")
    """Decoded images."""
    colours = Below("site-colour.json")
    """The colours of the site's collections, where recipes harmonise them (see site_agent.data.site_colours)."""
    blobs = Below("blobs")
    """Models in use."""
    models = Below("models")
    """Cervix models."""
    decisions = Below("decisions")
    """What was decided on models (see fedcervix.lineage.decision_store)."""
    reports = Below("reports")
    """HTML pages and results."""
    doing = Below("doing.json")
    """What the agent is doing (see site_agent.federation.activity)."""
    instances = Below("instances.json")
    """The processes of the agent that ran here, newest first (see site_agent.federation.fencing)."""
    sums = Below("sums.jsonl")
    """What this home remembers of secure sums (see site_agent.store.sum_journal)."""
    secrets = Below("secrets")
    """The secrets of runs with secure sums, which belong into no backup (see site_agent.store.run_secrets)."""
    account = Below("account.json")
    """How much federations have had of this site, day by day (see site_agent.federation.account)."""
    egress = Below("egress.jsonl")
    """What has left this site (see site_agent.store.egress)."""
    incidents = Below("incidents")
    """Full traces of failures."""
    untold = Below("untold")
    """Reports of failures that the coordinator has not heard yet."""

    def command(self, words: str = "") -> str:
        """Return a command to type that means this home, whatever is in its path."""
        return f"site-agent --home {shlex.quote(str(self.folder))} {words}".rstrip()

    lock = Below("lock")
    """Held by the agent that works on this home."""

    def run_folder(self, run: str) -> Path:
        """Return the folder of this site's data of a run."""
        return self.folder / "runs" / run

    def key_file(self, name: str) -> Path:
        """Return the path of the key or certificate `name`."""
        return self.folder / "keys" / name

    def insist(self) -> None:
        """Raise ConfigError where the folder is a coordinator's home."""
        if self.config_file.exists() or not (self.folder / "coordinator.toml").exists():
            return
        raise ConfigError(
            f"{self.folder} is a coordinator's home, not a site's",
            cause="wrong --home, or the wrong program",
            next_step=f"coordinator --home {shlex.quote(str(self.folder))} status, or give --home another folder",
        )

    def config(self) -> SiteConfig:
        """Return the configuration. Raises ConfigError."""
        self.insist()
        raw = read_toml(self.config_file, hint=self._which_home())
        return build(SiteConfig, raw, source=self.config_file)

    def manifest(self) -> Path:
        """Return the path of the site's manifest. Raises ConfigError where none is named."""
        named = self.config().data.manifest
        if not named:
            raise ConfigError(
                f"{self.config_file} names no manifest",
                cause="[data] manifest is empty",
                next_step=f"write the path of your manifest there: edit {self.config_file}",
            )
        return (self.folder / named).resolve()

    def not_same(self) -> Path | None:
        """Return the path of the file of pairs that show two women, where one is named. Raises ConfigError."""
        named = self.config().data.not_same
        return (self.folder / named).resolve() if named else None

    def imagenet_weights(self) -> Path | None:
        """Return the path of the file with ImageNet's weights, where one is named. Raises ConfigError."""
        named = self.config().hardware.imagenet_weights
        return Path(named) if named else None

    def start_weights(self) -> Path | None:
        """Return the path of a model's weights that a recipe may start from, where one is named. Raises ConfigError."""
        named = self.config().hardware.start_weights
        return Path(named) if named else None

    def pins(self) -> Pins:
        """Return the keys that this site's people have compared. Raises ConfigError."""
        return Pins(self.config().fingerprints(), self.command("pin"), self._former_pins())

    def _former_pins(self) -> dict[str, list[FormerPin]]:
        """Return the pins that were changed or taken back. Raises StorageError."""
        from fedcervix.trust.fingerprints import Fingerprint  # as in `_pin`

        file = self.key_file(FORMER_PINS)
        with disk(file, "read"):
            lines = file.read_bytes().splitlines() if file.exists() else []
        found: dict[str, list[FormerPin]] = {}
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # torn by a power cut, or of a later version
                values = contents("the line", parsed(line))
                pin = FormerPin(Fingerprint.parse(str(values["fingerprint"])), float(str(values["until"])))
                found.setdefault(str(values["site"]), []).append(pin)
        return found

    def certificate(self) -> Certificate:
        """Return the site's newest certificate. Raises ConfigError where the site has not joined, StorageError."""
        from fedcervix.transport import identity  # most commands need no certificate

        return identity.identify(self.pem(self.certificates()[0]))

    def certificates(self) -> list[str]:
        """Return the names of the files of this site's certificates, the newest first.

        A renewed one lies beside site.crt until it has been used, and the one before it stays: a coordinator that was
        restored from a backup knows no other. Those of an earlier key are not counted. Raises ConfigError where the
        site has not joined, StorageError.
        """
        from fedcervix.transport import identity  # as above

        present = identity.identify(self.pem("site.crt"))
        found = {"site.crt": present}
        for name in (RENEWED, BEFORE):
            with contextlib.suppress(FedcervixError):
                if self.key_file(name).exists():
                    found[name] = identity.identify(self.pem(name))
        whose = (present.identity, present.key_fingerprint)
        own = [name for name, one in found.items() if (one.identity, one.key_fingerprint) == whose]
        return sorted(own, key=lambda name: found[name].not_before, reverse=True)

    def pem(self, name: str) -> bytes:
        """Return a key or certificate. Raises ConfigError where it is missing, StorageError where it is damaged."""
        from fedcervix.transport.key_files import read_pem  # as above

        self.insist()
        file, certificate = self.key_file(name), self.key_file("site.crt")
        with disk(file, "read"):
            joined = certificate.exists()
        if not joined and not file.exists():
            raise ConfigError(
                f"{self.folder} holds no {name}: this site has not joined a federation",
                cause="wrong --home, or the invitation was not used yet",
                next_step=self._which_home(),
            )
        old = shlex.quote(str(certificate))
        return read_pem(
            file,
            needed="this site has joined, but cannot prove it without this file",
            next_step=f"restore {file} from a backup; or ask the coordinator's operator for a new invitation, then "
            f"mv {old} {old}.old, and {self.command('join INVITATION.toml')}",
        )

    def known_ledger_key(self) -> str:
        """Return the coordinator's ledger key (PEM); empty where this site knows none yet. Raises StorageError."""
        file = self.key_file("ledger.pub")
        with disk(file, "read"):
            return file.read_bytes().decode("ascii", "replace") if file.exists() else ""

    def _which_home(self) -> str:
        """Return what to do where this folder is not a site's home."""
        return (
            "check the path (--home, or the variable FEDCERVIX_SITE_HOME), and whether its disk is mounted; "
            f"only where this site has not joined yet: {self.command('join INVITATION.toml')}"
        )

    def own_files(self) -> tuple[Path, Path]:
        """Return the files of this site's newest certificate and key. Raises ConfigError where one is missing."""
        names = self.certificates()[0], "site.key"
        for name in names:
            self.pem(name)
        return self.key_file(names[0]), self.key_file(names[1])

    @contextlib.contextmanager
    def locked(self, file: str = "lock", *, who: str = "an agent") -> Iterator[None]:
        """Hold the home folder for one process of a kind. Raises RunError where another one has it."""
        pid = holder(self.folder / file)
        end = f"kill {pid}" if pid else "ps aux | grep site-agent"
        busy = RunError(
            f"{who} is already running on {self.folder}" + (f" (pid {pid})" if pid else ""),
            cause="it was started twice, or it runs as a service",
            next_step=f"wait until it has ended, or stop it: {end}; a service: sudo systemctl stop fedcervix-site",
        )
        with held(self.folder / file, busy=busy):
            yield


def create(home: SiteHome, **given: Any) -> None:
    """Make a home folder with a commented configuration; in an existing one, the values that are given are set.

    It takes what `configured` takes, and raises what it raises, before anything is written.
    """
    write(home, configured(home, **given))


def configured(
    home: SiteHome,
    *,
    coordinator: str = "",
    manifest: Path | None = None,
    threads: int | None = None,
    ignore_columns: Sequence[str] = (),
) -> str:
    """Return the text of `site.toml` with the values that are given; nothing is written.

    Raises ConfigError where `site.toml` cannot hold a value or cannot be read.
    """
    given = {("link", "coordinator"): coordinator, ("data", "manifest"): str(manifest.absolute()) if manifest else ""}
    values: dict[site_toml.Key, site_toml.Value] = {key: value for key, value in given.items() if value}
    if threads is not None:
        values["hardware", "threads"] = threads
    if ignore_columns:
        values["data", "ignore_columns"] = list(ignore_columns)
    text = site_toml.with_values(_text(home.config_file) or site_toml.TEMPLATE, values, source=home.config_file)
    build(SiteConfig, tomllib.loads(text), source=home.config_file)
    return text


PINS = "pins"
"""the table of site.toml"""


def pin(home: SiteHome, name: str, fingerprint: Fingerprint) -> None:
    """Write down which key a partner must have. Raises ConfigError, StorageError."""
    _keep_former(home, name, fingerprint)
    values: dict[site_toml.Key, site_toml.Value] = {(PINS, name): fingerprint.groups}
    write(home, site_toml.with_values(_text(home.config_file), values, source=home.config_file))


def unpin(home: SiteHome, name: str) -> None:
    """Take a pin back. Raises ConfigError, StorageError."""
    _keep_former(home, name, None)
    write(home, site_toml.without(_text(home.config_file), PINS, name, source=home.config_file))


def _keep_former(home: SiteHome, name: str, now: Fingerprint | None) -> None:
    """Write down until when a pin has held that is changed now. Raises ConfigError, StorageError."""
    before = home.pins().keys.get(name)
    if before not in (None, now):
        assert before is not None
        line = json.dumps({"site": name, "fingerprint": before.hex, "until": time.time()}, allow_nan=False)
        append_line(home.key_file(FORMER_PINS), line, sync=True)


def write(home: SiteHome, config: str) -> None:
    """Make the folders of a home, and write its configuration where it differs. Raises StorageError."""
    for folder in (home.key_file(""), home.blobs, home.models, home.reports, home.incidents):
        make_folder(folder)
    if config != _text(home.config_file):
        write_whole(home.config_file, config.encode())


def _text(file: Path) -> str:
    """Return the text of a file, or nothing where there is none yet."""
    if not file.exists():
        return ""
    with disk(file, "read"):
        return file.read_bytes().decode("utf-8-sig", errors="surrogateescape")
