"""A trained model, for evaluation and prediction. An exported ONNX file needs no MindSpore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mindeit.config import Config
from mindeit.errors import UserError
from mindeit.export.exported import Exported, is_exported, open_exported
from mindeit.export.onnx_session import check_for_onnx
from mindeit.factory import environment
from mindeit.predict.predictor import Predictor
from mindeit.weights.source import weights_file

if TYPE_CHECKING:
    from mindeit.predict.predictor import Model
    from mindeit.weights.card import ModelCard


def build_predictor(config: Config, providers: Sequence[str] = ()) -> Predictor:
    """A device is set up where the model needs MindSpore. ``providers``: see `trained_model`."""
    check_for_onnx(trained_file(config), providers)
    if trained_file(config).endswith(".onnx"):
        environment.join(config)
    else:
        environment.start(config)
    return Predictor.of(*trained_model(config, providers))


def trained_model(config: Config, providers: Sequence[str] = ()) -> tuple[Model, ModelCard]:
    """The model in evaluation mode, and its card; an option that contradicts the card is an error.

    ``providers``: on what onnxruntime runs an ONNX file.
    """
    path = trained_file(config)
    check_for_onnx(path, providers)
    asked = {
        "model": config.model.model,
        "num_classes": config.model.num_classes,
        "image_size": config.data.image_size,
        **evaluation_options(config),
    }
    if is_exported(path):
        return _exported(config, path, asked, providers)
    from mindeit.kernels import precision  # MindSpore, which an exported ONNX file does without
    from mindeit.weights.load import load_for_use  # likewise

    model, card = load_for_use(path, use_ema=config.model.use_ema, check=not config.model.no_check, **asked)
    return precision.apply(model, config.run.amp_level).set_train(False), card


def trained_file(config: Config) -> str:
    model = config.model
    path = weights_file(
        model.ckpt_path, pretrained=model.pretrained, model=model.model, image_size=config.data.image_size
    )
    if path is None:
        raise UserError("no weights: give --ckpt_path FILE, or --pretrained True for the official ones")
    return path


def evaluation_options(config: Config) -> dict[str, Any]:
    """The options of how evaluation prepares images, by the names of the card's fields; None: not given."""
    options = {key: getattr(config.data, key) for key in ("crop_pct", "mean", "std", "interpolation")}
    if options["interpolation"] == "random":  # is for training
        options["interpolation"] = "bicubic"
    return options


def _exported(config: Config, path: str, asked: dict[str, Any], providers: Sequence[str]) -> tuple[Exported, ModelCard]:
    if config.run.amp_level != "O0":
        raise UserError(
            f"amp_level is {config.run.amp_level}, but {path} has a precision already (export.py --precision); leave "
            "it out"
        )
    if path.endswith(".onnx") and config.run.device_target != "CPU":
        raise UserError(
            f"device_target is {config.run.device_target}, but onnxruntime runs {path} on the CPU or by --providers; "
            "leave it out"
        )
    stated = {name: value for name, value in asked.items() if value is not None}
    file = open_exported(
        path, stated, use_ema=config.model.use_ema, check=not config.model.no_check, providers=providers
    )
    return file, file.card
