"""Which models timm has too: what it calls them, and what it calls their parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mindeit.models.other_names import counterpart
from mindeit.models.spec import ModelSpec
from mindeit.models.specs import CATALOGUE

# Official name -> timm's, where timm has the model under a name of its own.
ARCHITECTURES = {
    **{f"deit_{size}_patch16_LS": f"deit3_{size}_patch16_224" for size in ("small", "medium", "base", "large")},
    "deit_huge_patch14_LS": "deit3_huge_patch14_224",
    "cait_XXS24_224": "cait_xxs24_224",
    "cait_XXS24": "cait_xxs24_384",
    "cait_XXS36_224": "cait_xxs36_224",
    "cait_XXS36": "cait_xxs36_384",
    "cait_XS24": "cait_xs24_384",
    "cait_S24_224": "cait_s24_224",
    "cait_S24": "cait_s24_384",
    "cait_S36": "cait_s36_384",
    "cait_M36": "cait_m36_384",
    "cait_M48": "cait_m48_448",
    "resmlp_12": "resmlp_12_224",
    "resmlp_24": "resmlp_24_224",
    "resmlp_36": "resmlp_36_224",
    "resmlpB_24": "resmlp_big_24_224",
    "regnety_160": "regnety_160",
}
_DEIT = re.compile(r"deit_(tiny|small|base)_(distilled_)?patch16_(224|384)")  # the same name there
# Another size of an architecture of timm's takes its sizes as arguments; ResMLP's take none.
_SIZES = ("patch_size", "embed_dim", "depth", "num_heads")
_REGNETS = {  # timm derives widths and depths from a slope
    "regnety_mini_32": {"w0": 24, "wa": 40.8, "wm": 2.0, "group_size": 24, "depth": 4}
}
# What a block calls its parts: the official name -> timm's. `parallel`: DeiT III's blocks of two branches.
_PARTS = {
    "deit3": {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"},
    "parallel": {
        "norm1": "attns.0.norm",
        "attn": "attns.0.attn",
        "gamma_1": "attns.0.ls.gamma",
        "norm11": "attns.1.norm",
        "attn1": "attns.1.attn",
        "gamma_1_1": "attns.1.ls.gamma",
        "norm2": "ffns.0.norm",
        "mlp": "ffns.0.mlp",
        "gamma_2": "ffns.0.ls.gamma",
        "norm21": "ffns.1.norm",
        "mlp1": "ffns.1.mlp",
        "gamma_2_1": "ffns.1.ls.gamma",
    },
    "resmlp": {"attn": "linear_tokens", "mlp": "mlp_channels", "gamma_1": "ls1", "gamma_2": "ls2"},
}
_STEMS = {"resmlp": ("patch_embed.", "stem.")}


@dataclass(frozen=True)
class TimmModel:
    """An entry of timm's registry, and the arguments that make it this model."""

    architecture: str
    model_args: Mapping[str, Any] = field(default_factory=dict)


def timm_model(row: ModelSpec) -> TimmModel | None:
    """None: timm has no such model (PatchConvNet, the hMLP stem, a ResMLP of other sizes, models of one's own)."""
    if _DEIT.fullmatch(row.name):
        return TimmModel(row.name)
    if row.name in ARCHITECTURES:
        return TimmModel(ARCHITECTURES[row.name])
    if row.name in _REGNETS:
        return TimmModel("regnety_160", _REGNETS[row.name])
    sizes = {name: row.variant[name] for name in _SIZES if name in row.variant}
    if row.family == "deit":
        return TimmModel(f"deit_tiny_{'distilled_' if row.distilled else ''}patch16_224", sizes)
    if row.family == "cait":
        return TimmModel("cait_xxs24_224", sizes)
    if row.family == "deit3" and not row.variant["hmlp_stem"]:
        return _deit3(row, sizes)
    return None


def _deit3(row: ModelSpec, sizes: Mapping[str, Any]) -> TimmModel:
    """``init_values`` 0 leaves LayerScale out."""
    scaled, patches_alone = bool(row.variant["init_scale"]), {"no_embed_class": True}
    if row.variant["parallel"]:
        scale = {} if scaled else {"init_values": 0}
        return TimmModel("vit_small_patch16_18x2_224", {**sizes, **patches_alone, **scale})
    if scaled:
        return TimmModel("deit3_small_patch16_224", sizes)
    return TimmModel("deit_small_patch16_224", {**sizes, **patches_alone})


def models_of(architecture: str) -> list[ModelSpec]:
    """Models here that timm builds by this name, at any resolution; the shapes of weights tell them apart."""
    known = {row.name: row for row in CATALOGUE.values() if timm_model(row)}
    own = counterpart(architecture, known)
    found = [known[own]] if own else []
    plain = architecture.split(".")[0]  # the rest is the tag of its weights
    more = [row for row in known.values() if row.name != own and _architecture(row) == plain]
    return found + more


def _architecture(row: ModelSpec) -> str:
    found = timm_model(row)
    return found.architecture if found else ""


def timm_name(row: ModelSpec, name: str) -> str:
    """What timm calls a parameter of that official name."""
    return _renamed(row, name, back=False)


def official_name(row: ModelSpec, name: str) -> str:
    """The official name of what timm calls ``name``; others stay, to be reported by the strict check."""
    return _renamed(row, name, back=True)


def _renamed(row: ModelSpec, name: str, back: bool) -> str:
    kind = "parallel" if row.variant.get("parallel") else row.family
    before, after = _STEMS.get(kind, ("", ""))[:: -1 if back else 1]
    if before and name.startswith(before):
        return after + name[len(before) :]
    block = re.match(r"blocks\.\d+\.", name)
    if not block:
        return name
    rest = name[block.end() :]
    for official, theirs in _PARTS.get(kind, {}).items():
        old, new = (theirs, official) if back else (official, theirs)
        if rest == old or rest.startswith(f"{old}."):
            return block[0] + new + rest[len(old) :]
    return name
