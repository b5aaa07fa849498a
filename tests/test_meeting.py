"""Ranks wait for one another over sockets, here as threads of one process."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from training_runs import write_images

from mindeit.cli.validate import Options
from mindeit.config import parse
from mindeit.data import open_source
from mindeit.errors import UserError
from mindeit.factory import agreement
from mindeit.runtime import meeting
from mindeit.runtime.cluster import Cluster, report_late_rank
from mindeit.runtime.meeting import disagreements


class Board:
    """In place of MindSpore's broadcast: what rank 0 passes, the others get."""

    def __init__(self) -> None:
        self.ready = threading.Event()

    def __call__(self, data: bytes) -> bytes:
        if data.strip(b"\0"):
            self.data = data
            self.ready.set()
        assert self.ready.wait(10)
        return self.data


def together(ranks: int, act, board=None) -> list:
    """``act(meeting)`` on every rank: what each returned, or the error."""
    board = board or Board()

    def run(rank: int) -> object:
        try:
            return act(meeting.Meeting(rank, ranks, board, one_machine=True))
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(ranks) as threads:
        return list(threads.map(run, range(ranks)))


def test_rank_0_gets_every_word_in_order_and_the_others_wait_for_it():
    rank_0_may_go, released = threading.Event(), []

    def act(place):
        words = [place.gather(f"rank {place.rank} ".encode() * 100_000)]
        if place.rank == 0:
            assert not rank_0_may_go.wait(0.3)
            assert released == []
        place.release()
        released.append(place.rank)
        place.wait()
        return words

    first, *others = together(3, act)
    assert first == [[f"rank {rank} ".encode() * 100_000 for rank in range(3)]]
    assert others == [[[]], [[]]]


def test_arrays_of_any_size_come_to_rank_0_bit_for_bit():
    arrays = [np.random.default_rng(rank).random((rank, 3)).astype(np.float32) for rank in range(3)]

    def act(place):
        cluster = Cluster(place.rank, 3, 3)
        cluster.__dict__["meeting"] = place
        return cluster.gather(arrays[place.rank])

    first, *others = together(3, act)
    assert all(np.array_equal(one, other) and one.dtype == other.dtype for one, other in zip(first, arrays))
    assert (len(first), others) == (3, [[], []])
    assert Cluster().gather(arrays[1])[0] is arrays[1]


def test_a_rank_that_left_is_named_on_both_sides(monkeypatch):
    monkeypatch.setattr(meeting, "_SECONDS_TO_BE_ENDED", 0)

    def leave(who):
        def act(place):
            if place.rank == who:
                for line in place._connections.values():
                    line._connection.close()
                return "left"
            return place.wait()

        return act

    assert together(2, leave(1)) == ["rank 1 has left; its own output says why", "left"]
    assert together(2, leave(0)) == ["left", "rank 0 has left; its own output says why"]


def test_devices_that_share_nothing_are_told_in_a_line(monkeypatch):
    monkeypatch.setattr(meeting, "_SECONDS_TO_CONNECT", 0.2)

    class Silent(Board):
        def __call__(self, data: bytes) -> bytes:
            return data

    assert together(2, lambda place: place.wait(), Silent())[1] == (
        "rank 1 got no address from rank 0: what the devices broadcast does not arrive"
    )


def test_a_stranger_without_the_key_is_sent_away():
    board = Board()

    class Crowded(Board):
        def __call__(self, data: bytes) -> bytes:
            place = json.loads(board(data))
            with socket.create_connection((place["address"], place["port"])) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\nHost: a-long-name-of-a-host.example\r\n\r\n")
            return board.data

    assert together(2, lambda place: place.wait(), Crowded()) == [None, None]


def test_what_differs_is_named_with_the_ranks():
    values = [{"lr": 0.02, "opt": "sgd", "new": 1}, {"lr": 0.5, "opt": "sgd"}, {"lr": 0.5, "opt": "sgd"}]
    assert disagreements(values) == ["lr is 0.02 on rank 0, 0.5 on rank 1, 2", "new is 1 on rank 0, None on rank 1, 2"]
    assert disagreements(values[1:]) == []


def test_a_rank_that_waited_in_vain_says_so_in_one_line():
    from_mindspore = "\n---\nLaunch kernel failed: Default/update-Update/over_ranks-SumOverRanks/AllReduce-op0\n---"
    with pytest.raises(UserError) as error, report_late_rank(lambda: "run/last.ckpt"):
        raise RuntimeError(from_mindspore)
    assert str(error.value) == (
        "this rank waited in vain for another in a collective: 30 s on CPU before MindSpore 2.10, then "
        "MS_CPU_COMM_OP_TIMEOUT; last good checkpoint: run/last.ckpt"
    )
    with pytest.raises(RuntimeError, match="MatMul"), report_late_rank(str):
        raise RuntimeError("Launch kernel failed: Default/MatMul-op0")


class Compared(Cluster):
    """One of two ranks, with what it would send to the other."""

    def agree(self, values) -> None:
        self.__dict__["values"] = json.loads(json.dumps(values))


def compared(folder: Path, *words: object, weights: Path) -> dict:
    config = parse(
        [*map(str, words), "--data_dir", str(folder), "--distributed", "True"], description="", script=Options
    )
    images = {split: open_source("image_folder", str(folder), split) for split in ("train", "val")}
    cluster = Compared(0, 2, 2)
    agreement.check(config, cluster, images=images, weights={"the student": weights, "the teacher": None})
    return cluster.values


def test_ranks_agree_in_what_the_run_depends_on_and_not_in_where_it_lies(tmp_path):
    one, other = (write_images(tmp_path / name, train=4, val=2) for name in ("node1", "node2"))
    weights = [folder / "start.ckpt" for folder in (one, other)]
    for path in weights:
        path.write_bytes(b"the same")
    here = compared(one, "--num_parallel_workers", 1, weights=weights[0])
    assert here == compared(other, "--ckpt_save_dir", tmp_path, weights=weights[1])
    assert {"lr", "the version of mindspore", "the list of images of train", "the file of the student"} <= set(here)

    (other / "train" / "a" / "00.png").rename(other / "train" / "a" / "renamed.png")
    weights[1].write_bytes(b"another")
    there = compared(other, "--lr", 0.5, "--output", "r.json", weights=weights[1])
    found = [line.split(" is ")[0] for line in disagreements([here, there])]
    assert found == ["lr", "output", "the list of images of train", "the file of the student"]
