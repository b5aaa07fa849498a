"""The held-out digits of scikit-learn as images: make_demo.py FOLDER -> FOLDER/<class>/scan_0001.png"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mindeit.data import open_source
from mindeit.errors import run_script


@run_script
def main(argv: Sequence[str]) -> None:
    folder, source = Path(argv[0] if argv else "outputs/digits"), open_source("digits", None, "val")
    for index, label in enumerate(source.labels):
        place = folder / source.class_names[label]
        place.mkdir(parents=True, exist_ok=True)
        source.read(index).resize((64, 64)).save(place / f"scan_{index:04d}.png")
    print(f"wrote {len(source)} images to {folder}")


if __name__ == "__main__":
    main()
