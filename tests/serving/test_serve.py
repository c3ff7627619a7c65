"""`birdsonnx serve` as its clients meet it."""

import contextlib
import io
import re
import signal
import socket
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from birdsonnx.extras import how_to_install
from birdsonnx.images.photo_file import FORMATS
from tests.command import refused, succeed_json
from tests.serving.conftest import BOUNDARY, CLASSES, form, served
from tests.tiny import photo


@pytest.fixture(scope="module")
def photos(place):
    return {path.relative_to(place / "data").as_posix(): path for path in (place / "data").rglob("*.png")}


@pytest.fixture(scope="module")
def expected(place):
    """What `predict` says of each, by name: the oracle."""
    words = ["predict", "data", "--model", "model.onnx", "--top-k", "3", "-o", "out"]
    found = succeed_json(*words, cwd=place)
    return {each["name"]: each["top"] for each in found["predictions"]}


def require_same(top, expected):
    assert [name for name, _ in top] == [name for name, _ in expected]
    np.testing.assert_allclose([share for _, share in top], [share for _, share in expected], atol=1e-5)


def test_a_form_with_several_photos_is_answered_as_predict_does(server, photos, expected):
    names = list(photos)[:5]
    answer = server.send(*((name, photos[name].read_bytes()) for name in names))
    assert answer.status == 200
    found = answer.json
    assert found["sha256"] == server.about["sha256"]
    assert found["model"] == "model.onnx"
    assert [each["name"] for each in found["predictions"]] == names
    for each in found["predictions"]:
        require_same(each["top"], expected[each["name"]])


def test_a_bare_photo(server, photos, expected):
    name, path = next(iter(photos.items()))
    for kind in ("image/png", "application/octet-stream"):
        answer = server.ask("POST", "/predict", path.read_bytes(), content_type=kind)
        [found] = answer.json["predictions"]
        require_same(found["top"], expected[name])
    answer = server.ask("POST", "/predict?top_k=1", path.read_bytes(), content_type="image/png")
    assert answer.json["predictions"][0]["top"] == found["top"][:1]


def test_requests_beside_each_other_each_get_their_own_answer(server, photos, expected):
    def ask(name: str) -> None:
        answer = server.send((name, photos[name].read_bytes()))
        assert answer.status == 200
        require_same(answer.json["predictions"][0]["top"], expected[name])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, list(photos) * 5))


def test_photos_that_cannot_be_used_are_listed_and_the_others_named(server, photos):
    good = next(iter(photos.values())).read_bytes()
    answer = server.send(("a.png", good), ("b.png", good[:300]), ("c.txt", b"no picture"))
    assert answer.status == 200
    assert [each["name"] for each in answer.json["predictions"]] == ["a.png"]
    [damaged, foreign] = answer.json["refused"]
    assert damaged.startswith("b.png: cannot be decoded (")
    assert foreign == f"c.txt: not an image that can be read ({', '.join(FORMATS)})"


def bomb() -> bytes:
    """A PNG whose header announces 30,000 x 30,000 pixels."""
    content = io.BytesIO()
    Image.new("L", (8, 8)).save(content, "PNG")
    header = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + content.getvalue()[24:29]
    return content.getvalue()[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content.getvalue()[33:]


FORM = f"multipart/form-data; boundary={BOUNDARY}"
CASES = {
    "no body": ("/predict", b"", "image/png", 400, "the request brings no photo"),
    "no file": ("/predict", form(), FORM, 400, "the form brings no file"),
    "nothing chosen": ("/predict", form(("", b"")), FORM, 400, "the form brings no file"),
    "no form": ("/predict", b"abc", FORM, 400, "the form cannot be read"),
    "no boundary": ("/predict", b"abc", "multipart/form-data", 400, "the form cannot be read (Missing"),
    "text": ("/predict", b"no photo", "image/jpeg", 400, "photo: not an image that can be read"),
    "bomb": ("/predict", bomb(), "image/png", 400, "photo: its header announces more pixels than"),
    "top_k": ("/predict?top_k=x", b"a", "image/png", 400, "top_k='x': give a whole number above 0"),
    "query": ("/predict?topk=1", b"a", "image/png", 400, "the query has 'topk'; only top_k is known"),
    "json": ("/predict", b"{}", "application/json", 415, "Content-Type 'application/json' is no photo"),
    "too large": ("/predict", bytes(2**21), "image/png", 413, "larger than the 1 MB allowed (--max-upload)"),
    "too many": ("/predict", form(*[("a", b"b")] * 9), FORM, 413, "more than 8 photos in one request"),
    "path": ("/nowhere", b"", "image/png", 404, "not found"),
    "method": ("/health", b"", "image/png", 405, "method not allowed; /health takes GET"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_answered_gets_one_clear_line(server, case):
    path, content, kind, status, message = CASES[case]
    answer = server.ask("POST", path, content, content_type=kind)
    assert answer.status == status
    assert message in answer.json["error"]
    assert "\n" not in answer.json["error"]


def test_predict_is_for_post(server):
    answer = server.ask("GET", "/predict")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_a_body_of_unknown_length_is_cut_off(server):
    pieces = (bytes(2**16) for _ in range(64))
    answer = server.ask("POST", "/predict", pieces, content_type="image/png")  # chunked
    assert answer.status == 413


def test_pages_of_others_and_foreign_names_are_kept_out(server, photos):
    """DNS rebinding, and a form that another site's page sends."""
    content = next(iter(photos.values())).read_bytes()
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        answer = server.ask("POST", "/predict", content, content_type="image/png", sec_fetch_site=site)
        assert answer.status == status
    for name, status in (("birds.example", 400), ("127.0.0.1", 200), ("localhost:1", 200), ("[::1]", 200)):
        assert server.ask("GET", "/health", host=name).status == status
    answer = server.ask("OPTIONS", "/predict", origin="http://birds.example")
    assert answer.status == 405
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_every_answer_has_the_headers_of_safety(server):
    for path in ("/", "/page/page.js", "/health", "/nowhere"):
        headers = server.ask("GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    page = server.ask("GET", "/").content.decode()
    assert "style=" not in page
    assert not re.search(r"<script(?![^>]*src)", page)  # the policy would not run it
    assert server.ask("GET", "/page/../api.py").status == 404


def test_health(server):
    found = server.ask("GET", "/health").json
    assert found["ready"] is True
    assert found["classes"] == len(CLASSES)
    assert {"model", "sha256", "engine", "max_upload_mb"} <= set(found)


def test_metrics_count_what_was_done(server, photos):
    content = next(iter(photos.values())).read_bytes()
    names = {
        'birdsonnx_requests_total{path="/predict",status="200"}': 1,
        'birdsonnx_photos_total{outcome="named"}': 2,
        'birdsonnx_photos_total{outcome="refused"}': 1,
        "birdsonnx_request_seconds_count": 1,
        "birdsonnx_batch_photos_sum": 2,
    }
    before = {name: server.metric(name) for name in names}
    server.send(("a", content), ("b", content), ("c", b"no"))
    assert {name: server.metric(name) - before[name] for name in names} == names
    assert server.metric("birdsonnx_queue_photos") == 0
    lines = server.ask("GET", "/metrics").content.decode().splitlines()
    buckets = [int(line.split()[-1]) for line in lines if line.startswith("birdsonnx_request_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == server.metric("birdsonnx_request_seconds_count")


def half_sent(server, content: bytes) -> socket.socket:
    """A client that sends the first half of a photo, and then nothing."""
    client = socket.create_connection(server.address, timeout=60)
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: "
    client.sendall(f"{head}{len(content)}\r\n\r\n".encode() + content[: len(content) // 2])
    return client


def until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_slow_clients_fill_a_bounded_room_and_leave_it_when_they_go(server, photos):
    content = next(iter(photos.values())).read_bytes()
    with contextlib.ExitStack() as slow:
        for _ in range(16):
            slow.enter_context(half_sent(server, bytes(2**20 + 2**16)))
        until(lambda: server.send(("a", content)).status == 503)
        answer = server.send(("a", content))
        assert answer.headers["retry-after"] == "1"
        assert answer.json["error"] == "too many photos are waiting; try again"
    until(lambda: server.send(("a", content)).status == 200)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_end_finishes_what_is_under_way_and_takes_nothing_new(place, photos, number):
    content = next(iter(photos.values())).read_bytes()
    with served("model.onnx", cwd=place) as server, half_sent(server, content) as client:
        until(lambda: server.metric("birdsonnx_queue_photos") == 0)
        server.process.send_signal(number)

        def is_closed() -> bool:
            try:
                socket.create_connection(server.address, timeout=5).close()
            except ConnectionRefusedError:
                return True
            return False

        until(is_closed)
        client.sendall(content[len(content) // 2 :])
        answer = client.recv(2**16)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert server.end() == (0, "", "")


def test_other_machines_may_call_it_by_any_name_where_the_host_lets_them(place):
    with served("model.onnx", "--host", "0.0.0.0", cwd=place) as server:
        assert server.ask("GET", "/health", host="birds.example").status == 200
    words = ("model.onnx", "--allow-host", "birds.example")
    with served(*words, cwd=place) as server:
        assert server.ask("GET", "/health", host="birds.example").status == 200
        assert server.ask("GET", "/health", host="else.example").status == 400


def test_what_cannot_be_served_is_said_at_once(place, server):
    words = ["serve", "model.onnx"]
    port = str(server.address[1])
    assert f"127.0.0.1, port {port}: Address already in use" in refused(*words, "--port", port, cwd=place)
    assert "--host nowhere.invalid: " in refused(*words, "--host", "nowhere.invalid", cwd=place)
    assert "give a name without port" in refused(*words, "--allow-host", "a.example:80", cwd=place)
    assert "none.onnx: there is no such model" in refused("serve", "none.onnx", cwd=place)
    assert "int8" in refused(*words, "--precision", "int8", cwd=place)


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "python_multipart"])
def test_a_missing_extra_is_one_line(place, package):
    script = f"import sys; sys.modules[{package!r}] = None; from birdsonnx.cli.app import main; main()"
    command = [sys.executable, "-c", script, "serve", "model.onnx"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == f"birdsonnx: serving needs {package}: {how_to_install('serve')}\n"


@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF"])
def test_each_format_is_read_from_memory_as_from_disk(server, place, suffix, tmp_path):
    picture = photo(1, np.random.default_rng(3), 64)
    path = tmp_path / f"a.{suffix.lower()}"
    options = {"compression": "tiff_adobe_deflate"} if suffix == "TIFF" else {}
    picture.save(path, suffix, **options)
    found = succeed_json("predict", path, "--model", place / "model.onnx", "--top-k", "3")
    [named] = server.send((path.name, path.read_bytes())).json["predictions"]
    require_same(named["top"], found["predictions"][0]["top"])
