"""Weights travel to timm and back: its names, its folders, its numbers."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from convert_weights import official_shapes, official_state, same_bits, write_pth
from timm_models import import_timm

from mindeit.cli import convert
from mindeit.comparison import gap
from mindeit.convert.parity import LIMIT
from mindeit.errors import UserError
from mindeit.models.registry import register_model, spec
from mindeit.models.spec import ModelSpec
from mindeit.models.specs import CATALOGUE
from mindeit.models.timm_models import models_of, timm_model, timm_name
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights.card import card_for
from mindeit.weights.load import load_model, load_to_train, load_weights, to_official

KNOWN = [
    pytest.param(name, marks=[pytest.mark.slow] if row.variant.get("depth", 0) > 24 else [])  # of blocks like others
    for name, row in CATALOGUE.items()
    if timm_model(row)
]
# One of each kind of block: name, image size, classes. ResMLP has no small model in timm.
SMALL = {
    "deit_mini_distilled_patch8_32": (32, 7),
    "deit_mini_patch8_32_LS": (48, 7),
    "cait_mini_patch8_32": (32, 7),
    "resmlp_12": (64, 7),
    "regnety_mini_32": (32, 7),
}
LARGE = {
    "deit_tiny_patch16_224": (64, 5),
    "deit_small_distilled_patch16_224": (224, 1000),
    "deit_small_patch16_LS": (384, 10),
    "deit_small_patch16_18x2_LS": (32, 7),
    "deit_small_patch16_18x2": (32, 7),
    "deit_small_patch16_36": (32, 7),
    "cait_XXS24_224": (224, 1000),
    "resmlp_12": (224, 1000),
    "regnety_160": (64, 7),
}


@pytest.fixture(scope="module")
def timm():
    return import_timm()


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        convert.main([str(argument) for argument in arguments])
    return ended.value.code


def logits_of_timm(timm, folder, images):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        return model(torch.from_numpy(images)).numpy()


def assert_same_logits(timm, folder, size):
    import mindspore as ms

    images = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    model, card = load_model(folder)
    assert card.image_size == size
    want = logits_of_timm(timm, folder, images)
    assert want.std() > 1e-3
    assert gap(model.set_train(False)(ms.Tensor(images)).asnumpy(), want).max() <= LIMIT


@pytest.mark.parametrize("name", KNOWN)
def test_timm_has_each_parameter_by_its_name_and_shape(timm, name):
    row, form = spec(name), timm_model(spec(name))
    size = {"img_size": row.image_size} if row.family != "regnet" else {}
    theirs = timm.create_model(form.architecture, num_classes=10, device="meta", **size, **form.model_args)
    affine = (".alpha", ".beta") if row.family == "resmlp" else ()
    ours = {
        timm_name(row, key): (1, 1, *shape) if key.endswith(affine) else shape
        for key, shape in official_shapes(name, 10, row.image_size).items()
    }
    assert {key: tuple(value.shape) for key, value in theirs.state_dict().items()} == ours
    heads = [module.num_heads for module in theirs.modules() if hasattr(module, "num_heads")]
    assert set(heads) <= {row.variant.get("num_heads")}
    assert row in models_of(form.architecture)


def test_timm_lacks_patchconvnet_the_hmlp_stem_and_small_resmlps():
    lacking = {name for name, row in CATALOGUE.items() if not timm_model(row)}
    assert {name for name in lacking if not name.endswith("_hMLP")} == {
        *(name for name, row in CATALOGUE.items() if row.family == "patchconvnet"),
        "resmlp_mini_patch8_32",
    }


def check_both_ways(timm, name, size, classes, tmp_path):
    official = official_state(name, classes, size)
    source = write_pth(tmp_path / "a.pth", official)
    assert call("--input", source, "--to_timm", tmp_path / "folder", "--model", name, "--image_size", size) == 0
    assert_same_logits(timm, tmp_path / "folder", size)
    state, card = load_weights(tmp_path / "folder")
    assert card == load_weights(source, model=name, image_size=size)[1]
    assert same_bits(to_official(state, card), official)


@pytest.mark.parametrize("name", SMALL)
def test_a_folder_gives_the_same_logits_in_timm_and_comes_back_bit_for_bit(timm, name, tmp_path):
    check_both_ways(timm, name, *SMALL[name], tmp_path)


def test_the_lines_of_the_docs_load_a_folder_in_timm(timm, folder):
    lines = re.findall(r"^ {4}(.*)$", (ROOT / "docs" / "weights.md").read_text(), re.M)
    found: dict = {}
    exec("\n".join(lines).replace("flowers_timm", str(folder)), found)
    assert found["model"].num_classes == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_so_do_the_large_ones(timm, name, tmp_path):
    check_both_ways(timm, name, *LARGE[name], tmp_path)


OF_TIMM = {
    "deit_tiny_distilled_patch16_224": ("deit_tiny_distilled_patch16_224", {"img_size": 64}),
    "deit3_small_patch16_384": ("deit_small_patch16_LS", {"img_size": 32}),
    "vit_tiny_patch16_224": ("deit_tiny_patch16_224", {"img_size": 32}),
    "cait_xxs24_224": (
        "cait_mini_patch8_32",
        {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 3, "num_heads": 4},
    ),
    "resmlp_12_224": ("resmlp_12", {"img_size": 64}),
    "regnety_160": ("regnety_mini_32", {"w0": 24, "wa": 40.8, "wm": 2.0, "group_size": 24, "depth": 4}),
}


@pytest.mark.parametrize("architecture", OF_TIMM)
def test_a_folder_of_timms_own_is_read(timm, architecture, tmp_path):
    from timm.models import save_for_hf

    pytest.importorskip("huggingface_hub", reason="timm saves folders with huggingface_hub")
    name, arguments = OF_TIMM[architecture]
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=5, **arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model_config = {"label_names": list("abcde")}
    size = arguments.get("img_size", 32)
    save_for_hf(
        model,
        tmp_path,
        model_config=model_config,
        safe_serialization=architecture != "regnety_160",
        data_config={"input_size": (3, size, size), "crop_pct": 0.95, "mean": (0.5, 0.4, 0.3)},
    )
    card = load_weights(tmp_path)[1]
    assert (card.model, card.num_classes, card.image_size, card.class_names) == (name, 5, size, tuple("abcde"))
    assert (card.crop_pct, card.mean) == (0.95, (0.5, 0.4, 0.3))
    assert_same_logits(timm, tmp_path, size)


@pytest.fixture
def folder(tmp_path):
    """A small distilled model of named classes, calibrated."""
    path, name = tmp_path / "own.ckpt", "deit_mini_distilled_patch8_32"
    card = replace(card_for(spec(name), 3, 32, ("ant", "bee", "cat")), temperature=1.5, mean=(0.5, 0.5, 0.5))
    source = write_pth(tmp_path / "a.pth", official_state(name, 3, 32))
    checkpoints.write(path, load_weights(source)[0], card)
    assert call("--input", path, "--to_timm", tmp_path / "folder") == 0
    return tmp_path / "folder"


def change(folder, **entries):
    config = json.loads((folder / "config.json").read_text())
    for key, value in entries.items():
        (config if key in ("architecture", "num_classes", "model_args") else config["pretrained_cfg"])[key] = value
    (folder / "config.json").write_text(json.dumps(config))


def test_the_card_comes_back_whole(folder):
    assert load_weights(folder)[1] == checkpoints.read(folder.parent / "own.ckpt")[1]


def test_a_folder_is_fine_tuned_with_a_fresh_head_and_a_larger_table(folder):
    _, card, changes = load_to_train(folder, num_classes=5, image_size=48, class_names=tuple("abcde"))
    assert (card.model, card.num_classes, card.image_size) == ("deit_mini_distilled_patch8_32", 5, 48)
    assert len(changes) == 2


def test_a_folder_is_predicted_from(folder, tmp_path):
    from PIL import Image

    import mindeit

    Image.new("RGB", (40, 30), (200, 30, 90)).save(tmp_path / "one.png")
    found = mindeit.Predictor(folder).predict(tmp_path / "one.png")
    assert {guess.name for guess in found} == {"ant", "bee", "cat"}
    assert found == mindeit.Predictor(tmp_path / "own.ckpt").predict(tmp_path / "one.png")


def test_a_folder_is_shown_exported_and_converted_by_the_commands(folder, tmp_path, monkeypatch, capsys):
    from mindeit.cli import export, validate

    monkeypatch.chdir(tmp_path)
    for main, arguments in (
        (validate.main, ["--show", "--ckpt_path", "folder"]),
        (export.main, ["--format", "ONNX", "--ckpt_path", "folder"]),
        (convert.main, ["--input", "folder", "--output", "back.safetensors"]),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    assert "folder: weights, 1.7 MB" in capsys.readouterr().out
    assert (tmp_path / "folder.onnx").exists()
    assert checkpoints.read(tmp_path / "back.safetensors")[1].temperature == 1.5


def test_models_of_ones_own_in_a_family_that_timm_has_go_too(timm, tmp_path, monkeypatch):
    monkeypatch.setattr("mindeit.models.registry.CATALOGUE", CATALOGUE)
    variant = {"embed_dim": 96, "depth": 2, "num_heads": 2, "patch_size": 8, "distilled": False}
    monkeypatch.setitem(CATALOGUE, "deit_micro", ModelSpec("deit_micro", "deit", 32, variant=variant))
    register_model(CATALOGUE["deit_micro"])
    from mindeit.models.registry import build

    state = {p.name: p.asnumpy() for p in build("deit_micro", num_classes=3).get_parameters()}
    checkpoints.write(tmp_path / "own.ckpt", state, card_for(spec("deit_micro"), 3))
    assert call("--input", tmp_path / "own.ckpt", "--to_timm", tmp_path / "folder") == 0
    assert load_weights(tmp_path / "folder")[1].model == "deit_micro"
    assert_same_logits(timm, tmp_path / "folder", 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "resnet50"}, "'resnet50' (nearest: 'regnety_160'), which MinDeiT lacks; mindeit mode"),
        ({"architecture": "deit_tiny_distilled_patch16_225"}, "'deit_tiny_distilled_patch16_225'"),
        ({"architecture": "cait_xxs24_224"}, "the weights fit no model here that timm calls 'cait_xxs24_224'"),
        ({"num_classes": 4}, "config.json: num_classes is 4, but the weights have a head of 3"),
        ({"model_args": {"num_heads": 8}}, "with 8 heads"),
        (
            {"model_args": {"num_heads": 4, "qk_scale": 2}},
            "model_args holds qk_scale (2), which models here do not have",
        ),
        ({"model_args": {"num_heads": 4, "global_pool": "avg"}}, "global_pool is avg, allowed for deit_mini_distil"),
        ({"input_size": [1, 32, 32]}, "input_size is [1, 32, 32], allowed: 3 channels of square images"),
        ({"input_size": "large"}, "config.json: input_size is 'large', allowed: a list of 3"),
        ({"crop_mode": "squash"}, "crop_mode is 'squash', allowed: center"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest', allowed: bicubic or bilinear"),
        ({"std": [0, 1, 1]}, "config.json: std"),
    ],
)
def test_what_a_folder_says_is_checked(folder, changes, message):
    change(folder, **changes)
    with pytest.raises(UserError) as error:
        load_weights(folder)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_missing_and_damaged_files_are_named(folder, tmp_path):
    def says(message):
        with pytest.raises(UserError) as error:
            load_weights(folder)
        assert message in str(error.value)

    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text('{"architectures": ["ViT"]}')
    says("config.json: lacks architecture")
    (folder / "config.json").write_text(config[:50])
    says("config.json is not valid json")
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    says("model.safetensors is not a .safetensors file, or is cut off")
    (folder / "model.safetensors").unlink()
    says("holds no weights; allowed beside config.json: model.safetensors or pytorch_model.bin")
    (folder / "config.json").unlink()
    says(f"{folder}: is a folder without config.json; allowed: a file of weights, or a folder as timm saves it")


def test_what_cannot_be_written_is_said_before_anything_is(tmp_path, capsys):
    source = write_pth(tmp_path / "a.pth", official_state("resmlp_mini_patch8_32", 7, 32))
    assert call("--input", source, "--to_timm", tmp_path / "folder") == 2
    assert "timm has no model like resmlp_mini_patch8_32; --to_timm is for" in capsys.readouterr().err
    assert call("--input", "none.pth", "--to_timm", tmp_path / "folder", "--model", "S60") == 2
    assert "timm has no model like S60" in capsys.readouterr().err
    assert call("--input", source, "--to_timm", source) == 2
    assert "input and output are the same" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert call("--input", source, "--to_timm", tmp_path / "file") == 2
    assert "is a file, a folder is written" in capsys.readouterr().err
    assert call("--input", source, "--to_timm", tmp_path / "folder", "--output", "b.ckpt") == 2
    assert "stands in place of --output and --to_pt; leave them out" in capsys.readouterr().err
    assert not (tmp_path / "folder").exists()


def test_the_card_tells_what_is_known_and_no_more(folder, tmp_path):
    own = (folder / "README.md").read_text()
    assert own.startswith("---\ntags:\n- image-classification\n") and "library_name: timm\n" in own
    assert "license: apache" not in own and "None is stated" in own
    assert "## Training" not in own and "## Parity" not in own and "| temperature | 1.5, " in own
    assert str(tmp_path) not in own


def test_the_card_of_an_official_file_has_its_licence_its_figure_and_the_gap(tmp_path, monkeypatch):
    name = "deit_mini_patch8_32_LS"
    from mindeit.models.spec import Published

    row = replace(CATALOGUE[name], published=Published("mini.pth", 55.5, 80.0, 1, 1))
    monkeypatch.setitem(CATALOGUE, name, row)
    source = write_pth(tmp_path / "mini.pth", official_state(name, 1000, 32))
    assert call("--input", source, "--to_timm", tmp_path / "folder", "--verify") == 0
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "license: apache-2.0\n" in card and "The authors report 55.5 % top-1, 80 % top-5 on ImageNet-1k" in card
    assert "differ by at most " in card
    assert call("--input", source, "--to_timm", tmp_path / "other", "--num_classes", 3) == 0
    assert "55.5" not in (tmp_path / "other" / "README.md").read_text()
