"""Measure what features know, and find labels that look wrong: mindeit probe features.npz --output suspects.csv"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Optional

from mindeit import files
from mindeit.cli.predict import check_output
from mindeit.config import option, parse
from mindeit.errors import run_script
from mindeit.predict.feature_table import FeatureTable
from mindeit.predict.probe import Suspect, joined, probe, suspects

SHOWN = 5  # suspects on the screen


@dataclass(frozen=True)
class Options:
    """Probe"""

    features: str = option("", "what mindeit embed wrote, .npz or .parquet", positional=True, required=True)
    train: Optional[str] = option(None, "features to learn from; None: the part train, or cross-validation")
    output: Optional[str] = option(None, "write all labels that look wrong to this CSV file, the surest first")
    seed: int = option(0, "start of the split for cross-validation", at_least=0, below=2**32)


@run_script
def main(argv: Sequence[str]) -> None:
    options = parse(argv, description=__doc__, script=Options, sections=()).script
    if options.output:
        check_output(options.output, [options.features, options.train])
        files.check_writable(options.output)
    table = whole = FeatureTable.read(options.features)
    train = FeatureTable.read(options.train) if options.train else None
    if train is not None:
        whole = joined(table, train)
    print("\n".join(probe(table, train, seed=options.seed).lines()), flush=True)
    found = suspects(whole)
    print(f"suspects  {len(found):,} of {len(whole):,} labels, which their neighbours contradict")
    for suspect in found[:SHOWN]:
        print(f"  {suspect.file}: {suspect.label}, or {suspect.suggested}? ({suspect.confidence:.2f})")
    if options.output:
        write(options.output, found)


def write(path: str, found: Sequence[Suspect]) -> None:
    with (
        files.atomic(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        rows = csv.DictWriter(file, [field.name for field in fields(Suspect)])
        rows.writeheader()
        rows.writerows(map(asdict, found))
