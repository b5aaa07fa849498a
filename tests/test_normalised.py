"""Images that travel as uint8 and are normalised in the graph: the numbers of those that the host normalises."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor, nn
from PIL import Image
from training_runs import SMALL, assert_same_run, one_block, script, write_images

from mindeit.data import IMAGENET_MEAN, IMAGENET_STD
from mindeit.data.transforms import Normalize
from mindeit.layers.normalised import Normalised
from mindeit.runtime import device
from mindeit.training import evaluator, step

__all__ = ["script"]
LEVELS = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2))


@pytest.mark.parametrize(
    ("mean", "std"), [(IMAGENET_MEAN, IMAGENET_STD), ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))]
)
def test_every_level_becomes_the_hosts_bits(mode, mean, std):
    levels = np.asarray(LEVELS).transpose(2, 0, 1)[None].copy()
    done = Normalised(nn.Identity(), mean, std)(Tensor(levels)).asnumpy()
    assert done.dtype == np.float32
    assert done[0].tobytes() == Normalize(mean, std)(LEVELS).tobytes()


def test_float32_images_stay_as_they_are(mode):
    images = np.random.default_rng(0).standard_normal((2, 3, 4, 4), np.float32)
    assert np.array_equal(Normalised(nn.Identity(), IMAGENET_MEAN, IMAGENET_STD)(Tensor(images)).asnumpy(), images)


# The graph of the cell itself has a test above.
@pytest.mark.parametrize("mode", [pytest.param(0, marks=pytest.mark.slow), 1], ids=["graph", "pynative"])
def test_a_run_on_uint8_images_is_the_same_run(mode, script, tmp_path, monkeypatch):
    """CutMix included, which moves pixels; with evaluation."""
    images, seen = write_images(tmp_path / "images", train=24), []

    def to_device(array: np.ndarray) -> Tensor:
        seen.append(array.dtype if array.ndim == 4 else None)
        return Tensor.from_numpy(np.ascontiguousarray(array))

    for room in (step, evaluator):
        monkeypatch.setattr(room, "to_device", to_device)
    words = (*SMALL, "--data_dir", images, "--mode", mode, "--epoch_size", 2, "--re_prob", 0, "--mixup", 0)
    folders = {np.float32: tmp_path / "float32", np.uint8: tmp_path / "uint8"}
    with one_block():
        for kind, folder in folders.items():
            monkeypatch.setattr(device, "normalises", lambda kind=kind: kind == np.uint8)
            seen.clear()
            code, _, err = script("train", *words, "--ckpt_save_dir", folder)
            assert code == 0, err
            assert set(seen) == {None, np.dtype(kind)}
    assert_same_run(*folders.values())
