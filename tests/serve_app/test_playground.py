"""The page at `/` in a real Chromium, with nothing else on the network.

`make pictures` runs the test of the page's own example with --pictures: what it sees then becomes
the README's picture.
"""

import contextlib
import re
import shutil
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from rerank_core import ScorerConfig
from serve_app.config import ServeConfig
from serve_app.gateway import Gateway

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
WIDTH = 1120


@pytest.fixture
def open_page(serve_over_http):
    """Return a function that serves one model's pool and opens the page of it."""
    if CHROMIUM is None:
        pytest.skip("no chromium here; apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with contextlib.ExitStack() as stack:

        def opened(model, pool):
            config = ServeConfig.model_validate({"model": model})
            url = stack.enter_context(serve_over_http(Gateway(config, {model: pool})))
            playwright = stack.enter_context(api.sync_playwright())
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            stack.callback(browser.close)
            page = browser.new_page()
            page.foreign = []
            page.wrong = []
            page.on("request", lambda r: r.url.startswith(url) or page.foreign.append(r.url))
            page.on("console", lambda m: m.type == "error" and page.wrong.append(m.text))
            page.on("pageerror", lambda error: page.wrong.append(str(error)))
            page.goto(url)
            page.locator("#model-info", has_text="tokens").wait_for()
            return page

        yield opened


@pytest.fixture
def page(open_page, pools):
    page = open_page("lexical", pools.fixed())
    yield page
    assert page.foreign == []


class TimedPool:
    """A pool whose answers say how long the model really took."""

    def __init__(self, pool):
        self.pool = pool
        self.loaded, self.has_other = pool.loaded, pool.has_other

    async def score(self, unit):
        started = time.perf_counter()
        scores = await self.pool.score(unit)
        return replace(scores, queue_s=0.0, inference_s=time.perf_counter() - started)


def press(page):
    """Press Rerank and wait until the status says how it went."""
    page.click("#go")
    page.locator("#status").filter(has_text=re.compile(r"tokens in|\d{3}:|No answer")).wait_for()
    return page.locator("#ranking li").all()


def rerank(page, documents, **options):
    page.fill("#documents", "\n".join(documents))
    for name, value in options.items():
        page.fill(f"#{name}", value)
    return press(page)


def test_it_is_served_whole_with_a_strict_policy(fixed):
    answer = fixed.send("GET", "/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "http://" not in answer.text
    assert "https://" not in answer.text


@pytest.mark.browser
def test_documents_are_ranked_with_bars_and_truncation_marks(page):
    items = rerank(page, ["0 low", "3 <b>high</b> long", "-2 lowest"], query="q")
    assert [item.get_attribute("data-index") for item in items] == ["1", "0", "2"]
    assert "3 <b>high</b> long" in items[0].inner_text()
    assert "0.9526" in items[0].inner_text()
    assert items[0].locator(".cut").count() == 1
    assert [item.locator(".moved").inner_text() for item in items] == ["up 1", "down 1", "same"]
    assert items[0].locator(".track i").evaluate("e => e.style.width").startswith("95.")
    assert "30 tokens" in page.inner_text("#status")
    assert page.wrong == []


@pytest.mark.browser
def test_options_reach_the_server_and_the_curl_line(page):
    page.check("#raw")
    items = rerank(page, ["1 a", "2 it's"], top="1", query="q")
    assert [item.locator("b").inner_text() for item in items] == ["2.0000"]
    curl = page.inner_text("#curl")
    assert '"top_n":1' in curl
    assert '"raw_scores":true' in curl
    assert "it'\\''s" in curl
    assert page.input_value("#model") == "lexical"


@pytest.mark.browser
def test_errors_are_shown_in_words(page):
    page.fill("#query", " ")
    page.evaluate("document.querySelector('#form').noValidate = true")
    assert rerank(page, ["1 a"]) == []
    assert page.inner_text("#status") == "422: query must not be blank"


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    script = """e => { const c = getComputedStyle(e);
        const l = s => { const [r, g, b] = s.match(/\\d+/g).map(v => v / 255)
            .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
            return .2126 * r + .7152 * g + .0722 * b };
        const [a, b] = [l(c.color), l(c.backgroundColor)].sort((x, y) => y - x);
        return (a + .05) / (b + .05) }"""
    assert page.eval_on_selector("body", script) > 7
    assert page.eval_on_selector("#go", script) > 4.5


@pytest.mark.browser
def test_its_own_example_is_ranked_by_meaning_and_looks_as_in_the_readme(
    open_page, pools, pytestconfig
):
    pool = TimedPool(pools.local(ScorerConfig(model="embedded", threads=1)))
    page = open_page("embedded", pool)
    page.set_viewport_size({"width": WIDTH, "height": 600})
    press(page)
    # The first question pays for the start of threads; the picture shows one as any later one.
    items = press(page)
    documents = page.input_value("#documents").splitlines()
    assert {int(item.get_attribute("data-index")) for item in items[:2]} == {2, 4}
    assert sorted(item.locator("div").inner_text() for item in items) == sorted(documents)
    assert [item.locator(".place").inner_text() for item in items] == list("12345")
    scores = [float(item.locator("b").inner_text()) for item in items]
    assert scores[1] > 0.9
    assert scores[2] < 0.1
    for part in ("h1", "#query", "#documents", "#model", "#go", "#status", "#ranking", "#curl"):
        assert page.locator(part).is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == WIDTH
    assert (page.wrong, page.foreign) == ([], [])
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        if folder := pytestconfig.getoption("--pictures", None):
            write_picture(page.screenshot(full_page=True), folder / f"playground-{scheme}.png")
        shown = page.eval_on_selector("body", "e => getComputedStyle(e).backgroundColor")
        assert shown == f"rgb{ground(PICTURES / f'playground-{scheme}.png')}"


def write_picture(screenshot, file):
    """Write a screenshot with 256 colours: a third of the bytes, and nobody sees it."""
    image = Image.open(BytesIO(screenshot)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)


def ground(file):
    """Return the colour of a picture's corner, after a look at its size."""
    assert file.stat().st_size < 150_000
    with Image.open(file) as image:
        assert image.width == WIDTH
        return image.convert("RGB").getpixel((0, 0))
