"""What the benchmark programs compute from what they time, and how they take turns."""

from __future__ import annotations

import itertools
import multiprocessing
import time

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from benchmarks.command_line import begins_with
from benchmarks.compression import apart
from benchmarks.limits import kept_bytes, work
from benchmarks.loaders import Batches, Choice, as_it_comes, best_choice, worker_counts
from benchmarks.photographs import repeated
from benchmarks.sides import (
    REST_S,
    Side,
    in_turn,
    machine,
    medians,
    overhead,
    pace,
    ratio,
    seconds,
    steps_for,
    table,
    turns_for,
    warmed,
    why_not,
)
from benchmarks.simclr_sides import Row, images_of, our_trainer, paper_training
from benchmarks.trainer import Bench, arguments, as_they_come, rows_asked

torch.set_num_threads(1)
CPU = torch.device("cpu")


class Clock:
    """Time that passes only where somebody says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, step_s: float, diary: list[str]):
        def run(steps: int) -> None:
            diary.append(name)
            self.now += steps * step_s

        return run


def test_sides_take_turns_and_rest_in_between():
    clock, diary, rests = Clock(), [], []
    sides = [
        Side("ours", clock.work("ours", 0.5, diary), items=16, steps=2),
        Side("bare", clock.work("bare", 0.4, diary), items=16, steps=3),
    ]
    rates = in_turn(sides, 3, clock=clock, rest=rests.append)
    assert diary == ["ours", "bare"] * 3
    assert rests == [REST_S] * 6
    assert rates["ours"] == pytest.approx([32.0] * 3)  # 2 steps of 16 views in 1 s
    assert rates["bare"] == pytest.approx([40.0] * 3)


def test_a_ratio_is_the_median_of_the_turns_ratios():
    rates = {"ours": [100.0, 50.0, 90.0], "bare": [110.0, 55.0, 180.0]}  # the machine slows down, then hiccups
    assert ratio(rates, "ours", "bare") == pytest.approx(1 / 1.1)
    assert overhead(rates, "ours", "bare") == pytest.approx(0.1)
    assert medians(rates) == {"ours": 90.0, "bare": 110.0}


def test_a_side_may_say_which_seconds_count():
    assert seconds(lambda _steps: 0.25, 3, Clock()) == 0.25


def test_a_pace_is_taken_from_whole_bursts():
    clock, diary = Clock(), []
    assert pace(clock.work("other", 0.2, diary), 2, 1.0, clock) == pytest.approx(5.0)
    assert len(diary) == 3  # two bursts of .4 s fall short of a second


def test_a_slow_first_step_on_a_cpu_is_not_repeated():
    clock, diary = Clock(), []
    assert warmed(clock.work("slow", 9.0, diary), CPU, clock) == 9.0
    assert diary == ["slow"]
    assert warmed(clock.work("quick", 0.5, diary), CPU, clock) == 0.5
    assert diary == ["slow", "quick", "quick"]


@pytest.mark.parametrize(
    ("step_s", "multiple", "most", "steps"),
    [
        (0.3, 1, None, 4),
        (5.0, 1, None, 1),
        (0.3, 4, None, 4),
        (0.3, 3, None, 6),
        (0.001, 1, 128, 128),
        (5.0, 2, None, 2),
    ],
)
def test_a_turn_is_about_a_second_of_whole_bursts(step_s, multiple, most, steps):
    assert steps_for(step_s, 1.0, multiple=multiple, most=most) == steps


def test_dear_rows_get_the_fewest_turns_and_cheap_rows_the_most():
    assert turns_for(20.0, 45.0, 3, 7) == 3
    assert turns_for(9.0, 45.0, 3, 7) == 5
    assert turns_for(0.1, 45.0, 3, 7) == 7


def measured(name: str, precision: str, ours: float, documented: float) -> dict:
    lightly = {"as_documented": documented}
    return {
        "row": name,
        "precision": precision,
        "skipped": None,
        "views_per_s": {"ours eager": ours},
        "lightly": lightly,
    }


def test_either_as_it_comes_is_our_faster_precision_and_their_documented_loop():
    rows = [
        measured("resnet18/64/8", "float32", 100.0, 40.0),
        measured("resnet18/64/8", "bfloat16", 120.0, 60.0),
        measured("resnet18/64/32", "float32", 100.0, 40.0),
        measured("resnet18/64/32", "bfloat16", 105.0, 60.0),  # less than a tenth faster: not taken
        measured("resnet50/224/8", "float32", 100.0, 40.0),  # measured in one precision
        {"row": "resnet50/224/8", "precision": "bfloat16", "skipped": "needs about 45 GB of memory"},
    ]
    assert as_they_come(rows, "ours eager") == [
        ["resnet18/64/8", "120.0 (bfloat16)", "40.0", "3.00"],
        ["resnet18/64/32", "100.0 (float32)", "40.0", "2.50"],
    ]


def test_a_row_that_is_left_out_says_why():
    assert why_not(100, 300, 2e9, 8e9) is None
    assert why_not(100, 300, 45e9, 16e9) == "needs about 45 GB of memory, 16 GB are free"
    assert why_not(1320, 300, 2e9, 8e9) == "would take about 1320 s, the limit is 300 s (--row-seconds)"


def test_the_table_is_markdown_and_lines_up():
    text = table(["row", "ours"], [["resnet18/64/8", "139.0"], ["resnet50/224/256"]])
    assert text.splitlines() == [
        "| row              | ours  |",
        "| ---------------- | ----- |",
        "| resnet18/64/8    | 139.0 |",
        "| resnet50/224/256 |       |",
    ]


def test_the_machine_is_described_without_naming_its_owner():
    about = machine(CPU)
    assert about["torch"] == torch.__version__
    assert about["cores"] >= 1
    assert about["gpu"] is None
    assert not any("/" in str(value) for value in about.values())


def test_rows_are_asked_for_by_the_beginning_of_their_name():
    assert begins_with("resnet18/64/8", ["resnet18/64"])
    assert not begins_with("resnet18/64/8", ["resnet18/6"])
    assert len(rows_asked(None, None, quick=False)) == 4 * 3 * 2
    assert [row.name for row in rows_asked(None, "float32", quick=True)] == ["resnet18/64/8", "resnet18/64/32"]
    assert [row.name for row in rows_asked(["resnet50/224/8"], "bfloat16", quick=True)] == ["resnet50/224/8"]


def test_the_papers_whole_training_is_refused_on_a_cpu(capsys):
    with pytest.raises(SystemExit):
        arguments(["--paper", "--device", "cpu"])
    assert "needs a GPU" in capsys.readouterr().err


def test_the_other_side_gets_its_best_worker_count_and_memory_format():
    rates = {Choice(0, True): 63.0, Choice(1, True): 68.0, Choice(2, True): 97.0, Choice(2, False): 99.0}
    choice, tried = best_choice(rates.__getitem__, [0, 1, 2])
    assert choice == Choice(2, channels_last=False)
    assert tried == {"0 workers": 63.0, "1 workers": 68.0, "2 workers": 97.0, "2 workers, contiguous": 99.0}
    assert worker_counts(2) == [0, 1, 2]
    assert worker_counts(6) == [0, 1, 2, 4]


class Counted(Dataset):
    """Ten numbers; counts, across processes, how often one was loaded."""

    def __init__(self, loaded):
        self.loaded = loaded

    def __len__(self):
        return 10

    def __getitem__(self, place):
        with self.loaded.get_lock():
            self.loaded.value += 1
        return place


def standing_still(loaded) -> int:
    """Wait until nothing has been loaded for a moment; return the count."""
    for _ in range(100):
        before = loaded.value
        time.sleep(0.1)
        if loaded.value == before:
            return before
    raise AssertionError("the workers never came to rest")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_where_it_was_and_stands_still_in_between(workers):
    loaded = multiprocessing.get_context("fork").Value("i", 0)
    batches = Batches(Counted(loaded), 2, workers, pin=False)
    try:
        first = [tuple(batch.tolist()) for batch in batches.take(3)]
        between = standing_still(loaded)
        # six images were taken; a worker has at most two more batches ahead
        assert 6 <= between <= 6 + workers * 2 * 2
        second = [tuple(batch.tolist()) for batch in batches.take(2)]
        assert sorted(itertools.chain(*first, *second)) == list(range(10))  # one epoch, each image once
    finally:
        batches.close()


def test_the_other_side_runs_without_our_determinism_and_leaves_it_as_it_was():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with as_it_comes():
            assert not torch.are_deterministic_algorithms_enabled()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)


def test_arithmetic_and_traffic_of_a_matrix_product_can_be_counted_by_hand():
    w = torch.ones(3, 5, requires_grad=True)
    x = torch.ones(2, 3)
    found = work(lambda: (x @ w).sum(), views=2)
    # forward 2.2.3.5 operations; backward for w alone, as x needs no gradient: as many
    assert found.flops * 2 == 60 + 60
    # forward x, w -> y (6 + 15 + 10), sum y -> 1 (10 + 1), at four bytes; then backward
    assert found.moved_bytes * 2 >= 4 * (31 + 11) + 4 * (6 + 10 + 15)
    assert found.kept_bytes * 2 == 4 * 6  # x; a weight is there anyway


def test_a_memory_that_is_kept_twice_counts_once():
    x = torch.ones(8, requires_grad=True)

    def forward():
        y = x * 2
        return (y * y).sum()  # y is kept for both factors

    assert kept_bytes(forward) == 4 * 8


def test_images_repeat_until_there_are_enough():
    assert repeated(torch.arange(3).numpy(), 7).tolist() == [0, 1, 2, 0, 1, 2, 0]


def tiny_row() -> Row:
    return Row("resnet18", 32, 2, "float32")


def test_our_side_is_the_site_agents_own_trainer_with_both_views_augmented():
    row = tiny_row()
    assert row.recipe.views == "both-augmented"
    assert row.views == 4
    train = our_trainer(row.recipe, CPU, "eager")
    images = images_of(torch.randint(0, 255, (3, 32, 32, 3), dtype=torch.uint8).numpy(), 4)
    records = [train(images), train(images)]
    assert [record.epoch for record in records] == [1, 2]
    assert [record.steps for record in records] == [2, 2]


def test_the_papers_training_counts_every_step_of_every_epoch():
    pixels = torch.randint(0, 255, (3, 32, 32, 3), dtype=torch.uint8).numpy()
    done = paper_training(pixels, CPU, "eager", tiny_row(), images=5, epochs=2)
    assert done["steps"] == 4  # of 5 images the last is dropped
    assert done["views_per_s"] == pytest.approx(16 / done["seconds"])


def test_an_unaccelerated_run_compares_with_the_bare_step_of_its_own_kind():
    def bench(*accelerations):
        return Bench(CPU, None, {}, accelerations, [0], None, 300.0)

    assert bench("eager").headline == "eager"
    assert bench("eager", "graph", "compile").headline == "graph"


@pytest.mark.gpu
def test_a_captured_step_does_what_the_step_does():
    from benchmarks.simclr_sides import captured

    cuda = torch.device("cuda")
    total = torch.zeros((), device=cuda)
    layer = nn.Linear(2, 2, device=cuda)

    def step():
        total.add_(layer(torch.ones(1, 2, device=cuda)).detach().sum() * 0 + 1)

    replay = captured(step)
    before = float(total)
    replay()
    assert float(total) == before + 1


def test_differences_over_seeds_have_student_s_interval():
    assert apart([1.0, 2.0, 3.0]) == "+2.0000 (-0.4841 to +4.4841)"  # 2 +- 4.3027 * 1 / sqrt(3)
    assert apart([-0.5]) == "-0.5000"
