"""Models by their official names: list them, look one up, add one, build one."""

from __future__ import annotations

import fnmatch
import importlib
import re
from typing import TYPE_CHECKING, Any, Callable

from mindeit.errors import UserError, nearest
from mindeit.models.other_names import counterpart, image_size
from mindeit.models.spec import ModelSpec
from mindeit.models.specs import CATALOGUE, FAMILIES
from mindeit.runtime.memory import check_fits

if TYPE_CHECKING:
    from mindspore import nn

    Builder = Callable[..., nn.Cell]

_BUILDERS: dict[str, Builder] = {}  # of families that are not this package's
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


def register_model(spec: ModelSpec, builder: Builder | None = None) -> None:
    """Add a model of one's own: from now on it is built, trained, saved, read and exported by its name.

    Without ``builder`` it is another size of a family of this package, whose arguments ``spec.variant`` holds:

        row = ModelSpec("deit_micro", family="deit", image_size=64, variant={
            "embed_dim": 96, "depth": 4, "num_heads": 3, "patch_size": 8, "distilled": False})
        mindeit.register_model(row)

    ``builder(**spec.variant, num_classes=, image_size=, drop_path_rate=, drop_rate=)`` returns a cell that takes images
    (batch, 3, S, S) and gives logits; `mindeit.ImageModel` is a base for it, `spec.family` a name of one's own. The
    scripts import modules that register models by ``--plugin my_models.py``.
    """
    if not _NAME.fullmatch(spec.name):
        raise UserError(f"model name '{spec.name}'; allowed: letters, digits, and _ . - behind the first")
    if spec.name in CATALOGUE and CATALOGUE[spec.name] != spec:
        raise UserError(f"there is a model '{spec.name}' already; choose another name")
    if builder is None and spec.family not in {*FAMILIES, *_BUILDERS}:
        raise UserError(
            f"model '{spec.name}': unknown family '{spec.family}'{nearest(spec.family, FAMILIES)}; hand in its builder"
        )
    if builder is not None and spec.family in FAMILIES:
        raise UserError(f"model '{spec.name}': '{spec.family}' is a family of mindeit; give yours another name")
    CATALOGUE[spec.name] = spec
    if builder is not None:
        _BUILDERS[spec.family] = builder


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, such as ``"deit_*"``, in the table's order."""
    return fnmatch.filter(CATALOGUE, pattern)


def spec(name: str) -> ModelSpec:
    """The table's row of ``name``; an unknown name is an error that tells the nearest."""
    if name not in CATALOGUE:
        raise UserError(f"unknown model '{name}'{_known_as(name)}; mindeit models shows all")
    return CATALOGUE[name]


def same_architecture(name: str, **changed: Any) -> list[str]:
    """Names of models that differ from ``name`` by resolution, or in what ``changed`` says of its variant."""
    row = spec(name)
    variant = {**row.variant, **{key: value for key, value in changed.items() if key in row.variant}}
    return [
        other.name
        for other in CATALOGUE.values()
        if other.name != name and other.family == row.family and other.variant == variant
    ]


def with_stem(name: str, stem: str) -> str:
    """The name of that model with another stem: ``"hmlp"``, of 3Things, or ``"linear"``."""
    stems = {"linear": False, "hmlp": True}
    if stem not in stems:
        raise UserError(f"stem is '{stem}'; allowed: {' or '.join(stems)}")
    if spec(name).variant.get("hmlp_stem", False) == stems[stem]:
        return name
    known = [row.name for row in CATALOGUE.values() if row.variant.get("hmlp_stem")]
    alternatives = [
        model for model in same_architecture(name, hmlp_stem=stems[stem]) if "hmlp_stem" in spec(model).variant
    ]
    if not alternatives:
        raise UserError(f"{name} has no stem '{stem}'; models that do: {', '.join(known)}")
    return alternatives[0]


def _known_as(name: str) -> str:
    """The name here of a model of other collections, else the nearest name."""
    own = counterpart(name, CATALOGUE)
    size = image_size(name)
    if own is None or (size or 0) % 32:  # a slip of the pen is no other collection's name
        return nearest(name, CATALOGUE, alike=0.8)  # names of two models differ little
    at = f" at image size {size}" if size not in (None, CATALOGUE[own].image_size) else ""
    return f" (here: '{own}'{at})"


def build(
    name: str,
    *,
    num_classes: int = 1000,
    image_size: int | None = None,
    drop_path_rate: float = 0.0,
    drop_rate: float = 0.0,
    in_channels: int = 3,
    **shape: Any,
) -> nn.Cell:
    """A fresh model. ``num_classes=0`` leaves the head out; ``image_size`` None is the model's own; ``shape`` replaces
    what the table says, such as ``depth``."""
    row = spec(name)
    for key in shape:
        if key not in row.variant:
            allowed = ", ".join(row.variant)
            raise UserError(f"{name} has no option '{key}'{nearest(key, row.variant)}; allowed: {allowed}")
    for key, value in (*shape.items(), ("in_channels", in_channels)):
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise UserError(f"{key} is {value}; allowed: 1 and more")
    if num_classes < 0:
        raise UserError(f"num_classes is {num_classes}; allowed: 0 (features) or the number of classes")
    for key, rate in (("drop_path_rate", drop_path_rate), ("drop_rate", drop_rate)):
        if not 0 <= rate < 1:
            raise UserError(f"{key} is {rate}; allowed: at least 0 and less than 1")
    _check_memory(row, num_classes, image_size or 0)
    make = _BUILDERS.get(row.family)
    if make is None:
        make = importlib.import_module(f"mindeit.models.{row.family}").build
    arguments = {
        **row.variant,
        **shape,
        "num_classes": num_classes,
        "drop_path_rate": drop_path_rate,
        "drop_rate": drop_rate,
        "image_size": row.image_size if image_size is None else image_size,
    }
    if in_channels != 3:  # builders of one's own need not know it
        arguments["in_channels"] = in_channels
    model = make(**arguments)
    if row.family in _BUILDERS:
        _complete(model, num_classes=num_classes, image_size=arguments["image_size"], in_channels=in_channels)
    return model


def _complete(model: nn.Cell, **facts: int) -> None:
    """What an `ImageModel` says of itself, said for a cell of one's own that need not be one."""
    for fact, value in {"distilled": False, "token_per_class": False, "extra_tokens": 0, **facts}.items():
        if not hasattr(model, fact):
            setattr(model, fact, value)


def _check_memory(row: ModelSpec, num_classes: int, image_size: int) -> None:
    """The least that a model takes: the weights of its head, one image."""
    width = row.variant.get("embed_dim") or row.variant.get("widths", (1,))[-1]
    check_fits(4 * width * num_classes, f"num_classes is {num_classes}: the head of {row.name}")
    check_fits(4 * 3 * image_size**2, f"image_size is {image_size}: an image")
