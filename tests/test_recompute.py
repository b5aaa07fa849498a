"""Activations computed again in the backward pass: the same numbers, less memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops
from training_runs import SMALL, arrays, one_block, script, write_images

from mindeit.errors import UserError
from mindeit.kernels import precision
from mindeit.layers.drop_path import share_draws
from mindeit.layers.recompute import recompute_blocks
from mindeit.models.cait import CaiT
from mindeit.models.deit import DeiT
from mindeit.models.registry import build
from mindeit.objectives import CoSub, Distilled, Supervised
from mindeit.objectives.losses import binary_cross_entropy, cross_entropy
from mindeit.runtime import device

__all__ = ["script"]
BATCH, SIZE, CLASSES = 4, 32, 5


def vision_transformer(*, distilled: bool = False, drop_rate: float = 0.0, **sizes: int) -> DeiT:
    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 16, "image_size": SIZE, **sizes}
    return DeiT(distilled=distilled, num_classes=CLASSES, drop_path_rate=0.5, drop_rate=drop_rate, **sizes)


def class_attention_transformer() -> CaiT:
    return CaiT(
        embed_dim=32,
        depth=2,
        num_heads=2,
        patch_size=16,
        init_scale=1.0,
        num_classes=CLASSES,
        image_size=SIZE,
        drop_path_rate=0.5,
        drop_rate=0.0,
    )


def distilled() -> Distilled:
    return Distilled(vision_transformer(distilled=True), build("regnety_mini_32", num_classes=CLASSES), cross_entropy)


OBJECTIVES = {
    "supervised": lambda: Supervised(vision_transformer(), cross_entropy),
    "class attention": lambda: Supervised(class_attention_transformer(), cross_entropy),
    "distilled": distilled,
    "two submodels": lambda: CoSub(vision_transformer(), binary_cross_entropy),
}


class Step(nn.Cell):
    """(images, targets) -> (loss, gradients), in one graph."""

    def __init__(self, objective: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.objective = objective.set_train(True)
        self.weights = ms.ParameterTuple(objective.student.trainable_params())
        self.gradients = ops.value_and_grad(objective, None, self.weights)

    def construct(self, images: Tensor, targets: Tensor) -> tuple[Tensor, tuple]:
        return self.gradients(images, targets)


def gradients(objective: nn.Cell) -> dict[str, np.ndarray]:
    """The loss and each parameter's gradient, on fixed images and draws."""
    rng, rows = np.random.default_rng(1), BATCH * getattr(objective, "views", 1)
    draws = share_draws(objective.student, rows)
    draws(Tensor(rng.random(draws.shape, np.float32)))
    images = Tensor(rng.standard_normal((BATCH, 3, SIZE, SIZE)).astype(np.float32))
    targets = Tensor(np.eye(CLASSES, dtype=np.float32)[:BATCH])
    step = Step(objective)
    loss, grads = step(images, targets)
    return {"loss": loss.asnumpy(), **{one.name: grad.asnumpy() for one, grad in zip(step.weights, grads)}}


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        pytest.param("supervised", "O2", marks=pytest.mark.slow),  # a whole run at O0 has a test below
        pytest.param("distilled", "O0", marks=pytest.mark.slow),
        pytest.param("class attention", "O0", marks=pytest.mark.slow),
        pytest.param("two submodels", "O0", marks=pytest.mark.slow),
    ],
)
def test_loss_and_gradients_are_the_same_bits(kind, level, graph_mode):
    found = []
    for again in (False, True):
        device.seed(5)
        objective = OBJECTIVES[kind]()
        precision.apply(objective.student, level)
        if again:
            recompute_blocks(objective.student)
        found.append(gradients(objective))
    plain, recomputed = found
    assert plain.keys() == recomputed.keys()
    assert [name for name in plain if not np.array_equal(plain[name], recomputed[name])] == []
    assert np.abs(recomputed["blocks.1.mlp.fc1.weight"]).max() > 1e-4


class DroppedRows(nn.Cell):
    """A block whose output tells how many of its six inputs dropout kept, and whose gradient tells the same."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(p=0.5)
        self.weight = Parameter(Tensor(np.ones((6, 1), np.float32)), name="weight")

    def construct(self, x: Tensor) -> Tensor:
        return ops.exp(ops.matmul(self.drop(x), self.weight) * 0.1)


class OfOneBlock(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.CellList([DroppedRows()])

    def construct(self, x: Tensor) -> Tensor:
        return self.blocks[0](x).sum()


def test_dropout_is_not_drawn_again(graph_mode):
    model = OfOneBlock().set_train(True)
    recompute_blocks(model)
    step = ms.value_and_grad(model, None, ms.ParameterTuple(model.trainable_params()))
    counts = set()
    for _ in range(10):
        total, (gradient,) = step(Tensor(np.eye(6, dtype=np.float32)))
        kept = int((gradient.asnumpy() > 0).sum())
        counts.add(kept)
        assert float(total) == pytest.approx(kept * np.exp(0.2) + 6 - kept, rel=1e-5)
    assert len(counts) > 1


def test_a_model_without_blocks_is_refused():
    with pytest.raises(UserError, match="^recompute is True; a RegNet has no blocks to compute again; allowed: False$"):
        recompute_blocks(build("regnety_mini_32", num_classes=CLASSES))


PEAK = """
import sys
import test_recompute
test_recompute.take_a_gradient(again=sys.argv[1] == "again")
lines = open("/proc/self/status").read().splitlines()  # getrusage would count what the parent held when it forked
print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024)
"""


def take_a_gradient(*, again: bool) -> None:
    """Of a model whose activations weigh more than compiling it."""
    ms.set_context(mode=ms.GRAPH_MODE)
    model, rows = vision_transformer(embed_dim=64, depth=6, patch_size=4), 256
    if again:
        recompute_blocks(model)
    step = Step(Supervised(model, cross_entropy))
    images, targets = np.zeros((rows, 3, SIZE, SIZE), np.float32), np.zeros((rows, CLASSES), np.float32)
    step(Tensor(images), Tensor(targets))[0].asnumpy()


def peak(how: str) -> int:
    """MiB of a process that takes one gradient."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
    }
    done = subprocess.run([sys.executable, "-c", PEAK, how], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads memory from /proc")
def test_the_peak_is_lower():
    plain, recomputed = peak("once"), peak("again")
    print(f"{plain} MiB, recomputed {recomputed} MiB")
    assert recomputed < plain - 100


def test_a_run_with_accumulation_ends_with_the_same_weights(script, tmp_path):
    write_images(tmp_path / "images", train=32)
    model = "deit_mini_patch8_32_LS"
    options = (*SMALL, "--model", model, "--data_dir", "images", "--epoch_size", 1, "--gradient_accumulation_steps", 2,
               "--val_while_train", False, "--ema", False)  # fmt: skip
    for folder, again in (("plain", False), ("again", True)):
        with one_block(model):
            code, _, err = script("train", *options, "--recompute", again, "--ckpt_save_dir", folder)
        assert code == 0, err
    plain, again = (arrays(tmp_path / folder / "last.ckpt") for folder in ("plain", "again"))
    assert plain.keys() == again.keys()
    assert [name for name in plain if not np.array_equal(plain[name], again[name])] == []


def test_operator_by_operator_it_is_refused(script):
    code, out, err = script("train", "--dataset", "digits", "--recompute", True, "--mode", "pynative")
    assert (code, out) == (2, "")
    assert "recompute True (command line), mode 1 (command line): only graphs compute again" in err
