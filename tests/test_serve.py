"""mindeit serve: many requests at once, and bad ones."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from conftest import ROOT
from exported_files import DEIT, export, write_checkpoint
from PIL import Image
from training_runs import one_block

import mindeit

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")


serve = pytest.importorskip("mindeit.cli.serve")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    """Of one block, which is compiled in half the time."""
    with one_block(DEIT):
        return mindeit.Predictor(write_checkpoint(tmp_path_factory.mktemp("model"), DEIT))


@pytest.fixture(autouse=True)
def pillows_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@contextmanager
def running(predictor, **limits):
    """The port of a service."""
    service = serve.Service(predictor, serve.Limits(**limits))
    server = uvicorn.Server(uvicorn.Config(service.app, port=0, log_level="error", backlog=256))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def ask(port: int, body=None, method: str = "POST", path: str = "/classify", **options):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request(method, path, body, **options)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read()), answer.headers


def png(width: int, height: int, levels: int = 255) -> bytes:
    pixels = np.random.default_rng(0).integers(0, levels, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(memory := io.BytesIO(), "PNG")
    return memory.getvalue()


def test_two_hundred_requests_at_once_are_answered(predictor):
    image = png(60, 50)
    with running(predictor) as port, ThreadPoolExecutor(200) as clients:
        answers = list(clients.map(lambda _: ask(port, image), range(200)))
    assert [status for status, _, _ in answers] == [200] * 200
    wanted = [(guess.label, guess.name, guess.score) for guess in predictor.predict(image)]
    for _, found, _ in answers:
        assert [(guess["label"], guess["name"], guess["score"]) for guess in found] == wanted


def test_beyond_the_queue_one_is_told_to_try_again(predictor, monkeypatch):
    arrived, going, image = threading.Semaphore(0), threading.Event(), png(60, 50)
    with running(predictor, queue=3, threads=3) as port, ThreadPoolExecutor(3) as clients:
        monkeypatch.setattr(predictor, "predict", lambda content: arrived.release() or going.wait(60) and [])
        first = [clients.submit(ask, port, image) for _ in range(3)]
        assert all(arrived.acquire(timeout=60) for _ in first)
        status, found, headers = ask(port, image)
        going.set()
        assert (status, found) == (503, {"error": "3 requests are waiting; try again"})
        assert headers["Retry-After"] == "1"
        assert [one.result()[0] for one in first] == [200] * 3
        assert ask(port, image)[0] == 200


def test_a_body_that_does_not_come_ends_its_request(predictor, monkeypatch):
    monkeypatch.setattr(serve, "PATIENCE", 0.2)
    with running(predictor) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
            assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert ask(port, png(60, 50))[0] == 200


BAD = [
    (b"", 400, "the body is empty; it has to be an image (curl --data-binary @bird.jpg)"),
    (b"no image", 400, "cannot read image of 8 bytes: not a"),
    (png(40, 40)[:-40], 400, "cannot read image of "),
    (png(400, 300, levels=1), 400, "decompression bomb?"),
    (bytes(60_000), 413, "more than 0.05 MB"),
    (iter([bytes(30_000)] * 2), 413, "more than 0.05 MB"),  # in chunks, without a Content-Length
]


def test_bad_requests_are_told_and_the_next_is_served(predictor):
    with running(predictor, megabytes=0.05, megapixels=0.1) as port:
        for body, status, message in BAD:
            got, found, _ = ask(port, body)
            assert (got, message in found["error"]) == (status, True), found
        assert ask(port, method="GET")[0] == 405
        assert ask(port, b"x", path="/nothing")[0] == 404
        assert ask(port, png(60, 50))[0] == 200


@pytest.mark.slow
def test_the_script_serves_an_onnx_file_and_leaves_no_process(tmp_path, monkeypatch):
    assert export(monkeypatch, write_checkpoint(tmp_path, DEIT), tmp_path / "model.onnx", "--batch", "1") == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, str(ROOT / "scripts" / "serve.py"), str(tmp_path / "model.onnx"), "--port", str(port)]
    process = subprocess.Popen(words, start_new_session=True)
    end = time.monotonic() + 120
    while True:
        try:
            assert ask(port, png(60, 50))[0] == 200
            break
        except ConnectionRefusedError:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(ConnectionRefusedError):
        ask(port, png(60, 50))
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_health_is_answered(predictor):
    with running(predictor) as port:
        connection = http.client.HTTPConnection("localhost", port, timeout=10)
        connection.request("GET", "/health")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (200, {"model": DEIT, "requests": 0})
