"""The table of all models: shape, native resolution, and what the authors published. Importing it costs nothing.

A family is a file here, with its ``SPECS``, and ``traits``: what the shapes of weights tell of their model, {} where
they are another family's. Accuracies and files are those of facebookresearch/deit. GFLOPs count multiply-adds, as the
papers do; those of models without a file, and their parameters, are counted (`mindeit.summary`).
"""

from __future__ import annotations

from mindeit.models.spec import ModelSpec
from mindeit.models.specs import cait, deit, deit3, patchconvnet, regnet, resmlp

FAMILIES = {
    "deit": deit,
    "regnet": regnet,  # DeiT's teacher
    "deit3": deit3,
    "cait": cait,
    "resmlp": resmlp,
    "patchconvnet": patchconvnet,
}


def _place(row: ModelSpec) -> int:
    """Models of this project, not of the papers, come last: they see 32 pixels, and are trained in minutes."""
    return (row.image_size == 32) + (row.name == "regnety_mini_32")


CATALOGUE = {row.name: row for row in sorted((row for part in FAMILIES.values() for row in part.SPECS), key=_place)}
