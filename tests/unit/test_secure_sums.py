"""Secure sums file by file: the sum is that of the unmasked vectors, and the model the average of the updates."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fedcervix.errors import ModelError, RemoteError
from fedcervix.models.aggregate import Momentum, aggregate
from fedcervix.models.secure_averages import Summed, derive
from fedcervix.models.secure_sums import check_sum, mask, open_sum, release, vet_vector
from fedcervix.models.secure_updates import OUT_OF_RANGE, quantise
from fedcervix.models.secure_vectors import BLOCK_WORDS, open_vectors, vector_form
from fedcervix.models.step_norms import measure_groups
from fedcervix.models.weights import read_layout, read_tensors, write_tensors
from fedcervix.trust.fixed_point import Share, together
from fedcervix.trust.mask_streams import Lane, MaskSecret
from fedcervix.trust.sum_tag import SumTag, tag_secret

Model = Mapping[str, NDArray[Any]]
RULES = ("mean", "pooled-variance", "local-statistics", "local")
TAG = tag_secret([bytes(32)], b"run, round, base")


def model(seed: int, elements: int = BLOCK_WORDS + 17) -> dict[str, NDArray[Any]]:
    chance = np.random.default_rng(seed)
    return {
        "conv.weight": (chance.normal(size=elements) / 20).astype(np.float32),
        "bn.weight": np.ones(64, np.float32),
        "bn.running_mean": chance.normal(size=64).astype(np.float32),
        "bn.running_var": chance.exponential(size=64).astype(np.float32),
        "bn.num_batches_tracked": np.array(seed + 5, np.int64),
        "half": chance.normal(size=9).astype(np.float16),
        "empty": np.empty((0, 3), np.float32),
        "frozen": np.array([seed % 2, 1], np.bool_),
    }


def trained(base: Model, seed: int) -> dict[str, NDArray[Any]]:
    chance = np.random.default_rng(1000 + seed)
    moved = {name: chance.normal(size=value.shape) / 100 for name, value in base.items()}
    found = {name: (v + moved[name]).astype(v.dtype) for name, v in base.items() if v.dtype.kind == "f"}
    found["bn.running_var"] = np.abs(found["bn.running_var"])
    return {**base, **found, "bn.num_batches_tracked": base["bn.num_batches_tracked"] + seed}


@dataclass
class Round:
    """One round of sites and holders, as files of a folder."""

    folder: Path
    base: Model
    updates: Sequence[Model]
    images: Sequence[int]
    rule: Any = "mean"
    holders: int = 2
    paths: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        write_tensors(self.at("base"), self.base)
        for site, update in enumerate(self.updates):
            write_tensors(self.at(f"update-{site}"), update)
            update, q = self.at(f"update-{site}"), self.at(f"q-{site}")
            quantise(update, self.at("base"), q, self.share(site), self.rule, TAG, round_=2)
            mask(self.at(f"q-{site}"), self.at(f"y-{site}"), self.layout, self.secrets_of(site))

    def at(self, name: str) -> Path:
        return self.folder / name

    @property
    def layout(self):
        return read_layout(self.at("base"))

    @property
    def sites(self) -> range:
        return range(len(self.updates))

    def share(self, site: int) -> Share:
        return Share(self.images[site], sum(self.images))

    def secret(self, site: int, holder: int) -> MaskSecret:
        return MaskSecret(hashlib.sha256(f"{site} {holder}".encode()).digest(), b"context")

    def secrets_of(self, site: int) -> list[MaskSecret]:
        return [self.secret(site, holder) for holder in range(self.holders)]

    def released(self, sites: Sequence[int]) -> list[Path]:
        for holder in range(self.holders):
            release(self.at(f"release-{holder}"), self.layout, [self.secret(site, holder) for site in sites])
        return [self.at(f"release-{holder}") for holder in range(self.holders)]

    def opened(self, sites: Sequence[int] | None = None, to: str = "sum") -> str:
        chosen = list(self.sites if sites is None else sites)
        return open_sum([self.at(f"y-{site}") for site in chosen], self.released(chosen), self.at(to), self.layout)

    def summed(self, sites: Sequence[int] | None = None) -> Summed:
        chosen = list(self.sites if sites is None else sites)
        return Summed(together(map(self.share, chosen)), len(chosen))

    def derived(self, sites: Sequence[int] | None = None, momentum: Momentum | None = None) -> Model:
        derive(self.at("sum"), self.at("base"), self.at("model"), self.summed(sites), self.rule, momentum, round_=2)
        return read_tensors(self.at("model"))

    def plain(self, sites: Sequence[int] | None = None, momentum: Momentum | None = None) -> Model:
        chosen = self.sites if sites is None else sites
        updates = [(self.at(f"update-{site}"), float(self.images[site])) for site in chosen]
        aggregate(updates, self.layout, self.at("plain"), self.rule, momentum)
        return read_tensors(self.at("plain"))

    def words(self, name: str, lane: Lane, dtype: str) -> NDArray[Any]:
        form = vector_form(self.layout)
        with open_vectors([self.at(name)], form) as [vector]:
            found = np.empty(form.part(lane.value.decode()).count, dtype)
            vector.read(lane, 0, found)
        return found


@pytest.fixture
def made(tmp_path) -> Callable[..., Round]:
    def make(sites: int = 3, rule: str = "mean", **more: Any) -> Round:
        base = model(0)
        images = [100 + 37 * site for site in range(sites)]
        return Round(tmp_path / "round", base, [trained(base, site) for site in range(sites)], images, rule, **more)

    return make


@pytest.mark.parametrize(("sites", "holders"), [(3, 1), (8, 2), (64, 1)])
def test_the_sum_is_that_of_the_unmasked_vectors_bit_for_bit(tmp_path, sites: int, holders: int) -> None:
    base = model(0, 300)
    updates = [trained(base, site) for site in range(sites)]
    found = Round(tmp_path, base, updates, list(range(100, 100 + sites)), holders=holders)
    found.opened()
    for lane, dtype in ((Lane.STATISTICS, "<i8"), (Lane.NUMBERS, "<i4")):
        exact = sum(found.words(f"q-{site}", lane, dtype).astype(object) for site in found.sites)
        np.testing.assert_array_equal(found.words("sum", lane, dtype).astype(object), exact)
    check_sum(found.at("sum"), found.at("base"), sites, TAG)


@pytest.mark.parametrize("rule", RULES)
def test_the_model_is_the_average_of_the_updates(made, rule: str) -> None:
    round_ = made(3, rule)
    round_.opened()
    ours, plain = round_.derived(), round_.plain()
    assert ours.keys() == plain.keys()
    for name, value in plain.items():
        assert (ours[name].dtype, ours[name].shape) == (value.dtype, value.shape)
        np.testing.assert_allclose(ours[name], value, rtol=2e-3 if name == "half" else 1e-6, atol=2e-8)
    for name in ("bn.num_batches_tracked", "frozen"):
        np.testing.assert_array_equal(ours[name], plain[name])


def test_a_site_that_is_missing_has_no_part_in_the_average(made) -> None:
    round_ = made(4)
    round_.opened([0, 1, 3])
    check_sum(round_.at("sum"), round_.at("base"), 3, TAG)
    ours, plain = round_.derived([0, 1, 3]), round_.plain([0, 1, 3])
    np.testing.assert_allclose(ours["conv.weight"], plain["conv.weight"], atol=2e-8)


def test_server_momentum_is_added_as_to_a_plain_average(made, tmp_path) -> None:
    round_ = made(3, "local")
    round_.opened()
    write_tensors(tmp_path / "before", trained(round_.base, 99))
    momentum = Momentum(0.5, round_.at("base"), tmp_path / "before")
    ours, plain = round_.derived(momentum=momentum), round_.plain(momentum=momentum)
    without = round_.derived()
    for name in ("conv.weight", "bn.weight", "bn.running_mean"):
        np.testing.assert_allclose(ours[name], plain[name], atol=2e-7)
    assert not np.array_equal(ours["conv.weight"], without["conv.weight"])
    np.testing.assert_array_equal(ours["bn.weight"], without["bn.weight"])  # it stays at the sites


def test_an_average_is_as_near_to_float64_as_float32_allows(tmp_path) -> None:
    """Of three sites, on weights as large as those of a network: 3.2e-8, where float32's own rounding is 2.6e-8."""
    chance = np.random.default_rng(3)
    base = {f"conv{at}": (chance.normal(size=50_000) / 25).astype(np.float32) for at in range(4)}
    base |= {"bn.weight": np.ones(2000, np.float32), "bn.running_mean": np.zeros(2000, np.float32)}
    base["bn.running_var"] = np.ones(2000, np.float32)
    base["bn.num_batches_tracked"] = np.array(0)
    updates = [trained(base, site) for site in range(3)]
    round_ = Round(tmp_path, base, updates, [300, 500, 700])
    round_.opened()
    ours = round_.derived()
    exact = {
        name: sum(n * update[name].astype(np.float64) for n, update in zip(round_.images, updates, strict=True)) / 1500
        for name in base
        if base[name].dtype == np.float32
    }
    apart = sum(np.square(ours[name] - value).sum() for name, value in exact.items())
    assert (apart / sum(np.square(value).sum() for value in exact.values())) ** 0.5 < 3.2e-8


def test_no_order_of_sites_or_holders_changes_a_bit(made) -> None:
    round_ = made(3)
    releases = round_.released([0, 1, 2])
    masked = [round_.at(f"y-{site}") for site in range(3)]
    digests = {
        open_sum(sites, holders, round_.at("sum"), round_.layout)
        for sites in itertools.permutations(masked)
        for holders in (releases, releases[::-1])
    }
    assert digests == {round_.opened([2, 0, 1])}


def test_the_order_of_tensors_in_an_update_does_not_matter(made) -> None:
    round_ = made(3)
    update = {name: round_.updates[0][name] for name in reversed(round_.updates[0])}
    raw = round_.at("update-0").read_bytes()
    write_tensors(round_.at("other"), update, {"made": "elsewhere"})
    assert round_.at("other").read_bytes() != raw
    again = quantise(round_.at("other"), round_.at("base"), round_.at("q"), round_.share(0), "mean", TAG, round_=2)
    assert again.digest == hashlib.sha256(round_.at("q-0").read_bytes()).hexdigest()
    [trained_part, *_] = measure_groups(round_.at("other"), round_.at("base"))
    assert (trained_part.kind, again.norm) == ("float", pytest.approx(math.sqrt(trained_part.moved)))


def test_a_masked_vector_shows_nothing_of_its_numbers(made) -> None:
    round_ = made(3)
    for lane, dtype in ((Lane.STATISTICS, "u8"), (Lane.NUMBERS, "u4")):
        masked, plain = round_.words("y-0", lane, dtype), round_.words("q-0", lane, dtype)
        assert not np.any(masked == plain)
        counts = np.bincount(masked.view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4
        assert abs(np.corrcoef(masked.astype(float), plain.view(dtype.replace("u", "i")))[0, 1]) < 0.3


KILLED = """
import sys
from pathlib import Path
from fedcervix.models.secure_sums import mask
from fedcervix.models.weights import read_layout
from fedcervix.trust.mask_streams import MaskSecret
folder = Path(sys.argv[1])
layout = read_layout(folder / "base")
while True:
    mask(folder / "q-0", folder / "y-again", layout, [MaskSecret(bytes([h]) * 32, b"c") for h in range(40)])
"""


def test_what_was_killed_gives_the_same_bits_when_it_is_done_again(made) -> None:
    round_ = made(3)
    secrets = [MaskSecret(bytes([holder]) * 32, b"c") for holder in range(40)]
    whole = mask(round_.at("q-0"), round_.at("y-whole"), round_.layout, secrets)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(round_.folder)])
    part = round_.at(".y-again.part")
    while process.poll() is None and not part.exists():
        os.sched_yield()
    process.kill()
    assert process.wait(60) == -signal.SIGKILL  # it was at work
    if round_.at("y-again").exists():
        assert hashlib.sha256(round_.at("y-again").read_bytes()).hexdigest() == whole
    assert mask(round_.at("q-0"), round_.at("y-again"), round_.layout, secrets) == whole
    assert not part.exists()


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "value", "is_sent"), [(1, 3.0, True), (1, 17.0, False), (2, 3.0, False)])
def test_the_first_steps_from_random_weights_may_be_long(made, number: int, value: float, is_sent: bool) -> None:
    round_ = made(3)
    moved = round_.base["conv.weight"] + np.float32(value)
    write_tensors(round_.at("far"), {**round_.updates[0], "conv.weight": moved})
    refused = contextlib.nullcontext() if is_sent else pytest.raises(ModelError, match=OUT_OF_RANGE)
    with refused:
        quantise(round_.at("far"), round_.at("base"), round_.at("q"), round_.share(0), "mean", TAG, round_=number)
    assert round_.at("q").exists() == is_sent


@pytest.mark.parametrize("value", [3.0, -1e9, np.nan, np.inf])
def test_a_step_out_of_range_is_refused_and_its_tensor_stays_at_the_site(made, value: float) -> None:
    round_ = made(3)
    update = {**round_.updates[0], "conv.weight": round_.updates[0]["conv.weight"].copy()}
    update["conv.weight"][-1] += value
    write_tensors(round_.at("far"), update)
    with pytest.raises(ModelError) as refused:
        quantise(round_.at("far"), round_.at("base"), round_.at("q"), round_.share(0), "mean", TAG, round_=2)
    assert refused.value.what == OUT_OF_RANGE
    assert "conv" not in refused.value.what + refused.value.cause  # these two may leave the site
    assert "conv.weight" in refused.value.next_step
    assert not round_.at("q").exists()


def test_a_statistic_out_of_range_is_refused(made) -> None:
    round_ = made(3)
    update = {**round_.updates[0], "bn.running_var": np.full(64, 2.0**28, np.float32)}
    write_tensors(round_.at("far"), update)
    with pytest.raises(ModelError, match="out of range"):
        quantise(round_.at("far"), round_.at("base"), round_.at("q"), round_.share(0), "mean", TAG, round_=2)


def test_a_base_whose_numbers_are_too_large_is_refused_by_name(tmp_path) -> None:
    base = {"w": np.float32([2.0**17 + 1])}
    with pytest.raises(RemoteError, match="w of the model of this round"):
        Round(tmp_path, base, [base], [1])


def test_pooled_variance_needs_the_mean(tmp_path) -> None:
    base = {"bn.running_var": np.float32([1])}
    with pytest.raises(ModelError, match=r"bn\.running_var has no bn\.running_mean"):
        Round(tmp_path, base, [base], [1], "pooled-variance")


def test_a_model_of_integers_is_refused(tmp_path) -> None:
    base = {"w": np.float32([1]), "table": np.zeros(2**18, np.int64)}
    with pytest.raises(ModelError, match="bytes of whole numbers"):
        Round(tmp_path, base, [base], [1])


def test_a_release_for_other_sites_opens_nothing(made) -> None:
    round_ = made(4)
    masked = [round_.at(f"y-{site}") for site in range(3)]
    with pytest.raises(RemoteError, match="masks of this round do not cancel"):
        open_sum(masked, round_.released([0, 1, 3]), round_.at("sum"), round_.layout)
    assert not round_.at("sum").exists()


def changed_word(path: Path, offset: int, by: int, size: int = 4) -> None:
    raw = bytearray(path.read_bytes())
    word = int.from_bytes(raw[offset : offset + size], "little") + by
    raw[offset : offset + size] = (word % 2 ** (8 * size)).to_bytes(size, "little")
    path.write_bytes(raw)


@pytest.mark.parametrize(("part", "size"), [("numbers", 4), ("statistics", 8), ("tag", 8)])
def test_a_sum_of_which_one_number_was_changed_is_refused(made, part: str, size: int) -> None:
    round_ = made(3)
    round_.opened()
    start = vector_form(round_.layout).part(part).start
    check_sum(round_.at("sum"), round_.at("base"), 3, TAG)
    changed_word(round_.at("sum"), start, 1, size)
    with pytest.raises(RemoteError, match="not that of the sites' updates"):
        check_sum(round_.at("sum"), round_.at("base"), 3, TAG)


def test_every_byte_of_a_sum_counts_but_those_of_counters(tmp_path) -> None:
    base = {name: value for name, value in model(0, 9).items() if name not in ("bn.weight", "empty")}
    base |= {"bn.running_mean": np.zeros(2, np.float32), "bn.running_var": np.ones(2, np.float32)}
    round_ = Round(tmp_path, base, [trained(base, site) for site in range(3)], [1, 2, 3])
    round_.opened()
    raw = round_.at("sum").read_bytes()
    part = vector_form(round_.layout).part("counters")
    taken = set()
    for place in range(len(raw)):
        round_.at("sum").write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        try:
            check_sum(round_.at("sum"), round_.at("base"), 3, TAG)
        except RemoteError:
            continue
        taken.add(place)
    assert taken <= set(range(part.start, part.end))


@pytest.mark.parametrize(("part", "size", "by"), [("numbers", 4, 2**30 + 2**29), ("statistics", 8, 2**61)])
def test_a_sum_outside_of_its_range_is_refused_whatever_its_tag(made, part: str, size: int, by: int) -> None:
    """A site may send any vector with the true tag of that vector."""
    round_ = made(3)
    round_.opened()
    changed_word(round_.at("sum"), vector_form(round_.layout).part(part).start, by, size)
    tag = SumTag(TAG)
    tag.add(round_.words("sum", Lane.STATISTICS, "<i8"))
    tag.add(round_.words("sum", Lane.NUMBERS, "<i4"))
    raw = round_.at("sum").read_bytes()
    round_.at("sum").write_bytes(raw[:-8] + tag.value.to_bytes(8, "little"))
    with pytest.raises(RemoteError, match="outside of what the sites can send together"):
        check_sum(round_.at("sum"), round_.at("base"), 3, TAG)


def test_a_sum_without_the_vector_of_one_site_is_refused(made) -> None:
    """The coordinator cannot make the tag of another sum: here it adds up two sites, and says that they are three."""
    round_ = made(3)
    round_.opened(to="all")
    round_.opened([0, 1])
    sums = round_.at("sum").read_bytes()
    round_.at("sum").write_bytes(sums[:-8] + round_.at("all").read_bytes()[-8:])
    with pytest.raises(RemoteError, match="not that of the sites' updates"):
        check_sum(round_.at("sum"), round_.at("base"), 3, TAG)


def test_another_secret_has_another_tag(made) -> None:
    round_ = made(3)
    round_.opened()
    with pytest.raises(RemoteError, match="not that of the sites' updates"):
        check_sum(round_.at("sum"), round_.at("base"), 3, tag_secret([bytes(32)], b"run, next round, base"))


@pytest.mark.parametrize("cut", [1, 8, 1000])
def test_a_vector_that_was_cut_is_refused(made, cut: int) -> None:
    round_ = made(3)
    raw = round_.at("y-0").read_bytes()
    for bad in (raw[:-cut], raw + bytes(cut)):
        round_.at("y-0").write_bytes(bad)
        with pytest.raises(RemoteError, match="not a vector of this run's model"):
            round_.opened()


def test_a_vector_of_another_model_is_refused(made, tmp_path) -> None:
    round_ = made(3)
    base = {**round_.base, "bn.weight": np.ones(64, np.float16)}
    other = Round(tmp_path / "other", base, [base], [1])
    with pytest.raises(RemoteError, match="not a vector of this run's model"):
        open_sum([round_.at("y-0"), other.at("y-0")], [], round_.at("sum"), round_.layout)


@pytest.mark.parametrize("count", [-1, 2**41])
def test_counters_that_leap_or_are_negative_are_refused(made, count: int) -> None:
    round_ = made(3)
    form = vector_form(round_.layout)
    place = form.part("counters").start + form.places["bn.num_batches_tracked"]
    changed_word(round_.at("y-0"), place, count - int(round_.updates[0]["bn.num_batches_tracked"]), 8)
    with pytest.raises(RemoteError, match="no count that goes on from the base"):
        vet_vector(round_.at("y-0"), round_.at("base"))
    vet_vector(round_.at("y-1"), round_.at("base"))


def test_a_flag_that_is_none_is_refused(made) -> None:
    round_ = made(3)
    form = vector_form(round_.layout)
    changed_word(round_.at("y-0"), form.part("counters").start + form.places["frozen"], 2, 1)
    with pytest.raises(RemoteError, match="frozen is no count"):
        vet_vector(round_.at("y-0"), round_.at("base"))


def test_a_tag_beyond_its_modulus_is_refused(made) -> None:
    round_ = made(3)
    round_.opened()
    changed_word(round_.at("sum"), vector_form(round_.layout).part("tag").start, 2**61 - 1, 8)
    with pytest.raises(RemoteError, match="a tag is a number below"):
        check_sum(round_.at("sum"), round_.at("base"), 3, TAG)


def test_a_negative_variance_gives_no_model(made) -> None:
    round_ = made(3)
    form = vector_form(round_.layout)
    round_.opened()
    part = form.part("statistics")
    place = part.start + 8 * form.places["bn.running_var"]
    changed_word(round_.at("sum"), place, -(2**50), 8)
    with pytest.raises(RemoteError, match=r"no average of bn\.running_var"):
        round_.derived()
    assert not round_.at("model").exists()


def test_memory_does_not_depend_on_the_size_of_the_model(tmp_path) -> None:
    peaks = []
    for factor in (1, 16):
        base = {"w": np.zeros(factor * 2**18, np.float32), "bn.running_mean": np.zeros(factor * 2**16, np.float32)}
        for name in ("base", "update"):
            write_tensors(tmp_path / name, base)
        layout = read_layout(tmp_path / "base")
        secrets = [MaskSecret(bytes([site]) * 32, b"c") for site in range(8)]
        tracemalloc.start()
        quantise(tmp_path / "update", tmp_path / "base", tmp_path / "q", Share(1, 1), "mean", TAG, round_=2)
        mask(tmp_path / "q", tmp_path / "y", layout, secrets)
        release(tmp_path / "r", layout, secrets)
        open_sum([tmp_path / "y"], [tmp_path / "r"], tmp_path / "sum", layout)
        check_sum(tmp_path / "sum", tmp_path / "base", 1, TAG)
        derive(tmp_path / "sum", tmp_path / "base", tmp_path / "model", Summed(Share(1, 1), 1), "mean", round_=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 12 * 2**20
    assert peaks[1] < 1.3 * peaks[0]
