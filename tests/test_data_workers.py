"""How many workers prepare images, and of which kind."""

from __future__ import annotations

import importlib
import os
import sys

import numpy as np
import pytest

from mindeit.config import parse
from mindeit.data import Processes, Threads
from mindeit.data.streams import generator, generators, uniform_draws
from mindeit.errors import UserError
from mindeit.runtime.cluster import Cluster
from mindeit.runtime.launcher import launched_local_ranks

machine = importlib.import_module("mindeit.factory.environment")  # the package shows a function of that name


def chosen(*words: object, ranks: int = 1):
    return machine.data_workers(parse(list(map(str, words)), description=""), Cluster(0, ranks, ranks))


def cores(monkeypatch, machine_has: int, bound_to: int) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: machine_has)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(bound_to)), raising=False)


@pytest.mark.parametrize(
    ("machine_has", "bound_to", "ranks", "expected"),
    [(4, 4, 1, 4), (192, 192, 8, 24), (192, 24, 8, 24), (2, 1, 2, 1), (64, 64, 1, 64), (1, 1, 8, 1), (8, 2, 1, 2)],
)
def test_a_rank_has_a_worker_for_each_of_its_cores(monkeypatch, machine_has, bound_to, ranks, expected):
    cores(monkeypatch, machine_has, bound_to)
    assert chosen(ranks=ranks).ahead == expected


@pytest.mark.skipif(sys.platform != "linux", reason="worker processes need Linux")
def test_more_than_four_workers_are_processes_unless_told_otherwise(monkeypatch):
    cores(monkeypatch, 64, 64)
    assert isinstance(chosen("--num_parallel_workers", 4), Threads)
    assert isinstance(chosen("--num_parallel_workers", 5), Processes) and isinstance(chosen(), Processes)
    assert isinstance(chosen("--num_parallel_workers", 2, "--python_multiprocessing", "True"), Processes)
    assert isinstance(chosen("--python_multiprocessing", "False"), Threads)
    assert chosen("--python_multiprocessing", "False").ahead == 64


def test_without_linux_workers_are_threads_and_asking_for_processes_is_one_line(monkeypatch):
    cores(monkeypatch, 64, 64)
    monkeypatch.setattr("mindeit.data.processes.AVAILABLE", False)
    monkeypatch.setattr("mindeit.factory.environment.AVAILABLE", False)
    assert isinstance(chosen(), Threads)
    with pytest.raises(UserError, match="worker processes need Linux, this is .*python_multiprocessing False"):
        chosen("--python_multiprocessing", "True")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, 1),
        ({"OMPI_COMM_WORLD_SIZE": "16", "OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, 8),
        ({"SLURM_STEP_NUM_TASKS": "12", "SLURM_STEP_TASKS_PER_NODE": "8,4"}, 8),
        ({"SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_TASKS_PER_NODE": "8(x2)"}, 8),
        ({"PMI_SIZE": "4", "MPI_LOCALNRANKS": "2"}, 2),
        ({"MS_WORKER_NUM": "8"}, 8),
    ],
    ids=str,
)
def test_ranks_beside_this_one_are_known_from_the_launcher(monkeypatch, variables, expected):
    for name in list(os.environ):
        if name.startswith(("OMPI_", "SLURM_", "PMI_", "MPI_", "MS_")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched_local_ranks() == expected


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
@pytest.mark.parametrize("stream", ["image", "mixing", "depth"])
def test_generators_set_anew_are_those_made_one_by_one(seed, stream):
    positions = [0, 1, 2, 3843071, 2**32 - 1]
    for position, rng in zip(positions, generators(seed, 299, stream, positions)):
        expected = generator(seed, 299, stream, position)
        assert rng.bit_generator.state == expected.bit_generator.state
        rng.integers(15)  # leaves half a number behind, which the next one must not see
    assert [rng.random() for rng in generators(seed, 0, stream, [5])] == [generator(seed, 0, stream, 5).random()]


def test_a_place_beyond_32_bits_is_refused():
    with pytest.raises(ValueError, match="32 bits"):
        next(generators(0, 0, "image", [2**32]))


def test_draws_of_depth_come_from_their_positions():
    draws = uniform_draws(3, 1, np.array([4, 9]), 5)
    assert draws.dtype == np.float32 and draws.shape == (5, 2)
    assert np.array_equal(draws[:, 1], generator(3, 1, "depth", 9).random(5, np.float32))
    assert uniform_draws(3, 1, np.array([4, 9]), 0).shape == (1, 2)
