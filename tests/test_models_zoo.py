"""DeiT III, 3Things, CaiT, ResMLP and PatchConvnet against numbers of the official PyTorch code."""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops
from reference import images
from zoo import FIGURES, NAMES, digest, fill, golden, listing, shallow, undrawn

import mindeit
from mindeit.errors import UserError
from mindeit.layers.drop_path import DropPath, share_draws
from mindeit.models.registry import build, spec, with_stem
from mindeit.models.summary import summary
from mindeit.weights.names import official_names

TOLERANCE = 2e-5  # of the true logits' standard deviation; PyTorch's own float32 is within 1.6e-6
SMALL = (  # one of each kind of block, stem and head; every other name differs in numbers alone
    "deit_tiny_patch16_LS",
    "deit_small_patch16_18x2_LS",
    "deit_small_patch16_LS_hMLP",
    "cait_XXS24_224",
    "resmlp_12",
    "S60",
)
WIDE = ("large", "huge", "giant", "Giant", "M36", "M48", "L60", "L120", "B24", "S60_multi", "base", "B60", "B120")


def slow(name: str) -> bool:
    return any(part in name for part in WIDE)


def gap(got: Tensor, want: np.ndarray) -> float:
    """Largest difference as a share of the spread; `pytest -rP` shows it."""
    assert got.shape == want.shape
    value = float(np.abs(got.asnumpy() - want).max() / want.std())
    print(f"largest difference {value:.1e} of the standard deviation")
    return value


# -- equal to PyTorch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n if n in SMALL else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_two_blocks_match_the_official_code(name, mode):
    """Images of 64 pixels, ten classes; a token for each class only worked with a thousand in the official code."""
    want = golden(name)
    model = fill(shallow(name, 2, num_classes=want.shape[1], image_size=64))
    assert gap(model(Tensor(images(2, 64))), want) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deit_tiny_patch16_LS", "cait_XXS24_224", "resmlp_12", "S60"])
def test_whole_models_match_the_official_code(name, mode):
    assert gap(fill(build(name))(Tensor(images())), golden(f"{name}/224")) < TOLERANCE


# -- names, shapes, counts ----------------------------------------------------------------------------------------


def test_every_official_name_is_there():
    zoo = ("deit3", "cait", "resmlp", "patchconvnet")
    ours = {name for name in mindeit.list_models() if spec(name).family in zoo and "mini" not in name}
    stems = {name for name in ours if name.endswith("_hMLP")}  # one is in the reference: they differ by width alone
    assert ours - stems == {name for name in NAMES if not name.endswith("_hMLP")} and len(NAMES) == 42
    assert stems == {
        with_stem(f"deit_{size}_patch16_LS", "hmlp") for size in ("tiny", "small", "medium", "base", "large")
    }


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if slow(n) else n for n in NAMES])
def test_names_shapes_order_and_count_are_the_official_ones(name):
    want, rows = FIGURES["names"][name], listing(shallow(name), spec(name).variant["depth"])
    counted = sum(math.prod(shape) for key, shape in rows if "running" not in key)
    assert (len(rows), counted, digest(rows)) == (want["tensors"], want["parameters"], want["sha256"])
    row = spec(name)
    known = row.published.params_m if row.published else row.counted[0]
    assert counted / 1e6 == pytest.approx(known, abs=0.06)  # the authors' figures are cut off in places


@pytest.mark.parametrize("name", [n if n in SMALL else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_multiply_adds_are_the_tables(name):
    """Counted with one block and with two; the others are alike. The authors' figures are rounded in places."""
    one, two = (summary(shallow(name, depth)).gflops for depth in (1, 2))
    counted = one + (spec(name).variant["depth"] - 1) * (two - one)
    row = spec(name)
    published = row.published.gflops if row.published else row.counted[1]
    assert counted == pytest.approx(published, rel=0.015 if published < 10 else 0.005)


@pytest.mark.parametrize("name", [name for name in mindeit.list_models() if "mini" in name])
def test_counts_of_the_small_models_are_the_tables(name):
    counted = summary(undrawn(name))
    assert (counted.parameters / 1e6, counted.gflops) == pytest.approx(spec(name).counted, abs=0.005)


def test_a_head_for_each_class_is_one_row_of_the_summary():
    rows = summary(shallow("S60_multi", num_classes=7, image_size=32)).rows
    assert [row.module for row in rows] == [
        "cls_token",
        "patch_embed",
        "blocks.0",
        "blocks_token_only.0",
        "norm",
        "head",
    ]
    assert (rows[-1].parameters, rows[-1].gflops) == (7 * 385, 7 * 384 / 1e9)


# -- initial values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in FIGURES["initial_values"] if n != "B60"])
def test_initial_values_follow_the_official_rule(name):
    from mindeit.runtime import device

    device.seed(1)
    model = shallow(name)
    names = official_names(model)
    for parameter in model.get_parameters():
        mean, std = FIGURES["initial_values"][name][names[parameter.name].replace("only.1", "only.0")]
        values = parameter.asnumpy()
        assert values.std() == pytest.approx(std, rel=5 / values.size**0.5 + 0.01, abs=1e-7), parameter.name
        assert values.mean() == pytest.approx(mean, abs=8 * std / values.size**0.5 + 1e-7), parameter.name


# -- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "paths"),
    [("deit_tiny_patch16_LS", 2), ("deit_small_patch16_18x2", 4), ("cait_XXS24_224", 2), ("resmlp_12", 2), ("S60", 1)],
)
def test_drop_path_is_constant_and_leaves_class_attention_alone(name, paths):
    model = shallow(name, 3, image_size=32, num_classes=2, drop_path_rate=0.3)
    cells = [(key, cell.probability) for key, cell in model.cells_and_names() if isinstance(cell, DropPath)]
    found = [(key, probability) for key, probability in cells if probability]
    assert {rate for _, rate in found} == {0.3}
    assert len(found) == 3 * paths and all(key.startswith("blocks.") for key, _ in found)
    assert share_draws(model, 4).shape == (3 * paths, 4)


@pytest.mark.parametrize(
    "name", ["deit_mini_patch8_32_LS", "cait_mini_patch8_32", "resmlp_mini_patch8_32", "patchconvnet_mini_32"]
)
def test_dropped_samples_pass_by_their_blocks(name):
    """The first image loses every branch, the second none."""
    model = build(name, num_classes=3, drop_path_rate=0.5).set_train(True)
    images = Tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    draws = share_draws(model, 2)
    draws(Tensor(np.array([[0.0, 0.9]] * draws.shape[0], np.float32)))
    dropped = model(images).asnumpy()
    blockless = shallow(name, 0, num_classes=3).set_train(True)
    kept = {p.name: p for p in model.get_parameters()}
    for parameter in blockless.get_parameters():
        parameter.set_data(kept[parameter.name])
    bare = blockless(images).asnumpy()
    np.testing.assert_allclose(dropped[0], bare[0], atol=1e-6)
    assert np.abs(dropped[1] - bare[1]).max() > 1e-6


@pytest.mark.parametrize(
    ("name", "size", "tokens"),
    [("deit_tiny_patch16_LS", 384, 24 * 24), ("deit_huge_patch14_LS", 160, 11 * 11), ("cait_XXS24_224", 64, 16)],
)
def test_the_table_has_no_slot_for_the_class_token(name, size, tokens):
    assert shallow(name, 0, image_size=size).pos_embed.shape[1] == tokens


def test_patches_may_leave_a_rest_as_in_the_official_training_at_160():
    model = shallow("deit_huge_patch14_LS", 1, image_size=34, num_classes=3).set_train(False)
    batch = images(1, 34)
    beyond = batch.copy()
    beyond[:, :, 28:], beyond[:, :, :, 28:] = 0, 0
    assert np.array_equal(model(Tensor(batch)).asnumpy(), model(Tensor(beyond)).asnumpy())


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("cait_XXS24_224", 100, "image_size is 100; allowed: multiples of the patch size 16"),
        ("resmlp_12", 8, "image_size is 8; allowed: multiples of the patch size 16"),
        ("S60", 225, "image_size is 225; allowed: multiples of the patch size 16"),
        ("deit_small_patch16_LS_hMLP", 30, "image_size is 30; allowed: multiples of the patch size 16"),
        ("deit_huge_patch14_LS", 13, "image_size is 13; allowed: the patch size 14 and more"),
    ],
)
def test_impossible_sizes_are_refused(name, size, message):
    with pytest.raises(UserError) as error:
        build(name, image_size=size)
    assert str(error.value) == message


def test_a_token_for_each_class_needs_classes():
    with pytest.raises(UserError, match="num_classes is 0; a model with a token for each class needs at least 1"):
        build("S60_multi", num_classes=0)


@pytest.mark.parametrize(
    "name", ["deit_mini_patch8_32_LS", "cait_mini_patch8_32", "resmlp_mini_patch8_32", "patchconvnet_mini_32"]
)
def test_dropout_acts_in_training_only_and_features_need_no_head(name):
    model = shallow(name, drop_rate=0.5, num_classes=0)
    x = Tensor(images(2, 32))
    model.set_train(False)
    assert model(x).shape == (2, 128)
    assert np.array_equal(model(x).asnumpy(), model(x).asnumpy())
    assert model.forward_features(x).shape == (2, {"r": 16, "p": 5}.get(name[0], 17), 128)
    model.set_train(True)
    assert not np.array_equal(model(x).asnumpy(), model(x).asnumpy())


@pytest.mark.parametrize(
    "name",
    [
        "deit_mini_distilled_patch8_32",
        "deit_mini_patch8_32_LS",
        "cait_mini_patch8_32",
        "resmlp_mini_patch8_32",
        "patchconvnet_mini_32",
    ],
)
@pytest.mark.parametrize("level", ["O2", pytest.param("O3", marks=pytest.mark.slow)])
def test_half_precision_stays_near_float32(name, level):
    """In a graph, as they are meant to run, and operator by operator, as the truth is taken."""
    from mindeit.kernels import precision

    batch, model = Tensor(images(2, 32)), fill(shallow(name, num_classes=10))
    want = model(batch).asnumpy()
    precision.apply(model, level)
    for run in (ms.jit(model), model):
        logits = run(batch)
        assert logits.dtype == ms.float16
        assert 1e-5 < gap(logits.astype(ms.float32), want) < 0.02


@pytest.mark.parametrize("level", ["O2", pytest.param("O3", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["deit_mini_patch8_32_LS", "resmlp_mini_patch8_32"])
def test_a_gain_of_a_millionth_learns_in_half_precision(name, level):
    """As CaiT-M, ResMLP-36 and most PatchConvnets start, with the loss scale that training starts from."""
    from mindeit.kernels import precision

    batch, labels = Tensor(images(4, 32)), Tensor(np.arange(4, dtype=np.int32))

    def gradients(level: str, scale: float, graph: bool) -> dict[str, np.ndarray]:
        model = fill(shallow(name, num_classes=10, init_scale=1e-6))
        for parameter in model.get_parameters():
            if "gamma_" in parameter.name:
                parameter.set_data(Tensor(np.full(parameter.shape, 1e-6, np.float32)))
        precision.apply(model.set_train(True), level)

        def loss(batch: Tensor) -> Tensor:
            return ops.cross_entropy(model(batch).astype(ms.float32), labels) * scale

        trained = list(model.trainable_params())
        function = ms.value_and_grad(loss, None, trained)
        _, found = (ms.jit(function) if graph else function)(batch)
        assert {each.dtype for each in found} == {ms.float32}
        return {parameter.name: each.asnumpy() / scale for parameter, each in zip(trained, found)}

    halves = gradients(level, 2.0**16, graph=True)
    bound = 0.01 if level == "O2" else 0.02  # 1e-6 as a half is 1.3 % off
    for key, want in gradients("O0", 1.0, graph=False).items():
        if key.endswith("weight") or "gamma_" in key:
            assert np.abs(halves[key] - want).max() < bound * np.abs(want).max(), key


# -- attention ----------------------------------------------------------------------------------------------------


def test_attentions_of_parallel_blocks_hold_both():
    maps = fill(shallow("deit_small_patch16_18x2", 2, image_size=32)).attentions(Tensor(images(1, 32)))
    assert [tuple(one.shape) for one in maps] == [(1, 12, 5, 5)] * 2
    np.testing.assert_allclose(maps[1].asnumpy().sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("cait_XXS24_224", [(1, 4, 4, 4)] * 2 + [(1, 4, 1, 5)] * 2),
        ("S60", [(1, 1, 1, 5)]),
        ("S60_multi", [(1, 1, 10, 4)]),
    ],
)
def test_attentions_end_with_class_attention(name, shapes):
    maps = fill(shallow(name, 2, image_size=32, num_classes=10)).attentions(Tensor(images(1, 32)))
    assert [tuple(one.shape) for one in maps] == shapes
    np.testing.assert_allclose(maps[-1].asnumpy().sum(-1), 1, atol=1e-5)
