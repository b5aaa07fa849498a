"""Progress: lines in a pipe, a bar on a terminal, nothing where it is not wanted."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import pytest

from mindeit.runtime.progress import progress

# count: how often the status was asked for; the loss is that of the batch just done
TRAIN = """
import sys, time
from mindeit.runtime import progress as module
seconds = {seconds}
module.SECONDS_BETWEEN_LINES = module.SECONDS_BETWEEN_REFRESHES = {between}
asked, done = [], 0

def status():
    asked.append(done)
    return f"loss {{9 - done / 10:.1f}}"

for batch in module.progress(range(len(seconds)), len(seconds), "epoch 3/300", images=32 * len(seconds), {arguments}):
    time.sleep(seconds[batch])
    done += 1
print("asked", asked)
"""


def script(seconds: list[float], between: float = 0.2, arguments: str = "status=status") -> str:
    return TRAIN.format(seconds=seconds, between=between, arguments=arguments)


def in_pipe(code: str) -> tuple[list[str], list[int]]:
    """The lines on stderr and after which batches the status was asked for."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr.splitlines(), [int(word) for word in re.findall(r"\d+", done.stdout)]


def on_terminal(code: str, columns: int = 120) -> tuple[list[str], list[tuple[float, str]]]:
    """What the script prints, and what its bar shows: (seconds, text) of each refresh."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=inner, text=True)
    os.close(inner)
    shown = []
    while True:
        try:
            data = os.read(outer, 65536).decode()
        except OSError:  # how Linux says that the last writer left
            break
        if not data:
            break
        shown += [(time.monotonic(), text) for text in data.split("\r") if text.strip()]
    os.close(outer)
    output = child.stdout.read().splitlines()
    child.stdout.close()
    assert child.wait() == 0
    return output, shown


def left(text: str) -> int:
    minutes, seconds = re.search(r"(\d+):(\d\d) left", text).groups()
    return 60 * int(minutes) + int(seconds)


def rate(text: str) -> float:
    return float(re.search(r"([\d.]+) images/s", text).group(1))


@pytest.mark.parametrize("arguments", ["", "status=status", "status=status, every=1, shown=False"])
def test_every_batch_is_passed_on(arguments):
    asked = []
    options = eval(f"dict({arguments})", {"status": lambda: asked.append(1) or "loss"})
    assert list(progress(["a", "b", "c"], 3, "title", images=6, **options)) == ["a", "b", "c"]
    assert not asked


def test_what_is_not_shown_prints_nothing_and_never_asks_for_the_status():
    lines, asked = in_pipe(script([0.05] * 10, arguments="status=status, every=1, shown=False"))
    assert (lines, asked) == ([], [])


def test_a_line_each_so_many_batches_says_where_the_run_stands():
    lines, asked = in_pipe(script([0.05] * 12, between=9, arguments="status=status, every=4"))
    assert asked == [4, 8]  # the last one is the caller's to report
    form = r"epoch 3/300: {}/384 images, loss {}, [\d.]+ images/s, 0:0\d left"
    assert re.fullmatch(form.format(128, "8.6"), lines[0])
    assert re.fullmatch(form.format(256, "8.2"), lines[1])
    assert len(lines) == 2


def test_without_a_number_of_batches_a_line_comes_after_some_time():
    lines, asked = in_pipe(script([0.05] * 30, between=0.4))
    assert 2 <= len(lines) <= 4
    assert len(asked) == len(lines)


def test_lines_come_in_time_however_many_batches_are_between_them():
    lines, _ = in_pipe(script([0.05] * 30, between=0.4, arguments="every=1000"))
    assert 2 <= len(lines) <= 4


def test_validation_needs_no_status():
    lines, _ = in_pipe(script([0.05] * 12, arguments=""))
    assert re.fullmatch(r"epoch 3/300: \d+/384 images, [\d.]+ images/s, 0:0\d left", lines[0])


def test_the_time_left_is_sensible_from_the_first_line_though_the_first_batch_compiles():
    lines, _ = in_pipe(script([1.5] + [0.05] * 39, between=9, arguments="status=status, every=2"))
    assert left(lines[0]) <= 8  # 38 batches, 0.05 s each: 2 s; with the first batch's time in it, 29 s
    assert 150 < rate(lines[0]) <= 32 / 0.05
    lines, _ = in_pipe(script([1.5] + [0.05] * 39, between=0.2))
    assert left(lines[0]) <= 8


def test_after_the_first_batch_alone_no_rate_is_claimed():
    lines, _ = in_pipe(script([0.3] + [0.05] * 3, arguments="status=status, every=1"))
    assert lines[0] == "epoch 3/300: 32/128 images, loss 8.9"
    assert "left" in lines[1]


def test_the_rate_is_the_last_intervals_smoothed():
    lines, _ = in_pipe(script([0.02] * 20 + [0.2] * 12, between=9, arguments="status=status, every=4"))
    rates = [rate(line) for line in lines]
    before, after, later = rates[4], rates[5], rates[6]
    assert before > 1.5 * after > 1.5 * later  # it follows
    assert later > 32 / 0.2  # but not at once


def test_the_bar_shows_the_loss_live_and_no_more_than_once_an_interval():
    output, shown = on_terminal(script([0.05] * 40, between=0.2))
    texts = [text for _, text in shown if "loss" in text]
    losses = [float(re.search(r"loss ([\d.]+)", text).group(1)) for text in texts]
    assert len(set(losses)) >= 5
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 5.0
    asked = [int(word) for word in re.findall(r"\d+", output[0])]
    assert asked[-1] == 40
    assert len(asked) <= 12  # 2 s of work at five a second, and the end
    assert re.search(r"epoch 3/300 \|.+\| 100%, loss 5.0, [\d.]+ images/s, 0:00 left, 1280/1280 images", texts[-1])


def test_the_bar_is_there_while_the_first_batch_compiles_and_claims_no_rate():
    _, shown = on_terminal(script([1.0, 0.05, 0.05]))
    assert re.search(r"epoch 3/300 \|.+\| 0%", shown[0][1])
    first = next((when, text) for when, text in shown if "loss" in text)
    assert first[0] - shown[0][0] > 0.8
    assert "| 33%, loss 8.9, 32/96 images" in first[1]


def test_a_log_file_gets_lines_under_a_bar(tmp_path):
    code = script([0.05] * 12, between=9, arguments="status=status, every=4")
    keep = f"from mindeit.runtime import log\nlog.begin('title')\nwith log.kept_in({str(tmp_path / 'log.txt')!r}):\n"
    body = "".join(f"    {line}\n" for line in code.splitlines())
    _, shown = on_terminal(keep + body)
    first, title, *lines = (tmp_path / "log.txt").read_text().splitlines()
    assert (first[:4], title) == ("--- ", "title")
    assert [line.split(", ")[1] for line in lines] == ["loss 8.6", "loss 8.2"]
    assert not any("loss 8.6, " in text and text.startswith("epoch 3/300: ") for _, text in shown)


def test_a_narrow_terminal_keeps_loss_rate_and_time_left():
    _, shown = on_terminal(script([0.1] * 20), columns=70)
    last = shown[-1][1] if "loss" in shown[-1][1] else [text for _, text in shown if "loss" in text][-1]
    assert re.search(r"loss 7.0, [\d.]+ images/s, 0:00 left", last)
    assert all(len(re.sub(r"\x1b\[\w", "", text).rstrip("\n")) <= 70 for _, text in shown)


def test_the_bar_goes_when_the_loop_breaks_off():
    code = script([0.1] * 20).replace("done += 1", "done += 1\n    if done == 5: break")
    output, shown = on_terminal(code + "\nprint('after', file=sys.stderr)")
    assert output[0].startswith("asked")
    assert shown[-1][1].strip() == "after"


def test_an_error_in_the_status_comes_through():
    def status() -> str:
        raise FloatingPointError("loss is NaN")

    with pytest.raises(FloatingPointError, match="loss is NaN"):
        list(progress(range(4), 4, "epoch 1/1", images=4, status=status, every=1))


@pytest.mark.parametrize("total, images", [(0, 0), (3, 0)])
def test_no_images_are_no_trouble(total, images, capsys):
    assert list(progress(range(total), total, "title", images=images, every=1)) == list(range(total))
    assert len(capsys.readouterr().err.splitlines()) == max(total - 1, 0)
