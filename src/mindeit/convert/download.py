"""One file over HTTP: resumed where it stopped, checked against the hash in its name, whole or not there at all."""
from __future__ import annotations

import hashlib
import os
import re
import sys
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from mindeit.errors import UserError

_CHUNK = 1 << 20
_TRIES = 4  # a connection that breaks is taken up again this often
_TIMEOUT = 30  # seconds without a byte


def download(url: str, target: Path) -> None:
    """Fetch ``url`` to ``target``, through ``target.part``. The name ends in ``-<hash>``: the start of its SHA-256."""
    part = target.with_name(target.name + ".part")
    resumed = part.exists()
    _fetch(url, part, target)
    if resumed and not has_right_hash(part, target.name):
        part.unlink()  # the old beginning belonged to another file: once more from the start
        _fetch(url, part, target)
    if not has_right_hash(part, target.name):
        part.unlink()
        raise UserError(f"{url} is damaged: its SHA-256 does not begin with {expected_hash(target.name)}; try again")
    os.replace(part, target)


def expected_hash(name: str) -> str:
    """``deit_tiny_patch16_224-a1311bcf.pth`` -> ``a1311bcf``; nothing where the name holds no hash."""
    match = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    return match[1] if match else ""


def has_right_hash(path: Path, name: str) -> bool:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest().startswith(expected_hash(name))


def _fetch(url: str, part: Path, target: Path) -> None:
    """Append to ``part`` until it is complete; what has arrived stays for the next run."""
    reason = ""
    for _ in range(_TRIES):
        try:
            if _append(url, part):
                return
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            break  # the server's answer will be the same
        except urllib.error.URLError as error:
            reason = str(getattr(error.reason, "strerror", None) or error.reason)
            break
        except (HTTPException, OSError) as error:
            reason = str(error) or type(error).__name__
    kept = f"; {part.stat().st_size} bytes are kept, run again to go on" if part.exists() else ""
    raise UserError(f"cannot download {url} ({reason}){kept}; or fetch it elsewhere and put it at {target}")


def _append(url: str, part: Path) -> bool:
    """One request for the bytes still missing; True if ``part`` is complete as far as the server says."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        return True  # nothing lies behind our last byte; the hash decides
    with response:
        if response.status != 206:  # a server that knows no ranges starts over
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        _save(response, part, have, total)
    return total is None or part.stat().st_size >= total


def _save(response, part: Path, have: int, total: int | None) -> None:
    from tqdm import tqdm

    quiet = not sys.stderr.isatty()
    with part.open("ab" if have else "wb") as file, tqdm(
        total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=quiet
    ) as progress:
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            progress.update(len(chunk))
