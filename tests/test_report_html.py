"""report.html: the same bytes, no network; in a real browser: sort, filter, click, odd names, 2,000 runs."""

import copy
import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from mtlbench.report import html
from run_folders import Folder, composed

ODD = '<script>window.broken = 1</script><img src=x onerror="window.broken = 1">\'&\u2028'


def contents(page):
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def made(folder, method=None):
    """Two methods, three rates, three seeds, four epochs; a run diverged and one is missing."""
    folder.singles()
    rng = np.random.default_rng(0)
    for name in ("equal", "uncertainty"):
        _, choices = composed((f"method={name}",))
        more = {"choices": {**choices, "method": method}} if method and name == "uncertainty" else {}
        for lr in (0.02, 0.1, 0.2):
            for seed in range(3):
                best = 70 + 5 * (name == "equal") - 100 * abs(lr - 0.1) + rng.normal()
                test = [{"left/accuracy": best + i, "right/error": 0.4 - 0.03 * i} for i in range(4)]
                folder.run(f"method={name}", f"optimizer.lr={lr}", seed=seed, epochs=test, **more)
    where = {"epoch": 0, "step": 1, "reason": "the loss is NaN"}
    folder.run("method=equal", "optimizer.lr=0.5", seed=0, epochs=[None], diverged=where)
    folder.cell("method=equal", "optimizer.lr=0.5", seed=1)
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return made(Folder(folder / "runs"), ODD).aggregate(folder, rows=None, report=True)["report.html"]


def test_the_same_runs_give_the_same_bytes_and_no_report_gives_none(tmp_path):
    folder = made(Folder(tmp_path / "runs"))
    first = folder.aggregate(tmp_path, rows=None, report=True)
    again = folder.aggregate(tmp_path, "again", cells=folder.cells[::-1], rows=None, report=True)
    assert again["report.html"] == first["report.html"]
    assert "report.html" not in folder.aggregate(tmp_path, "without", rows=None)


def test_the_data_survives_and_cannot_end_its_element(page):
    data = contents(page)
    assert {setting["method"] for setting in data["comparisons"][0]["settings"]} == {"equal", ODD}
    held = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1]
    assert not set("<>&\u2028\u2029") & set(held)
    assert html.page(data) == page


def test_a_title_is_escaped_and_placeholders_in_data_stay(page):
    data = contents(page)
    named = html.page({**data, "name": "<b>{{library}}</b>"})
    assert "<title>&lt;b&gt;{{library}}&lt;/b&gt; - mtlbench</title>" in named
    assert contents(named)["name"] == "<b>{{library}}</b>"
    with pytest.raises(ValueError, match="JSON compliant"):
        html.page({**data, "runs": {"a": float("nan")}})


def test_the_scripts_write_no_html_and_fetch_nothing():
    for name in html.SCRIPTS:
        text = html._read(name)
        words = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|fetch\(|XMLHttpRequest"
        assert not re.search(words, text), name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
    assert "url(" not in html._read("style.css")


def test_all_files_of_the_page_are_used_and_its_library_has_its_licence():
    folder = Path(html.__file__).parent
    assert {path.name for path in folder.glob("*.js")} == set(html.SCRIPTS)
    assert "Apache License" in (folder / "echarts" / "LICENSE").read_text()
    assert "Licensed to the Apache Software Foundation" in html._read("echarts/echarts.min.js")[:1000]


def test_curves_of_all_runs_where_they_are_few(page):
    data = contents(page)
    with_curves = [run for run in data["runs"].values() if run["curves"]]
    assert len(with_curves) == sum(run["state"] in ("done", "diverged") for run in data["runs"].values())
    assert data["points"] == 60


def many(page, count):
    """The data with its settings repeated under other rates until there are `count` runs."""
    data = contents(page)
    (comparison,) = data["comparisons"]
    (example,) = [setting for setting in comparison["settings"] if setting["label"] == "equal lr=0.1"]
    runs = {id: {**run, "curves": run["curves"] if id in example["runs"] else None} for id, run in data["runs"].items()}
    i = 0
    while len(runs) < count:
        setting = copy.deepcopy(example)
        lr = float(f"{1e-5 * 1.02**i:.4g}")
        ids = [f"{i:08x}{seed:04x}" for seed in range(3)]
        setting |= {"label": f"many lr={lr} {i}", "group": f"method {i % 9}", "lr": lr, "chosen": i < 9, "runs": ids}
        setting |= {"method": f"method {i % 9}", "optimizer": "adam" if i % 2 else "sgd"}
        for seed, id in enumerate(ids):
            run = copy.deepcopy(data["runs"][example["runs"][seed]])
            run["values"]["test"] = {"left/accuracy": 60 + i % 31 + seed / 10, "right/error": 0.3 + (i % 17) / 100}
            run |= {
                "command": f"python -m mtlbench.train method=equal optimizer.lr={lr} seed={seed} dataset=multidigits"
            }
            runs[id] = {**run, "curves": run["curves"] if i < 9 else None}
        comparison["settings"].append(setting)
        i += 1
    return {**data, "runs": runs}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api",
        reason="no Playwright: pip install 'mtlbench[browser]' and a Chromium (apt-get install chromium)",
    )
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on the path: apt-get install chromium")
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=path, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a page's text as a file, without a network; at the end nothing may have been said on the console."""
    said, asked, contexts = [], [], []

    def open_page(text, anchor="", **keys):
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(viewport={"width": 1300, "height": 900}, offline=True, **keys)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(60_000)  # of a machine that has much else to do
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri() + anchor)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert all(url.startswith(("file:", "data:")) for url in asked), asked


def column(tab, head):
    """The texts of a column of the results' table."""
    heads = tab.locator("#results-table thead th").all_inner_texts()
    place = next(i for i, text in enumerate(heads) if " ".join(text.split()).startswith(head))
    return tab.locator(f"#results-table tbody tr > :nth-child({place + 1})").all_inner_texts()


def numbers(texts):
    return [float(text.split()[0]) for text in texts if text != "-"]


def show(tab, view):
    tab.locator(f"input[name=view][value={view}]").check()


def scroll_through(tab):
    for section in tab.locator("section").all():
        section.scroll_into_view_if_needed()
    tab.wait_for_function(
        "figures => document.querySelectorAll('#figures .chart svg, #figures .chart canvas').length > 4"
    )


@pytest.mark.slow
def test_sorting_and_its_announcement(page, visit):
    tab = visit(page)
    show(tab, "all")
    head = tab.locator("button.sort[data-key='left/accuracy']")
    head.click()
    down = numbers(column(tab, "left accuracy"))
    assert len(down) == 7
    assert down == sorted(down, reverse=True)
    assert tab.locator("th[aria-sort=descending]").inner_text().startswith("left accuracy")
    assert "highest first" in tab.locator("#said").inner_text()
    tab.keyboard.press("Enter")  # the focus is still there
    assert numbers(column(tab, "left accuracy")) == sorted(down)
    assert column(tab, "left accuracy")[-2:] == ["-", "-"]  # what is missing goes last both ways
    tab.locator("button.sort[data-key='delta metrics']").click()
    delta = numbers(column(tab, "Δm metrics"))
    assert delta == sorted(delta)


@pytest.mark.slow
def test_filters_hold_for_table_states_and_figures(page, visit):
    tab = visit(page)
    data = contents(page)
    show(tab, "runs")
    assert len(column(tab, "seed")) == len(data["runs"])
    tab.locator("[data-facet=seed]").get_by_label("1", exact=True).uncheck()
    assert set(column(tab, "seed")) == {"0", "2"}
    tab.locator("[data-facet=method]").get_by_label(ODD[:-1]).uncheck()
    assert not any("<script>" in label for label in column(tab, "setting"))
    show(tab, "all")
    label = tab.get_by_role("button", name="equal lr=0.1", exact=True)
    row = label.locator("xpath=ancestor::tr").inner_text()
    (setting,) = [one for one in data["comparisons"][0]["settings"] if one["label"] == "equal lr=0.1"]
    of_two = [data["runs"][id] for id in setting["runs"] if data["runs"][id]["seed"] != 1]
    mean = np.mean([run["values"]["test"]["left/accuracy"] for run in of_two])
    spread = np.std([run["values"]["test"]["left/accuracy"] for run in of_two], ddof=1)
    assert f"{mean:.2f} ± {spread:.2f}" in row
    assert "2/2" in row
    assert "uncertainty" not in tab.locator("#states").inner_text()
    assert "1 diverged" in tab.locator("#states").inner_text()
    scroll_through(tab)
    assert tab.locator("#parallel-caption").inner_text().count("6 runs") == 1
    tab.locator("[data-facet=method]").get_by_label("equal", exact=True).uncheck()
    tab.locator("#parallel").scroll_into_view_if_needed()  # figures are drawn when they come into view
    tab.locator("#parallel-caption").filter(has_text="There is nothing to draw").wait_for()
    tab.locator("[data-facet=method]").get_by_label("equal", exact=True).check()
    tab.get_by_label("Find").fill("lr=0.2")
    assert {text for text in column(tab, "learning rate")} == {"0.2"}


@pytest.mark.slow
def test_a_number_leads_to_its_runs_their_configuration_and_what_repeats_them(page, visit):
    tab = visit(page)
    data = contents(page)
    show(tab, "all")
    (setting,) = [one for one in data["comparisons"][0]["settings"] if one["label"] == "equal lr=0.02"]
    name = tab.get_by_role("button", name="equal lr=0.02", exact=True)
    name.locator("xpath=ancestor::tr").locator("td").nth(2).click()
    dialog = tab.get_by_role("dialog", name="equal lr=0.02")
    said = dialog.inner_text()
    for id in setting["runs"]:
        assert id in said
        assert data["runs"][id]["command"] in said
    assert "optimizer.lr" in said
    dialog.get_by_text("What all settings share").click()
    assert "precision" in dialog.inner_text()
    dialog.locator("#dialog-curves svg").first.wait_for()
    tab.keyboard.press("Escape")
    assert tab.locator("dialog[open]").count() == 0
    name.focus()  # and by the keyboard alone
    tab.keyboard.press("Enter")
    assert tab.get_by_role("dialog", name="equal lr=0.02").is_visible()
    tab.get_by_role("button", name="Close").click()
    assert name.evaluate("node => node === document.activeElement")


@pytest.mark.slow
def test_an_address_with_a_run_opens_it(page, visit):
    data = contents(page)
    (lost,) = [id for id, run in data["runs"].items() if run["state"] == "diverged"]
    tab = visit(page, f"#{lost}")
    assert "the loss is NaN" in tab.get_by_role("dialog").inner_text()
    assert tab.locator("dialog .marked").inner_text() == lost


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_odd_names_are_text_everywhere(page, visit, scheme):
    tab = visit(page, color_scheme=scheme)
    show(tab, "all")
    scroll_through(tab)
    shown = ODD[:-1]
    assert tab.get_by_role("button").filter(has_text=shown).count() >= 3
    assert tab.locator("#response .legend").inner_text().count(shown) == 1
    tab.get_by_role("button").filter(has_text=shown).first.click()
    tab.locator("#dialog-curves svg").first.wait_for()
    tab.keyboard.press("Escape")
    chart = tab.locator("#response .chart").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.locator(".tip").filter(has_text=shown).first.wait_for()
    assert tab.evaluate("window.broken") is None
    assert tab.locator("img").count() == 0
    assert (
        tab.evaluate("getComputedStyle(document.body).backgroundColor")
        == {
            "light": "rgb(255, 255, 255)",
            "dark": "rgb(20, 23, 28)",
        }[scheme]
    )


@pytest.mark.slow
def test_every_control_has_a_name_and_the_page_prints(page, visit):
    tab = visit(page)
    unnamed = """() => [...document.querySelectorAll("button, input, select, [role=img], [role=region], dialog")]
        .filter((node) => !(node.getAttribute("aria-label") || node.getAttribute("aria-labelledby") ||
            node.labels?.length || node.textContent.trim())).map((node) => node.outerHTML)"""
    scroll_through(tab)
    assert tab.evaluate(unnamed) == []
    assert tab.evaluate("document.querySelectorAll('table:not(:has(caption))').length") == 0
    tab.emulate_media(media="print")
    assert not tab.locator("#filters").is_visible()
    assert tab.pdf()[:5] == b"%PDF-"
    narrow = visit(page)
    narrow.set_viewport_size({"width": 360, "height": 700})
    scroll_through(narrow)
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.slow
def test_two_thousand_runs(page, visit, record_property):
    data = many(page, 2000)
    text = html.page(data)
    assert len(text.encode()) < 5_000_000
    begin = time.perf_counter()
    tab = visit(text)
    show(tab, "runs")
    tab.locator("button.sort[data-key='left/accuracy']").click()
    took = time.perf_counter() - begin
    record_property("seconds until loaded, switched and sorted", round(took, 2))
    print(f"2,000 runs: {len(text.encode()) / 1e6:.1f} MB; loaded, switched and sorted in {took:.2f} s")
    shown = numbers(column(tab, "left accuracy"))
    assert len(shown) == 100
    assert shown == sorted(shown, reverse=True)
    tab.get_by_role("button", name=re.compile("Show all")).click()
    assert len(column(tab, "seed")) == len(data["runs"])
    tab.locator("[data-facet=optimizer]").get_by_label("sgd").uncheck()
    assert set(column(tab, "optimizer")) == {"adam"}
    scroll_through(tab)
    assert tab.locator("#parallel canvas").count() > 0
    tab.locator("#results-table tbody td").first.click()
    assert tab.get_by_role("dialog").is_visible()
