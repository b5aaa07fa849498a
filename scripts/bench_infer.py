"""Images/s and latency of inference on CPU: MindSpore's graph, MindIR, ONNX in onnxruntime, and PyTorch eager.

    python scripts/bench_infer.py                                     # DeiT-tiny, batches of 1 and 32, float32
    python scripts/bench_infer.py --model deit_small_patch16_224 --batches 1 8 --seconds 30
    python scripts/bench_infer.py --providers CUDA                    # ONNX on a GPU, the others on CPU

int8 is ONNX with products in eight bits; weights are random, so nothing is said of its accuracy. bf16 is PyTorch under
autocast alone: neither MindSpore nor onnxruntime has a product of bf16 on CPU. Processors without instructions for it
(AVX2) convert back and forth, and the row says what that costs.

The candidates take turns, call by call, so that a machine's other work meets them all, with as many threads as cores.
Latency is of one call, images to logits. Ratios are PyTorch's time over each one's: of medians, and in brackets of
CPU time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mindeit.cli.export import SUFFIXES
from mindeit.errors import UserError, run_script
from mindeit.export.exported import Exported
from mindeit.export.file_digest import write_digest
from mindeit.export.metadata import Description
from mindeit.export.onnx_session import PROVIDERS
from mindeit.export.writer import export
from mindeit.models.registry import build, spec
from mindeit.weights.card import card_for

Step = Callable[[np.ndarray], object]


def graph(name: str, folder: Path, providers: Sequence[str]) -> Step:
    from mindeit.predict.predictor import on_arrays

    return on_arrays(build(name))


def mind_ir(name: str, folder: Path, providers: Sequence[str]) -> Step:
    return Exported(exported(name, folder, "MINDIR"))


def onnx(name: str, folder: Path, providers: Sequence[str]) -> Step:
    return Exported(exported(name, folder, "ONNX"), providers=providers)


def int8(name: str, folder: Path, providers: Sequence[str]) -> Step:
    from mindeit.export.int8 import annotate, quantize

    path = folder / "int8.onnx"
    quantize(exported(name, folder, "ONNX"), path, None)
    annotate(path, {"precision": "int8"})
    write_digest(path)
    return Exported(path, providers=providers)


def exported(name: str, folder: Path, kind: str) -> Path:
    path = folder / f"model{SUFFIXES[kind]}"
    if not path.exists():
        export(build(name), Description(card_for(spec(name), 1000)), path, kind)
    return path


def bf16(name: str, folder: Path, providers: Sequence[str]) -> Step:
    import torch

    step = pytorch(name, folder, providers)

    def under_autocast(images: np.ndarray) -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return step(images)

    return under_autocast


def pytorch(name: str, folder: Path, providers: Sequence[str]) -> Step:
    import torch

    from mindeit.torch_reference.build import build_reference

    model = build_reference(name, num_classes=1000, image_size=spec(name).image_size)

    def step(images: np.ndarray) -> object:
        with torch.inference_mode():
            return model(torch.from_numpy(images)).float().numpy()

    return step


PEER = "PyTorch eager"
CANDIDATES = {
    "MindSpore graph": graph,
    "MindIR": mind_ir,
    "ONNX": onnx,
    "ONNX int8": int8,
    PEER: pytorch,
    "PyTorch bf16": bf16,
}


def available(name: str, folder: Path, providers: Sequence[str]) -> dict[str, Step]:
    steps = {}
    for title, make in CANDIDATES.items():
        try:
            steps[title] = make(name, folder, providers)
        except (ImportError, UserError) as error:
            print(f"{title:15} left out: {error}")
    return steps


def measure(steps: dict[str, Step], images: np.ndarray, seconds: float, rounds: int) -> dict[str, np.ndarray]:
    """Times (calls, 2) of each candidate, in turns, for about ``seconds`` and at least ``rounds``: clock and CPU."""
    for step in steps.values():
        step(images)  # compiles
    times: dict[str, list[tuple[float, float]]] = {title: [] for title in steps}
    end, done = time.perf_counter() + seconds, 0
    while done < rounds or time.perf_counter() < end:
        for title, step in steps.items():
            start = time.perf_counter(), time.process_time()
            step(images)
            times[title].append((time.perf_counter() - start[0], time.process_time() - start[1]))
        done += 1
    return {title: np.array(values) for title, values in times.items()}


def lines(times: dict[str, np.ndarray], batch: int) -> list[str]:
    heads = ("images/s", "p50 ms", "p99 ms", "CPU ms")
    rows = [f"{'batch ' + str(batch):15} {' '.join(f'{head:>9}' for head in heads)}   to {PEER}"]
    for title, values in times.items():
        (middle, cpu), late = np.median(values, 0), np.percentile(values[:, 0], 99)
        ratios = np.median(times[PEER], 0) / (middle, cpu) if PEER in times else (np.nan, np.nan)
        figures = (batch / middle, 1e3 * middle, 1e3 * late, 1e3 * cpu)
        figures_text = " ".join(f"{figure:9.1f}" for figure in figures)
        rows.append(f"{title:15} {figures_text}   {ratios[0]:.2f} ({ratios[1]:.2f})")
    return rows


@run_script
def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--seconds", type=float, default=60, help="for each batch")
    parser.add_argument("--rounds", type=int, default=5, help="at least")
    parser.add_argument("--providers", nargs="+", default=[], choices=PROVIDERS, help="of ONNX, the most wanted first")
    options = parser.parse_args(argv)
    from mindeit.runtime import device

    device.setup("CPU")
    size, random = spec(options.model).image_size, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        steps = available(options.model, Path(folder), options.providers)
        print(f"{options.model}, {len(os.sched_getaffinity(0))} threads, load {os.getloadavg()[0]:.1f}", flush=True)
        for batch in options.batches:
            images = random.standard_normal((batch, 3, size, size)).astype(np.float32)
            times = measure(steps, images, options.seconds, options.rounds)
            print("\n".join(lines(times, batch)), flush=True)


if __name__ == "__main__":
    main()
