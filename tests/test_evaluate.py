"""Accuracy and loss from logits."""

from __future__ import annotations

import numpy as np
import pytest

from mindeit.errors import UserError
from mindeit.runtime.cluster import Cluster
from mindeit.training.evaluate import cross_entropy, evaluate, rank_of_label
from mindeit.training.report import lines

LOGITS = np.array([[3, 1, 2, 0], [0, 1, 2, 3], [5, 5, 0, 0], [1, 0, 0, 0]], np.float32)
LABELS = np.array([0, 1, 1, -1], np.int32)


def test_the_rank_counts_higher_scores_and_puts_the_lower_class_first_among_equals():
    assert rank_of_label(LOGITS[:3], LABELS[:3]).tolist() == [0, 2, 1]


def test_cross_entropy_equals_the_definition_and_survives_large_logits():
    want = np.log(np.exp(LOGITS[:3].astype(float)).sum(1)) - LOGITS[np.arange(3), LABELS[:3]]
    assert cross_entropy(LOGITS[:3].astype(float), LABELS[:3]) == pytest.approx(want)
    assert cross_entropy(np.array([[1e4, 0.0]]), np.array([1])) == pytest.approx([1e4])


def run(num_classes: int = 4, batches=((LOGITS, LABELS),)):
    return evaluate(lambda images: images, batches, num_classes, Cluster())


def test_a_negative_label_does_not_count():
    result = run()
    assert result.images == 3
    assert result.top1 == pytest.approx(100 / 3)
    assert result.counts.tolist() == [1, 2, 0, 0]
    assert result.top1_hits.tolist() == [1, 0, 0, 0]


def test_fewer_than_five_classes_make_acc_at_k():
    result = run()
    assert (result.k, result.topk) == (4, 100)
    assert str(result).startswith("* Acc@1 33.333 Acc@4 100.000 loss ")


def test_batches_add_up():
    once, twice = run(), run(batches=((LOGITS, LABELS), (LOGITS, LABELS)))
    assert twice.images == 2 * once.images
    assert (twice.top1, twice.loss) == (once.top1, pytest.approx(once.loss))


def test_logits_that_are_not_finite_are_an_error():
    with pytest.raises(UserError, match="logits are not finite; in half precision try amp_level O0"):
        run(batches=((np.full((1, 4), np.nan, np.float32), np.array([0])),))


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(UserError, match="no image could be read"):
        run(batches=((LOGITS, np.full(4, -1)),))


def test_the_report_lists_what_was_left_out_and_ends_in_the_official_line():
    text = lines(run(), ["a/bad.jpg"], 0.25)
    assert text[:2] == ["left out, unreadable (1):", "  a/bad.jpg"]
    assert text[2].endswith("images/s, 25% of the time waiting for data")
    assert text[-1].startswith("* Acc@1 33.333")
    assert len(lines(run(), [], 0)) == 2
