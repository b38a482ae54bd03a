"""Make the archive of a release: small homes of every kind, as its programs left them when they were killed.

    python -m tests.archive.make tests/archive/VERSION

Made once, when a version is released, and never again: what matters is that these bytes are old. Each archive is packed
with the run's right result, so that today's programs can be held to it (`test_archive.py`).

MODE-COMPRESSION.tar.xz   the homes of a coordinator and of two sites, all killed in the second of three rounds
ended.tar.xz              the homes after a run with a model that can be fine-tuned, a classifier and its report
study.tar.xz              a study that was killed before its last cells

Sites without images make the first ones, with models of fifty numbers. The others train from a network whose units are
all alike: they stay alike, and so its files pack into little.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import click
import torch

from fedcervix.core.plan import Recipe
from site_agent.network.encoder import build_encoder, save_weights
from tests.archive.homes import EXPECTED, KINDS, LIGHT, Kind
from tests.e2e.institutions import draw_collections
from tests.e2e.loopback import BIN, TINY_RECIPE, Federation, processes_of, start, until
from tests.e2e.test_study import PROGRAM, STUDY, finished

BASE = "first.safetensors"
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


def right_result(folder: Path, kind: Kind) -> dict[str, str]:
    """Return the digests of plan and model of an undisturbed run."""
    made = federate(folder, kind)
    try:
        made.finish(made.processes[0], *[made.light(site, *LIGHT) for site in made.sites])
        return {"result": made.result(), "plan": made.record()["plan_digest"]}
    finally:
        made.end()


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
        made.end()


def tuned(folder: Path) -> None:
    """Leave the homes of an ended run whose model a site has fine-tuned and evaluated."""
    draw_collections(folder / "collections")
    shutil.rmtree(folder / "collections" / "alts")
    terms = {"rounds": 1, "give_up_s": LONG_S}
    made = Federation(folder, terms=terms, run={"base": BASE}, sites=("nhs",))
    even_network(made.home.folder / BASE)
    try:
        coordinator = made.coordinate("--mode", "csfssl")
        made.enrol("nhs", folder / "collections" / "nhs" / "manifest.csv")
        made.finish(coordinator, made.agent("nhs"))
    finally:
        made.end()
    for command in (["finetune", "--start", made.record()["run"]], ["evaluate"]):
        subprocess.run([BIN / "site-agent", "--home", made.site("nhs").folder, *command], check=True)


def study(folder: Path) -> None:
    """Leave a study that was killed after six of its nine cells, without its models: they are not needed."""
    draw_collections(folder)
    (folder / "study.toml").write_text(STUDY)
    out = folder / "out"
    process = start("cervix-study", [*PROGRAM, "run", folder / "study.toml", "--out", out], folder / "logs")
    try:
        until("six cells are done", lambda: len(finished(out)) >= 6, timeout_s=600, seen=lambda: process.text)
    finally:
        for pid in processes_of(folder):
            os.kill(pid, signal.SIGKILL)
        process.popen.wait()
    for left_out in (*out.rglob("*.safetensors"), *out.glob("workshop/sites/*/cache")):
        left_out.unlink()
    for part in ("scratch", "cache"):
        shutil.rmtree(out / "workshop" / part)


def even_network(to: Path) -> None:
    """Write an encoder whose units are all alike."""
    state = build_encoder(Recipe(**TINY_RECIPE), seed=1).state_dict()  # type: ignore[arg-type]
    counted = {name: torch.zeros_like(values) for name, values in state.items()}
    ones = {name: torch.ones_like(values) for name, values in state.items() if name.endswith("running_var")}
    weights = {name: torch.full_like(values, 0.01) for name, values in state.items() if name.endswith("weight")}
    save_weights(to, {**counted, **weights, **ones})


def pack(folder: Path, to: Path, right: dict[str, str]) -> None:
    """Write homes into an archive, without what no later version reads."""
    (folder / EXPECTED).write_text(json.dumps(right))

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = Path(entry.name).name
        return (
            None if name in ("logs", "reserve", "latest", "report.html") or name.endswith((".sock", "lock")) else entry
        )

    with tarfile.open(to, "w:xz", preset=9) as packed:
        packed.add(folder, arcname=".", filter=kept)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Make the archive of this version in FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as name:
            right = right_result(Path(name) / "right", kind)
            killed_in_mid_run(Path(name) / "homes", kind)
            pack(Path(name) / "homes", folder / f"{kind}.tar.xz", right)
    with tempfile.TemporaryDirectory() as name:
        tuned(Path(name) / "homes")
        pack(Path(name) / "homes", folder / "ended.tar.xz", {})
    with tempfile.TemporaryDirectory() as name:
        study(Path(name) / "homes")
        pack(Path(name) / "homes", folder / "study.tar.xz", {})


if __name__ == "__main__":
    main()
