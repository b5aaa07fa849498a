"""From pictures to logits by way of tokens: what the families have in common."""
from __future__ import annotations

from mindspore import Tensor, nn, ops


class Backbone(nn.Cell):
    """Pictures become tokens, blocks refine them, the first token is classified.

    A family adds ``embed``, ``blocks``, ``norm`` and ``head``.
    """

    def embed(self, images: Tensor) -> Tensor:
        """Images -> what the first block takes, (batch, tokens, dim)."""
        raise NotImplementedError

    def construct(self, images: Tensor) -> Tensor:
        return self.head(self.forward_features(images)[:, 0])

    def forward_features(self, images: Tensor) -> Tensor:
        """Tokens after the last norm, (batch, tokens, dim)."""
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Transformer(Backbone):
    """The class token is there from the start, and first of ``extra_tokens`` that come before the patches."""

    extra_tokens = 1

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

    def forward_features(self, images: Tensor) -> Tensor:
        """Tokens after the last norm, (batch, classes + patches, dim)."""
        patches = self.embed(images)
        for block in self.blocks:
            patches = block(patches)
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
            if hasattr(block, "weights"):
                maps.append(block.weights(patches))
            patches = block(patches)
        classes = repeated(self.cls_token, patches)
        for block in self.blocks_token_only:
            maps.append(block.weights(classes, patches))
            classes = block(classes, patches)
        return maps


def repeated(token: Tensor, patches: Tensor) -> Tensor:
    """(1, tokens, dim) for each picture of ``patches``, in their type."""
    return ops.broadcast_to(token, (patches.shape[0],) + token.shape[1:]).astype(patches.dtype)
