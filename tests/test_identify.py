from __future__ import annotations

import json
from pathlib import Path

import pytest
from convert_weights import DISTILLED, TINY, official_shapes

from mindeit.errors import UserError
from mindeit.models.registry import list_models, spec
from mindeit.weights.identify import head_classes, identify, table_image_size

NAMES = json.loads((Path(__file__).parent / "golden" / "convert_names.json").read_text())


@pytest.mark.parametrize("name", list_models())
def test_every_model_is_recognised_by_its_weights(name):
    assert identify(official_shapes(name, image_size=spec(name).image_size)) == name


@pytest.mark.parametrize("name", list(NAMES))
def test_official_shapes_are_identified(name):
    assert identify({key: tuple(shape) for key, shape in NAMES[name].items()}) == name


def test_width_of_the_head_does_not_count():
    shapes = official_shapes(DISTILLED, num_classes=7)
    assert identify(shapes) == DISTILLED
    assert head_classes(shapes) == 7


def test_weights_without_head_are_identified():
    shapes = official_shapes(TINY, num_classes=0)
    assert identify(shapes) == TINY
    assert head_classes(shapes) is None


def test_the_only_candidate_keeps_its_name_at_another_resolution():
    shapes = official_shapes(TINY, image_size=288)
    assert identify(shapes) == TINY
    assert table_image_size(shapes) == 288


def test_table_that_fits_neither_candidate_is_ambiguous():
    with pytest.raises(UserError) as caught:
        identify(official_shapes("deit_base_patch16_224", image_size=288))
    text = str(caught.value)
    assert "could be deit_base_patch16_224 or deit_base_patch16_384: their position table is for images of 288" in text
    assert "--model" in text


@pytest.mark.parametrize(
    "change",
    [{"patch_embed.proj.weight": (200, 3, 16, 16)}, {"blocks.12.norm1.weight": (192,)}, {"blocks.0.gamma_1": (192,)}],
    ids=["width", "depth", "layer scale"],
)
def test_weights_of_another_network_fit_no_model(change):
    with pytest.raises(UserError, match="the weights fit no known model .*; allowed: deit_tiny_patch16_224, "):
        identify({**official_shapes(TINY), **change})


def test_table_that_is_no_square_has_no_resolution():
    assert table_image_size({**official_shapes(TINY), "pos_embed": (1, 200, 192)}) is None
