"""Models of one's own, other shapes of known ones, and what timm's and MindCV's users call on them."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from training_runs import SMALL, script, write_images

import mindeit
from mindeit.errors import UserError
from mindeit.models import registry
from mindeit.models.registry import build, spec
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.card import card_for

__all__ = ["script"]

MINIS = (
    "deit_mini_distilled_patch8_32",
    "deit_mini_patch8_32_LS",
    "cait_mini_patch8_32",
    "resmlp_mini_patch8_32",
    "patchconvnet_mini_32",
    "regnety_mini_32",
)


def images(channels: int = 3, count: int = 2) -> Tensor:
    return Tensor(np.random.default_rng(0).normal(size=(count, channels, 32, 32)).astype(np.float32))


@pytest.fixture(scope="module", params=MINIS)
def mini(request):
    return build(request.param, num_classes=5).set_train(False)


@pytest.fixture
def forgotten():
    """What a test registers is gone after it."""
    known = dict(registry.CATALOGUE), dict(registry._BUILDERS)
    yield
    for table, before in zip((registry.CATALOGUE, registry._BUILDERS), known):
        table.clear()
        table.update(before)


class Mean(mindeit.ImageModel):
    def __init__(self, *, width: int, num_classes: int, image_size: int, drop_path_rate: float, drop_rate: float):
        super().__init__(num_classes=num_classes, image_size=image_size, num_features=width, in_channels=3)
        self.mix, self.head = nn.Dense(3, width), nn.Dense(width, num_classes)

    def forward_features(self, images):
        return self.mix(ops.mean(images, (2, 3)))

    def forward_head(self, features, pre_logits=False):
        return features if pre_logits else self.head(features)


def test_the_head_and_the_features_make_the_model(mini):
    features = mini.forward_features(images())
    assert np.array_equal(mini.forward_head(features).asnumpy(), mini(images()).asnumpy())
    assert mini.forward_head(features, pre_logits=True).shape == (2, mini.num_features)
    assert mini.get_classifier()(mini.forward_head(features, pre_logits=True)).shape == (2, 5)


def test_a_head_may_be_changed():
    for name in MINIS:
        model = build(name, num_classes=5).set_train(False)
        names = [parameter.name for parameter in model.get_parameters()]
        model.reset_classifier(7)
        assert model(images()).shape == (2, 7)
        assert sorted(parameter.name for parameter in model.get_parameters()) == sorted(names)
        model.reset_classifier(0)
        assert model(images()).shape == (2, model.num_features)


@pytest.mark.parametrize("name", MINIS[:-1])
def test_intermediates_are_what_the_blocks_gave(name):
    model = build(name, num_classes=5).set_train(False)
    final, maps = model.forward_intermediates(images())
    side = 32 // (16 if "patchconvnet" in name else 8)
    assert [one.shape for one in maps] == [(2, 128, side, side)] * len(model.blocks)
    assert np.array_equal(final.asnumpy(), model.forward_features(images()).asnumpy())
    (last,) = model.forward_intermediates(images(), 1, norm=True, output_fmt="NLC", intermediates_only=True)
    patches = final[:, final.shape[1] - last.shape[1] :].asnumpy()
    assert np.abs(last.asnumpy() - patches).max() < 1e-5
    chosen = model.forward_intermediates(images(), [-1, 0], intermediates_only=True)
    assert np.array_equal(chosen[0].asnumpy(), maps[0].asnumpy())
    assert np.array_equal(chosen[1].asnumpy(), maps[-1].asnumpy())


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"indices": [9]}, r"indices is \[9\]; allowed: a number of last blocks, or which, from -2 to 1"),
        ({"output_fmt": "NHWC"}, "output_fmt is 'NHWC'; allowed: NCHW, NLC"),
    ],
)
def test_wrong_intermediates_are_one_line(wrong, message):
    with pytest.raises(UserError, match=message):
        build(MINIS[0], num_classes=5).forward_intermediates(images(), **wrong)


def test_a_model_takes_other_shapes_and_timms_words():
    model = mindeit.create_model("deit_mini_patch8_32_LS", img_size=16, in_chans=4, num_classes=3, depth=2, num_heads=2)
    assert (len(model.blocks), model.image_size, model.in_channels) == (2, 16, 4)
    assert model.set_train(False)(Tensor(np.zeros((1, 4, 16, 16), np.float32))).shape == (1, 3)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"dept": 2}, r"deit_mini_patch8_32_LS has no option 'dept' \(nearest: 'depth'\); allowed: embed_dim, depth, "),
        ({"depth": 0}, "depth is 0; allowed: 1 and more"),
        ({"in_chans": 0}, "in_channels is 0; allowed: 1 and more"),
        ({"num_heads": 3}, "embed_dim is 128; allowed: multiples of num_heads 3"),
    ],
)
def test_wrong_shapes_are_one_line(wrong, message):
    with pytest.raises(UserError, match=message):
        mindeit.create_model("deit_mini_patch8_32_LS", **wrong)


@pytest.mark.parametrize("name", ["deit_mini_patch8_32_LS", "patchconvnet_mini_32", "regnety_mini_32"])
def test_weights_for_colours_serve_one_channel_and_six(name, tmp_path):
    """A grey image in three channels gives what one channel gives; six channels, each twice, give the same."""
    path, colours = saved(tmp_path / "weights.ckpt", name)
    grey = images(1)
    wanted = colours.set_train(False)(ops.tile(grey, (1, 3, 1, 1))).asnumpy()
    for channels in (1, 6):
        model = mindeit.create_model(name, checkpoint=path, in_channels=channels).set_train(False)
        got = model(ops.tile(grey, (1, channels, 1, 1))).asnumpy()
        assert np.abs(got - wanted).max() < 2e-5 * np.abs(wanted).max()


def saved(path, name, classes=4):
    model = build(name, num_classes=classes)
    state = {parameter.name: parameter.asnumpy() for parameter in model.get_parameters()}
    checkpoints.write(path, state, card_for(spec(name), classes))
    return path, model


def test_another_size_of_a_family_is_registered_and_found_in_its_files(tmp_path, forgotten):
    variant = {"embed_dim": 96, "depth": 2, "num_heads": 3, "patch_size": 8, "distilled": False}
    mindeit.register_model(mindeit.ModelSpec("deit_micro", family="deit", image_size=32, variant=variant))
    path, model = saved(tmp_path / "micro.ckpt", "deit_micro")
    again, card = mindeit.load_model(path)
    assert (card.model, len(again.blocks)) == ("deit_micro", 2)
    assert "deit_micro" in mindeit.list_models("deit_*")


def test_a_network_of_ones_own_is_built_saved_and_predicts(tmp_path, forgotten):
    row = mindeit.ModelSpec("mean_color", family="mean", image_size=32, crop_pct=1.0, variant={"width": 8})
    mindeit.register_model(row, Mean)
    path, model = saved(tmp_path / "mean.ckpt", "mean_color")
    predictor = mindeit.Predictor(path)
    pixels = images(count=1).asnumpy()
    assert np.allclose(predictor.logits(pixels), model.set_train(False)(Tensor(pixels)).asnumpy(), atol=1e-6)


def test_a_plain_cell_is_told_what_an_image_model_says(forgotten):
    mindeit.register_model(mindeit.ModelSpec("plain", family="plain", image_size=32), lambda **options: nn.Identity())
    model = mindeit.create_model("plain", num_classes=3)
    said = {fact: getattr(model, fact) for fact in ("num_classes", "image_size", "in_channels", "distilled")}
    assert said == {"num_classes": 3, "image_size": 32, "in_channels": 3, "distilled": False}
    assert (model.token_per_class, model.extra_tokens) == (False, 0)


PLUGIN = """
import mindeit
from mindspore import nn, ops

class Mean(mindeit.ImageModel):
    def __init__(self, *, width, num_classes, image_size, drop_path_rate, drop_rate):
        super().__init__(num_classes=num_classes, image_size=image_size, num_features=width, in_channels=3)
        self.mix, self.head = nn.Dense(3, width), nn.Dense(width, num_classes)

    def forward_features(self, images):
        return self.mix(ops.mean(images, (2, 3)))

    def forward_head(self, features, pre_logits=False):
        return features if pre_logits else self.head(features)

mindeit.register_model(mindeit.ModelSpec("mean_color", "mean", 32, 1.0, {"width": 8}), Mean)
"""


def test_a_plugins_model_goes_the_whole_way(tmp_path, script, forgotten):
    (tmp_path / "mine.py").write_text(PLUGIN)
    images, own = write_images(tmp_path / "images"), ("--plugin", "mine.py")
    for words in (
        ("train", *SMALL, *own, "--model", "mean_color", "--data_dir", images, "--epoch_size", 1, "--mode", 1),
        ("validate", *own, "--ckpt_path", "outputs/last.ckpt", "--data_dir", images),
        ("predict", *own, "--ckpt_path", "outputs/last.ckpt", images / "val" / "a" / "00.png"),
        ("export", *own, "--ckpt_path", "outputs/last.ckpt", "--format", "ONNX", "--output", "mean.onnx"),
        ("validate", "--ckpt_path", "mean.onnx", "--data_dir", images),
    ):
        code, _, err = script(*words)
        assert code == 0, f"{words}\n{err}"


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = 1\nraise ValueError('no')\n", "plugin mine.py, line 2: ValueError: no"),
        ("x = (\n", "plugin mine.py, line 1: SyntaxError: '(' was never closed"),
        (
            "import mindeit\nmindeit.register_model(mindeit.ModelSpec('m', 'diet', 8))",
            "plugin mine.py: model 'm': unknown",
        ),
    ],
)
def test_a_plugin_that_fails_is_one_line(text, message, tmp_path, script):
    (tmp_path / "mine.py").write_text(text)
    code, _, err = script("validate", "--plugin", "mine.py", "--model", "deit_mini_patch8_32_LS")
    assert code == 2
    assert err.startswith(f"error: command line: {message}")


@pytest.mark.parametrize(
    "row, message",
    [
        (mindeit.ModelSpec("a b", "deit", 32), "model name 'a b'; allowed: letters, digits"),
        (mindeit.ModelSpec("deit_tiny_patch16_224", "deit", 32), "there is a model 'deit_tiny_patch16_224' already"),
        (
            mindeit.ModelSpec("mine", "diet", 32),
            r"'mine': unknown family 'diet' \(nearest: 'deit'\); hand in its builder",
        ),
    ],
)
def test_wrong_registrations_are_one_line(row, message, forgotten):
    with pytest.raises(UserError, match=message):
        mindeit.register_model(row)
    with pytest.raises(UserError, match="'deit' is a family of mindeit; give yours another name"):
        mindeit.register_model(mindeit.ModelSpec("mine", "deit", 32), Mean)


def test_the_transform_of_a_file_is_that_of_evaluation(tmp_path):
    from PIL import Image

    path, _ = saved(tmp_path / "weights.ckpt", "deit_mini_patch8_32_LS")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), np.uint8))
    pixels = mindeit.transform_for(path)(image)
    assert (pixels.shape, pixels.dtype) == ((3, 32, 32), np.float32)
    assert np.array_equal(pixels, mindeit.Predictor(path).prepare(image))
