"""Ranks as real processes: what they share, and that none outlives the others."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from conftest import ROOT
from test_validate import run_main

from mindeit.errors import UserError
from mindeit.runtime import cluster, launcher

LAUNCH = ROOT / "scripts" / "launch"
PROLOGUE = """
import os, signal, sys, time
import numpy as np
from mindeit.errors import UserError, run_script
from mindeit.runtime import cluster, device

device.setup("CPU")
ranks = cluster.start(True, "CPU")
"""
DIES = """
@run_script
def main(argv):
    how, who = argv[0], int(argv[1])
    for step in range(400):
        ranks.total(np.ones(3, np.float32))
        if step == 20 and ranks.rank == who:
            open("died", "w").write(str(time.time()))
            if how == "kill": os.kill(os.getpid(), signal.SIGKILL)
            if how == "raise": raise ValueError("a bug")
            if how == "user": raise UserError("a mistake")
            if how == "exit": sys.exit(3)
        time.sleep(0.05)
main()
"""
SAVES = """
@run_script
def main(argv):
    caught = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: caught.append(number))
    open(f"up{ranks.rank}", "w").close()
    for _ in range(1200):
        if ranks.total(np.array([len(caught)])):
            time.sleep(2)  # longer than mpirun grants
            open(f"saved{ranks.rank}", "w").close()
            ranks.barrier()
            return 0
        time.sleep(0.05)
    return 1
main()
"""
WORKS = """
for step in range(200):
    ranks.total(np.ones(1))
    if step == 20:
        with open(f"up{ranks.rank}.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(file.name, f"up{ranks.rank}")
    time.sleep(0.05)
"""
SHARES = """
import mindspore as ms
from mindspore import Parameter, Tensor
from mindeit.runtime.reduce import SumOverRanks

def values(rank):
    numbers = np.random.default_rng(rank)
    floats = [numbers.standard_normal(shape).astype(np.float32) for shape in ((3, 5), (), (300, 200), (7,))]
    return floats + [np.float32(numbers.integers(0, 9, 3)) for _ in range(6)]

TYPES = [ms.float32] * 4 + [ms.int32, ms.int64, ms.float16, ms.bfloat16, ms.bool_, ms.uint8]
parameters = [Parameter(Tensor(v, t), name=f"p{i}") for i, (v, t) in enumerate(zip(values(ranks.rank), TYPES))]
cluster._WORDS_PER_CALL = 50_000  # so that one tensor is sent in two parts
ranks.broadcast(parameters)
for parameter, expected, kind in zip(parameters, values(0), TYPES):
    assert parameter.dtype == kind and parameter.shape == expected.shape
    expected = Tensor(expected, kind).astype(ms.float32).asnumpy()
    assert np.array_equal(parameter.astype(ms.float32).asnumpy(), expected), parameter.name

total = SumOverRanks(ranks.ranks)
for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
    ms.set_context(mode=mode)
    sums = total(tuple(Tensor(v.ravel()) for v in values(ranks.rank)))
    for got, first, second in zip(sums, values(0), values(1)):
        assert np.array_equal(got.asnumpy(), (first + second).ravel())

if ranks.rank == 0:
    time.sleep(7)  # alone, for longer than a collective waits here
assert ranks.total(np.ones(1))[0] == 2
print(f"rank {ranks.rank} of {ranks.ranks} agrees", flush=True)
"""


def environment(**variables: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return {**os.environ, "PATH": path, **root, **variables}


def launch(command: list, folder: Path, script: str, **variables: str) -> subprocess.Popen:
    """Start ``command`` in ``folder``, where the script of the ranks is ``ranks.py``; output in ``output``."""
    folder.mkdir(exist_ok=True)
    (folder / "ranks.py").write_text(PROLOGUE + textwrap.dedent(script))
    variables = environment(JOB_OF_TEST=str(folder), **variables)
    with open(folder / "output", "a") as output:
        command = [str(word) for word in command]
        return subprocess.Popen(command, cwd=folder, env=variables, stdout=output, stderr=subprocess.STDOUT)


def survivors(folder: Path) -> list[str]:
    """Processes that inherited the job's environment: ranks, scheduler, launcher."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"JOB_OF_TEST={folder}\0".encode() in (place / "environ").read_bytes():
                found.append((place / "cmdline").read_text().replace("\0", " "))
        except OSError:
            pass  # ended meanwhile
    return found


def wait_for(*files: Path) -> None:
    end = time.monotonic() + 90
    while not all(file.exists() for file in files):
        assert time.monotonic() < end, f"{files[0].parent}: {(files[0].parent / 'output').read_text()}"
        time.sleep(0.1)


MPIRUN = ["mpirun", "-n", 2, sys.executable, "ranks.py"]
# how and which rank: exit code, what the output says
DEATHS = {
    ("kill", 0): (137, "process rank 0 with PID"),
    ("raise", 1): (1, "ValueError: a bug\nrank 1 of 2 ended with exit code 1; this ends all ranks\n"),
    ("user", 1): (2, "error: a mistake\nrank 1 of 2 ended with exit code 2; this ends all ranks\n"),
    ("kill", 1): (137, "process rank 1 with PID"),
    ("exit", 0): (3, "rank 0 of 2 ended with exit code 3; this ends all ranks\n"),
    ("exit", 1): (3, "rank 1 of 2 ended with exit code 3; this ends all ranks\n"),
}
QUICK = list(DEATHS)[:3]  # both ranks, with warning and without; the others die in the same ways


@pytest.fixture(scope="module")
def deaths(request, tmp_path_factory) -> dict:
    """All at once, as a start is mostly waiting: exit code, when mpirun returned, who was left then, the folder."""
    results, parent = {}, tmp_path_factory.mktemp("deaths")
    wanted = {item.callspec.params["death"] for item in request.session.items if "deaths" in item.fixturenames}
    folders = {(how, rank): parent / f"{how}{rank}" for how, rank in wanted}
    jobs = {death: launch([*MPIRUN, *death], folder, DIES) for death, folder in folders.items()}
    while jobs:
        for death, job in list(jobs.items()):
            if job.poll() is not None:
                del jobs[death]
                results[death] = job.returncode, time.time(), survivors(folders[death]), folders[death]
        time.sleep(0.1)
    return results


@pytest.mark.parametrize(
    "death",
    [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow, id=f"{one[0]}-rank{one[1]}") for one in DEATHS],
)
def test_a_rank_that_dies_ends_all_and_is_named(death, deaths):
    code, ended, left, folder = deaths[death]
    text = (folder / "output").read_text()
    assert code == DEATHS[death][0], text
    assert DEATHS[death][1] in text
    assert ended - float((folder / "died").read_text()) < 30
    assert left == []


def test_sums_are_exact_and_no_rank_waits_in_vain_under_mpirun_and_srun(tmp_path):
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_ID": "0"}
    step["SLURM_JOB_ID"] = str(os.getpid())
    by_mpi, by_slurm = tmp_path / "mpirun", tmp_path / "srun"
    step["MS_CPU_COMM_OP_TIMEOUT"] = "5"  # heeded from MindSpore 2.10 on
    jobs = [launch(MPIRUN, by_mpi, SHARES, MS_CPU_COMM_OP_TIMEOUT="5")]
    jobs += [launch(MPIRUN[3:], by_slurm, SHARES, **step, SLURM_PROCID=str(rank)) for rank in (0, 1)]
    codes = [job.wait(90) for job in jobs]
    for folder in (by_mpi, by_slurm):
        text = (folder / "output").read_text()  # two processes write: their lines may run into each other
        assert sorted(re.findall("rank . of 2 agrees", text)) == ["rank 0 of 2 agrees", "rank 1 of 2 agrees"], text
        assert survivors(folder) == []
    assert codes == [0, 0, 0]


def test_ranks_save_when_the_launcher_gets_sigterm_and_when_mpirun_is_killed(tmp_path):
    stopped, orphaned = tmp_path / "stopped", tmp_path / "orphaned"
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    variables = {"HOSTFILE": "../hosts", "RANKS": "2", "PYTHON": sys.executable}
    by_script = launch(["bash", LAUNCH / "several_nodes.sh", "ranks.py"], stopped, SAVES, **variables)
    by_mpirun = launch(MPIRUN, orphaned, SAVES)
    wait_for(*(folder / f"up{rank}" for folder in (stopped, orphaned) for rank in (0, 1)))
    by_script.send_signal(signal.SIGTERM)
    by_mpirun.kill()
    assert by_script.wait(30) == 0, (stopped / "output").read_text()
    assert by_mpirun.wait(30) == -signal.SIGKILL
    end = time.monotonic() + 30
    while survivors(orphaned) and time.monotonic() < end:
        time.sleep(0.2)
    for folder in (stopped, orphaned):
        assert survivors(folder) == []
        assert (folder / "saved0").exists() and (folder / "saved1").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_stopped_for_forty_seconds_goes_on(rank, tmp_path):
    """MindSpore's own limits are 30 s in a collective (fixed before 2.10) and 30 s for its scheduler."""
    job = launch(MPIRUN, tmp_path, WORKS)
    wait_for(tmp_path / "up0", tmp_path / "up1")
    stopped = int((tmp_path / f"up{rank}").read_text())
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(40)
    os.kill(stopped, signal.SIGCONT)
    assert job.wait(60) == 0, (tmp_path / "output").read_text()


@pytest.mark.slow
def test_msrun_evaluates_as_one_process_does(checkpoint, digits, tmp_path, monkeypatch, capsys):
    common = ["--data_dir", digits, "--ckpt_path", checkpoint, "--batch_size", 16, "--mode", 1]
    assert run_main("validate.py", list(map(str, common)), monkeypatch) == 0
    alone = capsys.readouterr().out
    command = [LAUNCH / "ascend_msrun.sh", ROOT / "validate.py", *common]
    call = {"env": environment(WORKERS="2", PORT=str(launcher._free_port()), LOGS="logs"), "cwd": tmp_path}
    done = subprocess.run(list(map(str, command)), **call, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "logs" / "worker_0.log").read_text().splitlines()[-1] == alone.splitlines()[-1]
    assert "* Acc@1" not in (tmp_path / "logs" / "worker_1.log").read_text()


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({}, 1),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, 4),
        ({"PMI_SIZE": "3"}, 3),
        ({"SLURM_STEP_NUM_TASKS": "8"}, 8),
        ({"SLURM_NTASKS": "8"}, 1),  # the batch script itself, not a step of it
        ({"OMPI_COMM_WORLD_SIZE": "16", "SLURM_STEP_NUM_TASKS": "2"}, 16),  # mpirun's two daemons, started by srun
        ({"MS_WORKER_NUM": "16", "SLURM_STEP_NUM_TASKS": "2"}, 16),  # an msrun on each of two nodes
        ({"PMI_SIZE": ""}, 1),
    ],
    ids=str,
)
def test_ranks_are_counted_under_every_launcher(variables, count, monkeypatch):
    for name in ("MS_WORKER_NUM", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launcher.launched_ranks() == count
    if count > 1:
        with pytest.raises(UserError, match=f"{count} processes were launched, but distributed is False"):
            cluster.start(False, "CPU")


SCRIPT = "train.py --config a\\ b.yaml --distributed True"
DRY_RUNS = [
    ("single_node.sh", {"RANKS": "4"}, f"mpirun -n 4 python {SCRIPT}"),
    ("several_nodes.sh", {"RANKS": "16", "HOSTFILE": "hosts"}, f"mpirun -n 16 --hostfile hosts python {SCRIPT}"),
    ("slurm.sbatch", {}, f"srun --kill-on-bad-exit=1 python {SCRIPT}"),
    ("slurm.sbatch", {"TARGET": "GPU", "SLURM_SUBMIT_DIR": "/a"},
     "srun --kill-on-bad-exit=1 --ntasks-per-node 1 /a/scripts/launch/ascend_msrun.sh train.py --config a\\ b.yaml"),
    ("ascend_msrun.sh", {"NODES": "2", "NODE": "1", "MASTER": "10.0.0.1"},
     "msrun --worker_num=16 --local_worker_num=8 --master_addr=10.0.0.1 --master_port=8118 --join=True "
     f"--log_dir=msrun_log --node_rank=1 {SCRIPT}"),
    ("ascend_mpirun.sh", {},
     "mpirun -n 8 python train.py --config a\\ b.yaml --device_target Ascend --distributed True"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "variables", "expected"), DRY_RUNS, ids=[row[0] for row in DRY_RUNS])
def test_a_launcher_shows_its_command(script, variables, expected, tmp_path):
    (tmp_path / "hosts").write_text("localhost\n")
    command = ["bash", str(LAUNCH / script), "--dry_run", "train.py", "--config", "a b.yaml"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    done = subprocess.run(command, cwd=tmp_path, env={**clean, **variables}, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, expected, "")


def test_a_launcher_without_its_parameters_says_so(tmp_path):
    def refused(*command: str) -> str:
        done = subprocess.run(["bash", *command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2
        return done.stderr

    assert refused(str(LAUNCH / "single_node.sh")) == "error: no script; single_node.sh [--dry_run] train.py ...\n"
    missing = refused(str(LAUNCH / "several_nodes.sh"), "train.py")
    assert missing == "error: HOSTFILE '' is no file; lines: node1 slots=8\n"
