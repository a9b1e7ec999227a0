"""The command line: what it writes and prints, its exit codes, and that nothing measured is lost."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from memorization import (
    Capacity,
    CodeLengths,
    Memorization,
    MIScalingLaw,
    cli,
    compress_bits,
    fit_capacity,
    fit_mi_scaling_law,
    load,
)
from memorization.data import addresses
from memorization.errors import InputError
from memorization.extraction import Extraction
from memorization.lab.architectures import Architecture
from memorization.lab.text import text_sweep
from memorization.lab.text.result import TextSweep
from memorization.membership import MembershipAudit, loss_attack

TEXTS = [
    "The house met again.",
    "How many bits does it take?",
    "Fellow citizens of the senate:",
    "A model, word for word.",
]
UNSEEN = ["The next day the senate met.", "What nobody has written before.", "It may give it back once."]


@pytest.fixture(scope="module")
def oracle_folder(model_folder, tmp_path_factory):
    """The same architecture and tokenizer with other weights."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("oracle")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        GPT2LMHeadModel(GPT2Config.from_pretrained(model_folder)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


@pytest.fixture
def control(tmp_path) -> Path:
    path = tmp_path / "control.txt"
    path.write_text("\n".join(UNSEEN) + "\n")
    return path


def run(*arguments: object) -> int:
    """Exit code of a command line."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def measure_arguments(model_folder, oracle_folder, data, output):
    return [
        "measure",
        "--target",
        model_folder,
        "--oracle",
        oracle_folder,
        "--data",
        data,
        "--output",
        output,
        "--quiet",
    ]


def test_several_oracles_make_a_ladder(model_folder, oracle_folder, data, control, tmp_path, capsys):
    arguments = measure_arguments(model_folder, oracle_folder, data, tmp_path / "out")
    assert run(*arguments, "--oracle", tmp_path / "no such folder", "--control", control) == 2
    capsys.readouterr()
    assert run(*arguments, "--oracle", model_folder) == 2
    assert "2 oracles came and no control" in capsys.readouterr().err
    assert run(*arguments, "--oracle", model_folder, "--control", control) == 0
    printed = capsys.readouterr()
    assert "  bracket      [" in printed.out
    assert "  verdict      " in printed.out
    found = Memorization.load(tmp_path / "out")
    assert found.oracle.settings["model"]["name"] == str(oracle_folder)  # and not the target
    assert [sets[0].settings["model"]["name"] for sets in found.other_oracles] == [str(model_folder)]
    assert found.verdict in printed.out


def test_measure_writes_every_sample_every_token_and_every_setting(
    model_folder, oracle_folder, data, control, tmp_path, capsys
):
    output = tmp_path / "out"
    assert run(*measure_arguments(model_folder, oracle_folder, data, output), "--control", control) == 0
    printed = capsys.readouterr().out
    assert "Memorization of 4 samples" in printed
    assert "3 unseen samples" in printed
    assert f"written to {output}" in printed

    table = pd.read_parquet(output / "memorization.parquet")
    np.testing.assert_allclose(table["signed_bits"], table["oracle_bits"] - table["target_bits"])
    np.testing.assert_allclose(table["bits"], table["signed_bits"].clip(lower=0))
    tokens = pd.read_parquet(output / "target" / "tokens.parquet")
    np.testing.assert_allclose(
        tokens.groupby("sample")["bits"].sum(), CodeLengths.load(output / "target").ideal_bits, rtol=1e-12
    )
    summary = json.loads((output / "summary.json").read_text())
    assert summary["total_bits"] == pytest.approx(table["bits"].sum())
    assert summary["control_n_samples"] == 3
    assert summary["net_bits"] == pytest.approx(
        4 * (table["bits"].mean() - Memorization.load(output).control.bits.mean())
    )
    settings = summary["settings"]["oracle"]
    assert settings["model"]["name"] == str(oracle_folder)
    assert len(settings["model"]["fingerprint"]) == len(settings["samples"]["ids_sha256"]) == 64
    assert settings["versions"]["constriction"]
    assert settings["first_token"]["rule"] == "bos"


def test_code_lengths_saved_by_one_command_serve_the_next(model_folder, oracle_folder, data, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(*measure_arguments(model_folder, oracle_folder, data, first)) == 0
    assert run(*measure_arguments(model_folder, first / "oracle", data, second)) == 0
    np.testing.assert_array_equal(Memorization.load(first).bits, Memorization.load(second).bits)


def test_options_reach_the_measurement(model_folder, data, tmp_path):
    output = tmp_path / "out"
    options = ["--first-token", "skip", "--max-length", "8", "--stride", "3", "--batch-size", "2", "--limit", "3"]
    assert run("bits", "--target", model_folder, "--data", data, "--output", output, "--quiet", *options) == 0
    settings = CodeLengths.load(output).settings
    assert settings["first_token"]["rule"] == "skip"
    assert (settings["max_length"], settings["stride"], settings["batch_size"]) == (8, 3, 2)
    assert settings["samples"]["n_samples"] == 3


def test_a_number_names_a_context_token(model_folder, data, tmp_path):
    assert (
        run("bits", "--target", model_folder, "--data", data, "--output", tmp_path / "out", "--first-token", "7") == 0
    )
    assert CodeLengths.load(tmp_path / "out").settings["first_token"]["id"] == 7


def test_bits_prints_without_an_output_folder(model_folder, data, tmp_path, capsys):
    assert run("bits", "--target", model_folder, "--data", data, "--quiet") == 0
    assert "CodeLengths of 4 samples" in capsys.readouterr().out
    assert not list(tmp_path.glob("*/settings.json"))


def test_bad_input_is_one_line_and_exit_code_2(model_folder, tmp_path, capsys):
    assert run("bits", "--target", model_folder, "--data", tmp_path / "missing.txt") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"memorization: there is no file {tmp_path / 'missing.txt'}.\n"


def test_debug_shows_the_traceback(model_folder, tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        cli.main(["bits", "--target", str(model_folder), "--data", str(tmp_path / "missing.txt"), "--debug"])


def test_an_unexpected_error_is_one_line_and_exit_code_1(monkeypatch, capsys):
    def fail():
        raise RuntimeError("a defect")

    monkeypatch.setattr("memorization.lab.doctor.examine", fail)
    assert run("doctor") == 1
    assert capsys.readouterr().err.startswith("memorization: RuntimeError: a defect (unexpected")


@pytest.mark.parametrize("batch_size", ["0", "many", "-1"])
def test_batch_size_is_checked(model_folder, data, batch_size, capsys):
    assert run("bits", "--target", model_folder, "--data", data, "--batch-size", batch_size) == 2
    assert "batch" in capsys.readouterr().err


def test_unknown_options_exit_with_2(capsys):
    assert run("measure", "--targte", "x") == 2
    assert "No such option" in capsys.readouterr().err


def test_earlier_results_are_not_overwritten_unasked(model_folder, data, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ["bits", "--target", model_folder, "--data", data, "--output", output, "--quiet"]
    assert run(*arguments) == 0
    before = (output / "samples.parquet").stat().st_mtime_ns
    assert run(*arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (output / "samples.parquet").stat().st_mtime_ns == before
    assert run(*arguments, "--overwrite") == 0


def test_an_output_that_cannot_be_written_is_refused_before_measuring(
    model_folder, data, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("memorization.compress_bits", lambda *_, **__: pytest.fail("measured in vain"))
    assert run("bits", "--target", model_folder, "--data", data, "--output", tmp_path / "file" / "out") == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_what_was_measured_survives_a_failing_disk(model_folder, data, tmp_path, monkeypatch, capsys):
    whole_save, output = CodeLengths.save, tmp_path / "out"

    def save(self, folder, **options):
        if Path(folder) == output:
            raise OSError(28, "No space left on device")
        whole_save(self, folder, **options)

    monkeypatch.setattr(CodeLengths, "save", save)
    assert run("bits", "--target", model_folder, "--data", data, "--output", output, "--quiet") == 1
    message = capsys.readouterr().err
    assert "No space left on device" in message
    assert len(CodeLengths.load(message.split()[-1])) == 4


def test_doctor_tests_itself(capsys):
    assert run("doctor") == 0
    printed = capsys.readouterr().out
    assert "ideal 704.000000" in printed
    assert "FAILED" not in printed


def test_doctor_fails_where_numbers_are_wrong(monkeypatch, capsys):
    from memorization.lab import doctor

    whole = doctor.compress_bits

    def wrong(model, samples, **options):
        lengths = whole(model, samples, **options)
        return replace(lengths, ideal_bits=1.001 * lengths.ideal_bits)

    monkeypatch.setattr(doctor, "compress_bits", wrong)
    assert run("doctor") == 1
    assert "FAILED" in capsys.readouterr().out


def test_warnings_are_one_line_on_stderr(model_folder, oracle_folder, data, tmp_path, capsys):
    long = tmp_path / "long.txt"
    long.write_text(" ".join(UNSEEN) + "\n")
    assert run(*measure_arguments(model_folder, oracle_folder, data, tmp_path / "out"), "--control", long) == 0
    errors = capsys.readouterr().err.splitlines()
    assert any(line.startswith("memorization: warning: samples have") for line in errors)


def test_the_installed_command_runs():
    finished = subprocess.run([sys.executable, "-m", "memorization.cli", "--help"], capture_output=True, text=True)
    assert finished.returncode == 0
    for command in ("measure", "bits", "attack", "extract", "capacity", "text-sweep", "mi-law", "quickstart", "doctor"):
        assert command in finished.stdout


# --- capacity

TINY = [
    "--vocab-size",
    16,
    "--seq-len",
    8,
    "--steps",
    20,
    "--peak-lr",
    0.05,
    "--multiple",
    2,
    "--device",
    "cpu",
    "--quiet",
]


def test_capacity_prints_a_table_and_writes_picture_tables_and_settings(tmp_path, capsys):
    output = tmp_path / "out"
    assert run("capacity", "--output", output, *TINY, "--width", 2, "--width", 4, "--seeds", 2) == 0
    captured = capsys.readouterr()
    result = Capacity.load(output)
    assert str(result) in captured.out
    found = f"{result.bits_per_param:.4g} bits per parameter after 20 steps (2 model sizes, 12 runs)"
    assert f"Capacity at least {found}" in captured.out
    assert "  rounds       5 steps " in captured.out
    assert f"picture: {output / 'capacity.png'}" in captured.out
    assert f"written to {output}" in captured.out
    assert "memorization: warning: lower bound: " in captured.err
    for name in ("capacity", "rounds"):
        assert (output / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (output / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert pd.read_csv(output / "capacity.csv").shape == result.curve.shape
    assert pd.read_parquet(output / "capacity.parquet")["n_params"].tolist() == result.n_params.tolist()
    assert set(pd.read_parquet(output / "curve.parquet")["steps"]) == {5, 10, 20}
    settings = json.loads((output / "settings.json").read_text())["settings"]
    assert settings["models"] == [repr(Architecture("gpt2", width=width)) for width in (2, 4)]
    assert settings["seeds"] == [0, 1]
    assert len(list((output / "runs" / "cells").iterdir())) == 24


def test_capacity_is_not_measured_over_earlier_results_unasked(tmp_path, capsys, monkeypatch):
    arguments = ["capacity", "--output", tmp_path / "out", *TINY, "--width", 2, "--seeds", 1]
    assert run(*arguments) == 0
    first = Capacity.load(tmp_path / "out")
    for trainer in ("train_stack", "train_compiled"):
        monkeypatch.setattr(f"memorization.lab.cells.{trainer}", lambda *_, **__: pytest.fail("trained again"))
    capsys.readouterr()
    assert run(*arguments) == 2
    assert "holds the results of an earlier run: name another --output, or pass --overwrite" in capsys.readouterr().err
    assert run(*arguments, "--overwrite") == 0  # finished runs are used
    pd.testing.assert_frame_equal(Capacity.load(tmp_path / "out").curve, first.curve)


def test_capacity_beside_gpt2_of_equal_size(tmp_path, capsys):
    options = [option for option in TINY if option != "gpt2"]
    place = tmp_path / "out"
    named = "memorization.lab.architectures:FreeLogits"
    assert run("capacity", "--output", place, *options, "--arch", named, "--anchor", "--seeds", 2) == 0
    found = load(place)
    mine, beside = found.capacities.values()
    assert list(found.capacities) == [named, f"GPT-2 of {beside.n_params[0]:,} parameters"]
    assert abs(beside.n_params[0] / mine.n_params[0] - 1) < 0.5
    assert beside.settings["models"][0].startswith("Architecture('gpt2'")
    printed = capsys.readouterr().out
    assert str(found) in printed
    assert f"{mine.bits_per_param / beside.bits_per_param:.3f} \u00b1" in printed
    for name in ("capacity.png", "capacity.pdf", "capacity.csv"):
        assert (place / name).stat().st_size > 100
    assert pd.read_csv(place / "capacity.csv")["name"].tolist() == list(found.capacities)


def test_several_architectures_of_equal_size_in_one_table(tmp_path, capsys):
    place = tmp_path / "out"
    both = ["--arch", "lstm", "--arch", "gru", "--params", 400, "--seeds", 1]
    assert run("capacity", "--output", place, *TINY, *both) == 0
    table = load(place).to_pandas()
    assert table["name"].tolist() == ["lstm", "gru"]
    assert (abs(table["n_params"] / 400 - 1) < 0.2).all()
    for extra, message in [
        (["--arch", "lstm", "--arch", "lstm"], "two architectures are called lstm"),
        (["--arch", "lstm", "--arch", "gru", "--width", 4, "--width", 8], "compare one size of each"),
        (["--width", 4, "--params", 400], "give --params or --width"),
        (["--params", 4], "the narrowest Architecture"),
    ]:
        capsys.readouterr()
        assert run("capacity", "--output", tmp_path / "other", *TINY, *extra) == 2
        assert message in capsys.readouterr().err


def test_capacity_of_a_builder_in_a_file(tmp_path, capsys):
    place = tmp_path / "mine.py"
    place.write_text(
        "from memorization.lab.architectures import Architecture\n"
        "def build(vocab_size, seq_len, width):\n"
        "    return Architecture('gpt2', width=width)(vocab_size, seq_len)\n",
        encoding="utf-8",
    )
    options = [option for option in TINY if option != "gpt2"]
    assert run("capacity", "--output", tmp_path / "out", *options, "--arch", f"{place}:build", "--arg", "width=2") == 0
    assert Capacity.load(tmp_path / "out").settings["models"] == ["partial(build)"]
    for extra, message in [
        (
            ["--arg", "depth=3"],
            "cannot be called with two numbers, depth=: missing a required argument: 'width'",
        ),
        (["--arg", "width"], "--arg must be NAME=VALUE; it is 'width'"),
        (["--arg", "width=2", "--arg", "width=3"], "--arg width is given twice"),
        (["--arg", "width=2", "--width", "8"], "--layers, --width and --params are of the built-in architectures"),
    ]:
        capsys.readouterr()
        assert run("capacity", "--output", tmp_path / "other", *options, "--arch", f"{place}:build", *extra) == 2
        assert message in capsys.readouterr().err
    assert run("capacity", "--output", tmp_path / "other", *options, "--arg", "width=2") == 2
    assert "--arg is for a builder of your own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--paper-row", "3,32"], "--paper-row must be one of 1,32 1,64 .* 8,256; it is '3,32'"),
        (["--paper-row", "32"], "--paper-row must be one of .*; it is '32'"),
        (["--budget", "10"], "--budget must be a number above 0 with its unit, as in 90s, 30m or 2h; it is '10'"),
        (["--budget", "10d"], "--budget must be a number above 0 with its unit, as in 90s, 30m or 2h; it is '10d'"),
        (["--budget", "0m"], "--budget must be a number above 0 with its unit, as in 90s, 30m or 2h; it is '0m'"),
        (["--quick", "--steps", "100"], "give one of --quick, --budget and --steps: each says how long to train"),
        (["--budget", "1m", "--steps", "100"], "give one of --quick, --budget and --steps"),
        (["--quick", "--budget", "1m"], "give one of --quick, --budget and --steps"),
        (
            ["--arch", "gpt3"],
            "no architecture is called 'gpt3'; there are gpt2, llama, moe, mamba, rwkv, lstm, gru, mlp",
        ),
        (["--seeds", "0"], "Invalid value for '--seeds': .*1"),
        (["--steps", "0"], '--steps must be "auto" or an integer of at least 1; it is 0'),
        (["--dtype", "float16"], "--dtype must be one of float32, bfloat16, autocast; got 'float16'"),
        (["--convention", "end"], "--convention must be one of start, strict, paper; it is 'end'"),
        (["--estimator", "median"], "--estimator must be one of max, .*; it is 'median'"),
    ],
)
def test_options_of_capacity_are_checked(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)  # as where the library is used
    assert run("capacity", "--output", tmp_path / "out", *options, "--quiet") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(f"memorization: .*{message}.*\n", captured.err)


def test_options_of_capacity_reach_the_measurement(tmp_path, capsys, monkeypatch):
    calls = []

    def measure(builders, **options):
        calls.append((builders, options))
        raise InputError("seen")

    monkeypatch.setattr("memorization.capacity_bits_per_param", measure)

    def options_of(*arguments: object) -> dict:
        assert run("capacity", "--output", tmp_path / "out", *arguments) == 2
        return {"builders": calls[-1][0], **calls[-1][1]}

    plain = options_of()
    assert plain["builders"] == [Architecture("gpt2", width=8)]
    assert (plain["vocab_size"], plain["seq_len"], plain["budget_seconds"], plain["steps"]) == (128, 32, None, "auto")
    assert tuple(plain["data_multiples"]) == (0.5, 1, 2, 4, 8)
    assert plain["store"] == tmp_path / "out" / "runs"
    assert tuple(plain["seeds"]) == (0, 1)
    assert plain["progress"]
    quick = options_of("--quick", "--quiet")
    assert tuple(quick["data_multiples"]) == (0.5, 1, 2, 4)
    assert (quick["budget_seconds"], quick["steps"]) == (None, 12_000)
    assert not quick["progress"]
    row = options_of("--paper-row", "2,64", "--budget", "2h", "--dtype", "bfloat16")
    assert (row["vocab_size"], row["seq_len"], row["budget_seconds"], row["dtype"]) == (2048, 64, 7200.0, "bfloat16")
    (builder,) = row["builders"]
    assert (builder.name, builder.layers, builder.width) == ("gpt2", 2, 64)
    asked = ["--seeds", 3, "--steps", 40, "--peak-lr", 0.1, "--estimator", "mean", "--convention", "paper"]
    rest = options_of("--arch", "lstm", "--layers", 2, "--width", 6, "--width", 9, *asked)
    assert [(each.name, each.layers, each.width) for each in rest["builders"]] == [("lstm", 2, 6), ("lstm", 2, 9)]
    assert (tuple(rest["seeds"]), rest["steps"], rest["peak_lr"]) == ((0, 1, 2), 40, 0.1)
    assert (rest["estimator"], rest["convention"]) == ("mean", "paper")


def test_a_row_of_the_paper_is_printed_beside_the_measurement(tmp_path, capsys, monkeypatch):
    measured = fit_capacity([80352], [2e5], n_samples=[999])
    measured.settings["tokens_trained_a_run"] = [123_456]
    monkeypatch.setattr("memorization.capacity_bits_per_param", lambda *_, **__: measured)
    assert run("capacity", "--output", tmp_path / "out", "--paper-row", "1,32") == 0
    printed = capsys.readouterr().out
    assert "4.23 in float32, 3.93 in bfloat16, 1.3e11 tokens a run; here 2.49 in float32, 1.2e+05 tokens" in printed


# --- mi-law


def mi_law_runs(**columns) -> pd.DataFrame:
    """Twelve models of three sizes; F1 falls with data / capacity, in the published way, and scatters."""
    capacity = np.repeat([1e5, 1e6, 1e7], 4)
    ratio = np.geomspace(2e-3, 0.4, 12)
    f1 = 0.5 * (1 + 1.2 / (1 + np.exp(33.14 * (ratio - 0.034)))) + np.tile([0.01, -0.01, -0.01, 0.01], 3)
    return pd.DataFrame({"capacity": capacity, "dataset_size": np.round(ratio * capacity), "f1": f1, **columns})


PAPER_UNITS = ["--capacity-unit", "parameters", "--dataset-unit", "samples of 64 tokens"]


def mi_law_folder(tmp_path, *options, **columns) -> Path:
    mi_law_runs(**columns).to_csv(tmp_path / "runs.csv", index=False)
    assert run("mi-law", "fit", "--runs", tmp_path / "runs.csv", "--output", tmp_path / "law", *options) == 0
    return tmp_path / "law"


def test_mi_law_fit_writes_what_the_function_returns(tmp_path, capsys):
    table = mi_law_runs(weight=np.arange(1.0, 13), seed=7)
    folder = mi_law_folder(tmp_path, *PAPER_UNITS, weight=table["weight"], seed=7)
    captured = capsys.readouterr()
    expected = fit_mi_scaling_law(
        table["capacity"],
        table["dataset_size"],
        table["f1"],
        capacity_unit="parameters",
        dataset_unit="samples of 64 tokens",
        weights=table["weight"],
    )
    law = MIScalingLaw.load(folder)
    np.testing.assert_allclose([law.c1, law.c2, law.c3], [expected.c1, expected.c2, expected.c3])
    np.testing.assert_allclose(law.covariance, expected.covariance)
    assert (law.covariate, law.capacity_unit, law.dataset_unit) == (
        "data/capacity",
        "parameters",
        "samples of 64 tokens",
    )
    assert law.settings["weighted"]
    assert repr(law) in captured.out
    assert "not used     columns seed\n" in captured.out
    assert f"picture: {folder / 'law.png'}" in captured.out
    assert (folder / "law.png").read_bytes().startswith(b"\x89PNG")
    assert not captured.err


def test_mi_law_fit_passes_its_options_on(tmp_path, capsys):
    law = MIScalingLaw.load(mi_law_folder(tmp_path, "--covariate", "capacity/data", "--errors", "bootstrap"))
    assert (law.covariate, law.capacity_unit, law.dataset_unit) == ("capacity/data", "bits", "samples")
    assert (law.settings["errors"], law.settings["weighted"]) == ("bootstrap", False)
    assert "not used" not in capsys.readouterr().out
    fit_again = ["mi-law", "fit", "--runs", tmp_path / "runs.csv", "--output", tmp_path / "law"]
    assert run(*fit_again) == 2
    assert "holds the results of an earlier run" in capsys.readouterr().err
    assert run(*fit_again, "--overwrite") == 0
    assert MIScalingLaw.load(tmp_path / "law").covariate == "data/capacity"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "runs.csv cannot be read as a CSV file"),
        ("", "runs.csv cannot be read as a CSV file"),
        ("capacity,f1\n1,0.5\n", "lacks dataset_size and has capacity, f1"),
        ("capacity,dataset_size,f1\n1,1,1\n1,2,\n1,3,0.6\n1,4,0.5\n", "row 1 is nan"),
        ("capacity,dataset_size,f1\n1,1,95\n1,2,80\n1,3,60\n1,4,50\n", "Are these percent"),
        ("capacity,dataset_size,f1\n1,1,a\n1,2,b\n1,3,c\n1,4,d\n", "f1 must be numbers"),
    ],
)
def test_mi_law_fit_refuses_what_it_cannot_fit(content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / "runs.csv").write_text(content)
    assert run("mi-law", "fit", "--runs", tmp_path / "runs.csv", "--output", tmp_path / "law") == 2
    assert message in capsys.readouterr().err


def test_mi_law_predict_reads_the_published_law(capsys):
    """Table 2 of the paper: GPT-2 XL, F1 of 0.75 at 76,795,021 samples of 64 tokens; within 3 % with the printed constants."""
    assert run("mi-law", "predict", "--params", "1556075200", "--tokens", 64 * 76_795_021) == 0
    printed = capsys.readouterr().out
    assert "4,914,881,344 tokens, taken as 76,795,021 samples of 64 tokens" in printed
    assert float(re.search(r"^F1 +(\S+) \(0\.5 is chance\)$", printed, re.MULTILINE)[1]) == pytest.approx(
        0.75, abs=0.003
    )
    for f1, samples in ((0.55, 170_654_583), (0.75, 76_795_021), (0.95, 18_851_574)):
        found = re.search(rf"^F1 of {f1} +at (\S+) samples, (\S+) tokens$", printed, re.MULTILINE)
        in_samples, in_tokens = (float(number.replace(",", "")) for number in found.groups())
        assert in_samples == pytest.approx(samples, rel=0.03)
        assert in_tokens == pytest.approx(64 * in_samples, abs=64)
    assert "extrapolated" not in printed


def test_mi_law_predict_reads_a_fit(tmp_path, capsys):
    folder = mi_law_folder(tmp_path, "--capacity-unit", "parameters", "--dataset-unit", "samples of 32 tokens")
    law = MIScalingLaw.load(folder)
    capsys.readouterr()
    assert run("mi-law", "predict", "--params", "1e6", "--tokens", 32 * 4e4, "--law", folder) == 0
    printed = capsys.readouterr().out
    assert f"law          {folder}\n" in printed
    assert "taken as 40,000 samples of 32 tokens" in printed
    assert f"F1           {law.predict(1e6, 4e4).item():.4f} (0.5 is chance)" in printed
    assert f"F1 of 0.75   at {law.dataset_size(1e6, 0.75).item():,.0f} samples" in printed
    assert "extrapolated" not in printed
    assert run("mi-law", "predict", "--params", "1e6", "--tokens", "2e12", "--law", folder) == 0
    captured = capsys.readouterr()
    assert "but 6.25e+04 samples a parameter is extrapolated; its points lie at 0.002 to 0.4" in captured.out
    assert not captured.err


def test_mi_law_predict_never_prints_chance_from_a_tail(capsys):
    """7e9 parameters at 3.6 bits, 2e12 tokens: 0.806 bits a sample, where the published formula ends at 0.5000."""
    assert run("mi-law", "predict", "--params", "7e9", "--tokens", "2e12") == 0
    printed = capsys.readouterr().out
    assert "0.5000" not in printed
    assert "F1           unknown: the law would say 0.5, but 4.46 samples a parameter is extrapolated" in printed
    assert "its points lie at 0.012 to 0.11\n" in printed
    assert "ceiling      0.764 is the most" in printed
    assert "if a parameter holds 3.6 bits (0.806 bits a sample)" in printed
    assert "beyond the law's points" not in printed  # F1 of 0.55 to 0.95 lies among them
    assert run("mi-law", "predict", "--params", "7e9", "--tokens", "2e12", "--bits-per-param", "16") == 0
    bound = 0.5 * (1 + np.sqrt(1 - 2 ** -(16 * 7e9 * 64 / 2e12)))
    assert f"ceiling      {bound:.3f} is the most" in capsys.readouterr().out
    assert run("mi-law", "predict", "--params", "7e9", "--tokens", "2e12", "--bits-per-param", "0") == 2
    assert "--bits-per-param must be above 0, such as 3.6; it is 0" in capsys.readouterr().err
    for params, tokens, wrong in (("-1", "2e12", "--params"), ("7e9", "0", "--tokens"), ("nan", "2e12", "--params")):
        assert run("mi-law", "predict", "--params", params, "--tokens", tokens) == 2
        assert f"{wrong} must be a finite number above 0, such as 7e9; it is" in capsys.readouterr().err


@pytest.mark.usefixtures("no_type_checker")
def test_mi_law_fit_takes_forms_and_the_number_of_samples(tmp_path, capsys):
    folder = mi_law_folder(tmp_path, "--form", "hill", *PAPER_UNITS, n_evaluated=2000)
    law, printed = MIScalingLaw.load(folder), capsys.readouterr().out
    assert law.form == "hill"
    assert law.points["n_evaluated"].tolist() == [2000.0] * 12
    chi_square, df, p_value = law.lack_of_fit()
    assert f"lack of fit  chi-square {chi_square:.4g}, {df} degrees of freedom, p = {p_value:.2g}" in printed
    assert f"models of a size not fitted lie off by {law.left_out_residual:.2g}" in printed
    assert "not used" not in printed
    assert run("mi-law", "predict", "--params", "1e6", "--tokens", 64 * 4e4, "--law", folder) == 0
    assert f"F1           {law.predict(1e6, 4e4).item():.4f} (0.5 is chance)" in capsys.readouterr().out
    assert run("mi-law", "fit", "--runs", tmp_path / "runs.csv", "--output", tmp_path / "other", "--form", "cubic") == 2
    assert "form must be one of logistic, hill, probit; it is 'cubic'" in capsys.readouterr().err


def test_mi_law_predict_says_what_a_fit_does_not_have(tmp_path, capsys):
    """The law in capacity / data leaves an F1 above 0.55 at infinite data."""
    x = np.geomspace(5, 200, 12)
    f1 = 0.5 * (1 + 1 / (1 + np.exp(-0.05 * (x - 30))))
    law = fit_mi_scaling_law(
        x, np.ones(12), f1, covariate="capacity/data", capacity_unit="parameters", dataset_unit="samples of 64 tokens"
    )
    law.settings["not_identified"] = "planted"
    law.save(tmp_path)
    assert run("mi-law", "predict", "--params", "1e6", "--tokens", "1e6", "--law", tmp_path) == 0
    printed = capsys.readouterr().out
    assert "F1 of 0.55   at no data-set size: this law has an F1 above 0.5912" in printed
    # Solved by hand: 0.95 = (1 + s) / 2, so s = 0.9, and x = 30 + log(9) / 0.05.
    assert f"F1 of 0.95   at {1e6 / (30 + np.log(9) / 0.05):,.0f} samples" in printed
    assert "NOT IDENTIFIED: planted" in printed


def test_mi_law_predict_refuses_other_units_and_sizes(tmp_path, capsys):
    folder = mi_law_folder(tmp_path)
    assert run("mi-law", "predict", "--params", "1e6", "--tokens", "1e6", "--law", folder) == 2
    assert 'takes capacity in "bits" and data in "samples"' in capsys.readouterr().err
    samples_of_bits = mi_law_folder(tmp_path, "--dataset-unit", "samples of 64 tokens", "--overwrite")
    assert run("mi-law", "predict", "--params", "1e6", "--tokens", "1e6", "--law", samples_of_bits) == 2
    assert 'takes capacity in "bits" and data in "samples of 64 tokens"' in capsys.readouterr().err
    assert run("mi-law", "predict", "--params", "0", "--tokens", "1e6") == 2
    assert "--params must be a finite number above 0" in capsys.readouterr().err
    assert run("mi-law", "predict", "--params", "1e6", "--tokens", "1e6", "--law", tmp_path) == 2
    assert "holds no saved MIScalingLaw" in capsys.readouterr().err


# --- attack, extract, text-sweep


def test_attack_prints_the_table_and_writes_scores_and_picture(
    model_folder, oracle_folder, data, control, tmp_path, capsys
):
    output = tmp_path / "out"
    arguments = ["--target", model_folder, "--oracle", oracle_folder, "--data", data, "--control", control]
    assert run("attack", *arguments, "--output", output, "--quiet") == 0
    captured = capsys.readouterr()
    result = MembershipAudit.load(output)
    assert str(result) in captured.out
    assert list(result.attacks) == ["loss", "reference", "zlib", "min_k", "min_k_plus_plus"]
    assert "memorization: warning: there are 4 members and 3 non-members" in captured.err
    assert (output / "roc.png").read_bytes().startswith(b"\x89PNG")
    scores = loss_attack(compress_bits(str(model_folder), TEXTS, first_token="bos", progress=False))
    np.testing.assert_allclose(result.attacks["loss"].member_scores, np.sort(scores), rtol=1e-6)
    assert run("attack", *arguments, "--output", output) == 2
    assert "holds the results of an earlier run" in capsys.readouterr().err


def test_attack_names_the_sample_that_is_in_both(model_folder, data, tmp_path, capsys):
    arguments = ["--target", model_folder, "--data", data, "--control", data, "--output", tmp_path / "out"]
    assert run("attack", *arguments) == 2
    assert "sample 0 is also control sample 0: 'The house met again.' (4 of 4" in capsys.readouterr().err


def test_extract_prints_the_table_and_writes_it(model_folder, data, control, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ["--target", model_folder, "--data", data, "--control", control, "--prefix", 2, "--prefix", 4]
    assert run("extract", *arguments, "--output", output, "--quiet") == 0
    captured = capsys.readouterr()
    result = Extraction.load(output)
    assert str(result) in captured.out
    assert result.to_pandas()["prefix_tokens"].tolist() == [2, 4]
    assert (output / "extraction.png").read_bytes().startswith(b"\x89PNG")
    assert run("extract", *arguments, "--prefix", 1000, "--output", tmp_path / "other") == 2
    assert "at least 1,001 tokens" in capsys.readouterr().err


SMALL_SWEEP = [
    *(
        "--width",
        8,
        "--seq-len",
        8,
        "--vocab-size",
        300,
        "--size",
        16,
        "--size",
        64,
        "--size",
        256,
        "--test-samples",
        64,
    ),
    *("--steps", 20, "--peak-lr", 0.03, "--oracle-epochs", 0.02, "--prefix", 4, "--device", "cpu", "--quiet"),
]


def test_text_sweep_trains_writes_and_goes_on(tmp_path, capsys, monkeypatch):
    output = tmp_path / "out"
    documents = tmp_path / "documents.txt"
    documents.write_text("\n".join(paragraph for address in addresses()[:6] for paragraph in address))
    arguments = ["text-sweep", "--output", output, "--data", documents, *SMALL_SWEEP]
    assert run(*arguments) == 0
    printed = capsys.readouterr().out
    result = TextSweep.load(output)
    assert str(result) in printed
    assert "membership laws of F1" in printed
    assert result.cells["n_samples"].tolist() == [16, 16, 64, 64, 256, 256]
    assert result.settings["vocab_size"] == 300
    pd.testing.assert_frame_equal(pd.read_csv(output / "cells.csv"), result.cells)
    assert (output / "laws.csv").exists()
    assert (output / "sweep.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("memorization.lab.cells.train_stack", lambda *_, **__: pytest.fail("trained again"))
    assert run(*arguments) == 2
    assert "holds the results of an earlier run" in capsys.readouterr().err
    assert run(*arguments, "--overwrite") == 0
    pd.testing.assert_frame_equal(TextSweep.load(output).cells, result.cells)


def test_options_of_text_sweep_reach_it(tmp_path, capsys, monkeypatch):
    calls = []

    def sweep(builders, documents, **options):
        calls.append((builders, documents, options))
        raise InputError("seen")

    monkeypatch.setattr("memorization.lab.text.text_sweep", sweep)
    assert run("text-sweep", "--output", tmp_path / "out") == 2
    builders, documents, options = calls[-1]
    assert builders == [Architecture("gpt2", width=width) for width in (16, 32, 64)]
    assert documents == [paragraph for address in addresses() for paragraph in address]
    defaults = inspect.signature(text_sweep).parameters
    for name in ("seq_len", "vocab_size", "n_samples", "n_test", "steps", "batch_size", "peak_lr", "oracle", "folds"):
        assert options[name] == defaults[name].default, name
    assert options["build_oracle"] == builders[-1]
    assert options["bits_per_param"] == defaults["bits_per_param"].default
    assert tuple(options["prefix_tokens"]) == defaults["prefix_tokens"].default
    given = ["--arch", "llama", "--width", 8, "--oracle-width", 16, "--oracle-layers", 2, "--size", 32, "--seeds", 3]
    assert run("text-sweep", "--output", tmp_path / "out", *given, "--bits-per-param", 2.5, "--tokenizer", "a") == 2
    builders, _, options = calls[-1]
    assert builders == [Architecture("llama", width=8)]
    assert options["build_oracle"] == Architecture("llama", layers=2, width=16)
    assert (options["n_samples"], list(options["seeds"]), options["tokenizer"]) == ([32], [0, 1, 2], "a")
    assert options["bits_per_param"] == 2.5
    assert options["store"] == tmp_path / "out" / "runs"
