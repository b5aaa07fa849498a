"""What the quick start works on: the digits embedded in scikit-learn as an image folder, and a model file like the
official ones, with random weights.

python scripts/make_demo.py FOLDER -> FOLDER/digits/val/<class>/*.png and FOLDER/deit_tiny_random.pth
"""
from __future__ import annotations

import sys
from pathlib import Path

from mindeit.data import open_source
from mindeit.errors import front_door


def write_digits(folder: Path, split: str) -> int:
    """One PNG a scan, in a folder of its class; the data's fixed split."""
    source = open_source("digits", None, split)
    for name in source.class_names:
        (folder / split / name).mkdir(parents=True, exist_ok=True)
    for index, label in enumerate(source.labels):
        picture = source.read(index)
        picture.resize((64, 64)).save(folder / split / source.class_names[label] / f"scan_{index:04d}.png")
    return len(source)


def write_random_weights(path: Path) -> None:
    """A DeiT-tiny of ten classes in the official format, saved by PyTorch."""
    from mindeit.checkpoint import card_for
    from mindeit.convert.load import to_official
    from mindeit.convert.torch_files import write_official
    from mindeit.models.registry import build, spec
    from mindeit.runtime import device

    device.seed(0)
    name = "deit_tiny_patch16_224"
    state = {parameter.name: parameter.asnumpy() for parameter in build(name, num_classes=10).get_parameters()}
    write_official(path, to_official(state, card_for(spec(name), 10)))


@front_door
def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/demo")
    weights = folder / "deit_tiny_random.pth"
    images = write_digits(folder / "digits", "val")
    write_random_weights(weights)
    print(f"wrote {images} images to {folder / 'digits' / 'val'} and random weights to {weights}")


if __name__ == "__main__":
    main()
