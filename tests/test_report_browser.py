"""The report in a browser: nothing is loaded, nothing is cut at 400 pixels, and sorting, paging, tokens and theme do what they say.

Chromium is driven through its DevTools protocol over two pipes, so no other package and no port is needed. Without `chromium` on the
PATH these tests are skipped (Debian: `apt-get install chromium`).
"""

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_report_html import big_audit, hostile_audit, small_audit

from memorization.report.html import html_of, page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe"
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is on the PATH: apt-get install chromium"),
]
SECONDS = 60.0


class Browser:
    """A page in headless Chromium."""

    def __init__(self, home: Path) -> None:
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()
        # Chromium reads commands from file 3 and answers on file 4.
        command = f'exec "{CHROMIUM}" {FLAGS} --user-data-dir="{home}" about:blank 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(home)},
        )
        os.close(to_browser)
        os.close(from_browser)
        os.set_blocking(self.read, False)
        self.waiting, self.number, self.session, self.events = b"", 0, None, list[dict[str, Any]]()
        target = next(one for one in self("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self.session = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """What the browser answers to a command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + SECONDS
        while b"\0" not in self.waiting:
            assert time.monotonic() < until, "the browser does not answer"
            try:
                self.waiting += os.read(self.read, 1 << 20)
            except BlockingIOError:
                time.sleep(0.005)
        message, self.waiting = self.waiting.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path, width: int = 1280, scheme: str = "light") -> None:
        self.look(width, scheme)
        self.events.clear()
        self("Page.navigate", url=page.as_uri())
        until = time.monotonic() + SECONDS
        while not any(one.get("method") == "Page.loadEventFired" for one in self.events):
            assert time.monotonic() < until
            self.js("0")
            time.sleep(0.01)

    def look(self, width: int = 1280, scheme: str = "light", media: str = "") -> None:
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self("Emulation.setEmulatedMedia", media=media, features=features)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        codes = {"Tab": 9, "ArrowRight": 39, "End": 35, "Enter": 13}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **text)

    def complaints(self) -> list[str]:
        """What the console, the security policy and uncaught errors said since the page was opened."""
        self.js("0")
        kinds = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}
        return [json.dumps(one["params"]) for one in self.events if one.get("method") in kinds]

    def asked(self) -> list[str]:
        """Addresses that were asked for."""
        return [
            one["params"]["request"]["url"] for one in self.events if one.get("method") == "Network.requestWillBeSent"
        ]

    def screenshot(self, path: Path, whole: bool = True) -> None:
        found = self("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self) -> bytes:
        return base64.b64decode(self("Page.printToPDF", preferCSSPageSize=True, printBackground=False)["data"])

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.session = None
            self("Browser.close")
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.read, self.write):
            os.close(pipe)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small audit, one whose texts are attacks, and one of 10,000 records."""
    folder = tmp_path_factory.mktemp("pages")
    audits = {"small": small_audit(), "hostile": hostile_audit(), "big": big_audit(), "redacted": hostile_audit()}
    return {
        name: page.write_page(folder / f"{name}.html", html_of(found, redact=name == "redacted"))
        for name, found in audits.items()
    }


ROWS = "Array.from(document.querySelectorAll('#table tbody tr'), (row) => Array.from(row.cells, (cell) => cell.textContent))"
STATE = "Array.from(document.querySelectorAll('#table th'), (head) => head.getAttribute('aria-sort')).filter((one) => one !== null)"


def rows(browser: Browser, column: str) -> list[str]:
    """The cells of a column as they stand in the page."""
    names = browser.js("Array.from(document.querySelectorAll('#table th'), (head) => head.dataset.name)")
    return [row[names.index(column)] for row in browser.js(ROWS)]


def numbers(cells: list[str]) -> list[float]:
    return [float(cell.replace(",", "").replace("−", "-")) for cell in cells]


@pytest.mark.parametrize("name", ["small", "hostile", "big", "redacted"])
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_loaded_complained_of_or_cut(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
):
    browser.open(pages[name], width, scheme)
    assert browser.complaints() == []
    assert browser.asked() == [pages[name].as_uri()]
    assert browser.js("document.documentElement.scrollWidth") <= width
    # What is wider than the page scrolls by itself; all else ends where the page does.
    wide = """Array.from(document.querySelectorAll("main *, header *, nav *")).filter((one) =>
        !one.closest(".scroll") && !one.closest("svg") && !one.closest(".tok") && !one.closest("[hidden]")
        && one.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map((one) => one.outerHTML.slice(0, 200))"""
    assert browser.js(wide) == []
    paper = browser.js("getComputedStyle(document.documentElement).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 23, 27)")
    assert browser.js("typeof window.alerted") == "undefined"


def test_a_script_in_a_page_without_escapes_would_be_seen(browser: Browser, tmp_path: Path):
    """The check above can fail: an inline script that is not the report's is stopped by the policy, which complains."""
    text = html_of(small_audit()).replace(
        "<main", "<script>window.alerted = 1</script><img src=http://127.0.0.1:9/x><main", 1
    )
    browser.open(page.write_page(tmp_path / "broken.html", text))
    complaints = " ".join(browser.complaints())
    assert "Content Security Policy" in complaints
    assert "script-src" in complaints
    assert "img-src" in complaints or "default-src" in complaints
    assert browser.js("typeof window.alerted") == "undefined"


def test_script_and_template_write_the_same_rows(browser: Browser, pages: dict[str, Path]):
    for name in ("small", "hostile", "big"):
        browser("Emulation.setScriptExecutionDisabled", value=True)
        browser.open(pages[name])
        plain = browser.js(ROWS)
        assert browser.js("document.getElementById('pages').hidden")  # no buttons that do nothing
        browser("Emulation.setScriptExecutionDisabled", value=False)
        browser.open(pages[name])
        assert browser.js(ROWS) == plain
        assert len(plain) == min(100, len(plain))


def test_heads_sort_and_say_so(browser: Browser, pages: dict[str, Path]):
    browser.open(pages["big"])
    assert browser.js(STATE) == ["descending"]
    shown = numbers(rows(browser, "signed_bits"))
    assert shown == sorted(shown, reverse=True)
    browser.js("document.querySelector('#table th[data-name=target_bits] button').click()")
    assert browser.js(STATE) == ["descending"]
    highest = numbers(rows(browser, "target_bits"))
    assert highest == sorted(highest, reverse=True)
    browser.js("document.querySelector('#table th[data-name=target_bits] button').focus()")
    browser.press("Enter")
    assert browser.js(STATE) == ["ascending"]
    lowest = numbers(rows(browser, "target_bits"))
    assert lowest == sorted(lowest)
    assert lowest[-1] <= highest[-1]
    browser.js("document.querySelector('#table th[data-name=preview] button').click()")
    names = rows(browser, "preview")
    assert browser.js(STATE) == ["ascending"]
    assert names[:2] == [names[0], names[1]] == sorted(names[:2])


def test_what_is_unknown_comes_last_either_way(browser: Browser, pages: dict[str, Path], tmp_path: Path):
    found = small_audit()
    table = found.records().assign(count=[float("nan"), *range(len(found) - 1)])
    own = replace(found)
    own._once("records", lambda: table)
    browser.open(page.write_page(tmp_path / "unknown.html", html_of(own)))
    for expected in (list(range(29, -1, -1)), list(range(30))):
        browser.js("document.querySelector('#table th[data-name=count] button').click()")
        cells = rows(browser, "count")
        assert cells[-1] == "unknown"
        assert numbers(cells[:-1]) == expected


def test_pages_and_filters(browser: Browser, pages: dict[str, Path]):
    browser.open(pages["big"])
    first = rows(browser, "sample")
    assert len(first) == 100
    assert browser.js("document.getElementById('where').textContent") == "1 to 100 of 10,000 records"
    assert browser.js("document.getElementById('previous').disabled")
    browser.js("document.getElementById('next').click()")
    second = rows(browser, "sample")
    assert not set(first) & set(second)
    assert browser.js("document.getElementById('where').textContent") == "101 to 200 of 10,000 records"
    browser.js("document.getElementById('previous').click()")
    assert rows(browser, "sample") == first
    find = "const box = document.getElementById('find'); box.value = {}; box.dispatchEvent(new Event('input'));"
    browser.js(find.format('"NUMBER 4321 "'))
    assert rows(browser, "preview") == [
        "record number 4321 with words of a common length with words of a common length"
    ]
    assert browser.js("document.getElementById('next').disabled")
    browser.js("{" + find.format('"no such words"') + "}")
    assert rows(browser, "sample") == []
    assert browser.js("document.getElementById('where').textContent") == "no such record"


def test_ten_thousand_rows_are_sorted_at_once(browser: Browser, pages: dict[str, Path]):
    browser.open(pages["big"])
    assert browser.js("document.querySelectorAll('#table tbody tr').length") == 100
    took = """(() => { const started = performance.now();
        for (const name of ["bits", "target_bits", "preview", "p_value"]) document.querySelector(`#table th[data-name=${name}] button`).click();
        return (performance.now() - started) / 4; })()"""
    milliseconds = browser.js(took)
    print(f"10,000 records: {milliseconds:.0f} ms a sort")
    assert milliseconds < 1000  # some 30 on an idle machine


def test_filter_by_flag(browser: Browser, pages: dict[str, Path]):
    browser.open(pages["small"])
    assert set(rows(browser, "extracted")) == {"yes", "no"}
    browser.js("document.getElementById('only-extracted').click()")
    assert set(rows(browser, "extracted")) == {"yes"}
    assert browser.js("document.getElementById('where').textContent") == "1 to 29 of 29 records"


def test_theme_button(browser: Browser, pages: dict[str, Path]):
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    ink = "getComputedStyle(document.querySelector('svg text')).fill"
    for scheme, names in (("light", ["Dark", "Light", "Dark"]), ("dark", ["Light", "Dark", "Light"])):
        browser.open(pages["small"], scheme=scheme)
        seen = []
        for name in names:
            assert browser.js("document.getElementById('theme').textContent") == name
            seen.append((browser.js(paper), browser.js(ink)))
            browser.js("document.getElementById('theme').click()")
        assert seen[0] == seen[2] != seen[1]
        assert all(background != letters for background, letters in seen)


def test_keys_alone_reach_everything(browser: Browser, pages: dict[str, Path]):
    browser.open(pages["small"])
    browser.press("Tab")
    assert browser.js("document.activeElement.className") == "skip"
    assert browser.js("document.activeElement.getBoundingClientRect().left") >= 0
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert browser.js(outline) == "solid"
    browser.press("Tab")
    assert browser.js("document.activeElement.id") == "theme"
    browser.js("document.getElementById('heat-oracle').focus()")
    browser.press("Tab")
    assert browser.js("document.activeElement.className").startswith("tok ")
    first = browser.js("document.activeElement.title")
    assert browser.js(outline) == "solid"
    assert browser.js("document.querySelector('.detail').textContent") == first
    browser.press("ArrowRight")
    second = browser.js("document.activeElement.title")
    assert first.startswith("token 1: ")
    assert second.startswith("token 2: ")
    assert browser.js("document.querySelector('.detail').textContent") == second
    browser.press("End")
    assert browser.js("document.activeElement.title").startswith("token 4")
    browser.press("Tab")  # out of this record, into the next
    assert browser.js("document.activeElement.title").startswith("token 1: ")


def test_switch_changes_numbers_and_colours(browser: Browser, pages: dict[str, Path]):
    browser.open(pages["small"])
    token = "document.querySelectorAll('.tokens .tok')[1]"
    seen = {}
    for name in ("memu", "target", "oracle"):
        browser.js(f"document.getElementById('heat-{name}').click()")
        number = browser.js(f"getComputedStyle({token}, '::after').content").strip('"')
        assert number == browser.js(f"{token}.dataset.{name}")
        seen[name] = browser.js(f"getComputedStyle({token}).backgroundColor")
    assert len(set(seen.values())) == 3


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Of two colours, by the rule of WCAG 2.1."""

    def light(colour: tuple[float, ...]) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in colour)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((light(one), light(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_every_colour(browser: Browser, pages: dict[str, Path], scheme: str):
    """A contrast of 4.5 at least: of words on the page, and of tokens on their colours."""
    browser.open(pages["small"], scheme=scheme)
    colour = lambda told: tuple(float(one) for one in re.findall(r"[\d.]+", told))  # noqa: E731
    paper = colour(browser.js("getComputedStyle(document.documentElement).backgroundColor"))
    for one in ("html", ".facts", "a", ".passed", ".failed", "figcaption", "button"):
        ink = colour(browser.js(f"getComputedStyle(document.querySelector('{one}')).color"))
        assert contrast(ink, paper) >= 4.5, one
    for name in ("memu", "target"):
        browser.js(f"document.getElementById('heat-{name}').click()")
        got = browser.js(
            "Array.from(document.querySelectorAll('.key .tok'), (one) => "
            "[getComputedStyle(one).color, getComputedStyle(one).backgroundColor])"
        )
        assert len(got) > 10
        for ink, told in got:
            red, green, blue, *alpha = colour(told)
            share = alpha[0] if alpha else 1.0
            mixed = tuple(share * c + (1 - share) * p for c, p in zip((red, green, blue), paper, strict=True))
            assert contrast(colour(ink), mixed) >= 4.5, (name, told)


def test_print_holds_every_section_uncut(browser: Browser, pages: dict[str, Path]):
    browser.open(pages["small"], 1280, "dark")
    text = browser.pdf()
    assert text.startswith(b"%PDF")
    n_pages = len(re.findall(rb"/Type\s*/Page\b", text))
    assert 5 <= n_pages <= 25
    browser.look(1020, "dark", media="print")  # the width of A4 on its side
    hidden = """Array.from(document.querySelectorAll("main section, main article, main table")).filter((one) =>
        getComputedStyle(one).display === "none" || !one.getBoundingClientRect().height).length"""
    assert browser.js(hidden) == 0
    assert browser.js("document.getElementById('table').scrollWidth <= document.documentElement.clientWidth")
    assert browser.js("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.js("getComputedStyle(document.getElementById('filter')).display") == "none"
