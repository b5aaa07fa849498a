from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from convert_weights import TINY, official_state, write_pth

from mindeit import create_model
from mindeit.errors import UserError
from mindeit.models.spec import Published
from mindeit.models.specs import CATALOGUE
from mindeit.models.table import catalog_table
from mindeit.weights import checkpoint, pretrained
from mindeit.weights.download import download, expected_hash
from mindeit.weights.pretrained import cache_folder, fetch_pretrained


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files``; ``ranges`` tells whether it resumes, ``cut_at`` where it hangs up (once each), ``more``
    are headers besides its own, ``tags`` whether files have an ETag, ``stall`` holds until it may go on."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            return self.send_error(404)
        if content == b"round and round":
            self.send_response(302)
            self.send_header("Location", self.path)
            return self.end_headers()
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        if self.headers.get("If-Range") not in (None, tag):
            asked = None
        start = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        headers = {"Content-Length": len(content) - start, **({"ETag": tag} if self.server.tags else {})}
        for name, value in {**headers, **self.server.more}.items():
            self.send_header(name, str(value))
        self.end_headers()
        end = self.server.cut_at.pop(0) if self.server.cut_at else len(content)
        self.wfile.write(content[start:end])
        self.server.stall.wait(20)
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.files, http.requests, http.ranges, http.cut_at, http.more, http.tags = {}, [], True, [], {}, False
        http.stall = threading.Event()
        http.stall.set()
        http.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield http
        http.stall.set()
        http.shutdown()
        thread.join()


@pytest.fixture
def blob(server) -> tuple[str, bytes]:
    """A file on the server: its name ends in its hash."""
    content = np.random.default_rng(0).bytes(300_000)
    name = f"blob-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[name] = content
    return name, content


@pytest.fixture
def cache(tmp_path, monkeypatch, server) -> Path:
    monkeypatch.setenv("MINDEIT_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MINDEIT_URL", server.url + "/")
    return tmp_path / "cache"


@pytest.fixture
def published(server, tmp_path, monkeypatch) -> str:
    """Random weights in the place of the official file of the tiny model."""
    content = write_pth(tmp_path / "made.pth", official_state(TINY)).read_bytes()
    name = f"tiny-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[name] = content
    row = CATALOGUE[TINY]
    monkeypatch.setitem(
        CATALOGUE, TINY, dataclasses.replace(row, published=dataclasses.replace(row.published, file=name))
    )
    return name


def test_file_arrives_whole(server, blob, tmp_path):
    name, content = blob
    download(f"{server.url}/{name}", tmp_path / name)
    assert (tmp_path / name).read_bytes() == content
    assert os.listdir(tmp_path) == [name]


def test_partial_download_is_resumed(server, blob, tmp_path):
    name, content = blob
    (tmp_path / f"{name}.part").write_bytes(content[:100_000])
    download(f"{server.url}/{name}", tmp_path / name)
    assert server.requests == [(f"/{name}", "bytes=100000-")]
    assert (tmp_path / name).read_bytes() == content


def test_server_without_ranges_starts_over(server, blob, tmp_path):
    name, content = blob
    server.ranges = False
    (tmp_path / f"{name}.part").write_bytes(content[:100_000])
    download(f"{server.url}/{name}", tmp_path / name)
    assert len(server.requests) == 1
    assert (tmp_path / name).read_bytes() == content


def test_broken_connection_is_taken_up_where_it_stopped(server, blob, tmp_path):
    name, content = blob
    server.cut_at = [50_000, 120_000]
    download(f"{server.url}/{name}", tmp_path / name)
    assert [asked for _, asked in server.requests] == [None, "bytes=50000-", "bytes=120000-"]
    assert (tmp_path / name).read_bytes() == content


def test_connection_that_keeps_breaking_leaves_what_arrived(server, blob, tmp_path):
    name, content = blob
    server.cut_at = [10_000, 20_000, 30_000, 40_000]
    with pytest.raises(UserError, match=r"the connection broke off\); 40000 bytes are kept, run again to go on"):
        download(f"{server.url}/{name}", tmp_path / name)
    assert (tmp_path / f"{name}.part").read_bytes() == content[:40_000]
    download(f"{server.url}/{name}", tmp_path / name)
    assert (tmp_path / name).read_bytes() == content


def test_complete_part_is_taken(server, blob, tmp_path):
    name, content = blob
    (tmp_path / f"{name}.part").write_bytes(content)
    download(f"{server.url}/{name}", tmp_path / name)
    assert (tmp_path / name).read_bytes() == content


def test_part_of_another_file_is_replaced(server, blob, tmp_path):
    name, content = blob
    (tmp_path / f"{name}.part").write_bytes(b"x" * 1000)
    download(f"{server.url}/{name}", tmp_path / name)
    assert (tmp_path / name).read_bytes() == content


def test_wrong_hash_is_refused_and_nothing_stays(server, tmp_path):
    server.files["blob-00000000.pth"] = b"something else"
    with pytest.raises(UserError, match="is damaged: its SHA-256 does not begin with 00000000"):
        download(f"{server.url}/blob-00000000.pth", tmp_path / "blob-00000000.pth")
    assert os.listdir(tmp_path) == []


def test_unknown_file_is_one_line(server, tmp_path):
    with pytest.raises(UserError, match=r"cannot download .*/a-00000000.pth \(HTTP 404 Not Found\); or fetch it"):
        download(f"{server.url}/a-00000000.pth", tmp_path / "a-00000000.pth")
    assert len(server.requests) == 1


def refused(server, name: str, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        download(f"{server.url}/{name}", folder / name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_stalled_download_keeps_what_came(server, blob, tmp_path, monkeypatch):
    name, content = blob
    monkeypatch.setattr("mindeit.weights.download._TIMEOUT", 0.3)
    monkeypatch.setattr("mindeit.weights.download._TRIES", 1)
    server.cut_at = [50_000]
    server.stall.clear()
    assert "(timed out); 50000 bytes are kept" in refused(server, name, tmp_path)
    assert (tmp_path / f"{name}.part").read_bytes() == content[:50_000]
    server.stall.set()
    download(f"{server.url}/{name}", tmp_path / name)
    assert server.requests[-1] == (f"/{name}", "bytes=50000-")
    assert (tmp_path / name).read_bytes() == content
    assert os.listdir(tmp_path) == [name]


def test_an_html_page_leaves_a_good_beginning_alone(server, blob, tmp_path):
    name, content = blob
    (tmp_path / f"{name}.part").write_bytes(content[:100_000])
    server.files[name], server.ranges, server.more = b"<html>log in</html>", False, {"Content-Type": "text/html"}
    assert "(the answer is an HTML page, not a file); 100000 bytes are kept" in refused(server, name, tmp_path)
    assert len(server.requests) == 1
    assert (tmp_path / f"{name}.part").read_bytes() == content[:100_000]


@pytest.mark.parametrize("length", ["abc", "-5", "9" * 30])
def test_a_length_that_is_none_is_one_line(length, server, blob, tmp_path):
    server.more = {"Content-Length": length}
    assert f"(the answer has a Content-Length of '{length}')" in refused(server, blob[0], tmp_path)


def test_redirections_without_an_end_are_one_line(server, tmp_path):
    server.files["a-00000000.pth"] = b"round and round"
    assert "(HTTP 302 The HTTP server returned a redirect error" in refused(server, "a-00000000.pth", tmp_path)


def test_an_address_that_is_none_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot download nowhere/a.pth \(unknown url type: 'nowhere/a.pth'\)"):
        download("nowhere/a.pth", tmp_path / "a.pth")


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("tags", [True, False])
def test_a_beginning_is_gone_on_with_where_the_server_still_has_that_file(tags, ranges, server, tmp_path):
    """A name without a hash; what tells one file from another is the ETag, else address and length."""
    one, other = (np.random.default_rng(seed).bytes(300_000) for seed in (1, 2))
    server.files["a.pth"], server.tags, server.ranges, server.cut_at = one, tags, ranges, [1000, 2000, 3000, 40_000]
    refused(server, "a.pth", tmp_path)
    assert (tmp_path / "a.pth.part").read_bytes() == one[:40_000]
    server.files["a.pth"] = other if tags else other[:-1]
    download(f"{server.url}/a.pth", tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == server.files["a.pth"]
    assert os.listdir(tmp_path) == ["a.pth"]


def test_a_beginning_of_unknown_origin_is_not_gone_on_with_where_no_hash_can_tell(server, tmp_path):
    server.files["a.pth"] = bytes(1000)
    (tmp_path / "a.pth.part").write_bytes(b"x" * 100)
    download(f"{server.url}/a.pth", tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == bytes(1000)


def test_every_official_name_of_deit_holds_its_hash():
    names = [row.published.file for row in CATALOGUE.values() if row.published and row.family in ("deit", "regnet")]
    assert len(names) == len({expected_hash(name) for name in names}) == 9
    assert expected_hash("deit_tiny_patch16_224-a1311bcf.pth") == "a1311bcf"


def test_first_call_downloads_and_converts_the_others_reuse(server, cache, published):
    path = fetch_pretrained(TINY)
    state, card = checkpoint.read(path)
    assert (path.parent, path.suffix, card.model) == (cache, ".ckpt", TINY)
    assert np.array_equal(state["norm.gamma"], official_state(TINY)["norm.weight"])
    assert fetch_pretrained(TINY) == path
    assert server.requests == [(f"/{published}", None)]


def test_create_model_pretrained_holds_the_downloaded_weights(cache, published):
    model = create_model(TINY, pretrained=True, num_classes=10)
    assert model.head.weight.shape == (10, 192)
    assert np.array_equal(model.norm.gamma.asnumpy(), official_state(TINY)["norm.weight"])


def test_offline_one_line_names_the_address_and_where_to_put_the_file(cache, published, server, monkeypatch):
    content = server.files[published]
    monkeypatch.setenv("MINDEIT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError) as caught:
        fetch_pretrained(TINY)
    assert str(caught.value) == (
        f"cannot download http://127.0.0.1:9/{published} (Connection refused); "
        f"or fetch it elsewhere and put it at {cache / published}"
    )
    (cache / published).write_bytes(content)
    assert fetch_pretrained(TINY).exists()


def test_damaged_file_in_the_cache_is_named(cache, published):
    cache.mkdir()
    (cache / published).write_bytes(b"half a file")
    with pytest.raises(UserError, match=f"{published} is damaged: its SHA-256 .*; delete it"):
        fetch_pretrained(TINY)


def test_a_wrong_file_from_a_mirror_is_thrown_away(cache, server, tmp_path, monkeypatch):
    """No hash in the name tells: what is not the model's weights does not stay."""
    mini, row = "deit_mini_patch8_32_LS", CATALOGUE["deit_mini_patch8_32_LS"]
    monkeypatch.setitem(CATALOGUE, mini, dataclasses.replace(row, published=Published("m.pth", None, None, 0.1, 0.0)))
    right = write_pth(tmp_path / "made.pth", official_state(mini, 5)).read_bytes()
    other = write_pth(tmp_path / "made.pth", official_state("resmlp_mini_patch8_32", 5)).read_bytes()
    for content in (b"<html>sorry</html>", right[:-2000], other):
        server.files["m.pth"] = content
        with pytest.raises(UserError, match=f"m.pth gives no weights of {mini}, what came was thrown away: ") as caught:
            fetch_pretrained(mini)
        assert "\n" not in str(caught.value)
        assert not list(cache.glob("m.*"))
    server.files["m.pth"] = right
    assert checkpoint.read(fetch_pretrained(mini))[1].model == mini


def test_a_file_that_the_user_put_there_is_not_thrown_away(cache, monkeypatch):
    mini, row = "deit_mini_patch8_32_LS", CATALOGUE["deit_mini_patch8_32_LS"]
    monkeypatch.setitem(CATALOGUE, mini, dataclasses.replace(row, published=Published("m.pth", None, None, 0.1, 0.0)))
    cache.mkdir()
    (cache / "m.pth").write_text("mine")
    with pytest.raises(UserError, match="is not a PyTorch file .*; delete .*m.pth if it is not the official file"):
        fetch_pretrained(mini)
    assert (cache / "m.pth").read_text() == "mine"


def test_processes_that_start_together_share_one_download_and_conversion(server, cache, published):
    code = (
        "import dataclasses\n"
        "from mindeit.models.specs import CATALOGUE\n"
        "from mindeit.weights import pretrained\n"
        "convert = pretrained._convert\n"
        "pretrained._convert = lambda *arguments: (print('converting'), convert(*arguments))\n"
        f"row = CATALOGUE['{TINY}']\n"
        f"file = dataclasses.replace(row.published, file='{published}')\n"
        f"CATALOGUE['{TINY}'] = dataclasses.replace(row, published=file)\n"
        f"print(pretrained.fetch_pretrained('{TINY}'))\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = [line for run in runs for line in run.communicate(timeout=120)[0].splitlines()]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted(lines) == sorted(["converting", *[str(fetch_pretrained(TINY))] * 2])
    assert len(server.requests) == 1


def test_cache_that_cannot_be_made_is_one_line(tmp_path, monkeypatch, published):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINDEIT_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot make the cache .* \(MINDEIT_HOME\): Not a directory"):
        fetch_pretrained(TINY)


def test_cache_is_in_the_home_folder_unless_told(monkeypatch):
    monkeypatch.delenv("MINDEIT_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "mindeit"


def test_without_a_mirror_the_authors_address_is_used(monkeypatch):
    monkeypatch.delenv("MINDEIT_URL", raising=False)
    assert pretrained._url(CATALOGUE[TINY].published) == (
        "https://dl.fbaipublicfiles.com/deit/deit_tiny_patch16_224-a1311bcf.pth"
    )


def test_table_shows_every_official_file_with_its_figures():
    lines = catalog_table().splitlines()
    assert len(lines) == 1 + sum(len(row.files) or 1 for row in CATALOGUE.values())
    assert {line.split()[0] for line in lines[1:]} == set(CATALOGUE)
    row = next(line.split() for line in lines if line.startswith("deit_base_distilled_patch16_384"))
    assert row[1:8] == ["384", "87.6", "55.7", "1k", "distilled", "85.22", "97.2"]
    assert row[8].endswith("/deit_base_distilled_patch16_384-d0272ac0.pth")
    assert [line.split()[1:6] for line in lines if line.startswith("deit_base_patch16_LS ")] == [
        ["224", "86.6", "17.5", "1k", "83.80"],
        ["384", "86.9", "55.5", "1k", "85.00"],
        ["224", "86.6", "17.5", "21k", "85.70"],
        ["384", "86.9", "55.5", "21k", "86.70"],
    ]
    assert next(line.split() for line in lines if line.startswith("L60 "))[1:4] == ["224", "176.0", "28.1"]


def test_the_file_of_the_asked_resolution_is_fetched(cache, server, tmp_path, monkeypatch):
    """A checkpoint of PatchConvnet does not tell its resolution: the table does."""
    content = write_pth(tmp_path / "made.pth", official_state("patchconvnet_mini_32", 5)).read_bytes()
    files = [Published(f"{size}.pth", None, None, 0.65, 0.0, size) for size in (32, 48)]
    server.files.update({file.file: content for file in files})
    row = dataclasses.replace(CATALOGUE["patchconvnet_mini_32"], published=files[0], more=(files[1],))
    monkeypatch.setitem(CATALOGUE, row.name, row)
    sizes = {asked: checkpoint.read(fetch_pretrained(row.name, asked))[1].image_size for asked in (None, 32, 48, 64)}
    assert sizes == {None: 32, 32: 32, 48: 48, 64: 32}
