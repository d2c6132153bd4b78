"""Metrics against plain float64 code, and against torchmetrics where it is."""

import math

import numpy as np
import pytest
import torch

from gem_fast.evaluation.metrics import areas, total
from gem_fast.evaluation.points import hits, readings


def by_hand(pairs, classes):
    """mIoU, mean accuracy, pixel accuracy and fwIoU, pixel by pixel class by class."""
    ious, accuracies, weighted, right, valid = [], [], 0.0, 0, 0
    labels = np.concatenate([each.ravel() for each, _ in pairs])
    truth = np.concatenate([each.ravel() for _, each in pairs])
    labels, truth = (each[(truth >= 0) & (truth < classes)] for each in (labels, truth))
    for c in range(classes):
        both = float(((labels == c) & (truth == c)).sum())
        either = float(((labels == c) | (truth == c)).sum())
        own = float((truth == c).sum())
        if either:
            ious.append(both / either)
            weighted += own / len(truth) * both / either
        if own:
            accuracies.append(both / own)
        right, valid = right + both, valid + own
    return np.mean(ious), np.mean(accuracies), right / valid, weighted


def label_maps(classes, seed, ignored=0.1, absent=()):
    generator = np.random.default_rng(seed)
    for _ in range(3):
        truth, labels = generator.integers(0, classes, (2, 31, 47))
        for each in absent:
            truth[truth == each] = labels[labels == each] = 0
        truth[generator.random(truth.shape) < ignored] = -1
        labels[generator.random(labels.shape) < 0.01] = classes + 3
        yield labels, truth


CASES = {
    "ignored pixels": {"classes": 7, "seed": 0},
    "absent classes": {"classes": 12, "seed": 1, "absent": (3, 11)},
    "one class": {"classes": 1, "seed": 2, "ignored": 0.0},
    "nothing ignored": {"classes": 150, "seed": 3, "ignored": 0.0},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equal_the_plain_code(case):
    pairs = list(label_maps(**case))
    summed = total(areas(labels, truth, case["classes"]) for labels, truth in pairs)
    found = summed.miou, summed.mean_accuracy, summed.pixel_accuracy, summed.frequency_weighted_iou
    np.testing.assert_allclose(found, by_hand(pairs, case["classes"]), rtol=0, atol=1e-12)


def test_absent_classes_are_left_out_and_nothing_at_all_is_nan():
    found = areas(np.array([[0, 1]]), np.array([[0, 0]]), 4)
    assert found.miou == pytest.approx((1 / 2 + 0) / 2)
    assert np.isnan(found.iou).tolist() == [False, False, True, True]
    nothing = areas(np.array([[0]]), np.array([[-1]]), 2)
    assert math.isnan(nothing.miou)
    assert math.isnan(nothing.pixel_accuracy)
    assert math.isnan(nothing.frequency_weighted_iou)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        areas(np.zeros((2, 3), int), np.zeros((3, 2), int), 2)


def test_equals_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics")
    pairs = list(label_maps(9, 5, ignored=0.2))
    pairs = [(np.minimum(labels, 8), truth) for labels, truth in pairs]
    theirs = torchmetrics.JaccardIndex(task="multiclass", num_classes=9, ignore_index=-1)
    for labels, truth in pairs:
        theirs.update(torch.from_numpy(labels), torch.from_numpy(truth))
    ours = total(areas(labels, truth, 9) for labels, truth in pairs)
    assert ours.miou == pytest.approx(float(theirs.compute()), abs=1e-6)  # theirs is float32


@pytest.mark.parametrize("beyond", [-1, 2, 255])
def test_what_is_no_class_counts_nowhere_in_the_truth_and_as_wrong_in_labels(beyond):
    found = areas(np.array([0, 1, beyond, 0]), np.array([0, 1, 1, beyond]), 2)
    assert [each.tolist() for each in (found.both, found.labelled, found.truth)] == [[1, 1], [1, 1], [1, 2]]


def test_points_in_four_readings():
    yes, no = True, False
    cat = hits("cat", np.array([yes, yes, no, no]), np.array([yes, no, yes, no]))  # 1 found, 1 wrong, 1 missed, 1 left
    dog = hits("dog", np.array([yes, yes]), np.array([yes, yes]))
    other = hits("cat", np.array([no, no]), np.array([yes, no]))
    found = readings([[cat, dog], [other]])
    assert found["image"] == pytest.approx((3 / 5 + 0) / 2)
    assert found["image-class"] == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert found["both-sides"] == pytest.approx(((1 / 3 + 1 / 3) / 2 + 1 + (0 + 1 / 2) / 2) / 3)
    assert found["class"] == pytest.approx((1 / 4 + 1) / 2)
