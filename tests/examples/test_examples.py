"""Each program of examples/ names a photo as `birdsonnx predict` does."""

import contextlib
import functools
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from birdsonnx.config.transforms import CenterCrop, Resize, Rotate
from birdsonnx.model.model_file import BirdModel
from tests.browser import cards, chromium, opened
from tests.command import succeed_json
from tests.tiny import SIZE, photo, tiny_model

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLASSES = ("ANT BIRD", "BEE-EATER", "COOT", "Gänsegeier", "NENE", "OWL")
TOLERANCE = 1e-4


def needs(example: str, package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which("node") is None or not (EXAMPLES / example / "node_modules" / package).exists(),
        reason=f"node or {package} is not installed (make examples installs what npm has)",
    )


def write(model: BirdModel, name: str, *transforms) -> None:
    changed = BirdModel(model.proto, model.metadata.having(transforms=transforms or None), name)
    changed.save(Path(name))


@pytest.fixture
def place(tmp_path):
    """Models with and without transforms, and photos that each of them makes smaller."""
    model = tiny_model(len(CLASSES), CLASSES)
    write(model, "plain.onnx")
    write(model, "cropped.onnx", Resize(50, 41), CenterCrop(SIZE, SIZE))
    write(tiny_model(len(CLASSES), CLASSES, mode="unit", channels=1), "gray.onnx")
    generator = np.random.default_rng(4)
    photo(1, generator, 300).resize((457, 301)).save("wide.png")
    Image.fromarray(generator.integers(0, 256, (97, 61, 3), np.uint8)).save("noise.png")
    Image.fromarray(generator.integers(0, 256, (20, 24, 3), np.uint8)).save("small.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    photo(2, generator, 120).save("turned.png", exif=turned)
    return tmp_path


PHOTOS = ("noise.png", "small.png", "turned.png", "wide.png")
MODELS = ("plain.onnx", "cropped.onnx")


def expected(model: str, photos: Sequence[str] = PHOTOS) -> dict[str, list[tuple[str, float]]]:
    found = succeed_json("predict", *photos, "--model", model, "--top-k", "5")
    return {each["name"]: [(name, share) for name, share in each["top"]] for each in found["predictions"]}


def require_same(lines: list[str], top: list[tuple[str, float]]) -> None:
    """Lines of `0.1234  NAME`, printed with four digits."""
    found = [line.split(maxsplit=1) for line in lines]
    assert [name for _, name in found] == [name for name, _ in top]
    shares = [float(share) for share, _ in found]
    np.testing.assert_allclose(shares, [share for _, share in top], atol=TOLERANCE)


def run(*words: str) -> list[str]:
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("model", "name"), [("plain.onnx", "turned.png"), ("cropped.onnx", "wide.png")])
def test_python(place, model, name):
    lines = run(sys.executable, str(EXAMPLES / "python" / "name_photo.py"), model, name)
    require_same(lines, expected(model)[name])


@needs("node", "onnxruntime-node")
@pytest.mark.parametrize("model", [*MODELS, "gray.onnx"])
def test_node(place, model):
    lines = run("node", str(EXAMPLES / "node" / "name_photo.js"), model, *PHOTOS)
    for name, top in expected(model).items():
        at = lines.index(name)
        require_same(lines[at + 1 : at + 6], top)


@pytest.fixture(scope="module")
def name_photo(tmp_path_factory) -> str:
    """examples/cpp, compiled as its text says."""
    utils = pytest.importorskip("openvino.utils", reason="openvino is not installed")
    lacking = [name for name in ("cmake", "make", "c++", "pkg-config") if shutil.which(name) is None]
    if lacking:
        pytest.skip(f"there is no {', '.join(lacking)}")
    libraries = ("libturbojpeg", "libpng", "jsoncpp")
    if subprocess.run(
        ["pkg-config", "--print-errors", *libraries], check=False, capture_output=True
    ).returncode:
        pytest.skip(f"the headers of {', '.join(libraries)} are not all installed")
    build = str(tmp_path_factory.mktemp("cpp"))
    run("cmake", "-S", str(EXAMPLES / "cpp"), "-B", build, f"-DOpenVINO_DIR={utils.get_cmake_path()}")
    run("cmake", "--build", build)
    return f"{build}/name_photo"


@pytest.mark.parametrize("model", [*MODELS, "gray.onnx"])
def test_cpp(place, name_photo, model):
    lines = run(name_photo, model, *PHOTOS)
    for name, top in expected(model).items():
        at = lines.index(name)
        require_same(lines[at + 1 : at + 6], top)


def test_cpp_decodes_jpegs_as_birdsonnx_does(place, name_photo):
    """However they lie, and where they are decoded at a quarter of their size."""
    picture = photo(3, np.random.default_rng(5), 400).resize((464, 304))
    names = [f"lies_{number}.jpg" for number in range(1, 9)]
    for number, name in enumerate(names, 1):
        lies = Image.Exif()
        lies[0x0112] = number
        picture.crop((0, 0, 150, 97)).save(name, exif=lies)
    picture.save("large.jpg")
    picture.convert("L").save("gray.jpg")
    names += ["large.jpg", "gray.jpg"]
    lines = run(name_photo, "plain.onnx", *names)
    for name, top in expected("plain.onnx", names).items():
        at = lines.index(name)
        require_same(lines[at + 1 : at + 6], top)


def test_cpp_refuses_in_one_line(place, name_photo):
    for name in ("text.jpg", "text.onnx"):
        Path(name).write_text("a bird")
    photo(1, np.random.default_rng(0), 90).save("half.jpg")
    Path("half.jpg").write_bytes(Path("half.jpg").read_bytes()[:900])
    Image.fromarray(np.zeros((40, 40), np.uint16)).save("deep.png")
    model = tiny_model(len(CLASSES), CLASSES)
    write(model, "rotated.onnx", Rotate(20), Resize(SIZE, SIZE))
    write(model, "narrow.onnx", CenterCrop(SIZE, SIZE))
    for words, reason in [
        (["plain.onnx"], "which photos? name_photo model.onnx bird.jpg …"),
        (["none.onnx", "noise.png"], 'none.onnx: Could not open the file: "none.onnx"'),
        (["text.onnx", "noise.png"], "text.onnx: Model can't be parsed"),
        (["plain.onnx", "none.jpg"], "none.jpg: it cannot be opened"),
        (["plain.onnx", "text.jpg"], "text.jpg: it is neither a JPEG nor a PNG"),
        (["plain.onnx", "half.jpg"], "half.jpg: Premature end of JPEG file"),
        (["plain.onnx", "deep.png"], "deep.png: it has 16 bits a channel; save it with 8"),
        (["narrow.onnx", "small.png"], "small.png: it has too few pixels for this model"),
        (
            ["rotated.onnx", "noise.png"],
            "noise.png: the model wants the transform rotate, which this example does not know",
        ),
    ]:
        done = subprocess.run([name_photo, *words], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{reason}\n")


PIXELS = """
import { resize, withChannels } from "EXAMPLES/javascript/pixels.js";
const bytes = await new Promise((resolve) => {
  const parts = [];
  process.stdin.on("data", (part) => parts.push(part)).on("end", () => resolve(Buffer.concat(parts)));
});
const [width, height, newWidth, newHeight, channels] = process.argv.slice(-5).map(Number);
const picture = withChannels({ width, height, data: bytes }, channels);
process.stdout.write(resize(picture, newWidth, newHeight).data);
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize(
    ("size", "new"), [((61, 97), (32, 32)), ((7, 5), (32, 40)), ((300, 33), (33, 33)), ((3, 200), (9, 1))]
)
def test_the_resize_of_the_examples_is_pillows_to_the_bit(size, new):
    if size[1] > size[0] and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("older Pillows make tall pictures smaller in another order")
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (size[1], size[0], 4), np.uint8)
    pixels[: size[1] // 2] = np.where(pixels[: size[1] // 2] > 127, 255, 0)  # extremes, which may overflow
    script = PIXELS.replace("EXAMPLES", EXAMPLES.as_uri())
    rgb = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    for channels, like in ((3, rgb), (1, rgb.convert("L"))):
        words = ["node", "--input-type=module", "-e", script, "--", *map(str, (*size, *new, channels))]
        done = subprocess.run(words, input=pixels.tobytes(), capture_output=True, timeout=60, check=True)
        found = np.frombuffer(done.stdout, np.uint8).reshape(new[1], new[0], channels)
        resized = np.asarray(like.resize(new, Image.Resampling.BILINEAR)).reshape(found.shape)
        np.testing.assert_array_equal(found, resized)


@contextlib.contextmanager
def files_offered(folder: Path):
    """A web server that has files and nothing else; gives its address, and what it was asked for."""
    asked: list[tuple[str, str]] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append((self.command, self.path))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@needs("browser", "onnxruntime-web")
def test_browser(place):
    """Nothing but reading is asked of the server: no photo leaves the browser."""
    with chromium() as browser:
        for model in MODELS:
            run("node", str(EXAMPLES / "browser" / "build.js"), model, "page")
            with files_offered(place / "page") as (url, asked), opened(browser, url) as page:
                page.set_input_files("#choose", list(PHOTOS))
                found = {card["file"]: card for card in cards(page, len(PHOTOS))}
                assert {method for method, _ in asked} == {"GET"}
            for file, top in expected(model).items():
                assert found[file]["names"] == [name for name, _ in top]
                shares = [share for _, share in top]
                np.testing.assert_allclose(found[file]["shares"], shares, atol=TOLERANCE)


def test_the_readme_of_the_examples_names_each():
    text = (EXAMPLES / "README.md").read_text()
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert all(f"{name}/" in text for name in folders)
