"""The report of an audit: what stands in it, that it loads nothing, escapes everything, hides what is to be hidden, and stays quick."""

import base64
import hashlib
import json
import re
import shlex
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch

from memorization import UniformModel, audit, compress_bits, unintended_memorization
from memorization.auditing import Audit
from memorization.cli import main
from memorization.errors import InputError
from memorization.report.html import html_of, markdown_of, page, tokens, write_report
from memorization.report.html.hidden import Texts
from memorization.report.html.shown import shown
from memorization.report.html.tokens import STEPS, heat_of

LETTERS = (lambda text: list(text.encode()), lambda ids: bytes(ids).decode(errors="replace"))
SECTIONS = (
    *(
        "findings",
        "figures",
        "oracle",
        "tokens",
        "records",
        "membership",
        "extraction",
        "duplicates",
        "spans",
        "warnings",
    ),
    *("settings", "glossary"),
)
# What records hold that means something to a browser, a terminal, or a reader from right to left.
SCRIPT, CLOSING, ANSI, OVERRIDE, NUL = (
    *(
        "<script>alert(1)</script>",
        "</script><script>alert(1)//",
        "\x1b[31mred\x1b[0m",
        "user\u202etxt.exe",
        "nul\0end",
    ),
)
IMAGE, COMMENT = "<img src=x onerror=alert(1)>", "<!--<script>"
HOSTILE = " ".join(
    (SCRIPT, CLOSING, ANSI, OVERRIDE, NUL, IMAGE, COMMENT, "\"'` onmouseover=alert(1) {{7*7}} {% raw %}")
)
LONG = "long " * 200_000  # 1 MB
SECRETS = {
    name: f"{name}Zs3cr3t"
    for name in (
        "text",
        "piece",
        "preview",
        "prefix",
        "suffix",
        "greedy",
        "kept",
        "span",
        "warning",
        "missing",
        "group",
    )
}


@lru_cache(maxsize=1)
def small_audit() -> Audit:
    """A model that counts on, texts that count on, and those that do not."""
    counts = lambda ids: 9 * torch.nn.functional.one_hot((ids + 1) % 256, 256).float()  # noqa: E731
    texts = ["".join(chr(48 + (i + k) % 70) for k in range(40 + i % 5)) for i in range(30)]
    letters = np.random.default_rng(0).integers(48, 118, (30, 42))
    unseen = ["".join(map(chr, row)) for row in letters]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return audit(
            counts,
            UniformModel(256),
            [*texts, texts[0]],
            unseen,
            spans={"number": "[0-9]+"},
            fail_on=["extracted > 0", "worst_bits > 1e6", "memorized_share > 0.5"],
            target_tokenizer=LETTERS,
            oracle_tokenizer=LETTERS,
            progress=False,
        )


def planted(text: Callable[[str], str], kept: dict[str, str] | None = None) -> Audit:
    """The small audit with a text of one's own in each place that a text of the user's can reach."""
    found = small_audit()
    n = len(found.texts)
    n_tokens = found.memorization.target.n_tokens
    texts = pd.DataFrame(
        {
            "sample": found.texts["sample"],
            "text": [text("text")] * n,
            "pieces": [[text("piece")] * int(n_tokens[k]) for k in found.texts["sample"]],
        }
    )
    assert found.rarity is not None
    assert found.extraction is not None
    example = {"sample": 0, "log2_probability": -3.0, **{key: text(key) for key in ("prefix", "suffix", "greedy")}}
    command = ["memorization", "audit", "--span", f"number={text('span')}", "--data", "d.jsonl"]
    planted = replace(
        found,
        texts=texts,
        rarity=replace(found.rarity, previews=[text("preview")] * len(found)),
        extraction=replace(found.extraction, settings={**found.extraction.settings, "examples": [example]}),
        spans=replace(found.spans, settings={**found.spans.settings, "spans": {"number": text("span")}}),
        settings={
            **found.settings,
            "command": shlex.join(command),
            "warnings": [["FirstTokenWarning", f"sample 3 begins with {text('warning')!r}; look at it"]],
            "missing": {"rarity": f"the text {text('missing')!r} cannot be read"},
        },
    )
    table = found.records().assign(
        **{"preview": text("preview"), "kept": text("kept"), "group": text("group"), "number": 7.25, **(kept or {})}
    )
    planted._once("records", lambda: table)
    return planted


def hostile_audit() -> Audit:
    """Every text is an attack, and that of the records a megabyte long too."""
    return planted(lambda where: HOSTILE + LONG if where == "text" else HOSTILE, {"id": HOSTILE, "<script>": SCRIPT})


@lru_cache(maxsize=1)
def big_audit(n: int = 10_000) -> Audit:
    """Many records, each with a preview."""
    counts = lambda ids: 6 * torch.nn.functional.one_hot((ids + 1) % 128, 128).float()  # noqa: E731
    numbers = np.random.default_rng(0)
    data = (numbers.integers(0, 128, (n, 1)) + np.arange(12) + (numbers.random((n, 12)) < 0.1)) % 128
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        warnings.simplefilter("ignore")
        alone = unintended_memorization(
            counts,
            UniformModel(128),
            data.tolist(),
            control=numbers.integers(0, 128, (300, 12)).tolist(),
            progress=False,
        )
    found = page._audit_of(alone)
    table = found.records()
    table["preview"] = [f"record number {k} " + "with words of a common length " * 2 for k in range(n)]
    found = replace(found)  # which has no records yet
    found._once("records", lambda: table)
    found.sentences()  # computed once, and not the report's
    return found


class Page(HTMLParser):
    """Elements, attributes and text of a page, as a browser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script" and not data.isspace():
            self.scripts[-1] += data
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def data_in(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def loads_nothing(text: str) -> None:
    """No address, no style or handler in attributes, and a policy that lets this style and this script alone run."""
    seen = Page(text)
    for tag, attributes in seen.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("style", "src", "srcset", "action")
        ], tag
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "audio", "video", "meta-refresh")
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    policy = next(one["content"] for one in seen.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    for source in (style[1], seen.scripts[-1]):
        assert base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() in policy
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "http" not in style[1] + seen.scripts[-1]


def test_every_section_is_there_with_a_heading_and_a_link():
    text = html_of(small_audit())
    seen = Page(text)
    assert [one["id"] for one in seen.all("section")] == list(SECTIONS)
    links = [one["href"] for one in seen.all("a")]
    assert links == ["#main", *(f"#{name}" for name in SECTIONS)]
    assert len(seen.all("h1")) == 1
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for sentence in (*small_audit().sentences(), *small_audit().not_shown()):
        assert sentence in "".join(seen.text)
    assert all(one.get("scope") for one in seen.all("th"))
    assert {one["aria-label"] for one in seen.all("svg")}
    assert all(one["role"] == "img" for one in seen.all("svg"))
    assert len(seen.all("svg")) == 3


def test_it_loads_nothing():
    text = html_of(small_audit())
    loads_nothing(text)
    assert "http://" not in text
    assert "https://" not in text


def test_figures_and_checks_are_those_of_the_audit():
    found, text = small_audit(), html_of(small_audit())
    words = "".join(Page(text).text)
    for name in found.figures():
        assert f"\n{name}" in words or name in words
    assert [one.outcome for one in found.checks] == ["failed", "passed", "failed"]
    assert text.count('<td class="outcome failed">') == 2
    assert "✓" in words
    assert "worst_bits is" in words


def test_rows_are_all_of_the_records_with_the_most_memorized_first():
    found = small_audit()
    text = html_of(found)
    rows, table = data_in(text)["rows"], found.records().sort_values("signed_bits", ascending=False, kind="stable")
    assert [row[0] for row in rows] == table["sample"].tolist()
    names = [one["data-name"] for one in Page(text).all("th") if "data-name" in one]
    for name in ("bits", "target_bits", "tfidf_bits", "q_value"):
        given = [float("nan") if row[names.index(name)] is None else row[names.index(name)] for row in rows]
        np.testing.assert_allclose(given, table[name], rtol=1e-5, equal_nan=True)
    assert [row[names.index("extracted")] for row in rows] == table["extracted"].tolist()
    assert len(re.findall(r"<tr>", re.search(r'<table id="table".*?</table>', text, re.DOTALL)[0])) == 1 + len(found)


def test_the_heat_map_adds_up():
    found = small_audit()
    for heat, k in zip(
        heat_of(found, Texts(False)), np.argsort(-found.memorization.signed_bits, kind="stable"), strict=False
    ):
        own = slice(*found.memorization.target.token_offsets[k : k + 2])
        assert len(heat.tokens) == found.memorization.target.n_tokens[k]
        assert "".join(one["piece"] for one in heat.tokens) == found.texts.set_index("sample")["text"][k]
        expected = found.memorization.oracle.token_bits[own] - found.memorization.target.token_bits[own]
        shown_bits = [float(one["memu"].replace("−", "-")) for one in heat.tokens]
        np.testing.assert_allclose(shown_bits, expected, atol=0.051)
        levels = [int(re.search(r" mn?(\d)", one["classes"])[1]) for one in heat.tokens]
        np.testing.assert_array_equal(levels, np.searchsorted(STEPS, np.abs(expected), side="right"))
        assert [" mn" in one["classes"] for one in heat.tokens] == (expected < 0).tolist()


def test_tokens_of_two_tokenizers_are_compared_piece_by_piece(monkeypatch: pytest.MonkeyPatch):
    """Between places where both have an edge, which here are all; where these are not known, the oracle's bits are not either."""
    as_equal = heat_of(small_audit(), Texts(False))
    monkeypatch.setattr(tokens, "differ_in_tokens", lambda *_: True)
    assert heat_of(small_audit(), Texts(False)) == as_equal

    def refuse(*_: Any) -> Any:
        raise InputError("it is not known which bytes the tokens cover")

    monkeypatch.setattr(tokens, "shared_pieces", refuse)
    unknown = heat_of(small_audit(), Texts(False))[0].tokens
    assert {(one["oracle"], one["memu"]) for one in unknown} == {("unknown", "unknown")}
    assert [one["target"] for one in unknown] == [one["target"] for one in as_equal[0].tokens]
    assert all(one["classes"].endswith(" ox mx") for one in unknown)


def test_what_stands_in_records_is_text():
    text = html_of(hostile_audit())
    loads_nothing(text)
    seen = Page(text)
    assert len(seen.all("script")) == 2
    assert seen.elements.count(("script", {})) == 1
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\u200e\u200f]", text)
    words = "".join(seen.text)
    for sign in (r"\x1b[31mred", r"user\u202etxt.exe", r"nul\x00end", SCRIPT, "{{7*7}}"):
        assert sign in words
    assert "<script>" in str(data_in(text)["rows"][0])  # as data
    assert "<script>alert" not in text
    assert "(cut: the first 2,000 of 1,000," not in text  # only pieces and previews of the records are shown
    assert len(text) < 3_000_000


def test_the_same_in_markdown():
    text = markdown_of(hostile_audit())
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)
    assert "<" not in text
    assert r"user\\u202etxt.exe" in text
    assert re.search(r"^\| [^|]*&lt;script&gt;", text, re.MULTILINE) or "&lt;script&gt;alert" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
        assert re.fullmatch(r"\|( --- \|)+", table.splitlines()[1])


def test_a_megabyte_is_cut_with_a_note():
    text = html_of(planted(lambda where: LONG))
    assert "(cut: the first 2,000 of 1,000,000 characters)" in text
    assert len(text) < 3_000_000
    assert len(markdown_of(planted(lambda where: LONG))) < 1_000_000


def test_a_template_that_does_not_escape_is_found(monkeypatch: pytest.MonkeyPatch):
    """The test above can fail: escaping switched off, the planted script is one."""
    page._environment.cache_clear()
    environment = page._environment()
    try:
        monkeypatch.setattr(environment, "autoescape", False)
        text = html_of(hostile_audit())
    finally:
        page._environment.cache_clear()
    assert len(Page(text).all("script")) > 2 or "<script>alert" in text


@pytest.mark.parametrize("write", [html_of, markdown_of])
def test_redacted_nothing_of_a_text_is_left(write: Callable[..., str]):
    found = planted(lambda where: f"{SECRETS[where]} and more of it", {"id": "id-17"})
    open_text, text = write(found), write(found, redact=True)
    assert [name for name, secret in SECRETS.items() if secret in text] == []
    seen = {name for name, secret in SECRETS.items() if secret in open_text}
    assert seen >= {
        "prefix",
        "preview",
        "suffix",
        "greedy",
        "kept",
        "span",
        "warning",
        "missing",
        "group",
    }  # or it proves nothing
    assert "id-17" in text.replace("\\", "")
    assert "7.25" in text
    assert "(hidden)" in text
    own = write(replace(found, settings={**found.settings, "redacted": True})).replace("and more of it", "")
    assert not [name for name, secret in SECRETS.items() if secret in own and name not in ("kept", "group")]


def test_redacted_tokens_are_numbers_alone():
    found = planted(lambda where: SECRETS[where])
    text = html_of(found, redact=True)
    tokens = re.findall(r'<span class="tok [^"]*" data-target="[^"]*" [^>]*title="([^"]*)"><bdi>([^<]*)</bdi>', text)
    assert len(tokens) > 100
    assert {piece for _, piece in tokens} == {"▮"}
    assert all(
        re.fullmatch(r"token \d+: ▮ — target [\d.]+, oracle [\d.]+, memU [+−]?[\d.]+ bits", title)
        for title, _ in tokens
    )
    ids = " ".join(map(str, found.memorization.target.token_ids[:8]))
    assert ids not in text


def test_ten_thousand_records_are_small_and_quick():
    found = big_audit()
    started = time.process_time()
    text = html_of(found)
    seconds = time.process_time() - started
    print(f"10,000 records: {len(text) / 1e6:.1f} MB, {seconds:.1f} s")
    assert len(data_in(text)["rows"]) == 10_000
    assert text.count("<tr>") < 400
    assert len(text) < 5_000_000
    assert seconds < 20  # 2 s on an idle machine
    assert len(markdown_of(found)) < 200_000


def test_a_memorization_alone_says_what_was_not_measured():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = unintended_memorization(UniformModel(2), UniformModel(4), [[0, 1], [1, 1]], progress=False)
    text = html_of(found)
    loads_nothing(text)
    words = " ".join("".join(Page(text).text).split())
    assert words.count("Not measured") == 5  # oracle, attacks, extraction, duplicates, spans
    assert "there is no control" in words
    assert markdown_of(found).count("Not measured") == 5


def test_other_results_are_refused():
    with pytest.raises(InputError, match=r"a report is of an Audit, or of a Memorization; a CodeLengths came"):
        html_of(compress_bits(UniformModel(2), [[0, 1]]))


def test_command_writes_both_files_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small_audit().save(tmp_path / "audit")
    (tmp_path / "audit" / "report.html").write_text("old")
    run(["report", str(tmp_path / "audit")])
    assert capsys.readouterr().out == f"report: {tmp_path}/audit/report.html, also as report.md\n"
    assert (tmp_path / "audit" / "report.html").read_text("utf-8") == html_of(Audit.load(tmp_path / "audit"))
    assert (tmp_path / "audit" / "report.md").read_text("utf-8").startswith("# Memorization audit\n")
    run(["report", str(tmp_path / "audit"), "--output", str(tmp_path / "new" / "page.html"), "--redact"])
    assert "texts are hidden" in (tmp_path / "new" / "page.html").read_text("utf-8")
    assert (tmp_path / "new" / "page.md").is_file()
    assert "(hidden)" in (tmp_path / "new" / "page.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--output", "page.pdf"], "--output must end in .html; it is page.pdf"),
        (["--output", "there.html"], "there.html is there already: name another --output, or pass --overwrite"),
        (["--output", "there.html/page.html"], "cannot be written to"),
    ],
)
def test_command_refuses(
    more: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    small_audit().save("audit")
    Path("there.html").write_text("mine")
    run(["report", "audit", *more], 2)
    assert said in capsys.readouterr().err
    assert Path("there.html").read_text() == "mine"


def run(arguments: list[str], code: int = 0) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == code


def test_write_report_says_where_it_cannot(tmp_path: Path):
    with pytest.raises(InputError, match=r"report\.html cannot be written"):
        write_report(small_audit(), tmp_path / "missing")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain é 漢字 🙂\n\t", "plain é 漢字 🙂\n\t"),
        ("\r\x85\xad\u200b\ufeff\u2028", r"\r\x85\xad\u200b\ufeff\u2028"),
        ("\udc80 \U000e0041 \ue000", r"\udc80 \U000e0041 \ue000"),
        ("क्\u200dष", "क्\u200dष"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, seen: str):
    assert shown(text) == seen
    shown(text).encode()  # lone surrogates would not go into a file


def test_templates_are_in_the_package():
    """Whatever holds the package holds them: they lie beside its modules."""
    folder = Path(page.__file__).parent / "templates"
    assert {one.name for one in folder.iterdir()} == {"report.html.j2", "report.md.j2", "report.css", "report.js"}
