"""From images to logits by way of tokens: what the families have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mindspore import Tensor, ops

from mindeit.errors import UserError
from mindeit.models.image_model import ImageModel


class Backbone(ImageModel):
    """Images become tokens, blocks refine them, the first token is classified.

    A family adds ``embed``, ``blocks``, ``norm`` and ``head``.
    """

    tokens_in_blocks = 0  # before those of the patches, in what the blocks see

    def embed(self, images: Tensor) -> Tensor:
        """Images -> what the first block takes, (batch, tokens, dim)."""
        raise NotImplementedError

    def forward_features(self, images: Tensor) -> Tensor:
        """Tokens after the last norm, (batch, tokens, dim)."""
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.finish(x)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        token = features[:, 0]
        return token if pre_logits else self.head(token)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """What the patches are after blocks ``indices``: the last so many, these (from 0; -1 is the last), or all.

        ``NCHW`` gives maps (batch, dim, rows, columns), ``NLC`` (batch, patches, dim); ``norm`` applies the last norm.
        Returns ``(forward_features(images), maps)``, or the maps alone with ``intermediates_only``.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise UserError(f"output_fmt is '{output_fmt}'; allowed: NCHW, NLC")
        wanted = _block_numbers(indices, len(self.blocks))
        x = self.embed(images)
        seen = {}
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in wanted:
                seen[number] = (self.norm(x) if norm else x)[:, self.tokens_in_blocks :]
        maps = [_as_map(seen[number]) if output_fmt == "NCHW" else seen[number] for number in wanted]
        return maps if intermediates_only else (self.finish(x), maps)

    def finish(self, x: Tensor) -> Tensor:
        """What the last block gave -> tokens after the last norm."""
        return self.norm(x)


class Transformer(Backbone):
    """The class token is there from the start, and first of ``extra_tokens`` that come before the patches."""

    extra_tokens = tokens_in_blocks = 1

    def attentions(self, images: Tensor) -> list[Tensor]:
        """Each block's attention weights, (batch, heads, tokens, tokens); a parallel block has twice the heads."""
        x, maps = self.embed(images), []
        for block in self.blocks:
            maps.append(block.weights(x))
            x = block(x)
        return maps


class LateClassTokens(Backbone):
    """The blocks refine patches alone; then class tokens gather from these, which stay as they are (CaiT).

    A family adds ``cls_token`` (1, classes, dim) and ``blocks_token_only``; its ``embed`` gives patches.
    """

    extra_tokens = 1
    blocks_attend = True

    def finish(self, patches: Tensor) -> Tensor:
        """Tokens after the last norm, (batch, classes + patches, dim)."""
        classes = repeated(self.cls_token, patches)
        for block in self.blocks_token_only:
            classes = block(classes, patches)
        # Scaled in float32, the last branch makes halves float32: a GPU joins tensors of one type only.
        return self.norm(ops.concat((classes, patches.astype(classes.dtype)), 1))

    def attentions(self, images: Tensor) -> list[Tensor]:
        """Weights of the blocks that have any: among patches (batch, heads, patches, patches), then those of class
        attention (batch, heads, classes, tokens)."""
        patches, maps = self.embed(images), []
        for block in self.blocks:
            if self.blocks_attend:
                maps.append(block.weights(patches))
            patches = block(patches)
        classes = repeated(self.cls_token, patches)
        for block in self.blocks_token_only:
            maps.append(block.weights(classes, patches))
            classes = block(classes, patches)
        return maps


def repeated(token: Tensor, patches: Tensor) -> Tensor:
    """(1, tokens, dim) for each image of ``patches``, in their type."""
    return ops.broadcast_to(token, (patches.shape[0],) + token.shape[1:]).astype(patches.dtype)


def _block_numbers(indices: int | Sequence[int] | None, depth: int) -> list[int]:
    if indices is None:
        return list(range(depth))
    asked = range(depth - indices, depth) if isinstance(indices, int) else indices
    if not all(-depth <= number < depth for number in asked):
        raise UserError(
            f"indices is {indices}; allowed: a number of last blocks, or which, from {-depth} to {depth - 1}"
        )
    return sorted({number % depth for number in asked})


def _as_map(patches: Tensor) -> Tensor:
    """(batch, patches, dim) of a square -> (batch, dim, rows, columns)."""
    batch, count, dim = patches.shape
    side = math.isqrt(count)
    return ops.reshape(ops.transpose(patches, (0, 2, 1)), (batch, dim, side, side))
