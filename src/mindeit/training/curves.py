"""An image of a training run: losses, accuracy and learning rate over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mindeit.errors import UserError
from mindeit.files import PathLike, atomic, check_writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# title -> curves (key in the records, name in the legend, where matplotlib leaves out those with '_', colour)
PANELS = {
    "loss": [("train_loss", "training", "#4c72b0"), ("val_loss", "validation", "#dd8452")],
    "top-1 accuracy, %": [("acc1", "model", "#4c72b0"), ("ema_acc1", "EMA", "#55a868")],
    "learning rate": [("lr", "_unnamed", "#8172b3")],
}
MARK_BEST = {"acc1", "ema_acc1"}
MOST_DOTS = 40  # with more points than this a curve shows no dots


def check(path: PathLike) -> None:
    """Fail early if no image can be drawn to ``path``."""
    try:
        from matplotlib import figure, layout_engine, ticker  # noqa: F401
    except ImportError as error:
        raise UserError(f"the curves of a run need matplotlib (pip install matplotlib): {error}") from None
    check_writable(path)


def draw(records: Sequence[Mapping[str, Any]], path: PathLike) -> None:
    """One PNG with three panels. Missing values are left out, and their neighbours joined."""
    from matplotlib import figure, layout_engine, ticker  # optional, as `check` says

    image = figure.Figure(figsize=(13, 4), layout=layout_engine.ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    axes = image.subplots(1, len(PANELS), sharex=True)
    for axis, (title, curves) in zip(axes, PANELS.items()):
        for key, name, colour in curves:
            points = [(record["epoch"], record[key]) for record in records if record.get(key) is not None]
            if points:
                _curve(axis, points, name, colour, best=key in MARK_BEST)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
        _label(axis, title)
    axes[-1].set_ylim(bottom=0)
    with atomic(path) as temporary:
        image.savefig(temporary, dpi=110, format="png")


def _label(axis: Axes, title: str) -> None:
    """Title, axes and legend, also of a panel without curves."""
    axis.set_title(title, fontsize=11)
    axis.set_xlabel("epoch")
    axis.ticklabel_format(axis="y", scilimits=(-2, 4))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    if not axis.lines:
        axis.set_yticks([])
        axis.text(0.5, 0.5, "no values yet", transform=axis.transAxes, ha="center", va="center", color="gray")
    elif axis.get_legend_handles_labels()[1]:
        axis.legend(frameon=False, fontsize=9)


def _curve(axis: Axes, points: list[tuple[int, float]], name: str, colour: str, best: bool) -> None:
    epochs, values = zip(*points)
    if best:
        value, epoch = max((value, -epoch) for epoch, value in points)  # of equals the first
        name = f"{name}: best {value:.2f} at epoch {-epoch}"
        axis.plot(
            [-epoch],
            [value],
            marker="*",
            markersize=13,
            color=colour,
            markeredgecolor="white",
            markeredgewidth=0.5,
            zorder=3,
        )
    dots = "o" if len(points) <= MOST_DOTS else ""
    axis.plot(epochs, values, marker=dots, markersize=3.5, linewidth=1.6, color=colour, label=name)
