"""The page that `serve` shows, in a browser."""

import base64

import pytest

from tests.browser import cards, chromium, opened
from tests.command import succeed_json


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


DROP = """([name, content]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, { type: "image/png" }));
    document.getElementById("drop").dispatchEvent(
        new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


def test_dropped_and_chosen_photos_are_named_as_predict_names_them(server, place, browser):
    photos = sorted((place / "data").rglob("000.png"))
    words = ["predict", *photos[:2], "--model", place / "model.onnx", "--top-k", "3"]
    expected = succeed_json(*words[:2], *words[3:])["predictions"][0]["top"]
    with opened(browser, server.url) as page:
        page.evaluate(DROP, ["dropped.png", base64.b64encode(photos[0].read_bytes()).decode()])
        [found] = cards(page, 1)
        assert found["names"] == [name for name, _ in expected]
        assert found["shares"] == pytest.approx([share for _, share in expected], abs=1e-5)
        assert found["file"] == "dropped.png"
        page.set_input_files("#choose", photos[1:])
        assert [card["file"] for card in cards(page, 3)] == ["000.png", "000.png", "dropped.png"]
        assert page.get_by_role("status").inner_text().startswith("000.png: ")


def test_a_damaged_photo_is_said_to_be_so_and_the_page_goes_on(server, place, browser, tmp_path):
    good = next((place / "data").rglob("*.png"))
    (tmp_path / "<b>torn.png").write_bytes(good.read_bytes()[:300])
    (tmp_path / "large.png").write_bytes(bytes(2**20 + 1))
    with opened(browser, server.url) as page:
        page.set_input_files("#choose", [tmp_path / "<b>torn.png", tmp_path / "large.png", good])
        named, large, torn = cards(page, 3)
    assert torn["title"] == large["title"] == "This photo could not be named"
    assert torn["file"].startswith("<b>torn.png: cannot be decoded")
    assert large["file"] == "large.png: larger than the 1 MB that this server takes"
    assert named["names"]


def test_keys_alone_reach_the_photos(server, browser):
    with opened(browser, server.url) as page:
        # From here on Chromium hands file choosers to the test; asked for with the key press, it may come too
        # late.
        page.on("filechooser", lambda chooser: None)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "choose"
        assert page.evaluate("getComputedStyle(document.getElementById('drop')).outlineStyle") == "solid"
        with page.expect_file_chooser():
            page.keyboard.press("Enter")
        chooser = page.locator("#choose")
        assert chooser.evaluate("each => each.labels[0].innerText").startswith("Drop a photo here")
