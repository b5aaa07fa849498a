"""Options of MindCV and the official code that do not exist here: accepted if harmless, else explained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mindeit.config.options import Text, split_list
from mindeit.errors import nearest, shorten


@dataclass(frozen=True)
class ForeignOption:
    """A key of another project.

    ``here``: the equivalent options of this project. ``harmless``: values that ask for what happens here anyway, None
    for any value; the key is then accepted, and named in a note. ``why``: the message for other values.
    """

    here: str = ""
    harmless: tuple[str, ...] | None = ()
    why: str = ""


# config.py of MindCV. Its other keys are keys here, by that name or as an alias.
MINDCV = {
    "dataset_download": ForeignOption(harmless=("False",), why="data is never downloaded; unpack it in data_dir"),
    "shuffle": ForeignOption(harmless=("True",), why="training draws a new order each epoch"),
    "num_samples": ForeignOption(harmless=("None", ""), why="all images of the folder are used; take some away"),
    "drop_remainder": ForeignOption(harmless=("True",), why="training takes whole batches, evaluation every image"),
    "aug_splits": ForeignOption(harmless=("0",), why="AugMix's splits are not built"),
    "re_scale": ForeignOption(
        harmless=("0.02, 0.33", "0.02, 0.3333"), why="erased boxes take 0.02 to 0.33 of an image"
    ),
    "re_ratio": ForeignOption(
        harmless=("0.3, 3.3", "0.3, 3.33", "0.3, 3.333"), why="erased boxes are 0.3 to 3.3 wide by high"
    ),
    "re_max_attempts": ForeignOption(harmless=None),
    "in_channels": ForeignOption(harmless=("3",), why="images are read as RGB"),
    "resume_opt": ForeignOption(harmless=("False",), why="--resume FILE goes on with optimizer and learning rate"),
    "ckpt_save_policy": ForeignOption(harmless=None),
    "dataset_sink_mode": ForeignOption(harmless=None),
    "weight_decay_filter": ForeignOption(harmless=("auto", "norm_and_bias"), why="decay falls on matrices alone"),
    "num_cycles": ForeignOption(harmless=("1",), why="the learning rate falls once"),
    "cycle_decay": ForeignOption(harmless=("1",), why="the learning rate falls once"),
    "aux_factor": ForeignOption(harmless=("0",), why="no model here has an auxiliary head"),
    "reduction": ForeignOption(harmless=("mean",), why="the loss is the mean over the images"),
    "val_amp_level": ForeignOption(harmless=None),
    "amp_cast_list": ForeignOption(harmless=("None", ""), why="amp_level settles what is float16"),
    "drop_overflow_update": ForeignOption(harmless=None),
    "eval_shuffle": ForeignOption(harmless=None),
}

# main.py of facebookresearch/deit. Its other options are options here, by that name or as an alias.
OFFICIAL = {
    "epochs": ForeignOption("--epoch_size"),
    "bce_loss": ForeignOption("--loss BCE --bce_target_threshold 0"),
    "input_size": ForeignOption("--image_size"),
    "drop": ForeignOption("--drop_rate"),
    "drop_path": ForeignOption("--drop_path_rate"),
    "model_ema": ForeignOption("--ema"),
    "no_model_ema": ForeignOption("--ema False"),
    "model_ema_decay": ForeignOption("--ema_decay"),
    "model_ema_force_cpu": ForeignOption(why="the average stays beside the weights"),
    "opt_eps": ForeignOption("--eps"),
    "opt_betas": ForeignOption("--betas"),
    "sched": ForeignOption("--scheduler"),
    "lr_noise": ForeignOption(why="no published recipe uses noise on the learning rate"),
    "lr_noise_pct": ForeignOption(why="no published recipe uses noise on the learning rate"),
    "lr_noise_std": ForeignOption(why="no published recipe uses noise on the learning rate"),
    "cooldown_epochs": ForeignOption(harmless=None),
    "patience_epochs": ForeignOption(why="it belongs to the plateau schedule, which main.py gives nothing to judge by"),
    "dr": ForeignOption("--decay_rate"),
    "aa": ForeignOption("--auto_augment"),
    "smoothing": ForeignOption("--label_smoothing"),
    "train_interpolation": ForeignOption("--interpolation"),
    "repeated_aug": ForeignOption("--aug_repeats 3"),
    "no_repeated_aug": ForeignOption("--aug_repeats 0"),
    "no_train_mode": ForeignOption("--train_mode False"),
    "ThreeAugment": ForeignOption("--auto_augment 3-augment"),
    "reprob": ForeignOption("--re_prob"),
    "remode": ForeignOption("--re_value"),
    "recount": ForeignOption("--re_count"),
    "resplit": ForeignOption(harmless=None),
    "mixup_switch_prob": ForeignOption("--switch_prob"),
    "teacher_model": ForeignOption("--teacher"),
    "teacher_path": ForeignOption("--teacher_ckpt_path"),
    "finetune": ForeignOption("--ckpt_path"),
    "data_path": ForeignOption("--data_dir"),
    "data_set": ForeignOption("--dataset"),
    "inat_category": ForeignOption(harmless=("name",), why="the classes are iNaturalist's species"),
    "output_dir": ForeignOption("--ckpt_save_dir"),
    "device": ForeignOption("--device_target"),
    "start_epoch": ForeignOption(why="--resume FILE knows its epoch"),
    "eval": ForeignOption("validate.py --ckpt_path FILE"),
    "eval_crop_ratio": ForeignOption("--crop_pct"),
    "dist_eval": ForeignOption(harmless=None),
    "num_workers": ForeignOption("--num_parallel_workers"),
    "pin_mem": ForeignOption(harmless=None),
    "no_pin_mem": ForeignOption(harmless=None),
    "world_size": ForeignOption(why="mpirun -n N starts N ranks"),
    "dist_url": ForeignOption(why="mpirun, msrun or srun connect the ranks"),
}
FOREIGN = {**OFFICIAL, **MINDCV}


def is_harmless(name: str, text: Text | None) -> bool:
    """Whether a key of another project asks for what happens here anyway."""
    row = FOREIGN.get(name)
    if row is None or row.here or text is None:
        return False
    return row.harmless is None or any(_meaning(text) == _meaning(value) for value in row.harmless)


def mistake(kind: str, name: str, text: Text | None, known: Iterable[str]) -> str:
    """The message for an unknown key; ``kind`` is "key" or "option"."""
    word = name.lstrip("-").replace("-", "_")
    row, unknown = FOREIGN.get(word), f"unknown {kind} '{shorten(name)}'"
    if row is None:
        return unknown + nearest(word, known)
    if row.here:
        return f"{unknown}; here: {row.here}"
    given = text if isinstance(text, str) else f"[{', '.join(text or ())}]"
    return f"{name} is '{shorten(given)}'; not here: {row.why}" if row.harmless else f"{unknown}; not here: {row.why}"


def _meaning(text: Text) -> tuple:
    """1.0 and 1 mean the same, and so do True and true."""
    words = split_list(text) if isinstance(text, str) else text
    return tuple(float(word) if word.replace(".", "", 1).isdecimal() else word.lower() for word in words)
