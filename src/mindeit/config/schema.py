"""All keys, in groups. Names are MindCV's where MindCV has the option; defaults are the official DeiT
recipe; None means that the model, its checkpoint or the data decides."""

from __future__ import annotations

import dataclasses
from typing import Optional

from mindeit.config.options import option


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Devices and precision"""

    device_target: str = option("CPU", "where to compute", choices=("CPU", "GPU", "Ascend"))
    device_id: Optional[int] = option(None, "number of the device; None: the first one, or by rank", at_least=0)
    distributed: bool = option(False, "one process per device, by mpirun, msrun or srun", aliases=("distribute",))
    mode: int = option(0, "0: graph, 1: PyNative", choices=(0, 1), spellings={"graph": 0, "pynative": 1})
    amp_level: str = option(
        "O0",
        "precision; O0: float32, O2: float16 but for norms and losses, O3: float16, bf16: as O2 in bfloat16 (on CPU "
        "products alone)",
        choices=("O0", "O2", "O3", "bf16"),
        hint="MindCV's O1 has float16 in products alone, O2 is the nearest",
    )
    seed: int = option(0, "start of every random choice", at_least=0, below=2**32)
    num_parallel_workers: Optional[int] = option(
        None, "workers that prepare images; None: one for each core of this rank", at_least=1
    )
    python_multiprocessing: Optional[bool] = option(
        None, "workers are processes (Linux), not threads; None: where there are more than four"
    )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Data"""

    dataset: str = option(
        "image_folder",
        "kind of source; imagenet is a folder of folders too",
        spellings={
            "imagenet": "image_folder",
            "imagefolder": "image_folder",
            "tar": "webdataset",
            "imnet": "image_folder",
            "cifar": "cifar100",
            "inat": "inat2018",
            "inat19": "inat2019",
        },
        choices=(
            "image_folder",
            "cifar10",
            "cifar100",
            "inat2018",
            "inat2019",
            "mindrecord",
            "webdataset",
            "digits",
            "imagenet-real",
            "imagenet-v2",
            "imagenet-a",
            "imagenet-r",
            "imagenet-sketch",
        ),
    )
    data_dir: Optional[str] = option(None, "folder of the data")
    train_split: str = option("train", "its part for training, whose folders number the classes")
    val_split: str = option("val", "its part for evaluation")
    by_amount: bool = option(False, "settings that nobody chose follow the number of images (docs/finetune.md)")
    held_out: float = option(
        0.2, "share of each class that is held out of a folder without train and val", above=0, below=1
    )
    split_file: Optional[str] = option(
        None, "its division, split.csv of an earlier run; None: that beside the checkpoint, or a new one"
    )
    label_file: Optional[str] = option(None, "lines of 'image label', for a flat folder of images")
    batch_size: int = option(128, "images per device and step", at_least=1)
    image_size: Optional[int] = option(
        None, "pixels a side; None: the model's own", at_least=1, aliases=("image_resize",)
    )
    crop_pct: Optional[float] = option(
        None, "share of the side that evaluation keeps; None: the model's own", above=0, at_most=1
    )
    interpolation: Optional[str] = option(
        None,
        "resizing; random: one of the two for each training image, bicubic in evaluation; None: the "
        "checkpoint's, or bicubic",
        choices=("bicubic", "bilinear", "random"),
    )
    mean: Optional[tuple[float, float, float]] = option(
        None, "taken off each channel; None: the model's own", at_least=0, at_most=1, of_255=True
    )
    std: Optional[tuple[float, float, float]] = option(
        None, "each channel is divided by; None: the model's own", above=0, at_most=1, of_255=True
    )
    check_images: bool = option(False, "look at every image first: damage, duplicates, leaks; data.json holds it all")
    skip_bad_images: bool = option(False, "go on past unreadable images, count and list them")


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Augmentation"""

    scale: tuple[float, float] = option(
        (0.08, 1.0), "area of the random crop, as a share", above=0, at_most=1, ascending=True
    )
    ratio: tuple[float, float] = option((0.75, 4 / 3), "width by height of the random crop", above=0, ascending=True)
    simple_random_crop: bool = option(False, "resize, pad and crop instead of a crop of random area", aliases=("src",))
    hflip: float = option(0.5, "probability of a horizontal flip", at_least=0, at_most=1)
    vflip: float = option(0.0, "probability of a vertical flip", at_least=0, at_most=1)
    auto_augment: Optional[str] = option(
        "rand-m9-mstd0.5-inc1", "rand-mM-mstdS-incI (randaug-... is the same), original, v0, 3-augment or None"
    )
    color_jitter: float = option(
        0.3,
        "strength, without auto_augment or with 3-augment",
        at_least=0,
        equals=True,
        hint="one strength counts for brightness, contrast and saturation",
    )
    re_prob: float = option(0.25, "probability of random erasing", at_least=0, at_most=1)
    re_value: str = option(
        "pixel",
        "what fills the erased box: noise per pixel, one random colour, black",
        choices=("pixel", "rand", "const"),
        spellings={"random": "pixel", "0": "const"},
    )
    re_count: int = option(1, "most boxes erased in an image", at_least=1)
    aug_repeats: int = option(3, "repeated augmentation: views of an image in an epoch; 0 or 1: off", at_least=0)
    mixup: float = option(0.8, "alpha of mixup; 0: off", at_least=0)
    cutmix: float = option(1.0, "alpha of CutMix; 0: off", at_least=0)
    cutmix_minmax: Optional[tuple[float, float]] = option(
        None,
        "CutMix by sides drawn between these shares of the image's, instead of by alpha",
        above=0,
        below=1,
        ascending=True,
    )
    mixup_prob: float = option(1.0, "probability of mixup or CutMix", at_least=0, at_most=1, aliases=("cutmix_prob",))
    switch_prob: float = option(0.5, "probability of CutMix where both are on", at_least=0, at_most=1)
    mixup_mode: str = option("batch", "lambda per batch, pair or image", choices=("batch", "pair", "elem"))
    mixup_off_epoch: int = option(0, "no mixup and CutMix from this epoch on; 0: never", at_least=0)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Model"""

    model: Optional[str] = option(None, "name of the model; None: the checkpoint's")
    plugin: tuple[str, ...] = option((), "Python files of your own that register models (mindeit.register_model)")
    num_classes: Optional[int] = option(None, "classes; None: the checkpoint's or the data's", at_least=1)
    pretrained: bool = option(False, "start from the official weights, downloaded once")
    ckpt_path: Optional[str] = option(
        None, "start from these weights (.ckpt, .safetensors, official .pth, timm's folder, hf://owner/name)"
    )
    use_ema: bool = option(False, "take the averaged weights of that checkpoint")
    no_check: bool = option(False, "take files that do not match their digest", aliases=("no-check",))
    drop_rate: float = option(0.0, "dropout", at_least=0, below=1)
    drop_path_rate: float = option(0.1, "stochastic depth", at_least=0, below=1)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Training run"""

    train_mode: bool = option(True, "False: dropout and drop path stay off in training (384 fine-tuning)")
    attn_only: bool = option(False, "train only attention, head and position table")
    freeze: tuple[str, ...] = option((), "names, or beginnings of names, of parameters that stay as they are")
    sync_bn: Optional[bool] = option(
        None, "batch norm's statistics over all ranks; None: where the official code has it, in the hMLP stem"
    )
    recompute: bool = option(False, "less memory, slower: compute blocks' activations again for the backward pass")
    compile_cache: Optional[str] = option(None, "folder that keeps compiled graphs for the next run")
    log_interval: int = option(100, "steps between two lines of progress", at_least=1)


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Loss and distillation"""

    loss: str = option("CE", "cross entropy, or binary cross entropy per class", choices=("CE", "BCE"))
    label_smoothing: float = option(0.1, "share of the target spread over all classes", at_least=0, below=1)
    bce_target_threshold: Optional[float] = option(
        None, "BCE: targets above it become 1, others 0; None: as they are", at_least=0, below=1
    )
    class_weights: tuple[str, ...] = option(
        (), "the classes' weights: balanced (the rarer the heavier), or a number for each class"
    )
    cosub: bool = option(False, "two submodels, drawn by drop path, teach each other")
    distillation_type: str = option("none", "how the teacher is followed", choices=("none", "soft", "hard"))
    distillation_alpha: float = option(0.5, "weight of the teacher's part", at_least=0, at_most=1)
    distillation_tau: float = option(1.0, "temperature of soft distillation", above=0)
    distillation_reduction: str = option(
        "official",
        "soft: divide by batch times classes, as upstream, or by the batch",
        choices=("official", "batchmean"),
    )
    teacher: Optional[str] = option(None, "name of the teacher's model; None: its checkpoint's, or regnety_160")
    teacher_ckpt_path: Optional[str] = option(
        None, "the teacher's weights, or an .onnx or .mindir file; None: the official file, downloaded once"
    )
    teacher_size: Optional[int] = option(None, "pixels a side that a foreign .onnx teacher takes", at_least=1)
    teacher_mean: Optional[tuple[float, float, float]] = option(
        None, "taken off each channel for a foreign .onnx teacher", at_least=0, at_most=1, of_255=True
    )
    teacher_std: Optional[tuple[float, float, float]] = option(
        None, "each channel is divided by for a foreign .onnx teacher", above=0, at_most=1, of_255=True
    )


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimizer"""

    opt: str = option(
        "adamw", "optimizer", choices=("adamw", "lamb", "sgd", "adan", "lion"), spellings={"momentum": "sgd"}
    )
    weight_decay: float = option(0.05, "decay, of matrices only", at_least=0)
    eps: float = option(1e-8, "added to the denominator", above=0)
    betas: Optional[tuple[float, ...]] = option(None, "moments' decay; None: the optimizer's own", at_least=0, below=1)
    momentum: float = option(0.9, "of sgd", at_least=0, below=1)
    nesterov: bool = option(True, "sgd looks ahead, as PyTorch's with nesterov=True", aliases=("use_nesterov",))
    layer_decay: Optional[float] = option(
        None, "learning rate of a layer over that of the next; None: 1", above=0, at_most=1
    )
    clip_grad: bool = option(False, "clip gradients", hint="the norm is --clip_value")
    clip_mode: str = option("norm", "by their common norm, or value by value", choices=("norm", "value"))
    clip_value: float = option(1.0, "where they are clipped", above=0)
    gradient_accumulation_steps: int = option(1, "batches before an update", at_least=1)
    loss_scale_type: str = option(
        "dynamic", "scaling of the loss in float16", choices=("dynamic", "fixed"), spellings={"auto": "dynamic"}
    )
    loss_scale: float = option(65536.0, "that scale, at first", above=0)
    ema: bool = option(True, "average the weights, evaluate the average alongside")
    ema_decay: float = option(0.99996, "of that average", at_least=0, below=1)
    ema_warmup: Optional[bool] = option(
        None, "a decay of at most (1 + n) / (10 + n) after n updates; None: in runs of fewer than 20,000"
    )


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Epochs and learning rate"""

    epoch_size: int = option(300, "epochs", at_least=1)
    scheduler: str = option(
        "cosine_decay",
        "course of the learning rate",
        choices=("cosine_decay", "step_decay", "multi_step_decay", "constant"),
        spellings={
            "cosine": "cosine_decay",
            "warmup_cosine_decay": "cosine_decay",
            "step": "step_decay",
            "multistep": "multi_step_decay",
        },
    )
    lr: float = option(5e-4, "learning rate for 512 images a step; times the whole batch / 512", above=0)
    unscale_lr: bool = option(False, "take lr as it is, whatever the batch")
    min_lr: float = option(1e-5, "where cosine_decay ends (as it is)", at_least=0)
    warmup_lr: float = option(1e-6, "where warm-up starts (as it is)", at_least=0)
    warmup_factor: Optional[float] = option(
        None, "where warm-up starts, as a share of lr, instead of warmup_lr", at_least=0, at_most=1
    )
    warmup_epochs: int = option(5, "epochs of linear warm-up", at_least=0)
    lr_epoch_stair: bool = option(True, "one learning rate an epoch; False: one a step")
    decay_epochs: int = option(30, "step_decay: epochs between two steps", at_least=1)
    multi_step_decay_milestones: tuple[int, ...] = option(
        (30, 60, 90), "multi_step_decay: epochs with a step", at_least=1, ascending=True, aliases=("decay_milestones",)
    )
    decay_rate: float = option(0.1, "step_decay, multi_step_decay: factor of a step", above=0, at_most=1)
    val_while_train: bool = option(True, "evaluate during training")
    val_interval: int = option(1, "epochs between two evaluations", at_least=1)
    patience: Optional[int] = option(
        None, "stop after so many evaluations in a row without a better accuracy; None: train to the end", at_least=1
    )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints"""

    ckpt_save_dir: str = option("outputs", "folder of checkpoints, history and curves")
    ckpt_save_interval: int = option(1, "epochs between two checkpoints", at_least=1)
    ckpt_save_steps: Optional[int] = option(
        None, "updates between two saves of last.ckpt inside epochs; None: at their ends only", at_least=1
    )
    keep_checkpoint_max: int = option(3, "numbered checkpoints kept (besides last and best)", at_least=1)
    tracker: tuple[str, ...] = option(
        ("tensorboard",),
        "where each epoch's figures are shown, besides history.jsonl and curves.png",
        choices=("tensorboard", "wandb", "swanlab"),
    )
    report: bool = option(True, "write report.html at the end: the run and its best weights on one page")
    resume: Optional[str] = option(None, "continue: a checkpoint, or auto for the newest sound one in ckpt_save_dir")
