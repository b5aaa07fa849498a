"""Options of MindCV, timm and the official code that do not exist here: accepted if harmless, else explained."""

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

ONE_SIZE = ForeignOption(why="a run has one size; the next goes on at another (--ckpt_path FILE --image_size N)")
OF_PYTORCH = ForeignOption(harmless=None)  # how PyTorch computes, not what
# train.py of timm. Its other options are options here or of the official code, by that name or as an alias.
TIMM = {
    "data": ForeignOption("--data_dir"),
    "class_map": ForeignOption(why="classes are the folders, in the order of their names"),
    "input_img_mode": ForeignOption(harmless=("RGB",), why="images are read as RGB"),
    "in_chans": ForeignOption(harmless=("3",), why="images are read as RGB"),
    "pretrained_path": ForeignOption("--ckpt_path"),
    "initial_checkpoint": ForeignOption("--ckpt_path"),
    "no_resume_opt": ForeignOption("--ckpt_path FILE, which starts a new run from its weights"),
    "gp": ForeignOption(why="a model pools as it was published"),
    "img_size": ForeignOption("--image_size"),
    "validation_batch_size": ForeignOption(harmless=None),
    "grad_accum_steps": ForeignOption("--gradient_accumulation_steps"),
    "grad_checkpointing": ForeignOption("--recompute True"),
    "amp": ForeignOption("--amp_level O2"),
    "amp_dtype": ForeignOption("--amp_level O2 or bf16"),
    "model_dtype": ForeignOption("--amp_level O3"),
    "sched_on_updates": ForeignOption("--lr_epoch_stair False"),
    "lr_k_decay": ForeignOption(harmless=("1.0",), why="the cosine has its usual form"),
    "epoch_repeats": ForeignOption(harmless=("0",), why="an epoch takes each image once, or --aug_repeats times"),
    "warmup_prefix": ForeignOption(harmless=("False",), why="epochs of warm-up are a part of epoch_size"),
    "no_aug": ForeignOption(why="each augmentation has its switch: --auto_augment None --hflip 0 --re_prob 0 ..."),
    "train_crop_mode": ForeignOption(harmless=("rrc",), why="the other crop is --simple_random_crop True"),
    "color_jitter_prob": ForeignOption("--auto_augment 3-augment --color_jitter"),
    "grayscale_prob": ForeignOption("--auto_augment 3-augment"),
    "gaussian_blur_prob": ForeignOption("--auto_augment 3-augment"),
    "jsd_loss": ForeignOption(harmless=("False",), why="AugMix's splits are not built"),
    "bce_sum": ForeignOption(harmless=("False",), why="the loss is the mean over images and classes"),
    "bce_target_thresh": ForeignOption("--bce_target_threshold"),
    "bce_pos_weight": ForeignOption(why="--class_weights weighs the classes"),
    "drop_connect": ForeignOption("--drop_path_rate"),
    "drop_block": ForeignOption(harmless=("0",), why="no model here has it"),
    "dist_bn": ForeignOption(why="--sync_bn True takes the statistics of all ranks"),
    "split_bn": ForeignOption(harmless=("False",), why="AugMix's splits are not built"),
    "model_ema_warmup": ForeignOption("--ema_warmup True"),
    "recovery_interval": ForeignOption("--ckpt_save_steps"),
    "checkpoint_hist": ForeignOption("--keep_checkpoint_max"),
    "workers": ForeignOption("--num_parallel_workers"),
    "save_images": ForeignOption(why="report.html shows augmented images"),
    "output": ForeignOption("--ckpt_save_dir"),
    "experiment": ForeignOption("--ckpt_save_dir"),
    "eval_metric": ForeignOption(harmless=("top1",), why="the best weights are those of the best top-1"),
    "tta": ForeignOption("validate.py --tta flip or 5crop"),
    "log_wandb": ForeignOption("--tracker wandb"),
    "wandb_project": ForeignOption(why="the variable WANDB_PROJECT names it"),
    "wandb_tags": ForeignOption(why="the variable WANDB_TAGS names them"),
    "wandb_resume_id": ForeignOption(why="a resumed run goes on under its name"),
    "kd_model_name": ForeignOption("--teacher"),
    "kd_distill_type": ForeignOption("--distillation_type soft or hard; a distilled model has the token"),
    "kd_token_distill_type": ForeignOption("--distillation_type"),
    "kd_loss_type": ForeignOption(harmless=("kl",), why="the teacher is followed by divergence or by its label"),
    "kd_temperature": ForeignOption("--distillation_tau"),
    "distill_loss_weight": ForeignOption("--distillation_alpha"),
    "task_loss_weight": ForeignOption("--distillation_alpha, of which the rest is the task's"),
    **dict.fromkeys(
        ("train_num_samples", "val_num_samples", "train_batches_per_epoch", "train_steps_per_epoch"),
        ForeignOption(why="all images of the folder are used; take some away"),
    ),
    **dict.fromkeys(
        ("input_key", "target_key", "dataset_trust_remote_code"), ForeignOption(why="data are files, not on a hub")
    ),
    **dict.fromkeys(
        ("model_kwargs", "opt_kwargs", "head_init_scale", "head_init_bias"),
        ForeignOption(why="each setting has an option; a model of your own comes by --plugin FILE"),
    ),
    **dict.fromkeys(
        ("layer_decay_min_scale", "layer_decay_no_opt_scale"),
        ForeignOption(why="each layer's rate is layer_decay times that of the next"),
    ),
    **dict.fromkeys(
        ("lr_base", "lr_base_size", "lr_base_scale"),
        ForeignOption("--lr, which is for 512 images a step and grows with them; --unscale_lr True takes it as it is"),
    ),
    **dict.fromkeys(
        ("lr_cycle_mul", "lr_cycle_decay", "lr_cycle_limit"),
        ForeignOption(harmless=("1", "0.5"), why="the learning rate falls once"),
    ),
    **dict.fromkeys(
        ("bn_momentum", "bn_eps"), ForeignOption(why="batch norm keeps what the models were published with")
    ),
    **dict.fromkeys(
        ("kd_student_feature_dim", "kd_teacher_feature_dim"), ForeignOption(why="logits are distilled, not features")
    ),
    **dict.fromkeys(
        (
            "train_img_sizes",
            "train_batch_sizes",
            "train_size_probs",
            "train_size_schedule",
            "train_size_schedule_spread",
            "train_size_random_mix",
            "variable_batch_loss_scale",
            "naflex_loader",
            "naflex_train_seq_lens",
            "naflex_max_seq_len",
            "naflex_patch_sizes",
            "naflex_patch_size_probs",
            "naflex_loss_scale",
            "naflex_patchify_channels_first",
        ),
        ONE_SIZE,
    ),
    **dict.fromkeys(
        (
            "channels_last",
            "fuser",
            "fast_norm",
            "torchscript",
            "torchcompile",
            "torchcompile_mode",
            "no_ddp_bb",
            "synchronize_step",
            "local_rank",
            "device_modules",
            "no_prefetcher",
            "use_multi_epochs_loader",
            "worker_seeding",
        ),
        OF_PYTORCH,
    ),
}
FOREIGN = {**TIMM, **OFFICIAL, **MINDCV}


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
