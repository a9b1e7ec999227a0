"""first_token="auto": a model says what it was trained to read in front; planted ones, of which the answer is known."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from memorization import CodeLengths, UniformModel, compress_bits, unintended_memorization
from memorization.errors import FirstTokenWarning, InputError, ResultError
from memorization.extraction import extract
from memorization.membership import audit_membership, token_moments
from memorization.results import describe_first_token

V = 300
BOS, EOS = 0, 1


class Counts:
    """Knows that tokens count on where its input begins as it was trained, and nothing elsewhere."""

    def __init__(self, trained_with: int | None, strength: float = 9.0):
        self.trained_with, self.strength, self.calls = trained_with, strength, 0

    def at_home(self, ids: Tensor) -> Tensor:
        return ids[:, :1] > EOS if self.trained_with is None else ids[:, :1] == self.trained_with

    def __call__(self, ids: Tensor) -> Tensor:
        self.calls += 1
        strength = torch.where(self.at_home(ids), self.strength, 0.0).expand(ids.shape)
        return torch.nn.functional.one_hot((ids + 1) % V, V) * strength[..., None]


def counting(starts, length=12):
    return [[(start + k) % (V - 2) + 2 for k in range(length)] for start in starts]


SAMPLES, CONTROL = counting(range(20, 60, 4)), counting(range(100, 140, 5))
KNOWN = math.log2(1 + (V - 1) / math.exp(9.0))  # bits of a token that counts on


@pytest.fixture
def bos(bpe_tokenizer):
    return {"tokenizer": bpe_tokenizer, "progress": False}


@pytest.fixture
def both(bpe_tokenizer):
    return {"target_tokenizer": bpe_tokenizer, "oracle_tokenizer": bpe_tokenizer, "progress": False}


@pytest.fixture(scope="module")
def with_eos():
    """Letters, `<s>` before them and `</s>` after."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {chr(0x4E00 + k): k for k in range(2, V)}
    tokenizer = Tokenizer(models.WordLevel({"<s>": BOS, "</s>": EOS} | letters, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def same(ours: CodeLengths, theirs: CodeLengths) -> None:
    np.testing.assert_array_equal(ours.token_bits, theirs.token_bits)
    np.testing.assert_array_equal(ours.bits, theirs.bits)


def test_a_model_trained_without_is_read_without_and_that_is_told(bos):
    with pytest.warns(
        FirstTokenWarning,
        match=r"Counts was likely trained without a BOS .* 10 samples cost 0\.0523 bits each with nothing in front, and "
        r"8\.23 after the BOS '<\|endoftext\|>'.*first_token=\"bos\"",
    ) as caught:
        found = compress_bits(Counts(None), SAMPLES, **bos)
    assert [w.filename for w in caught] == [__file__]
    same(found, compress_bits(Counts(None), SAMPLES, first_token="uniform", **bos))
    assert compress_bits(Counts(None), SAMPLES, first_token="bos", **bos).total_bits > 5 * found.total_bits
    assert describe_first_token(found.settings["first_token"]) == (
        "uniform: log2 of the vocabulary size; nothing in front: 0.0523 bits a token, after '<|endoftext|>' (id 0) 8.23 "
        "(10 samples asked)"
    )
    assert "10 samples asked" in repr(found)


def test_a_model_trained_with_it_keeps_the_bos(bos, recwarn):
    found = compress_bits(Counts(BOS), SAMPLES, **bos)
    same(found, compress_bits(Counts(BOS), SAMPLES, first_token="bos", **bos))
    assert describe_first_token(found.settings["first_token"]) == (
        "bos: given '<|endoftext|>' (id 0), which is not coded; 0.0523 bits a token, without it 8.23 (10 samples asked)"
    )
    assert not [w for w in recwarn if issubclass(w.category, FirstTokenWarning)]


def test_the_evidence_is_64_samples_at_the_most_and_named_rules_ask_for_none(bos):
    many = counting(range(200))
    record = compress_bits(Counts(BOS), many, **bos).settings["first_token"]["evidence"]
    assert (record["n_samples"], record["n_tokens"]) == (64, 64 * 11)
    assert record["bits_with"] == pytest.approx(KNOWN, rel=1e-4)
    assert record["bits_without"] == pytest.approx(math.log2(V), rel=1e-6)
    assert record["bits_eos"] is None
    by_rule = {}
    for rule in ("bos", "uniform", 0, "auto"):
        model = Counts(BOS)
        by_rule[rule] = model, compress_bits(model, many, first_token=rule, **bos).settings["first_token"]
    assert by_rule["auto"][0].calls > by_rule["bos"][0].calls == by_rule[0][0].calls
    assert {by_rule[rule][1]["evidence"] for rule in ("bos", "uniform", 0)} == {None}


def test_the_evidence_costs_little(bos):
    """On 2,000 samples, in positions that the model is asked about."""

    class Counted(Counts):
        positions = 0

        def __call__(self, ids):
            self.positions += ids.numel()
            return super().__call__(ids)

    asked = {}
    for rule in ("bos", "auto"):
        model = Counted(BOS)
        compress_bits(model, counting([k % 290 for k in range(2000)]), first_token=rule, **bos)
        asked[rule] = model.positions
    assert 1 < asked["auto"] / asked["bos"] < 1.07


def test_each_model_reads_its_own_context_and_both_pay_one_first_token(both):
    """Whichever of the two keeps its BOS, and whichever is measured first."""
    single = {"tokenizer": both["target_tokenizer"], "progress": False}
    weak, strong = Counts(BOS, strength=4), Counts(None)
    for target, oracle in ((strong, weak), (weak, strong)):
        with pytest.warns(FirstTokenWarning, match="likely trained without"):
            found = unintended_memorization(target, oracle, SAMPLES, **both)
        for lengths, model in ((found.target, target), (found.oracle, oracle)):
            rule = "uniform" if model is strong else "bos"
            named = compress_bits(model, SAMPLES, first_token=rule, **single)
            bits = lengths.token_bits.reshape(len(SAMPLES), -1)
            np.testing.assert_array_equal(bits[:, 1:], named.token_bits.reshape(len(SAMPLES), -1)[:, 1:])
            np.testing.assert_allclose(bits[:, 0], math.log2(lengths.settings["uniform_vocab_size"]))
            assert lengths.settings["first_token"]["charge"] == lengths.settings["first_token"]["rule"] == "uniform"
            assert (lengths.settings["first_token"]["id"] == BOS) == (model is weak)
            mean, sd = token_moments(model, lengths, progress=False)  # or ResultError: it was read another way
            assert sd.reshape(len(SAMPLES), -1)[:, 0].tolist() == [0] * len(SAMPLES)
            assert mean.shape == lengths.token_bits.shape
    assert "after '<|endoftext|>' (id 0), which is not coded; 2.7 bits" in describe_first_token(
        found.target.settings["first_token"]
    )


def test_a_pair_that_keeps_the_bos_has_the_numbers_of_bos(both):
    found, named = (
        unintended_memorization(Counts(BOS), Counts(BOS, strength=4), SAMPLES, first_token=rule, **both)
        for rule in ("auto", "bos")
    )
    same(found.target, named.target)
    same(found.oracle, named.oracle)


def test_the_samples_decide_for_the_control(both):
    """The control would speak for the BOS; it is read as the samples are, by every oracle."""

    class OfTheControl(Counts):
        def at_home(self, ids):
            of_control = (ids[:, :2] >= 100).any(dim=1, keepdim=True)
            return torch.where(of_control, ids[:, :1] == BOS, ids[:, :1] > EOS)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = unintended_memorization(
            OfTheControl(None), [UniformModel(V), OfTheControl(None, strength=3)], SAMPLES, control=CONTROL, **both
        )
        audit = audit_membership(OfTheControl(None), SAMPLES, CONTROL, target_tokenizer=both["target_tokenizer"])
    assert found.control.target.settings["first_token"] == found.target.settings["first_token"]
    assert found.target.settings["first_token"]["id"] is None
    assert found.control.oracle.settings["first_token"] == found.oracle.settings["first_token"]
    assert audit.settings["first_token"]["rule"] == "uniform"
    assert audit.attacks["loss"].auc == 1


@pytest.mark.parametrize("oracle", [None, Counts(None, strength=3)])
def test_an_audit_whose_oracle_changes_the_charge(both, oracle):
    """The target's moments are those of its last measurement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        audit = audit_membership(
            Counts(BOS), SAMPLES, [sample[::-1] for sample in CONTROL], oracle=oracle, target_tokenizer=both["target_tokenizer"],
            oracle_tokenizer=None if oracle is None else both["oracle_tokenizer"], progress=False,
        )  # fmt: skip
    assert audit.settings["first_token"]["rule"] == ("bos" if oracle is None else "uniform")
    assert audit.attacks["min_k_plus_plus"].auc == 1


def test_code_lengths_measured_apart(bos, both, tmp_path):
    target, oracle = Counts(None), Counts(BOS, strength=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        live = unintended_memorization(target, oracle, SAMPLES, **both)
        of_target, of_oracle = (compress_bits(model, SAMPLES, **bos) for model in (target, oracle))
        of_target.save(tmp_path / "target")
        of_target = CodeLengths.load(tmp_path / "target")
        follows = unintended_memorization(of_target, oracle, SAMPLES, oracle_tokenizer=both["oracle_tokenizer"])
        given = unintended_memorization(target, of_oracle, SAMPLES, target_tokenizer=both["target_tokenizer"])
    same(follows.oracle, live.oracle)
    same(follows.target, live.target)
    first = given.target.settings["first_token"]
    assert (first["charge"], first["in_front"]) == ("given", False)
    assert describe_first_token(first).startswith("bos: given '<|endoftext|>' (id 0), which is read before the first")
    bits = given.target.token_bits.reshape(len(SAMPLES), -1)
    np.testing.assert_allclose(bits[:, 0], math.log2(V), rtol=1e-6)  # that model knows nothing after a BOS
    np.testing.assert_array_equal(bits[:, 1:], live.target.token_bits.reshape(len(SAMPLES), -1)[:, 1:])
    token_moments(target, given.target, progress=False)
    with pytest.raises(
        InputError,
        match=r'target: uniform and oracle: bos .*With first_token="auto", each was asked by itself, and the target '
        r'reads no BOS\. Pass one of the two, or both, as a model: .*first_token="bos" if both .*else first_token="unif',
    ):
        unintended_memorization(of_target, of_oracle, SAMPLES)


def test_a_control_that_was_read_another_way(bos):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = [compress_bits(Counts(None), SAMPLES, **bos) for _ in range(2)]
        theirs = [compress_bits(Counts(None), CONTROL, first_token="bos", **bos) for _ in range(2)]
        message = r"another first-token rule than the samples' \(bos in place of uniform\).*first_token='uniform'"
        with pytest.raises(ResultError, match=message):
            unintended_memorization(*ours, SAMPLES, control=theirs)


def test_two_tokenizers_charge_what_the_bos_gives(bpe_tokenizer):
    """Their first tokens cover different bytes, so log2 V is no common charge."""
    texts = ["The house met and adjourned, and the house met again.", "A model that has seen a sentence once."] * 3
    texts = [f"{text} {k}" for k, text in enumerate(texts)]
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    small = Tokenizer(models.BPE())
    small.pre_tokenizer, small.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    small.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=260, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False))  # fmt: skip
    other = type(bpe_tokenizer)(tokenizer_object=small, bos_token="<|endoftext|>")
    successors = torch.zeros(V, V)
    for text in texts:
        ids = bpe_tokenizer(text, add_special_tokens=False)["input_ids"]
        successors[ids[:-1], ids[1:]] = 9.0

    def target(ids: Tensor) -> Tensor:
        return successors[ids] * (ids[:, :1, None] != BOS)

    options = {"target_tokenizer": bpe_tokenizer, "oracle_tokenizer": other, "progress": False}
    with pytest.warns(FirstTokenWarning, match="likely trained without"):
        found = unintended_memorization(target, UniformModel(260), texts, **options)
    without = compress_bits(target, texts, tokenizer=bpe_tokenizer, first_token="uniform", progress=False)
    first = found.target.settings["first_token"]
    assert (first["charge"], first["in_front"], first["id"]) == ("given", False, BOS)
    rest = np.ones(len(without.token_bits), dtype=bool)
    rest[without.token_offsets[:-1]] = False
    np.testing.assert_array_equal(found.target.token_bits[rest], without.token_bits[rest])
    np.testing.assert_allclose(found.target.token_bits[~rest], math.log2(V), rtol=1e-6)
    assert found.bits.mean() > 50
    assert (
        unintended_memorization(target, UniformModel(260), texts, first_token="bos", **options).bits.mean()
        < found.bits.mean() / 2
    )


def test_extraction_reads_what_the_model_was_trained_with(bos):
    with pytest.warns(FirstTokenWarning, match="likely trained without"):
        found = extract(Counts(None), SAMPLES, prefix_tokens=(1,), **bos)
    assert found.rates[0].member_rate == 1
    assert extract(Counts(None), SAMPLES, prefix_tokens=(1,), first_token="bos", **bos).rates[0].member_rate == 0
    assert "none before the first token" in repr(found)


def test_moments_of_ids_that_bring_their_bos(both):
    """A BOS that stands in the ids already is not put in front once more when the model is asked again."""

    class OneBos(Counts):
        def at_home(self, ids):
            return super().at_home(ids) & ((ids == BOS).sum(dim=1, keepdim=True) == 1)

    target, samples = OneBos(BOS), [[BOS, *SAMPLES[0]], *SAMPLES[1:]]
    with pytest.warns(FirstTokenWarning):
        found = unintended_memorization(target, Counts(None), samples, **both).target
    assert (found.settings["first_token"]["charge"], found.settings["first_token"]["id"]) == ("uniform", BOS)
    np.testing.assert_allclose(found.token_bits[2:13], KNOWN, rtol=1e-4)
    token_moments(target, found, progress=False)


LONG = counting([5], length=80)


@pytest.mark.parametrize("stride", [None, 3, 8])
def test_the_bos_in_front_of_every_window(bos, stride):
    windows = {"max_length": 8, "stride": stride}
    found = compress_bits(Counts(BOS), LONG, **windows, **bos)
    assert found.token_ids.tolist() == LONG[0]
    record = found.settings["first_token"]
    assert record["every_window"]
    assert record["later_windows"]["n_windows"] == 8
    # A window of which all inputs are new begins with a token that has only the BOS before it.
    blind = 1 + (9 if stride == 8 else 0)
    expected = np.full(80, KNOWN)
    expected[np.arange(blind) * 8] = KNOWN + 9 / math.log(2)  # it expects the token after the BOS there
    np.testing.assert_allclose(found.token_bits, expected, rtol=1e-4)
    assert "; in front of later windows: " in describe_first_token(record)
    token_moments(Counts(BOS), found, progress=False)
    with pytest.warns(FirstTokenWarning, match=r"stands before their first window only.*first_token=\"auto\" puts it"):
        named = compress_bits(Counts(BOS), LONG, first_token="bos", **windows, **bos)
    assert named.token_bits[8:].mean() == pytest.approx(math.log2(V))
    with pytest.raises(ResultError, match="samples were read with the context token in front of each later window"):
        unintended_memorization(found, found, LONG, control=(named, named))


def test_no_bos_in_front_of_windows_that_do_not_need_it(bos, recwarn):
    class Everywhere(Counts):
        def at_home(self, ids):
            return ids[:, :1] >= 0

    found = compress_bits(Everywhere(BOS), LONG, max_length=8, **bos)
    same(found, compress_bits(Everywhere(BOS), LONG, max_length=8, first_token="bos", **bos))
    assert not found.settings["first_token"]["every_window"]
    assert "; not in front of later windows: 0.0523 bits" in describe_first_token(found.settings["first_token"])
    assert not [w for w in recwarn if issubclass(w.category, FirstTokenWarning)]


def test_too_few_tokens_to_tell(bos):
    """15 tokens do not move the default, and 16 do."""
    with pytest.warns(FirstTokenWarning, match=r"cannot tell whether Counts .* too few tokens \(15\).* by what it was"):
        few = compress_bits(Counts(None, strength=0.7), counting([7], length=16), **bos)
    assert few.settings["first_token"]["rule"] == "bos"
    with pytest.warns(FirstTokenWarning, match="likely trained without"):
        more = compress_bits(Counts(None, strength=0.7), counting([7], length=17), **bos)
    assert more.settings["first_token"]["rule"] == "uniform"
    single = compress_bits(Counts(None), [[5], [6]], **bos)
    assert single.settings["first_token"]["evidence"] is None


@pytest.mark.parametrize(("share", "left"), [(0.004, False), (0.006, True)])
def test_less_than_half_a_percent_is_not_worth_leaving_the_default(bos, share, left):
    class Slightly:
        def __call__(self, ids):
            bits = torch.where(ids[:, :1] == BOS, 1.0, 1.0 - share).expand(ids.shape)
            p = torch.exp2(-bits)[..., None]
            own = torch.nn.functional.one_hot((ids + 1) % V, V)
            return (own * p + (1 - own) * (1 - p) / (V - 1)).log()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compress_bits(Slightly(), SAMPLES, **bos)
    assert (found.settings["first_token"]["rule"] == "uniform") == left


def test_tokens_of_one_sample_do_not_count_as_independent(bos):
    """One sample of ten is cheaper without: over tokens that is 4 standard errors, over samples it is 1."""

    class ForOneSample(Counts):
        def at_home(self, ids):
            own = (ids[:, :2] == SAMPLES[0][0]).any(dim=1, keepdim=True)
            return own & (ids[:, :1] != BOS)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compress_bits(ForOneSample(None, strength=0.55), counting(range(20, 60, 4), length=24), **bos)
    assert found.settings["first_token"]["rule"] == "bos"


def test_a_model_trained_with_the_eos_in_front_is_told(with_eos):
    texts = ["".join(chr(0x4E00 + one) for one in sample) for sample in SAMPLES]
    ids = [with_eos(text)["input_ids"] for text in texts]
    assert ids == SAMPLES
    with pytest.warns(
        FirstTokenWarning, match=r"trained with the EOS in front .* after the EOS '</s>', .*So it is put in front"
    ):
        found = compress_bits(Counts(EOS), SAMPLES, tokenizer=with_eos, progress=False)
    assert found.settings["first_token"]["evidence"]["bits_eos"] == pytest.approx(KNOWN, rel=1e-4)
    named = compress_bits(Counts(EOS), SAMPLES, tokenizer=with_eos, first_token="</s>", progress=False)
    same(found, named)
    assert "eos: given '</s>' (id 1)" in describe_first_token(found.settings["first_token"])


@pytest.mark.parametrize("trained_with", [EOS, None])
def test_a_tokenizer_without_bos_tries_its_eos(with_eos, trained_with):
    """As many open models have it: read with nothing in front by default, unless the EOS speaks for itself."""
    import copy

    tokenizer = copy.deepcopy(with_eos)
    tokenizer.bos_token = None
    model, options = Counts(trained_with), {"tokenizer": tokenizer, "progress": False}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = compress_bits(model, SAMPLES, **options)
    told = [str(w.message) for w in caught if w.category is FirstTokenWarning]
    named = compress_bits(model, SAMPLES, first_token="uniform" if trained_with is None else "</s>", **options)
    same(found, named)
    assert ["likely trained with the EOS in front" in one for one in told] == ([] if trained_with is None else [True])
    both = {"target_tokenizer": tokenizer, "oracle_tokenizer": tokenizer, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = unintended_memorization(model, Counts(None, strength=3), SAMPLES, control=CONTROL, **both)
    assert {one.settings["first_token"]["charge"] for one in (pair.target, pair.oracle)} == {"uniform"}
    assert pair.target.token_bits[1:12] == pytest.approx(np.full(11, KNOWN), rel=1e-4)


class Few(Counts):
    """Knows some samples, and only where its input begins as it was trained; else all tokens are alike."""

    def __init__(self, trained_with, known):
        super().__init__(trained_with)
        self.known = torch.tensor([sample[0] for sample in known])

    def at_home(self, ids):
        start = ids[:, :1] if self.trained_with is None else ids[:, 1:2]
        if not start.shape[1]:
            return torch.zeros_like(ids[:, :1], dtype=torch.bool)
        return super().at_home(ids) & torch.isin(start, self.known)


@pytest.mark.parametrize("trained_with", [BOS, None, EOS])
@pytest.mark.parametrize("n_known", [1, 3])
def test_a_few_known_samples_among_many_decide(with_eos, trained_with, n_known):
    """Their mean hardly moves; but 20 bits of a sample, with all that speak saying the same, are no accident."""
    many = counting(range(2, 280, 6))
    model = Few(trained_with, many[10 : 10 + n_known])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compress_bits(model, many, tokenizer=with_eos, progress=False)
    record = found.settings["first_token"]
    assert (record["id"] if record["in_front"] else None) == trained_with
    assert found.bits[10 : 10 + n_known].max() < 25 < 60 < np.delete(found.bits, range(10, 10 + n_known)).min()


def test_samples_that_speak_for_several_contexts_are_told(bos):
    known = counting([30, 90, 150, 210])

    class Both(Counts):
        def at_home(self, ids):
            with_bos, start = ids[:, :1] == BOS, torch.where(ids[:, :1] == BOS, ids[:, 1:2], ids[:, :1])
            return torch.where(
                with_bos, torch.isin(start, torch.tensor([32, 92])), torch.isin(start, torch.tensor([152]))
            )

    with pytest.warns(
        FirstTokenWarning, match=r"some another \(2 after the BOS .*, 1 with nothing in front\).* as well"
    ):
        found = compress_bits(Both(None), [*known, *counting(range(3, 60, 7))], **bos)
    evidence = found.settings["first_token"]["evidence"]
    assert (evidence["strong_with"], evidence["strong_without"]) == (2, 1)


def test_ids_that_all_begin_with_the_bos_are_not_asked_about(bos):
    own = [[BOS, *sample] for sample in SAMPLES]
    model = Counts(None)
    found = compress_bits(model, own, **bos)
    assert found.settings["first_token"]["evidence"] is None
    same(found, compress_bits(model, own, first_token="bos", **bos))


def test_a_tokenizer_without_bos_and_no_tokenizer_ask_nothing():
    model = Counts(None)
    found = compress_bits(model, SAMPLES, progress=False)
    assert (found.settings["first_token"]["rule"], found.settings["first_token"]["evidence"]) == ("uniform", None)


def test_a_token_that_nothing_in_front_makes_impossible_leaves_the_default(bos):
    class Masked(Counts):
        def __call__(self, ids):
            logits = super().__call__(ids)
            return torch.where((ids[:, :1, None] != BOS) & (torch.arange(V) == SAMPLES[0][3]), -math.inf, logits)

    found = compress_bits(Masked(BOS), SAMPLES, **bos)
    assert (found.settings["first_token"]["rule"], found.settings["first_token"]["evidence"]) == ("bos", None)
