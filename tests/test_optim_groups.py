"""Which parameters train, decay and slow down, against the official code's groups."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT
from mindspore import Parameter, Tensor, nn
from zoo import FIGURES, shallow, undrawn

from mindeit.errors import UserError
from mindeit.optim.groups import trained_parameters
from mindeit.weights.names import official_names

OFFICIAL = json.loads((ROOT / "tests" / "golden" / "optim_groups.json").read_text())
DISTILLED = "deit_tiny_distilled_patch16_224"


@pytest.fixture
def model():
    return undrawn(DISTILLED, image_size=32, num_classes=10)


def names(trained):
    return [one.parameter.name for one in trained]


def scales(model, layer_decay):
    return {one.parameter.name: one.lr_scale for one in trained_parameters(model, 0.05, layer_decay=layer_decay)}


@pytest.mark.parametrize("name", OFFICIAL)
def test_decay_is_that_of_the_official_groups(name):
    model = undrawn(name, image_size=32)
    official = official_names(model)
    trained = trained_parameters(model, 0.05)
    assert {official[one.parameter.name] for one in trained if one.decay == 0.05} == set(OFFICIAL[name]["decay"])
    assert {official[one.parameter.name] for one in trained if one.decay == 0} == set(OFFICIAL[name]["no_decay"])


@pytest.mark.parametrize("name", FIGURES["groups"])
def test_decay_of_the_zoo_is_that_of_the_official_groups(name):
    """One block of each kind, all of the rest."""
    model, want = shallow(name), FIGURES["groups"][name]
    official = official_names(model)
    decays = {official[one.parameter.name]: one.decay for one in trained_parameters(model, 0.05)}
    decays = {key: value for key, value in decays.items() if not key.startswith("blocks_token_only.1")}
    assert decays == {**dict.fromkeys(want["decay"], 0.05), **dict.fromkeys(want["no_decay"], 0.0)}


@pytest.mark.parametrize("name", FIGURES["attn_only"])
def test_attention_only_fine_tuning_of_the_zoo_is_the_official_choice(name):
    model = shallow(name)
    official = official_names(model)
    chosen = {official[key] for key in names(trained_parameters(model, 0.05, attn_only=True))}
    assert {key for key in chosen if not key.startswith("blocks_token_only.1")} == set(FIGURES["attn_only"][name])


def test_attention_only_fine_tuning_trains_a_head_for_each_class():
    """Where the official code finds no single head, and stops."""
    chosen = names(trained_parameters(shallow("S60_multi", num_classes=2, image_size=32), 0.05, attn_only=True))
    assert {"head.0.weight", "head.1.bias", "blocks.0.attn.qkv_pos.0.weight"} <= set(chosen)
    assert not {"cls_token", "norm.gamma", "blocks.0.gamma_1"} & set(chosen)


def test_everything_trains_in_the_order_of_the_model_at_one_learning_rate(model):
    trained = trained_parameters(model, 0.05)
    assert names(trained) == [parameter.name for parameter in model.get_parameters()]
    assert {one.lr_scale for one in trained} == {1.0}


def test_attention_only_is_the_official_choice_and_the_rest_needs_no_gradient(model):
    official = official_names(model)
    trained = trained_parameters(model, 0.05, attn_only=True)
    assert {official[name] for name in names(trained)} == set(OFFICIAL[DISTILLED]["attn_only"])
    assert [parameter.name for parameter in model.trainable_params()] == names(trained)


def test_frozen_are_names_and_beginnings_of_names(model):
    trained = trained_parameters(model, 0.05, freeze=("pos_embed", "patch_embed", "blocks.1", "head."))
    frozen = {p.name for p in model.get_parameters()} - set(names(trained))
    assert {name.rpartition(".")[0] or name for name in frozen if not name.startswith("blocks")} == {
        "pos_embed",
        "patch_embed.proj",
        "head",
    }
    assert {name.split(".")[1] for name in frozen if name.startswith("blocks")} == {"1"}  # not 10 and 11
    assert not any(p.requires_grad for p in model.get_parameters() if p.name in frozen)


def test_freezing_what_is_not_there_names_the_nearest(model):
    with pytest.raises(UserError, match=r"freeze names 'patch_embd', .*\(nearest: 'patch_embed'\)"):
        trained_parameters(model, 0.05, freeze=("pos_embed", "patch_embd"))
    assert all(parameter.requires_grad for parameter in model.get_parameters())


def test_nothing_left_to_train_is_said(model):
    everything = ("cls_token", "dist_token", "pos_embed", "patch_embed", "blocks", "norm", "head", "head_dist")
    with pytest.raises(UserError, match=r"nothing is left to train of 155 parameters: .*freeze is cls_token, "):
        trained_parameters(model, 0.05, freeze=everything)


def test_layer_decay_slows_each_layer_by_the_same_factor(model):
    found = scales(model, 0.5)
    last = 13  # twelve blocks after the embeddings
    assert {found[name] for name in ("cls_token", "dist_token", "pos_embed", "patch_embed.proj.weight")} == {0.5**last}
    assert found["blocks.0.norm1.gamma"] == 0.5 ** (last - 1)
    assert found["blocks.11.mlp.fc2.bias"] == 0.5
    assert {found[name] for name in ("norm.gamma", "head.weight", "head_dist.bias")} == {1.0}


def test_layer_decay_keeps_its_depth_when_layers_are_frozen(model):
    trained = trained_parameters(model, 0.05, layer_decay=0.5, freeze=("blocks.11", "blocks.10"))
    assert {one.parameter.name: one.lr_scale for one in trained}["blocks.9.norm1.gamma"] == 0.5**3


def test_layer_decay_needs_layers():
    with pytest.raises(UserError, match="layer_decay is 0.75, but the model has no numbered blocks"):
        trained_parameters(nn.Dense(2, 3), 0.05, layer_decay=0.75)


def test_statistics_and_what_was_frozen_before_are_left_alone():
    cell = nn.SequentialCell(nn.BatchNorm1d(3), nn.Dense(3, 2))
    cell[1].bias.requires_grad = False
    cell.scale = Parameter(Tensor([1.0]), name="scale")
    found = {one.parameter.name: one.decay for one in trained_parameters(cell, 0.1)}
    assert found == {"scale": 0.0, "0.gamma": 0.0, "0.beta": 0.0, "1.weight": 0.1}
