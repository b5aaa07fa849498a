"""Learning rates against timm's, which the official code uses, and between whole epochs."""

from __future__ import annotations

import json
import math

import pytest
from conftest import ROOT

from mindeit.errors import UserError
from mindeit.optim.schedule import Schedule, scaled_lr

CASES = json.loads((ROOT / "tests" / "golden" / "optim_schedule.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["label"])
def test_values_are_those_of_the_official_schedulers(case):
    schedule = Schedule(**case["arguments"])
    assert [schedule.lr_at(epoch) for epoch in case["epochs"]] == pytest.approx(case["values"], rel=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["label"])
def test_the_linear_rule_is_the_official_one(case):
    scaled = scaled_lr(case["lr"], case["global_batch"], case["unscale"])
    assert scaled == pytest.approx(case["arguments"]["lr"], rel=1e-12)


def test_unscaled_lr_is_taken_as_it_is():
    assert scaled_lr(3e-3, 2048, True) == 3e-3
    assert scaled_lr(3e-3, 2048) == 12e-3


def test_warm_up_takes_its_epochs_and_the_second_one_is_already_faster():
    schedule = Schedule(1e-3, 10, warmup_epochs=4, warmup_lr=0.0)
    assert [schedule.lr_at(epoch) for epoch in range(4)] == pytest.approx([0, 0.25e-3, 0.5e-3, 0.75e-3])


def test_multi_step_decay_steps_at_its_milestones():
    schedule = Schedule(
        1.0, 10, "multi_step_decay", warmup_epochs=0, multi_step_decay_milestones=(2, 3, 7), decay_rate=0.5
    )
    assert [schedule.lr_at(epoch) for epoch in range(9)] == [1, 1, 0.5, 0.25, 0.25, 0.25, 0.25, 0.125, 0.125]


@pytest.mark.parametrize("scheduler", ["cosine_decay", "step_decay", "multi_step_decay", "constant"])
def test_all_courses_warm_up_and_need_not(scheduler):
    start = Schedule(1e-3, 10, scheduler, warmup_epochs=2).lr_at(0)
    assert start == 1e-6
    assert Schedule(1e-3, 10, scheduler, warmup_epochs=0).lr_at(0) == 1e-3


def test_stairs_hold_one_value_an_epoch():
    schedule = Schedule(1e-3, 10, warmup_epochs=0)
    assert schedule.lr_at(3, 0.99) == schedule.lr_at(3)
    assert schedule.lr_at(4) < schedule.lr_at(3)


def test_steps_move_inside_an_epoch_and_meet_the_stairs_at_its_start():
    settings = {"epoch_size": 10, "warmup_epochs": 2, "warmup_lr": 0.0}
    stairs, steps = Schedule(1e-3, **settings), Schedule(1e-3, lr_epoch_stair=False, **settings)
    assert [steps.lr_at(epoch) for epoch in range(12)] == [stairs.lr_at(epoch) for epoch in range(12)]
    assert steps.lr_at(1, 0.5) == pytest.approx(0.75e-3)
    middle = 1e-5 + (1e-3 - 1e-5) * 0.5 * (1 + math.cos(math.pi * 0.45))
    assert steps.lr_at(4, 0.5) == pytest.approx(middle)


def test_step_decay_steps_at_epochs_also_when_it_moves_by_steps():
    schedule = Schedule(1.0, 100, "step_decay", warmup_epochs=0, lr_epoch_stair=False, decay_epochs=10, decay_rate=0.5)
    assert [schedule.lr_at(9, 0.9), schedule.lr_at(10), schedule.lr_at(20, 0.1)] == [1.0, 0.5, 0.25]


def test_constant_stays():
    schedule = Schedule(1e-3, 10, "constant", warmup_epochs=1)
    assert {schedule.lr_at(epoch) for epoch in range(1, 30)} == {1e-3}


def test_an_unknown_course_is_named_with_the_nearest():
    with pytest.raises(UserError, match="scheduler is 'cosine_decy'; allowed: .*nearest: 'cosine_decay'"):
        Schedule(1e-3, scheduler="cosine_decy")
