"""What models of this table are called in timm, MindCV, torchvision and on Hugging Face."""

from __future__ import annotations

import re
from collections.abc import Iterable

# name there (small letters, underscores, without owner and tag) -> name here, in any case
PATTERNS = (
    (r"deit3_(small|medium|base|large)_patch16_\d+(_in\w+)?", r"deit_\1_patch16_LS"),
    (r"deit3_huge_patch14_\d+(_in\w+)?", "deit_huge_patch14_LS"),
    (r"cait_(\w+)_(384|448)", r"cait_\1"),
    (r"resmlp_(12|24|36)(_\w+)?", r"resmlp_\1"),
    (r"resmlp_(big|b)_?24(_\w+)?", "resmlpB_24"),
    (r"vit_(tiny|small|base)_patch16_(224|384)", r"deit_\1_patch16_\2"),
    (r"(vit|deit)_(tiny|small|base)_patch16_\d+", r"deit_\2_patch16_224"),
    (r"vit_b_16(_224)?", "deit_base_patch16_224"),
    (r"vit_b_16_384", "deit_base_patch16_384"),
    (r"regnet_?y_(16gf|160)", "regnety_160"),
    (r"patchconvnet_(\w+)", r"\1"),
    (r"(deit_\w+_patch\d+)", r"\1_224"),
)
_SIZE = re.compile(r"_(\d{3})(_in\w+)?$")


def counterpart(name: str, known: Iterable[str]) -> str | None:
    """``"deit3_base_patch16_384"`` -> ``"deit_base_patch16_LS"``; None for a model that is none of these."""
    plain = _plain(name)
    names = {_plain(own): own for own in known}
    for pattern, here in ((re.escape(plain), r"\g<0>"), *PATTERNS):
        match = re.fullmatch(pattern, plain)
        own = names.get(_plain(match.expand(here))) if match else None
        if own is not None:
            return own
    return None


def image_size(name: str) -> int | None:
    """The resolution that the name ends in."""
    match = _SIZE.search(_plain(name))
    return int(match[1]) if match else None


def _plain(name: str) -> str:
    return name.split("/")[-1].split(".")[0].lower().replace("-", "_")
