"""What programs that know nothing of birdsonnx read about the input."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from birdsonnx.model import model_file
from tests.command import succeed, succeed_json
from tests.tiny import tiny_model


def described(path: str) -> tuple[str, list[str], dict[str, str]]:
    """By the onnx package alone."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    [images] = model.graph.input
    texts = {each.key: each.value for each in model.metadata_props if each.key.startswith("Image.")}
    return images.type.denotation, [dim.denotation for dim in images.type.tensor_type.shape.dim], texts


AXES = ["DATA_BATCH", "DATA_FEATURE", "DATA_FEATURE", "DATA_CHANNEL"]
RGB = {
    "Image.BitmapPixelFormat": "Rgb8",
    "Image.ColorSpaceGamma": "SRGB",
    "Image.NominalPixelRange": "NominalRange_0_255",
}


@pytest.mark.parametrize(("channels", "pixels"), [(3, "Rgb8"), (1, "Gray8")])
def test_a_file_describes_its_photos(channels, pixels):
    mode = "caffe" if channels == 3 else "unit"
    tiny_model(3, mode=mode, channels=channels).save(Path("m.onnx"))
    assert described("m.onnx") == ("IMAGE", AXES, {**RGB, "Image.BitmapPixelFormat": pixels})


def test_checkpoints_and_int8_models_do_too(workspace, training_config):
    import json

    Path("config.json").write_text(json.dumps(training_config()))
    succeed("train", "config.json")
    checkpoint = "saved/model_checkpoint_3.onnx"
    succeed("quantize", checkpoint, "--calibrate", "data/train", "-o", "int8.onnx", "--min-agreement", "0")
    for path in (checkpoint, "int8.onnx"):
        assert described(path) == ("IMAGE", AXES, RGB)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert session.run(None, {"images": np.zeros((2, 32, 32, 3), np.uint8)})[0].shape == (2, 3)
        held = session.get_modelmeta().custom_metadata_map
        assert {key: value for key, value in held.items() if key.startswith("Image.")} == RGB
    said = succeed_json("info", checkpoint)["image"]
    assert said == {"denotation": "IMAGE", "axes": AXES, **RGB}
    assert "image          IMAGE of DATA_BATCH" in succeed("info", checkpoint)


def test_a_file_of_an_earlier_version_gets_them_when_it_is_written_again():
    old = onnx.load_model_from_string(tiny_model(3).serialized())
    old.graph.input[0].type.denotation = ""
    for dim in old.graph.input[0].type.tensor_type.shape.dim:
        dim.denotation = ""
    kept = [each for each in old.metadata_props if not each.key.startswith("Image.")]
    del old.metadata_props[:]
    old.metadata_props.extend(kept)
    onnx.save(old, "old.onnx")
    assert "not described in ONNX' own terms" in succeed("info", "old.onnx")
    model_file.load(Path("old.onnx")).save(Path("new.onnx"))
    assert described("new.onnx") == ("IMAGE", AXES, RGB)
