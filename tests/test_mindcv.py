"""MindCV's own door to this project's models."""
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


def test_pictures_have_three_channels():
    import_module("mindeit.mindcv")

    with pytest.raises(UserError, match=r"in_channels is 1; allowed: 3 \(resmlp_mini_patch8_32\)"):
        mindcv.create_model("resmlp_mini_patch8_32", in_channels=1)


def test_without_mindcv_one_line_says_so():
    code = "import sys; sys.modules['mindcv'] = None\nimport mindeit.mindcv"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "mindeit.errors.UserError: mindeit.mindcv registers models with MindCV, which is not installed "
        "(pip install mindcv)")
