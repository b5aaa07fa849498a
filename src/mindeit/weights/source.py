"""Which file weights come from."""

from __future__ import annotations

from mindeit.errors import UserError
from mindeit.files import PathLike
from mindeit.weights.hub import local_path


def weights_file(
    path: PathLike | None, *, pretrained: bool, model: str | None, image_size: int | None = None
) -> str | None:
    """What lies at ``path``, of the Hugging Face hub downloaded; with ``pretrained`` the file of ``model``'s official
    weights; None: neither is asked for."""
    if not pretrained:
        return None if path is None else local_path(path)
    if path is not None or not model:
        raise UserError("pretrained needs a model's name, and no file of weights (--model NAME, without --ckpt_path)")
    from mindeit.weights.pretrained import fetch_pretrained  # MindSpore, which an ONNX file does without

    return str(fetch_pretrained(model, image_size))
