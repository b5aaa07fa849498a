"""Features of many images with their files and labels: an .npz of NumPy, or a .parquet."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from mindeit.errors import UserError
from mindeit.files import PathLike, atomic, existing_file

try:  # optional: for .parquet alone
    import pyarrow.parquet
except ImportError:  # also where it is one for another NumPy
    pyarrow = None

SUFFIXES = (".npz", ".parquet")
_ALL = "all"  # the part where there are none


@dataclasses.dataclass(frozen=True)
class FeatureTable:
    """features: float32 (n, dim). files, parts: texts (n,). labels: int32 (n,); -1 of all where they are unknown."""

    features: np.ndarray
    files: np.ndarray
    parts: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: np.ndarray) -> FeatureTable:
        return dataclasses.replace(
            self, features=self.features[rows], files=self.files[rows], parts=self.parts[rows], labels=self.labels[rows]
        )

    def write(self, path: PathLike) -> None:
        suffix = check_suffix(path)
        with atomic(path) as temporary:
            if suffix == ".parquet":
                _write_parquet(temporary, self)
            else:
                known = {"labels": self.labels, "class_names": np.array(self.class_names)} if self.class_names else {}
                np.savez(temporary, features=self.features, files=self.files, parts=self.parts, **known)

    @classmethod
    def read(cls, path: PathLike) -> FeatureTable:
        """``features`` and ``labels`` are enough; images without a name are numbered, and so are classes."""
        suffix, path = check_suffix(path), existing_file(path)
        columns = _read_parquet(path) if suffix == ".parquet" else _read_npz(path)
        if "features" not in columns:
            raise UserError(
                f"{path} holds {', '.join(columns) or 'nothing'}; expected features, as mindeit embed writes"
            )
        features = _floats(columns["features"], path)
        count = len(features)
        labels = np.asarray(columns.get("labels", np.full(count, -1)))
        files, parts = columns.get("files", np.arange(count)), columns.get("parts", np.full(count, _ALL))
        for name, column in (("labels", labels), ("files", files), ("parts", parts)):
            if column.shape != (count,):
                raise UserError(f"{path}: {name} are {column.shape}, but there are {count} features")
        names = tuple(map(str, columns.get("class_names", np.arange(labels.max(initial=-1) + 1))))
        if not np.issubdtype(labels.dtype, np.integer) or labels.max(initial=-1) >= len(names):
            raise UserError(f"{path}: labels are no whole numbers below {len(names)}, the number of class_names")
        return cls(features, files.astype(str), parts.astype(str), labels.astype(np.int32), names)


def check_suffix(path: PathLike) -> str:
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise UserError(f"{path} ends in '{suffix}'; allowed: {', '.join(SUFFIXES)}")
    if suffix == ".parquet" and pyarrow is None:
        raise UserError(f"{path} needs pyarrow: pip install 'pyarrow<22' (.npz does not)")
    return suffix


def _floats(features: np.ndarray, path: Path) -> np.ndarray:
    if features.ndim != 2 or not features.size or not np.issubdtype(features.dtype, np.number):
        raise UserError(f"{path}: features are {features.dtype} {features.shape}; expected numbers (images, dim)")
    features = features.astype(np.float32)
    if not np.isfinite(features).all():
        raise UserError(f"{path}: features hold values that are not finite")
    return features


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile's, zlib's and NumPy's exceptions have no common base
        raise UserError(f"{path} is not an .npz of arrays: {' '.join(str(error).split())}") from None


def _write_parquet(path: Path, table: FeatureTable) -> None:
    """A row for each image; the class as its name."""
    flat = pyarrow.array(table.features.reshape(-1))
    columns = {"file": table.files.tolist(), "part": table.parts.tolist()}
    if table.class_names:
        columns["label"] = table.labels
        columns["class"] = [table.class_names[label] for label in table.labels]
    columns["features"] = pyarrow.FixedSizeListArray.from_arrays(flat, table.features.shape[1])
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path} is not a .parquet: {' '.join(str(error).split())}") from None
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    found = {"features": np.stack(columns["features"])} if "features" in columns and len(table) else {}
    for name, ours in (("file", "files"), ("part", "parts"), ("label", "labels")):
        if name in columns:
            found[ours] = columns[name]
    if "class" in columns and "label" in columns:
        names = dict(zip(columns["label"].tolist(), columns["class"].tolist()))
        found["class_names"] = np.array([names.get(label, str(label)) for label in range(max(names, default=-1) + 1)])
    return found
