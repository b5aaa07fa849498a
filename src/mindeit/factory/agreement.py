"""What must be equal on all ranks, compared before they start: otherwise each would train a different model."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

import mindeit
from mindeit.files import PathLike, existing_file
from mindeit.weights.hub import weights_in

if TYPE_CHECKING:
    from mindeit.config import Config
    from mindeit.data import Source
    from mindeit.runtime.cluster import Cluster

_PACKAGES = ("mindspore", "numpy", "pillow")  # what decides numbers, and which images a seed draws
# Places and means of one machine, in which ranks may differ.
_LOCAL = (
    "device_id",
    "num_parallel_workers",
    "python_multiprocessing",
    "data_dir",
    "label_file",
    "split_file",
    "ckpt_path",
    "plugin",
    "teacher_ckpt_path",
    "compile_cache",
    "ckpt_save_dir",
    "resume",
)


def check(
    config: Config, cluster: Cluster, *, images: Mapping[str, Source | None], weights: Mapping[str, PathLike | None]
) -> None:
    """Compare configuration, versions, the lists of ``images`` by split and the files of ``weights`` (None: none).

    One line says what differs, and on which ranks. Random initial weights are not compared: all ranks get rank 0's.
    """
    if cluster.ranks == 1:
        return
    lists = {
        f"the list of images of {split}": f"{len(source)} ({source.digest()[:8]})"
        for split, source in images.items()
        if source is not None
    }
    files = {f"the file of {whose}": _digest(path)[:8] for whose, path in weights.items() if path is not None}
    common = {key: value for key, value in config.flat().items() if key not in _LOCAL}
    own = vars(config.script) if config.script else {}  # what one rank alone is asked for, it would wait for in vain
    cluster.agree({**common, **own, **_versions(), **lists, **files})


def _versions() -> dict[str, str]:
    python = ".".join(platform.python_version_tuple()[:2])
    found = {"Python": python, "mindeit": mindeit.__version__, **{name: version(name) for name in _PACKAGES}}
    return {f"the version of {name}": number for name, number in found.items()}


def _digest(path: PathLike) -> str:
    content = hashlib.sha256()
    with open(existing_file(weights_in(path)), "rb") as file:
        while block := file.read(2**22):
            content.update(block)
    return content.hexdigest()
