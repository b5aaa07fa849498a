"""mindeit.Predictor: what it takes, how it runs, what it refuses."""

from __future__ import annotations

import io
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from exported_files import DEIT, write_checkpoint
from PIL import Image
from training_runs import one_block

import mindeit
from mindeit.models.registry import build
from mindeit.predict import inputs
from mindeit.predict import predictor as predictors
from mindeit.runtime import device


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five images, a.png to e.png."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in "abcde":
        Image.fromarray(rng.integers(0, 255, (50, 60, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def shallow_model():
    with one_block(DEIT):
        yield


@pytest.fixture(scope="module")
def source(shallow_model, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("source"), DEIT)


@pytest.fixture(scope="module")
def compiled(source):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(device._graphs, "wanted", None)  # whatever an earlier run chose
        return mindeit.Predictor(source)


@pytest.fixture(scope="module")
def plain(source):
    """Operator by operator, which for a few small images is sooner than compiling."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(device._graphs, "wanted", False)
        yield mindeit.Predictor(source)


@pytest.fixture(autouse=True)
def nobody_chose_the_mode(monkeypatch):
    monkeypatch.setitem(device._graphs, "wanted", None)


def python_calls_of_cells(action) -> int:
    """How often Python ran a cell: never, when a graph does the work."""
    calls = []
    sys.setprofile(lambda frame, event, _: calls.append(event) if frame.f_code.co_name == "construct" else None)
    try:
        action()
    finally:
        sys.setprofile(None)
    return len(calls)


def test_a_graph_does_the_work_in_either_mode_and_says_once_that_it_compiles(compiled, plain, folder, mode, capfd):
    image = folder / "a.png"
    first = compiled.predict(image)
    said = capfd.readouterr().err
    assert said in (f"compiling {DEIT} for batches of 1, once\n", "")  # by the second mode it is compiled
    assert python_calls_of_cells(lambda: compiled.predict(image)) == 0
    assert compiled.predict(image) == first
    assert capfd.readouterr().err == ""
    if mode == "pynative":
        assert python_calls_of_cells(lambda: plain.predict(image)) > 0
        scores = [guess.score for guess in plain.predict(image)]
        assert [guess.score for guess in first] == pytest.approx(scores, rel=1e-4)


def test_a_list_is_one_call_and_gives_what_each_image_gives(compiled, folder, capfd):
    paths = sorted(folder.iterdir())
    found = compiled.predict(paths)
    capfd.readouterr()
    assert compiled.predict(folder) == found
    assert [best[0].label for best in found] == [compiled.predict(path)[0].label for path in paths]
    assert compiled.predict([]) == []
    assert capfd.readouterr().err == ""


def test_eight_threads_share_a_predictor(compiled, folder):
    paths = sorted(folder.iterdir())
    wanted = compiled.predict(paths)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: compiled.predict([path])[0], paths * 8))
    assert [best[0].label for best in found] == [best[0].label for best in wanted] * 8


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(1, [1]), (2, [4]), (4, [4]), (5, [4, 1]), (7, [4, 4]), (8, [16]), (17, [16, 1]), (40, [16, 16, 16])],
)
def test_a_few_batch_sizes_serve_any_number(count, sizes):
    seen = []

    def run(images):
        seen.append(len(images))
        return 2 * images

    images = np.arange(count)[:, None]
    assert np.array_equal(predictors._in_batches(run, images), 2 * images)
    assert seen == sizes


FORMS = {
    "text": str,
    "path": lambda path: path,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "file": lambda path: path.open("rb"),
    "memory": lambda path: io.BytesIO(path.read_bytes()),
    "pillow": Image.open,
    "array": lambda path: np.asarray(Image.open(path)),
    "array with a stride": lambda path: np.asarray(Image.open(path))[:, ::-1][:, ::-1],
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_may_have_any_form(form, plain, folder):
    assert np.array_equal(plain.pixels(FORMS[form](folder / "a.png")), plain.pixels(folder / "a.png"))


def test_forms_mix_in_a_list_and_folders_are_opened(plain, folder):
    path = folder / "a.png"
    found = [best[0].label for best in plain.predict([path.read_bytes(), Image.open(path), folder])]
    assert found == [plain.predict(each)[0].label for each in [path, path, *sorted(folder.iterdir())]]


def test_other_modes_of_pillow_are_converted_as_those_of_files(plain, folder):
    grey = Image.open(folder / "a.png").convert("L")
    grey.save(memory := io.BytesIO(), "PNG")
    assert np.array_equal(plain.pixels(grey), plain.pixels(memory))


@pytest.fixture(scope="module")
def address(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_an_image_may_be_fetched(plain, folder, address, monkeypatch, capfd):
    assert np.array_equal(plain.pixels(f"{address}/a.png"), plain.pixels(folder / "a.png"))
    with pytest.raises(mindeit.UserError, match=f"^cannot fetch {address}/z.png: HTTP 404 File not found$"):
        plain.predict(f"{address}/z.png")
    monkeypatch.setattr(inputs, "_LARGEST", 10)
    with pytest.raises(mindeit.UserError, match="it has more than 0 MiB"):
        plain.predict(f"{address}/a.png")


REFUSED = [
    (3, "image is of type int; allowed: "),
    (None, "image is of type NoneType; allowed: "),
    ([["a.png"]], "image is of type list; allowed: "),
    (b"no image" * 9999, "cannot read image of 79992 bytes: not a"),
    ("no path" * 9999, "image is a text of 69993 characters; allowed: "),
    (io.StringIO("text"), "image is a text file; open it with mode 'rb'; allowed: "),
    ("/nowhere/a.png", "no such "),
    (np.zeros((3, 32, 32), np.uint8), "image is an array of uint8 (3, 32, 32); allowed: uint8 (height, width, 3), RGB"),
    (np.zeros((32, 32, 3)), "image is an array of float64 (32, 32, 3); allowed: uint8 (height, width, 3), RGB"),
    (np.zeros((0, 32, 3), np.uint8), "image is an array of uint8 (0, 32, 3); allowed: uint8 (height, width, 3), RGB"),
    ("http://127.0.0.1:1/a.png", "cannot fetch http://127.0.0.1:1/a.png: [Errno 111] Connection refused"),
]


@pytest.mark.parametrize(("image", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_what_is_no_image_is_refused_in_a_short_line(image, message, plain):
    with pytest.raises(mindeit.UserError) as caught:
        plain.predict(image)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 250


def test_a_model_at_hand_is_a_source(source, plain, folder, monkeypatch):
    monkeypatch.setitem(device._graphs, "wanted", False)
    model = mindeit.create_model(DEIT, checkpoint=source)
    assert mindeit.Predictor(model).predict(folder / "a.png") == plain.predict(folder / "a.png")
    fresh = mindeit.create_model("deit_mini_patch8_32_LS", num_classes=3, image_size=48)
    assert (fresh.card.model, fresh.card.num_classes, fresh.card.image_size) == ("deit_mini_patch8_32_LS", 3, 48)
    assert len(mindeit.Predictor(fresh).predict(folder / "a.png")) == 3
    fresh.reset_classifier(2)
    assert len(mindeit.Predictor(fresh).predict(folder / "a.png")) == 2
    with pytest.raises(mindeit.UserError, match="^in_channels is 1; allowed: 3, for images are RGB$"):
        mindeit.Predictor(mindeit.create_model("deit_mini_patch8_32_LS", in_channels=1))


def test_a_name_means_the_official_weights(source, plain, folder, monkeypatch):
    monkeypatch.setitem(device._graphs, "wanted", False)
    monkeypatch.setattr("mindeit.weights.pretrained.fetch_pretrained", {DEIT: source}.__getitem__)
    assert mindeit.Predictor(DEIT).predict(folder / "a.png") == plain.predict(folder / "a.png")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("deit_mini_distiled_patch8_32", "is neither a file nor a model's name (nearest: 'deit_mini_dis"),
        ("nowhere.ckpt", "nowhere.ckpt: no such file"),
        (3, "int does not say how its images are prepared; take a model of create_model, or Predictor.of(model, card)"),
    ],
)
def test_what_is_no_model_is_refused(given, message):
    with pytest.raises(mindeit.UserError) as caught:
        mindeit.Predictor(given)
    assert message in str(caught.value)


FAMILIES = [
    DEIT,
    "deit_mini_patch8_32_LS",
    "cait_mini_patch8_32",
    "resmlp_mini_patch8_32",
    "patchconvnet_mini_32",
    "regnety_mini_32",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_those_of_the_model_without_its_head(name, folder, monkeypatch):
    monkeypatch.setitem(device._graphs, "wanted", False)
    model, headless = mindeit.create_model(name, num_classes=3), mindeit.create_model(name, num_classes=0)
    values = {parameter.name: parameter for parameter in model.get_parameters()}
    for parameter in headless.get_parameters():
        parameter.set_data(values[parameter.name])
    found = mindeit.Predictor(model).features([folder / "a.png", folder / "b.png"])
    assert found.shape[0] == 2 and found.std() > 0
    without = mindeit.Predictor(headless)
    assert np.allclose(without.features(folder / "b.png"), found[1], atol=1e-5)
    with pytest.raises(mindeit.UserError, match=f"^{name} gives features, no classes; ask for features"):
        without.predict(folder / "a.png")


def test_results_that_are_not_finite_are_refused(folder, monkeypatch):
    monkeypatch.setitem(device._graphs, "wanted", False)
    model = build(DEIT, num_classes=3)
    model.head.bias.set_data(model.head.bias + np.nan)
    model.card = mindeit.create_model(DEIT, num_classes=3).card
    with pytest.raises(mindeit.UserError, match=f"^{DEIT}: the results are not finite"):
        mindeit.Predictor(model).predict(folder / "a.png")
