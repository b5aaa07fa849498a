from __future__ import annotations

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import safetensors.torch
import torch
from convert_weights import (
    DISTILLED,
    TINY,
    official_shapes,
    official_state,
    same_bits,
    tensors,
    training_checkpoint,
    write_pth,
)
from mindspore import nn
from zoo import undrawn

from mindeit.errors import UserError
from mindeit.layers.norm import LayerNorm
from mindeit.weights import checkpoint
from mindeit.weights.card import ModelCard
from mindeit.weights.create import create_model
from mindeit.weights.load import load_model, load_to_train, load_weights, to_official
from mindeit.weights.names import official_names
from mindeit.weights.position_tables import resize_pos_embed
from mindeit.weights.torch_files import read_official, write_official

GOLDEN_NAMES = json.loads((Path(__file__).parent / "golden" / "convert_names.json").read_text())


@pytest.fixture(scope="module")
def tiny_pth(tmp_path_factory) -> Path:
    return write_pth(tmp_path_factory.mktemp("tiny") / "tiny.pth", official_state(TINY))


@pytest.fixture(scope="module")
def distilled_pth(tmp_path_factory) -> Path:
    return write_pth(tmp_path_factory.mktemp("distilled") / "distilled.pth", official_state(DISTILLED))


def message(path, **options) -> str:
    with pytest.raises(UserError) as caught:
        load_weights(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", list(GOLDEN_NAMES))
def test_official_names_of_the_models_are_the_official_ones(name):
    model = undrawn(name)
    got = [(official, list(model.parameters_dict()[ours].shape)) for ours, official in official_names(model).items()]
    assert got == [row for row in GOLDEN_NAMES[name].items() if not row[0].endswith("num_batches_tracked")]


def test_names_follow_the_type_of_the_cell_not_the_word():
    class Family(nn.Cell):
        def __init__(self):
            super().__init__()
            self.gamma_1 = ms.Parameter(ms.Tensor(np.ones(2, np.float32)), name="gamma_1")
            self.beta = ms.Parameter(ms.Tensor(np.ones(2, np.float32)), name="beta")
            self.norm = LayerNorm(2)
            self.inner = nn.CellList([nn.BatchNorm2d(2)])

    assert official_names(Family()) == {
        "gamma_1": "gamma_1",
        "beta": "beta",
        "norm.gamma": "norm.weight",
        "norm.beta": "norm.bias",
        "inner.0.gamma": "inner.0.weight",
        "inner.0.beta": "inner.0.bias",
        "inner.0.moving_mean": "inner.0.running_mean",
        "inner.0.moving_variance": "inner.0.running_var",
    }


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("back", [".pth", ".safetensors"])
def test_official_to_ours_to_official_is_bit_identical(tmp_path, distilled_pth, suffix, back):
    checkpoint.write(tmp_path / f"ours{suffix}", *load_weights(distilled_pth))
    write_official(tmp_path / f"back{back}", to_official(*load_weights(tmp_path / f"ours{suffix}")))
    got = read_official(tmp_path / f"back{back}")
    assert same_bits({name: got[name] for name in official_state(DISTILLED)}, official_state(DISTILLED))
    assert len(got) == len(official_state(DISTILLED))


@pytest.mark.slow
def test_regnet_comes_back_bit_identical_with_its_counters(tmp_path):
    state = official_state("regnety_160")
    write_pth(tmp_path / "a.pth", state)
    checkpoint.write(tmp_path / "a.ckpt", *load_weights(tmp_path / "a.pth"))
    ours, card = load_weights(tmp_path / "a.ckpt")
    assert not any(name.endswith("num_batches_tracked") for name in ours)
    assert card.counters["stem.bn.num_batches_tracked"] == state["stem.bn.num_batches_tracked"] > 0
    write_official(tmp_path / "b.pth", to_official(ours, card))
    assert same_bits(read_official(tmp_path / "b.pth"), state)


def test_card_tells_what_the_file_tells(distilled_pth):
    _, card = load_weights(distilled_pth)
    assert (card.model, card.num_classes, card.image_size, card.crop_pct) == (DISTILLED, 1000, 224, 0.875)


def test_hub_safetensors_are_read_like_the_pth(tmp_path, tiny_pth):
    safetensors.torch.save_file(tensors(official_state(TINY)), tmp_path / "hub.safetensors")
    state, card = load_weights(tmp_path / "hub.safetensors")
    expected, expected_card = load_weights(tiny_pth)
    assert card == expected_card
    assert all(np.array_equal(state[name], expected[name]) for name in expected)


def test_checkpoint_without_card_is_identified(tmp_path, tiny_pth):
    state, card = load_weights(tiny_pth)
    checkpoint.write(tmp_path / "a.ckpt", state, None)
    again, told = load_weights(tmp_path / "a.ckpt")
    assert told == card
    assert all(np.array_equal(state[name], again[name]) for name in state)


def test_use_ema_loads_the_average(tmp_path):
    ema = {name: array * np.float32(2) for name, array in official_state(TINY).items()}
    torch.save(training_checkpoint(official_state(TINY), ema), tmp_path / "a.pth")
    state, _ = load_weights(tmp_path / "a.pth", use_ema=True)
    assert np.array_equal(state["norm.gamma"], ema["norm.weight"])


def test_missing_unexpected_and_misshapen_are_listed_at_once(tmp_path):
    state = dict(official_state(TINY))
    del state["blocks.3.norm1.weight"], state["head.bias"]
    state["blocks.0.attn.extra"] = np.zeros(1, np.float32)
    state["blocks.5.mlp.fc1.bias"] = np.zeros(700, np.float32)
    text = message(write_pth(tmp_path / "a.pth", state))
    for words in (
        "2 missing: blocks.3.norm1.weight, head.bias",
        "1 unexpected: blocks.0.attn.extra",
        "1 misshapen: blocks.5.mlp.fc1.bias (700,) instead of (768,)",
        str(tmp_path / "a.pth"),
    ):
        assert words in text


def test_lost_head_is_missing_not_forgiven(tmp_path):
    state = {name: array for name, array in official_state(TINY).items() if not name.startswith("head")}
    write_pth(tmp_path / "a.pth", state)
    assert "2 missing: head.weight, head.bias" in message(tmp_path / "a.pth")
    assert load_weights(tmp_path / "a.pth", num_classes=0)[1].num_classes == 0
    assert load_weights(tmp_path / "a.pth", num_classes=5)[0]["head.weight"].shape == (5, 192)


def test_head_of_another_width_is_kept_unless_asked(tmp_path):
    path = write_pth(tmp_path / "a.pth", official_state(DISTILLED, num_classes=7))
    state, card = load_weights(path)
    assert card.num_classes == 7
    assert np.array_equal(state["head_dist.weight"], official_state(DISTILLED, num_classes=7)["head_dist.weight"])


def test_asked_for_other_classes_both_heads_start_afresh_and_the_rest_stays(distilled_pth):
    state, card = load_weights(distilled_pth, num_classes=10)
    assert card.num_classes == 10
    for head in ("head", "head_dist"):
        assert state[f"{head}.weight"].shape == (10, 192)
        assert 0.01 < state[f"{head}.weight"].std() < 0.03
        assert not state[f"{head}.bias"].any()
    assert np.array_equal(state["norm.gamma"], official_state(DISTILLED)["norm.weight"])


def test_asked_for_the_same_classes_the_head_stays(distilled_pth):
    state, _ = load_weights(distilled_pth, num_classes=1000)
    assert np.array_equal(state["head.weight"], official_state(DISTILLED)["head.weight"])


def test_table_is_resized_on_request_only(distilled_pth):
    state, card = load_weights(distilled_pth, image_size=384)
    assert card.image_size == 384
    assert np.array_equal(state["pos_embed"], resize_pos_embed(official_state(DISTILLED)["pos_embed"], 2, 24))


def test_table_of_a_file_decides_the_resolution_of_a_single_candidate(tmp_path):
    path = write_pth(tmp_path / "a.pth", official_state(TINY, image_size=288))
    assert load_weights(path)[1].image_size == 288
    assert load_weights(path, model=TINY)[1].image_size == 288


@pytest.mark.slow
def test_model_of_another_resolution_needs_the_request_to_resize(tmp_path):
    path = write_pth(tmp_path / "a.pth", official_state("deit_base_patch16_224"))
    text = message(path, model="deit_base_patch16_384")
    assert "pos_embed (1, 197, 768) instead of (1, 577, 768); image_size (--image_size) resizes" in text
    state, card = load_weights(path, model="deit_base_patch16_384", image_size=384)
    assert state["pos_embed"].shape == (1, 577, 768)
    assert (card.model, card.image_size) == ("deit_base_patch16_384", 384)


@pytest.fixture
def ambiguous_pth(tmp_path) -> Path:
    shapes = official_shapes("deit_base_patch16_224", 10, 32)
    return write_pth(tmp_path / "a.pth", {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


def test_ambiguity_names_file_and_candidates(ambiguous_pth):
    text = message(ambiguous_pth)
    assert text.startswith(f"{ambiguous_pth}: the weights could be deit_base_patch16_224 or deit_base_patch16_384")


@pytest.mark.slow
def test_ambiguity_is_resolved_by_a_name(ambiguous_pth):
    assert load_weights(ambiguous_pth, model="deit_base_patch16_384")[1].image_size == 32


def test_name_of_another_architecture_is_refused(tiny_pth, tmp_path):
    assert message(tiny_pth, model="deit_small_patch16_224") == (
        f"{tiny_pth} holds {TINY}, not 'deit_small_patch16_224' (--model)"
    )
    checkpoint.write(tmp_path / "a.ckpt", *load_weights(tiny_pth))
    assert f"a.ckpt holds {TINY}, not '{DISTILLED}'" in message(tmp_path / "a.ckpt", model=DISTILLED)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "deit_tiny_patch16_242"}, f"(nearest: '{TINY}')"),
        ({"image_size": 100}, "image_size is 100; allowed: multiples of the patch size 16"),
        ({"image_size": -16}, "image_size is -16"),
        ({"num_classes": -1}, "num_classes is -1"),
    ],
)
def test_wrong_request_is_one_line(tiny_pth, options, words):
    assert words in message(tiny_pth, **options)


def test_unknown_suffix_and_missing_file_are_one_line(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"1")
    assert "unknown kind of file '.onnx'; allowed: .pth, .pt, .bin, .tar, .ckpt, .safetensors" in message(
        tmp_path / "a.onnx"
    )
    assert "none.pth" in message(tmp_path / "none.pth")
    assert "folder" in message(tmp_path)


def test_use_ema_of_our_own_file_is_refused(tmp_path, tiny_pth):
    checkpoint.write(tmp_path / "a.safetensors", *load_weights(tiny_pth))
    assert "holds one set of weights; use_ema" in message(tmp_path / "a.safetensors", use_ema=True)


def test_class_names_travel_until_the_head_is_new(tmp_path):
    state, card = load_weights(write_pth(tmp_path / "a.pth", official_state(TINY, num_classes=2)))
    named = ModelCard(**{**vars(card), "class_names": ("cat", "dog")})
    checkpoint.write(tmp_path / "a.ckpt", state, named)
    assert load_weights(tmp_path / "a.ckpt", image_size=256)[1].class_names == ("cat", "dog")
    assert load_weights(tmp_path / "a.ckpt", num_classes=3)[1].class_names is None


def test_create_model_takes_official_and_own_checkpoints(tmp_path, tiny_pth):
    checkpoint.write(tmp_path / "a.ckpt", *load_weights(tiny_pth))
    for path in (tiny_pth, tmp_path / "a.ckpt"):
        model = create_model(TINY, checkpoint=path, drop_path_rate=0.1)
        assert np.array_equal(model.head.weight.asnumpy(), official_state(TINY)["head.weight"])


def test_create_model_without_checkpoint_has_a_thousand_classes():
    assert create_model(TINY).head.weight.shape == (1000, 192)
    assert create_model(TINY, num_classes=3, image_size=32).pos_embed.shape == (1, 5, 192)


def test_create_model_takes_one_source_of_weights():
    with pytest.raises(UserError, match="pretrained and checkpoint .* exclude each other"):
        create_model(TINY, pretrained=True, checkpoint="a.ckpt")


def test_load_model_gives_the_filled_model_and_its_card(distilled_pth):
    model, card = load_model(distilled_pth)
    assert card.model == DISTILLED
    assert np.array_equal(model.norm.gamma.asnumpy(), official_state(DISTILLED)["norm.weight"])


def test_nothing_is_drawn_for_a_model_that_a_file_fills(distilled_pth, monkeypatch):
    def draw(*_: object) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr(np.random, "standard_normal", draw)
    monkeypatch.setattr(np.random, "uniform", draw)
    to_official(*load_weights(distilled_pth))
    assert load_model(distilled_pth, num_classes=0)[1].num_classes == 0
    with pytest.raises(AssertionError, match="drawn"):
        load_model(distilled_pth, num_classes=3)  # a new head


@pytest.fixture(scope="module", params=[".pth", ".ckpt"])
def plain_small(request, tmp_path_factory) -> Path:
    """A plain model of ten classes for images of 32, in the authors' file and in ours."""
    path = write_pth(tmp_path_factory.mktemp("plain") / "a.pth", official_state(TINY, 10, 32))
    if request.param == ".ckpt":
        checkpoint.write(path.with_suffix(".ckpt"), *load_weights(path))
    return path.with_suffix(request.param)


def test_a_plain_model_starts_a_distilled_student_whose_heads_agree_at_first(plain_small):
    student, card, changes = load_to_train(plain_small, model=DISTILLED, num_classes=10, image_size=32)
    assert changes == ["the distillation token and head start from the class token and head (a plain model's weights)"]
    assert (card.model, card.num_classes, card.image_size) == (DISTILLED, 10, 32)
    state = official_state(TINY, 10, 32)
    assert np.array_equal(student.dist_token.asnumpy(), state["cls_token"])
    assert np.array_equal(student.pos_embed.asnumpy()[:, 1:], state["pos_embed"])
    images = ms.Tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    logits, of_distillation = (head.asnumpy() for head in student.set_train(False).both_heads(images))
    np.testing.assert_allclose(logits, of_distillation, atol=1e-5)
    assert logits.std() > 0.1


def test_for_another_head_and_size_each_change_is_told(plain_small):
    student, _, changes = load_to_train(plain_small, model=DISTILLED, num_classes=3, image_size=48)
    assert student.pos_embed.shape == (1, 2 + 9, 192)
    assert changes[1:] == [
        "the head starts anew for 3 classes (the weights have 10)",
        "the position table is resized from 2 x 2 to 3 x 3 patches",
    ]


def test_a_distilled_model_that_lost_its_token_is_damaged_not_plain(tmp_path):
    state = {name: array for name, array in official_state(DISTILLED, 10, 32).items() if name != "dist_token"}
    with pytest.raises(UserError, match="a.pth"):
        load_to_train(write_pth(tmp_path / "a.pth", state), model=DISTILLED, num_classes=10, image_size=32)


def test_only_training_makes_a_plain_model_a_distilled_one(plain_small):
    assert f"holds {TINY}, not '{DISTILLED}'" in message(plain_small, model=DISTILLED)


def test_a_named_model_trains_at_its_own_size(plain_small):
    model, card, _ = load_to_train(plain_small, model=TINY, num_classes=10)
    assert (card.image_size, model.pos_embed.shape) == (224, (1, 197, 192))
    assert load_to_train(plain_small, num_classes=10)[1].image_size == 32  # nothing is named: as the file has it
