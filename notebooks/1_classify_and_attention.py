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
# # Classify images, and look at attention
#
# From an official PyTorch file to a MindSpore checkpoint, with proof that both give the same numbers. Then what a model says of
# images, where it looks, and whether that is what it decides by.
#
# Nothing is downloaded: the images come with scikit-learn. It takes one to two minutes on two CPU cores.

# %%
import sys

if "google.colab" in sys.modules:  # elsewhere: pip install '.[all]' jupyter, in a clone of the project
    import subprocess

    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "mindeit[all]"], check=True)  # or a clone's path

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Image as Picture
from sklearn.datasets import load_sample_image

import mindeit
from mindeit.data import open_source
from mindeit.predict.attention_figure import enlarged, overlay
from mindeit.predict.attention_maps import class_token_heads, rollout, unnormalised
from mindeit.torch_reference.build import build_reference

plt.rcParams.update({"figure.dpi": 80, "font.size": 10})

# %% [markdown]
# ## Convert an official file, with proof
#
# With a network, one line downloads, checks and converts the published weights:
#
# ```python
# predictor = mindeit.Predictor("deit_tiny_patch16_224")
# ```
#
# Here there may be none, so we make a file of the same format: the PyTorch twin of DeiT-tiny, with **random** weights. It
# knows nothing, but a conversion can be proven on any weights.

# %%
torch.manual_seed(0)
twin = build_reference("deit_tiny_patch16_224", num_classes=1000, image_size=224)
torch.save({"model": twin.state_dict()}, "deit_tiny.pth")

# %% language="bash"
# mindeit convert --input deit_tiny.pth --output deit_tiny.ckpt --verify True 2>&1

# %% [markdown]
# The report compares logits of both frameworks on the same images, and the output of every block. Gaps are in units of the
# logits' standard deviation. Above the limit nothing would have been written, and the first block that departs would be named.
#
# The same on two photographs, by hand. The guesses are the nonsense that random weights give, the best of a thousand
# classes gets about 1 %. What counts is that both frameworks agree on it.

# %%
predictor = mindeit.Predictor("deit_tiny.ckpt")
photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
pixels = np.stack([predictor.pixels(photo) for photo in photos])
with torch.inference_mode():
    theirs = twin(torch.from_numpy(pixels)).numpy()
ours = predictor.logits(pixels)
print(f"largest difference of logits: {abs(ours - theirs).max() / theirs.std():.1e} of their spread")

figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.6), layout="constrained")
for axis, image, guesses in zip(axes, pixels, predictor.predict(photos, top_k=1)):
    axis.imshow(unnormalised(image, predictor.card.mean, predictor.card.std))
    axis.set_title(f"random weights say: {guesses[0].name}, {guesses[0].score:.1%}", fontsize=9)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## A model that has learned something
#
# A small DeiT III (four blocks of four heads) learns scikit-learn's digits: 1,437 scans of 8 x 8 pixels, enlarged to 32, in
# patches of 8. Few epochs are enough to see something; `configs/deit_digits_cpu.yaml` has a recipe that reaches 98 %.

# %% language="bash"
# mindeit train -c deit3_digits_cpu --image_size 32 --epoch_size 8 --warmup_epochs 1 --val_interval 2 --log_interval 1000 \
#     --report False --ckpt_save_dir digits 2>&1

# %% [markdown]
# A predictor takes paths, URLs, Pillow images or arrays. Below are held-out digits, and what the model says: twelve that are right,
# and in red four that are wrong. `mindeit predict --ckpt_path digits/best_ema.ckpt FILE ...` does the same for files.

# %%
predictor = mindeit.Predictor("digits/best_ema.ckpt")
held_out = open_source("digits", None, "val")
images = [held_out.read(number) for number in range(len(held_out))]
pixels = np.stack([predictor.prepare(image) for image in images])
logits = predictor.logits(pixels)
right = logits.argmax(1) == held_out.labels
print(f"right: {right.sum()} of {len(right)} held-out digits, {right.mean():.1%}")

shown = [*np.flatnonzero(right)[:12], *np.flatnonzero(~right)[:4]]
figure, axes = plt.subplots(2, 8, figsize=(9, 3), layout="constrained")
for axis, number in zip(axes.flat, shown):
    best = predictor.best(logits[number], top_k=1)[0]
    axis.imshow(images[number])
    axis.set_title(f"{best.name}, {best.score:.0%}", color="black" if right[number] else "crimson")
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Where it looks
#
# One command draws it: the image, attention *rollout* (attention followed through all blocks), and each head of the last block,
# as the class token sees the patches.

# %%
images[shown[0]].save("digit.png")

# %% language="bash"
# mindeit predict digit.png --ckpt_path digits/best_ema.ckpt --top_k 3 --attention maps 2>&1

# %%
Picture("maps/digit_attention.png", width=520)

# %% [markdown]
# In Python the weights of all blocks are arrays, (heads, tokens, tokens) for each block. Rows are the four blocks, columns
# their heads: where the class token looks, each map scaled by its own range.

# %%
number = shown[0]
blocks, extra = predictor.attentions(pixels[number]), predictor.model.extra_tokens
picture = enlarged(unnormalised(pixels[number], predictor.card.mean, predictor.card.std))
figure, axes = plt.subplots(4, 4, figsize=(5.6, 5.8), layout="constrained")
for row, block in enumerate(blocks):
    for column, values in enumerate(class_token_heads(block, extra)):
        axes[row, column].imshow(overlay(picture, values))
        axes[row, column].set(title=f"block {row}, head {column}")
        axes[row, column].title.set_fontsize(8)
        axes[row, column].axis("off")
plt.show()

# %% [markdown]
# Rollout of eight digits, above them the digits themselves:


# %%
def rollouts(numbers):
    blocks = predictor.attentions_of(pixels[numbers])
    return [rollout(of_one, extra) for of_one in zip(*blocks)]


figure, axes = plt.subplots(2, 8, figsize=(9, 2.5), layout="constrained")
for column, (number, values) in enumerate(zip(shown, rollouts(shown[:8]))):
    picture = enlarged(unnormalised(pixels[number], predictor.card.mean, predictor.card.std))
    axes[0, column].imshow(picture)
    axes[1, column].imshow(overlay(picture, values))
for axis in axes.flat:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Is it what the model decides by?
#
# A map shows where weights are high, which need not be what decides. Some maps above light up empty corners. A test: black out the
# patch that rollout names first, or the one that it names last, in 120 digits that were right, and count how many still are.

# %%
grid = 4  # patches a side
size = pixels.shape[-1] // grid
black = -np.array(predictor.card.mean) / np.array(predictor.card.std)
chosen = np.flatnonzero(right)[:120]
ranks = np.stack([np.argsort(values.ravel()) for values in rollouts(chosen)])
hidden = {
    "the patch with most attention": ranks[:, -1],
    "the patch with least attention": ranks[:, 0],
    "a patch by chance": np.random.default_rng(0).integers(0, grid**2, len(chosen)),
}
for name, patches in hidden.items():
    changed = pixels[chosen].copy()
    for image, patch in zip(changed, patches):
        top, left = size * (patch // grid), size * (patch % grid)
        image[:, top : top + size, left : left + size] = black[:, None, None]
    still = (predictor.logits(changed).argmax(1) == held_out.labels[chosen]).mean()
    print(f"without {name:31} {still:6.1%} still right")

# %% [markdown]
# Without the patch that rollout names first, about one answer in five is lost; without a patch by chance, or the one that it names
# last, one in twenty. So rollout points at something that counts. But four of five answers survive the loss of what it
# names first: a map is a hint, and no explanation.
