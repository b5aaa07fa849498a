"""`report.html`: what it says of a run, that it needs nothing else, and how a browser takes it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, command
from PIL import Image
from training_runs import STUDENT, few_digits, history, one_block, script, train_here

from mindeit.factory import report as reports
from mindeit.report import charts
from mindeit.report.page import RunReport, render
from mindeit.report.run_record import RunRecord
from mindeit.training.details import Details
from mindeit.training.predictions import Predictions

__all__ = ["few_digits", "script"]
VOID = {"meta", "link", "img", "br", "circle", "rect", "line", "polyline"}


@pytest.fixture(scope="module")
def run(few_digits, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reported") / "run"
    with one_block():
        printed = train_here("-c", "deit_digits_cpu", "--distillation_type", "none", "--model", STUDENT,
                             "--mode", "pynative", "--epoch_size", 2, "--val_interval", 1, "--warmup_epochs", 0,
                             "--ckpt_save_dir", folder, drawn=True)  # fmt: skip
    assert f"report: {folder}/report.html" in printed, printed
    return folder


class Tags(HTMLParser):
    """Raises where a tag is not closed by its own; keeps what stands in attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.links = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


def test_a_run_leaves_a_page_that_says_how_it_went(run):
    page = (run / "report.html").read_text()
    best = max(max(record["acc1"], record["ema_acc1"]) for record in history(run))
    said = text_of(page)
    assert f"{best:.2f} % accuracy" in said
    assert "90 held-out images" in said and "2 epochs" in said
    assert f"{STUDENT}, 24 pixels, digits: 360 images to train, 10 classes" in said
    assert re.search(r"peak memory +\d+\.\d\d GiB", said)
    assert "distillation_type none" in said and "batch_size 16" in said
    cells = re.findall(r'<td style="background[^>]*>(\d*)</td>', page)
    assert len(cells) == 100 and sum(int(cell or 0) for cell in cells) == 90


def test_the_page_is_one_file_that_asks_no_other_place(run):
    page = (run / "report.html").read_text()
    assert len(page) < 3e6
    assert all(link.startswith(("data:", "#")) for link in Tags(page).links)
    assert not re.search(r"(src|href|url)\W{1,3}https?:|@import|fetch\(|XMLHttpRequest", page)


def test_mistakes_show_what_the_model_looked_at(run):
    page = (run / "report.html").read_text()
    mistakes = re.findall(r"<figure>.*?</figure>", page, re.S)
    wrong = 90 - sum(int(n or 0) for n in re.findall(r'<td style="background[^>]*>(\d*)</td>', page)[::11])
    assert len(mistakes) == min(8, wrong) > 0
    for figure in mistakes:
        assert len(re.findall(r'src="data:image/jpeg;base64,', figure)) == 2
        assert re.search(r"digits val item \d+", figure)


def test_it_is_made_anew_and_runs_stand_side_by_side(run, script, tmp_path):
    shutil.copytree(run, tmp_path / "other")
    config = tmp_path / "other" / "config.yaml"
    config.write_text(config.read_text().replace("batch_size: 16 ", "batch_size: 18 "))
    before = (run / "report.html").read_text()
    (tmp_path / "again").symlink_to(run)
    with one_block():
        code, out, err = report(script, "again", "--output", "one.html")
        assert (code, out) == (0, "one.html\n"), err
        code, out, err = report(script, "again", "other")
        assert (code, out) == (0, "report.html\n"), err
    one, two = (text_of((tmp_path / name).read_text()) for name in ("one.html", "report.html"))
    tiles = re.search(r"[\d.]+ % accuracy [\d.]+ % macro F1 [\d.]+ % calibration error", text_of(before))
    assert tiles[0] in one
    assert "2 runs" in two and "What differs setting again other batch_size 16 18" in two
    Tags((tmp_path / "report.html").read_text())


def report(script, *words):
    return script("mindeit.cli.report", *words)


def test_a_folder_without_a_run_is_one_line(script, tmp_path):
    code, out, err = report(script, "nowhere")
    assert (code, out, err) == (2, "", "error: nowhere holds no run: config.yaml is missing\n")


@pytest.mark.parametrize(
    ("options", "most"), [(("--val_while_train", False), None), ((), 899)], ids=["no evaluation", "too many logits"]
)
def test_what_cannot_be_evaluated_has_a_page_of_its_training(options, most, few_digits, tmp_path, monkeypatch):
    if most:
        monkeypatch.setattr(reports, "MOST_LOGITS", most)
    with one_block():
        printed = train_here("-c", "deit_digits_cpu", "--distillation_type", "none", "--model", STUDENT,
                             "--mode", "pynative", "--epoch_size", 1, *options, "--ckpt_save_dir", tmp_path / "run",
                             drawn=True)  # fmt: skip
    assert ("the report shows the training alone" in printed) == bool(most)
    said = text_of((tmp_path / "run" / "report.html").read_text())
    assert "1 epochs" in said and "Images as training saw them" in said and "macro F1" not in said


def test_a_best_checkpoint_that_cannot_be_read_leaves_the_last_weights(run, tmp_path, capsys):
    """Other ranks wait for the evaluation all the same."""
    shutil.copytree(run, tmp_path / "run")
    assert reports._best_weights(tmp_path / "run")[0] == reports.best_checkpoint(tmp_path / "run")
    whole = reports.best_checkpoint(tmp_path / "run")
    content = whole.read_bytes()
    whole.write_bytes(content[:-5000] + bytes([content[-5000] ^ 1]) + content[-4999:])
    assert reports._best_weights(tmp_path / "run") == (None, None)
    assert "note: the report is of the last weights" in capsys.readouterr().err
    assert reports._best_weights(tmp_path) == (None, None)


def asked_by_page(log: Path) -> set[str]:
    """Addresses in a browser's record of the network, without those it asks by itself."""
    net = json.loads(log.read_text())
    kind = net["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event["params"] for event in net["events"] if event["type"] == kind and "url" in event["params"]]
    return {request["url"] for request in asked if request.get("initiator") != "not an origin"}


def test_names_of_all_kinds_are_text(tmp_path):
    evil = '<script>alert("1")</script>'
    (tmp_path / "config.yaml").write_text(f"# How this run was made\n# command: {evil}\n\n# x\nlr: 1 # {evil}\n")
    found = Predictions(np.eye(2, dtype=np.float32)[[1, 1]], np.array([0, 1]), np.arange(2))
    made = RunReport(RunRecord.read(tmp_path), model=evil, details=Details(found, (evil, "b"), lambda _: evil))
    page = render([made])
    assert page.count("<script>") == 1 and html.escape("<script>alert(") in page
    Tags(page)


@pytest.mark.parametrize(
    ("low", "high", "whole", "want"),
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (57.2, 98.1, False, [50, 60, 70, 80, 90, 100]),
        (1, 3, True, [1, 2, 3]),
        (1, 300, True, [0, 100, 200, 300]),
        (2, 2, True, [2, 3]),
        (0.5, 0.5, False, [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]),
        (1e-6, 1.5e-3, False, [0, 5e-4, 1e-3, 1.5e-3]),
    ],
)
def test_ticks_are_round_and_hold_all_values(low, high, whole, want):
    assert charts.ticks(low, high, whole=whole) == pytest.approx(want)


def test_a_line_reaches_from_its_first_value_to_its_last():
    svg = charts.lines("loss", [charts.Line("a & b", [(1, 0.0), (2, 1.0)]), charts.Line("none", [])])
    [points] = re.findall(r'points="([^"]*)"', svg)
    first, last = (tuple(map(float, pair.split(","))) for pair in points.split())
    assert first == (charts.LEFT, charts.HEIGHT - charts.BOTTOM)
    assert last == (charts.WIDTH - charts.RIGHT, charts.TOP)
    assert "a &amp; b" in svg and "none" not in svg
    assert charts.lines("loss", [charts.Line("none", [])]) == ""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to look at the page with")
@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_a_browser_shows_it_without_a_request_or_an_error(scheme, run, tmp_path):
    picture, log = tmp_path / "page.png", tmp_path / "net.json"
    done = subprocess.run(
        [*command(tmp_path / "profile"), f"--log-net-log={log}", "--hide-scrollbars",
         "--enable-logging=stderr", f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1000,2400",
         f"--screenshot={picture}", f"file://{run}/report.html"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert picture.exists(), done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    assert asked_by_page(log) == set()
    shown = np.asarray(Image.open(picture).convert("L"))
    assert shown[0, 0] < 60 if scheme == 0 else shown[0, 0] > 200
    assert len(np.unique(shown)) > 50
