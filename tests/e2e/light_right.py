"""The right result of a run of light sites (see light_worker.py), computed by one process that federates nothing."""

from __future__ import annotations

from pathlib import Path

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.plan import Plan
from fedcervix.models.aggregate import aggregate
from fedcervix.models.blobs import BlobStore
from fedcervix.models.secure_averages import Summed, derive
from fedcervix.models.secure_sums import open_sum
from fedcervix.models.secure_updates import quantise
from fedcervix.models.weights import read_layout
from fedcervix.trust.fixed_point import Share
from fedcervix.trust.mask_streams import MaskSecret
from site_agent.home import SiteHome
from site_agent.store.task_results import ScoreResult, TrainResult
from tests.e2e.light_worker import NUMBERS, LightWork


def light_result(plan: Plan, folder: Path, numbers: int = NUMBERS, attempt: int = 1) -> str:
    """Return the digest of the model that the run ends with. The plan compresses nothing.

    `attempt`: with which each round was done.
    """
    assert plan.terms.compression == "none"
    table = _Table(plan, SiteHome(folder), numbers, attempt)
    model, found = table.trained(plan.sites[0], TaskKind.SEED, 0, ""), []
    for round_ in range(1, plan.rounds_max + 1):
        model = table.round(round_, model)
        found.append((table.loss(round_, model), round_, model))
    return min(found)[2]


class _Table:
    """All sites at one table: they share one store of models."""

    def __init__(self, plan: Plan, home: SiteHome, numbers: int, attempt: int) -> None:
        self._plan, self._blobs, self._attempt = plan, BlobStore(home.blobs), attempt
        self._works = {site: LightWork(home, site, numbers=numbers) for site in plan.sites}

    def trained(self, site: str, kind: TaskKind, round_: int, base: str) -> str:
        task = Task("run", kind, round_, base, self._attempt)
        done = self._works[site].do(task, self._plan, lambda _progress: None)
        assert isinstance(done, TrainResult)
        return done.digest

    def round(self, round_: int, base: str) -> str:
        updates = []
        for site in self._plan.sites:
            updates.append(self.trained(site, TaskKind.TRAIN, round_, base))
            base = updates[-1] if self._plan.mode_rules.in_turns else base
        return base if self._plan.mode_rules.in_turns else self._average(updates, base, round_)

    def _summed(self, updates: list[Path], base: str, making: Path, round_: int) -> str:
        """Derive the model from the sum of the whole numbers themselves: nothing is masked here."""
        origin, rule, tag = self._blobs.path(base), self._plan.terms.batch_norm, MaskSecret(b"t" * 32, b"any")
        vectors = [update.with_name(f"q-{number}") for number, update in enumerate(updates)]
        for update, vector in zip(updates, vectors, strict=True):
            quantise(update, origin, vector, Share(1, len(updates)), rule, tag, round_=round_)
        total = self._blobs.scratch("sum")
        open_sum(vectors, [], total, read_layout(origin))
        digest = derive(total, origin, making, Summed(Share(1, 1), len(updates)), rule, round_=round_).digest
        self._blobs.adopt(making, digest)
        return digest

    def _average(self, updates: list[str], base: str, round_: int) -> str:
        files = [self._blobs.path(update) for update in updates]
        making = self._blobs.scratch("average")
        layout, terms = read_layout(files[0]), self._plan.terms
        if terms.secure_sum:
            return self._summed(files, base, making, round_)
        digest = aggregate([(file, 1.0) for file in files], layout, making, terms.batch_norm)
        self._blobs.adopt(making, digest)
        return digest

    def loss(self, round_: int, model: str) -> float:
        task = Task("run", TaskKind.SCORE, round_, model)
        scores = [work.do(task, self._plan, lambda _progress: None) for work in self._works.values()]
        losses = [score.loss_sum / score.count for score in scores if isinstance(score, ScoreResult)]
        assert len(losses) == len(self._works)
        return sum(losses) / len(losses)
