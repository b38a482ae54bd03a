"""What is said of an epoch, word for word."""

from __future__ import annotations

import dataclasses

import pytest

from fedcervix.core.plan import Recipe
from site_agent.store.task_results import ScoreResult, TrainResult
from site_agent.training.collapse_metrics import Gauges
from site_agent.training.loop import Epoch, Score, TrainedEpoch
from site_agent.training.monitor import clock_time, epoch_line, images_per_s, round_lines

HEALTHY = Gauges(
    zero_rows=0.0, dead_units=0.25, unit_std=0.9, effective_rank=14.26, alignment=0.3111, uniformity=-2.8666
)


def epoch(number: int = 3, *, gauges: Gauges = HEALTHY, valid: float = 1.9, seconds: float = 8.0) -> Epoch:
    train = TrainedEpoch(epoch=number, loss=1.83214, steps=125, images=1000, seconds=seconds, gauges=HEALTHY)
    return Epoch(train, Score(loss_sum=valid * 100, count=100, gauges=gauges), knn_auc=0.7118)


def test_one_line_says_how_the_epoch_went() -> None:
    """N = 8: collapse costs log 15 = 2.7081. Three epochs took 30 s, so the 47 to come take 470 s."""
    [line] = epoch_line(epoch(), Recipe(), seconds=30.0)
    assert line == (
        "epoch 3 of 50: loss 1.8321 (collapsed: 2.7081), validation 1.9000, alignment 0.311, uniformity -2.867, "
        "effective rank 14.3, k-NN AUC 0.712, 125 images/s, at most 0:07:50 left"
    )


def test_without_labels_there_is_no_word_of_neighbours() -> None:
    unlabelled = dataclasses.replace(epoch(), knn_auc=None)
    [line] = epoch_line(unlabelled, Recipe(), seconds=30.0)
    assert "effective rank 14.3, 125 images/s" in line


def test_after_the_last_epoch_no_time_is_left() -> None:
    [line] = epoch_line(epoch(50), Recipe(), seconds=500.0)
    assert line.startswith("epoch 50 of 50: ")
    assert line.endswith("125 images/s")


def test_a_resumed_training_counts_the_epochs_it_timed() -> None:
    """Of 40 epochs this process trained 4, in 40 s: 10 to come take 100 s."""
    [line] = epoch_line(epoch(40), Recipe(), seconds=40.0, timed_epochs=4)
    assert line.endswith("at most 0:01:40 left")


def test_alarms_follow_one_per_line() -> None:
    collapsed = dataclasses.replace(HEALTHY, zero_rows=0.9, unit_std=0.01)
    line, dead, alike, guessing = epoch_line(epoch(gauges=collapsed, valid=2.7), Recipe(), seconds=30.0)
    assert "validation 2.7000" in line
    assert dead == (
        "90% of the representations are all zero (dead ReLU): they receive no gradient: "
        "try a lower learning rate, head = linear, or another seed."
    )
    assert alike == (
        "all images have nearly the same representation (spread 0.010 of 1): "
        "try a lower learning rate, stronger augmentation, or check that the images differ."
    )
    assert guessing == (
        "the loss 2.700 is not better than guessing (2.708) at 8 images in a batch: "
        "if this continues, try another learning rate or weaker augmentation."
    )


def test_the_decoupled_loss_has_its_own_collapse_line() -> None:
    """Without the positive the sum has 2N - 2 terms: log 14 = 2.6391."""
    assert "(collapsed: 2.6391)" in epoch_line(epoch(), Recipe(loss="dcl"), seconds=30.0)[0]


def test_a_clock_that_stood_still_gives_no_pace() -> None:
    assert images_per_s(epoch(seconds=0.0)) == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (0.2, "0:00:01"), (65, "0:01:05"), (3599.5, "1:00:00"), (111_600, "31:00:00")],
)
def test_time_is_written_as_hours_minutes_seconds(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text


def test_a_round_is_said_like_an_epoch_at_the_site() -> None:
    gauges = dataclasses.asdict(HEALTHY)
    trained = TrainResult(digest="d", images=8, steps=1, loss=1.8321, seconds=1.0, gauges=gauges, precision="bfloat16")
    assert round_lines(trained, Recipe()) == (
        "loss 1.8321 (collapsed: 2.7081), alignment 0.311, uniformity -2.867, effective rank 14.3, bfloat16",
    )
    scored = ScoreResult(loss_sum=19.0, count=10, images=8, gauges=gauges, knn_auc=0.712)
    [line] = round_lines(scored, Recipe())
    assert line.startswith("validation 1.9000 (collapsed: 2.7081), alignment 0.311, uniformity -2.867, ")
    assert line.endswith(", effective rank 14.3, k-NN AUC 0.712")
    [_, alarm] = round_lines(dataclasses.replace(scored, loss_sum=27.0), Recipe())
    assert "not better than guessing" in alarm
