"""What every model says of itself and does: the base of all families. Names of methods are timm's."""

from __future__ import annotations

from mindspore import Tensor, nn

from mindeit.layers.linear import classifier


class ImageModel(nn.Cell):
    """Images (batch, in_channels, S, S) -> logits (batch, num_classes); features where num_classes is 0.

    ``num_features`` is the width of what the classifier takes, ``extra_tokens`` how many tokens stand before those of
    the patches in ``forward_features``. A family adds ``forward_features``, ``forward_head`` and ``head``.
    """

    distilled = False  # True: logits are a pair in training
    token_per_class = False  # True: the first tokens are one for each class
    extra_tokens = 0

    def __init__(self, *, num_classes: int, image_size: int, num_features: int, in_channels: int) -> None:
        super().__init__()
        self.num_classes, self.image_size = num_classes, image_size
        self.num_features, self.in_channels = num_features, in_channels

    def construct(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """What the head takes, before any pooling."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """``forward_features``' result -> logits; with ``pre_logits`` what the classifier takes, (batch, dim)."""
        raise NotImplementedError

    def get_classifier(self) -> nn.Cell:
        """The last layer; a distilled model has ``head_dist`` as well."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh head of ``num_classes``; 0 leaves features. To be called before the model is compiled."""
        self.num_classes = num_classes
        self.head = classifier(self.num_features, num_classes)
