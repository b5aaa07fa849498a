"""Coming from MindCV, the official repository or timm: what becomes of their keys, flags and names."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_cases import configure, mistake, mistake_in

from mindeit.config.elsewhere import FOREIGN, MINDCV, OFFICIAL, TIMM
from mindeit.config.options import keys_of
from mindeit.config.whole import SECTIONS
from mindeit.errors import UserError, nearest
from mindeit.models.registry import spec

KNOWN, ALIAS, NOTED, BY_VALUE = "a key here", "an alias here", "accepted, named in the note", "by value"
# Every flag of MindCV's config.py, and what becomes of it. BY_VALUE: accepted and noted where it asks for what happens
# anyway, else a mistake that says what happens here.
MINDCV_FLAGS = {
    "mode": KNOWN,
    "distribute": ALIAS,
    "val_while_train": KNOWN,
    "val_interval": KNOWN,
    "log_interval": KNOWN,
    "seed": KNOWN,
    "device_target": KNOWN,
    "dataset": KNOWN,
    "data_dir": KNOWN,
    "train_split": KNOWN,
    "val_split": KNOWN,
    "dataset_download": BY_VALUE,
    "num_parallel_workers": KNOWN,
    "shuffle": BY_VALUE,
    "num_samples": BY_VALUE,
    "batch_size": KNOWN,
    "drop_remainder": BY_VALUE,
    "image_resize": ALIAS,
    "scale": KNOWN,
    "ratio": KNOWN,
    "hflip": KNOWN,
    "vflip": KNOWN,
    "color_jitter": KNOWN,
    "interpolation": KNOWN,
    "auto_augment": KNOWN,
    "aug_splits": BY_VALUE,
    "re_prob": KNOWN,
    "re_scale": BY_VALUE,
    "re_ratio": BY_VALUE,
    "re_value": KNOWN,
    "re_max_attempts": NOTED,
    "mean": KNOWN,
    "std": KNOWN,
    "crop_pct": KNOWN,
    "mixup": KNOWN,
    "cutmix": KNOWN,
    "cutmix_prob": ALIAS,
    "aug_repeats": KNOWN,
    "model": KNOWN,
    "num_classes": KNOWN,
    "in_channels": BY_VALUE,
    "drop_rate": KNOWN,
    "drop_path_rate": KNOWN,
    "pretrained": KNOWN,
    "ckpt_path": KNOWN,
    "resume_opt": BY_VALUE,
    "keep_checkpoint_max": KNOWN,
    "ckpt_save_dir": KNOWN,
    "ckpt_save_interval": KNOWN,
    "ckpt_save_policy": NOTED,
    "epoch_size": KNOWN,
    "dataset_sink_mode": NOTED,
    "ema": KNOWN,
    "ema_decay": KNOWN,
    "clip_grad": KNOWN,
    "clip_value": KNOWN,
    "layer_decay": KNOWN,
    "gradient_accumulation_steps": KNOWN,
    "opt": KNOWN,
    "momentum": KNOWN,
    "weight_decay": KNOWN,
    "use_nesterov": ALIAS,
    "weight_decay_filter": BY_VALUE,
    "eps": KNOWN,
    "scheduler": KNOWN,
    "lr": KNOWN,
    "min_lr": KNOWN,
    "warmup_epochs": KNOWN,
    "warmup_factor": KNOWN,
    "decay_epochs": KNOWN,
    "decay_rate": KNOWN,
    "multi_step_decay_milestones": KNOWN,
    "lr_epoch_stair": KNOWN,
    "num_cycles": BY_VALUE,
    "cycle_decay": BY_VALUE,
    "loss": KNOWN,
    "label_smoothing": KNOWN,
    "aux_factor": BY_VALUE,
    "reduction": BY_VALUE,
    "amp_level": KNOWN,
    "val_amp_level": NOTED,
    "amp_cast_list": BY_VALUE,
    "loss_scale_type": KNOWN,
    "loss_scale": KNOWN,
    "drop_overflow_update": NOTED,
    "eval_shuffle": NOTED,
}
# Every option of the official main.py: None for one that is an option here, else what a message about it ends in
# ("" where it is accepted, since it changes nothing there either, or nothing here).
OFFICIAL_FLAGS = {
    "batch-size": None,
    "epochs": "--epoch_size",
    "bce-loss": "--loss BCE --bce_target_threshold 0",
    "unscale-lr": None,
    "model": None,
    "input-size": "--image_size",
    "drop": "--drop_rate",
    "drop-path": "--drop_path_rate",
    "model-ema": "--ema",
    "no-model-ema": "--ema False",
    "model-ema-decay": "--ema_decay",
    "model-ema-force-cpu": "the average stays beside the weights",
    "opt": None,
    "opt-eps": "--eps",
    "opt-betas": "--betas",
    "clip-grad": None,
    "momentum": None,
    "weight-decay": None,
    "sched": "--scheduler",
    "lr": None,
    "lr-noise": "no published recipe uses noise on the learning rate",
    "lr-noise-pct": "no published recipe uses noise on the learning rate",
    "lr-noise-std": "no published recipe uses noise on the learning rate",
    "warmup-lr": None,
    "min-lr": None,
    "decay-epochs": None,
    "warmup-epochs": None,
    "cooldown-epochs": "",
    "patience-epochs": "it belongs to the plateau schedule, which main.py gives nothing to judge by",
    "decay-rate": None,
    "dr": "--decay_rate",
    "color-jitter": None,
    "aa": "--auto_augment",
    "smoothing": "--label_smoothing",
    "train-interpolation": "--interpolation",
    "repeated-aug": "--aug_repeats 3",
    "no-repeated-aug": "--aug_repeats 0",
    "train-mode": None,
    "no-train-mode": "--train_mode False",
    "ThreeAugment": "--auto_augment 3-augment",
    "src": None,
    "reprob": "--re_prob",
    "remode": "--re_value",
    "recount": "--re_count",
    "resplit": "",
    "mixup": None,
    "cutmix": None,
    "cutmix-minmax": None,
    "mixup-prob": None,
    "mixup-switch-prob": "--switch_prob",
    "mixup-mode": None,
    "teacher-model": "--teacher",
    "teacher-path": "--teacher_ckpt_path",
    "distillation-type": None,
    "distillation-alpha": None,
    "distillation-tau": None,
    "cosub": None,
    "finetune": "--ckpt_path",
    "attn-only": None,
    "data-path": "--data_dir",
    "data-set": "--dataset",
    "inat-category": "the classes are iNaturalist's species",
    "output_dir": "--ckpt_save_dir",
    "device": "--device_target",
    "seed": None,
    "resume": None,
    "start_epoch": "--resume FILE knows its epoch",
    "eval": "validate.py --ckpt_path FILE",
    "eval-crop-ratio": "--crop_pct",
    "dist-eval": "",
    "num_workers": "--num_parallel_workers",
    "pin-mem": "",
    "no-pin-mem": "",
    "distributed": None,
    "world_size": "mpirun -n N starts N ranks",
    "dist_url": "mpirun, msrun or srun connect the ranks",
}
# Every option of timm's train.py, as of 1.0.29
TIMM_FLAGS = """
config gp lr data data_dir dataset train_split val_split train_num_samples val_num_samples dataset_download class_map
input_img_mode input_key target_key dataset_trust_remote_code model pretrained pretrained_path initial_checkpoint
resume no_resume_opt num_classes img_size in_chans input_size crop_pct mean std interpolation batch_size
validation_batch_size channels_last fuser grad_accum_steps grad_checkpointing fast_norm model_kwargs head_init_scale
head_init_bias torchcompile_mode torchscript torchcompile device amp amp_dtype model_dtype no_ddp_bb synchronize_step
local_rank device_modules opt opt_eps opt_betas momentum weight_decay clip_grad clip_mode layer_decay
layer_decay_min_scale layer_decay_no_opt_scale opt_kwargs sched sched_on_updates lr_base lr_base_size lr_base_scale
lr_noise lr_noise_pct lr_noise_std lr_cycle_mul lr_cycle_decay lr_cycle_limit lr_k_decay warmup_lr min_lr epochs
epoch_repeats start_epoch decay_milestones decay_epochs warmup_epochs warmup_prefix cooldown_epochs patience_epochs
decay_rate dr no_aug train_crop_mode scale ratio hflip vflip color_jitter color_jitter_prob grayscale_prob
gaussian_blur_prob aug_repeats aug_splits jsd_loss bce_loss bce_sum bce_target_thresh bce_pos_weight reprob remode
recount resplit mixup cutmix cutmix_minmax mixup_prob mixup_switch_prob mixup_mode mixup_off_epoch smoothing
train_interpolation drop drop_connect drop_path drop_block bn_momentum bn_eps sync_bn dist_bn split_bn model_ema
model_ema_force_cpu model_ema_decay model_ema_warmup seed worker_seeding log_interval val_interval recovery_interval
checkpoint_hist workers save_images pin_mem no_prefetcher output experiment eval_metric tta use_multi_epochs_loader
log_wandb wandb_project wandb_tags wandb_resume_id train_img_sizes train_batch_sizes train_size_probs
train_size_schedule train_size_schedule_spread train_size_random_mix train_batches_per_epoch train_steps_per_epoch
variable_batch_loss_scale naflex_loader naflex_train_seq_lens naflex_max_seq_len naflex_patch_sizes
naflex_patch_size_probs naflex_loss_scale naflex_patchify_channels_first kd_model_name kd_distill_type kd_loss_type
distill_loss_weight task_loss_weight kd_temperature kd_student_feature_dim kd_teacher_feature_dim
kd_token_distill_type
"""
# The keys of a ViT file of MindCV, with its values
MINDCV_FILE = """
mode: 0
distribute: True
num_parallel_workers: 8
val_while_train: True
dataset: "imagenet"
data_dir: "/path/to/imagenet"
shuffle: True
dataset_download: False
batch_size: 256
drop_remainder: True
image_resize: 224
scale: [0.08, 1.0]
ratio: [0.75, 1.333]
hflip: 0.5
vflip: 0.0
color_jitter: [0.4, 0.4, 0.4]
interpolation: "bicubic"
auto_augment: "randaug-m9-mstd0.5-inc1"
re_prob: 0.1
re_value: "random"
cutmix: 1.0
cutmix_prob: 1.0
mixup: 0.8
mean: [123.675, 116.28, 103.53]
std: [58.395, 57.12, 57.375]
model: "vit_b_32_224"
num_classes: 1000
pretrained: False
ckpt_path: ""
keep_checkpoint_max: 10
ckpt_save_policy: "top_k"
epoch_size: 300
dataset_sink_mode: True
loss: "ce"
label_smoothing: 0.1
scheduler: "warmup_cosine_decay"
lr: 0.003
min_lr: 1e-6
warmup_epochs: 32
warmup_factor: 0.01
decay_epochs: 268
opt: "AdamW"
weight_decay_filter: "auto"
use_nesterov: False
momentum: 0.9
amp_level: "O2"
val_amp_level: "O2"
loss_scale_type: "auto"
drop_overflow_update: True
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Tests run in an empty folder, so that messages name files by short paths."""
    monkeypatch.chdir(tmp_path)


def names_here() -> tuple[set[str], set[str]]:
    keys = [key for section, kind in SECTIONS.items() for key in keys_of(section, kind)]
    return {key.name for key in keys}, {alias for key in keys for alias in key.option.aliases}


# -- MindCV -------------------------------------------------------------------------------------------------------


def test_every_flag_of_mindcv_is_a_key_an_alias_or_explained():
    keys, aliases = names_here()
    outcomes = {
        KNOWN: keys,
        ALIAS: aliases,
        NOTED: {name for name, row in MINDCV.items() if row.harmless is None},
        BY_VALUE: {name for name, row in MINDCV.items() if row.harmless},
    }
    assert len(MINDCV_FLAGS) == 86
    for flag, outcome in MINDCV_FLAGS.items():
        assert [kind for kind, names in outcomes.items() if flag in names] == [outcome], flag
    assert set(MINDCV) <= set(MINDCV_FLAGS)


def test_a_file_of_mindcv_is_read_with_one_note():
    Path("x.yaml").write_text(MINDCV_FILE)
    config = configure("-c", "x.yaml", "--model", "deit_base_patch16_224")
    assert config.notes == (
        "x.yaml: without effect here: shuffle, dataset_download, drop_remainder, ckpt_save_policy, dataset_sink_mode, "
        "weight_decay_filter, val_amp_level, drop_overflow_update, color_jitter, decay_epochs; lr counts for 512 "
        "images a step (unscale_lr: True takes it as it is); what the file leaves out is as in DeiT's recipe "
        "(--print_config)",
    )
    assert config.data.mean == pytest.approx((0.485, 0.456, 0.406))
    assert config.data.std == pytest.approx((0.229, 0.224, 0.225))
    assert (config.optim.opt, config.schedule.scheduler, config.loss.loss) == ("adamw", "cosine_decay", "CE")
    assert (config.schedule.warmup_factor, config.run.distributed, config.augment.re_value) == (0.01, True, "pixel")
    Path("y.yaml").write_text(MINDCV_FILE + "unscale_lr: True\n")
    assert "lr counts" not in configure("-c", "y.yaml", "--model", "deit_base_patch16_224").notes[0]


def test_a_file_of_this_project_has_no_note():
    Path("x.yaml").write_text("lr: 1e-3\n")
    assert configure("-c", "x.yaml").notes == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("shuffle: False", "shuffle is 'False'; not here: training draws a new order each epoch"),
        ("num_samples: 100", "num_samples is '100'; not here: all images of the folder are used; take some away"),
        ("in_channels: 1", "in_channels is '1'; not here: images are read as RGB"),
        ("num_cycles: 3", "num_cycles is '3'; not here: the learning rate falls once"),
        ("re_scale: [0.1, 0.2]", "re_scale is '[0.1, 0.2]'; not here: erased boxes take 0.02 to 0.33 of an image"),
        ("weight_decay_filter: disable", "weight_decay_filter is 'disable'; not here: decay falls on matrices alone"),
        (
            "amp_level: O1",
            "amp_level is 'O1', allowed: O0, O2, O3 or bf16 (MindCV's O1 has float16 in products alone, O2 "
            "is the nearest)",
        ),
        ("opt: rmsprop", "opt is 'rmsprop', allowed: adamw, lamb, sgd, adan or lion"),
        (
            "scheduler: one_cycle",
            "scheduler is 'one_cycle', allowed: cosine_decay, step_decay, multi_step_decay or constant",
        ),
        (
            "color_jitter: [0.4, 0.3, 0.2]",
            "color_jitter is '[0.4, 0.3, 0.2]', allowed: a number, at least 0 (one strength "
            "counts for brightness, contrast and saturation)",
        ),
    ],
)
def test_what_matters_in_mindcv_and_is_not_here_is_explained(line, message):
    assert mistake_in(f"{line}\n") == f"x.yaml:1: {message}"


def test_what_mindcv_asks_for_of_sgd_is_built():
    config = configure(
        "--opt",
        "momentum",
        "--use_nesterov",
        "False",
        "--scheduler",
        "multi_step_decay",
        "--multi_step_decay_milestones",
        "[30, 40]",
        "--decay_rate",
        "0.1",
        "--vflip",
        "0.5",
    )
    assert (config.optim.opt, config.optim.nesterov, config.augment.vflip) == ("sgd", False, 0.5)
    assert config.schedule.multi_step_decay_milestones == (30, 40)


# -- the official repository --------------------------------------------------------------------------------------


def test_every_option_of_the_official_parser_is_here_or_explained():
    known = set.union(*names_here())
    assert len(OFFICIAL_FLAGS) == 76
    for flag, ending in OFFICIAL_FLAGS.items():
        assert (flag.replace("-", "_") in known) is (ending is None), flag
        if ending:
            line = mistake(f"--{flag}", "x")
            assert line.startswith("command line: ") and line.endswith(ending), line
        elif ending is not None:
            assert configure(f"--{flag}").notes == (f"command line: without effect here: --{flag}",)
    assert set(OFFICIAL) <= {flag.replace("-", "_") for flag in OFFICIAL_FLAGS}


def test_official_commands_name_their_counterparts_all_at_once():
    words = "--data-path /data --epochs 300 --aa v0 --clip-grad 1.0 --no-repeated-aug --pin-mem --data-set INAT"
    assert mistake(*words.split()).splitlines() == [
        "6 mistakes",
        "  command line: unknown option '--data-path'; here: --data_dir",
        "  command line: unknown option '--epochs'; here: --epoch_size",
        "  command line: unknown option '--aa'; here: --auto_augment",
        "  command line: unknown option '--no-repeated-aug'; here: --aug_repeats 0",
        "  command line: unknown option '--data-set'; here: --dataset",
        "  command line: --clip_grad is '1.0', allowed: True or False (the norm is --clip_value)",
    ]
    assert configure("--dataset", "INAT19").data.dataset == "inat2019"


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    {
        "deit_tiny": "nearest: 'deit_tiny_patch16_224'",
        "deit_base_distilled": "nearest: 'deit_base_distilled_patch16_224'",
        "deit_tiny_patch16_225": "nearest: 'deit_tiny_patch16_224'",
        "deit_small_patch16": "here: 'deit_small_patch16_224'",
        "DeiT_Tiny_patch16_224": "here: 'deit_tiny_patch16_224'",
        "deit3_small_patch16_224": "here: 'deit_small_patch16_LS'",
        "deit3_base_patch16_384.fb_in22k_ft_in1k": "here: 'deit_base_patch16_LS' at image size 384",
        "deit3_huge_patch14_224_in21ft1k": "here: 'deit_huge_patch14_LS'",
        "cait_s24_224": "here: 'cait_S24_224'",
        "cait_xs24_384": "here: 'cait_XS24'",
        "resmlp_12_224": "here: 'resmlp_12'",
        "resmlp_big_24_224": "here: 'resmlpB_24'",
        "vit_b_16_224": "here: 'deit_base_patch16_224'",
        "vit_tiny_patch16_384": "here: 'deit_tiny_patch16_224' at image size 384",
        "facebook/deit-tiny-distilled-patch16-224": "here: 'deit_tiny_distilled_patch16_224'",
        "regnet_y_16gf": "here: 'regnety_160'",
        "patchconvnet_s60": "here: 'S60'",
    }.items(),
)
def test_an_unknown_model_is_named_as_it_is_here(name, hint):
    with pytest.raises(UserError) as caught:
        spec(name)
    assert str(caught.value) == f"unknown model '{name}' ({hint}); mindeit models shows all"


@pytest.mark.parametrize("name", ["resnet50", "vit_b_32_224", "swin_tiny"])
def test_a_model_of_another_kind_has_no_nearest(name):
    with pytest.raises(UserError, match=f"^unknown model '{name}'; mindeit models"):
        spec(name)


@pytest.mark.parametrize(
    ("word", "match"),
    [
        ("drop_path", "drop_path_rate"),
        ("Batch-Size", "batch_size"),
        ("batch_size_per_gpu", "batch_size"),
        ("lable_smoothing", "label_smoothing"),
        ("qqqq", None),
    ],
)
def test_nearest_prefers_the_same_word_then_beginnings_then_likeness(word, match):
    known = ["epoch_size", "batch_size", "drop_rate", "drop_path_rate", "label_smoothing"]
    assert nearest(word, known) == (f" (nearest: '{match}')" if match else "")


def test_the_models_name_is_judged_with_the_other_options():
    assert mistake("--model", "deit_tiny", "--lr", "x").splitlines() == [
        "2 mistakes",
        "  command line: --lr is 'x', allowed: a number, above 0",
        "  command line: unknown model 'deit_tiny' (nearest: 'deit_tiny_patch16_224'); mindeit models shows all",
    ]
    Path("x.yaml").write_text("model: vit_b_32_224\n")
    assert configure("-c", "x.yaml", "--model", "S60").model.model == "S60"


# -- timm ---------------------------------------------------------------------------------------------------------


def test_every_option_of_timms_script_is_here_or_explained():
    known = set.union(*names_here()) | {"config"}
    assert set(TIMM) <= set(TIMM_FLAGS.split())
    for flag in TIMM_FLAGS.split():
        assert (flag in known) is (flag not in FOREIGN), flag
        if flag in TIMM and TIMM[flag].here:
            assert mistake(f"--{flag}", "x").endswith(f"; here: {TIMM[flag].here}")
