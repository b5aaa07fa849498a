"""Folders as timm saves them, ``config.json`` beside ``model.safetensors``: read, and written for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

from mindeit import typed
from mindeit.errors import UserError, nearest, shorten
from mindeit.files import read_json, write_json
from mindeit.models.registry import spec
from mindeit.models.spec import ModelSpec
from mindeit.models.timm_models import ARCHITECTURES, TimmModel, models_of, official_name, timm_model, timm_name
from mindeit.weights.adapt import State
from mindeit.weights.card import ModelCard
from mindeit.weights.hub import CONFIG, WEIGHTS, weights_in
from mindeit.weights.identify import candidates, head_classes, table_image_size
from mindeit.weights.names import split_counters
from mindeit.weights.torch_files import read_official, write_official

OWN = "mindeit"  # entry of config.json for what timm does not know
_CONFIG = {"architecture": str, "num_classes": Optional[int], "model_args": Optional[Mapping[str, Any]]}
_IMAGES = ("mean", "std", "crop_pct", "interpolation")  # the same words in timm's configuration and in our card
_TIMM_DEFAULTS = {"crop_pct": 0.875, "input_size": (3, 224, 224), "crop_mode": "center"}
# Arguments that leave traces in the weights' names and shapes, or matter in training alone.
_SEEN = re.compile(
    "patch_size|embed_dim|depth|no_embed_class|init_values|mlp_ratio|class_token|reg_tokens|qkv_bias|pre_norm|fc_norm|"
    "qk_norm|w0|wa|wm|group_size|se_ratio|in_chans|num_classes|img_size|dynamic_img_size|strict_img_size|weight_init|"
    r"(\w+_)?drop_rate|drop_path_rate"
)


def read(folder: Path) -> tuple[State, ModelCard]:
    """Weights under the official names, and what ``config.json`` says of them."""
    file, where = weights_in(folder), folder / CONFIG
    config = typed.read_fields(_CONFIG, read_json(where), where, needed=("architecture",))
    pretrained = config.get("pretrained_cfg", config)  # older folders have one level
    if not isinstance(pretrained, Mapping):
        raise UserError(f"{where}: pretrained_cfg is {shorten(pretrained)}, allowed: an object")
    architecture, arguments = config["architecture"], config.get("model_args") or {}
    rows = models_of(architecture)
    if not rows:
        known = ARCHITECTURES.values()
        raise UserError(
            f"{where}: architecture is '{shorten(architecture)}'{nearest(architecture, known)}, which MinDeiT lacks; "
            "mindeit models shows what it has"
        )
    state = _official(rows[0], read_official(file))
    row = _model(rows, state, architecture, arguments, file)
    _check_arguments(row, arguments, where)
    state, counters = split_counters(state)
    card = _card(row, state, {**pretrained, **config}, where)
    return state, ModelCard(**{**vars(card), "counters": counters})


def _official(row: ModelSpec, state: State) -> State:
    """ResMLP's affine maps have two axes more in timm."""
    named = {official_name(row, name): array for name, array in state.items()}
    return {name: array.reshape(-1) if _affine(row, name) else array for name, array in named.items()}


def _affine(row: ModelSpec, name: str) -> bool:
    return row.family == "resmlp" and name.endswith((".alpha", ".beta"))


def _model(
    rows: list[ModelSpec], state: State, architecture: str, arguments: Mapping[str, Any], file: Path
) -> ModelSpec:
    shapes = {name: array.shape for name, array in state.items()}
    fitting = [row for row in rows if row in candidates(shapes) and _has_heads(row, arguments)]
    if not fitting:
        heads = f" with {arguments['num_heads']} heads" if "num_heads" in arguments else ""
        raise UserError(
            f"{file}: the weights fit no model here that timm calls '{architecture}'{heads} ({rows[0].name}, ...)"
        )
    size = table_image_size(shapes)
    return next((row for row in fitting if row.image_size == size), fitting[0])


def _has_heads(row: ModelSpec, arguments: Mapping[str, Any]) -> bool:
    """The number of heads leaves no trace in the shapes."""
    if "num_heads" in arguments:
        return row.variant.get("num_heads") == arguments["num_heads"]
    return "num_heads" not in _timm(row).model_args


def _check_arguments(row: ModelSpec, arguments: Mapping[str, Any], where: Path) -> None:
    """What would change the result without a trace in the weights."""
    for name, value in arguments.items():
        if name == "global_pool" and value != _pool(row):
            raise UserError(f"{where}: global_pool is {shorten(value)}, allowed for {row.name}: {_pool(row)}")
        if not (name in ("num_heads", "global_pool") or _SEEN.fullmatch(name)):
            raise UserError(f"{where}: model_args holds {name} ({shorten(value)}), which models here do not have")


def _card(row: ModelSpec, state: State, said: Mapping[str, Any], where: Path) -> ModelCard:
    shapes = {name: array.shape for name, array in state.items()}
    held, said = head_classes(shapes) or 0, {**_TIMM_DEFAULTS, **said}
    if said.get("num_classes") not in (None, held):
        raise UserError(f"{where}: num_classes is {said['num_classes']}, but the weights have a head of {held}")
    if said["crop_mode"] != "center":
        raise UserError(f"{where}: crop_mode is '{shorten(said['crop_mode'])}', allowed: center")
    size = typed.read_fields({"input_size": tuple[int, int, int]}, said, where, needed=())["input_size"]
    if size[0] != 3 or size[1] != size[2]:
        raise UserError(f"{where}: input_size is {list(size)}, allowed: 3 channels of square images")
    own = said.get(OWN) or {}
    values = {
        "model": row.name,
        "num_classes": held,
        "image_size": table_image_size(shapes) or size[1],
        "class_names": _class_names(said.get("label_names") or said.get("labels"), held),
        **{name: said[name] for name in _IMAGES if said.get(name) is not None},
        "temperature": own.get("temperature") if isinstance(own, Mapping) else None,
    }
    return ModelCard.of(values, where)


def _class_names(said: Any, classes: int) -> Any:
    """timm takes a list, or an object of numbers and names, which may have gaps."""
    if isinstance(said, Mapping):
        names = [said.get(str(number)) for number in range(classes)]
        return names if classes and None not in names else None
    return said


def timm_form(name: str) -> TimmModel:
    """What timm calls the model; one line where it has none."""
    found = timm_model(spec(name))
    if found is None:
        raise UserError(f"timm has no model like {name}; --to_timm is for those that it has (docs/weights.md)")
    return found


def _timm(row: ModelSpec) -> TimmModel:
    found = timm_model(row)
    assert found is not None  # `models_of` gives no others
    return found


def _pool(row: ModelSpec) -> str:
    return "avg" if row.family in ("resmlp", "regnet") else "token"


def write(folder: Path, official: State, card: ModelCard) -> None:
    """``official``: weights under the official names, BatchNorm's counters among them."""
    row = spec(card.model)
    named = {
        timm_name(row, name): array.reshape(1, 1, -1) if _affine(row, name) else array
        for name, array in official.items()
    }
    write_official(folder / WEIGHTS[0], named)
    write_json(folder / CONFIG, config_of(card, row, official))


def config_of(card: ModelCard, row: ModelSpec, official: State) -> dict[str, Any]:
    form, size = timm_form(row.name), card.image_size
    first, head = {"resmlp": ("stem.proj", "head"), "regnet": ("stem.conv", "head.fc")}.get(
        row.family, ("patch_embed.proj", "head")
    )
    config: dict[str, Any] = {
        "architecture": form.architecture,
        "num_classes": card.num_classes,
        "num_features": row.variant["widths"][-1] if row.family == "regnet" else row.variant["embed_dim"],
        "global_pool": _pool(row),
    }
    if card.class_names:
        config["label_names"] = list(card.class_names)
    if form.model_args:
        config["model_args"] = dict(form.model_args)
    config["pretrained_cfg"] = {
        "custom_load": False,
        "input_size": [3, size, size],
        "fixed_input_size": row.family != "regnet",
        "crop_mode": "center",
        **{name: value for name, value in asdict(card).items() if name in _IMAGES},
        "num_classes": card.num_classes,
        "pool_size": [-(-size // 32)] * 2 if row.family == "regnet" else None,
        "first_conv": first,
        "classifier": ["head", "head_dist"] if row.distilled else head,
    }
    if card.temperature is not None:
        config[OWN] = {"temperature": card.temperature}
    return config
