"""The page at `/` in a real Chromium, with nothing else on the network."""

import shutil

import pytest

from serve_app.config import ServeConfig
from serve_app.gateway import Gateway

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def page(pools, serve_over_http):
    if CHROMIUM is None:
        pytest.skip("no chromium here; apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    gateway = Gateway(ServeConfig.model_validate({"model": "lexical"}), {"lexical": pools.fixed()})
    with serve_over_http(gateway) as url, api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.foreign = []
        page.wrong = []
        page.on("request", lambda r: r.url.startswith(url) or page.foreign.append(r.url))
        page.on("console", lambda m: m.type == "error" and page.wrong.append(m.text))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.goto(url)
        yield page
        assert page.foreign == []
        browser.close()


def rerank(page, documents, **options):
    page.fill("#documents", "\n".join(documents))
    for name, value in options.items():
        page.fill(f"#{name}", value)
    page.click("#go")
    page.wait_for_function("!/Scoring|Press/.test(document.querySelector('#status').textContent)")
    return page.locator("#ranking li").all()


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
