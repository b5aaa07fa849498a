"""Training steps compile for devices that are not here: a small model of each family, each optimizer once. RegNet, the
official teacher, is in the shipped configurations (slow)."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from training_runs import plugin_models

sys.path.insert(0, str(ROOT / "scripts"))
from device_audit import budget, kernel_log, libraries, table, tries  # noqa: E402
from device_audit.signature import signature  # noqa: E402

from mindeit.errors import UserError  # noqa: E402

# On one worker: a try of the largest models takes up to 13 GiB, and two at a time met the end of 24.
pytestmark = pytest.mark.xdist_group("test_device_audit")

SMALL = {
    "deit": "model: one_block_distilled\nopt: adamw\ndistillation_type: hard\nteacher: one_block",
    "deit3": "model: deit_mini_patch8_32_LS\nopt: lamb\nloss: BCE\nbce_target_threshold: 0.0\nlabel_smoothing: 0.0",
    "cait": "model: cait_mini_patch8_32\nopt: lion",
    "patchconvnet": "model: patchconvnet_mini_32\nopt: sgd",
    "resmlp": "model: resmlp_mini_patch8_32\nopt: adan",
}


@pytest.fixture(scope="module")
def runner():
    missing = [name for name in libraries.TOOLS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"stub libraries are compiled by {', '.join(missing)}, not found in PATH")
    with tries.Runner(tries.DEVICES) as prepared:
        yield prepared


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    with plugin_models(tmp_path_factory.mktemp("plugin")) as file:
        yield file


def small_try(folder: Path, plugin: Path, name: str, device: str, ranks: int) -> tries.Try:
    path = folder / f"{name}.yaml"
    path.write_text(f"{SMALL[name]}\namp_level: O2\nbatch_size: 16\nnum_classes: 10\nplugin: [{plugin}]\n")
    return tries.Try(name, path, device, ranks)


@pytest.mark.parametrize("name", ["deit", *(pytest.param(name, marks=pytest.mark.slow) for name in list(SMALL)[1:])])
def test_two_gpu_ranks_compile_and_keep_to_the_budget(runner, plugin, tmp_path, name):
    outcome = runner.run(small_try(tmp_path, plugin, name, "GPU", 2))
    assert (outcome.broke, outcome.over) == (None, [])
    assert 50 < outcome.numbers["launches"] < 1000
    assert 1 <= outcome.numbers["collectives"] <= 4
    assert outcome.numbers["image_bytes"] == 16 * 3 * 32 * 32 * 4


def test_the_main_command_tries_a_batch_on_two_gpu_ranks(runner, plugin, tmp_path):
    """Everything but a step runs as it does for a user. Losses are not computed, so nothing is evaluated."""
    command = [tries._mpirun(), "-n", "2", "--oversubscribe", sys.executable, str(ROOT / "train.py")]
    options = ["-c", str(ROOT / "configs/deit_digits_cpu.yaml"), "--device_target", "GPU", "--distributed", "True"]
    options += ["--amp_level", "O2", "--distillation_type", "none", "--val_while_train", "False", "--dry_run", "True"]
    options += ["--plugin", str(plugin), "--model", "one_block_distilled"]
    environment = {**os.environ, **tries._ENVIRONMENT, **runner.environments["GPU"]}
    code, text = tries._finish([*command, *options], environment, str(tmp_path))
    assert code == 0, text
    assert "44 updates of 16 images on each of 2 ranks" in text
    assert text.splitlines()[-1] == "nothing was saved; leave out --dry_run to train"


@pytest.mark.parametrize("name", ["deit", *(pytest.param(name, marks=pytest.mark.slow) for name in list(SMALL)[1:])])
def test_one_of_eight_ascend_ranks_compiles_and_keeps_to_the_budget(runner, plugin, tmp_path, name):
    outcome = runner.run(small_try(tmp_path, plugin, name, "Ascend", 8))
    if outcome.broke == tries.STUBS_CRASHED:  # as PatchConvnet makes them (docs/devices.md)
        pytest.skip(outcome.broke)
    assert (outcome.broke, outcome.over) == (None, [])
    assert outcome.numbers["collectives"] == outcome.numbers["kinds"]["hccl"] >= 1
    assert outcome.numbers["kinds"]["opapi"] > 50


@pytest.mark.slow
def test_the_graph_of_eight_cpu_ranks_compiles(runner, plugin, tmp_path):
    assert runner.run(small_try(tmp_path, plugin, "deit3", "CPU", 8)).broke is None


def test_an_error_of_the_step_is_one_line(runner, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("model: no_such_model\n")
    outcome = runner.run(tries.Try("wrong", path, "CPU", 8))
    assert outcome.broke.startswith(f"UserError: {path}: unknown model 'no_such_model'")
    assert "\n" not in outcome.broke


def test_messages_lose_their_headings_and_call_stacks():
    message = """RuntimeError:
----------
- Kernel select failed:
----------
Select GPU operator[ConcatV2] fail

----------
- C++ Call Stack: (For framework developers)
----------
mindspore/ccsrc/kernel.cc:1"""
    assert tries.reason(message, "") == "RuntimeError: - Kernel select failed: Select GPU operator[ConcatV2] fail"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["deit3_*", "deit_*", "cait_*", "patchconvnet_*", "resmlp_*"])
def test_every_shipped_configuration_compiles_for_its_devices(family):
    planned = tries.plan([f"{family}_gpu", f"{family}_ascend"], tries.DEVICES)
    outcomes = tries.run_all(planned, {one: signature(one) for one in planned}, jobs=1)
    wrong = {one: outcome for one, outcome in outcomes.items() if not outcome.ok}
    assert {one: outcome for one, outcome in wrong.items() if outcome.broke != tries.STUBS_CRASHED} == {}


def test_each_shipped_configuration_is_tried_on_its_device():
    planned = tries.plan([], tries.DEVICES)
    tried = {one.config.stem for one in planned if one.device != "CPU"}
    assert tried == {path.stem for path in tries.CONFIGS.glob("*.yaml") if path.stem.endswith(("_gpu", "_ascend"))}
    assert [(one.device, one.ranks) for one in planned if one.recipe == "deit_b"] == list(tries.COLUMNS)


def test_a_configuration_that_names_no_device_is_tried_on_all():
    assert [one.device for one in tries.plan(["deit_digits_cpu"], tries.DEVICES)] == ["CPU", "GPU", "GPU", "Ascend"]


def test_a_try_that_the_record_holds_is_not_made_again(tmp_path, monkeypatch):
    made, outcome = [], tries.Outcome(numbers={"launches": 3})
    monkeypatch.setattr(tries.Runner, "_environment", lambda self, device: {})
    monkeypatch.setattr(tries.Runner, "run", lambda self, one: made.append(one) or outcome)
    planned, record = tries.plan(["deit_t_gpu"], ["GPU"]), tmp_path / "record.json"
    signatures = {one: signature(one) for one in planned}
    first = tries.run_all(planned[:1], signatures, 1, record)
    assert tries.run_all(planned, signatures, 1, record) == {**first, planned[1]: outcome}
    assert made == planned


def test_an_unknown_configuration_is_an_error():
    with pytest.raises(UserError, match="no configuration 'deit_x_gpu'; allowed: a file, or a name or shell pattern"):
        tries.plan(["deit_x_gpu"], tries.DEVICES)


def test_graphs_that_differ_in_width_share_a_try_and_memory_does_not():
    tiny, base = (tries.plan([f"deit_{size}_gpu"], tries.DEVICES) for size in "tb")
    shared = [a.device for a, b in zip(tiny, base) if signature(a) == signature(b)]
    assert shared == ["CPU", "GPU"]
    assert [(one.device, one.ranks) for one in tiny] == [("CPU", 8), ("GPU", 1), ("GPU", 2)]


@pytest.mark.parametrize("other", ["deit3_s", "deit_b_384", "deit_b_distilled", "deit_b_cifar10"])
def test_other_recipes_do_not_share_a_try_with_deit_b(other):
    first, second = (tries.plan([f"{name}_gpu"], ["CPU"])[0] for name in ("deit_b", other))
    assert signature(first) != signature(second)


def test_types_without_a_kernel_are_taken_from_the_log():
    log = (
        "[ERROR] KERNEL MatchKernelFunc] The kernel 'ConcatV2' does not support this kernel data type: "
        "[Kernel Attr] all same: 0, input(Float32,Float16,Int64) , output(Float32).\n"
    )
    assert tries.reason("RuntimeError: Initialize gpu kernel op failed", log) == (
        "no kernel of ConcatV2 for input(Float32,Float16,Int64), output(Float32)"
    )


CHOSEN = "[INFO] DEVICE ascend_kernel_executor.cc] GenerateKernelMod] kernel opname:{}, kernel type:{}_kernel\n"
STREAMS = "[INFO] DEVICE ascend_kernel_executor.cc] DoStreamAssign] Status record: {} stream assign, kernel_graph0\n"
SELECTED = CHOSEN.format("MatMul", "opapi") + CHOSEN.format("AllReduce", "hccl")


def test_kernels_of_a_log_are_counted_by_kind():
    log = SELECTED + STREAMS.format("start") + STREAMS.format("end")
    assert kernel_log.read(log) == {"kernels": 2, "collectives": 1, "kinds": {"opapi": 1, "hccl": 1}}


@pytest.mark.parametrize(
    "log",
    [
        "",
        SELECTED,
        SELECTED + STREAMS.format("start"),
        SELECTED + STREAMS.format("start") + STREAMS.format("end") + CHOSEN.format("Add", "opapi"),
    ],
)
def test_a_log_that_ends_before_all_kernels_are_chosen_counts_nothing(log):
    assert kernel_log.read(log) is None


def test_the_budget_names_what_exceeds_it():
    numbers = {
        "launches": 1301,
        "d2h_bytes": 1024,
        "synchronisations": 2,
        "collectives": 1,
        "h2d_bytes": 120,
        "image_bytes": 100,
    }
    expected = ["synchronisations 2 > 1", "launches 1,301 > 1,300", "h2d_bytes 1.20 x images > 1.1"]
    assert budget.exceeded("deit_b", "GPU", numbers) == expected
    assert budget.exceeded("deit_s", "GPU", {**numbers, "synchronisations": 1, "h2d_bytes": 110}) == []
    assert budget.exceeded("deit_b", "Ascend", {"kernels": 2001, "collectives": 5}) == [
        "collectives 5 > 4",
        "kernels 2,001 > 2,000",
    ]


def outcomes() -> dict[tries.Try, tries.Outcome]:
    first, second = (tries.Try("small", Path("small_gpu.yaml"), device, ranks) for device, ranks in tries.COLUMNS[:2])
    numbers = {
        "launches": 1234,
        "d2d_copies": 5,
        "h2d_bytes": 26,
        "image_bytes": 25,
        "image_bytes_float32": 100,
        "d2h_bytes": 5,
        "synchronisations": 2,
        "planned_bytes": 3 * 2**30,
    }
    return {first: tries.Outcome("RuntimeError: why"), second: tries.Outcome(None, ["synchronisations 2 > 1"], numbers)}


def test_the_table_shows_a_row_per_configuration_and_the_reasons_below():
    lines = table.markdown(outcomes()).splitlines()
    assert lines[0] == "Compiles and schedules; computes nothing; no device was used."
    assert lines[4] == "| `small` | broke [1] | over [2] |  |  | 1,234 | 5 | 0.26 | 5 | 2 | 3.0 |  |  |"
    assert lines[6:] == ["1. RuntimeError: why", "2. over budget: synchronisations 2 > 1"]


def test_the_table_replaces_the_one_in_a_document(tmp_path):
    document = tmp_path / "devices.md"
    document.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write(document, "new\n")
    assert document.read_text() == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"


def test_a_document_without_a_place_for_the_table_is_left_alone(tmp_path):
    document = tmp_path / "devices.md"
    document.write_text("text\n")
    with pytest.raises(UserError, match="no place for the table"):
        table.write(document, "new\n")
    assert document.read_text() == "text\n"


def test_missing_compilers_are_named_in_a_line(run, tmp_path):
    done = run("scripts/audit_devices.py", "deit_t_gpu", "--device", "GPU", PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "error: the audit compiles stub libraries: gcc, g++, nm not found in PATH\n"
