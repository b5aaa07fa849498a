"""Order, batches, randomness, bad images and workers of the loaders."""

from __future__ import annotations

import io
import json
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from mindeit.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EvalTransform,
    Mixing,
    Processes,
    Threads,
    TrainTransform,
    WaitTimer,
    batches_per_epoch,
    evaluation_batches,
    training_batches,
)
from mindeit.data.images import Source, decode_rgb
from mindeit.data.sampler import repeated_indices
from mindeit.data.streams import generator
from mindeit.data.transforms import Normalize
from mindeit.errors import UserError

GOLDEN = pathlib.Path(__file__).parent / "golden"
REFERENCE = json.loads((GOLDEN / "data_reference.json").read_text())
ARRAYS = np.load(GOLDEN / "data_mixing_sampler.npz")


class Shades(Source):
    """n images whose pixels and labels tell which one they are; those in ``bad`` cannot be read."""

    def __init__(self, n: int, bad: tuple[int, ...] = ()):
        self.labels, self.class_names, self.bad = np.arange(n, dtype=np.int32), tuple(map(str, range(n))), bad

    def read(self, index: int) -> Image.Image:
        if index in self.bad:
            return decode_rgb(io.BytesIO(b""), self.where(index))
        noise = np.random.default_rng(index).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        return Image.fromarray(noise)

    def where(self, index: int) -> str:
        return f"shade {index}"


WORKERS = [
    None,
    *(
        pytest.param(kind(count), id=f"{kind.__name__}-{count}")
        for kind, counts in ((Threads, (1, 2, 8)), (Processes, (1, 2, 5)))
        for count in counts
    ),
]


def stream(**options) -> list[tuple[np.ndarray, np.ndarray]]:
    settings = {"epoch": 1, "seed": 3, "repeats": 3, **options}
    return list(training_batches(Shades(300), TrainTransform(8), settings.pop("batch_size", 32), **settings))


def equal(one, two) -> bool:
    return len(one) == len(two) and all(np.array_equal(a, b) for x, y in zip(one, two) for a, b in zip(x, y))


# ---------------------------------------------------------------- evaluation
@pytest.mark.parametrize("n", [1, 7, 8, 23])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_each_image_counts_once_over_all_ranks(n, ranks, batch_size):
    loaders = [
        evaluation_batches(Shades(n), EvalTransform(8), batch_size, rank=rank, ranks=ranks) for rank in range(ranks)
    ]
    batches = [batch for loader in loaders for batch in loader]
    assert all(x.shape == (batch_size, 3, 8, 8) and x.dtype == np.float32 and y.dtype == np.int32 for x, y in batches)
    labels = np.concatenate([labels for _, labels in batches])
    assert sorted(labels[labels >= 0].tolist()) == list(range(n))
    assert np.concatenate([loader.indices for loader in loaders]).tolist() == labels[labels >= 0].tolist()
    assert len({len(loader) for loader in loaders}) == 1 and len(batches) == ranks * len(loaders[0])


def test_evaluation_pixels_are_the_transforms_and_padding_is_zero():
    source, transform = Shades(5), EvalTransform(8)
    ((images, labels),) = evaluation_batches(source, transform, 8, workers=Threads(2))
    assert labels.tolist() == [0, 1, 2, 3, 4, -1, -1, -1] and not images[5:].any()
    assert all(np.array_equal(images[i], transform(source.read(i))) for i in range(5))


def test_a_bad_image_in_evaluation_is_named_or_skipped_and_listed():
    with pytest.raises(UserError, match="cannot read image shade 3: the file is empty"):
        list(evaluation_batches(Shades(6, bad=(3,)), EvalTransform(8), 4, workers=Threads(2)))
    batches = evaluation_batches(Shades(6, bad=(0, 3)), EvalTransform(8), 4, workers=Threads(2), skip_bad_images=True)
    for _ in range(2):  # a second pass does not list them twice
        labels = np.concatenate([labels for _, labels in batches])
        assert labels.tolist() == [-1, 1, 2, -1, 4, 5, -1, -1] and batches.skipped == ["shade 0", "shade 3"]
        assert batches.indices.tolist() == [1, 2, 4, 5]


# ---------------------------------------------------------------- uint8
def normalised(levels: np.ndarray) -> np.ndarray:
    """A batch of levels, one image after another."""
    assert levels.dtype == np.uint8
    finish = Normalize(IMAGENET_MEAN, IMAGENET_STD)
    return np.stack([finish(Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))) for image in levels])


@pytest.mark.parametrize("workers", [None, Processes(2)], ids=["in place", "processes"])
def test_uint8_images_of_evaluation_are_the_float32_ones_before_normalising(workers):
    source, transform = Shades(5), EvalTransform(8)
    ((images, labels),) = evaluation_batches(source, transform, 8)
    ((levels, same),) = evaluation_batches(source, transform, 8, workers=workers, uint8=True)
    assert np.array_equal(normalised(levels)[:5], images[:5]) and not levels[5:].any() and np.array_equal(same, labels)


@pytest.mark.parametrize("mix", [None, Mixing(300, mixup=0)], ids=["labels", "CutMix"])
@pytest.mark.parametrize("workers", [None, Processes(2)], ids=["in place", "processes"])
def test_uint8_images_of_training_are_the_float32_ones_before_normalising(mix, workers):
    options = {"epoch": 1, "seed": 3, "mix": mix, "workers": workers}
    as_float32, as_uint8 = (
        list(training_batches(Shades(64), TrainTransform(8, erase_probability=0), 32, uint8=uint8, **options))
        for uint8 in (False, True)
    )
    assert equal(as_float32, [(normalised(levels), targets) for levels, targets in as_uint8])


@pytest.mark.parametrize(("erase", "mix"), [(0.25, None), (0.25, Mixing(300, mixup=0)), (0, Mixing(300))])
def test_erasing_and_mixup_keep_images_float32(erase, mix):
    def batches(uint8: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        transform = TrainTransform(8, erase_probability=erase)
        return list(training_batches(Shades(64), transform, 32, epoch=1, seed=3, mix=mix, uint8=uint8))

    assert batches(True)[0][0].dtype == np.float32
    assert equal(batches(True), batches(False))


# ---------------------------------------------------------------- sampler
@pytest.mark.parametrize("case", REFERENCE["sampler"], ids=lambda case: case["key"].split("/")[1])
def test_repeated_augmentation_follows_the_official_rule(case):
    expected = ARRAYS[case["key"].replace("/", "|")].reshape(case["replicas"], -1)
    if case["shuffle"]:  # any permutation will do; the reference's own follows from what it holds
        torch = pytest.importorskip("torch")
        order = torch.randperm(case["n"], generator=torch.Generator().manual_seed(case["epoch"])).numpy()
    else:
        order = np.arange(case["n"])
    for rank in range(case["replicas"]):
        indices = repeated_indices(case["n"], case["repeats"], case["replicas"], rank, order)
        assert len(indices) == case["len_per_rank"] and np.array_equal(indices, expected[rank])


def test_an_epoch_holds_the_documented_number_of_images():
    labels = np.concatenate([labels for _, labels in stream(batch_size=256)])
    values, counts = np.unique(labels, return_counts=True)
    assert len(labels) == 256 and len(values) == 86 and sorted(counts)[:2] == [1, 3]
    assert batches_per_epoch(1281167, 1024, repeats=3) == 1251
    assert batches_per_epoch(1281167, 128, repeats=3, ranks=8) == 1251


@pytest.mark.parametrize(("n", "batch_size", "ranks"), [(1, 4, 1), (5, 8, 2), (255, 32, 1), (3, 1, 8), (255, 256, 1)])
@pytest.mark.parametrize("repeats", [1, 3])
def test_a_set_smaller_than_256_still_trains(n, batch_size, ranks, repeats):
    for rank in range(ranks):
        batches = training_batches(
            Shades(n), TrainTransform(8), batch_size, epoch=0, seed=0, repeats=repeats, rank=rank, ranks=ranks
        )
        shapes = [images.shape[0] for images, _ in batches]
        assert shapes == [batch_size] * max(1, n // ranks // batch_size)
        assert len(batches) == len(shapes) == batches_per_epoch(n, batch_size, repeats=repeats, ranks=ranks)


def test_without_repeats_every_image_comes_once_and_the_last_batch_may_be_odd():
    batches = stream(repeats=1, drop_last=False)
    assert sorted(np.concatenate([labels for _, labels in batches]).tolist()) == list(range(300))
    assert len(batches[-1][0]) == 300 % 32 and len(stream(repeats=0)) == 9


def test_a_new_epoch_and_a_new_seed_bring_a_new_order():
    first = [labels.tolist() for _, labels in stream()]
    assert first != [labels.tolist() for _, labels in stream(epoch=2)]
    assert first != [labels.tolist() for _, labels in stream(seed=4)]


# ---------------------------------------------------------------- randomness
@pytest.mark.parametrize("workers", WORKERS, ids=str)
def test_the_stream_is_the_same_for_any_workers(workers):
    mix = Mixing(300)
    assert equal(stream(mix=mix), stream(mix=mix, workers=workers))


def test_resuming_in_the_middle_continues_the_same_stream():
    whole, mix = stream(mix=Mixing(300)), Mixing(300)
    for start in (1, 5, 8):
        for workers in (Threads(2), Processes(2)):
            assert equal(whole[start:], stream(mix=mix, start_batch=start, workers=workers))


def test_two_ranks_see_what_one_rank_with_the_doubled_batch_sees():
    doubled = stream(batch_size=64)
    halves = [stream(batch_size=32, rank=rank, ranks=2) for rank in range(2)]
    assert len(doubled) == len(halves[0]) == len(halves[1]) == 4
    for (images, labels), *parts in zip(doubled, *halves):
        for rank, (part, part_labels) in enumerate(parts):
            assert np.array_equal(images[rank::2], part) and np.array_equal(labels[rank::2], part_labels)


def test_repeats_of_a_image_differ():
    images, labels = stream(batch_size=6)[0]
    assert labels[0] == labels[1] == labels[2] != labels[3]
    assert not np.array_equal(images[0], images[1]) and not np.array_equal(images[1], images[2])


def test_generators_of_different_places_are_independent():
    places = [(0, 0, "image", 0), (0, 0, "mixing", 0), (0, 1, "image", 0), (1, 0, "image", 0), (0, 0, "image", 1)]
    assert len({generator(*place).random() for place in places}) == len(places)


def test_mixed_targets_come_with_the_batch():
    images, targets = stream(mix=Mixing(300))[0]
    assert targets.shape == (32, 300) and targets.dtype == images.dtype == np.float32
    assert targets.sum(1) == pytest.approx(np.ones(32), abs=1e-5)


# ---------------------------------------------------------------- bad images, workers
def test_a_bad_image_in_training_is_named_or_replaced_by_the_next():
    source, bad = Shades(40, bad=(7, 8)), {7, 8}
    with pytest.raises(UserError, match="cannot read image shade [78]: the file is empty"):
        list(training_batches(source, TrainTransform(8), 8, epoch=0, seed=0, workers=Threads(2)))
    batches = training_batches(source, TrainTransform(8), 8, epoch=0, seed=0, workers=Threads(2), skip_bad_images=True)
    labels = np.concatenate([labels for _, labels in batches]).tolist()
    assert len(labels) == 40 and not bad & set(labels) and labels.count(9) == 3
    assert sorted(batches.skipped) == ["shade 7", "shade 8"]


def test_a_folder_of_nothing_but_bad_images_ends():
    batches = training_batches(
        Shades(5, bad=tuple(range(5))), TrainTransform(8), 4, epoch=0, seed=0, skip_bad_images=True
    )
    with pytest.raises(UserError, match="100 images in a row cannot be read"):
        list(batches)


def test_leaving_early_stops_the_workers():
    for _ in range(3):
        for _ in training_batches(Shades(300), TrainTransform(8), 8, epoch=0, seed=0, workers=Threads(3)):
            break
    deadline = time.time() + 5
    while any(thread.name.startswith("data") for thread in threading.enumerate()) and time.time() < deadline:
        time.sleep(0.05)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("data")]


FORTY_EPOCHS = """
import json, psutil
from mindeit.data import Threads, TrainTransform, open_source, training_batches
source, transform, process, sizes = open_source("digits", None, "val"), TrainTransform(32), psutil.Process(), []
for epoch in range(40):
    for _ in training_batches(source, transform, 60, epoch=epoch, seed=0, workers=Threads(2), repeats=3):
        pass
    sizes.append(process.memory_info().rss / 2**20)
print(json.dumps(sizes))
"""


def test_memory_stays_flat_over_40_epochs():
    # A process of its own: where other tests had left memory behind, 9 MiB came in one piece now and then.
    sizes = json.loads(subprocess.run([sys.executable, "-c", FORTY_EPOCHS], capture_output=True, check=True).stdout)
    assert np.mean(sizes[-5:]) - np.mean(sizes[5:10]) < 8  # MiB; one epoch's batches take 3.5


def test_importing_the_room_leaves_mindspore_and_torch_alone():
    code = "import sys, mindeit.data; print([m for m in ('mindspore', 'torch', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---------------------------------------------------------------- waiting
def test_the_wait_timer_measures_the_share_of_waiting():
    def slow():
        for number in range(5):
            time.sleep(0.03)
            yield number

    timer, seen = WaitTimer(slow()), []
    for number in timer:
        time.sleep(0.01)
        seen.append(number)
    assert seen == [0, 1, 2, 3, 4] and timer.share == pytest.approx(0.75, abs=0.12)
    assert timer.waited >= 0.15


def test_prefetching_hides_the_work_from_the_reader():
    class Slow(Shades):
        def read(self, index):
            time.sleep(0.002)
            return super().read(index)

    shares = []
    for workers in (None, Threads(2)):
        timer = WaitTimer(training_batches(Slow(64), TrainTransform(8), 8, epoch=0, seed=0, workers=workers))
        for _ in timer:
            time.sleep(0.05)
        shares.append(timer.share)
    assert shares[1] < shares[0]
