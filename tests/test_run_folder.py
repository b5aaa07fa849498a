"""One run at a time works in a folder, and nothing that a run did not write is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_run_checkpoints import damage, state_at

from mindeit.errors import UserError
from mindeit.training.run_checkpoints import save
from mindeit.training.run_folder import CONFIG_MARK, RunFolder
from mindeit.weights import checkpoint as checkpoints

HOLD = """
import os, sys, time
from mindeit.training.run_folder import RunFolder
with RunFolder(sys.argv[1]):
    worker = os.fork()
    if worker == 0:
        time.sleep(60)  # a worker that outlives its parent holds nothing
        os._exit(0)
    print(worker, flush=True)
    time.sleep(60)
"""


def test_two_processes_never_work_in_one_folder_and_a_dead_one_frees_it(tmp_path):
    run = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE)
    worker = int(holder.stdout.readline())
    try:
        (run / ".last-abcd1234.ckpt").write_text("the other one's")
        with pytest.raises(UserError) as error, RunFolder(run):
            pass
        assert str(error.value).startswith(f"{run}: process {holder.pid} on ")
        assert str(error.value).endswith("works in this folder; wait for its end, or choose another --ckpt_save_dir")
        assert (run / ".last-abcd1234.ckpt").exists()
        holder.kill()
        holder.wait()
        with RunFolder(run):
            assert (run / "run.lock").read_text().startswith(f"process {os.getpid()} on ")
    finally:
        holder.kill()
        os.kill(worker, signal.SIGKILL)
        holder.stdout.close()


def test_a_lock_goes_with_its_run_and_a_folder_that_stayed_empty_too(tmp_path):
    with RunFolder(tmp_path / "new"):
        pass
    assert os.listdir(tmp_path) == []
    with RunFolder(tmp_path / "new"):
        (tmp_path / "new" / "last.ckpt").write_text("x")
    assert os.listdir(tmp_path / "new") == ["last.ckpt"]


def test_other_ranks_only_look(tmp_path):
    with RunFolder(tmp_path / "new", owner=False) as folder:
        assert folder.checkpoint("auto") is None
    assert os.listdir(tmp_path) == []


def folder_with(path: Path, *names: str) -> Path:
    """Sound training checkpoints, but: "-" in front means damaged, "=" weights alone; other names are texts."""
    path.mkdir()
    for step, name in enumerate(names, 1):
        file = path / name.lstrip("-=")
        if file.suffix != ".ckpt":
            file.write_text(f"{CONFIG_MARK}\n" if name == "config.yaml" else "x")
        elif name.startswith("="):
            checkpoints.write(file, state_at(1).model)
        else:
            save(file, state_at(step, count=step))
        if name.startswith("-"):
            damage(file, at=-300)
    return path


def found(path: Path, resume: object) -> object:
    before = {one: one.read_bytes() for one in path.iterdir()}
    try:
        with RunFolder(path) as folder:
            return folder.checkpoint(None if resume is None else str(resume))
    finally:
        assert {one: one.read_bytes() for one in path.iterdir()} == before


@pytest.mark.parametrize(
    "names",
    [("last.ckpt",), ("-best.ckpt",), ("=best.ckpt",), ("epoch-0003.ckpt",), ("history.jsonl",), ("curves.png",)],
)
@pytest.mark.parametrize("resume", [None, "elsewhere"])
def test_a_folder_with_anything_that_a_new_run_would_replace_is_refused(names, resume, tmp_path):
    folder, elsewhere = folder_with(tmp_path / "b", *names), folder_with(tmp_path / "a", "last.ckpt")
    with pytest.raises(UserError) as error:
        found(folder, resume and elsewhere / "last.ckpt")
    assert str(error.value) == (
        f"{folder} holds a run already ({names[0].lstrip('-=')}); --resume auto goes on with "
        "it, or choose another --ckpt_save_dir"
    )


def test_auto_refuses_to_begin_anew_over_damaged_checkpoints(tmp_path):
    folder = folder_with(tmp_path / "b", "-best.ckpt", "-last.ckpt")
    with pytest.raises(UserError) as error:
        found(folder, "auto")
    assert str(error.value) == (
        f"{folder}: no sound checkpoint among last.ckpt, best.ckpt; move them away to begin "
        "anew, or choose another --ckpt_save_dir"
    )


def test_a_configuration_that_no_run_wrote_is_never_replaced(tmp_path):
    folder = folder_with(tmp_path / "b")
    (folder / "config.yaml").write_text("lr: 1\n")
    for resume in (None, "auto"):
        with pytest.raises(UserError, match="config.yaml: no run wrote this file, and a run there would replace it"):
            found(folder, resume)


def test_a_run_goes_on_in_its_own_folder_or_begins_in_one_without_checkpoints(tmp_path):
    run = folder_with(tmp_path / "a", "epoch-0001.ckpt", "last.ckpt", "config.yaml", "history.jsonl", "curves.png")
    assert found(run, "auto") == run / "last.ckpt"
    assert found(run, run / "epoch-0001.ckpt") == run / "epoch-0001.ckpt"  # back to an earlier state
    free = folder_with(tmp_path / "b", "config.yaml", "log.txt", "notes.md")  # left by a run that failed early
    assert found(free, None) is None
    assert found(free, "auto") is None
    assert found(free, run / "last.ckpt") == run / "last.ckpt"
    with pytest.raises(UserError, match=r"no.ckpt: no such file$"):
        found(free, free / "no.ckpt")
