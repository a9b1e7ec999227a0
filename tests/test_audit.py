"""The audit: what it finds of planted truths, what it cannot tell, its policy, and that it costs one pass."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import memorization
from memorization import UniformModel, audit, audit_membership, cli, extract, unintended_memorization
from memorization.auditing import FIGURES, check_policy, read_policy
from memorization.auditing.policy import Condition
from memorization.errors import InputError, MeasurementWarning

VOCAB = 64
BITS_KNOWN = 9.0  # logit of what comes next: 64 * e^-9 is the rest


def counts(ids):
    """A model that knows by heart whatever counts on from its first token."""
    return BITS_KNOWN * torch.nn.functional.one_hot((ids + 1) % VOCAB, VOCAB).float()


def counting(n: int, length: int = 24) -> list[list[int]]:
    return [[(7 * i + k) % VOCAB for k in range(length)] for i in range(n)]


def random_records(n: int, seed: int, length: int = 24) -> list[list[int]]:
    return torch.randint(VOCAB, (n, length), generator=torch.Generator().manual_seed(seed)).tolist()


def audited(*args, **options):
    """An audit whose warnings are not of interest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        return audit(*args, progress=False, **options)


@pytest.fixture(scope="module")
def half():
    """20 of 60 records are known by heart; the others, and the control, are random."""
    return audited(counts, UniformModel(VOCAB), counting(20) + random_records(40, 1), random_records(600, 2))


def test_what_is_planted_is_found(half):
    figures = half.figures()
    assert figures["extracted"] == figures["extractable"] == 20
    assert figures["extracted_share"] == pytest.approx(1 / 3)
    assert 20 <= figures["memorized"] <= 22  # one in twenty may be wrong
    assert figures["memorized_share"] == figures["memorized"] / 60
    assert figures["extracted_control_share"] == figures["extractable_control_share"] == 0
    # Of 24 tokens all but the first are known: 6 bits each less what the model spends, which is 0.01 bits a token.
    spent = math.log2(1 + (VOCAB - 1) * math.exp(-BITS_KNOWN))
    assert figures["worst_bits"] == pytest.approx(23 * (6 - spent), abs=0.1)
    assert figures["net_bits_low"] < 20 * 23 * (6 - spent) < figures["net_bits_high"]
    assert half.records()["memorized"].tolist()[:20] == [True] * 20
    assert half.records()["extracted"].tolist() == [True] * 20 + [False] * 40
    assert half.sentences()[0].startswith(f"{figures['memorized']:.0f} of 60 records are memorized")
    assert half.sentences()[1].startswith("The worst is record ")


@pytest.mark.parametrize("seed", range(5))
def test_where_nothing_is_memorized_nothing_is_found_and_no_policy_fails(seed):
    """The target knows nothing of these records; a single one among so few would be seen beside 2,000 controls."""
    table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed))
    found = audited(
        lambda ids: table[ids],
        UniformModel(VOCAB),
        random_records(60, 10 + seed),
        random_records(2000, 20 + seed),
        fail_on=["memorized > 0", "extracted > 0", "extractable > 0", "set_p_value < 0.001"],
    )
    assert [check.outcome for check in found.checks] == ["passed"] * 4
    assert found.passed


def test_too_small_a_control_cannot_tell_and_does_not_pass():
    known, unseen = counting(30), random_records(3, 3)
    found = audited(counts, UniformModel(VOCAB), known, unseen, fail_on=["memorized > 0", "memorized_share > 0.5"])
    assert math.isnan(found.figures()["memorized"])
    assert [check.outcome for check in found.checks] == ["cannot tell"] * 2
    assert not found.passed
    assert found.sentences()[0].startswith("Cannot tell which of the 30 records are memorized")
    nothing = audited(
        counts, UniformModel(VOCAB), random_records(30, 4), random_records(30, 5), fail_on=["memorized > 0"]
    )
    assert math.isnan(nothing.figures()["memorized"])  # 30 controls let no single one of 30 be seen
    assert not nothing.passed


def test_an_interval_alone_shows_no_net_memory():
    """memU of nearly all records and of all of a small control is 0: the control's interval has no width."""
    fooled = []
    for seed in range(12):
        table = 0.8 * torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed))
        found = audited(
            lambda ids, table=table: table[ids],  # for one record in forty better than the oracle, by chance
            UniformModel(VOCAB),
            random_records(200, 300 + seed),
            random_records(20, 400 + seed),
            fail_on=["net_bits_low > 0"],
        )
        if found.memorization.control.net_interval.low > 0 and found.memorization.set_p_value >= 0.05:
            fooled.append(found)
    assert len(fooled) > 2
    assert {found.checks[0].outcome for found in fooled} == {"cannot tell"}
    assert all(math.isnan(found.figures()["net_bits_low"]) for found in fooled)


# --- What hides memory, each as it fooled somebody


def test_records_of_which_a_token_was_changed_are_not_safe():
    """All of each is recited but one token, so that none is given back as a whole."""
    data = [[*row[:40], (row[40] + 5) % VOCAB, *row[41:]] for row in counting(40, length=60)]
    found = audited(counts, UniformModel(VOCAB), data, random_records(900, 3, 60), fail_on=["extracted > 0"])
    assert found.figures()["longest_recited"] == 39
    assert [check.outcome for check in found.checks] == ["cannot tell"]
    assert "39 tokens of a record in a row are given back" in found.checks[0].why
    # What is given back as a whole is counted already: nothing is in doubt.
    whole = audited(counts, UniformModel(VOCAB), counting(40, length=60), random_records(900, 3, 60))
    assert whole.figures()["longest_recited"] == 59
    assert "extracted" not in whole.doubts()


def test_a_target_worse_than_knowing_nothing_never_passes():
    """As one is that reads with a wrong tokenizer."""
    wrong = lambda ids: 40 * torch.nn.functional.one_hot(ids, VOCAB).float()  # noqa: E731
    policy = ["extracted > 0", "memorized > 0", "auc_best > 0.7", "worst_bits > 20"]
    found = audited(
        wrong, UniformModel(VOCAB), counting(40), counting(49)[40:] + random_records(900, 3), fail_on=policy
    )
    assert [check.outcome for check in found.checks] == ["cannot tell"] * 4
    assert "its tokenizer, its weights" in found.sentences()[0]


def test_rows_without_text_are_no_clean_rows():
    data = [{"input_ids": row} for row in random_records(20, 1)] + [{"input_ids": None}] * 80
    found = audited(counts, UniformModel(VOCAB), data, random_records(900, 3), fail_on=["extracted > 0"])
    assert [check.outcome for check in found.checks] == ["cannot tell"]
    assert "80 rows without text of 100 were not measured: nothing is known of them." in found.sentences()


def test_an_oracle_that_has_seen_one_record_is_noticed():
    data = [counting(1)[0], *random_records(19, 1)]
    knows_one = lambda ids: 3 * torch.nn.functional.one_hot((ids + 1) % VOCAB, VOCAB).float()  # noqa: E731
    found = audited(counts, knows_one, data, random_records(900, 3), fail_on=["memorized > 30"])
    assert [check.outcome for check in found.checks] == ["cannot tell"]
    assert "1 record that it needs for any unseen one" in found.checks[0].why


def test_records_that_are_all_known_a_little_better_are_not_none():
    """No single one stands out of the control, and all together do."""
    half_known = lambda ids: 0.6 * torch.nn.functional.one_hot((ids + 1) % VOCAB, VOCAB).float()  # noqa: E731
    draw = torch.Generator().manual_seed(4)

    def often(n, share):
        rows = []
        for start in torch.randint(VOCAB, (n,), generator=draw).tolist():
            row = [start]
            for known, other in zip(
                (torch.rand(23, generator=draw) < share).tolist(),
                torch.randint(VOCAB, (23,), generator=draw).tolist(),
                strict=True,
            ):
                row.append((row[-1] + 1) % VOCAB if known else other)
            rows.append(row)
        return rows

    found = audited(half_known, UniformModel(VOCAB), often(60, 0.16), often(1500, 0.1), fail_on=["memorized > 0"])
    assert found.figures()["set_p_value"] < 0.01
    assert [check.outcome for check in found.checks] == ["cannot tell"]
    assert "known better than unseen ones all together" in found.sentences()[0]


@pytest.mark.parametrize(
    ("condition", "hint"),
    [
        ("memorized_share > 1", "Is 0.01 meant, 1 %?"),
        ("extracted_share > 5", "Is 0.05 meant, 5 %?"),
        ("auc_best > 70", "Is 0.7 meant, 70 %?"),
        ("extracted < 0", "extracted lies between 0 and inf"),
    ],
)
def test_a_condition_that_can_never_hold_is_refused(condition, hint):
    with pytest.raises(InputError, match="can never hold, so that it would always pass") as caught:
        read_policy([condition], FIGURES)
    assert hint in str(caught.value)


def test_one_control_record_is_enough_for_memu_and_for_nothing_else():
    found = audited(counts, UniformModel(VOCAB), counting(5), random_records(1, 6))
    assert found.membership is None
    assert "at least two of each" in found.missing["membership"]
    assert math.isnan(found.figures()["auc_best"])
    assert found.figures()["extracted"] == 5


def test_without_a_control_it_is_refused():
    with pytest.raises(InputError, match="an audit needs a control"):
        audit(counts, UniformModel(VOCAB), counting(5), None)


def test_the_target_as_its_own_oracle_never_passes():
    """memU is 0 by construction: that shows nothing."""
    found = audited(counts, counts, counting(40), random_records(900, 7), fail_on=["memorized > 0", "net_bits > 10"])
    assert [check.outcome for check in found.checks] == ["cannot tell"] * 2
    assert "same model" in found.sentences()[0]


def test_an_oracle_that_has_seen_the_records_never_passes():
    def knows_a_little(ids):
        return 3 * torch.nn.functional.one_hot((ids + 1) % VOCAB, VOCAB).float()

    found = audited(knows_a_little, counts, counting(40), random_records(900, 8), fail_on=["memorized > 0"])
    assert found.figures()["memorized"] == 0
    assert found.checks[0].outcome == "cannot tell"
    assert "may have seen" in found.checks[0].why
    assert found.sentences()[0].startswith("Cannot tell which")
    assert found.sentences()[-1].startswith("The oracle hides memory")


def test_swapped_data_and_control_do_not_pass():
    conditions = ["extracted > 0", "auc_best > 0.6", "set_p_value < 0.05", "net_bits > 0", "memorized > 0"]
    found = audited(counts, UniformModel(VOCAB), random_records(90, 18), counting(40), fail_on=conditions)
    assert {check.outcome for check in found.checks} <= {"cannot tell", "failed"}
    assert "swapped" in found.sentences()[0]


def test_a_control_of_other_lengths_tells_nothing_apart():
    """Nothing is memorized: short records differ from long ones, whatever the target knows."""
    table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(0)) * 2
    short, long = random_records(60, 19, 18), random_records(400, 20, 60)
    found = audited(lambda ids: table[ids], UniformModel(VOCAB), short, long, fail_on=["memorized > 0"])
    assert math.isnan(found.figures()["memorized"])
    assert found.records()["memorized"].isna().all()
    assert found.checks[0].outcome == "cannot tell"
    assert "differ in length" in found.sentences()[0]


def test_a_short_record_does_not_shorten_the_prefix_of_others():
    """Records that take 10 tokens to be recognized come out from 16 and 32, and not from 8."""

    def from_the_tenth(ids):
        late = torch.arange(ids.shape[1])[None, :, None] >= 12
        return torch.where(late, counts(ids), torch.zeros(()))

    long = counting(30, 44)
    alone = audited(from_the_tenth, UniformModel(VOCAB), long, random_records(300, 21, 44))
    mixed = audited(from_the_tenth, UniformModel(VOCAB), [*long, [5] * 17], random_records(300, 21, 44))
    assert alone.figures()["extracted"] == mixed.figures()["extracted"] == 30
    assert "8 to 32 tokens" in " ".join(mixed.sentences())


def test_without_a_policy_nothing_has_passed(half):
    assert half.passed is None
    assert half._summary()["passed"] is None


def test_records_known_in_part_are_no_nothing():
    """Half of each record is known by heart, the other half worse than the oracle knows it: memU of the whole is 0."""

    def half_known(ids):
        known_wrong = -6.0 * torch.nn.functional.one_hot((ids * 5 + 3) % VOCAB, VOCAB).float()
        return torch.where(torch.arange(ids.shape[1])[None, :, None] < 11, counts(ids), known_wrong)

    data = [row[:12] for row in counting(60)]
    for row in data:
        for _ in range(12):
            row.append((5 * row[-1] + 3) % VOCAB)
    found = audited(half_known, UniformModel(VOCAB), data, random_records(2000, 9), fail_on=["net_bits > 1000000"])
    assert found.figures()["net_bits"] < 1
    assert found.memorization.in_parts.low > 20
    assert found.checks[0].outcome == "cannot tell"
    assert any("known by heart" in one for one in found.sentences())


# --- The same numbers as by the functions that run the models themselves


def test_every_part_is_what_its_own_function_gives(model_folder, tiny_gpt2, bpe_tokenizer):
    texts = [f"the house met and adjourned {i} times, says the {i % 7}th member of the senate" for i in range(30)]
    unseen = [f"fellow citizens number {i} of the house of {i % 5} states wrote it down again" for i in range(40)]
    options = {"target_tokenizer": bpe_tokenizer, "oracle_tokenizer": bpe_tokenizer}
    found = audited(tiny_gpt2, UniformModel(300), texts, unseen, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        memu = unintended_memorization(tiny_gpt2, UniformModel(300), texts, control=unseen, **options)
        attacks = audit_membership(tiny_gpt2, texts, unseen, oracle=UniformModel(300), **options)
        came = extract(tiny_gpt2, texts, unseen, oracle=UniformModel(300), tokenizer=bpe_tokenizer)
    assert found.memorization.signed_bits.tolist() == memu.signed_bits.tolist()
    for name, one in found.membership.attacks.items():
        assert one.member_scores.tolist() == pytest.approx(attacks.attacks[name].member_scores.tolist())
        assert one.auc == pytest.approx(attacks.attacks[name].auc)
    assert set(found.membership.attacks) == set(attacks.attacks) - {"min_k_plus_plus"}
    assert found.extraction.settings["prefix_tokens"] == [8, 16]  # a suffix has 8 tokens at least
    assert came.settings["prefix_tokens"][:2] == [8, 16]
    assert found.extraction.member_correct.tolist() == came.member_correct.tolist()
    assert found.extraction.heldout_correct.tolist() == came.heldout_correct.tolist()
    assert found.extraction.member_bits == pytest.approx(came.member_bits, rel=1e-4)
    assert found.extraction.member_oracle_bits == pytest.approx(came.member_oracle_bits, rel=1e-4)
    assert found.extraction.settings["examples"] == came.settings["examples"] or [
        one["sample"] for one in found.extraction.settings["examples"]
    ] == [one["sample"] for one in came.settings["examples"]]


def test_each_model_runs_once_over_each_set():
    n_read = {"target": 0, "oracle": 0}

    def counted(name, model):
        def read(ids):
            n_read[name] += ids.numel()
            return model(ids)

        return read

    data, unseen = counting(300, 60), random_records(300, 11, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasurementWarning)
        models = counted("target", counts), counted("oracle", UniformModel(VOCAB))
        unintended_memorization(*models, data, control=unseen)
        alone, n_read = n_read, {"target": 0, "oracle": 0}
        audit(*models, data, unseen, progress=False)
    assert n_read["oracle"] == alone["oracle"]
    assert alone["target"] <= n_read["target"] <= 1.1 * alone["target"]  # and examples, of ten records


# --- Records that are short, prompts, spans, repeats


def test_short_records_are_not_asked_and_are_counted():
    data = counting(20) + [[1, 2, 3]] * 2
    found = audited(counts, UniformModel(VOCAB), data, random_records(200, 12), fail_on=["extracted > 20"])
    assert found.extraction.settings["members"]["too_short"] == [20, 21]
    assert found.figures()["extracted"] == 20
    assert found.records()["extracted"].tolist()[:20] == [True] * 20
    assert found.records()["extracted"].isna().tolist()[20:] == [True, True]
    assert found.checks[0].outcome == "cannot tell"
    assert "2 records are too short to ask" in " ".join(found.sentences())
    assert "2 records are too short to ask" in found.checks[0].why
    assert "left out     2 of 22 members: too short to ask" in repr(found.extraction)
    assert found.figures()["repeated"] == 2


@pytest.mark.parametrize("condition", ["set_p_value < 0.01", "set_p_value < 0.05"])
def test_too_small_a_control_never_passes_by_its_p_value(condition):
    """24 records known by heart beside one unseen one: no p-value is below 1/25, which is no sign of innocence."""
    found = audited(counts, UniformModel(VOCAB), counting(24), random_records(1, 2), fail_on=[condition])
    (check,) = found.checks
    assert check.value == pytest.approx(1 / 25, rel=0.2)
    if condition.endswith("0.01"):
        assert check.outcome == "cannot tell"
        assert check.why.endswith(
            "with 24 samples and 1 sample of the control no p-value for all together is below 0.04"
        )
    else:
        assert check.outcome == "failed"
    assert "whether by chance cannot be told: with 24 samples and 1 sample" in " ".join(found.sentences())


def test_a_p_value_below_all_that_permutations_can_give_cannot_be_told(half):
    half = dataclasses.replace(half, settings={**half.settings, "policy": ["set_p_value < 0.00001"]})
    assert half.checks[0].outcome == "cannot tell"
    assert "is below 0.0001" in half.checks[0].why


def test_nothing_but_short_records():
    found = audited(counts, UniformModel(VOCAB), counting(20, 5), random_records(50, 13, 5), fail_on=["extracted > 0"])
    assert found.extraction is None
    assert found.checks[0].outcome == "cannot tell"
    assert "at least 16 tokens" in found.missing["extraction"]


def test_spans_and_redaction(tiny_gpt2, bpe_tokenizer, tmp_path):
    texts = [f"the pin of member {i} is {i * 7919 % 10000:04d}, which nobody else knows" for i in range(30)]
    unseen = [f"the pin of citizen {i} is {i * 104729 % 10000:04d}, which nobody else knows" for i in range(40)]
    options = {
        "target_tokenizer": bpe_tokenizer,
        "oracle_tokenizer": bpe_tokenizer,
        "spans": {"pin": r"\d{4}"},
    }
    found = audited(tiny_gpt2, UniformModel(300), texts, unseen, **options)
    assert found.spans.names[0] == "pin"
    assert found.texts["text"][0] == texts[found.texts["sample"][0]]
    assert all("".join(pieces) == text for pieces, text in zip(found.texts["pieces"], found.texts["text"], strict=True))
    found.save(tmp_path / "open")
    hidden = audited(tiny_gpt2, UniformModel(300), texts, unseen, redact=True, **options)
    hidden.save(tmp_path / "hidden")
    for folder, shown in (("open", True), ("hidden", False)):
        files = [path for path in (tmp_path / folder).rglob("*") if path.is_file()]
        assert any("which nobody else" in path.read_bytes().decode("latin1") for path in files) is shown
    assert len(hidden.texts) == 0
    assert hidden.redacted
    assert hidden.sentences() == found.sentences()


# --- Saved, loaded, written down


def test_saved_and_loaded_it_is_the_same(half, tmp_path):
    one = dataclasses.replace(half, settings={**half.settings, "policy": ["extracted > 3"]})
    one.save(tmp_path / "out")
    again = memorization.load(tmp_path / "out")
    assert repr(again) == repr(one)
    assert again.checks == one.checks
    assert again.records().equals(one.records())
    written = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert written["figures"]["extracted"] == 20
    assert written["checks"][0]["outcome"] == "failed"
    assert written["passed"] is False
    assert set(written["figures"]) == set(FIGURES)


def test_weights_are_named_by_their_whole_digest(model_folder):
    import hashlib

    data, unseen = random_records(4, 14), random_records(4, 15)
    found = audited(model_folder, UniformModel(300), data, unseen)
    file = model_folder / "model.safetensors"
    assert found.settings["weights"]["target"] == {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    assert found.settings["weights"]["oracle"] is None


def test_warnings_are_kept_and_given_on():
    with pytest.warns(MeasurementWarning) as said:
        found = audit(counts, counts, counting(20), random_records(100, 16), progress=False)
    assert {str(one.message) for one in said} >= {told for _, told in found.warnings}
    assert "SameModelWarning" in {kind for kind, _ in found.warnings}


# --- The policy


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("", "must be a figure, a comparison and a number"),
        ("extracted", "must be a figure"),
        ("extracted >", "must be a figure"),
        ("> 3", "must be a figure"),
        ("extracted > much", "'much', which is no finite number"),
        ("extracted > nan", "no finite number"),
        ("extracted > 1e400", "no finite number"),
        ("extractd > 0", "Did you mean extracted"),
        ("zzz > 0", "There are n_records"),
        ("extracted > 0 and memorized > 0", "no finite number"),
        (3, "must be a figure"),
    ],
)
def test_a_condition_that_cannot_be_read(condition, told):
    with pytest.raises(InputError, match=told):
        read_policy([condition], FIGURES)


def test_the_docs_list_every_figure():
    page = (Path(__file__).parents[1] / "docs" / "release.md").read_text(encoding="utf-8")
    listed = dict(
        line.strip("| ").split("` | ") for line in page.splitlines() if line.startswith("| `") and "` | " in line
    )
    told = {name.lstrip("`"): words for name, words in listed.items()}
    assert {name: words for name, words in told.items() if name in FIGURES} == FIGURES


def test_a_condition_is_read_before_anything_is_measured():
    def never(ids):
        raise AssertionError

    with pytest.raises(InputError, match="fail_on names the figure"):
        audit(never, never, counting(3), random_records(3, 17), fail_on="nothing > 0")


COMPARE = {
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


@given(st.sampled_from(sorted(COMPARE)), st.integers(0, 4), st.integers(0, 4), st.booleans())
def test_a_figure_in_doubt_fails_or_cannot_be_told(comparison, value, limit, in_doubt):
    condition = Condition("extracted", comparison, float(limit))
    (check,) = check_policy([condition], {"extracted": float(value)}, {"extracted": "short"} if in_doubt else None)
    holds = COMPARE[comparison](value, limit)
    assert check.outcome == ("failed" if holds else "cannot tell" if in_doubt else "passed")


@given(st.sampled_from(sorted(COMPARE)))
def test_the_unknown_never_passes(comparison):
    (check,) = check_policy([Condition("extracted", comparison, 0.0)], {"extracted": math.nan})
    assert check.outcome == "cannot tell"
    assert not check.passed


# --- The command


def write_rows(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


@pytest.mark.parametrize(("condition", "code"), [("n_records > 0", 3), ("n_records > 1000", 0), ("n_record > 0", 2)])
def test_the_exit_code_of_the_command(condition, code, model_folder, tmp_path, capsys):
    data = write_rows(
        tmp_path / "a.jsonl", [f"the house met {i} times, and then it adjourned again" for i in range(12)]
    )
    held = write_rows(tmp_path / "b.jsonl", [f"the senate met {i} times, and then it adjourned too" for i in range(14)])
    models = ["--target", str(model_folder), "--oracle", str(model_folder)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SystemExit) as left:
            cli.main(
                [
                    *("audit", *models, "--data", data, "--control", held, "--quiet"),
                    *("--output", str(tmp_path / "out"), "--fail-on", condition),
                ]
            )
    assert left.value.code == code
    if code == 2:
        assert "--fail-on names the figure" in capsys.readouterr().err
        return
    result = memorization.load(tmp_path / "out")
    assert result.passed is (code == 0)
    assert result.settings["command"].startswith(f"memorization audit --target {model_folder}")
    assert ("FAILED" in capsys.readouterr().out) is (code == 3)


def test_a_reader_that_leaves_takes_nothing_along(model_folder, tmp_path):
    """`memorization audit ... | head -1`: what was measured is written all the same."""
    data = write_rows(
        tmp_path / "a.jsonl", [f"the house met {i} times, and then it adjourned again" for i in range(12)]
    )
    held = write_rows(tmp_path / "b.jsonl", [f"the senate met {i} times, and then it adjourned too" for i in range(14)])
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "memorization",
        "audit",
        "--quiet",
        "--output",
        str(tmp_path / "out"),
    ]
    command += ["--target", str(model_folder), "--oracle", str(model_folder), "--data", data, "--control", held]
    environment = {**os.environ, "PYTHONPATH": str(Path(memorization.__file__).parents[1])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    process.stdout.close()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert (tmp_path / "out" / "report.html").is_file()
    assert memorization.load(tmp_path / "out").figures()["n_records"] == 12
