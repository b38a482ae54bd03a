"""The site's home folder: where everything lies, and the configuration in it.

site.toml             what the site's engineer edits: data, hardware, policy
keys/                 the site's key (0600), its certificate, the federation's authority
splits.csv            which woman is in which split; keep it: it makes splits stable as patients are added
cache/                decoded images
blobs/                models in use, named by digest
checkpoints/          where an interrupted `pretrain` goes on
sweeps/NAME/          what was tried out: finished combinations, and the recipe that was chosen
runs/RUN/             what this site did in a run, and the checkpoint of a round in progress
models/               cervix models and classifiers
reports/              HTML pages and results.json; they hold images and stay here
instances.json        which processes of the agent ran here last
incidents/            full traces of failures; they stay here
untold/               scrubbed reports of failures that the coordinator has not heard yet
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from fedcervix import identity
from fedcervix.config import build, read_toml
from fedcervix.errors import ConfigError, RunError
from fedcervix.plan import STRICT, Mode, check
from fedcervix.weights import disk

CONFIG_TEMPLATE = """\
# Configuration of a fedcervix site. Every key is explained in docs/configuration.md.

[link]
coordinator = {coordinator}   # HOST:PORT; the one address this machine dials

[data]
manifest = {manifest}         # CSV: image, patient, label (0 control, 1 case, empty), optionally split
# unreadable_max = 0.05       # refuse the collection when more than this share of images cannot be read
# split_seed = 0              # decides which women are in train, valid and test
# not_same = ""               # CSV: pairs of images that look alike and show two women (data check --write-pairs)

[hardware]
# device = "auto"             # auto, cpu or cuda
{threads}                   # 0: all cores
# processes = 1               # training processes; 0: one per GPU
# launcher = []               # how several hosts train together: docs/running.md
# checkpoint_s = 60.0         # at least so long between two checkpoints of a round in progress
# images_in_memory_gib = 4.0  # decoded images of one part (train, valid, test); more than that stay on the disk
# imagenet_weights = ""       # file with ImageNet weights; empty: torchvision's own download
# acceleration = "auto"       # auto (graph on a GPU), eager, graph or compile
# deterministic = "auto"      # auto (on for the CPU), on or off: equal runs give equal bits

[policy]                      # what this site lets a federation ask of it; anything else is refused
# modes = ["csfssl", "ppfssl"]
# sites = []                  # partners allowed in the roster; empty: any
# rounds_max = 1000
# epochs_max = 10000
# plan = ""                   # SHA-256 of the one plan allowed; empty: any that fits the rest
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSection:
    """Table [link]."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    coordinator: str = ""

    def __post_init__(self) -> None:
        host, _, port = self.coordinator.rpartition(":")
        ok = not self.coordinator or (bool(host) and port.isdigit() and 0 < int(port) < 65_536)
        check(ok, f"coordinator is HOST:PORT; found {self.coordinator!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSection:
    """Table [data]."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    manifest: str = ""
    unreadable_max: float = 0.05
    split_seed: int = 0
    not_same: str = ""
    """file of pairs of images that look alike and show two women"""

    def __post_init__(self) -> None:
        check(0 <= self.unreadable_max < 1, f"unreadable_max is 0 to below 1; found {self.unreadable_max}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareSection:
    """Table [hardware]."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    """of each process"""
    processes: int = 1
    launcher: tuple[str, ...] = ()
    """arguments of torch's launcher for several hosts; empty: this host alone"""
    checkpoint_s: float = 60.0
    """at least so long between two checkpoints of a round in progress; more where writing one is slow"""
    images_in_memory_gib: float = 4.0
    """decoded images of one part; more than that stay on the disk"""
    imagenet_weights: str = ""
    acceleration: Literal["auto", "eager", "graph", "compile"] = "auto"
    deterministic: Literal["auto", "on", "off"] = "auto"

    def __post_init__(self) -> None:
        check(0 <= self.threads <= 1024, f"threads is 0 to 1024; found {self.threads}")
        found = self.images_in_memory_gib
        check(0 <= found <= 4096, f"images_in_memory_gib is 0 to 4096; found {found}")
        check(0 <= self.processes <= 64, f"processes is 0 to 64; found {self.processes}")
        check(0 <= self.checkpoint_s <= 86_400, f"checkpoint_s is 0 to 86400; found {self.checkpoint_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Table [policy]: what this site lets a federation ask of it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    modes: tuple[Mode, ...] = ("csfssl", "ppfssl")
    sites: tuple[str, ...] = ()
    rounds_max: int = 1000
    epochs_max: int = 10_000
    plan: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteConfig:
    """The file site.toml."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    link: LinkSection = field(default_factory=LinkSection)
    data: DataSection = field(default_factory=DataSection)
    hardware: HardwareSection = field(default_factory=HardwareSection)
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class SiteHome:
    """Paths below a home folder, and what is read from them."""

    folder: Path

    @property
    def config_file(self) -> Path:
        """What the site's engineer edits."""
        return self.folder / "site.toml"

    @property
    def splits(self) -> Path:
        """Which woman is in which split."""
        return self.folder / "splits.csv"

    @property
    def cache(self) -> Path:
        """Decoded images."""
        return self.folder / "cache"

    @property
    def blobs(self) -> Path:
        """Models in use."""
        return self.folder / "blobs"

    @property
    def models(self) -> Path:
        """Cervix models and classifiers."""
        return self.folder / "models"

    @property
    def reports(self) -> Path:
        """HTML pages and results."""
        return self.folder / "reports"

    @property
    def instances(self) -> Path:
        """The processes of the agent that ran here, newest first (see site_agent.instances)."""
        return self.folder / "instances.json"

    @property
    def incidents(self) -> Path:
        """Full traces of failures."""
        return self.folder / "incidents"

    @property
    def untold(self) -> Path:
        """Reports of failures that the coordinator has not heard yet."""
        return self.folder / "untold"

    def run_folder(self, run: str) -> Path:
        """Return where this site keeps what it did in a run."""
        return self.folder / "runs" / run

    def key_file(self, name: str) -> Path:
        """Return where the key or certificate `name` lies."""
        return self.folder / "keys" / name

    def config(self) -> SiteConfig:
        """Return the configuration. Raises ConfigError."""
        raw = read_toml(self.config_file, hint=f"site-agent join INVITATION.toml --home {self.folder}")
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

    def certificate(self) -> identity.Certificate:
        """Return the site's certificate. Raises StorageError where the site has not joined, IdentityError."""
        return identity.identify(self.pem("site.crt"))

    def pem(self, name: str) -> bytes:
        """Return a key or certificate. Raises StorageError."""
        file = self.key_file(name)
        if not file.exists():
            raise ConfigError(
                f"{self.folder} holds no {name}: this site has not joined a federation",
                cause="wrong --home, or the invitation was not used yet",
                next_step=f"site-agent --home {self.folder} join INVITATION.toml",
            )
        with disk(file, "read"):
            return file.read_bytes()

    @contextlib.contextmanager
    def locked(self, file: str = "lock", *, who: str = "an agent") -> Iterator[None]:
        """Hold the home folder for one process of a kind. Raises RunError where another one has it."""
        with disk(self.folder, "write"):
            lock = (self.folder / file).open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(
                    f"{who} is already running on {self.folder}",
                    cause="it was started twice, or runs as a service",
                    next_step="wait until the other one has ended, or stop it first: ps aux | grep site-agent",
                ) from error
            yield


def create(home: SiteHome, *, coordinator: str = "", manifest: Path | None = None, threads: int = 0) -> None:
    """Make a home folder with a commented configuration; an existing configuration is kept."""
    with disk(home.folder, "write"):
        for folder in (home.folder, home.blobs, home.models, home.reports, home.incidents):
            folder.mkdir(parents=True, exist_ok=True)
        home.key_file("").mkdir(mode=0o700, exist_ok=True)
        if not home.config_file.exists():
            named = str(manifest.absolute()) if manifest else ""
            text = CONFIG_TEMPLATE.format(
                coordinator=json.dumps(coordinator),
                manifest=json.dumps(named),
                threads=f"threads = {threads}" if threads else "# threads = 0",
            )
            home.config_file.write_text(text)
