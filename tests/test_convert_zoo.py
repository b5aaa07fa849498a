"""Official files of the zoo: told apart, converted strictly both ways, proven, resized."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from convert_weights import official_shapes, official_state, same_bits, tensors, write_pth
from reference import GOLDEN, reference_tensor, samples

from mindeit.convert import parity
from mindeit.errors import UserError
from mindeit.models.registry import with_stem
from mindeit.models.spec import Published
from mindeit.models.specs import CATALOGUE
from mindeit.weights.create import create_model
from mindeit.weights.identify import identify, table_image_size
from mindeit.weights.load import load_weights, to_official
from mindeit.weights.position_tables import resize_pos_embed
from mindeit.weights.torch_files import read_official, write_official

MINIS = ("deit_mini_patch8_32_LS", "cait_mini_patch8_32", "resmlp_mini_patch8_32", "patchconvnet_mini_32")


def save(path, name, content):
    """As the authors did: CaiT from a parallel run, ResMLP bare."""
    if name.startswith("cait"):
        torch.save({"model": tensors(content, "module.")}, path)
    elif name.startswith("resmlp"):
        torch.save(tensors(content), path)
    else:
        write_pth(path, content)
    return path


@pytest.mark.parametrize("name", MINIS)
def test_the_authors_kinds_of_file_convert_and_are_proven(name, tmp_path):
    content = official_state(name, 7, 32)
    state, card = load_weights(save(tmp_path / "a.pth", name, content))
    assert (card.model, card.num_classes, card.image_size) == (name, 7, 32)
    report = parity.verify(state, card)
    assert report.max_gap <= 2e-5 and report.departs is None
    write_official(tmp_path / "back.pth", to_official(state, card))
    assert same_bits(read_official(tmp_path / "back.pth"), content)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["deit_small_patch16_18x2_LS", "deit_tiny_patch16_LS_hMLP", "deit_base_patch16_LS_hMLP", "S60_multi"]
)
def test_other_kinds_of_block_stem_and_head_are_proven_too(name, tmp_path):
    content = official_state(name, 7, 32)
    state, card = load_weights(write_pth(tmp_path / "a.pth", content), image_size=32)
    assert (card.model, card.num_classes) == (name, 7)
    assert parity.verify(state, card).max_gap <= 2e-5
    assert same_bits(to_official(state, card), content)


def test_nearly_the_right_names_are_refused(tmp_path):
    content = dict(official_state("cait_mini_patch8_32", 7, 32))
    content["blocks.0.attn.proj_x.weight"] = content.pop("blocks.0.attn.proj_w.weight")
    with pytest.raises(UserError) as caught:
        load_weights(write_pth(tmp_path / "a.pth", content))
    assert "1 missing: blocks.0.attn.proj_w.weight; 1 unexpected: blocks.0.attn.proj_x.weight" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("deit_base_patch16_LS", 384),
        ("deit_small_patch16_36", 224),
        ("cait_S24", 384),
        ("cait_S24_224", 224),
        ("resmlpB_24", 224),
        ("deit_small_patch16_LS_hMLP", 224),
    ],
)
def test_weights_tell_their_resolution(name, size):
    shapes = official_shapes(name, image_size=size)
    assert identify(shapes) == name
    assert table_image_size(shapes) == size


def test_the_table_without_a_class_slot_is_resized_as_the_official_code_does():
    """deit_tiny_patch16_LS from 224 to 384; sixteen places kept."""
    want = json.loads((GOLDEN / "zoo.json").read_text())["pos_embed_224_to_384"]
    table = resize_pos_embed(reference_tensor("pos_embed", (1, 196, 192)), 0, 24)
    assert table.shape == (1, 576, 192)
    np.testing.assert_allclose(samples(table), want, atol=2e-5)


@pytest.mark.parametrize("name", ["deit_mini_patch8_32_LS", "cait_mini_patch8_32"])
def test_another_resolution_resizes_the_whole_table(name, tmp_path):
    content = official_state(name, 7, 32)
    model = create_model(name, checkpoint=write_pth(tmp_path / "a.pth", content), image_size=48)
    want = resize_pos_embed(content["pos_embed"], 0, 6)
    assert model.pos_embed.shape == (1, 36, 128)
    assert np.array_equal(model.pos_embed.asnumpy(), want)


def test_convolutions_take_another_resolution_as_they_are(tmp_path):
    path = write_pth(tmp_path / "a.pth", official_state("patchconvnet_mini_32", 7, 32))
    assert create_model("patchconvnet_mini_32", checkpoint=path, image_size=64).image_size == 64


def test_the_authors_file_name_tells_what_convolutions_do_not(tmp_path, monkeypatch):
    row = CATALOGUE["patchconvnet_mini_32"]
    monkeypatch.setitem(CATALOGUE, row.name, replace(row, published=Published("m60_64_1k.pth", None, None, 1, 1, 64)))
    path = write_pth(tmp_path / "m60_64_1k.pth", official_state(row.name, 7, 32))
    assert load_weights(path)[1].image_size == 64
    assert load_weights(path.rename(tmp_path / "a.pth"))[1].image_size == 32


@pytest.mark.parametrize(
    ("name", "stem", "expected"),
    [
        ("deit_tiny_patch16_LS", "hmlp", "deit_tiny_patch16_LS_hMLP"),
        ("deit_tiny_patch16_LS_hMLP", "hmlp", None),
        ("deit_base_patch16_LS_hMLP", "linear", "deit_base_patch16_LS"),
        ("deit_tiny_patch16_224", "linear", None),
    ],
)
def test_a_stem_is_part_of_the_name(name, stem, expected):
    assert with_stem(name, stem) == (expected or name)


def test_a_model_is_built_with_the_stem_that_is_asked_for():
    model = create_model("deit_tiny_patch16_LS", num_classes=2, image_size=32, stem="hmlp")
    assert model.patch_embed.proj[0].weight.shape == (48, 3, 4, 4)
    with pytest.raises(UserError, match="deit_huge_patch14_LS has no stem 'hmlp'; models that do: deit_tiny_patch16_L"):
        create_model("deit_huge_patch14_LS", stem="hmlp")
    with pytest.raises(UserError, match="stem is 'conv'; allowed: linear or hmlp"):
        create_model("deit_tiny_patch16_LS", stem="conv")


def test_a_mixture_of_patches_has_its_one_resolution(tmp_path):
    path = write_pth(tmp_path / "a.pth", official_state("resmlp_mini_patch8_32", 7, 48))
    assert create_model("resmlp_mini_patch8_32", checkpoint=path).image_size == 48
    with pytest.raises(UserError, match=r"8 misshapen: blocks.0.attn.weight .*; they mix the patches of images of 48 "):
        create_model("resmlp_mini_patch8_32", checkpoint=path, image_size=32)


def test_other_classes_start_their_tokens_anew(tmp_path):
    content = official_state("S60_multi", 7, 32)
    state, card = load_weights(write_pth(tmp_path / "a.pth", content), num_classes=3, image_size=32)
    assert (card.num_classes, state["cls_token"].shape) == (3, (1, 3, 384))
    assert [name for name in state if name.startswith("head")] == [
        f"head.{n}.{leaf}" for n in range(3) for leaf in ("weight", "bias")
    ]
    assert np.array_equal(state["blocks.7.gamma_1"], content["blocks.7.gamma_1"])
