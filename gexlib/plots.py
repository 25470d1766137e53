"""Figures that two or more notebooks draw. Each returns its Axes; none knows a model."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

PALETTE = sns.color_palette("colorblind")


def use_style() -> None:
    """One look for all notebooks: figures white, small and colour-blind safe; no word of a table cut off."""
    pd.set_option("display.max_colwidth", None)
    sns.set_theme(style="ticks", palette="colorblind", context="notebook", font_scale=0.85)
    mpl.rcParams.update(
        {"figure.dpi": 96, "savefig.dpi": 130, "savefig.bbox": "tight", "axes.spines.top": False,
         "axes.spines.right": False, "axes.titlelocation": "left", "legend.frameon": False}
    )  # fmt: skip


def flow(boxes: list[str], ax: plt.Axes | None = None) -> plt.Axes:
    """Boxes joined by arrows from left to right: what goes in, what is done, what comes out."""
    ax = ax or plt.subplots(figsize=(1.9 * len(boxes), 1.5))[1]
    for i, text in enumerate(boxes):
        ax.text(
            i,
            0,
            text,
            ha="center",
            va="center",
            fontsize=9,
            bbox={"boxstyle": "round,pad=0.6", "fc": "0.95", "ec": "0.4"},
        )
        if i:
            ax.annotate("", (i - 0.40, 0), (i - 0.60, 0), arrowprops={"arrowstyle": "-|>", "color": "0.3"})
    ax.set(xlim=(-0.5, len(boxes) - 0.5), ylim=(-0.6, 0.6))
    ax.axis("off")
    return ax


def network(widths: list[int], notes: list[str], ax: plt.Axes | None = None) -> plt.Axes:
    """A fully connected network as one bar a layer, height on a log scale, with its width and a note beneath."""
    ax = ax or plt.subplots(figsize=(1.25 * len(widths), 2.8))[1]
    heights = np.log2(np.array(widths) + 1)
    ax.bar(range(len(widths)), heights, bottom=-heights / 2, width=0.42, color=PALETTE[0], alpha=0.8)
    for i in range(len(widths) - 1):
        for side in (-1, 1):
            ax.plot([i + 0.21, i + 0.79], [side * heights[i] / 2, side * heights[i + 1] / 2], color="0.7", lw=0.8)
    for i, (width, height) in enumerate(zip(widths, heights, strict=True)):
        ax.text(i, height / 2 + 0.4, f"{width:,}", ha="center", va="bottom", fontweight="bold", fontsize=9)
        ax.text(i, -heights.max() / 2 - 0.8, notes[i], ha="center", va="top", fontsize=8, linespacing=1.3)
    ax.set(xlim=(-0.6, len(widths) - 0.4), ylim=(-heights.max() / 2 - 4.2, heights.max() / 2 + 1.8))
    ax.axis("off")
    return ax


def stacks(sides: pd.Series, channels: pd.Series, title: str, ax: plt.Axes | None = None) -> plt.Axes:
    """The maps of a convolutional network, part by part: a box as high as a map and, on a root scale, as wide as many.

    `sides` and `channels` are indexed by part, whose last word gives the colour; both are written.
    """
    ax = ax or plt.subplots(figsize=(10, 3.2))[1]
    heights, widths = np.sqrt(sides.to_numpy(float)), 0.05 * np.sqrt(channels.to_numpy(float)) + 0.15
    left, kinds = 0.0, list(dict.fromkeys(part.split()[-1] for part in sides.index))
    for i, (part, height, width) in enumerate(zip(sides.index, heights, widths, strict=True)):
        colour = PALETTE[kinds.index(part.split()[-1])]
        ax.add_patch(plt.Rectangle((left, -height / 2), width, height, fc=colour, ec="0.3", alpha=0.75))
        middle = left + width / 2
        ax.text(middle, height / 2 + 0.3, f"{sides.iloc[i]}²\n×{channels.iloc[i]}", ha="center", fontsize=7.5)
        ax.text(middle, -heights.max() / 2 - 0.4, part, ha="right", va="top", rotation=40, fontsize=8,
                rotation_mode="anchor")  # fmt: skip
        left += width + 0.55
    ax.set(xlim=(-0.8, left), ylim=(-heights.max() / 2 - 4.5, heights.max() / 2 + 2.5), title=title)
    ax.axis("off")
    return ax


def roc(curves: pd.DataFrame, title: str, ax: plt.Axes | None = None) -> plt.Axes:
    """ROC curves of a table with columns curve, fpr, tpr, auc; micro and macro dashed."""
    ax = ax or plt.subplots(figsize=(4.2, 4))[1]
    for i, (name, points) in enumerate(curves.groupby("curve", sort=False)):
        pooled = name in ("micro", "macro")
        style = (
            {"ls": ":" if name == "macro" else "--", "color": "0.15", "lw": 2}
            if pooled
            else {"color": PALETTE[i], "lw": 1.6}
        )
        ax.plot(points["fpr"], points["tpr"], label=f"{name}  {points['auc'].iloc[0]:.2f}", **style)
    ax.plot([0, 1], [0, 1], color="0.8", lw=1, zorder=0)
    ax.set(xlabel="false positive rate", ylabel="true positive rate", title=title, aspect="equal")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.legend(title="class  AUC", loc="lower right", fontsize=8)
    return ax


def confusion(counts: np.ndarray, classes: list[str], title: str, ax: plt.Axes | None = None) -> plt.Axes:
    """Confusion matrix, true x predicted: counts written, colour the share of the true class."""
    ax = ax or plt.subplots(figsize=(4.2, 3.6))[1]
    counts = pd.DataFrame(counts, index=classes, columns=classes)
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    label = {"label": "share of the true class"}
    sns.heatmap(shares, annot=counts, fmt="d", cmap="Blues", vmin=0, vmax=1, ax=ax, cbar_kws=label)
    ax.set(xlabel="predicted", ylabel="true", title=title)
    return ax


def intervals(table: pd.DataFrame, title: str, xlabel: str, ax: plt.Axes | None = None) -> plt.Axes:
    """Points with 95 % intervals, one row a model, from a table with columns value, low, high indexed by name."""
    ax = ax or plt.subplots(figsize=(5, 0.45 * len(table) + 1.1))[1]
    rows = np.arange(len(table))[::-1]
    ax.hlines(rows, table["low"], table["high"], color=PALETTE[0], lw=2.5)
    ax.plot(table["value"], rows, "o", color=PALETTE[0], ms=6)
    digits = 2 if table["high"].max() - table["low"].min() > 0.1 else 3
    for row, value in zip(rows, table["value"], strict=True):
        ax.annotate(f"{value:.{digits}f}", (value, row), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    ax.set(yticks=rows, yticklabels=table.index, xlabel=xlabel, title=title, ylim=(-0.6, len(table) - 0.2))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    return ax


def differences(table: pd.DataFrame, title: str, ax: plt.Axes) -> plt.Axes:
    """Differences with 95 % intervals, one row each from the bottom; hollow where `simulated`; a line at zero."""
    rows, real = np.arange(len(table)), ~table["simulated"].to_numpy(bool)
    ax.axvline(0, color="0.6", lw=1)
    ax.hlines(rows, table["low"], table["high"], color=PALETTE[0], lw=1.6)
    ax.plot(table["value"][real], rows[real], "o", color=PALETTE[0], ms=5)
    ax.plot(table["value"][~real], rows[~real], "o", mfc="white", mec=PALETTE[0], ms=5)
    ax.set(yticks=rows, yticklabels=table.index, title=title)
    return ax


def by_size(table: pd.DataFrame, title: str, ax: plt.Axes) -> plt.Axes:
    """A metric by training samples of each class, a line with its 95 % band a family; columns size and family."""
    colours = {"network": PALETTE[3], "linear": PALETTE[0], "trees": PALETTE[2]}
    for family, points in table.groupby("family", sort=False):
        points, label = points.sort_values("size"), "the paper's network" if family == "network" else family
        ax.plot(points["size"], points["value"], "o-", color=colours[family], ms=4, label=label)
        ax.fill_between(points["size"], points["low"], points["high"], color=colours[family], alpha=0.15, lw=0)
    sizes = sorted(table["size"].unique())
    ax.set(xscale="log", xlabel="training patients of each class", title=title)
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    return ax


def shares(counts: pd.DataFrame, title: str, ax: plt.Axes | None = None) -> plt.Axes:
    """Where the samples of each row went, for many classes: shares of the row as colour; a cell of nothing is white.

    `counts` has the true classes as index and the predicted ones as columns.
    """
    rows, columns = counts.shape
    ax = ax or plt.subplots(figsize=(0.22 * columns + 1.8, 0.2 * rows + 1.4))[1]
    share = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    label = {"label": "share of the row", "shrink": 0.7}
    sns.heatmap(share.where(counts > 0), cmap="flare", vmin=0, vmax=1, ax=ax, cbar_kws=label, linewidths=0.2,
                linecolor="0.93", xticklabels=True, yticklabels=True)  # fmt: skip
    ax.set(xlabel=counts.columns.name or "predicted", ylabel=counts.index.name or "true", title=title)
    ax.tick_params(labelsize=7, length=0)
    return ax


def labelled_points(at: np.ndarray, y: np.ndarray, classes: list[str], ax: plt.Axes) -> plt.Axes:
    """Samples in a plane, (samples, 2), coloured by class and named at each class's median; other classes are grey."""
    colours = sns.color_palette("husl", len(classes))
    ax.scatter(*at[y >= len(classes)].T, color="0.8", s=5, lw=0)
    for k in np.unique(y[y < len(classes)]):
        ax.scatter(*at[y == k].T, color=colours[k], s=6, lw=0)
        ax.annotate(classes[k], np.median(at[y == k], axis=0), fontsize=6.5, ha="center", va="center",
                    bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.65})  # fmt: skip
    return ax


def learning_curves(table: pd.DataFrame, title: str, ax: plt.Axes | None = None) -> plt.Axes:
    """Loss by epoch, training solid and validation dashed; columns model, epoch, loss, validation loss."""
    ax = ax or plt.subplots(figsize=(5.4, 3.4))[1]
    for i, (model, points) in enumerate(table.groupby("model", sort=False)):
        ax.plot(points["epoch"], points["loss"], color=PALETTE[i], label=model)
        ax.plot(points["epoch"], points["validation loss"], color=PALETTE[i], ls="--")
    ax.plot([], [], color="0.3", ls="--", label="validation")
    ax.set(xlabel="epoch", ylabel="loss (cross-entropy)", yscale="log", title=title)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8)
    return ax


def growth(
    table: pd.DataFrame, x: str, title: str, ylabel: str, ax: plt.Axes | None = None, log: bool = True
) -> plt.Axes:
    """Values with 95 % intervals against a size on a log axis, or a linear one; columns x, model, value, low, high."""
    ax = ax or plt.subplots(figsize=(5.2, 3.4))[1]
    for i, (model, points) in enumerate(table.groupby("model", sort=False)):
        reach = points["value"] - points["low"], points["high"] - points["value"]
        places = points[x] * (1 + 0.02 * i) if log else points[x]
        ax.errorbar(places, points["value"], reach, marker="o", capsize=3, label=model)
    ax.set(xscale="log" if log else "linear", xlabel=x, ylabel=ylabel, title=title)
    if not log:
        ax.legend()
        return ax
    ax.set_xticks(sorted(table[x].unique()), [f"{size:,}" for size in sorted(table[x].unique())])
    ax.minorticks_off()
    ax.legend()
    return ax


def regularisation_path(
    table: pd.DataFrame, coefficients: np.ndarray, chosen: dict[str, float], title: str
) -> plt.Axes:
    """Coefficients (lambdas, genes) along a path; beside them, `mean` and `error` of `table` by its column `lambda`.

    `chosen` are values of lambda to mark, by name. Returns the Axes on the right.
    """
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    left.plot(table["lambda"], coefficients, lw=0.7)
    left.set(xscale="log", xlabel="λ", ylabel="coefficient of a z-scored gene", title=title)
    right.fill_between(table["lambda"], table["mean"] - table["error"], table["mean"] + table["error"], color="0.85")
    right.plot(table["lambda"], table["mean"], color=PALETTE[0])
    for style, (name, value) in zip(("-", "--", ":"), chosen.items(), strict=False):
        for ax in (left, right):
            ax.axvline(value, color="0.3", ls=style, lw=0.9, label=name)
    right.set(xscale="log", xlabel="λ", ylabel="deviance, inner folds ± 1 SE", title="Choice of λ")
    right.legend(fontsize=8)
    return right


def pairs(table: pd.DataFrame, classes: list[str], title: str, ax: plt.Axes | None = None) -> plt.Axes:
    """Every pair of classes: below the diagonal the AUC between them, above it the genes that differ.

    `table` has columns first, second, AUC, genes, as `explain.compare_pairs` and `linear.pair_auc` give.
    """
    ax = ax or plt.subplots(figsize=(4.6, 3.6))[1]
    colour, text = (pd.DataFrame(index=classes, columns=classes, dtype=kind) for kind in (float, object))
    for row in table.itertuples():
        colour.loc[row.second, row.first], text.loc[row.second, row.first] = row.AUC, f"{row.AUC:.2f}"
        colour.loc[row.first, row.second], text.loc[row.first, row.second] = 0.5, f"{row.genes:,}"
    label = {"label": "AUC between two classes"}
    sns.heatmap(colour, annot=text.fillna(""), fmt="", cmap="Blues", vmin=0.5, vmax=1, ax=ax, cbar_kws=label)
    ax.set(title=title, xlabel="below the diagonal: AUC; above: genes that differ")
    ax.tick_params(axis="y", rotation=0)
    return ax
