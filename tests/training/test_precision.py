"""Which precision a run trains in, what it says of it, and that it goes on in any case."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from birdsonnx.config.reading import parse
from birdsonnx.errors import ConfigError, InstallationError, TrainingError
from birdsonnx.onednn import library, primitives
from birdsonnx.onednn.descriptors import BF16
from birdsonnx.onednn.library import OnednnError
from birdsonnx.runtime import gradient_builder, isa
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import precision, run
from tests.conftest import needs_training_runtime
from tests.onednn.trunks import needs_bfloat16, needs_onednn
from tests.runs import Audience, Stopped
from tests.tiny import residual_model

TRAINED = ["block_b", "last", "dense"]
AVX512 = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni")
linux = pytest.mark.skipif(sys.platform != "linux", reason="oneDNN is used on Linux only")


@pytest.fixture(autouse=True)
def looked_for_anew():
    load = library.load
    load.cache_clear()
    yield
    load.cache_clear()


@pytest.fixture
def cpu(monkeypatch):
    """Lets the CPU have these extensions, and be made by this vendor."""

    def become(*extensions: str, vendor: str = "AuthenticAMD") -> None:
        monkeypatch.setattr(isa, "extensions", lambda: (*AVX512, *extensions))
        monkeypatch.setattr(isa, "cpuinfo", lambda field: vendor if field == "vendor_id" else "")

    become("avx512_bf16")
    return become


@pytest.fixture
def settings(fine_tuning):
    def make(save="saved", wanted="bf16", **sections):
        own = {"trainable": TRAINED, "precision": wanted, **sections.pop("birdsonnx", {})}
        return fine_tuning(save, **{"num_epochs": 2, "birdsonnx": own, **sections})

    return make


def train(settings, resume=False, stop_in=None, ranks=None):
    audience = Audience(stop_in)
    outcome = run.train(settings, ranks or Ranks(), audience, resume)
    return outcome, audience


def said(audience: Audience) -> str | None:
    return audience.summary.get("precision")


def weights_of(folder: str, epoch: int = 2) -> dict[str, np.ndarray]:
    model = onnx.load(f"{folder}/model_checkpoint_{epoch}.onnx")
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def computed_by(folder: str, epoch: int = 2) -> str:
    with np.load(f"{folder}/model_checkpoint_{epoch}.state.npz") as arrays:
        return json.loads(str(arrays["facts"]))["settings"]["computed_by"]


# --- bfloat16 -------------------------------------------------------------------------------------------


@needs_bfloat16
def test_a_run_in_bfloat16_says_so_and_learns(settings, cpu):
    _, audience = train(settings(num_epochs=5))
    assert said(audience) == f"bf16, by oneDNN {library.load().version}"
    assert audience.losses[-1] < 0.5 * audience.losses[0]
    before = {each.name: numpy_helper.to_array(each) for each in onnx.load("model.onnx").graph.initializer}
    after = weights_of("saved", 5)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {f"{layer}/{role}" for layer in TRAINED for role in ("kernel", "bias")}
    assert {value.dtype for value in after.values()} == {value.dtype for value in before.values()}


@needs_bfloat16
def test_the_same_seed_has_the_same_bits(settings, cpu):
    found = []
    for folder in ("one", "two"):
        _, audience = train(settings(folder))
        found.append((audience.losses, Path(folder, "model_checkpoint_2.onnx").read_bytes()))
    assert found[0] == found[1]


@needs_bfloat16
@needs_training_runtime
def test_losses_are_near_those_of_float32(settings, cpu):
    _, half = train(settings("half", optimizer={"learning_rate": 0.001}))
    _, whole = train(settings("whole", "fp32", optimizer={"learning_rate": 0.001}))
    assert said(whole) is None
    assert half.losses != whole.losses
    np.testing.assert_allclose(half.losses, whole.losses, rtol=0.05)


@needs_bfloat16
def test_what_is_not_finite_stops_it(settings, cpu):
    with pytest.raises(TrainingError, match=r"the loss is \S+ and the gradient norm \S+; training stopped"):
        train(settings(optimizer={"type": "SGD", "learning_rate": 1e30}))


RESUMED = {
    "Adam": {},
    "LAMB, no cache": {
        "optimizer": {"type": "LAMB", "weight_decay": 0.01},
        "birdsonnx": {"cache": False, "trainable": ["*"]},
    },
    "SGD, fp16 features": {
        "optimizer": {"type": "SGD", "momentum": 0.9},
        "birdsonnx": {"clip_norm": 0.5, "feature_precision": "fp16"},
    },
}


@needs_bfloat16
@pytest.mark.parametrize("case", RESUMED)
def test_stop_and_resume_gives_the_bits_of_never_stopping(settings, cpu, case):
    train(settings("whole", num_epochs=3, **RESUMED[case]))
    with pytest.raises(Stopped):
        train(settings("parts", num_epochs=3, **RESUMED[case]), stop_in=2)
    _, audience = train(settings("parts", num_epochs=3, **RESUMED[case]), resume=True)
    assert said(audience).startswith("bf16, by oneDNN")
    assert "resuming after epoch 1 from parts/model_checkpoint_1.onnx" in audience.lines
    name = "model_checkpoint_3"
    assert Path("parts", f"{name}.onnx").read_bytes() == Path("whole", f"{name}.onnx").read_bytes()
    with np.load(f"parts/{name}.state.npz") as parts, np.load(f"whole/{name}.state.npz") as whole:
        for array in set(whole.files) - {"facts"}:
            np.testing.assert_array_equal(parts[array], whole[array])


@needs_bfloat16
@needs_training_runtime
def test_a_run_whose_bfloat16_is_gone_goes_on_in_float32(settings, cpu):
    """And in bfloat16 again where that is back: the files have one layout."""
    train(settings(num_epochs=1, optimizer={"learning_rate": 0.001}))
    assert computed_by("saved", 1) == precision.IN_BFLOAT16
    cpu()
    _, audience = train(settings(optimizer={"learning_rate": 0.001}), resume=True)
    assert said(audience) == "fp32: this CPU has no instructions for bfloat16"
    assert computed_by("saved", 2) == precision.BY_ONNXRUNTIME
    cpu("avx512_bf16")
    _, audience = train(settings(num_epochs=3, optimizer={"learning_rate": 0.001}), resume=True)
    assert said(audience).startswith("bf16")
    train(settings("whole", "fp32", num_epochs=3, optimizer={"learning_rate": 0.001}))
    for name, value in weights_of("whole", 3).items():
        if name.endswith("/kernel"):
            assert np.linalg.norm(weights_of("saved", 3)[name] - value) <= 0.02 * np.linalg.norm(value), name


@needs_bfloat16
@needs_training_runtime
def test_auto_goes_on_in_the_precision_of_its_run(settings, cpu):
    cpu()
    _, audience = train(settings(num_epochs=1, wanted="auto"))
    assert said(audience) == "fp32: this CPU has no instructions for bfloat16"
    cpu("avx512_bf16")
    _, audience = train(settings(wanted="auto"), resume=True)
    assert said(audience) == "fp32: as in the run that is resumed"
    assert computed_by("saved", 2) == precision.BY_ONNXRUNTIME
    _, audience = train(settings("other", "auto", num_epochs=1))
    assert said(audience).startswith("bf16")
    cpu("avx512_bf16", vendor="GenuineIntel")
    _, audience = train(settings("other", "auto"), resume=True)
    assert said(audience).startswith("bf16"), "also where it is slow"


def test_another_precision_is_another_run(settings, cpu):
    cpu()
    own = {"trainable": ["dense"]}
    train(settings(num_epochs=1, birdsonnx=own))
    with pytest.raises(TrainingError, match=r"its run had birdsonnx\.precision 'bf16', the config has None"):
        train(settings(wanted="fp32", birdsonnx=own), resume=True)


# --- Float32 --------------------------------------------------------------------------------------------


@needs_training_runtime
def test_a_cpu_without_it_trains_in_float32(settings, cpu):
    """To the same bits as without the key."""
    cpu()
    _, audience = train(settings(num_epochs=1))
    assert said(audience) == "fp32: this CPU has no instructions for bfloat16"
    train(settings("plain", "fp32", num_epochs=1))
    for name, value in weights_of("plain", 1).items():
        np.testing.assert_array_equal(weights_of("saved", 1)[name], value)


def a_shared_library() -> str:
    maps = Path("/proc/self/maps").read_text().split()
    return next(word for word in maps if word.startswith("/") and "libc.so" in word)


@linux
@needs_training_runtime
@pytest.mark.parametrize("kind", ["missing", "text", "libc"])
def test_a_library_that_is_none_is_said(settings, cpu, monkeypatch, kind, tmp_path):
    path = a_shared_library() if kind == "libc" else str(tmp_path / "libdnnl.so.3")
    if kind == "text":
        Path(path).write_text("not a library")
    monkeypatch.setenv(library.VARIABLE, path)
    _, audience = train(settings(num_epochs=1))
    assert said(audience).startswith(f"fp32: BIRDSONNX_ONEDNN: {path} cannot be loaded (")
    assert computed_by("saved", 1) == precision.BY_ONNXRUNTIME


@needs_bfloat16
@needs_training_runtime
def test_a_library_that_computes_wrongly_is_said(settings, cpu, monkeypatch):
    made = primitives.convolution
    monkeypatch.setattr(
        primitives,
        "convolution",
        lambda own, source, weights, bias, *rest: made(own, source, weights, None, *rest),
    )
    _, audience = train(settings(num_epochs=1))
    what = "3 x 3 convolution with a sum and a Relu"
    assert said(audience) == f"fp32: oneDNN {library.load().version} computes this wrongly here: {what}"


@needs_bfloat16
@needs_training_runtime
def test_a_missing_kernel_is_said(settings, cpu, monkeypatch):
    """Found when this network is compiled, after a self-check that did not need it."""
    monkeypatch.setattr(precision.self_check, "require_right", lambda *_: None)

    def refusing(*_):
        raise OnednnError("oneDNN 3.0.0 has no fast pooling_forward here")

    monkeypatch.setattr(primitives, "pooling", refusing)
    _, audience = train(settings(num_epochs=1, birdsonnx={"trainable": ["block_b", "last", "dense"]}))
    assert said(audience) == "fp32: layer 'pooled': oneDNN 3.0.0 has no fast pooling_forward here"


@needs_bfloat16
def test_a_head_alone_is_trained_in_float32(settings, cpu):
    _, audience = train(settings(num_epochs=1, birdsonnx={"trainable": ["dense"]}))
    assert said(audience) == "fp32: what is trained has no convolutions"


@needs_bfloat16
@needs_training_runtime
def test_a_layer_that_has_no_form_is_named(settings, cpu):
    residual_model(activation="Softplus").save(Path("model.onnx"))
    own = {"trainable": ["block_a", "block_b", "last", "dense"]}
    _, audience = train(settings(num_epochs=1, birdsonnx=own))
    assert said(audience) == "fp32: layer 'block_a' is a Softplus of a form that oneDNN does not train here"


@pytest.mark.parametrize(
    ("extensions", "vendor", "fast"),
    [
        (["avx512_bf16"], "GenuineIntel", False),
        (["avx512_bf16"], "AuthenticAMD", True),
        (["avx512_bf16", "amx_bf16"], "GenuineIntel", True),
    ],
)
def test_auto_is_for_cpus_where_it_is_faster(cpu, extensions, vendor, fast, monkeypatch):
    cpu(*extensions, vendor=vendor)
    monkeypatch.setattr(library, "load", lambda: None)
    monkeypatch.setattr(precision.self_check, "require_right", lambda *_: None)
    network = precision.Network(residual_model(), TRAINED)
    slow = "this CPU multiplies bfloat16 at half the speed of float32"
    assert precision._missing(network, BF16, where_fast=True) == (None if fast else slow)
    assert precision._missing(network, BF16, where_fast=False) is None


@needs_training_runtime
def test_auto_on_a_slow_cpu_says_so(settings, cpu):
    cpu("avx512_bf16", vendor="GenuineIntel")
    _, audience = train(settings(num_epochs=1, wanted="auto"))
    assert said(audience).endswith(": this CPU multiplies bfloat16 at half the speed of float32")


# --- Float32 by oneDNN ----------------------------------------------------------------------------------


@needs_onednn
@needs_training_runtime
def test_intel_trains_float32_by_onednn(settings, cpu):
    """Near ONNX Runtime, which the config can keep to; a resumed run stays with what computed it."""
    cpu(vendor="GenuineIntel")
    slow = {"optimizer": {"learning_rate": 0.001}}
    _, ours = train(settings("ours", "fp32", num_epochs=1, **slow))
    assert said(ours) == f"fp32, by oneDNN {library.load().version}"
    engine = {"birdsonnx": {"engine": "onnxruntime"}}
    _, theirs = train(settings("theirs", "fp32", num_epochs=1, **slow, **engine))
    assert said(theirs) is None
    assert computed_by("ours", 1) == precision.BY_ONEDNN
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-4)
    cpu(vendor="AuthenticAMD")
    _, resumed = train(settings("ours", "fp32", **slow), resume=True)
    assert said(resumed) == said(ours)
    cpu(vendor="GenuineIntel")
    train(settings("whole", "fp32", **slow))
    for name, value in weights_of("whole").items():
        np.testing.assert_array_equal(weights_of("ours")[name], value)


@needs_onednn
@needs_training_runtime
def test_a_run_whose_onednn_is_gone_says_so(settings, cpu, monkeypatch):
    cpu(vendor="GenuineIntel")
    train(settings(wanted="fp32", num_epochs=1))
    monkeypatch.setenv(library.VARIABLE, "/no/libdnnl.so")
    library.load.cache_clear()
    _, audience = train(settings(wanted="fp32"), resume=True)
    assert said(audience).startswith("fp32: BIRDSONNX_ONEDNN: /no/libdnnl.so cannot be loaded (")
    assert said(audience).endswith("; the run that is resumed was computed by oneDNN, which rounds otherwise")


@needs_onednn
def test_without_a_gradient_builder_onednn_trains(settings, cpu, monkeypatch):
    """As on Python 3.13 and later, where heads alone had gradients."""
    monkeypatch.setattr(gradient_builder, "is_installed", lambda: False)
    cpu(vendor="AuthenticAMD")
    _, audience = train(settings(wanted="fp32", num_epochs=5))
    assert said(audience).startswith("fp32, by oneDNN")
    assert audience.losses[-1] < 0.5 * audience.losses[0]


@needs_onednn
@needs_training_runtime
def test_a_run_goes_on_by_onednn_where_the_builder_is_gone(settings, cpu, monkeypatch):
    cpu()
    train(settings(wanted="fp32", num_epochs=1))
    assert computed_by("saved", 1) == precision.BY_ONNXRUNTIME
    monkeypatch.setattr(gradient_builder, "is_installed", lambda: False)
    _, audience = train(settings(wanted="fp32"), resume=True)
    assert said(audience).startswith("fp32, by oneDNN")
    assert said(audience).endswith(
        ": the run that is resumed was computed by ONNX Runtime, which rounds otherwise"
    )


@linux
def test_where_neither_trains_it_the_reason_of_onednn_is_said(settings, cpu, monkeypatch):
    cpu()
    monkeypatch.setattr(gradient_builder, "is_installed", lambda: False)
    where = "needs onnxruntime-training-cpu .*, or oneDNN; "
    kept = '"engine": "onnxruntime" leaves it to ONNX Runtime; or choose'
    with pytest.raises(InstallationError, match=where + kept):
        train(settings(wanted="fp32", birdsonnx={"engine": "onnxruntime"}))
    monkeypatch.setenv(library.VARIABLE, "/no/libdnnl.so")
    with pytest.raises(InstallationError, match=where + "BIRDSONNX_ONEDNN: /no/libdnnl.so cannot be"):
        train(settings(wanted="fp32"))


class Pair(Ranks):
    """This rank, and another one that says what it is given."""

    def __init__(self, other: str | None) -> None:
        self._other = other

    def everyone(self, value):
        return [value, self._other if value is None or isinstance(value, str) else value]


@needs_bfloat16
@needs_training_runtime
def test_one_rank_that_cannot_takes_all_to_float32(settings, cpu):
    """Here by the answers of a second one; under mpirun in tests/e2e."""
    chosen = settings()
    model = residual_model()
    network = precision.Network(model, TRAINED)
    loss = precision.Loss(np.ones(3, np.float32), 0, 0)

    def divide(of):
        return of.divide(of.boundaries()[0])

    for other, by in ((None, precision.IN_BFLOAT16), ("no such file", precision.BY_ONNXRUNTIME)):
        found = precision.settled(precision.Question(chosen, Pair(other), network, divide, loss, 24, 1, None))
        assert found.computed_by == by
    assert found.line == "fp32: no such file"
    assert found.kernels is None
    assert found.network is network
    cpu()
    found = precision.settled(precision.Question(chosen, Pair(None), network, divide, loss, 24, 1, None))
    assert found.line == "fp32: this CPU has no instructions for bfloat16"


# --- The key --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["fp16", "bfloat16", "", 16, True, None, ["bf16"]])
def test_other_values_are_refused(value):
    text = json.dumps({"neural_network": {"birdsonnx": {"precision": value}}})
    with pytest.raises(ConfigError, match=r"neural_network\.birdsonnx\.precision") as caught:
        parse(text, "config.json")
    for known in ("fp32", "bf16", "auto"):
        assert known in str(caught.value)


def test_float32_is_the_default():
    assert parse('{"neural_network": {}}', "config.json").birdsonnx.precision == "fp32"
