"""Folders as timm and the Hugging Face hub have them; ``hf://owner/name[@revision][/file]`` is downloaded."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional
from urllib.parse import unquote

from mindeit.errors import UserError, shorten
from mindeit.files import PathLike, existing_file

SCHEME = "hf://"
_FORM = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([^/@]+))?(?:/(.+))?", re.ASCII)
CONFIG, WEIGHTS = (
    "config.json",
    ("model.safetensors", "pytorch_model.bin"),
)  # the first is what is written, and preferred


@dataclass(frozen=True)
class HubPath:
    """``revision``: a branch, a tag or a commit; ``file`` None: the folder as timm saves it."""

    repo: str
    revision: Optional[str] = None
    file: Optional[str] = None

    @classmethod
    def of(cls, address: str) -> HubPath:
        match = _FORM.fullmatch(address)
        if match is None:
            raise UserError(f"{address}: allowed: hf://owner/name, hf://owner/name@revision, hf://owner/name/file.ckpt")
        return cls(match[1], match[2] and unquote(match[2]), match[3])


def weights_in(path: PathLike) -> Path:
    """``path``, or the file of weights in the folder ``path``."""
    path = Path(path)
    if not os.path.isdir(path):  # False for a name that is too long as well
        return path
    if not (path / CONFIG).is_file():
        raise UserError(
            f"{path}: is a folder without {CONFIG}; allowed: a file of weights, or a folder as timm saves it "
            f"({CONFIG} and {WEIGHTS[0]})"
        )
    found = next((path / name for name in WEIGHTS if (path / name).exists()), None)
    if found is None:
        raise UserError(f"{path}: holds no weights; allowed beside {CONFIG}: {' or '.join(WEIGHTS)}")
    return existing_file(found)


def is_on_hub(path: PathLike) -> bool:
    return os.fspath(path).startswith(SCHEME)


def local_path(path: PathLike) -> str:
    """``path``; of the hub what is downloaded from there, which its package keeps in a cache of its own."""
    return _download(os.fspath(path)) if is_on_hub(path) else os.fspath(path)


@functools.cache  # one command asks several times
def _download(address: str) -> str:
    place, hub = HubPath.of(address), import_hub()
    if place.file:
        return _fetch(hub, place, place.file, address)
    folder = Path(_fetch(hub, place, CONFIG, address)).parent
    try:
        _fetch(hub, place, WEIGHTS[0], address)
    except UserError as error:
        if not isinstance(error.__cause__, hub.errors.EntryNotFoundError):
            raise
        _fetch(hub, place, WEIGHTS[1], address)
    return str(folder)


def import_hub() -> Any:
    try:
        import huggingface_hub.errors  # optional: for the hub alone
    except ImportError:
        raise UserError("hf:// needs huggingface_hub, which is not installed: pip install huggingface_hub") from None
    return huggingface_hub


def _fetch(hub: Any, place: HubPath, file: str, address: str) -> str:
    try:
        return hub.hf_hub_download(place.repo, file, revision=place.revision)
    except Exception as error:  # of its HTTP library too, which differs by version
        raise UserError(f"{address}: cannot get {file}: {_reason(hub, error)}") from error


def _reason(hub: Any, error: Exception) -> str:
    """The first kind that fits; a missing cache entry is a missing entry too."""
    kinds = {
        "GatedRepoError": "access has to be asked for on its page",
        "RepositoryNotFoundError": "there is no such repository, or it is private and HF_TOKEN is not set",
        "RevisionNotFoundError": "there is no such revision",
        "LocalEntryNotFoundError": "the hub is not reached (HF_HUB_OFFLINE, HF_ENDPOINT), and the cache has no copy",
        "EntryNotFoundError": "there is no such file; hf://owner/name/FILE names one",
    }
    known = (words for name, words in kinds.items() if isinstance(error, getattr(hub.errors, name)))
    return next(known, shorten(" ".join(str(error).split()) or type(error).__name__, 200))


def check_upload(address: str) -> None:
    """Fail early: the address of a repository, and a token that may write."""
    place = HubPath.of(address)
    if place.file:
        raise UserError(f"{address}: names a file; a folder is uploaded, to hf://owner/name")
    if not import_hub().get_token():
        raise UserError(f"{address}: uploading needs a token of Hugging Face: set HF_TOKEN, or run hf auth login")


def upload(folder: Path, address: str) -> None:
    """All of ``folder`` in one commit; the repository is made where there is none."""
    place, hub = HubPath.of(address), import_hub()
    try:
        api = hub.HfApi()
        api.create_repo(place.repo, exist_ok=True)
        api.upload_folder(
            repo_id=place.repo,
            folder_path=folder,
            revision=place.revision,
            commit_message="Weights, configuration and card, written by MinDeiT",
        )
    except Exception as error:  # of its HTTP library too, which differs by version
        raise UserError(f"{address}: cannot upload: {_reason(hub, error)}") from error
