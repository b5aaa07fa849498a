"""The models against numbers of the official PyTorch code (float64 logits are the truth)."""

from __future__ import annotations

import re
from functools import cache

import mindspore as ms
import numpy as np
import pytest
from conftest import graph_is_slow
from mindspore import Tensor, nn, ops
from reference import NUMBERS, SHAPES, direction, golden, images, official_state
from zoo import fill, shallow, undrawn

import mindeit
from mindeit.kernels.native import operators
from mindeit.models.registry import build
from mindeit.models.summary import summary
from mindeit.weights.checkpoint import load_strict
from mindeit.weights.names import official_names, rename

pytestmark = pytest.mark.xdist_group("test_models")  # they share compiled models
TINY, DISTILLED = "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"
TOLERANCE = 2e-5  # of the true logits' standard deviation; PyTorch's own float32 is within 2.1e-6
ALL = tuple(SHAPES)
LARGE = [name for name in ALL if "base" in name or "regnet" in name]


@cache
def built(name: str) -> nn.Cell:  # its user sets weights and mode
    return build(name)


def with_reference_weights(name: str) -> nn.Cell:
    model = built(name.partition("|")[0])
    ours = {official: own for own, official in official_names(model).items()}
    load_strict(model, rename(official_state(name), ours), "reference")
    return model.set_train(False)


@cache
def logits(name: str, mode: str) -> Tensor:
    return with_reference_weights(name)(Tensor(images()))


@cache
def training(mode: str) -> tuple:
    """Of the distilled model: loss, logits of both heads, gradients; what training compiles."""
    model = with_reference_weights(DISTILLED).set_train(True)
    labels = Tensor(np.array(NUMBERS["gradient"]["labels"], np.int32))

    def loss_of(batch):
        cls_logits, dist_logits = model(batch)
        loss = ops.cross_entropy(cls_logits, labels) + ops.cross_entropy(dist_logits, labels)
        return loss, cls_logits, dist_logits

    weights = model.trainable_params()
    function = ms.value_and_grad(loss_of, None, ms.ParameterTuple(weights), has_aux=True)
    (loss, *heads), gradients = function(Tensor(images()))
    return loss, heads, {weight.name: gradient for weight, gradient in zip(weights, gradients)}


def gap(got: Tensor, want: np.ndarray) -> float:
    """Largest difference as a share of the spread; `pytest -rP` shows it."""
    assert got.shape == want.shape
    value = float(np.abs(got.asnumpy() - want).max() / want.std())
    print(f"largest difference {value:.1e} of the standard deviation")
    return value


# -- equal to PyTorch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((name, mode) for name in (TINY, f"{TINY}|eps") for mode in ("graph", "pynative")),
        (DISTILLED, "pynative"),
        pytest.param(DISTILLED, "graph", marks=pytest.mark.slow),
        *(pytest.param("regnety_160", mode, marks=pytest.mark.slow) for mode in ("graph", "pynative")),
    ],
    indirect=["mode"],
)
def test_logits_match_the_official_code(name, mode):
    assert gap(logits(name, mode), golden(f"{name}/logits64")) < TOLERANCE


def test_graph_and_pynative_agree():
    found = {}
    for name, mode in (("graph", ms.GRAPH_MODE), ("pynative", ms.PYNATIVE_MODE)):
        ms.set_context(mode=mode)
        found[name] = logits(TINY, name).asnumpy()
    assert np.abs(found["graph"] - found["pynative"]).max() < 1e-5 * found["graph"].std()


@graph_is_slow  # training in a graph is compared with that by single operators (test_training_step.py)
def test_both_heads_match_the_official_code_in_training(mode):
    _, (cls_logits, dist_logits), _ = training(mode)
    assert gap(cls_logits, golden(f"{DISTILLED}/head64")) < TOLERANCE
    assert gap(dist_logits, golden(f"{DISTILLED}/head_dist64")) < TOLERANCE


def test_forward_features_are_the_tokens_after_the_last_norm():
    tokens = with_reference_weights(DISTILLED).forward_features(Tensor(images()))
    assert tokens.shape == (2, 198, 192)
    assert gap(tokens[:, :2], golden(f"{DISTILLED}/feat64")) < TOLERANCE


def test_tokens_and_attentions_are_the_same_in_graph_mode():
    model, found = fill(shallow(DISTILLED, num_classes=5, image_size=32)), {}
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=mode)
        batch = Tensor(images(1, 32))
        found[mode] = [one.asnumpy() for one in (model.forward_features(batch), *model.attentions(batch))]
    for one, other in zip(*found.values()):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_without_classes_the_class_token_comes_out():
    model = build(TINY, num_classes=0)
    state = {k: v for k, v in official_state(TINY).items() if not k.startswith("head")}
    load_strict(model, rename(state, {official: own for own, official in official_names(model).items()}), "reference")
    features = model.set_train(False)(Tensor(images()))
    assert gap(features, golden(f"{TINY}/feat64")) < TOLERANCE


@graph_is_slow  # training in a graph is compared with that by single operators (test_training_step.py)
def test_the_whole_gradient_matches_the_official_code(mode):
    loss, _, gradients = training(mode)
    assert loss.asnumpy() == pytest.approx(NUMBERS["gradient"]["loss"], rel=2e-5)
    names, checked = official_names(built(DISTILLED)), 0
    for own, gradient in gradients.items():
        name = names[own]
        norm, dot = NUMBERS["gradient"]["tensors"][name]
        values = gradient.asnumpy().astype(np.float64)
        assert np.linalg.norm(values) == pytest.approx(norm, rel=1e-4), name
        assert (values * direction(name, values.shape)).sum() == pytest.approx(dot, abs=1e-4 * norm), name
        checked += 1
    assert checked == len(NUMBERS["gradient"]["tensors"])


@pytest.fixture
def stock_operators(monkeypatch):
    """MindSpore's own operators on CPU, as where there is no C++ compiler; for models built from now on."""
    monkeypatch.setattr(operators, "available", lambda: False)
    for cached in (built, logits, training):
        cached.cache_clear()
    yield
    for cached in (built, logits, training):
        cached.cache_clear()


@graph_is_slow
def test_heads_and_gradient_match_the_official_code_without_the_fused_operators(stock_operators, mode):
    test_both_heads_match_the_official_code_in_training(mode)
    test_the_whole_gradient_matches_the_official_code(mode)
    assert not any(type(cell).__name__.startswith("Fused") for _, cell in built(DISTILLED).cells_and_names())


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ALL if n not in (TINY, DISTILLED, "regnety_160")])
def test_every_model_matches_its_pytorch_reference(name):
    from mindeit.convert.parity import verify
    from mindeit.models.registry import spec
    from mindeit.weights.card import card_for

    model = build(name)
    ours = {official: own for own, official in official_names(model).items()}
    report = verify(rename(official_state(name), ours), card_for(spec(name), 1000))
    assert report.max_gap < TOLERANCE
    assert report.departs is None


# -- names, shapes, counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in ALL])
def test_parameters_carry_official_names_and_shapes(name):
    model = undrawn(name)
    names = official_names(model)
    assert {names[p.name]: list(p.shape) for p in model.get_parameters()} == SHAPES[name]


@pytest.mark.parametrize(
    ("name", "parameters", "gflops"),
    [
        ("deit_tiny_patch16_224", 5717416, 1.26),
        pytest.param("deit_small_patch16_224", 22050664, 4.61, marks=pytest.mark.slow),
        ("deit_tiny_distilled_patch16_224", 5910800, 1.27),
        pytest.param("deit_small_distilled_patch16_224", 22436432, 4.63, marks=pytest.mark.slow),
        pytest.param("deit_base_patch16_224", 86567656, 17.6, marks=pytest.mark.slow),
        pytest.param("deit_base_distilled_patch16_224", 87338192, 17.7, marks=pytest.mark.slow),
        pytest.param("deit_base_patch16_384", 86859496, 55.5, marks=pytest.mark.slow),
        pytest.param("deit_base_distilled_patch16_384", 87630032, 55.7, marks=pytest.mark.slow),
        pytest.param("regnety_160", 83590140, 15.9, marks=pytest.mark.slow),
    ],
)
def test_summary_equals_the_published_figures(name, parameters, gflops):
    counted = summary(undrawn(name))
    assert counted.parameters == parameters
    assert counted.gflops == pytest.approx(gflops, abs=0.0055 if gflops < 10 else 0.055)  # as far as they are published


def test_summary_lists_the_modules():
    text = str(summary(undrawn(TINY, num_classes=10)))
    assert text.splitlines()[0].split() == ["module", "parameters", "GFLOPs", "(224x224)"]
    assert text.splitlines()[-4].split() == ["blocks.11", "444,864", "0.102"]
    assert text.splitlines()[-1].split()[:2] == ["total", "5,526,346"]


# -- initial values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [DISTILLED, pytest.param("regnety_160", marks=pytest.mark.slow)])
def test_initial_values_follow_the_official_rule(name):
    from mindeit.runtime import device

    device.seed(1)
    model = build(name)
    names = official_names(model)
    for parameter in model.get_parameters():
        mean, std = NUMBERS["initial_values"][name][names[parameter.name]]
        values = parameter.asnumpy()
        assert values.std() == pytest.approx(std, rel=5 / values.size**0.5 + 0.01, abs=1e-7), parameter.name
        assert values.mean() == pytest.approx(mean, abs=8 * std / values.size**0.5 + 1e-7), parameter.name


def test_the_seed_decides_the_initial_values():
    from mindeit.runtime import device

    def head(seed: int) -> np.ndarray:
        device.seed(seed)
        return build(TINY, num_classes=3).head.weight.asnumpy()

    assert np.array_equal(head(1), head(1))
    assert not np.array_equal(head(1), head(2))


@pytest.mark.parametrize("name", ["cait_mini_patch8_32", "regnety_mini_32"])
def test_a_seed_of_its_own_makes_a_model_independent_of_other_draws(name):
    from mindeit.layers.weight_init import seeded
    from mindeit.runtime import device

    def values() -> list[bytes]:
        return [parameter.asnumpy().tobytes() for parameter in build(name).get_parameters()]

    device.seed(1)
    wanted, after = values(), np.random.get_state()
    with seeded(1):
        assert values() == wanted
    assert all(np.array_equal(one, other) for one, other in zip(np.random.get_state(), after))


# -- options ------------------------------------------------------------------------------------------------------


def test_drop_path_grows_linearly_over_depth():
    blocks = build(TINY, drop_path_rate=0.1).blocks
    assert [block.residual1.drop_path.probability for block in blocks] == pytest.approx(
        NUMBERS["drop_path_at_0.1"], abs=1e-7
    )


def test_drop_path_keeps_or_drops_whole_samples_and_keeps_the_mean(mode):
    from mindeit.layers.drop_path import DropPath

    ms.set_seed(0)
    x = Tensor(np.ones((4000, 3, 2), np.float32))
    dropped = DropPath(0.25).set_train(True)(x).asnumpy()
    assert set(np.unique(dropped).round(5)) == {0, np.float32(1.33333)}
    assert (dropped == dropped[:, :1, :1]).all()
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert np.array_equal(DropPath(0.25).set_train(False)(x).asnumpy(), x.asnumpy())


def test_another_image_size_builds_the_matching_position_table(mode):
    model = shallow(DISTILLED, 1, image_size=96, num_classes=7).set_train(False)
    assert model.pos_embed.shape == (1, 6 * 6 + 2, 192)
    assert model(Tensor(images(1, 96))).shape == (1, 7)


def test_dropout_acts_in_training_only():
    model = shallow(TINY, 1, drop_rate=0.5, num_classes=5, image_size=32)
    x = Tensor(images(1, 32))
    model.set_train(False)
    assert np.array_equal(model(x).asnumpy(), model(x).asnumpy())
    model.set_train(True)
    assert not np.array_equal(model(x).asnumpy(), model(x).asnumpy())


def test_attentions_give_each_blocks_weights():
    model = with_reference_weights(TINY)
    maps = model.attentions(Tensor(images(1)))
    assert len(maps) == 12
    assert {tuple(m.shape) for m in maps} == {(1, 3, 197, 197)}
    assert np.allclose(maps[-1].asnumpy().sum(-1), 1, atol=1e-5)


@graph_is_slow
@pytest.mark.parametrize("level", ["O2", "O3"])
def test_half_precision_stays_near_float32(level, mode):
    """In graph mode that of the smaller models is checked always (test_models_zoo.py)."""
    from mindeit.kernels import precision

    model = build(DISTILLED)
    load_strict(model, {p.name: p.asnumpy() for p in with_reference_weights(DISTILLED).get_parameters()}, "reference")
    found = precision.apply(model.set_train(False), level)(Tensor(images()))
    assert found.dtype == ms.float16
    assert 1e-5 < gap(found, golden(f"{DISTILLED}/logits64")) < 0.02


# -- the registry -------------------------------------------------------------------------------------------------


def test_list_models_takes_a_pattern():
    assert set(mindeit.list_models("deit_*224")) == {name for name in ALL if re.match("deit_.*224", name)}
    assert mindeit.list_models("*384") == ["deit_base_patch16_384", "deit_base_distilled_patch16_384"]
    assert mindeit.list_models("resnet*") == []


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (
            {"num_classes": 2_000_000_000},
            "num_classes is 2000000000: the head of deit_tiny_patch16_224 takes 1,431 GiB",
        ),
        ({"image_size": 800_000}, "image_size is 800000: an image takes 7,153 GiB"),
    ],
)
def test_what_no_memory_holds_is_refused_at_once(size, message):
    with pytest.raises(mindeit.UserError, match=f"^{message} of memory, this machine has [0-9,]+ GiB$"):
        mindeit.create_model("deit_tiny_patch16_224", **size)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(mindeit.UserError) as error:
        mindeit.create_model("deit_tiny_patch16_225")
    assert str(error.value) == (
        "unknown model 'deit_tiny_patch16_225' (nearest: 'deit_tiny_patch16_224'); mindeit models shows all"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 100}, "image_size is 100; allowed: multiples of the patch size 16"),
        ({"image_size": 0}, "image_size is 0; allowed: multiples of the patch size 16"),
        ({"num_classes": -1}, "num_classes is -1; allowed: 0 (features) or the number of classes"),
        ({"drop_path_rate": 1.0}, "drop_path_rate is 1.0; allowed: at least 0 and less than 1"),
        ({"drop_rate": -0.1}, "drop_rate is -0.1; allowed: at least 0 and less than 1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(mindeit.UserError) as error:
        mindeit.create_model(TINY, **options)
    assert str(error.value) == message


def test_images_of_another_size_are_refused_with_both_shapes(mode):
    with pytest.raises(ValueError, match=r"images must be \(batch, 3, 224, 224\)"):
        built(TINY)(Tensor(np.zeros((1, 3, 192, 192), np.float32)))
