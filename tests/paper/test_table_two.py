"""Table II of the paper, rebuilt: every printed number follows from integer counts of test images.

That is also the evidence that the paper scores images, not women: the counts fill Table I's test splits exactly.
"""

import numpy as np
import pytest

from fedcervix.metrics import Confusion, auc, roc

# initialisation: TP FN FP TN, then accuracy (percent), recall, precision, F1 as printed; NHS, then ALTS
TABLE_TWO = {
    "Random": (
        (26, 23, 7, 92, "79.73 .5306 .7879 .6341"),
        (39, 29, 17, 113, "76.77 .5735 .6964 .6290"),
    ),
    "ImageNet": (
        (24, 25, 4, 95, "80.41 .4898 .8571 .6234"),
        (38, 30, 14, 116, "77.78 .5588 .7308 .6333"),
    ),
    "SSL N=8": (
        (31, 18, 7, 92, "83.11 .6327 .8158 .7126"),
        (49, 19, 21, 109, "79.80 .7206 .7000 .7101"),
    ),
    "SSL N=16": (
        (34, 15, 10, 89, "83.11 .6939 .7727 .7312"),
        (41, 27, 12, 118, "80.30 .6029 .7736 .6777"),
    ),
    "SSL N=32": (
        (32, 17, 8, 91, "83.11 .6531 .8000 .7191"),
        (42, 26, 15, 115, "79.29 .6176 .7368 .6720"),
    ),
    "CSSL N=8": (
        (35, 14, 6, 93, "86.49 .7143 .8537 .7778"),
        (53, 15, 21, 109, "81.82 .7794 .7162 .7465"),
    ),
    "CSSL N=16": (
        (37, 12, 9, 90, "85.81 .7551 .8043 .7789"),
        (43, 25, 12, 118, "81.31 .6324 .7818 .6992"),
    ),
    "CSSL N=32": (
        (39, 10, 12, 87, "85.14 .7959 .7647 .7800"),
        (44, 24, 13, 117, "81.31 .6471 .7719 .7040"),
    ),
    "CSFSSL": (
        (33, 16, 7, 92, "84.46 .6735 .8250 .7416"),
        (47, 21, 19, 111, "79.80 .6912 .7121 .7015"),
    ),
    "PPFSSL_NHS": (
        (36, 13, 10, 89, "84.46 .7347 .7826 .7579"),
        (45, 23, 15, 115, "80.81 .6618 .7500 .7031"),
    ),
    "PPFSSL_ALTS": (
        (38, 11, 12, 87, "84.46 .7755 .7600 .7677"),
        (45, 23, 16, 114, "80.30 .6618 .7377 .6977"),
    ),
}

# Table I, test split: labelled images (case, control)
TEST_IMAGES = {"NHS": (49, 99), "ALTS": (68, 130)}

CELLS = [
    pytest.param(site, *row[column], id=f"{site} {name}")
    for name, row in TABLE_TWO.items()
    for column, site in enumerate(("NHS", "ALTS"))
]


def printed(found):
    """As Table II prints: accuracy in percent with two decimals, the others with four and no leading zero."""
    rates = (found.recall, found.precision, found.f1)
    return " ".join([f"{100 * found.accuracy:.2f}", *(f"{rate:.4f}".lstrip("0") for rate in rates)])


def test_the_table_is_whole():
    """Table II: eleven initialisations, two institutions, four metrics: 88 numbers."""
    assert sum(len(numbers.split()) for row in TABLE_TWO.values() for *_, numbers in row) == 88


@pytest.mark.parametrize(("site", "tp", "fn", "fp", "tn", "numbers"), CELLS)
def test_every_printed_number_follows_from_counts_of_images(site, tp, fn, fp, tn, numbers):
    """Section III-F: "(1) Accuracy (ACC), (2) Recall, (3) Precision, (4) F1-Score"; positive is case."""
    assert printed(Confusion(tp=tp, fn=fn, fp=fp, tn=tn)) == numbers


@pytest.mark.parametrize(("site", "tp", "fn", "fp", "tn", "numbers"), CELLS)
def test_the_counts_fill_the_test_split(site, tp, fn, fp, tn, numbers):
    """Table I: the test split holds 49 case and 99 control images at NHS, 68 and 130 at ALTS."""
    assert (tp + fn, fp + tn) == TEST_IMAGES[site]


@pytest.mark.parametrize(("site", "tp", "fn", "fp", "tn", "numbers"), CELLS)
def test_images_scored_at_one_half_give_the_same_numbers(site, tp, fn, fp, tn, numbers):
    """Table II and Fig. 2: labels and scores lead to the printed row, which is one point of the ROC curve."""
    labels = np.repeat([1, 1, 0, 0], [tp, fn, fp, tn])
    scores = np.repeat([0.8, 0.2, 0.8, 0.2], [tp, fn, fp, tn])
    found = Confusion.at(labels, scores, 0.5)
    assert printed(found) == numbers
    false_rate, true_rate, _ = roc(labels, scores)
    np.testing.assert_allclose((false_rate[1], true_rate[1]), (fp / (fp + tn), found.recall))
    # the area under a curve with this single corner
    assert auc(labels, scores) == pytest.approx((found.recall + tn / (fp + tn)) / 2)


def right(name, column):
    """How many test images a classifier called right."""
    tp, _, _, tn, _ = TABLE_TWO[name][column]
    return tp + tn


def test_how_many_images_the_headline_is():
    """Abstract: "the SSL-based initialization improves classification performance (Accuracy: 2.5% up)".

    Over ImageNet weights that is four of 148 images at NHS and five of 198 at ALTS, so every claim needs an interval.
    """
    assert right("SSL N=16", 0) - right("ImageNet", 0) == 4
    assert right("SSL N=16", 1) - right("ImageNet", 1) == 5


def test_csfssl_and_ssl_are_equally_right_at_alts():
    """Table II: at ALTS, CSFSSL and SSL N=8 print the same accuracy, 79.80, though other recalls and precisions."""
    assert right("CSFSSL", 1) == right("SSL N=8", 1) == 158
