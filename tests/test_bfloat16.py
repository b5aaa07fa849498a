"""Products in bfloat16 on CPU. oneDNN has them on every x86, though so slowly on most that a user is refused."""

from __future__ import annotations

import ctypes
import importlib
import re
from contextlib import nullcontext

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from test_native import Doubled, SumOfSquares, block_and_tokens, opened
from training_runs import SMALL, arrays, one_block, train_here, write_images
from zoo import ValueAndGradient

from mindeit.kernels import linear, precision
from mindeit.kernels.native import bfloat16, library, onednn, operators, selftest
from mindeit.layers.weight_init import seeded
from mindeit.models.registry import build
from mindeit.runtime.device import operator_by_operator

AVX2 = 0x07


class Onednn:
    """Says that it runs on a CPU of this instruction set; multiplies as the real one."""

    def __init__(self, instructions: int) -> None:
        self.instructions = instructions
        self.dnnl_gemm_bf16bf16f32 = REAL.dnnl_gemm_bf16bf16f32

    def dnnl_get_effective_cpu_isa(self) -> int:
        return self.instructions


try:
    REAL = onednn.load()
    MISSING = None if hasattr(REAL, "dnnl_gemm_bf16bf16f32") else "has no products in bfloat16"
except OSError as problem:
    MISSING = str(problem)
pytestmark = pytest.mark.skipif(
    MISSING is not None or library.library().path is None, reason=f"no fused operators, or oneDNN: {MISSING}"
)


@pytest.fixture
def on(monkeypatch):
    """``on(instructions)``: what a process on such a CPU finds."""

    library.library()  # tested by all of oneDNN

    def call(instructions: int) -> str | None:
        monkeypatch.setattr(onednn, "load", lambda: Onednn(instructions))
        bfloat16.unavailable.cache_clear()
        return bfloat16.unavailable()

    yield call
    bfloat16.unavailable.cache_clear()


@pytest.fixture
def able(on):
    assert on(bfloat16._WANTED) is None


@pytest.mark.parametrize(
    ("instructions", "reason"),
    [
        (AVX2, "this CPU has no products in bfloat16 (AVX512_BF16 or AMX)"),
        (0x67, "this CPU has no products in bfloat16 (AVX512_BF16 or AMX)"),  # AVX-512 with VNNI
        (0xE7, None),
        (0x3E7, None),  # AMX
    ],
)
def test_the_cpu_decides(on, instructions, reason):
    assert on(instructions) == reason


def test_where_the_operators_are_mindspores_own_the_reason_is_theirs(monkeypatch, on):
    monkeypatch.setattr(bfloat16, "library", lambda: library.Library(None, "MindSpore's own (MINDEIT_NATIVE is 0)"))
    assert on(bfloat16._WANTED) == "its CPU operators are MindSpore's own (MINDEIT_NATIVE is 0)"


@pytest.mark.parametrize("script", ["train", "validate"])
def test_a_user_without_them_gets_one_line_before_any_work(on, script, tmp_path, capsys):
    on(AVX2)
    main = importlib.import_module(f"mindeit.cli.{script}").main
    words = {
        "train": ["--ckpt_save_dir", str(tmp_path / "run")],
        "validate": ["--ckpt_path", str(tmp_path / "none.ckpt")],
    }
    given = ["--amp_level", "bf16", "--dataset", "digits", *words[script]]
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(given))
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: amp_level is bf16, and this CPU has no products in bfloat16 (AVX512_BF16 or AMX); allowed on this CPU: "
        "O0, O2 or O3"
    )
    assert not (tmp_path / "run").exists()


class Product(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.product = operators.bfloat16_product(False)

    def construct(self, rows, weight):
        return self.product(rows, weight)


# The last one fills several panels of AMX, sums in two turns, and leaves edges.
@pytest.mark.parametrize("shape", [(53, 24, 40), (1, 9, 3), (300, 33, 65), (330, 1300, 70)])
def test_products_and_gradients_are_those_of_rounded_numbers(able, mode, shape):
    count, width, out = shape
    draw = np.random.default_rng(0).standard_normal
    rows, weight, dy = (draw(s).astype(np.float32) for s in ((count, width), (out, width), (count, out)))
    x, w, g = (selftest._bfloat16(array).astype(np.float64) for array in (rows, weight, dy))
    product, gradients = ValueAndGradient(Product())(Tensor(rows), Tensor(weight), Tensor(dy))
    for got, wanted in zip((product, *gradients), (x @ w.T, g @ w, g.T @ x)):
        assert np.abs(got.asnumpy() - wanted).max() <= 1e-6 * np.abs(wanted).max()


def test_halves_between_two_bfloat16_numbers_go_to_the_even_one_and_nan_stays(able):
    # CPUs that multiply bfloat16 take what is below 1.2e-38 for 0.
    subnormal = 0 if REAL.dnnl_get_effective_cpu_isa() & bfloat16._WANTED == bfloat16._WANTED else 2.0**-130
    given = np.array([[1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 2.0**-130, np.inf, np.nan]], np.float32).T
    wanted = np.array([1, 1 + 2**-6, -1, subnormal, np.inf, np.nan], np.float32)
    out = np.empty_like(given)
    assert selftest.call(opened(), "bfloat16_product", given, np.ones((1, 1), np.float32), out) == 0
    assert np.array_equal(out[:, 0], wanted, equal_nan=True)
    given.view(np.uint32)[-1] = 0x7FFFFFFF  # rounding up would make it a zero
    assert selftest.call(opened(), "bfloat16_product", given, np.ones((1, 1), np.float32), out) == 0
    assert np.isnan(out[-1, 0])


def test_other_tensors_are_refused(able):
    rows, weight, out = np.ones((3, 8), np.float32), np.ones((5, 8), np.float32), np.ones((3, 5), np.float32)
    wrong = [
        (rows.astype(np.float16), weight, out),
        (rows, weight[:, :7].copy(), out),
        (rows, weight, out[:2]),
        (rows, weight),
    ]
    for tensors in wrong:
        assert selftest.call(opened(), "bfloat16_product", *tensors) == 1
    qkv, mixed = np.ones((1, 3, 3, 2, 8), np.float32), np.ones((1, 3, 15), np.float32)
    assert selftest.call(opened(), "bfloat16_attention", qkv, mixed) == 1


def test_without_onednn_an_operator_ends_in_an_error(able):
    library = opened()
    library.use_bfloat16_gemm(None)
    arrays = np.ones((3, 8), np.float32), np.ones((5, 8), np.float32), np.ones((3, 5), np.float32)
    assert selftest.call(library, "bfloat16_product", *arrays) == (0 if library.uses_amx() else 2)


def test_equal_numbers_of_threads_give_equal_bits(able):
    threads = ctypes.CDLL("libgomp.so.1")
    before = threads.omp_get_max_threads()
    draw = np.random.default_rng(0).standard_normal
    rows, weight, dy = (draw(shape).astype(np.float32) for shape in ((200, 40), (72, 40), (200, 72)))
    try:
        for count in (1, 2, 3):
            threads.omp_set_num_threads(count)
            found = []
            for _ in range(3):
                outputs = np.empty_like(rows), np.empty_like(weight)
                assert selftest.call(opened(), "bfloat16_product_grad", rows, weight, dy, *outputs) == 0
                found.append([output.tobytes() for output in outputs])
            assert found[0] == found[1] == found[2]
    finally:
        threads.omp_set_num_threads(before)


@pytest.mark.parametrize("name", ["deit_mini_distilled_patch8_32", "regnety_mini_32"])
def test_a_models_logits_move_by_the_rounding_alone(able, name):
    """Each product's numbers have eight bits: the logits keep two digits and a half."""

    def logits(level: str) -> np.ndarray:
        with one_block(name) if name.startswith("deit") else nullcontext(), seeded(0):
            model = build(name, num_classes=10, image_size=16).set_train(False)
        return precision.apply(model, level)(images).asnumpy()

    images = Tensor(np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32))
    exact, near = logits("O0"), logits("bf16")
    assert near.dtype == np.float32
    assert 1e-4 < np.abs(near - exact).max() / exact.std() < 3e-2


def test_parameters_and_all_but_the_products_stay_float32(able):
    with one_block("deit_mini_distilled_patch8_32"):
        model = precision.apply(build("deit_mini_distilled_patch8_32", num_classes=10, image_size=16), "bf16")
    stored = precision.storage(model, "bf16")
    assert {str(stored(parameter)) for parameter in model.get_parameters()} == {"Float32"}
    products = [cell for _, cell in model.cells_and_names() if isinstance(cell, linear.FusedProductGelu)]
    assert products and all(cell.matmul.fused is operators.bfloat16_product(False) for cell in products)
    assert not precision.overflows("bf16")


@pytest.mark.parametrize("how", ["training", "keeping nothing", "evaluation"])
def test_graphs_take_a_block_whole_and_it_follows_its_parts(able, how, graph_mode):
    """They round the same numbers but for those that come out differently in their last bit."""
    found = {}
    for whole in (True, False):
        cell, x = block_and_tokens(0.1)
        precision.multiply_in_bfloat16([cell])
        assert cell.as_made
        cell.whole.fuses, cell.whole.keeps = whole, how != "keeping nothing"
        loss, weights = SumOfSquares(cell).set_train(how != "evaluation"), cell.trainable_params()
        with nullcontext() if whole else operator_by_operator():
            value, (dx, dweights) = ms.value_and_grad(loss, 0, weights)(x)
            found[whole] = [array.asnumpy() for array in (cell(x), value, dx, *dweights)]
    gaps = [np.abs(one - other).max() / np.abs(other).max() for one, other in zip(found[True], found[False])]
    assert max(gaps) <= 2e-3 and np.median(gaps) <= 2e-4
    exact = block_and_tokens(0.1)[0].set_train(how != "evaluation")
    with operator_by_operator():
        gap = np.abs(found[False][0] - exact(x).asnumpy()).max() / np.abs(found[False][0]).max()
    assert gap > 20 * max(gaps)  # both round


def test_a_layer_of_somebody_else_s_stays_outside_a_whole_block(able):
    cell, _ = block_and_tokens()
    cell.mlp.fc2 = Doubled(192, 48)
    precision.multiply_in_bfloat16([cell])
    assert not cell.as_made


@pytest.mark.parametrize(("tokens", "width"), [(53, 24), (230, 16), (5, 40)])
def test_attention_and_its_gradient_follow_those_in_float32(able, tokens, width):
    """With AMX; without it they are the same."""
    draw, heads = np.random.default_rng(0).standard_normal, 2
    qkv, dy = (draw(shape).astype(np.float32) for shape in ((2, tokens, 3, heads, width), (2, tokens, heads * width)))
    exchanges = [draw(shape).astype(np.float32) / 2 for shape in ((heads, heads), (heads,), (heads, heads), (heads,))]
    found = {}
    for prefix in ("", "bfloat16_"):
        mixed, dqkv, talked, *dtalked = (
            np.full_like(array, np.nan) for array in (dy, qkv, dy, qkv, *(exchanges[place] for place in (0, 2, 3)))
        )
        assert selftest.call(opened(), f"{prefix}attention", qkv, mixed) == 0
        assert selftest.call(opened(), f"{prefix}attention_grad", qkv, dy, dqkv) == 0
        assert selftest.call(opened(), f"{prefix}talking_heads", qkv, *exchanges, talked) == 0
        assert selftest.call(opened(), f"{prefix}talking_heads_grad", qkv, *exchanges, dy, *dtalked) == 0
        found[prefix] = mixed, dqkv, talked, *dtalked
    for exact, near in zip(found[""], found["bfloat16_"]):
        gap = np.abs(near - exact).max() / np.abs(exact).max()
        assert 1e-4 < gap < selftest.BFLOAT16_TOLERANCE if opened().uses_amx() else gap == 0


def test_a_run_in_it_follows_that_in_float32(able, tmp_path):
    images, shown = write_images(tmp_path / "images", train=16, val=3), {}
    for level in ("O0", "bf16"):
        with one_block():
            shown[level] = train_here(
                *SMALL, "--data_dir", images, "--image_size", 16, "--epoch_size", 1, "--lr", "2e-3", "--mode", 1,
                "--amp_level", level, "--ckpt_save_dir", tmp_path / level,
            )  # fmt: skip
    exact, near = ([float(loss) for loss in re.findall(r"images, loss ([\d.]+)", text)] for text in shown.values())
    assert exact != near == pytest.approx(exact, rel=0.01)
    first, second = (arrays(tmp_path / level / "last.ckpt") for level in ("O0", "bf16"))
    assert {name: (value.dtype, value.shape) for name, value in first.items()} == {
        name: (value.dtype, value.shape) for name, value in second.items()
    }
