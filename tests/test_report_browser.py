"""The report in a real browser: whether its figures are drawn, and whether it fits the screen."""

import pytest

from tests.browser import browser
from tests.test_report_page import VALUES, make_study, params
from tune.report.results import REPORT_FILE, refresh_results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of a study with enough trials for every figure, and long names."""
    folder = tmp_path_factory.mktemp("study") / ("a_rather_long_name_of_a_folder_" * 3)
    values = [*VALUES, *([abs(params(n)["weighting.alpha"] - 1.3)] for n in range(4, 24)), []]
    make_study(folder, values, {24: "out of memory: " + "/a/very/long/path/without/a/break" * 9})
    refresh_results(folder, "complete")
    return folder / REPORT_FILE


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark"), (320, "light")])
def test_the_page_fits_the_screen_draws_every_figure_and_asks_for_nothing(chromium, report, width, scheme):
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    plots = page.locator(".plot")
    assert plots.count() == 2 + 3 + 1  # curves, importances, a slice a parameter, all at once
    for number in range(plots.count()):
        plots.nth(number).locator(".main-svg").first.wait_for()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [report.as_uri()]
    # nothing stands out to the right; what is wider scrolls within itself
    assert page.evaluate("document.documentElement.scrollWidth") == width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 29)"
    assert dark == (scheme == "dark")
    page.close()


def test_the_curves_can_be_looked_at_by_hours(chromium, report):
    page = chromium.new_page(viewport={"width": 1000, "height": 900})
    page.goto(report.as_uri())
    title = page.locator("#plot-curves .xtitle")
    title.wait_for()
    assert title.text_content() == "samples seen"
    page.get_by_role("button", name="Hours").click()
    page.locator("#plot-curves .xtitle", has_text="hours that the trial had been running").wait_for()
    page.emulate_media(color_scheme="dark")  # drawn anew in other colours, the view stays
    page.locator("#plot-curves .xtitle", has_text="hours that the trial had been running").wait_for()
    page.get_by_role("button", name="Samples").click()
    page.locator("#plot-curves .xtitle", has_text="samples seen").wait_for()
    page.close()
