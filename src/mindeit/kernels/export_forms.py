"""Plain forms in place of those for one device: for graphs that are exported."""

from __future__ import annotations

from mindspore import nn, ops

from mindeit.kernels import (
    attention,
    block,
    convolution,
    depthwise,
    gain,
    gelu,
    heads,
    linear,
    mean,
    mixing,
    norm,
    residual,
    talking_heads,
)
from mindeit.kernels.fused import ByParts

# What a device's own form becomes. They compute the same; the plain ones keep the batch a free dimension, and are the
# forms that other runtimes know by name.
_PLAIN = {
    heads.StackedHeads: lambda cell: heads.TransposedHeads(cell.num_heads),
    heads.TransposedOnce: lambda cell: heads.TransposedHeads(cell.num_heads),
    attention.FusedAttention: lambda cell: attention.StackedAttention(
        heads.TransposedHeads(cell.num_heads), attention.MatmulAttention()
    ),
    talking_heads.FusedTalkingHeads: lambda cell: ByParts(),
    linear.FusedProductAndBias: lambda cell: linear.ProductAndBias(),
    linear.FusedProductGelu: lambda cell: linear.ProductThenGelu(linear.ProductAndBias(), gelu.ErfGelu()),
    convolution.FusedConvolution: lambda cell: convolution.PlainConvolution(cell.stock),
    depthwise.FusedDepthwiseGelu: lambda cell: cell.plain,
    mixing.FusedMixing: lambda cell: mixing.PlainMixing(),
    mean.FusedTokenMean: lambda cell: mean.PlainTokenMean(),
    gelu.FusedGelu: lambda cell: gelu.ErfGelu(),
    gain.FusedGain: lambda cell: gain.BroadcastGain(),
    block.FusedBlock: lambda cell: ByParts(),
    residual.FusedResidual: lambda cell: residual.PlainResidual(),
    norm.FusedLayerNorm: lambda cell: norm.NativeLayerNorm(cell.plain.rows.epsilon),
    norm.ProductLayerNorm: lambda cell: norm.NativeLayerNorm(cell.rows.epsilon),
    linear.DenseProduct: lambda cell: linear.ProductAndBias(),
    norm.MintLayerNorm: lambda cell: norm.NativeLayerNorm(cell.epsilon),
    attention.FlashAttention: lambda cell: attention.MatmulAttention(),
    attention.GpuSoftmax: lambda cell: attention.Float32Softmax(ops.Softmax(-1)),
    gelu.NativeGelu: lambda cell: gelu.ErfGelu(),
    gelu.ErfcGelu: lambda cell: gelu.ErfGelu(),
    gain.ProductGain: lambda cell: gain.BroadcastGain(),
}


def make_portable(model: nn.Cell) -> None:
    """Replace the kernels inside ``model``; its parameters stay. Set the precision afterwards."""
    for parent in [cell for _, cell in model.cells_and_names()]:
        for place, (name, child) in enumerate(list(parent.name_cells().items())):
            if type(child) not in _PLAIN:
                continue
            plain = _PLAIN[type(child)](child)
            if isinstance(parent, nn.SequentialCell):  # it keeps a list of its cells as well
                parent[place] = plain
            else:
                setattr(parent, name, plain)
