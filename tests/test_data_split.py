"""A plain class folder: its division into images to train on and images held out, and the settings by their number."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from mindeit.cli.finetune import with_folder
from mindeit.cli.train import Options
from mindeit.config import parse
from mindeit.data import Division, open_source, split
from mindeit.data.split import draw
from mindeit.errors import UserError
from mindeit.factory import by_amount


@pytest.fixture
def flowers(tmp_path) -> Path:
    """Ten roses, five tulips, one lily."""
    return write(tmp_path / "flowers", rose=10, tulip=5, lily=1)


def write(folder: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8)).save(folder / name / f"{number}.png")
    return folder


def files(folder: Path, part: str, division: Division = Division(), **details) -> set[str]:
    source = open_source("image_folder", str(folder), part, division=division, cache_dir=str(folder.parent), **details)
    return {os.path.relpath(source.where(index), folder) for index in range(len(source))}


def test_each_class_is_divided_once_and_by_the_seed(flowers):
    train, held_out = files(flowers, "train"), files(flowers, "val")
    assert not train & held_out
    assert train | held_out == {str(path.relative_to(flowers)) for path in flowers.rglob("*.png")}
    assert sorted(name.split("/")[0] for name in held_out) == ["rose", "rose", "tulip"]
    assert files(flowers, "val") == held_out
    assert any(files(flowers, "val", Division(seed=seed)) != held_out for seed in range(1, 4))


def test_the_classes_are_the_folders_and_what_is_odd_is_told(flowers):
    (flowers / "empty").mkdir()
    (flowers / ".cache").mkdir()
    Image.new("RGB", (8, 8)).save(flowers / "loose.png")
    source = open_source("image_folder", str(flowers), "train")
    assert source.class_names == ("lily", "rose", "tulip")
    assert source.labels.tolist() == [0] + [1] * 8 + [2] * 4
    assert source.notes == (
        f"no images in {flowers}/empty: no class",
        "class 'lily' has one image: it trains, none is held out",
        f"1 images lie in {flowers} itself, in no class: left out",
    )


@pytest.mark.parametrize("share, counts", [(0.2, [1, 1, 4]), (0.001, [1, 1, 1]), (0.999, [1, 4, 19]), (1, [2, 5, 20])])
def test_a_class_of_two_images_or_more_has_one_of_each_part(share, counts):
    labels = np.repeat([0, 1, 2], [2, 5, 20])
    assert np.bincount(labels[draw(labels, share, seed=3)], minlength=3).tolist() == counts


def test_a_division_that_was_written_counts_whatever_is_added_later(flowers):
    tables = {
        part: open_source("image_folder", str(flowers), part, division=Division(seed=7)).table()
        for part in ("train", "val")
    }
    file = flowers.parent / "split.csv"
    file.write_text(split.text(tables))
    assert file.read_text().splitlines()[:2] == ["file,class,part", "lily/0.png,lily,train"]
    want = {part: set(names) for part, (names, _) in tables.items()}
    Image.new("RGB", (8, 8)).save(flowers / "lily" / "new.png")
    division = Division(file=str(file))
    assert {part: files(flowers, part, division) for part in ("train", "val")} == want
    [*_, note] = open_source("image_folder", str(flowers), "train", division=division).notes
    assert note == f"1 images are not in {file}; they are left out"


def test_names_of_all_kinds_come_back():
    names = ['a/say "x", y.png', "a/line\nbreak.png", os.fsdecode(b"b/\xff.png"), "b/ü.png"]
    text = split.text({"train": (names[:2], "aa"), "val": (names[2:], "bb")})
    assert split.read_text(text, "x") == dict(zip(names, ["train", "train", "val", "val"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not the division of a folder; its first line has to be 'file,class,part'"),
        ("file,part\n", "not the division of a folder"),
        (
            "file,class,part\nrose/0.png,rose,test\n",
            "split.csv:2: 'rose/0.png,rose,test', allowed: file,class,train or",
        ),
        ("file,class,part\nrose/99.png,rose,val\n", "names rose/99.png, which is not in .*flowers$"),
    ],
)
def test_a_division_that_does_not_fit_is_one_line(content, message, flowers):
    file = flowers.parent / "split.csv"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        files(flowers, "train", Division(file=str(file)))


def test_another_folder_than_the_runs_is_evaluated_whole(flowers):
    file = flowers.parent / "split.csv"
    file.write_text("file,class,part\nrose/99.png,rose,val\n")
    division = Division(share=1, file=str(file), needed=False)
    assert len(files(flowers, "val", division)) == 16
    [note] = open_source("image_folder", str(flowers), "val", division=division).notes
    assert note.endswith("is not divided into train and val, and no split.csv tells: all its images are evaluated")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no 'val' folder in .*; there is: train"),
        (
            {"division": Division(file="split.csv")},
            "split_file is split.csv, but .* has a folder 'train': leave it out",
        ),
    ],
)
def test_a_folder_that_is_divided_is_no_plain_one(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        files(write(tmp_path / "data" / "train", a=2, b=2).parent, "val", **options)


def test_parts_are_no_classes(tmp_path):
    folder = write(tmp_path / "data" / "train", a=2, b=2).parent
    write(folder / "test", a=2, b=2)
    with pytest.raises(UserError, match="no 'tarin' folder in .*there is: test, train"):
        files(folder, "tarin", train_split="tarin")


def test_a_single_class_is_nothing_to_learn(tmp_path):
    with pytest.raises(UserError, match="no folders of two classes or more.*there is: a"):
        files(write(tmp_path / "data", a=2), "train")


# -- settings by the number of images --------------------------------------------------------------------------------


def configured(*words: object):
    return parse(list(map(str, words)), description="", script=Options, derive=by_amount.settings)


def test_what_nobody_chose_follows_the_number_of_images(flowers):
    config = configured("-c", "finetune", "--data_dir", flowers, "--lr", 1e-4)
    assert (config.optim.layer_decay, config.data.batch_size, config.schedule.lr) == (0.75, 2, 1e-4)
    assert config.origins["layer_decay"] == config.origins["batch_size"] == "by 13 images"
    assert (config.model.model, config.model.pretrained, config.origins["model"]) == (
        by_amount.MODEL,
        True,
        "without ckpt_path",
    )
    assert config.origins["lr"] == "command line"


def test_weights_of_ones_own_bring_their_model_and_fresh_ones_learn_in_all_layers(flowers):
    own = configured("-c", "finetune", "--data_dir", flowers, "--ckpt_path", "own.ckpt")
    assert (own.model.model, own.model.pretrained, own.optim.layer_decay) == (None, False, 0.75)
    fresh = configured("-c", "finetune", "--data_dir", flowers, "--pretrained", False)
    assert (fresh.model.model, fresh.optim.layer_decay) == (by_amount.MODEL, None)


def test_other_recipes_stay_as_they_are(flowers):
    assert "by " not in " ".join(configured("-c", "deit_t_cpu", "--data_dir", flowers).origins.values())


@pytest.mark.parametrize("images, row", [(999, 0), (1_000, 1), (99_999, 2), (100_000, 3), (10**7, 3)])
def test_a_row_counts_from_its_first_image_to_its_last(images, row):
    chosen = by_amount.by_amount(images, from_weights=True)
    assert chosen["epoch_size"] == by_amount.AMOUNTS[row].epoch_size
    assert chosen["lr"] == by_amount.AMOUNTS[row].lr


@pytest.mark.parametrize("images, batch", [(1, 1), (7, 1), (8, 2), (63, 8), (64, 16), (999, 16)])
def test_an_epoch_has_four_steps_wherever_it_can(images, batch):
    assert by_amount.by_amount(images, from_weights=True)["batch_size"] == batch


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match="^data_dir .*nowhere is not a folder$"):
        configured("-c", "finetune", "--data_dir", tmp_path / "nowhere")


def test_finetune_takes_its_folder_first():
    assert with_folder(["flowers", "--lr", "1e-4"]) == ["-c", "finetune", "--data_dir", "flowers", "--lr", "1e-4"]
    assert with_folder(["--help"]) == ["-c", "finetune", "--help"]
    for words in ([], ["--lr", "1e-4"]):
        with pytest.raises(UserError, match=r"usage: mindeit finetune FOLDER \[--key value ...\]"):
            with_folder(words)


def test_the_page_shows_the_table():
    page = (ROOT / "docs" / "finetune.md").read_text()
    for row in by_amount.AMOUNTS:
        shown = (row.epoch_size, row.warmup_epochs, row.batch_size, f"{row.lr:g}",
                 f"{row.scale[0]:g} to {row.scale[1]:g}", str(row.auto_augment).replace("None", "none"),
                 f"{row.mixup:g}, {row.cutmix:g}", f"{row.drop_path_rate:g}")  # fmt: skip
        images = f"below {row.below:,.0f}" if row.below < float("inf") else "more"
        assert f"| {images} | {' | '.join(map(str, shown))} |" in page
