"""Saved results again: every kind is printed, told as JSON and as Markdown, and drawn; `rarity` asks a saved one."""

import json
import math
import re
import shutil
import warnings
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from test_results import NAMES, OLD, one_of

from memorization import (
    CodeLengths,
    Extraction,
    Memorization,
    Rarity,
    TextSweep,
    UniformModel,
    audit_identifiers,
    cli,
    load,
    measure_spans,
    unintended_memorization,
    which_samples,
)
from memorization.cli.output import MOST_MARKS, save_picture
from memorization.cli.results import saved_folders
from memorization.errors import MeasurementWarning
from memorization.membership import membership_metrics
from memorization.report import draw, figures, text_sweep
from memorization.results import KINDS
from memorization.results.kinds import DRAWN

TEXTS = [f"The house met again, call {k}12-55{k}4, and adjourned." for k in range(1, 7)]
UNSEEN = [f"The next day the senate met, call {k}98-11{k}7, for long." for k in range(1, 7)]
SPANS = {"phone": r"\d{3}-\d{4}"}
ALL = [*NAMES, "IdentifierAudit", "SpanMemorization"]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, model_folder) -> dict[str, Path]:
    """A saved result of each kind."""
    folder = tmp_path_factory.mktemp("saved")
    results = {name: one_of(name) for name in NAMES}
    ids = np.random.default_rng(0).integers(512, size=(6, 6)).tolist()
    results["IdentifierAudit"] = audit_identifiers(UniformModel(512), ids, "tokens:6x512", n_draws=2, progress=False)
    model = str(model_folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)  # what matters here is that there is a result
        results["SpanMemorization"] = measure_spans(
            model, UniformModel(320), TEXTS, SPANS, control=UNSEEN, first_token="bos", progress=False
        )
    for name, result in results.items():
        if name in NAMES and (OLD / name).is_dir():
            shutil.copytree(OLD / name, folder / name)  # as version 0.1.0 saved it
        else:
            result.save(folder / name)
    return {name: folder / name for name in results}


def test_there_is_a_result_of_each_kind(folders):
    kinds = {json.loads((folder / "settings.json").read_text())["kind"] for folder in folders.values()}
    assert kinds == set(KINDS)
    assert set(ALL) == set(folders)


# --- show


@pytest.mark.parametrize("name", ALL)
def test_a_saved_result_is_printed_as_it_was(name, folders, capsys):
    assert run("show", folders[name]) == 0
    assert capsys.readouterr().out == f"{load(folders[name])}\n"


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("name", ALL)
def test_figures_are_json_without_nan(name, folders, capsys):
    assert run("show", folders[name], "--json") == 0
    told = json.loads(capsys.readouterr().out, parse_constant=no_constant)
    assert told["kind"] == type(load(folders[name])).__name__
    numbers = [value for value in told.values() if isinstance(value, (int, float)) and not isinstance(value, bool)]
    assert numbers or told["table"]
    assert all(math.isfinite(number) for number in numbers)


def test_figures_are_those_of_the_result(folders):
    def of(name):
        return load(folders[name]), figures.figures(load(folders[name]))

    result, told = of("Capacity")
    assert told["bits_per_param"] == result.bits_per_param
    assert told["interval"] == list(result.interval)
    assert told["converged"] is None  # unknown, and there
    assert told["exponent"] == result.exponent()[0]
    assert [row["capacity_bits"] for row in told["table"]] == result.capacity_bits.tolist()
    assert told["table"][0]["n_non_embedding_params"] is None
    result, told = of("Membership")
    assert told["auc_interval"] == list(result.auc_interval)
    assert told["tpr"] == {"0.001": None, "0.01": None, "0.05": result.tpr[0.05]}
    result, told = of("Memorization_with_control")
    assert told == {"kind": "Memorization", **result.summary()}
    result, told = of("Quickstart")
    assert told["mean_bits"] == result.members.mean_bits
    assert told["seconds"] == 1.5
    result, told = of("MembershipAudit")
    assert told["bag_of_words_auc"] == result.bag_of_words.auc
    result, told = of("IdentifierAudit")
    assert told["n_identifiers"] == 6
    assert told["n_memorized_at_fdr_5_percent"] == 0
    assert told["total_bits"] == result.bits.sum()
    assert "settings" not in told
    result, told = of("Rarity")
    assert "previews" not in told  # texts are no figures
    assert told["table"][0]["rho"] == result.correlations["rho"][0]
    assert told["table"][1]["rho"] is None
    result, told = of("CodeLengths")
    assert told == {
        "kind": "CodeLengths",
        "bits_per_byte": None,
        "bits_per_token": result.bits_per_token,
        "total_bits": result.total_bits,
        "n_samples": len(result),
    }


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.mark.parametrize("name", ALL)
def test_markdown_is_tables_with_rows_of_one_length(name, folders, capsys):
    assert run("show", folders[name], "--markdown") == 0
    title, *blocks = capsys.readouterr().out.strip().split("\n\n")
    assert re.fullmatch(r"\*\*[^\n]+\*\*", title)
    assert blocks
    for block in blocks:
        head, rule, *rows = block.split("\n")
        assert cells(rule) == ["---"] * len(cells(head))
        assert rows
        assert {len(cells(row)) for row in rows} == {len(cells(head))}
        assert "nan" not in block.lower().replace("governance", "")


def test_markdown_has_intervals_beside_figures_and_says_what_is_unknown(folders):
    told = figures.as_markdown(load(folders["Memorization_with_control"]))
    assert "| memU, bits a sample | 3.743 | 0.5677 to 11.43 |" in told
    assert "| verdict on the oracle | weak |  |" in told
    assert "| share of 3.6 bits x parameters | unknown |  |" in told
    told = figures.as_markdown(load(folders["MembershipAudit"]))
    assert "| loss | 0.5833 (0.3731 to 0.7671) |" in told
    assert "| unknown |" in told  # the rates that so few samples do not show
    told = figures.as_markdown(load(folders["Capacity"]))
    assert "| bits per parameter | 2.177 | -0.9639 to 5.319 |" in told
    assert "| 1,000 | unknown | 3,518 | 3.518 | unknown |" in told


def test_what_a_name_holds_neither_ends_a_cell_nor_becomes_markup():
    assert figures._escaped("a|b <script> *c*\n`d`\x1b[31m") == r"a\|b &lt;script> \*c\* \`d\` \[31m"


def test_one_of_json_and_markdown(folders, capsys):
    assert run("show", folders["Capacity"], "--json", "--markdown") == 2
    assert "give one of --json and --markdown" in capsys.readouterr().err


# --- what is no result


@pytest.mark.parametrize("command", ["show", "plot", "rarity"])
def test_a_folder_that_is_no_result_is_named(command, folders, tmp_path, capsys):
    def said_of(folder: Path) -> str:
        how = [folder] if command != "rarity" else ["--measured", folder, "--data", data, "--output", tmp_path / "r"]
        assert run(command, *how) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        return said

    data = tmp_path / "data.txt"
    data.write_text("\n".join(TEXTS))
    mine = tmp_path / "mine"
    shutil.copytree(folders["Memorization_with_control"], mine)
    assert "There is no such folder. Did you mean" in said_of(tmp_path / "mime")
    assert "holds no saved result: settings.json cannot be read" in said_of(tmp_path)
    assert f"is a file: name the folder that holds the saved result, such as {mine}" in said_of(mine / "settings.json")
    settings = json.loads((mine / "settings.json").read_text())
    (mine / "settings.json").write_text(json.dumps({**settings, "format": 9}))
    assert "has format 9, a format that this version does not read" in said_of(mine)
    (mine / "settings.json").write_text(json.dumps({**settings, "kind": "Horoscope"}))
    assert "is of kind 'Horoscope'; known are" in said_of(mine)
    (mine / "settings.json").write_text("{")
    assert "settings.json cannot be read" in said_of(mine)
    load(folders["Memorization_with_control"]).save(tmp_path / "torn")
    (tmp_path / "torn" / "memorization.parquet").write_bytes(b"cut")
    said = said_of(tmp_path / "torn")
    assert "was changed, or comes from another result" in said
    assert "save again with --overwrite." in said  # not overwrite=True
    (tmp_path / "torn" / "target" / "tokens.parquet").unlink()
    (tmp_path / "torn" / "memorization.parquet").unlink()
    assert "cannot be read" in said_of(tmp_path / "torn")


def test_completion_offers_folders_that_hold_results(folders, tmp_path, monkeypatch):
    shutil.copytree(folders["Membership"], tmp_path / "runs" / "first")
    shutil.copytree(folders["Memorization"], tmp_path / "results")
    (tmp_path / "empty").mkdir()
    (tmp_path / "results.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    assert saved_folders("") == ["results", "runs/first"]
    assert saved_folders("res") == ["results"]
    assert saved_folders("runs/") == saved_folders("runs/f") == ["runs/first"]
    assert saved_folders("results/") == ["results/oracle", "results/target"]  # the parts of a result are results
    assert saved_folders("nowhere/x") == []
    assert saved_folders(f"{tmp_path}/ru") == [f"{tmp_path}/runs/first"]


# --- plot


@pytest.mark.parametrize("name", ALL)
def test_every_picture_of_a_saved_result_is_drawn_in_three_formats(name, folders, tmp_path, capsys):
    assert run("plot", folders[name], "--output", tmp_path / "pictures") == 0
    printed = capsys.readouterr()
    names = list(draw.pictures(load(folders[name])))
    assert printed.out.splitlines() == [
        f"picture: {tmp_path / 'pictures' / one}.png, also as .pdf and .svg" for one in names
    ]
    assert not printed.err
    files = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert files == {f"{one}.{ending}" for one in names for ending in ("png", "pdf", "svg")}
    assert files <= DRAWN  # so that they go when the result is replaced
    for one in names:
        pixels = matplotlib.image.imread(tmp_path / "pictures" / f"{one}.png")
        assert pixels.std() > 0.01  # something is drawn
        assert (tmp_path / "pictures" / f"{one}.pdf").read_bytes().startswith(b"%PDF")
        assert "<text" in (tmp_path / "pictures" / f"{one}.svg").read_text(encoding="utf-8")  # text, not outlines


def test_the_pictures_of_each_kind(folders):
    names = {name: [*draw.pictures(load(folders[name]))] for name in ALL}
    assert names["Memorization"] == ["memorization"]
    assert names["Memorization_with_control"] == ["memorization", "ladder"]
    assert names["Quickstart"] == ["quickstart", "ladder"]
    assert names["Membership"] == names["MembershipAudit"] == ["roc"]
    assert names["SpanMemorization"] == ["spans", "spans_per_byte"]
    assert names["Extraction"] == ["extraction"]  # of version 0.1.0, which knew no probabilities
    assert names["Capacity_of_one_size"] == names["CapacityComparison"] == ["capacity"]
    assert names["TextSweep"] == ["sweep"]
    assert names["MIScalingLaw"] == ["law"]


def test_a_picture_goes_where_it_is_asked_for(folders, tmp_path, capsys):
    folder = tmp_path / "result"
    shutil.copytree(folders["Memorization_with_control"], folder)
    assert run("plot", folder, "--format", "svg", "--format", "svg") == 0
    assert {path.name for path in folder.glob("*.svg")} == {"memorization.svg", "ladder.svg"}
    assert not list(folder.glob("*.png"))
    load(folder)  # the pictures are no part of it
    assert run("plot", folder, "--output", tmp_path / "paper" / "figure.v2.pdf") == 0
    assert {path.name for path in (tmp_path / "paper").iterdir()} == {"figure.v2.pdf", "figure.v2-ladder.pdf"}
    capsys.readouterr()
    for wrong, message in (
        (["--output", tmp_path / "paper" / "figure.v2.pdf"], "is there already: name another --output, or pass --over"),
        (["--output", tmp_path / "x.jpg"], "--output must end in .png, .pdf or .svg, or be a folder"),
        (["--format", "jpg"], "--format must be one of png, pdf, svg; it is 'jpg'"),
        (["--output", tmp_path / "x.pdf", "--format", "svg"], "says pdf, and --format svg"),
        (["--output", folder / "settings.json" / "x"], "cannot be written to: Not a directory"),
    ):
        assert run("plot", folder, *wrong) == 2
        assert message in capsys.readouterr().err
    assert run("plot", folder, "--output", tmp_path / "paper" / "figure.v2.pdf", "--overwrite") == 0


def test_the_same_result_is_the_same_file(folders, tmp_path):
    for name in ("a", "b"):
        assert run("plot", folders["Capacity"], "--output", tmp_path / name) == 0
    for ending in ("png", "pdf", "svg"):
        a, b = ((tmp_path / name / f"capacity.{ending}").read_bytes() for name in "ab")
        assert a == b


def test_many_marks_do_not_make_a_large_vector_file(tmp_path):
    import matplotlib.pyplot as plt

    for n in (MOST_MARKS, 20 * MOST_MARKS):
        axes = plt.subplots()[1]
        axes.plot(np.arange(n), np.arange(n) % 7, "|")
        save_picture(axes, tmp_path / str(n), ("svg",))
    assert (tmp_path / f"{20 * MOST_MARKS}.svg").stat().st_size < (tmp_path / f"{MOST_MARKS}.svg").stat().st_size


def test_what_there_is_no_picture_for_is_a_line_and_the_others_are_drawn(folders, tmp_path, capsys, monkeypatch):
    from memorization.errors import InputError

    def nothing():
        raise InputError("there is nothing to draw.")

    found = draw.pictures(load(folders["Capacity"]))
    monkeypatch.setattr("memorization.cli.output.pictures", lambda _: {"empty": nothing, **found})
    assert run("plot", folders["Capacity"], "--output", tmp_path) == 0
    assert "no picture empty: there is nothing to draw." in capsys.readouterr().err
    assert (tmp_path / "capacity.png").is_file()


# --- what the pictures show


def test_a_sweep_names_each_kind_of_line_and_each_size_once(folders):
    sweep = load(folders["TextSweep"])
    assert isinstance(sweep, TextSweep)
    figure = sweep.plot()
    (sizes,) = figure.legends
    assert [text.get_text() for text in sizes.get_texts()] == ["1,404 parameters"]
    named = []
    for ax in figure.axes:
        texts = ax.get_legend().get_texts() if ax.get_legend() else []  # so few runs have no law
        own = [text.get_text() for text in texts if text.get_text().strip()]
        assert len(own) == len(set(own))
        named.append(own)
    assert named[0] == ["test samples", "members", "oracle on test samples: 8.13"]
    assert named[3] == ["members", "test samples"]
    assert not any("parameters" in one for own in named for one in own)
    alone = text_sweep.plot_memu(sweep).get_legend()  # one of the four on its own says what its colours are
    assert alone.get_texts()[0].get_text() == "1,404 parameters"


def test_a_perfect_attack_is_seen():
    ax = membership_metrics(np.arange(100.0) + 500, np.arange(100.0)).plot()
    assert ax.get_yscale() == "linear"
    line = ax.lines[0]
    inside = (np.asarray(line.get_xdata()) >= ax.get_xlim()[0]) & (np.asarray(line.get_ydata()) < ax.get_ylim()[1])
    assert inside.sum() >= 2
    generator = np.random.default_rng(0)
    weak = membership_metrics(generator.normal(size=2000), generator.normal(size=2000)).plot()
    assert weak.get_yscale() == weak.get_xscale() == "log"


# --- the commands that measure


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("texts")
    for name, texts in (("data", TEXTS), ("control", UNSEEN)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder / "data.jsonl", folder / "control.jsonl"


def test_measure_and_bits_draw_what_they_measured(model_folder, files, tmp_path, capsys):
    data, control = files
    asked = ["--target", model_folder, "--data", data, "--first-token", "bos", "--quiet", "--output"]
    assert run("measure", *asked, tmp_path / "m", "--oracle", model_folder, "--control", control) == 0
    assert run("bits", *asked, tmp_path / "b") == 0
    printed = capsys.readouterr().out
    for one in ("m/memorization", "m/ladder", "b/code_lengths"):
        assert f"picture: {tmp_path / one}.png, also as .pdf and .svg" in printed
        assert all((tmp_path / f"{one}.{ending}").stat().st_size > 1000 for ending in ("png", "pdf", "svg"))
    assert isinstance(load(tmp_path / "m"), Memorization)
    assert isinstance(load(tmp_path / "b"), CodeLengths)


def test_extract_draws_the_tries(model_folder, files, tmp_path):
    data, control = files
    asked = [
        "--target",
        model_folder,
        "--data",
        data,
        "--control",
        control,
        "--prefix",
        4,
        "--first-token",
        "bos",
        "--quiet",
    ]
    assert run("extract", *asked, "--output", tmp_path / "out") == 0
    result = load(tmp_path / "out")
    assert isinstance(result, Extraction)
    assert [*draw.pictures(result)] == ["extraction", "tries"]
    assert (tmp_path / "out" / "tries.svg").is_file()


# --- rarity


def test_rarity_is_which_samples(model_folder, files, tmp_path, capsys):
    data, _ = files
    model = str(model_folder)
    measured = unintended_memorization(
        model, UniformModel(320), TEXTS, target_tokenizer=model, first_token="bos", progress=False
    )
    measured.save(tmp_path / "measured")
    training = tmp_path / "training.jsonl"
    training.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS, *TEXTS[:2], *UNSEEN]))
    asked = [
        "--data",
        data,
        "--measured",
        tmp_path / "measured",
        "--training-set",
        training,
        "--first-token",
        "bos",
        "--quiet",
    ]
    assert run("rarity", *asked, "--output", tmp_path / "out", "--level", 0.9, "--near", 0.7) == 0
    printed = capsys.readouterr().out
    expected = which_samples(measured, TEXTS, [*TEXTS, *TEXTS[:2], *UNSEEN], tokenizer=model, level=0.9, near=0.7)
    result = load(tmp_path / "out")
    assert isinstance(result, Rarity)
    for name in ("signed_bits", "tfidf_bits", "exact_duplicates", "near_duplicates"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    assert result.exact_duplicates.tolist() == [2, 2, 1, 1, 1, 1]
    assert result.settings["interval_level"] == 0.9
    assert printed.startswith(str(expected))
    assert f"picture: {tmp_path / 'out' / 'rarity'}.png, also as .pdf and .svg" in printed
    assert run("rarity", *asked, "--output", tmp_path / "out") == 2
    assert "pass --overwrite" in capsys.readouterr().err


def test_rarity_measures_where_models_are_named(model_folder, files, tmp_path):
    data, _ = files
    asked = ["--data", data, "--target", model_folder, "--oracle", model_folder, "--first-token", "bos", "--quiet"]
    assert run("rarity", *asked, "--output", tmp_path / "out") == 0
    result = load(tmp_path / "out")
    assert isinstance(result, Rarity)
    assert not result.signed_bits.any()  # a model against itself


def test_rarity_says_what_is_wrong(model_folder, files, folders, tmp_path, capsys):
    data, control = files
    model = str(model_folder)
    unintended_memorization(model, UniformModel(320), TEXTS, first_token="bos", progress=False).save(
        tmp_path / "measured"
    )
    given = ["--measured", tmp_path / "measured"]
    for wrong, message in (
        (["--data", data], "by --measured FOLDER, or by --target and --oracle; one of the two"),
        (["--data", data, "--target", model], "by --measured FOLDER, or by --target and --oracle; one of the two"),
        (["--data", data, *given, "--target", model, "--oracle", model], "one of the two"),
        (["--data", data, "--measured", folders["Capacity"]], "holds a Capacity"),
        (["--data", control, *given], "the Memorization is of other samples"),
        (["--data", data, *given, "--near", "2"], "--near must"),
        (["--data", data, *given, "--level", "2"], "--level must"),
        (["--data", data, *given, "--tokenizer", tmp_path / "none"], "none"),
    ):
        assert run("rarity", *wrong, "--output", tmp_path / "out") == 2, wrong
        said = capsys.readouterr().err
        assert message in said
        assert len(said.splitlines()) == 1
