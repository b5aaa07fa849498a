"""Two ranks train as one process with the doubled batch does."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from training_runs import arrays, assert_same_run, finish, history, plugin_models, script, start, wait_for, write_images

from mindeit.config import parse
from mindeit.errors import UserError
from mindeit.factory import datasets
from mindeit.runtime.cluster import Cluster
from mindeit.training import run_checkpoints

__all__ = ["script"]
NO_MIXING = ("--mixup", 0, "--cutmix", 0)  # it is drawn by each rank, as upstream


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Iterator[tuple[Path, tuple, tuple, str]]:
    """A run of two ranks, 6 updates in each of 2 epochs, and its options; one has 13 images to evaluate, one 12."""
    folder = tmp_path_factory.mktemp("two")
    with plugin_models(folder) as plugin:  # four compile it, and its size is not the fact
        options = (
            "--data_dir", write_images(folder / "images", train=48, val=25), "--model", "one_block", "--plugin",
            plugin, "--epoch_size", 2, "--warmup_epochs", 0, "--log_interval", 1, "--lr", 0.02,
            "--drop_path_rate", 0.3, "--ema_decay", 0.9, "--aug_repeats", 3, *NO_MIXING,
        )  # fmt: skip
        parallel = (*options, "--batch_size", 4, "--distributed", True)
        text = finish(folder / "log", *parallel, "--ckpt_save_dir", folder / "run", ranks=2)
        yield folder / "run", options, parallel, text


def losses(text: str) -> list[float]:
    return [float(line.split("loss ")[1].split(",")[0]) for line in text.splitlines() if "images, loss" in line]


def test_two_ranks_equal_one_process_with_the_doubled_batch(two, script, tmp_path):
    """AdamW divides by a gradient's size: where that is nothing but a rounding error, the rounding decides. So medians
    count here, as for the official runs; SGD, without that division, agrees everywhere (below)."""
    folder, options, _, text = two
    code, *alone = script("train", *options, "--batch_size", 8, "--ckpt_save_dir", tmp_path / "run")
    assert code == 0, alone
    found = differences(folder, tmp_path / "run")
    assert sum(difference.size for difference in found.values()) > 300_000
    for name, difference in found.items():
        if name.endswith("qkv.bias"):  # what the keys' bias adds, softmax takes away: no gradient
            difference = np.delete(difference, slice(len(difference) // 3, 2 * len(difference) // 3))
        assert np.median(difference) < 1e-6, name
    for one, other in zip(history(folder), history(tmp_path / "run")):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key] == pytest.approx(other[key], rel=1e-6), key
    assert losses(text) == pytest.approx(losses("".join(alone)), abs=1.01e-4)  # as printed


@pytest.mark.slow
def test_batch_norm_over_all_ranks_equals_the_doubled_batch(two, script, tmp_path):
    options = (
        *two[1][:2], "--model", "regnety_mini_32", "--epoch_size", 2, "--warmup_epochs", 0, "--lr", 0.5, "--opt", "sgd",
        "--drop_path_rate", 0, *NO_MIXING,
    )  # fmt: skip
    for name, words in (("over", ("--sync_bn", True)), ("own", ())):
        parallel = (*options, "--batch_size", 4, "--distributed", True, *words, "--ckpt_save_dir", tmp_path / name)
        finish(tmp_path / f"{name}.log", *parallel, ranks=2)
    code, *alone = script("train", *options, "--batch_size", 8, "--ckpt_save_dir", tmp_path / "one")
    assert code == 0, alone
    for name, most in (("over", 1e-5), ("own", None)):
        gaps = [
            abs(one["train_loss"] - other["train_loss"])
            for one, other in zip(history(tmp_path / name), history(tmp_path / "one"))
        ]
        assert max(gaps) < most if most else max(gaps) > 1e-3, (name, gaps)


@pytest.mark.slow
def test_two_ranks_equal_one_process_everywhere_without_that_division(two, tmp_path):
    options = (*two[1], "--opt", "sgd", "--lr", 1)
    finish(tmp_path / "1", *options, "--batch_size", 8, "--ckpt_save_dir", tmp_path / "one")
    parallel = ("--batch_size", 4, "--distributed", True, "--ckpt_save_dir", tmp_path / "two")
    finish(tmp_path / "2", *options, *parallel, ranks=2)
    assert max(difference.max() for difference in differences(tmp_path / "one", tmp_path / "two").values()) < 1e-6


def differences(one: Path, other: Path) -> dict[str, np.ndarray]:
    """Of model and average after 12 updates."""
    first, second = arrays(one / "last.ckpt"), arrays(other / "last.ckpt")
    assert first.keys() == second.keys()
    assert (
        run_checkpoints.load(one / "last.ckpt").record["step"]
        == run_checkpoints.load(other / "last.ckpt").record["step"]
        == 12
    )
    return {name: np.abs(value - second[name]) for name, value in first.items() if not name.startswith("optimizer/")}


def test_two_ranks_print_what_one_does(two):
    text = two[3].splitlines()
    assert [line.split(":")[0] for line in text if "Acc@1" in line and line.startswith("epoch")] == [
        "epoch 1/2",
        "epoch 2/2",
    ]
    assert len(losses(two[3])) == len({line.split(" images")[0] for line in text if "images, loss" in line}) == 10
    assert len(set(text)) == len(text)
    words = {line.split()[0].rstrip(":") for line in text}
    assert words <= {
        "training",
        "data",
        "model",
        "run",
        "compiling",
        "still",
        "compiled",
        "epoch",
        "evaluate",
        "done",
        "next",
    }
    assert text == (two[0] / "log.txt").read_text().splitlines()[1:]


def test_two_ranks_stop_at_sigterm_and_go_on_exactly(two, script, tmp_path):
    folder, _, options, _ = two
    options = (*options, "--ckpt_save_dir", tmp_path / "run", "--resume", "auto")
    process = start(tmp_path / "log", *options, ranks=2)
    wait_for("epoch 2/2: 16/48", tmp_path / "log", process)
    process.send_signal(signal.SIGUSR1)  # mpirun passes it on; after SIGTERM it kills within a quarter of a second
    assert process.wait(60) == 0, (tmp_path / "log").read_text()
    text = (tmp_path / "log").read_text()
    assert text.count("stopped in epoch 2 after step") == 1
    last = tmp_path / "run" / "last.ckpt"
    record = run_checkpoints.load(last).record
    assert (record["ranks"], record["epoch"]) == (2, 1)
    assert record["batch"] > 0
    refuse_one_rank(script, two[1], last, record)
    finish(tmp_path / "log2", *options, ranks=2)
    assert_same_run(folder, tmp_path / "run")


def refuse_one_rank(script: Callable, options: tuple, last: Path, record: dict) -> None:
    code, _, err = script("train", *options, "--batch_size", 4, "--ckpt_save_dir", last.parent, "--resume", "auto")
    assert code == 2
    assert err.endswith(
        f"\nerror: {last}: cannot be resumed with ranks 1, it was saved with 2 inside epoch 2 (batch "
        f"{record['batch']}): what is left of that epoch depends on ranks; checkpoints of an epoch's end can be "
        "resumed with another\n"
    )


@pytest.mark.slow
def test_one_process_goes_on_with_two_ranks_work_at_an_epochs_end(two, tmp_path):
    folder, options, _, _ = two
    alone = (*options, "--batch_size", 4, "--ckpt_save_dir", tmp_path / "run", "--resume", folder / "epoch-0001.ckpt")
    finish(tmp_path / "log", *alone)
    record = run_checkpoints.load(tmp_path / "run" / "last.ckpt").record
    assert (record["ranks"], record["epoch"], record["step"]) == (1, 2, 6 + 12)
    assert json.loads((tmp_path / "run" / "history.jsonl").read_text())["epoch"] == 2


@pytest.mark.slow
def test_batch_norm_of_two_ranks_is_evaluated_as_saved(script, two, tmp_path):
    """Each rank has its own running statistics in training; all evaluate, and one saves, those of the first."""
    images = two[0].parent / "images"
    options = ("--data_dir", images, "--model", "regnety_mini_32", "--epoch_size", 1, "--batch_size", 4, *NO_MIXING,
               "--warmup_epochs", 0, "--drop_path_rate", 0, "--lr", 0.1)  # fmt: skip
    finish(tmp_path / "log", *options, "--distributed", True, "--ckpt_save_dir", tmp_path / "run", ranks=2)
    [record] = history(tmp_path / "run")
    code, out, err = script(
        "validate", "--data_dir", images, "--ckpt_path", tmp_path / "run" / "last.ckpt", "--output", "out.json"
    )
    assert code == 0, err
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["images"] == 25
    assert results["acc1"] == pytest.approx(record["acc1"])
    assert results["loss"] == pytest.approx(record["val_loss"], rel=1e-6)


def test_the_launcher_and_distributed_go_together_or_one_line_says_so(script, two, tmp_path):
    _, options, _, _ = two
    options = (*options, "--batch_size", 4, "--ckpt_save_dir", tmp_path / "run")
    text = finish(tmp_path / "log", *options, ranks=2, code=2)
    assert "error: 2 processes were launched, but distributed is False; add --distributed True\n" in text
    assert "Traceback" not in text
    code, _, err = script("train", *options, "--distributed", True)
    assert code == 2
    assert err.splitlines()[1:] == [
        "error: distributed is True, but nothing launched several processes; use mpirun -n N python ..."
    ]
    assert not (tmp_path / "run").exists()


def test_a_rank_with_other_settings_is_named_before_anything_is_written(two, tmp_path):
    (tmp_path / "other.yaml").write_text("lr: 0.5\nema: False\n")
    options = (*two[1][:12], "--batch_size", 4, "--distributed", True, "--ckpt_save_dir", tmp_path / "run")
    text = finish(tmp_path / "log", *options, ranks=2, rank_1=("--config", tmp_path / "other.yaml"), code=2)
    line, end = text[text.index("error: ") :].splitlines()[:2]
    assert line.startswith("error: the ranks have to agree, but ")
    assert {"lr is 0.0005 on rank 0, 0.5 on rank 1", "ema is True on rank 0, False on rank 1"} == set(
        line.partition(", but ")[2].split("; ")
    )
    assert end == "rank 0 of 2 ended with exit code 2; this ends all ranks"
    assert text.count("error") == 1
    assert "Traceback" not in text
    assert not list((tmp_path / "run").glob("*"))


def test_more_ranks_than_images_are_refused(tmp_path):
    images = write_images(tmp_path / "images", train=1, val=1, classes="a")
    config = parse(("--data_dir", str(images), "--batch_size", "1"), description="")
    with pytest.raises(UserError, match=f"^{images} has 1 images to train on, fewer than the 2 ranks$"):
        datasets.check_amount(config, datasets.train_source(config), Cluster(0, 2, 2))


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
@pytest.mark.parametrize("victim", ["rank", "launcher"])
def test_whoever_is_killed_a_checkpoint_and_no_process_is_left(victim, two, tmp_path):
    folder, _, options, _ = two
    options = (*options, "--ckpt_save_dir", tmp_path / "run", "--resume", "auto")
    process = start(tmp_path / "log", *options, ranks=2, JOB_OF_TEST=str(tmp_path))
    wait_for("epoch 2/2: 8/48", tmp_path / "log", process)
    rank = f"{sys.executable}\0{ROOT / 'train.py'}\0"  # OpenMPI's mpirun calls itself prterun
    ranks = [number for number, words in running(tmp_path) if words.startswith(rank)]
    assert len(ranks) == 2
    os.kill(ranks[0] if victim == "rank" else process.pid, signal.SIGKILL)
    started = time.monotonic()
    assert process.wait(30) != 0
    while running(tmp_path) and time.monotonic() - started < 30:
        time.sleep(0.2)
    assert running(tmp_path) == []
    finish(tmp_path / "log2", *options, ranks=2)
    assert_same_run(folder, tmp_path / "run")


def running(job: Path) -> list[tuple[int, str]]:
    """Processes of the job: number and command."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"JOB_OF_TEST={job}\0".encode() in (place / "environ").read_bytes():
                found.append((int(place.name), (place / "cmdline").read_text()))
        except OSError:
            pass  # ended meanwhile
    return found
