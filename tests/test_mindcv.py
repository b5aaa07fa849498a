"""MindCV creates this project's models by name."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from mindspore import Tensor

import mindeit
from mindeit.errors import UserError

mindcv = pytest.importorskip("mindcv")


def test_mindcv_creates_and_lists_every_model_of_ours():
    import_module("mindeit.mindcv")

    model = mindcv.create_model("deit_tiny_patch16_224", num_classes=7, drop_path_rate=0.1, image_size=32)
    assert type(model).__module__ == "mindeit.models.deit"
    assert model.set_train(False)(Tensor(np.zeros((2, 3, 32, 32), np.float32))).shape == (2, 7)
    assert set(mindeit.list_models()) <= set(mindcv.list_models())
    assert "resnet50" in mindcv.list_models()
    assert mindcv.create_model("cait_mini_patch8_32").num_classes == 1000


def test_mindcv_knows_their_module_and_files():
    import_module("mindeit.mindcv")
    registry = import_module("mindcv.models.registry")

    assert "mindcv" in registry.list_modules()
    assert set(mindcv.list_models(module="mindcv")) == set(mindeit.list_models())
    address = registry.get_pretrained_cfg_value("deit_tiny_patch16_224", "url")
    assert address == "https://dl.fbaipublicfiles.com/deit/deit_tiny_patch16_224-a1311bcf.pth"
    assert registry.get_pretrained_cfg_value("cait_XS24", "input_size") == (3, 384, 384)
    assert not registry.is_model_pretrained("deit_mini_patch8_32_LS")


def test_mindcv_gives_maps_of_chosen_blocks_and_other_channels():
    import_module("mindeit.mindcv")

    model = mindcv.create_model("deit_mini_patch8_32_LS", in_channels=1, features_only=True, out_indices=[1, 3])
    maps = model(Tensor(np.zeros((2, 1, 32, 32), np.float32)))
    assert [one.shape for one in maps] == [(2, 128, 4, 4)] * 2
    assert model.out_channels == [128, 128]
    assert "blocks.0.norm1.gamma" in {parameter.name for parameter in model.get_parameters()}


@pytest.mark.parametrize(
    "name, options, message",
    [
        (
            "regnety_mini_32",
            {"features_only": True},
            "features_only is for models of patches; regnety_mini_32 has none",
        ),
        ("deit_mini_patch8_32_LS", {"out_indices": [1]}, "out_indices is for features_only=True"),
    ],
)
def test_what_a_model_cannot_give_is_one_line(name, options, message):
    import_module("mindeit.mindcv")

    with pytest.raises(UserError, match=message):
        mindcv.create_model(name, **options)


def test_without_mindcv_one_line_says_so():
    code = "import sys; sys.modules['mindcv'] = None\nimport mindeit.mindcv"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "mindeit.errors.UserError: mindeit.mindcv registers models with MindCV, which is not installed "
        "(pip install mindcv)"
    )
