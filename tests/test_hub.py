"""Weights of the Hugging Face hub, whose part a server here plays: its addresses of files, and of commits."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from convert_weights import official_state, write_pth

from mindeit.cli import convert
from mindeit.errors import UserError
from mindeit.weights import checkpoint as checkpoints
from mindeit.weights import hub
from mindeit.weights.load import load_weights
from mindeit.weights.source import weights_file

NAME = "deit_mini_patch8_32_LS"
COMMIT = {"main": "a" * 40, "v1": "b" * 40}


class Handler(BaseHTTPRequestHandler):
    """``server.files``: (revision, name) -> content of owner/name; ``server.commits``: what was uploaded."""

    def do_HEAD(self):
        path = re.fullmatch(r"/owner/name/resolve/([^/]+)/(.+)", self.path)
        revision = path and next((name for name, commit in COMMIT.items() if path[1] in (name, commit)), None)
        content = self.server.files.get((revision, path and path[2]))
        if content is None:
            missing = "RepoNotFound" if not path else "EntryNotFound" if revision else "RevisionNotFound"
            return self._answer(b"", status=404, **{"X-Error-Code": missing})
        return self._answer(
            content, ETag=f'"{hashlib.md5(content).hexdigest()}"', **{"X-Repo-Commit": COMMIT[revision]}
        )

    do_GET = do_HEAD

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            return self._json({"url": f"{self.server.address}/owner/name"})
        if self.path.endswith("/preupload/main"):
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self._json({"files": files})
        if self.path == "/api/models/owner/name/commit/main":
            self.server.commits.append([json.loads(line) for line in body.splitlines()])
            return self._json({"commitUrl": f"{self.server.address}/owner/name/commit/1", "commitOid": "c" * 40})
        return self._json({})

    def _json(self, value):
        return self._answer(json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _answer(self, content, status=200, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("hub")
    source = write_pth(place / "a.pth", official_state(NAME, 3, 32))
    for arguments in (["--to_timm", str(place / "folder")], ["--output", str(place / "folder" / "own.ckpt")]):
        with pytest.raises(SystemExit):
            convert.main(["--input", str(source), *arguments])
    return place / "folder"


@pytest.fixture
def server(folder, tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = {("main", path.name): path.read_bytes() for path in folder.iterdir()}
    server.commits = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.address = f"http://127.0.0.1:{server.server_port}"  # which HF_ENDPOINT sets when the package is imported
    files = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + files)
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    hub._download.cache_clear()
    yield server
    server.shutdown()
    server.server_close()


def same(one, other):
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def test_a_repository_of_timms_layout_is_downloaded_and_read(server, folder):
    state, card = load_weights("hf://owner/name")
    assert card.model == NAME and same(state, load_weights(folder)[0])


def test_an_address_names_a_file_or_a_revision(server, folder):
    state, card = load_weights("hf://owner/name/own.ckpt")
    assert same(state, checkpoints.read(folder / "own.ckpt")[0]) and card.num_classes == 3
    server.files = {("v1", name): content for (_, name), content in server.files.items()}
    assert load_weights("hf://owner/name@v1")[1] == card


def test_pickled_weights_are_taken_where_there_are_no_others(server):
    server.files["main", "pytorch_model.bin"] = server.files.pop(("main", "model.safetensors"))
    assert {path.name for path in os.scandir(hub.local_path("hf://owner/name"))} == {"config.json", "pytorch_model.bin"}


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://owner/name/none.ckpt", "hf://owner/name/none.ckpt: cannot get none.ckpt: there is no such file"),
        ("hf://owner/other", "cannot get config.json: there is no such repository, or it is private"),
        ("hf://owner/name@v2", "cannot get config.json: there is no such revision"),
        ("hf://name", "hf://name: allowed: hf://owner/name, hf://owner/name@revision, hf://owner/name/file.ckpt"),
    ],
)
def test_what_is_not_there_is_one_line(server, address, message):
    with pytest.raises(UserError) as error:
        weights_file(address, pretrained=False, model=None)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_without_a_network_the_cache_serves(server, monkeypatch):
    from huggingface_hub import constants

    first = hub.local_path("hf://owner/name")
    server.files = {}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub._download.cache_clear()
    assert hub.local_path("hf://owner/name") == first
    with pytest.raises(UserError, match="the hub is not reached .*, and the cache has no copy"):
        hub.local_path("hf://owner/name/own.ckpt")


def test_a_command_follows_the_variables_of_the_hubs_package(server, run, tmp_path):
    found = run(
        "validate.py",
        *("--show", "--ckpt_path", "hf://owner/name"),
        HF_ENDPOINT=server.address,
        HF_HOME=str(tmp_path / "home"),
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("hf://owner/name: weights, 3.3 MB\nmodel: deit_mini_patch8_32_LS, 32 pixels")


def upload(folder, address):
    with pytest.raises(SystemExit) as ended:
        convert.main(["--input", str(folder / "own.ckpt"), "--to_timm", address])
    return ended.value.code


def test_a_folder_is_uploaded_in_one_commit(server, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    assert upload(folder, "hf://owner/name") == 0
    (head, *entries) = server.commits[0]
    sent = {entry["value"]["path"]: base64.b64decode(entry["value"]["content"]) for entry in entries}
    assert head["value"]["summary"] == "Weights, configuration and card, written by MinDeiT"
    assert sent["config.json"] == (folder / "config.json").read_bytes()
    assert sent["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert b'timm.create_model("hf-hub:owner/name", pretrained=True)' in sent["README.md"]


def test_an_upload_that_cannot_work_is_refused_at_once(server, folder, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert upload(folder, "hf://owner/name") == 2
    assert "uploading needs a token of Hugging Face: set HF_TOKEN, or run hf auth login" in capsys.readouterr().err
    assert upload(folder, "hf://owner/name/x.ckpt") == 2
    assert "names a file; a folder is uploaded, to hf://owner/name" in capsys.readouterr().err


def test_without_the_package_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    hub._download.cache_clear()
    with pytest.raises(UserError, match="which is not installed: pip install huggingface_hub"):
        hub.local_path("hf://owner/name")
