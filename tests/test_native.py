"""The fused operators for CPU: built once, checked, exact, and replaced by MindSpore's own where they cannot be had."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from zoo import GradientOf, ValueAndGradient, shallow

import mindeit
from mindeit.kernels import (
    attention,
    bias,
    block,
    convolution,
    depthwise,
    gain,
    gelu,
    heads,
    linear,
    mean,
    norm,
    residual,
)
from mindeit.kernels.export_forms import make_portable
from mindeit.kernels.native import library as native
from mindeit.kernels.native import onednn, operators, selftest
from mindeit.layers.block import TransformerBlock
from mindeit.layers.linear import Linear
from mindeit.layers.residual import Residual
from mindeit.layers.talking_heads import HeadMix, TalkingHeads
from mindeit.layers.weight_init import seeded
from mindeit.runtime.device import operator_by_operator

LIBRARY = native.library()
needs_products = pytest.mark.skipif(not LIBRARY.multiplies, reason="oneDNN does not multiply here")
pytestmark = pytest.mark.skipif(LIBRARY.path is None and not shutil.which("c++"), reason="no C++ compiler here")


@pytest.fixture
def fresh():
    """`library` as in a new process, also afterwards."""
    native.library.cache_clear()
    yield
    native.library.cache_clear()


# -- the operators themselves


class ScaledSum(nn.Cell):
    def construct(self, x, branch, gain, factors):
        return x + branch * gain * ops.reshape(factors, (-1, 1, 1))


def stock_gelu():
    return linear.ProductThenGelu(linear.ProductAndBias(), gelu.ErfGelu())


def stock_attention():
    return attention.StackedAttention(heads.StackedHeads(2), attention.MatmulAttention())


def convolutions(out, kernel, stride, group=1):
    stock = ops.Conv2D(out, kernel, pad_mode="pad", pad=kernel // 2, stride=stride, group=group)
    return lambda: convolution.FusedConvolution(stock, stride), lambda: convolution.PlainConvolution(stock)


FORMS = {
    "norm": (lambda: norm.FusedLayerNorm(1e-6), lambda: norm.ProductLayerNorm(1e-6), ((3, 9, 27), (27,), (27,))),
    "norm of wide rows": (
        lambda: norm.FusedLayerNorm(1e-3),
        lambda: norm.ProductLayerNorm(1e-3),
        ((70, 384),) + ((384,),) * 2,
    ),
    "product and bias": (linear.FusedProductAndBias, linear.ProductAndBias, ((37, 20), (75, 20), (75,))),
    "product and bias of few rows": (linear.FusedProductAndBias, linear.ProductAndBias, ((1, 20), (300, 20), (300,))),
    "product, bias, GELU": (linear.FusedProductGelu, stock_gelu, ((37, 20), (75, 20), (75,))),
    "attention": (lambda: attention.FusedAttention(2), stock_attention, ((2, 53, 144),)),
    "attention of few tokens, odd heads": (lambda: attention.FusedAttention(2), stock_attention, ((3, 5, 66),)),
    "GELU": (gelu.FusedGelu, gelu.ErfGelu, ((3, 5, 27),)),
    "convolution and GELU": (
        lambda: depthwise.FusedDepthwiseGelu(27, 5),
        lambda: depthwise.PlainDepthwiseGelu(27, 5, gelu.ErfGelu()),
        ((3, 25, 27), (27, 1, 3, 3), (27,)),
    ),
    "convolution": (*convolutions(8, 3, 1, group=2), ((3, 6, 9, 6), (8, 3, 3, 3))),
    "pointwise convolution": (*convolutions(8, 1, 1), ((3, 6, 9, 6), (8, 6, 1, 1))),
    "halving convolution": (*convolutions(8, 3, 2), ((3, 6, 9, 6), (8, 6, 3, 3))),
    "halving and pointwise": (*convolutions(8, 1, 2, group=2), ((3, 6, 8, 6), (8, 3, 1, 1))),
    "convolution of one place": (*convolutions(8, 3, 2), ((3, 6, 1, 1), (8, 6, 3, 3))),
    "convolution of some rows at a time": (*convolutions(4, 5, 1), ((2, 9, 40, 41), (4, 9, 5, 5))),
    "halving convolution of some rows at a time": (*convolutions(4, 5, 2), ((2, 9, 79, 81), (4, 9, 5, 5))),
    "mean": (mean.FusedTokenMean, mean.PlainTokenMean, ((3, 7, 27),)),
    "gain by image": (gain.FusedGain, gain.ProductGain, ((3, 7, 27), (3, 1, 27))),
    "residual": (residual.FusedResidual, ScaledSum, ((4, 9, 27), (4, 9, 27), (27,), (4,))),
}


@pytest.mark.parametrize("name", FORMS)
def test_fused_operators_and_their_gradients_are_those_of_the_stock_forms(name, mode):
    make, make_stock, shapes = FORMS[name]
    draw = np.random.default_rng(0).standard_normal
    inputs = [Tensor(draw(shape).astype(np.float32)) for shape in shapes]
    with operator_by_operator():
        wanted = make_stock()(*inputs).asnumpy()
        sensitivity = Tensor(draw(wanted.shape).astype(np.float32))
        stock_gradients = GradientOf(make_stock())(*inputs, sensitivity)
    result, gradients = ValueAndGradient(make())(*inputs, sensitivity)
    assert np.abs(result.asnumpy() - wanted).max() <= 3e-6 * np.abs(wanted).max()
    for place, (gradient, stock_gradient) in enumerate(zip(gradients, stock_gradients)):
        if name == "residual" and place == 3:  # which images are dropped is not learnt
            assert not gradient.asnumpy().any()
            continue
        stock_gradient = stock_gradient.asnumpy()
        assert np.abs(gradient.asnumpy() - stock_gradient).max() <= 5e-6 * np.abs(stock_gradient).max()


@pytest.mark.parametrize("name", [name for name in FORMS if " of " not in name and name != "residual"])
def test_halves_take_the_stock_form(name):
    make, make_stock, shapes = FORMS[name]
    draw = np.random.default_rng(0).standard_normal
    inputs = [Tensor(draw(shape).astype(np.float16)) for shape in shapes]
    assert np.array_equal(make()(*inputs).asnumpy(), make_stock()(*inputs).asnumpy())


@pytest.mark.parametrize("gain", [None, 0.5])
def test_a_residual_drops_whole_images_and_scales_the_others(gain, mode):
    cell = Residual(0.25).set_train(True)
    cell.drop_path.factors = ms.Parameter(np.array([[0, 4 / 3, 0]], np.float32), name="factors")
    x, branch = np.ones((3, 2, 4), np.float32), np.full((3, 2, 4), 3, np.float32)
    by = None if gain is None else ms.Parameter(np.full(4, gain, np.float32), name="gain")
    result = cell(Tensor(x), Tensor(branch), by).asnumpy()
    kept = 1 + 4 * (gain or 1)
    assert np.allclose(result[:, 0, 0], [1, kept, 1])
    assert np.allclose(cell.set_train(False)(Tensor(x), Tensor(branch), by).asnumpy(), 1 + 3 * (gain or 1))


def opened() -> ctypes.CDLL:
    return ctypes.CDLL(str(LIBRARY.path))


def test_wrong_types_and_shapes_are_refused_before_anything_is_written():
    rows, offset, out = np.ones((3, 8), np.float32), np.ones(8, np.float32), np.full((3, 8), 7, np.float32)
    wrong = [
        (rows.astype(np.float16), offset, out),
        (rows.astype(np.float64), offset, out),
        (rows, offset[:7], out),
        (rows, offset.reshape(1, 8), out),
        (rows, offset, out[:2]),
        (rows, offset),
        (rows, offset, out, out),
        (rows.reshape(-1), offset, out),
    ]
    for arrays in wrong:
        assert selftest.call(opened(), "bias_gelu", *arrays) == 1
    assert (out == 7).all()
    assert selftest.call(opened(), "bias_gelu", rows, offset, out) == 0
    images, weight, out = (np.full(shape, 7, np.float32) for shape in ((2, 6, 9, 6), (8, 3, 3, 3), (2, 8, 9, 6)))
    wrong = [
        (images.astype(np.float16), weight, out),
        (images[:, :5].copy(), weight, out),
        (images, weight[:, :, :2, :2].copy(), out),
        (images, weight[:, :, :, :1].copy(), out),
        (images, weight[:7], out),
        (images, weight[:, :0], out),
        (images, weight, out[:, :, :4, :3].copy()),
        (images, weight, out[:, :, :5].copy()),
        (images[:, :, :0], weight, out[:, :, :0]),
        (images, weight, out, out),
    ]
    for arrays in wrong:
        assert selftest.call(opened(), "convolution_1", *arrays) == 1
    assert (out == 7).all()
    assert selftest.call(opened(), "convolution_1", images[:0], weight, out[:0]) == 0


def test_a_step_with_misshapen_tensors_ends_in_an_error(mode):
    class Wrong(nn.Cell):
        def __init__(self):
            super().__init__()
            self.fused = operators.bias_gelu()

        def construct(self, rows, offset):
            return self.fused(rows, offset)

    with pytest.raises(RuntimeError, match="bias_gelu"):
        Wrong()(Tensor(np.zeros((3, 8), np.float32)), Tensor(np.zeros(7, np.float32))).asnumpy()


def test_results_do_not_depend_on_the_number_of_threads():
    threads = ctypes.CDLL("libgomp.so.1")
    before = threads.omp_get_max_threads()
    draw = np.random.default_rng(0).standard_normal
    qkv, dy = (draw(shape).astype(np.float32) for shape in ((2, 53, 3, 2, 24), (2, 53, 48)))
    talks = [inputs for _, inputs, _ in selftest.talking_heads_cases(np.random.default_rng(0))]
    rows, gamma, drows = (draw(shape).astype(np.float32) for shape in ((2000, 40), (40,), (2000, 40)))
    found = []
    try:
        for count in (1, 2, 3, 7):
            threads.omp_set_num_threads(count)
            shapes = dy.shape, qkv.shape, rows.shape, (2, 40)
            mixed, dqkv, dx, sums = (np.empty(shape, np.float32) for shape in shapes)
            assert selftest.call(opened(), "attention_grad", qkv, dy, dqkv) == 0
            assert selftest.call(opened(), "attention", qkv, mixed) == 0
            epsilon = np.array([1e-6], np.float32)
            assert selftest.call(opened(), "layer_norm_grad", rows, gamma, drows, epsilon, dx, sums) == 0
            talked, *dtalked = (np.empty_like(talks[1][place]) for place in (5, 0, 1, 3, 4))
            assert selftest.call(opened(), "talking_heads", *talks[0], talked) == 0
            assert selftest.call(opened(), "talking_heads_grad", *talks[1], *dtalked) == 0
            found.append([output.tobytes() for output in (mixed, dqkv, dx, sums, talked, *dtalked)])
    finally:
        threads.omp_set_num_threads(before)
    assert all(result == found[0] for result in found)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_products_are_the_same_bits_for_the_same_number_of_threads(count):
    threads = ctypes.CDLL("libgomp.so.1")
    before = threads.omp_get_max_threads()
    cases = [*selftest.product_cases(np.random.default_rng(0))]
    products = [(inputs, outputs) for name, inputs, outputs in cases if "convolution" not in name]
    assert all(inputs[0].size * outputs[0].shape[1] >= 1 << 15 for inputs, outputs in products)  # else one takes all
    try:
        threads.omp_set_num_threads(count)
        found = []
        for _ in range(3):
            found.append([])
            for name, inputs, wanted in cases:
                outputs = [np.empty(result.shape, np.float32) for result in wanted]
                assert selftest.call(opened(), name, *inputs, *outputs) == 0
                found[-1] += [output.tobytes() for output in outputs]
        assert found[0] == found[1] == found[2]
        assert selftest.first_wrong(opened(), cases) is None
    finally:
        threads.omp_set_num_threads(before)


@needs_products
@pytest.mark.parametrize("precision", ["", "bfloat16_"])
def test_a_block_s_gradients_are_the_sums_of_those_of_its_images(precision):
    """It takes as many images at a time as a cache holds: all 20, and 40 in two parts."""
    if precision and not opened().uses_amx():
        pytest.skip("without AMX oneDNN adds up as in float32, and slowly")
    random = np.random.default_rng(0)
    *weights, epsilon = next(selftest.block_cases(random, (1, 198, 48), heads=3, hidden=48))[1][1:]
    weights, sizes = weights[:14], ((40, 198, 48), (40,), (40,), (40, 198, 48))
    x, first, second, dy = (random.standard_normal(size).astype(np.float32) for size in sizes)
    kept_shapes = ((198, 3, 3, 16), (198, 48), (198, 48), (198, 48))

    def gradients(images: slice) -> list[np.ndarray]:
        batch = len(x[images])
        inputs = (x[images], *weights, first[images], second[images], epsilon)
        kept = [np.empty((batch, *shape), np.float32) for shape in kept_shapes]
        y = np.empty_like(x[images])
        assert selftest.call(opened(), f"{precision}transformer_block_kept", *inputs, y, *kept) == 0
        grads = [np.full_like(array, np.nan) for array in inputs[:15]]
        assert selftest.call(opened(), f"{precision}transformer_block_grad", dy[images], *inputs, *kept, *grads) == 0
        return grads

    whole, one, other = (gradients(images) for images in (slice(None), slice(0, 20), slice(20, None)))
    for place, (all_of_them, first_part, second_part) in enumerate(zip(whole, one, other)):
        wanted = first_part + second_part if place else np.concatenate([first_part, second_part])
        assert np.abs(all_of_them - wanted).max() <= 2e-6 * np.abs(wanted).max()


def test_a_second_call_takes_no_new_memory_from_the_system():
    """C libraries give pieces of more than 32 MiB back at once, others now and then; clearing them anew takes long."""
    rows, out = np.ones((1, 600_000), np.float32), np.ones(600_000, np.float32)
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        assert selftest.call(opened(), "column_sums", rows, out) == 0
        pages = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before
    assert pages < 500  # of 9,400


def test_what_is_not_a_number_stays_one():
    rows = np.ones((40, 24), np.float32)
    rows[7, 3] = np.nan
    out = np.empty_like(rows)
    assert selftest.call(opened(), "bias_gelu", rows, np.zeros(24, np.float32), out) == 0
    assert np.isnan(out[7, 3]) and np.isfinite(np.delete(out, 7, 0)).all()
    qkv = np.ones((1, 5, 3, 1, 8), np.float32)
    qkv[0, 2, 0] = np.nan  # a query: its own row alone
    mixed = np.empty((1, 5, 8), np.float32)
    assert selftest.call(opened(), "attention", qkv, mixed) == 0
    assert np.isnan(mixed[0, 2]).all() and np.isfinite(np.delete(mixed, 2, 1)).all()


def test_nothing_is_written_beyond_an_output():
    """Whose last vector may be filled in part only."""
    draw = np.random.default_rng(0)
    for name, inputs, wanted in [*selftest.cases(draw), *selftest.product_cases(draw)]:
        wider = [np.full(result.size + 64, 7, np.float32) for result in wanted]
        outputs = [array[32 : 32 + result.size].reshape(result.shape) for array, result in zip(wider, wanted)]
        assert selftest.call(opened(), name, *inputs, *outputs) == 0
        assert all((array[:32] == 7).all() and (array[-32:] == 7).all() for array in wider), name


# -- the whole model


def test_a_model_takes_them_and_gives_the_stock_model_s_logits(monkeypatch, graph_mode):
    def made():
        with seeded(0):
            return shallow("deit_tiny_distilled_patch16_224", 2, num_classes=7, image_size=32).set_train(False)

    images = Tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    fused = made()
    kinds = {type(cell) for _, cell in fused.cells_and_names()}
    parts = {norm.FusedLayerNorm, attention.FusedAttention, linear.FusedProductGelu, residual.FusedResidual}
    assert parts <= kinds
    assert (block.FusedBlock in kinds) == LIBRARY.multiplies
    monkeypatch.setattr(operators, "available", lambda: False)
    stock = made()
    assert not any(type(cell).__name__.startswith("Fused") for _, cell in stock.cells_and_names())
    assert np.abs(fused(images).asnumpy() - stock(images).asnumpy()).max() < 2e-6


def block_and_tokens(init_scale: float | None = None, drop_path: float = 0.0) -> tuple[TransformerBlock, Tensor]:
    with seeded(0):
        cell = TransformerBlock(48, 3, drop_path=drop_path, init_scale=init_scale)
    draw = np.random.default_rng(0).standard_normal
    for parameter in cell.get_parameters():
        parameter.set_data(Tensor(draw(parameter.shape).astype(np.float32)))
    return cell, Tensor(draw((3, 53, 48)).astype(np.float32))


@needs_products
@pytest.mark.parametrize("training", [False, True])
def test_graphs_alone_take_a_block_whole(training):
    cell, x = block_and_tokens()
    seen = []
    cell.mlp.fc1.register_forward_hook(lambda cell, inputs, output: seen.append(output.shape))
    cell.set_train(training)
    wanted = cell(x).asnumpy()  # operator by operator: by its parts
    assert seen == [(3, 53, 192)]
    cell.by_parts = None  # which a graph would need else
    bound = 2e-6 if "AVX-512" in LIBRARY.form else 1e-6  # found: 1.4e-6 with sixteen floats, 0.6e-6 with eight
    assert np.abs(ms.jit(cell)(x).asnumpy() - wanted).max() <= bound * np.abs(wanted).max()


class Doubled(Linear):
    def construct(self, x):
        return 2.0 * super().construct(x)


@needs_products
def test_a_block_with_a_layer_of_somebody_else_s_runs_by_its_parts():
    cell, x = block_and_tokens()
    cell.mlp.fc2 = Doubled(192, 48)  # a Linear, too: it has a weight and a bias
    cell.set_train(False)
    by_graph, by_operator = ms.jit(cell)(x).asnumpy(), cell(x).asnumpy()
    assert np.abs(by_graph - by_operator).max() <= 1e-6 * np.abs(by_operator).max()


class Adapted(nn.Cell):
    """A layer with something beside it (as LoRA has), which has neither weight nor bias itself."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def construct(self, x):
        return self.layer(x) + 1.0


def test_a_projection_in_the_place_of_qkv_is_taken_as_it_is():
    cell, x = block_and_tokens()
    attend = cell.set_train(False).attn
    seen = []
    attend.qkv.register_forward_hook(lambda cell, inputs, output: seen.append(output.asnumpy()))
    wanted = attend(x).asnumpy()
    weight, offset = attend.qkv.weight.asnumpy(), attend.qkv.bias.asnumpy()
    assert np.abs(seen[0] - (x.asnumpy() @ weight.T + offset)).max() <= 1e-5 * np.abs(seen[0]).max()
    same, less = Linear(48, 144), Linear(48, 144)
    for layer, bias_of_it in ((same, offset), (less, offset - 1)):
        layer.weight.set_data(Tensor(weight))
        layer.bias.set_data(Tensor(bias_of_it))
    for layer in (same, Adapted(less)):
        attend.qkv = layer
        for run in (attend, ms.jit(attend)):
            assert np.abs(run(x).asnumpy() - wanted).max() <= 3e-6 * np.abs(wanted).max()


class SumOfSquares(nn.Cell):
    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def construct(self, x):
        return ops.sum(ops.square(self.cell(x)))


@needs_products
@pytest.mark.parametrize("init_scale", [None, 0.1])
@pytest.mark.parametrize("how", ["training", "keeping nothing", "evaluation"])
def test_a_whole_block_and_its_gradients_are_those_of_its_parts(how, init_scale, graph_mode):
    """The parts run one by one: as a graph they are compared with the official code, with whole models."""
    factors = ms.Parameter(np.array([[0, 4 / 3, 4 / 3], [4 / 3, 0, 4 / 3]], np.float32), "factors", requires_grad=False)
    found = {}
    for whole in (True, False):
        cell, x = block_and_tokens(init_scale, drop_path=0.25)  # anew: a compiled cell would not ask again
        for row, path in enumerate((cell.residual1.drop_path, cell.residual2.drop_path)):
            path.factors, path.row = factors, row
        cell.whole.fuses, cell.whole.keeps = whole, how != "keeping nothing"
        loss, weights = SumOfSquares(cell).set_train(how != "evaluation"), cell.trainable_params()
        with nullcontext() if whole else operator_by_operator():
            value, (dx, dweights) = ms.value_and_grad(loss, 0, weights)(x)
            found[whole] = [array.asnumpy() for array in (cell(x), value, dx, *dweights)]
    assert len(weights) == 12 + 2 * (init_scale is not None)
    for one, other in zip(found[True], found[False]):
        assert np.abs(one - other).max() <= 3e-6 * np.abs(other).max()


def talking_heads_and_tokens(num_heads: int) -> tuple[TalkingHeads, Tensor]:
    cell, draw = TalkingHeads(12 * num_heads, num_heads), np.random.default_rng(0).standard_normal
    for parameter in cell.get_parameters():
        parameter.set_data(Tensor(draw(parameter.shape).astype(np.float32) / 2))
    return cell, Tensor(draw((3, 53, 12 * num_heads)).astype(np.float32))


@pytest.mark.parametrize("num_heads", [1, 6])
def test_fused_talking_heads_and_their_gradients_are_those_of_the_parts(num_heads, graph_mode):
    found = {}
    for fused in (True, False):
        cell, x = talking_heads_and_tokens(num_heads)
        assert cell.as_made and cell.whole.fuses
        loss, weights = SumOfSquares(cell).set_train(), cell.trainable_params()
        with nullcontext() if fused else operator_by_operator():
            value, (dx, dweights) = ms.value_and_grad(loss, 0, weights)(x)
            found[fused] = [array.asnumpy() for array in (cell(x), value, dx, *dweights)]
    scale = max(np.abs(gradient).max() for gradient in found[False][3:])
    for name, one, other in zip(("y", "loss", "x", *(weight.name for weight in weights)), found[True], found[False]):
        if name.endswith("proj_l.bias"):  # changes nothing: 0, where the parts leave what rounding does
            assert not one.any() and np.abs(other).max() < 1e-6 * scale
        else:
            assert np.abs(one - other).max() <= 5e-6 * np.abs(other).max(), name


class DoubledMix(HeadMix):
    def construct(self, scores):
        return 2.0 * super().construct(scores)


def test_another_exchange_of_heads_is_taken_as_it_is():
    cell, x = talking_heads_and_tokens(2)
    exchange = DoubledMix(2)
    exchange.weight.set_data(cell.proj_w.weight)
    cell.proj_w = exchange
    by_graph, by_operator = ms.jit(cell)(x).asnumpy(), cell(x).asnumpy()
    assert np.abs(by_graph - by_operator).max() <= 1e-6 * np.abs(by_operator).max()


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "cait_XXS24_224", "S60"])
def test_exported_graphs_hold_none_of_them(name, tmp_path, graph_mode):
    model = shallow(name, 2, num_classes=7, image_size=32).set_train(False)
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    wanted = model(Tensor(images)).asnumpy().copy()
    make_portable(model)
    assert not any(type(cell).__name__.startswith("Fused") for _, cell in model.cells_and_names())
    assert np.abs(model(Tensor(images)).asnumpy() - wanted).max() < 2e-6
    file = tmp_path / "model.mindir"
    ms.export(model, Tensor(images), file_name=str(file), file_format="MINDIR")
    assert b"Custom" not in file.read_bytes()
    program = (
        "import sys, numpy as np, mindspore as ms\n"
        "graph = ms.nn.GraphCell(ms.load(sys.argv[1]))\n"
        "np.save(sys.argv[2], graph(ms.Tensor(np.load(sys.argv[3]))).asnumpy())\n"
    )
    np.save(tmp_path / "images.npy", images)
    paths = [str(file), str(tmp_path / "logits.npy"), str(tmp_path / "images.npy")]
    subprocess.run([sys.executable, "-c", program, *paths], check=True)
    assert np.abs(np.load(tmp_path / "logits.npy") - wanted).max() < 2e-6


@pytest.mark.parametrize(
    ("name", "more"),
    [("patchconvnet_mini_32", {}), ("regnety_mini_32", {}), ("deit_small_patch16_LS", {"depth": 1, "stem": "hmlp"})],
)
def test_sequences_give_them_up_as_well(name, more):
    """They keep a list of their cells besides the named ones."""
    model = mindeit.create_model(name, **more)
    make_portable(model)
    for _, cell in model.cells_and_names():
        assert not type(cell).__name__.startswith("Fused")
        if isinstance(cell, nn.SequentialCell):
            assert cell.cell_list == list(cell.name_cells().values())


# -- building and fallback


def test_a_variable_turns_them_off_without_a_word(monkeypatch, fresh, capsys):
    monkeypatch.setenv("MINDEIT_NATIVE", "0")
    assert native.library() == native.Library(None, "MindSpore's own (MINDEIT_NATIVE is 0)")
    assert capsys.readouterr().err == ""
    assert type(norm.choose(1e-6)) is norm.ProductLayerNorm
    assert type(bias.choose()) is bias.ProductBiasAdd


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("CXX", "no-such-compiler", "there is no C++ compiler (no-such-compiler)"),
        ("CXX", "false", "/false, asked about this CPU, ended in: "),
        ("CXXFLAGS", "-march=x86-64", "this CPU has none of AVX-512, AVX2, NEON"),
        ("CXXFLAGS", "-DCHUNKS=", "compiling, ended in: "),
        ("MINDEIT_HOME", "/proc/nowhere", "/proc/nowhere/native (MINDEIT_HOME): "),
    ],
)
def test_where_they_cannot_be_built_the_reason_is_said_once(
    variable, value, reason, monkeypatch, tmp_path, fresh, capsys
):
    from mindeit.runtime import log

    monkeypatch.setattr(log._run_log, "begun", True)
    monkeypatch.setenv("MINDEIT_HOME", str(tmp_path))
    monkeypatch.setenv(variable, value)
    assert [native.library().path, native.library().path] == [None, None]
    said = [line for line in capsys.readouterr().err.splitlines() if "which are slower" in line]
    assert len(said) == 1 and said[0].startswith("CPU operators: MindSpore's own, ") and reason in said[0]
    assert not list(tmp_path.glob("native/*.so"))


@pytest.mark.slow
def test_the_form_for_avx512_gives_the_same_numbers_where_vectors_are_shorter(monkeypatch, tmp_path, fresh):
    """The compiler makes two of each. So the form is proven, though not its instructions; `CXXFLAGS=-D__AVX512F__` and
    another MINDEIT_HOME run any test with it."""
    monkeypatch.setenv("MINDEIT_HOME", str(tmp_path))
    monkeypatch.setenv("CXXFLAGS", "-D__AVX512F__")
    found = native.library()
    assert found.form.startswith("fused (AVX-512, ") and found.path is not None and found.multiplies


def test_without_onednn_products_are_mindspores(monkeypatch, fresh):
    def missing(name: str) -> None:
        raise OSError("libdnnl.so: cannot open shared object file")

    monkeypatch.setattr(onednn, "function", missing)
    found = native.library()
    assert found.path == LIBRARY.path and not found.multiplies
    assert found.form == LIBRARY.form.replace("fused", "fused, but for products", 1)
    assert type(linear.choose()) is linear.ProductAndBias
    assert type(linear.FusedProductGelu().matmul) is ops.MatMul


def test_an_operator_that_computes_wrongly_is_not_used(monkeypatch, fresh):
    call = selftest.call

    def spoilt(library, name, *arrays):
        code = call(library, name, *arrays)
        if name == "attention_grad":
            arrays[-1][0] += 1e-3
        return code

    monkeypatch.setattr(selftest, "call", spoilt)
    found = native.library()
    assert found.path is None and found.form.endswith(" computes attention_grad wrongly)")


def test_processes_that_start_together_build_one_library(tmp_path):
    program = (
        "from mindeit.runtime import log; log.begin('start')\n"
        "from mindeit.kernels.native.library import library; print(library().path)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "MINDEIT_HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=200) for process in started]
    paths = {out.strip() for out, _ in outputs}
    assert len(paths) == 1 and Path(paths.pop()).exists()
    assert sum(err.count("compiling the CPU operators, once, into ") for _, err in outputs) == 1
    assert sorted(path.suffix for path in (tmp_path / "native").iterdir()) == [".lock", ".so"]


def test_the_report_on_the_machine_says_which_are_in_use():
    done = subprocess.run([sys.executable, "-m", "mindeit.cli.main", "env"], capture_output=True, text=True)
    assert f"operators on CPU: {LIBRARY.form}" in done.stdout.splitlines()
