from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from convert_weights import DISTILLED, TINY, official_shapes, official_state, tensors

from mindeit.errors import UserError
from mindeit.models.spec import ModelSpec
from mindeit.models.specs import CATALOGUE
from mindeit.torch_reference.build import build_reference

NAMES = json.loads((Path(__file__).parent / "golden" / "convert_names.json").read_text())


@pytest.mark.parametrize("name", list(NAMES))
def test_reference_has_the_official_names_and_shapes_in_order(name):
    got = official_shapes(name)
    assert list(got.items()) == [(key, tuple(shape)) for key, shape in NAMES[name].items()]


def test_distilled_reference_averages_its_two_heads():
    reference = build_reference(DISTILLED, num_classes=3, image_size=32)
    reference.load_state_dict(tensors(official_state(DISTILLED, 3, 32)))
    seen = {}
    for name in ("head", "head_dist"):
        getattr(reference, name).register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    with torch.no_grad():
        logits = reference(torch.ones(2, 3, 32, 32))
    assert not torch.equal(seen["head"], seen["head_dist"])
    assert torch.equal(logits, (seen["head"] + seen["head_dist"]) / 2)


def test_reference_is_exact_where_approximations_differ():
    reference = build_reference(TINY, num_classes=3, image_size=32)
    assert {m.eps for m in reference.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}
    assert {m.approximate for m in reference.modules() if isinstance(m, torch.nn.GELU)} == {"none"}
    assert not reference.training


def test_reference_without_classes_gives_features():
    reference = build_reference(TINY, num_classes=0, image_size=32)
    with torch.no_grad():
        assert reference(torch.ones(1, 3, 32, 32)).shape == (1, 192)


def test_a_network_of_ones_own_has_no_reference(monkeypatch):
    monkeypatch.setitem(CATALOGUE, "mine", ModelSpec("mine", family="mine", image_size=32))
    with pytest.raises(UserError, match="there is no PyTorch reference of 'mine'; allowed: models of deit, regnet, "):
        build_reference("mine", num_classes=3, image_size=32)
