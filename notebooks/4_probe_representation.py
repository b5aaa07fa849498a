# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What a vision transformer has learned
#
# How far its heads look, what its position table and its first filters hold, and what its features know. The probes are those of
# the ViT paper ([arXiv 2010.11929](https://arxiv.org/abs/2010.11929)) and of Keras' tutorial *Investigating Vision
# Transformer representations*; they take any DeiT of this project.
#
# Nothing is downloaded: a small model learns scikit-learn's digits first; all takes one to two minutes on two CPU cores. With a network,
# `mindeit.Predictor("deit_base_patch16_224")` takes its place, and photographs that of the digits.

# %%
import sys

if "google.colab" in sys.modules:  # elsewhere: pip install '.[all]' jupyter, in a clone of the project
    import subprocess

    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "mindeit[all]"], check=True)  # or a clone's path

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.manifold import TSNE

import mindeit
from mindeit.data import open_source
from mindeit.predict.embed import embed
from mindeit.predict.probe import probe
from mindeit.predict.representation import attention_distances, even_distance, position_similarities, principal_filters

plt.rcParams.update({"figure.dpi": 80, "font.size": 10})

# %% [markdown]
# ## A model to look into
#
# A small DeiT III: four blocks of four heads, scans of 8 x 8 pixels enlarged to 32, patches of 8.

# %% language="bash"
# set -e -o pipefail
# mindeit train -c deit3_digits_cpu --image_size 32 --epoch_size 8 --warmup_epochs 1 --val_interval 2 --log_interval 1000 \
#     --report False --ckpt_save_dir digits 2>&1 | grep -E "^(data|model|done)|Acc@1"

# %% [markdown]
# Beside it stands the same model untrained: what both show alike is no sign of learning.

# %%
np.random.seed(0)  # fresh weights are drawn from it
trained = mindeit.Predictor("digits/best_ema.ckpt")
untrained = mindeit.Predictor(mindeit.create_model(trained.card.model, num_classes=10))
models = {"trained": trained, "untrained": untrained}
parts = {name: open_source("digits", None, name) for name in ("train", "val")}
images = np.stack([trained.prepare(parts["val"].read(number)) for number in range(100)])

# %% [markdown]
# ## How far heads look
#
# The mean distance from a patch to the patches that it attends to, of each head (a dot) in each block, over 100 digits. The dashed
# line is a head that looks at all patches alike. The axis does not start at zero.

# %%
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
patch, grid = 8, 4
for axis, (name, predictor) in zip(axes, models.items()):
    distances = attention_distances(predictor.attentions_of(images), patch)
    for block, heads in enumerate(distances):
        axis.plot([block] * len(heads), heads, "o", color="tab:blue", alpha=0.6)
    axis.axhline(even_distance(grid, patch), color="grey", linestyle="--", linewidth=1, label="looks at all alike")
    axis.set(title=name, xlabel="block", xticks=range(len(distances)))
axes[0].set_ylabel("mean attention distance, pixels")
axes[1].legend()
plt.show()

# %% [markdown]
# Untrained heads look at all patches nearly alike. Training has given the heads views of their own, but small ones: all stay within half
# a pixel of the dashed line, so none is local. In a ViT trained on many images, the first blocks have heads that look nearby, and the
# last ones look far; a thousand digits and a grid of 4 x 4 patches do not get there.

# %% [markdown]
# ## What the position table knows
#
# Each small map belongs to one patch, and shows how much its position vector is like that of every patch (cosine).

# %%
figure, outer = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
figure.get_layout_engine().set(wspace=0.12)
for axis, (name, predictor) in zip(outer, models.items()):
    maps = position_similarities(predictor.model.pos_embed.asnumpy())
    canvas = np.full((grid * (grid + 1) - 1,) * 2, np.nan)
    for row, column in np.ndindex(grid, grid):
        top, left = row * (grid + 1), column * (grid + 1)
        canvas[top : top + grid, left : left + grid] = maps[row, column]
    shown = axis.imshow(canvas, vmin=-1, vmax=1, cmap="RdBu_r")
    axis.set_title(name)
    axis.axis("off")
figure.colorbar(shown, ax=outer, shrink=0.8, label="cosine")
plt.show()

for name, predictor in models.items():
    maps = position_similarities(predictor.model.pos_embed.asnumpy())
    beside = np.mean([maps[row, column, row, column + 1] for row in range(grid) for column in range(grid - 1)])
    below = np.mean([maps[row, column, row + 1, column] for row in range(grid - 1) for column in range(grid)])
    print(f"{name:10} mean cosine of neighbours in a row {beside:5.2f}, in a column {below:5.2f}")

# %% [markdown]
# Each place is like itself (dark red), and untrained ones are like no other. After training, neighbours in a row are rather alike, and
# neighbours in a column rather opposed: the table has begun to tell rows apart. In models trained on ImageNet, likeness fades with
# distance in both directions, and rows and columns show as a cross.

# %% [markdown]
# ## What the first filters look for
#
# The patch embedding is a filter of 8 x 8 pixels for each of its 128 channels. The digits are grey, so only a filter's sum over
# the three colours matters. The first principal components of these sums, with their share of the variance:

# %%
figure, rows = plt.subplots(2, 8, figsize=(9, 2.9), layout="constrained")
for axes, (name, predictor) in zip(rows, models.items()):
    filters, shares = principal_filters(predictor.model.patch_embed.proj.weight.asnumpy().sum(1, keepdims=True), 8)
    for axis, one, share in zip(axes, filters, shares):
        axis.imshow(one, cmap="gray", vmin=0, vmax=1)
        axis.set_title(f"{share:.1%}", fontsize=8)
        axis.set(xticks=[], yticks=[])
    axes[0].set_ylabel(name)
plt.show()

# %% [markdown]
# Untrained filters are noise, and all components weigh alike. The first four trained ones are smooth: stripes and gradients that follow
# strokes, and they hold more of the variance. From the fifth on it is noise again, left from the start. Real photographs and longer
# training give the coloured edges and waves that the ViT paper shows.

# %% [markdown]
# ## What its features know
#
# The class token of the last block, of all digits. `probe` learns from the training images and is measured on the held-out ones:
# nearest neighbours and a linear classifier, without any training of the model.

# %%
tables = {name: embed(predictor, parts, shown=False)[0] for name, predictor in models.items()}
for name, table in tables.items():
    print("\n  ".join([name, *probe(table).lines()]))

# %% [markdown]
# By nearest neighbours the trained features know about nine of ten digits, untrained ones fewer than half. A linear classifier gets far
# even with untrained features, for the pixels are still in them: on its own it would be a weak proof of learning.
#
# t-SNE lays the 360 held-out digits out in the plane, neighbours near each other; colours are the true classes, which it does not see.
# Trained features form a group for most digits, with 3, 8 and 9 close together; untrained ones are mixed.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for axis, (name, table) in zip(axes, tables.items()):
    held_out = table[table.parts == "val"]
    places = TSNE(random_state=0, init="pca").fit_transform(held_out.features)
    for digit in range(10):
        chosen = held_out.labels == digit
        axis.scatter(*places[chosen].T, s=10, color=f"C{digit}", label=digit)
    axis.set(title=name, xticks=[], yticks=[])
axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), title="digit", frameon=False)
plt.show()
