"""Two engines behind one seam: the same answers, and which one computes."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from birdsonnx.errors import ConfigError, EngineError, InstallationError
from birdsonnx.extras import how_to_install
from birdsonnx.inference import engines, forms, opening
from birdsonnx.inference.classifier import open_classifier
from birdsonnx.inference.engines import choose
from birdsonnx.inference.forms import Form
from birdsonnx.inference.naming import name_photos
from birdsonnx.inference.requests import Request
from birdsonnx.inference.tuning import Among, probe
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import of_mode
from birdsonnx.passes import uint8_weights
from birdsonnx.passes.quantization import quantize
from birdsonnx.runtime import isa, openvino_engine
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.ranks import Ranks
from tests.graphs import answer
from tests.inference.conftest import COUNT, broken
from tests.passes import test_stem as stems
from tests.tiny import residual_model

SMALL = 14


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(openvino_engine, "installed_version", lambda: "2026.4.1")


@pytest.fixture
def missing(monkeypatch):
    monkeypatch.setattr(openvino_engine, "installed_version", lambda: None)


@pytest.fixture
def cpu(monkeypatch):
    """Makes the CPU one with these extensions."""
    return lambda *extensions: monkeypatch.setattr(isa, "extensions", lambda: extensions)


@pytest.fixture
def amx(cpu):
    cpu("avx2", "avx512_vnni", "amx_int8")


@pytest.mark.usefixtures("installed", "amx")
class TestAuto:
    def test_int8_of_many_photos_goes_to_openvino(self):
        assert choose("auto", False, forms.MANY, lambda: True) == "openvino"

    def test_with_vnni_alone_from_more_photos_on(self, cpu):
        cpu("avx2", "avx512_vnni")
        assert choose("auto", False, forms.MANY, lambda: True) == "onnxruntime"
        assert choose("auto", False, engines.VNNI_ALONE, lambda: True) == "openvino"

    def test_never_where_its_sums_overflow(self, cpu):
        cpu("avx2")
        assert choose("auto", False, 10**6, lambda: True) == "onnxruntime"
        assert engines.choosable("auto", False, is_quantized=True) == ("onnxruntime",)
        assert engines.choosable("auto", False, is_quantized=False) == ("onnxruntime", "openvino")
        assert engines.choosable("openvino", False, is_quantized=True) == ("openvino",)
        assert "overflow" in engines.rule()

    def test_tuning_measures_what_is_asked_for(self, missing):
        assert engines.choosable("auto", False, is_quantized=True) == ("onnxruntime",)

    def test_float32_stays(self):
        assert choose("auto", False, 10**6, lambda: False) == "onnxruntime"

    def test_few_photos_stay_and_the_model_is_not_even_asked(self):
        def is_quantized() -> bool:
            raise AssertionError

        assert choose("auto", False, forms.MANY - 1, is_quantized) == "onnxruntime"

    def test_without_openvino(self, missing):
        assert choose("auto", False, 10**6, lambda: True) == "onnxruntime"
        assert how_to_install("openvino") in engines.rule()

    def test_the_rule_says_so(self):
        assert f"int8 models from {forms.MANY} photos" in engines.rule()


class TestAskedFor:
    def test_openvino_for_any_model(self, installed):
        assert choose("openvino", False, 1, lambda: False) == "openvino"

    def test_openvino_that_is_missing(self, missing):
        with pytest.raises(InstallationError, match=r"OpenVINO is not installed: pip install 'openvino<"):
            choose("openvino", False, 1, lambda: False)

    def test_bf16_by_onnxruntime(self):
        with pytest.raises(ConfigError, match="bf16 is computed by OpenVINO alone"):
            choose("onnxruntime", True, 1, lambda: False)

    def test_bf16_without_openvino(self, missing):
        with pytest.raises(InstallationError, match="bf16 is computed by OpenVINO, which is not installed"):
            choose("auto", True, 1, lambda: False)

    def test_bf16_on_a_cpu_without_it(self, installed, monkeypatch):
        monkeypatch.setattr(openvino_engine, "computes_bf16", lambda: False)
        with pytest.raises(ConfigError, match="this CPU does not compute in bf16"):
            choose("auto", True, 1, lambda: False)

    def test_bf16_where_there_is_bf16(self, installed, monkeypatch):
        monkeypatch.setattr(openvino_engine, "computes_bf16", lambda: True)
        assert choose("auto", True, 1, lambda: False) == "openvino"


def kind_of_first_convolution(engine: openvino_engine.OpenVINO) -> str:
    """What OpenVINO computes it in."""
    [compiled] = engine._compiled
    facts = (node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops())
    kinds = (
        each["runtimePrecision"].astype(str)
        for each in facts
        if each["layerType"].astype(str) == "Convolution"
    )
    return next(kinds)


class TestOpenVINO:
    """Against plain ONNX Runtime."""

    @pytest.fixture(autouse=True)
    def needed(self):
        pytest.importorskip("openvino")

    @pytest.fixture
    def model(self) -> BirdModel:
        return residual_model(3, size=SMALL)

    @pytest.mark.parametrize("count", [1, 5, COUNT])
    @pytest.mark.parametrize("per_run", [None, 1, 3])
    def test_log_probs_are_those_of_onnxruntime(self, model, photos, count, per_run):
        content = model.serialized()
        given = [*photos[:1], broken("bad.png"), *photos[1:count]]
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        classifier = open_classifier(content, "model", len(given), 2, per_run=per_run, engine="openvino")
        assert classifier.engine.title.startswith("OpenVINO 20")
        named = list(name_photos(classifier, given, Ranks()))
        assert [each.log_probs is None for each in named] == [each.photo.name == "bad.png" for each in named]
        for each in named:
            if each.log_probs is not None:
                pixels = classifier.decoder(each.photo.path)[None]
                [expected] = session.run(None, {"images": pixels})[0]
                np.testing.assert_allclose(each.log_probs, expected, atol=1e-5)

    @pytest.fixture
    def int8(self, model) -> bytes:
        pixels = np.random.default_rng(0).integers(0, 256, (8, SMALL, SMALL, 3), np.uint8)
        proto = quantize(model.proto, model.metadata.preprocessing, [pixels], "minmax")
        return BirdModel(proto, model.metadata.having(quantization={"photos": 8}), "int8").serialized()

    def test_one_int8_file_serves_both(self, int8, photos):
        """Differences of at most a few steps of the last layer's uint8."""
        rows = []
        for engine in ("onnxruntime", "openvino"):
            classifier = open_classifier(int8, "int8", len(photos), 2, engine=engine)
            rows.append(np.stack([each.log_probs for each in name_photos(classifier, photos, Ranks())]))
        np.testing.assert_allclose(rows[0], rows[1], atol=0.15)
        assert np.ptp(rows[0]) > 1

    def test_its_streams_do_not_hinder_each_other(self, int8):
        """Where they made the weights of a layer beside each other, 1 in 13 answered nonsense ever after."""
        pixels = np.random.default_rng(0).integers(0, 256, (4, SMALL, SMALL, 3), np.uint8)
        answers = {
            openvino_engine.OpenVINO(int8, 2, 1, 4).run({"images": pixels})["log_probs"].tobytes()
            for _ in range(30)
        }
        assert len(answers) == 1

    def test_its_first_run_is_alone(self, model):
        """Two first ones beside each other stopped for ever, now and then."""
        engine = openvino_engine.OpenVINO(model.serialized(), 2, 1, 1)
        request = engine._compiled[0].create_infer_request()
        both = threading.Barrier(2)
        beside: list[int] = []

        class Watched:
            def infer(self, *words: object, **options: object) -> object:
                beside.append(len(active))
                active.append(1)
                time.sleep(0.05)
                try:
                    return request.infer(*words, **options)
                finally:
                    active.pop()

        active: list[int] = []
        engine._turn = itertools.repeat(SimpleNamespace(create_infer_request=Watched))

        def run(_: int) -> None:
            both.wait()
            engine.run({"images": np.zeros((1, SMALL, SMALL, 3), np.uint8)})

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(run, range(2)))
        assert beside == [0, 0]

    @pytest.mark.parametrize("stride", [1, 2, 3])
    def test_an_int8_model_begins_in_int8_where_sums_cannot_overflow(self, stride, monkeypatch):
        """Photos so dark that they cannot overflow on any CPU get the same answers either way, and those of a
        loop with exact sums but for steps of the output's uint8."""
        network = stems.network((5, 4), "none", strides=[stride, stride], filters=16)
        proto = quantize(network, of_mode("none", 3), [stems.photos(4)], "minmax")
        dark = stems.photos(3) // 4
        answers, kinds = [], []
        for overflows in (True, False):
            monkeypatch.setattr(isa, "adds_in_16_bits", lambda by=overflows: by)
            engine = openvino_engine.OpenVINO(proto.SerializeToString(), 1, 1, 3)
            answers.append(engine.run({"images": dark})["y"])
            kinds.append(kind_of_first_convolution(engine))
        assert kinds == ["f32", "u8"]
        uint8_weights.exact_sums(proto)
        expected = answer(proto, dark)
        step = np.ptp(expected) / 64  # of dark photos
        for each in answers:
            np.testing.assert_allclose(each, expected, atol=1.1 * step)

    @pytest.mark.parametrize("mode", ["none", "caffe"])
    def test_a_float32_model_is_compiled_as_it_is(self, mode, monkeypatch):
        """Also where its first convolution reads the photo's own uint8."""
        monkeypatch.setattr(isa, "adds_in_16_bits", lambda: False)
        content = stems.network((5, 4), mode, filters=16).SerializeToString()
        network = openvino_engine._core().read_model(content)
        before = len(network.get_ops())
        openvino_engine._quantize_pixels(network)
        assert len(network.get_ops()) == before
        engine = openvino_engine.OpenVINO(content, 1, 1, 4)
        assert kind_of_first_convolution(engine) == "f32"

    def test_probing_compares_the_engines(self, model):
        found = probe(model.serialized(), Among(2, ("onnxruntime", "openvino")), seconds=0.01)
        assert found.form.engine in ("onnxruntime", "openvino")
        assert probe(model.serialized(), Among(2, ("openvino",)), seconds=0.01).form.engine == "openvino"

    def test_what_it_cannot_read_is_one_line(self):
        with pytest.raises(EngineError, match=r"^birds\.onnx: OpenVINO cannot run it \(") as caught:
            openvino_engine.OpenVINO(b"no model", 1, 1, 1, where="birds.onnx")
        assert len(str(caught.value).splitlines()) == 1

    def test_bf16_of_an_int8_model_is_refused(self, int8):
        classifier = open_classifier(int8, "int8", 1, 1)
        with pytest.raises(Exception, match="is an int8 model, --precision asks for bf16"):
            opening.require_precision("bf16", classifier, "int8")


def test_a_refusal_falls_back_with_one_line(monkeypatch, tmp_path, installed):
    def refuse(*_: object, **__: object) -> None:
        raise EngineError("model: OpenVINO cannot run it (made up)")

    monkeypatch.setattr(openvino_engine, "OpenVINO", refuse)
    path = tmp_path / "model.onnx"
    residual_model(3, size=SMALL).save(path)
    said: list[str] = []

    class Listening(Audience):
        def say(self, *lines: str) -> None:
            said.extend(lines)

    request = Request([], model=path, engine="openvino")
    model = opening.choose_model(request, said.append)
    classifier = opening.open_model(model, 3, request, Ranks(), Listening())
    assert classifier.engine.title.startswith("ONNX Runtime")
    assert said == ["model: OpenVINO cannot run it (made up); ONNX Runtime does"]


def test_a_form_that_was_tuned_brings_its_engine(photos):
    pytest.importorskip("openvino")
    content = residual_model(3, size=SMALL).serialized()
    classifier = open_classifier(content, "model", forms.MANY, 2, form=Form(2, 1, 4, "openvino"))
    assert classifier.engine.title.startswith("OpenVINO")
    assert classifier.per_run == 4
