"""validate.py as a user runs it."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from conftest import ROOT
from sklearn.metrics import confusion_matrix

import mindeit
from mindeit.data import EvalTransform, open_source
from mindeit.runtime.memory import machine_memory


def independent_logits(checkpoint, digits) -> tuple[np.ndarray, np.ndarray]:
    """Without loader, batches or graph."""
    from mindspore import Tensor

    predictor = mindeit.Predictor(checkpoint)
    source = open_source("image_folder", str(digits), "val")
    transform = EvalTransform(32, 0.8)
    pixels = np.stack([transform(source.read(index)) for index in range(len(source))])
    return predictor.model(Tensor(pixels)).asnumpy(), source.labels


def test_results_equal_those_of_the_model_alone(run, checkpoint, digits, tmp_path):
    done = run("validate.py", "--data_dir", digits, "--ckpt_path", checkpoint, "--batch_size", 16, "--output", "r.json")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "r.json").read_text())
    logits, labels = independent_logits(checkpoint, digits)
    order = np.argsort(-logits, axis=1)
    assert results["images"] == 60
    assert results["acc1"] == pytest.approx(100 * (order[:, 0] == labels).mean())
    assert results["acc5"] == pytest.approx(100 * (order[:, :5] == labels[:, None]).any(1).mean())
    shifted = logits - logits.max(1, keepdims=True)
    loss = (np.log(np.exp(shifted).sum(1)) - shifted[np.arange(60), labels]).mean()
    assert results["loss"] == pytest.approx(loss, rel=1e-5)
    assert [row["images"] for row in results["classes"]] == np.bincount(labels, minlength=10).tolist()
    assert results["confusion_matrix"] == confusion_matrix(labels, order[:, 0], labels=range(10)).tolist()
    assert results["calibration"]["plain"]["nll"] == pytest.approx(loss, rel=1e-5)
    mistake = results["most_confident_mistakes"][0]
    assert mistake["file"] == os.path.join(digits, "val", mistake["true"], os.path.basename(mistake["file"]))
    line = done.stdout.splitlines()[-2]
    assert line.startswith(f"ECE {results['calibration']['plain']['ece']:.2f} % (")
    assert line.endswith(f"macro F1 {results['macro']['f1']:.2f} %")
    assert done.stdout.splitlines()[-1] == (
        f"* Acc@1 {results['acc1']:.3f} Acc@5 {results['acc5']:.3f} loss {results['loss']:.3f}"
    )
    assert "images/s" in done.stdout


def test_two_ranks_count_every_image_once(run, checkpoint, digits, tmp_path, monkeypatch):
    broken = tmp_path / "data" / "val" / "3" / "zz.png"
    for image in digits.glob("val/*/*.png"):
        copy = tmp_path / "data" / image.relative_to(digits)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(image.read_bytes())
    broken.write_text("no image")
    monkeypatch.chdir(tmp_path)
    common = ["--data_dir", "data", "--ckpt_path", str(checkpoint), "--batch_size", "7", "--skip_bad_images"]
    assert run_main("validate.py", [*common, "--output", "one.json"], monkeypatch) == 0
    both = run("validate.py", *common, "--output", "two.json", "--distributed", "True", ranks=2)
    assert both.returncode == 0, both.stderr
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert one["images"] == two["images"] == 60
    assert one["classes"] == two["classes"]
    assert one["skipped"] == two["skipped"] == ["data/val/3/zz.png"]
    for numbers in (one, two):
        for timing in ("seconds", "images_per_second", "data_wait"):
            del numbers[timing]
    for mine, other in zip_longest(flat(one), flat(two)):
        assert other == (pytest.approx(mine, rel=1e-6) if isinstance(mine, float) else mine)
    assert sum(map(sum, one["confusion_matrix"])) == 60
    assert both.stdout.count("* Acc@1") == 1


def flat(entries: Any) -> Iterator[Any]:
    """All values of a JSON file, each after its key."""
    if isinstance(entries, (dict, list)):
        for key, value in entries.items() if isinstance(entries, dict) else enumerate(entries):
            yield key
            yield from flat(value)
    else:
        yield entries


def test_a_csv_file_has_a_row_for_each_image(checkpoint, predictor, digits, tmp_path, monkeypatch, capsys):
    words = ["--data_dir", str(digits), "--ckpt_path", str(checkpoint), "--mode", "1"]
    assert run_main("validate.py", [*words, "--output", str(tmp_path / "p.csv")], monkeypatch) == 0
    assert capsys.readouterr().out.splitlines()[-2].startswith("ECE ")
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == sorted(map(str, digits.glob("val/*/*.png")))
    assert list(rows[0]) == ["file", "true", "predicted", "score", *(
        f"{what}_{place}" for place in range(1, 6) for what in ("name", "score")
    )]  # fmt: skip
    for row in rows[::20]:
        guesses = predictor.predict(row["file"])
        assert row["true"] == os.path.basename(os.path.dirname(row["file"]))
        assert (row["predicted"], row["score"]) == (row["name_1"], row["score_1"])
        assert [row[f"name_{place}"] for place in range(1, 6)] == [guess.name for guess in guesses]
        scores = [float(row[f"score_{place}"]) for place in range(1, 6)]
        assert scores == pytest.approx([guess.score for guess in guesses], rel=1e-3, abs=1e-6)


def test_a_flat_folder_with_a_label_file_gives_the_same(checkpoint, digits, tmp_path, monkeypatch, capsys):
    (tmp_path / "flat").mkdir()
    rows = []
    for image in sorted(digits.glob("val/*/*.png")):
        (tmp_path / "flat" / image.name).write_bytes(image.read_bytes())
        rows.append(f"{image.name} {image.parent.name}")
    (tmp_path / "flat" / "labels.txt").write_text("\n".join(rows))
    shown = []
    for folder in (digits, tmp_path / "flat"):
        words = ["--data_dir", str(folder), "--ckpt_path", str(checkpoint), "--mode", "1"]
        assert run_main("validate.py", words, monkeypatch) == 0
        shown.append(capsys.readouterr().out.splitlines()[-1])
    assert shown[0] == shown[1]
    assert shown[0].startswith("* Acc@1 ")


def test_summary_needs_no_data(checkpoint, monkeypatch, capsys):
    assert run_main("validate.py", ["--summary", "-c", str(ROOT / "configs" / "deit_t_gpu.yaml")], monkeypatch) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["total", "5,717,416", "1.258"]
    assert run_main("validate.py", ["--summary", "--ckpt_path", str(checkpoint)], monkeypatch) == 0
    assert "(32x32)" in capsys.readouterr().out.splitlines()[0]


def test_help_and_print_config_do_not_import_mindspore(run):
    done = run("validate.py", "--help", PYTHONPROFILEIMPORTTIME="1")
    assert "--ckpt_path" in done.stdout
    assert "mindspore" not in done.stderr.replace("mindeit", "")


MEMORY = f"{machine_memory() / 2**30:,.0f}"
BAD_INPUT = [
    ({"--data_dir": "/nope"}, "data_dir /nope is not a folder"),
    ({"--ckpt_path": "/nope.ckpt"}, "/nope.ckpt: no such file"),
    ({"--ckpt_path": None}, "no weights: give --ckpt_path FILE, or --pretrained True for the official ones"),
    (
        {"--image_size": "64"},
        "image_size is 64, but {ckpt} was made for 32; leave it out, or convert the checkpoint anew (convert_pt2ms.py)",
    ),
    (
        {"--num_classes": "7"},
        "num_classes is 7, but {ckpt} was made for 10; leave it out, or convert the checkpoint anew (convert_pt2ms.py)",
    ),
    (
        {"--crop_pct": "1.0"},
        "crop_pct is 1.0, but {ckpt} was made for 0.8; leave it out, or convert the checkpoint anew (convert_pt2ms.py)",
    ),
    (
        {"--model": "deit_tiny_patch16_225"},
        "command line: unknown model 'deit_tiny_patch16_225' (nearest: "
        "'deit_tiny_patch16_224'); mindeit models shows all",
    ),
    (
        {"--batch_size": "99999999999"},
        "batch_size is 99999999999: a batch of images of 32 pixels takes 1,144,409 GiB "
        "of memory, this machine has {memory} GiB",
    ),
    ({"--output": "/proc/results.json"}, "/proc/results.json: cannot write there: No such file or directory"),
    (
        {"--output": "results.txt"},
        "command line: --output is results.txt, allowed: a name that ends in .json or .csv, or - for the screen",
    ),
    (
        {"--write_temperature": "True", "--show": "True"},
        "command line: --write_temperature True has no effect with --show True",
    ),
    (
        {"--write_temperature": "True", "--tta": "flip"},
        "command line: --write_temperature is for logits of single views, as predict.py has them; leave out --tta flip",
    ),
    ({"--write_temperature": "True", "--ckpt_path": None}, "--write_temperature needs --ckpt_path FILE"),
    (
        {"--distributed": "True"},
        "distributed is True, but nothing launched several processes; use mpirun -n N python ...",
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD_INPUT, ids=[" ".join(change) for change, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_exit_code_2(change, message, checkpoint, digits, monkeypatch, capsys):
    """In this process, through the script's own main: nine imports of MindSpore would take a minute."""
    options = {"--data_dir": str(digits), "--ckpt_path": str(checkpoint), **change}
    words = [word for pair in options.items() if pair[1] is not None for word in pair]
    code = run_main("validate.py", words, monkeypatch)
    assert code == 2
    assert capsys.readouterr().err == f"error: {message.format(ckpt=checkpoint, memory=MEMORY)}\n"


def run_main(script: str, words: list[str], monkeypatch) -> int:
    import runpy

    monkeypatch.setattr("sys.argv", [script, *words])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    return stopped.value.code


@pytest.mark.parametrize(("target", "library"), [("GPU", "libcuda.so.1"), ("Ascend", "libascend_hal.so")])
def test_a_missing_device_names_the_library_and_the_way_out(target, library, run, checkpoint, digits):
    done = run("validate.py", "--data_dir", digits, "--ckpt_path", checkpoint, "--device_target", target)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: device {target} is not available: missing {library}")
    assert done.stderr.endswith("--device_target CPU works anywhere\n")
    assert done.stderr.count("\n") == 1


def test_class_folders_that_do_not_match_are_refused(checkpoint, tmp_path, monkeypatch, capsys):
    from PIL import Image

    def refuse(folder: str, names: list[str]) -> str:
        for name in names:
            place = tmp_path / folder / "val" / name
            place.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(place / "a.png")
        words = ["--data_dir", str(tmp_path / folder), "--ckpt_path", str(checkpoint)]
        assert run_main("validate.py", words, monkeypatch) == 2
        return capsys.readouterr().err.replace(str(tmp_path), "")

    assert refuse("few", ["cat", "dog"]) == "error: /few: class 'cat' is none of the 10 classes of the checkpoint\n"
    others = [str(digit) for digit in range(9)] + ["nine"]
    assert refuse("other", others) == "error: /other: class 'nine' is none of the 10 classes of the checkpoint\n"


def test_an_unreadable_image_is_named_unless_skipped(checkpoint, digits, tmp_path, monkeypatch, capsys):
    import shutil

    shutil.copytree(digits, tmp_path / "data")
    bad = next((tmp_path / "data" / "val" / "3").iterdir())
    bad.write_bytes(bad.read_bytes()[:40])
    words = ["--data_dir", str(tmp_path / "data"), "--ckpt_path", str(checkpoint), "--mode", "1"]
    assert run_main("validate.py", words, monkeypatch) == 2
    assert str(bad) in capsys.readouterr().err
    assert run_main("validate.py", [*words, "--skip_bad_images"], monkeypatch) == 0
    assert capsys.readouterr().out.startswith(f"left out, unreadable (1):\n  {bad}\n59 images in ")
