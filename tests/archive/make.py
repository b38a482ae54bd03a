"""Make the archive of a release: small homes of every kind, as its programs left them when they were killed.

    python -m tests.archive.make tests/archive/VERSION

Made once, when a version is released, and never again: what matters is that these bytes are old. Each archive is packed
with the run's right result, so that today's programs can be held to it (`test_archive.py`).

MODE-COMPRESSION.tar.xz   the homes of a coordinator and of two sites, all killed in the second of three rounds
ended.tar.xz              the homes after a run with a model that can be fine-tuned, a classifier and its report
study.tar.xz              a study that was killed before its last cells

Models whose tensors hold one number each pack into nothing. Sites without images make them (`light_site --even`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import click
import torch

from fedcervix import __version__
from fedcervix.core.plan import Recipe
from site_agent.network.encoder import build_encoder, save_weights
from tests.archive.homes import EXPECTED, KINDS, LIGHT, Kind
from tests.e2e.institutions import draw_collections
from tests.e2e.loopback import BIN, TINY_RECIPE, Federation

LONG_S = 3e9
"""how long the runs wait for a quorum: the archive is opened years later"""


def federate(folder: Path, kind: Kind, **options: Any) -> Federation:
    """Return a federation that has begun, in `folder`."""
    terms = {"rounds": 3, "compression": kind.compression, "give_up_s": LONG_S, "lease_s": 30.0}
    made = Federation(folder, terms=terms, **options)
    made.coordinate("--mode", kind.mode)
    for site in made.sites:
        made.enrol(site)
    return made


def right_result(folder: Path, kind: Kind) -> str:
    """Return the digest of the model of an undisturbed run."""
    made = federate(folder, kind)
    try:
        made.finish(made.processes[0], *[made.light(site, *LIGHT) for site in made.sites])
        return made.result()
    finally:
        made.close()


def killed_in_mid_run(folder: Path, kind: Kind) -> None:
    """Leave the homes of a run whose processes were killed while they trained in its second round."""
    made = federate(folder, kind)
    try:
        for site in made.sites:
            made.light(site, *LIGHT, "--pace-s", "0.3")
        made.until("round 2 is being trained", lambda seen: seen["round"] == 2 and seen["phase"] == "training")
        for process in reversed(made.processes):
            process.kill()
    finally:
        made.close()


def tuned(folder: Path, network: Path) -> None:
    """Leave the homes of an ended run whose model a site has fine-tuned and evaluated."""
    kind = Kind("csfssl", "none")
    made = federate(folder, kind, run={"base": str(network)}, sites=("nhs",))
    try:
        made.finish(made.processes[0], made.light("nhs", *LIGHT, "--even"))
    finally:
        made.close()
    draw_collections(folder / "collections")
    shutil.rmtree(folder / "collections" / "alts")
    made.settle("nhs", folder / "collections" / "nhs" / "manifest.csv")
    for command in (["finetune", "--start", made.record()["run"]], ["evaluate"]):
        subprocess.run([BIN / "site-agent", "--home", made.site("nhs").folder, *command], check=True)


def even_network(to: Path) -> None:
    """Write an encoder whose tensors hold one number each."""
    state = build_encoder(Recipe(**TINY_RECIPE), seed=1).state_dict()  # type: ignore[arg-type]
    counted = {name: torch.zeros_like(values) for name, values in state.items()}
    ones = {name: torch.ones_like(values) for name, values in state.items() if name.endswith("running_var")}
    weights = {name: torch.full_like(values, 0.01) for name, values in state.items() if name.endswith("weight")}
    save_weights(to, {**counted, **weights, **ones})


def pack(folder: Path, to: Path, expected: dict[str, str]) -> None:
    """Write homes into an archive, without caches, locks, logs and sockets."""
    (folder / EXPECTED).write_text(json.dumps(expected))

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = Path(entry.name).name
        return None if name in ("logs", "reserve") or name.endswith((".sock", "lock", "-shm")) else entry

    with tarfile.open(to, "w:xz", preset=9) as packed:
        packed.add(folder, arcname=".", filter=kept)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Make the archive of this version in FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as name:
            result = right_result(Path(name) / "right", kind)
            killed_in_mid_run(Path(name) / "homes", kind)
            pack(Path(name) / "homes", folder / f"{kind}.tar.xz", {"version": __version__, "result": result})
    with tempfile.TemporaryDirectory() as name:
        even_network(Path(name) / "network.safetensors")
        tuned(Path(name) / "homes", Path(name) / "network.safetensors")
        pack(Path(name) / "homes", folder / "ended.tar.xz", {"version": __version__})


if __name__ == "__main__":
    main()
