"""The held-out digits of scikit-learn as pictures: make_demo.py FOLDER -> FOLDER/<class>/scan_0001.png"""
from __future__ import annotations

import sys
from pathlib import Path

from mindeit.data import open_source
from mindeit.errors import front_door


@front_door
def main() -> None:
    folder, source = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/digits"), open_source("digits", None, "val")
    for index, label in enumerate(source.labels):
        place = folder / source.class_names[label]
        place.mkdir(parents=True, exist_ok=True)
        source.read(index).resize((64, 64)).save(place / f"scan_{index:04d}.png")
    print(f"wrote {len(source)} pictures to {folder}")


if __name__ == "__main__":
    main()
