"""A teacher in a file of its own: an exported model, or another project's ONNX file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from conftest import ROOT
from onnx import TensorProto, helper
from training_runs import STUDENT, arrays, few_digits, history, one_block, script, train_here, write_model

from mindeit.objectives import TeacherView, ViewArrays
from mindeit.training.taught_batches import TaughtBatches

__all__ = ["few_digits", "script"]
RUN = ("-c", ROOT / "configs" / "deit_digits_cpu.yaml", "--mode", "pynative", "--epoch_size", 1, "--val_interval", 1,
       "--warmup_epochs", 0, "--batch_size", 60, "--teacher", "none", "--teacher_ckpt_path")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A teacher as a checkpoint, as our ONNX file, and as somebody else's."""
    from mindeit.cli import export

    folder = tmp_path_factory.mktemp("teachers")
    write_model(folder / "teacher.ckpt", "regnety_mini_32", 10)
    with pytest.raises(SystemExit) as ended:
        export.main(["--ckpt_path", str(folder / "teacher.ckpt"), "--format", "ONNX",
                     "--output", str(folder / "ours.onnx")])  # fmt: skip
    assert not ended.value.code
    graph = onnx.load(folder / "ours.onnx")
    del graph.metadata_props[:]
    onnx.save(graph, folder / "foreign.onnx")
    return folder


def runs(place, *teachers: tuple) -> list:
    found = []
    for number, words in enumerate(teachers):
        folder = place / f"run_{len(list(place.iterdir()))}_{number}"
        with one_block():
            train_here(*RUN, *words, "--ckpt_save_dir", folder)
        found.append(folder)
    return found


def test_a_student_learns_the_same_from_its_teacher_and_from_its_exported_file(few_digits, place):
    statistics = ("--teacher_size", 32, "--teacher_mean", 0.485, 0.456, 0.406, "--teacher_std", 0.229, 0.224, 0.225)
    inside, ours, foreign = runs(
        place, (place / "teacher.ckpt",), (place / "ours.onnx",), (place / "foreign.onnx", *statistics)
    )
    want, losses = arrays(inside / "last.ckpt"), history(inside)
    for folder in (ours, foreign):
        assert history(folder)[0]["train_loss"] == pytest.approx(losses[0]["train_loss"], abs=1e-4)
        found = arrays(folder / "last.ckpt")
        gaps = [np.abs(found[name] - want[name]).mean() for name in want if name.startswith("blocks")]
        assert max(gaps) < 1e-3
    assert arrays(ours / "last.ckpt").keys() == want.keys()
    ours, foreign = (arrays(folder / "last.ckpt") for folder in (ours, foreign))
    assert all(np.array_equal(ours[name], foreign[name]) for name in ours)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{0}/foreign.onnx",), "foreign.onnx does not say how its images are prepared: give --teacher_size, "),
        (("{0}/ours.onnx", "--teacher_size", 32), "teacher_size is given, but {0}/ours.onnx says itself how"),
        (("{0}/ours.onnx", "--teacher", "regnety_160"), "model is regnety_160, but {0}/ours.onnx was made for"),
        (("{0}/gone.onnx",), "gone.onnx: no such file"),
        (("{0}/seven.onnx", "--teacher_size", 24, "--teacher_mean", 0, 0, 0, "--teacher_std", 1, 1, 1),
         "the teacher tells 7 classes apart, the student 10"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_teach_is_one_line(words, message, few_digits, place, script):
    mean = helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0)
    product = helper.make_node("MatMul", ["m", "w"], ["y"])
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 7], np.ones(21))
    graph = helper.make_graph(
        [mean, product], "seven", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 24, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 7])], [weights],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), place / "seven.onnx")
    words = [str(word).format(place) for word in words]
    code, _, err = script("train", *RUN, *words, "--model", STUDENT)
    assert code == 2, err
    assert message.format(place) in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("error: ")


def test_the_view_of_arrays_is_the_view_in_the_graph():
    sizes = {"image_size": 32, "student_size": 24, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    statistics = {"student_mean": (0.485, 0.456, 0.406), "student_std": (0.229, 0.224, 0.225)}
    images = np.random.default_rng(0).standard_normal((2, 3, 24, 24)).astype(np.float32)
    from mindspore import Tensor

    in_graph = TeacherView(**sizes, **statistics)(Tensor(images)).asnumpy()
    np.testing.assert_allclose(ViewArrays.between(**sizes, **statistics).apply(images), in_graph, atol=1e-5)


@pytest.mark.parametrize("beside", [False, True])
def test_answers_stay_with_their_batches_and_so_does_what_was_skipped(beside):
    class Batches(list):
        batch_size, positions, skipped = 1, None, ()

        def __iter__(self):
            for number, batch in enumerate(super().__iter__()):
                self.skipped = [f"bad {n}" for n in range(number)]
                yield batch

    batches = Batches((np.full(2, n), np.full(2, 10 * n)) for n in range(4))
    taught = TaughtBatches(batches, lambda images, targets: images + targets, beside=beside)
    for number, (images, answers) in enumerate(taught):
        assert images.tolist() == [number] * 2
        assert answers.tolist() == [11 * number] * 2
        assert taught.skipped == [f"bad {n}" for n in range(number)]
    assert len(taught) == 4 and number == 3


def test_an_error_of_the_teacher_comes_through():
    def fail(images, targets):
        raise ValueError("no answer")

    class Batches(list):
        batch_size, positions, skipped = 1, None, []

    with pytest.raises(ValueError, match="no answer"):
        list(TaughtBatches(Batches([(1, 2)]), fail, beside=True))
