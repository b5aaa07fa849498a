"""Downloads one file over HTTP: resumes, checks the hash in its name, and writes atomically."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Optional

from tqdm import tqdm

from mindeit import typed
from mindeit.errors import UserError
from mindeit.files import write_json

_CHUNK = 1 << 20
_TRIES = 4  # a connection that breaks is taken up again this often
_TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class _Origin:
    """Which file a partial download belongs to. ``mark`` is the ETag, or the date of the last change."""

    url: str
    mark: Optional[str] = None
    length: Optional[int] = None

    def same(self, other: Optional[_Origin]) -> bool:
        if other is None or self.length != other.length:
            return False
        return self.mark == other.mark if self.mark else self.url == other.url and self.length is not None


class _UnusableResponse(Exception):
    """A response that a retry would not change."""


def download(url: str, target: Path) -> None:
    """Fetch ``url`` to ``target``, through ``target.part``. A name that ends in ``-<hash>`` is checked against it."""
    part = target.with_name(target.name + ".part")
    resumed = part.exists()
    _fetch(url, part, target)
    if resumed and not has_right_hash(part, target.name):
        _discard(part)  # the old beginning belonged to another file: once more from the start
        _fetch(url, part, target)
    if not has_right_hash(part, target.name):
        _discard(part)
        raise UserError(f"{url} is damaged: its SHA-256 does not begin with {expected_hash(target.name)}; try again")
    os.replace(part, target)
    _discard(part)


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
    if not sys.stderr.isatty():  # else a bar tells
        print(f"downloading {url}", file=sys.stderr, flush=True)
    for _ in range(_TRIES):
        try:
            if _append(url, part, target):
                return
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            break  # the server's answer will be the same
        except urllib.error.URLError as error:
            reason = str(getattr(error.reason, "strerror", None) or error.reason)
            break
        except (_UnusableResponse, ValueError) as error:  # of no URL that there is
            reason = str(error)
            break
        except (HTTPException, OSError) as error:
            reason = str(error) or type(error).__name__
    kept = f"; {part.stat().st_size} bytes are kept, run again to go on" if part.exists() else ""
    reason = " ".join(reason.split())
    raise UserError(f"cannot download {url} ({reason}){kept}; or fetch it elsewhere and put it at {target}")


def _append(url: str, part: Path, target: Path) -> bool:
    """One request for the bytes still missing; True if ``part`` is complete as far as the server says."""
    have, origin = _begun(part, target)
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and origin and origin.mark:
        headers["If-Range"] = origin.mark  # else the whole file, if it is another one by now
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        if expected_hash(target.name) or (origin and origin.length == have):
            return True  # nothing lies behind our last byte; the hash decides
        _discard(part)
        return False
    with response:
        found = _origin_of(url, response, have)
        continues = response.status == 206
        if have and origin and not found.same(origin):
            _discard(part)
            if continues:  # the end of another file
                return False
            have = 0
        skip = have if have and origin and not continues else 0  # a server that knows no ranges
        have = have if continues or skip else 0
        write_json(_origin_file(part), asdict(found))
        _save(response, part, have, skip, found.length)
    return found.length is None or part.stat().st_size >= found.length


def _origin_of(url: str, response: HTTPResponse, have: int) -> _Origin:
    """The file that a response belongs to; `_UnusableResponse` if it is not a file."""
    if response.headers.get_content_type() == "text/html":
        raise _UnusableResponse("the answer is an HTML page, not a file")
    length = response.headers.get("Content-Length")
    if length is not None and not re.fullmatch("[0-9]{1,18}", length.strip()):
        raise _UnusableResponse(f"the answer has a Content-Length of {length[:40]!r}")
    whole = None if length is None else int(length)
    if response.status == 206:
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if place and int(place[1]) != have:
            raise _UnusableResponse(f"asked for bytes from {have} on, the answer has those from {place[1]} on")
        whole = int(place[2]) if place and place[2] != "*" else None if whole is None else have + whole
    mark = response.headers.get("ETag")
    usable = mark if mark and not mark.startswith("W/") else response.headers.get("Last-Modified")
    return _Origin(url, usable, whole)


def _begun(part: Path, target: Path) -> tuple[int, Optional[_Origin]]:
    """How much is there of which file. A beginning of unknown origin counts where a hash will tell at the end."""
    have = part.stat().st_size if part.exists() else 0
    try:
        origin = typed.read(_Origin, typed.parse(_origin_file(part).read_bytes(), part), part)
    except (OSError, UserError):
        origin = None
    return (have if origin or expected_hash(target.name) else 0), origin


def _origin_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _discard(part: Path) -> None:
    for path in (part, _origin_file(part)):
        path.unlink(missing_ok=True)


def _save(response: HTTPResponse, part: Path, have: int, skip: int, total: Optional[int]) -> None:
    """Append, but for the first ``skip`` bytes that come; each piece as it comes, so that a break loses none."""
    quiet = not sys.stderr.isatty()
    with (
        part.open("ab" if have else "wb") as file,
        tqdm(total=total, initial=have - skip, unit="B", unit_scale=True, desc=part.stem, disable=quiet) as progress,
    ):
        while chunk := response.read1(_CHUNK):
            file.write(chunk[skip:])
            skip = max(0, skip - len(chunk))
            progress.update(len(chunk))
