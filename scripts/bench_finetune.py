"""Accuracy of fine-tuning by the amount of images beside DeiT's recipe as it is, on images that ship with packages.

    python scripts/bench_finetune.py                            # both data sets, seeds 0 to 2
    python scripts/bench_finetune.py --images 160 --seeds 0 --sets digits

"digits" are scikit-learn's scans as image files, "photos" tiles of the photographs of scikit-image and scikit-learn,
one class a photograph, no pixel in two tiles. A small DeiT III learns half of the classes from scratch, and is then
fine-tuned on a few images of the other half, as many are held out. Both recipes train for as many epochs. The
better of the model's and its average's last accuracy counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mindeit.errors import UserError, run_script

ROOT, MODEL, SIDE, TILE = Path(__file__).parents[1], "deit_mini_patch8_32_LS", 32, 48
PHOTOS = (
    *("astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass", "gravel", "hubble_deep_field"),
    *("ihc", "moon", "page", "retina", "rocket", "text"),
)
RECIPES = {"by amount": ("-c", "finetune"), "DeiT's": ("--dataset", "image_folder")}


def digits() -> Iterator[tuple[str, Image.Image]]:
    from sklearn.datasets import load_digits  # as `data.digits`: an optional package

    scans, labels = load_digits(return_X_y=True)
    for scan, label in zip(scans, labels):
        yield str(label), Image.fromarray(np.rint(scan.reshape(8, 8) * (255 / 16)).astype(np.uint8))


def photos() -> Iterator[tuple[str, Image.Image]]:
    from sklearn.datasets import load_sample_images  # an optional package

    try:
        import skimage  # likewise
    except ImportError:
        raise UserError("the photographs come with scikit-image: pip install scikit-image") from None
    folder = Path(skimage.__file__).parent / "data"
    files = (next(folder.glob(f"{name}.*[gG]")) for name in PHOTOS)
    found = [(file.stem, Image.open(file).convert("RGB")) for file in files]
    found += [(f"sample_{n}", Image.fromarray(image)) for n, image in enumerate(load_sample_images().images)]
    for name, photo in found:
        for top in range(0, photo.height - TILE + 1, TILE):
            for left in range(0, photo.width - TILE + 1, TILE):
                yield name, photo.crop((left, top, left + TILE, top + TILE))


SETS = {"digits": digits, "photos": photos}


def write(folder: Path, name: str, half: int, images: int | None, seed: int) -> Path:
    """A class folder of so many images, as many of each class as there are, of each second class; None: all."""
    by_class: dict[str, list[Image.Image]] = {}
    for label, image in SETS[name]():
        by_class.setdefault(label, []).append(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    numbers, chosen = np.random.default_rng(seed), sorted(by_class)[half::2]
    for label in chosen:
        found = by_class[label]
        (folder / label).mkdir(parents=True)
        count = len(found) if images is None else min(len(found), images // len(chosen))
        for number in numbers.permutation(len(found))[:count]:
            found[number].save(folder / label / f"{number:04d}.png")
    return folder


def train(folder: Path, run: Path, *options: object) -> float:
    """The last accuracy of a run, the model's or its average's."""
    words = ("--data_dir", folder, "--ckpt_save_dir", run, "--val_interval", 1000, "--report", False, *options)
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}"},
    )
    if done.returncode:
        raise UserError(f"train.py failed: {done.stderr.splitlines()[-1]}")
    last = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
    return max(last["acc1"], last["ema_acc1"])


@run_script
def main(argv: Sequence[str]) -> None:
    options = _options(argv)
    fresh = ("-c", "finetune", "--model", MODEL, "--pretrained", False)
    print(f"{'set':8}{'recipe':12}{'epochs':>7}  accuracy by seed, %", flush=True)
    with tempfile.TemporaryDirectory() as place:
        for name in options.sets:
            weights = Path(place) / f"{name}_weights" / "last.ckpt"
            train(write(Path(place) / f"{name}_first", name, 0, None, 0), weights.parent, *fresh, "--lr", 1e-3)
            for recipe, words in RECIPES.items():
                found = []
                for seed in options.seeds:
                    folder = Path(place) / f"{name}_{seed}"
                    if not folder.exists():
                        write(folder, name, 1, 2 * options.images, seed)
                    run = Path(place) / f"{name}_{recipe}_{seed}"
                    found.append(
                        train(
                            folder,
                            run,
                            *words,
                            "--ckpt_path",
                            weights,
                            "--held_out",
                            0.5,
                            "--seed",
                            seed,
                            "--epoch_size",
                            options.epochs,
                        )  # fmt: skip
                    )
                shown = "  ".join(f"{value:.1f}" for value in found)
                print(f"{name:8}{recipe:12}{options.epochs:7}  {shown}  mean {statistics.mean(found):.1f}", flush=True)


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--images", type=int, default=320, help="to train on; as many are held out")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
