"""Conditional lengths: bits of what is counted, given all that is read before it, against sums by hand and transformers' loss."""

import copy
import math
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memorization import UniformModel, compress_bits, extract, read_samples, unintended_memorization
from memorization.errors import (
    FirstTokenWarning,
    ImpossibleTokenError,
    InputError,
    LossyTextError,
    MeasurementWarning,
    ResultError,
)
from memorization.membership import audit_membership, min_k_plus_plus_attack, token_moments
from memorization.results import load

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}{% else %}{{ m['content'] + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] + eos_token }}"
    "{% else %}{{ '[INST]' + m['content'] + '[/INST]' }}{% endif %}{% endfor %}"
)
SENTENCES = [
    "The house met and adjourned.",
    "How many bits does it take to write it down?",
    "Word for word, once more.",
]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


CHATS = [
    [user("How many bits?"), assistant("As many as it takes.")],
    [{"role": "system", "content": "Be brief."}, user("Who met?"), assistant("The house.")],
    [user("Once?"), assistant("Once more."), user("And then?"), assistant("It adjourned, word for word.")],
    [user("Write: né, 漢字"), assistant("né, 漢字"), user("Thanks.")],
    [user("?"), assistant("!")],
]
PAIRS = {
    "prompt": ["The house ", "How many bits ", "", "Word for word, ", "Once more: né "],
    "text": ["met and adjourned.", "does it take?", "The house met.", "once", "漢字"],
}


def byte_level(size: int, specials: list[str]):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False, min_frequency=1
        ),
    )
    return bpe


def letters(specials: list[str]):
    """A token a character, of those that the tests use."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    texts = [*SENTENCES, *PAIRS["prompt"], *PAIRS["text"], *(m["content"] for chat in CHATS for m in chat)]
    known = [*specials, "<unk>", *sorted(set("".join(texts)))]
    words = Tokenizer(models.WordLevel({token: k for k, token in enumerate(known)}, unk_token="<unk>"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated"), decoders.Fuse()
    return words


def make(kind: str):
    """A model of transformers with random weights, and its tokenizer."""
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    base, names, template = {
        "chatml": (byte_level(310, ["<|end|>", "<|im_start|>", "<|im_end|>"]), {"eos_token": "<|end|>"}, CHATML),
        "marked": (
            byte_level(290, ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<pad>"]),
            {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
            MARKED,
        ),
        "inst": (letters(["<s>", "</s>", "[INST]", "[/INST]"]), {"bos_token": "<s>", "eos_token": "</s>"}, INST),
    }[kind]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, clean_up_tokenization_spaces=False, **names)
    extra = [t for t in base.get_vocab() if (t[0] == "<" and len(t) > 1) or t in ("[INST]", "[/INST]")]
    tokenizer.add_special_tokens({"additional_special_tokens": [t for t in extra if t not in names.values()]})
    tokenizer.chat_template = template
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 256, "initializer_range": 0.3}
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = {
            "chatml": lambda: GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=len(tokenizer), n_positions=256, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3
                )
            ),
            "marked": lambda: LlamaForCausalLM(LlamaConfig(**sizes, **small)),
            "inst": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, **small)),
        }[kind]()
    return model.eval(), tokenizer


@pytest.fixture(scope="module", params=["chatml", "marked", "inst"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def both(kind):
    return make(kind)


@pytest.fixture(scope="module")
def chatml():
    return make("chatml")


def segments(kind: str, chat: list[dict[str, str]]) -> list[tuple[str, bool]]:
    """What the template writes, and whether it is the assistant's: written down without any template."""
    if kind == "chatml":
        return [
            part
            for m in chat
            for part in [
                (f"<|im_start|>{m['role']}\n", False),
                (f"{m['content']}<|im_end|>\n", m["role"] == "assistant"),
            ]
        ]
    if kind == "marked":
        parts = [
            part
            for m in chat
            for part in [(f"<|{m['role']}|>", False), (f"{m['content']}</s>", m["role"] == "assistant")]
        ]
    else:
        parts = [
            (f"{m['content']}</s>", True) if m["role"] == "assistant" else (f"[INST]{m['content']}[/INST]", False)
            for m in chat
        ]
    return [("<s>", False), *parts]


def tokens(tokenizer, parts: list[tuple[str, bool]]) -> tuple[list[int], list[bool]]:
    ids, counted = [], []
    for text, flag in parts:
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids, counted = ids + own, counted + [flag] * len(own)
    return ids, counted


@cache
def in_float64(model):
    return copy.deepcopy(model).double()


def by_hand(model, ids: list[int], counted: list[bool], front: int | None = None) -> list[float]:
    """-log2 p of each counted token but a first one that nothing precedes, in float64."""
    whole = ([] if front is None else [front]) + ids
    flags = ([] if front is None else [False]) + counted
    with torch.no_grad():
        logits = in_float64(model)(torch.tensor([whole])).logits[0]
    log2_p = torch.log_softmax(logits, -1) / math.log(2)
    return [-float(log2_p[t - 1, whole[t]]) for t in range(1, len(whole)) if flags[t]]


def loss_bits(model, ids: list[int], counted: list[bool], front: int | None = None) -> float:
    """The sum of what transformers' own loss is the mean of, in bits."""
    whole = torch.tensor([([] if front is None else [front]) + ids])
    labels = torch.tensor(
        [([] if front is None else [-100]) + [x if c else -100 for x, c in zip(ids, counted, strict=True)]]
    )
    with torch.no_grad():
        loss = float(model(whole, labels=labels).loss)
    return loss * int((labels[0, 1:] != -100).sum()) / math.log(2)


# --- against sums by hand


def test_chats_cost_what_the_assistant_says(kind, both):
    model, tokenizer = both
    found = compress_bits(model, read_samples(CHATS, messages=True), tokenizer=tokenizer, progress=False)
    for k, chat in enumerate(CHATS):
        ids, counted = tokens(tokenizer, segments(kind, chat))
        expected = by_hand(model, ids, counted)
        got = found.token_bits[found.token_offsets[k] : found.token_offsets[k + 1]]
        np.testing.assert_allclose(got, expected, atol=2e-4)
        assert found.ideal_bits[k] == pytest.approx(sum(expected), abs=1e-3)
        assert found.ideal_bits[k] == pytest.approx(loss_bits(model, ids, counted), abs=2e-3)
        assert found.token_ids[found.token_offsets[k] : found.token_offsets[k + 1]].tolist() == [
            x for x, c in zip(ids, counted, strict=True) if c
        ]
    said = ["".join(m["content"] for m in chat if m["role"] == "assistant") for chat in CHATS]
    assert found.n_bytes.tolist() == [len(text.encode()) for text in said]
    np.testing.assert_allclose(found.bits, found.ideal_bits, atol=0.1)
    given = found.settings["samples"]["conditional"]
    assert (given["by"], given["n_samples_prompted"]) == ("messages", len(CHATS))
    assert "given what is read before it" in repr(found)
    assert "given        the other turns of the samples" in repr(found)


def test_prompts_and_completions(kind, both):
    """Each is tokenized on its own. A prompt that is empty leaves a first token without a context, as ever."""
    model, tokenizer = both
    for first_token in ("uniform", "auto", 0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = compress_bits(
                model,
                read_samples(PAIRS, prompt_column="prompt"),
                tokenizer=tokenizer,
                first_token=first_token,
                progress=False,
            )
        rule = found.settings["first_token"]
        front = rule["id"] if rule["in_front"] else None
        for k, (prompt, text) in enumerate(zip(*PAIRS.values(), strict=True)):
            ids, counted = tokens(tokenizer, [(prompt, False), (text, True)])
            expected = by_hand(model, ids, counted, front)
            if len(expected) < sum(counted):
                expected = [math.log2(len(tokenizer)), *expected]
            got = found.token_bits[found.token_offsets[k] : found.token_offsets[k + 1]]
            np.testing.assert_allclose(got, expected, atol=2e-4)
            if prompt:
                assert found.ideal_bits[k] == pytest.approx(loss_bits(model, ids, counted, front), abs=2e-3)
        assert found.n_bytes.tolist() == [len(text.encode()) for text in PAIRS["text"]]
        assert found.settings["samples"]["conditional"]["n_samples_prompted"] == 4


def test_padded_batches_with_masks_and_labels(both):
    model, tokenizer = both
    rng = np.random.default_rng(5)
    for side in ("left", "right", "left", "right", "left"):
        rows = [rng.integers(6, 40, n).tolist() for n in rng.integers(3, 12, 4)]
        masks = [[True] * len(row) for row in rows]
        for row, mask in zip(rows[:3], masks, strict=False):
            mask[: rng.integers(1, len(row))] = [False] * rng.integers(1, 2)
        masks = [mask[: len(row)] + [True] * (len(row) - len(mask)) for row, mask in zip(rows, masks, strict=True)]
        width = max(map(len, rows)) + 2

        def pad(row: list[int], fill: int, width: int = width, side: str = side) -> list[int]:
            return [fill] * (width - len(row)) + row if side == "left" else row + [fill] * (width - len(row))

        labels = [
            [x if c else -100 for x, c in zip(row, mask, strict=True)] for row, mask in zip(rows, masks, strict=True)
        ]
        data = {
            "input_ids": torch.tensor([pad(row, 1) for row in rows]),
            "attention_mask": torch.tensor([pad([1] * len(row), 0) for row in rows]),
            "labels": torch.tensor([pad(row, -100) for row in labels]),
        }
        found = compress_bits(model, data, tokenizer=tokenizer, first_token="uniform", progress=False)
        for k, (row, mask) in enumerate(zip(rows, masks, strict=True)):
            expected = by_hand(model, row, mask)
            expected = [math.log2(len(tokenizer)), *expected] if mask[0] else expected
            got = found.token_bits[found.token_offsets[k] : found.token_offsets[k + 1]]
            np.testing.assert_allclose(got, expected, atol=2e-4)
            if not mask[0]:
                assert found.ideal_bits[k] == pytest.approx(loss_bits(model, row, mask), abs=2e-3)
        assert found.n_tokens.tolist() == [sum(mask) for mask in masks]
        assert found.settings["samples"]["n_padding_removed"] == 4 * width - sum(map(len, rows))


def test_labels_that_leave_out_padding_alone_change_nothing(chatml):
    model, tokenizer = chatml
    rows, kinds = [[7, 8, 9], [10, 11]], {"tokenizer": tokenizer, "progress": False}
    plain = compress_bits(model, rows, **kinds)
    padded = {"input_ids": [[7, 8, 9], [10, 11, 0]], "labels": [[7, 8, 9], [10, 11, -100]]}
    assert compress_bits(model, padded, **kinds).bits.tolist() == plain.bits.tolist()
    assert compress_bits(model, padded, **kinds).settings["samples"]["conditional"] is None


def test_the_chain_rule(chatml):
    """H(prompt, completion) = H(prompt) + H(completion | prompt), where the tokens at the seam are the same."""
    model, tokenizer = chatml
    ids = [[5, 6, 7, 8, 9, 10], [20, 21, 22, 23]]
    kinds = {"tokenizer": tokenizer, "first_token": "uniform", "progress": False}
    whole = compress_bits(model, ids, **kinds).ideal_bits
    prompts = compress_bits(model, [row[:2] for row in ids], **kinds).ideal_bits
    table = {"p": [row[:2] for row in ids], "c": [row[2:] for row in ids]}
    rest = compress_bits(model, read_samples(table, text_column="c", prompt_column="p"), **kinds).ideal_bits
    np.testing.assert_allclose(prompts + rest, whole, atol=1e-3)


def test_a_uniform_model_pays_for_counted_tokens_alone():
    table = {"p": [[1, 2, 3], []], "c": [[4], [5, 6]]}
    found = compress_bits(UniformModel(16), read_samples(table, text_column="c", prompt_column="p"))
    assert found.ideal_bits.tolist() == [4.0, 8.0]
    assert found.n_tokens.tolist() == [1, 2]


# --- windows


def sums_up(ids):
    """Logits that depend on every token of the window."""
    table = torch.sin(torch.arange(16.0)[:, None] * torch.arange(1.0, 17.0) + 1) * 4
    return table[ids.cumsum(1) % 16]


@given(st.data(), st.integers(2, 9), st.integers(1, 9), st.sampled_from(["uniform", 3]))
@settings(max_examples=30)
def test_counted_tokens_cost_what_they_cost_where_all_are_counted(data, max_length, stride, first_token):
    """In any windows; those without a counted token are not run, and change nothing."""
    rows = data.draw(st.lists(st.lists(st.integers(0, 15), min_size=2, max_size=30), min_size=1, max_size=4))
    masks = [data.draw(st.lists(st.booleans(), min_size=len(row), max_size=len(row))) for row in rows]
    for mask in masks:
        mask[data.draw(st.integers(0, min(len(mask), max_length) - 1))] = True  # else the prompt may not fit
        mask[-1] = True  # what stands behind the last one is not read, and would move the windows
    if first_token == 3:
        masks = [[True, *mask[1:]] if not any(mask[: max_length - 1]) else mask for mask in masks]
    labels = [[x if c else -100 for x, c in zip(row, mask, strict=True)] for row, mask in zip(rows, masks, strict=True)]
    samples = {"input_ids": rows, "labels": labels, "attention_mask": [[1] * len(row) for row in rows]}
    kinds = {"first_token": first_token, "max_length": max_length, "stride": min(stride, max_length), "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, found = compress_bits(sums_up, rows, **kinds), compress_bits(sums_up, samples, **kinds)
    np.testing.assert_allclose(found.token_bits, whole.token_bits[np.concatenate(masks)], atol=1e-5)
    np.testing.assert_array_equal(found.token_ids, whole.token_ids[np.concatenate(masks)])


@pytest.mark.parametrize("front", [None, 3])
def test_a_prompt_fills_the_window_and_completions_go_on(chatml, front):
    model, tokenizer = chatml
    rng = np.random.default_rng(0)
    n_prompt = 6 if front is None else 5
    prompt, completion = rng.integers(3, 300, n_prompt).tolist(), rng.integers(3, 300, 14).tolist()
    table = {"p": [prompt, [7]], "c": [completion, [8, 9]]}
    samples = read_samples(table, text_column="c", prompt_column="p")
    asked = "uniform" if front is None else front
    kinds = {"tokenizer": tokenizer, "first_token": asked, "max_length": 8, "stride": 4, "progress": False}
    found = compress_bits(model, samples, **kinds)
    ids = ([] if front is None else [front]) + prompt + completion
    expected = []
    for start, stop, new in [
        (0, 8, 3),
        (4, 12, 4),
        (8, 16, 4),
        (11, 19, 3),
    ]:  # the first predicts ids 1 to 8, 6 to 8 counted
        piece = ids[start : stop + 1]
        expected += by_hand(model, piece, [False] * (len(piece) - new) + [True] * new)
    np.testing.assert_allclose(found.token_bits[: len(completion)], expected, atol=2e-4)
    # The same tokens cost the same bits where all are counted.
    whole = compress_bits(model, [prompt + completion], **kinds)
    np.testing.assert_allclose(found.token_bits[: len(completion)], whole.token_bits[len(prompt) :], atol=2e-4)


@pytest.mark.parametrize(
    ("n_prompt", "front", "fits"), [(8, False, True), (9, False, False), (7, True, True), (8, True, False)]
)
def test_a_prompt_longer_than_the_window_is_refused_by_row(chatml, n_prompt, front, fits):
    model, tokenizer = chatml
    table = {"p": [[3], list(range(3, 3 + n_prompt))], "c": [[4, 5], [6, 7]]}
    samples = read_samples(table, text_column="c", prompt_column="p")
    kinds = {"tokenizer": tokenizer, "first_token": 0 if front else "uniform", "max_length": 8, "progress": False}
    if fits:
        compress_bits(model, samples, **kinds)
    else:
        with pytest.raises(InputError, match=r"the prompt of sample 1 takes 9 positions, .* the window has 8"):
            compress_bits(model, samples, **kinds)


def test_later_windows_are_asked_for_what_is_counted():
    """A model that counts on where a 0 stands first, and else knows nothing; what is not counted does not count on."""

    def needs_its_bos(ids):
        knows = 40.0 * torch.nn.functional.one_hot((ids + 1) % 16, 16)
        return torch.where((ids[:, :1] == 0)[..., None], knows, torch.zeros(16))

    ids = [one for k in range(20) for one in (1 + 7 * k % 14, 2 + 7 * k % 14)]
    labels = [one if k % 2 else -100 for k, one in enumerate(ids)]
    data = {"input_ids": [ids], "labels": [labels], "attention_mask": [[1] * 40]}
    kinds = {"first_token": 0, "max_length": 8, "stride": 4, "progress": False}
    with pytest.warns(FirstTokenWarning, match=r"would cost .*e-\d+ bits in place of 4 "):
        found = compress_bits(needs_its_bos, data, **kinds)
    np.testing.assert_allclose(found.token_bits, [0] * 4 + [4] * 16, atol=1e-6)


def test_a_prompt_token_of_probability_0_costs_nothing():
    """What is read is not coded, so that it need not be possible."""

    def no_fives(ids):
        logits = torch.zeros(*ids.shape, 8)
        logits[..., 5] = -torch.inf
        return logits

    table = {"p": [[1, 5, 5]], "c": [[2, 3]]}
    found = compress_bits(no_fives, read_samples(table, text_column="c", prompt_column="p"))
    np.testing.assert_allclose(found.ideal_bits, [2 * math.log2(7)], atol=1e-6)


def test_a_completion_of_probability_0_is_named_by_its_place():
    def no_fives(ids):
        logits = torch.zeros(*ids.shape, 8)
        logits[..., 5] = -torch.inf
        return logits

    table = {"p": [[1], [1, 5, 2]], "c": [[2], [2, 3, 5]]}
    with pytest.raises(ImpossibleTokenError, match=r"probability 0 to position 2 of sample 1 \(coded tokens counted"):
        compress_bits(no_fives, read_samples(table, text_column="c", prompt_column="p"))
    with pytest.raises(ImpossibleTokenError, match="predict position 1 of sample 0 are NaN"):
        extract(
            lambda ids: torch.where(ids[..., None] == 4, torch.nan, torch.zeros(8)),
            read_samples({"p": [[1, 2]], "c": [[4, 3]]}, text_column="c", prompt_column="p"),
        )


def test_nothing_stands_in_front_of_a_chat_but_what_its_template_writes(chatml):
    """The BOS of the tokenizer does where the template writes it, and not where it does not; a named token does."""
    model, tokenizer = chatml[0], copy.deepcopy(chatml[1])
    tokenizer.bos_token = "<|end|>"
    samples = read_samples(CHATS[:2], messages=True)
    kinds = {"tokenizer": tokenizer, "progress": False}
    bits = compress_bits(model, samples, **kinds)
    assert bits.settings["first_token"]["id"] is None
    np.testing.assert_array_equal(bits.bits, compress_bits(model, samples, first_token="uniform", **kinds).bits)
    for asked in ("bos", "<|end|>"):
        in_front = compress_bits(model, samples, first_token=asked, **kinds)
        assert in_front.settings["first_token"]["id"] == 0
        assert abs(in_front.ideal_bits - bits.ideal_bits).min() > 0.01
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    written = compress_bits(model, samples, **kinds)
    assert written.settings["first_token"]["id"] == 0
    np.testing.assert_allclose(written.ideal_bits, in_front.ideal_bits, atol=1e-3)


# --- memU, membership, extraction


@pytest.mark.filterwarnings("ignore::memorization.errors.LengthMismatchWarning")
@pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")
def test_memorization_of_completions(chatml, tmp_path):
    model, tokenizer = chatml
    samples, control = (
        read_samples(PAIRS, prompt_column="prompt"),
        read_samples(
            {"prompt": ["Who? ", "Which? "], "text": ["The house.", "Word for word."]}, prompt_column="prompt"
        ),
    )
    result = unintended_memorization(
        model, UniformModel(len(tokenizer)), samples, control=control, target_tokenizer=tokenizer, progress=False
    )
    alone = compress_bits(model, samples, tokenizer=tokenizer, first_token="uniform", progress=False)
    np.testing.assert_allclose(result.target.ideal_bits, alone.ideal_bits, atol=1e-3)
    np.testing.assert_allclose(result.oracle.ideal_bits, alone.n_tokens * math.log2(len(tokenizer)))
    assert "given" in repr(result)
    result.save(tmp_path / "saved")
    saved = load(tmp_path / "saved")
    assert saved.target.settings["samples"]["conditional"]["by"] == "prompt"
    # A saved oracle of the same completions without their prompts is of something else.
    plain = compress_bits(UniformModel(len(tokenizer)), PAIRS["text"], tokenizer=tokenizer, progress=False)
    with pytest.raises(
        ResultError, match="there, all of each sample is counted; here, each sample is counted given its"
    ):
        unintended_memorization(model, plain, samples, target_tokenizer=tokenizer, progress=False)
    given = unintended_memorization(model, saved.oracle, samples, target_tokenizer=tokenizer, progress=False)
    np.testing.assert_allclose(given.signed_bits, result.signed_bits, atol=1e-6)
    other = {**PAIRS, "prompt": [*PAIRS["prompt"][:4], "Another "]}
    with pytest.raises(ResultError, match="of other samples"):
        unintended_memorization(
            model,
            saved.oracle,
            read_samples(other, prompt_column="prompt"),
            target_tokenizer=tokenizer,
            progress=False,
        )


@pytest.mark.filterwarnings("ignore::memorization.errors.FirstTokenWarning")
@pytest.mark.filterwarnings("ignore::memorization.errors.SameModelWarning")
def test_after_prompts_two_models_need_no_rule_for_the_first_token(chatml):
    """One reads a BOS in front and the other does not: neither is measured again, and saved lengths go together."""
    tokenizer = copy.deepcopy(chatml[1])
    tokenizer.bos_token = "<|end|>"  # id 0

    def knows(where):
        def model(ids):
            next_one = 40.0 * torch.nn.functional.one_hot((ids + 1) % 300, 300)
            return torch.where((ids[:, :1] == 0)[..., None] == where, next_one, torch.zeros(300))

        return model

    rows = [list(range(start, start + 12)) for start in range(10, 250, 12)]
    table = {"p": [row[:4] for row in rows], "c": [row[4:] for row in rows]}
    samples = read_samples(table, text_column="c", prompt_column="p")
    kinds = {"target_tokenizer": tokenizer, "oracle_tokenizer": tokenizer, "progress": False}
    result = unintended_memorization(knows(False), knows(True), samples, **kinds)
    rules = [part.settings["first_token"]["rule"] for part in (result.target, result.oracle)]
    assert rules == ["uniform", "bos"]
    np.testing.assert_allclose([result.target.ideal_bits, result.oracle.ideal_bits], 0, atol=1e-6)
    again = unintended_memorization(result.target, result.oracle, samples)
    assert again.bits.tolist() == result.bits.tolist()


def test_samples_with_prompts_and_a_control_without_are_unlike(chatml):
    model, tokenizer = chatml
    samples = read_samples(PAIRS, prompt_column="prompt")
    message = "samples are counted without the prompts, and control samples whole"
    with pytest.raises(InputError, match=message):
        unintended_memorization(model, UniformModel(400), samples, control=["Who?"], target_tokenizer=tokenizer)
    with pytest.raises(InputError, match=message):
        extract(model, samples, ["Who?"], tokenizer=tokenizer)
    kinds = {"tokenizer": tokenizer, "first_token": "uniform", "progress": False}
    pairs = [
        [compress_bits(one, part, **kinds) for one in (model, UniformModel(len(tokenizer)))]
        for part in (samples, ["Who?"])
    ]
    with pytest.raises(ResultError, match="samples and control are not counted in one way"):
        unintended_memorization(*pairs[0], samples, control=pairs[1])


@pytest.mark.filterwarnings("ignore::memorization.errors.WeakOracleWarning")
def test_equal_completions_of_different_prompts_are_different_samples(chatml):
    model, tokenizer = chatml
    table = {"prompt": ["One? ", "Two? ", "Two? "], "text": ["Yes.", "Yes.", "Yes."]}
    control = {"prompt": ["Six? ", "Ten? "], "text": ["Yes.", "No."]}
    result = unintended_memorization(
        model,
        UniformModel(len(tokenizer)),
        read_samples(table, prompt_column="prompt"),
        control=read_samples(control, prompt_column="prompt"),
        target_tokenizer=tokenizer,
        progress=False,
    )
    assert result.first_of_each.tolist() == [0, 1]
    with pytest.raises(InputError, match="sample 0 is also control sample 0"):
        unintended_memorization(
            model,
            UniformModel(len(tokenizer)),
            read_samples(table, prompt_column="prompt"),
            control=read_samples(table, prompt_column="prompt"),
            target_tokenizer=tokenizer,
        )


def test_two_tokenizers_read_each_its_own_prompt(chatml):
    target, ours = chatml
    oracle, theirs = make("inst")
    samples = read_samples({name: column[:2] for name, column in PAIRS.items()}, prompt_column="prompt")
    result = unintended_memorization(
        target, oracle, samples, target_tokenizer=ours, oracle_tokenizer=theirs, first_token="auto", progress=False
    )
    for lengths, model, tokenizer in ((result.target, target, ours), (result.oracle, oracle, theirs)):
        first = lengths.settings["first_token"]
        front = first["id"] if first["in_front"] else None
        for k in range(2):
            ids, counted = tokens(tokenizer, [(PAIRS["prompt"][k], False), (PAIRS["text"][k], True)])
            assert lengths.ideal_bits[k] == pytest.approx(sum(by_hand(model, ids, counted, front)), abs=1e-3)
    with pytest.raises(InputError, match=r"chat templates of target and oracle count different texts .* in sample 0"):
        unintended_memorization(
            target, oracle, read_samples(CHATS, messages=True), target_tokenizer=ours, oracle_tokenizer=theirs
        )


@pytest.mark.parametrize("how", ["messages", "prompt"])
def test_membership(chatml, how):
    model, tokenizer = chatml
    if how == "messages":
        sets = [read_samples(part, messages=True) for part in (CHATS[:3], CHATS[3:])]
    else:
        halves = [{name: column[a:b] for name, column in PAIRS.items()} for a, b in ((0, 3), (3, 5))]
        sets = [read_samples(half, prompt_column="prompt") for half in halves]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        audit = audit_membership(
            model,
            *sets,
            oracle=UniformModel(len(tokenizer)),
            target_tokenizer=tokenizer,
            first_token="uniform",
            progress=False,
        )
    lengths = [compress_bits(model, part, tokenizer=tokenizer, first_token="uniform", progress=False) for part in sets]
    scores = audit.attacks["loss"].member_scores
    np.testing.assert_allclose(np.sort(scores), np.sort(-lengths[0].ideal_bits / lengths[0].n_tokens), atol=1e-4)
    assert set(audit.attacks) == {"loss", "reference", "zlib", "min_k", "min_k_plus_plus"}
    from memorization import open_model

    with open_model(model, tokenizer=tokenizer) as opened:
        moments = token_moments(opened, lengths[0], samples=sets[0], progress=False)
        np.testing.assert_allclose(
            np.sort(audit.attacks["min_k_plus_plus"].member_scores),
            np.sort(min_k_plus_plus_attack(lengths[0], *moments)),
            atol=1e-4,
        )
        with pytest.raises(InputError, match="hold what was counted alone: pass samples="):
            token_moments(opened, lengths[0])
        with pytest.raises(ResultError, match="of other samples"):
            token_moments(opened, lengths[0], samples=sets[1])


def counts_on(ids):
    return torch.nn.functional.one_hot((ids + 1) % 16, 16).float()


def test_extraction_from_the_prompt_alone():
    table = {"p": [[9, 1], [2], []], "c": [[2, 3, 4, 5], [9, 10, 11, 12], [4, 5, 6, 7]]}
    samples = read_samples(table, text_column="c", prompt_column="p")
    found = extract(counts_on, samples, prefix_tokens=(0, 1), progress=False)
    assert found.prefix_needed.tolist() == [0, 1, 1]
    assert [row.member_rate for row in found.rates] == [1 / 3, 1.0]
    found = extract(counts_on, samples, progress=False)
    assert [row.prefix_tokens for row in found.rates] == [0]
    assert "0 tokens" in repr(found)
    assert "given        the prompts of the members (3 tokens, not counted)" in repr(found)
    with pytest.raises(InputError, match="prefix_tokens must be"):
        extract(counts_on, [[1, 2, 3]], prefix_tokens=(0,))


def test_extraction_reads_of_long_samples_what_the_window_holds():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=12, n_embd=8, n_layer=1, n_head=2)).eval()
    table = {"p": [[1, 2, 3, 4, 5], [6]], "c": [list(range(3, 16)), [7, 8, 9, 10]]}
    samples = read_samples(table, text_column="c", prompt_column="p")
    for suffix in (4, 3):
        found = extract(model, samples, prefix_tokens=(0,), suffix_tokens=suffix, progress=False)
        assert found.settings["n_cut"] == {"members": 1}
        assert np.diff(found.member_offsets).tolist() == [8, 4]
    with pytest.raises(InputError, match="sample 0 needs 17 positions, and GPT2LMHeadModel or its tokenizer takes 12"):
        extract(model, samples, prefix_tokens=(0,))
    table["p"][0] = [1] * 9
    samples = read_samples(table, text_column="c", prompt_column="p")
    with pytest.raises(InputError, match=r"sample 0 needs 13 positions.* Pass a smaller prefix or suffix"):
        extract(model, samples, prefix_tokens=(1,), suffix_tokens=4)
    extract(model, samples, prefix_tokens=(1,), suffix_tokens=3, progress=False)


def test_extraction_of_a_chat(chatml):
    """Greedy decoding by transformers, of the first turn."""
    model, tokenizer = chatml
    chats = [[user("Who met?"), assistant("The house.")], [user("Who met?"), assistant("")]]
    ids, _ = tokens(tokenizer, [*segments("chatml", chats[0][:1]), ("<|im_start|>assistant\n", False)])
    greedy = []
    for _ in range(4):
        with torch.no_grad():
            greedy.append(int(model(torch.tensor([ids + greedy])).logits[0, -1].argmax()))
    labels = [[-100] * len(ids) + greedy, [-100] * len(ids) + [*greedy[:2], (greedy[2] + 1) % 300, greedy[3]]]
    rows = [ids + greedy, [*ids, *labels[1][-4:]]]
    found = extract(
        model, {"input_ids": rows, "labels": labels}, tokenizer=tokenizer, first_token="uniform", prefix_tokens=(0, 3)
    )
    assert found.prefix_needed.tolist() == [0, 3] or found.prefix_needed.tolist()[0] == 0
    assert found.extracted(0).tolist() == [True, False]


@pytest.mark.filterwarnings("ignore::memorization.errors.MeasurementWarning")
def test_rarity_is_of_what_is_counted(chatml):
    from memorization.rarity import tfidf_bits, which_samples

    model, tokenizer = chatml
    samples = read_samples(PAIRS, prompt_column="prompt")
    result = unintended_memorization(
        model, UniformModel(len(tokenizer)), samples, target_tokenizer=tokenizer, progress=False
    )
    found = which_samples(result, samples, tokenizer=tokenizer)
    np.testing.assert_allclose(found.to_pandas()["tfidf_bits"], tfidf_bits(PAIRS["text"], tokenizer=tokenizer))
    masked = read_samples({"input_ids": [[5, 6, 7], [8, 9, 9]], "labels": [[-100, 6, 7], [-100, 9, 9]]})
    np.testing.assert_allclose(tfidf_bits(masked), tfidf_bits([[6, 7], [9, 9]]))


def test_what_takes_whole_samples_refuses_others():
    from memorization import audit_identifiers
    from memorization.lab.text.documents import fixed_length

    samples = read_samples({"p": [[1, 2]], "c": [[3, 4, 5, 6]]}, text_column="c", prompt_column="p")
    with pytest.raises(InputError, match=r"audit_identifiers takes samples .* are counted without the prompts"):
        audit_identifiers(UniformModel(16), samples, "tokens:4x16")
    with pytest.raises(InputError, match="fixed_length takes samples that are counted whole"):
        fixed_length(samples, seq_len=2)


# --- what cannot be


def test_a_tokenizer_without_a_template(chatml, bpe_tokenizer):
    model, _ = chatml
    for tokenizer in (bpe_tokenizer, (lambda text: [1], lambda ids: "")):
        with pytest.raises(InputError, match=r"the samples are messages, and the tokenizer .* has no chat template"):
            compress_bits(model, read_samples(CHATS, messages=True), tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("chats", "message"),
    [
        ([[user("a")]], "sample 0 has no turn of the assistant: its roles are user"),
        (
            [CHATS[0], [user("a"), assistant("")]],
            "what the assistant says in sample 1 is empty: a completion of no tokens",
        ),
        ([CHATS[0], []], "sample 1 must be a list of messages, such as .*; it is list"),
        (["a"], "sample 0 must be a list of messages, such as"),
        ([user("a"), assistant("b")], "one list of messages came: conversations are a list of such lists"),
        ([[["user", "a"]]], "message 0 of sample 0 must have a role and a content, as in .*; it is list"),
        (
            [[{"role": "user", "text": "a"}]],
            "message 0 of sample 0 must have a content that is a text; it has role, text",
        ),
        ([[{"role": 1, "content": "a"}]], "message 0 of sample 0 must have a role that is a text; it is int '1'"),
        (
            [[user("a"), {"role": "assistant", "content": ["b"]}]],
            "message 1 of sample 0 must have a content that is a text",
        ),
        ([[{**user("a"), "x": {1, 2}}, assistant("b")]], "sample 0 holds messages that JSON has no words for"),
    ],
)
def test_messages_of_a_wrong_shape(chats, message):
    with pytest.raises(InputError, match=message):
        read_samples(chats, messages=True)


def test_a_template_that_does_not_tell_what_the_assistant_says(chatml):
    model, tokenizer = copy.copy(chatml[0]), copy.deepcopy(chatml[1])
    samples = read_samples([CHATS[0], CHATS[2]], messages=True)
    for shown in ("loop.last", "loop.last or m['role'] == 'user'"):  # what is cut is a prompt, or an earlier answer
        tokenizer.chat_template = CHATML.replace("m['content']", f"(m['content'] if {shown} else 'cut')")
        with pytest.raises(InputError, match="writes the turns before message 1 of sample 0 in other tokens"):
            compress_bits(model, read_samples(CHATS[2:3], messages=True), tokenizer=tokenizer)
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InputError, match="refuses sample 0: roles must alternate"):
        compress_bits(model, samples, tokenizer=tokenizer)
    tokenizer.chat_template = "{% if false %}{% generation %}{% endgeneration %}{% endif %}" + CHATML
    with pytest.raises(InputError, match="counts no token of sample 0 as the assistant's: a completion of no tokens"):
        compress_bits(model, samples, tokenizer=tokenizer)
    tokenizer.chat_template = MARKED.replace("{{ bos_token }}", "").replace("m['content'] + eos_token", "m['content']")
    empty = read_samples([[user("a"), assistant(""), user("b"), assistant("c")]], messages=True)
    assert compress_bits(model, empty, tokenizer=tokenizer, progress=False).n_tokens.tolist() == [1]
    tokenizer.chat_template = CHATML
    assert compress_bits(model, empty, tokenizer=tokenizer, progress=False).n_tokens.tolist() == [2 + 3]
    with pytest.raises(InputError, match="sample 0 begins with a turn of the assistant"):
        compress_bits(model, read_samples([[assistant("a")]], messages=True), tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"prompt": ["a", "b"], "text": ["c", ""]},
            "sample 1 has a prompt, and its completion is empty: a completion of no",
        ),
        ({"prompt": ["a", "b"], "text": ["c", None]}, "sample 1 has a prompt, and its completion is null"),
        (
            {"prompt": ["a", None], "text": ["c", "d"]},
            'sample 1 has no prompt: the cell is null. An empty prompt is ""',
        ),
        ({"prompt": ["a", [1]], "text": ["c", "d"]}, "sample 1 is a text, so its prompt must be one; it is list"),
        ({"prompt": ["a"], "text": [[1, 2]]}, "sample 0 is a list of token ids, so its prompt must be one; it is str"),
        ({"prompt": ["\ud800"], "text": ["c"]}, "the prompt of sample 0 is not valid Unicode"),
        ({"text": ["c"]}, "has no column 'prompt', which prompt_column names: it has text"),
        ({"prompt": [[1]], "text": [[2, 3]], "labels": [[-100, 3]]}, "both say which ids are counted"),
    ],
)
def test_prompts_that_do_not_fit(table, message):
    with pytest.raises(InputError, match=message):
        read_samples(table, prompt_column="prompt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_column": "text"}, "is the column of the samples themselves"),
        ({"prompt_column": 1}, "prompt_column must be the name of one column"),
        ({"prompt_column": "p", "messages": True}, "pass messages=True or prompt_column='p', not both"),
        ({"messages": "chat"}, "messages must be True or False; it is 'chat'"),
    ],
)
@pytest.mark.usefixtures("no_type_checker")
def test_options_that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        read_samples({"text": ["a"]}, **options)


def test_samples_without_columns():
    for samples in ("a", ["a"], read_samples(["a"])):
        with pytest.raises(InputError, match="prompt_column='p' names a column, and the samples come from"):
            read_samples(samples, prompt_column="p")
    with pytest.raises(InputError, match="came with Samples that were read before as something else"):
        read_samples(read_samples(["a"]), messages=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"input_ids": [[5, 6, 7]], "labels": [[-100, 6]]}, r"labels of sample 0 have shape \[2\], and its ids \[3\]"),
        ({"input_ids": [[5, 6, 7]], "labels": [[[-100, 6, 7]]]}, r"labels of sample 0 have shape \[1, 3\]"),
        ({"input_ids": [[5, 6, 7]], "attention_mask": [[1, 1]]}, r"attention mask of sample 0 has shape \[2\]"),
        (
            {"input_ids": [[5, 6]], "labels": [[-100, -100]]},
            "labels of sample 0 are all -100: a completion of no tokens",
        ),
        (
            {"input_ids": [[5, 6, 7]], "labels": [[-100, 7, 8]]},
            "at position 1 the label is 7 and the id 6. Were they shifted",
        ),
        ({"input_ids": [[0, 0, 7]], "labels": [[-100, -100, 7]]}, "as padding has, and no attention mask"),
    ],
)
def test_masks_of_another_shape(data, message):
    with pytest.raises(InputError, match=message):
        read_samples(data)


def test_a_prompt_that_does_not_survive_its_tokenizer(chatml):
    model, _ = make("inst")
    _, tokenizer = make("inst")
    samples = read_samples({"prompt": ["The ", "XYZ "], "text": ["house", "met"]}, prompt_column="prompt")
    with pytest.raises(LossyTextError, match=r"1 of 2 texts do not survive .*: the prompt of sample 1 is"):
        compress_bits(model, samples, tokenizer=tokenizer)
    found = compress_bits(model, samples, tokenizer=tokenizer, on_lossy_text="skip", progress=False)
    assert found.index.tolist() == [0]


# --- where samples come from


def test_rows_of_files_and_tables(tmp_path):
    import datasets
    import pandas as pd

    frame = pd.DataFrame({**PAIRS, "page": [1, 1, 2, 2, 3]})
    chats = pd.DataFrame({"messages": CHATS})
    for kind in ("csv", "jsonl", "parquet"):
        for name, table in (("pairs", frame), ("chats", chats)):
            path = tmp_path / f"{name}.{kind}"
            if kind == "csv":
                table.to_csv(path, index=False)
            elif kind == "jsonl":
                table.to_json(path, orient="records", lines=True)
            else:
                table.to_parquet(path)
        pairs = read_samples(tmp_path / f"pairs.{kind}", prompt_column="prompt", groups="page")
        assert (pairs.prompts, pairs.texts) == (PAIRS["prompt"], PAIRS["text"])
        assert pairs.groups == ("1", "1", "2", "2", "3")
        if kind == "csv":
            with pytest.raises(InputError, match="sample 0 must be a list of messages"):
                read_samples(tmp_path / "chats.csv", messages=True)
        else:
            assert (
                read_samples(tmp_path / f"chats.{kind}", messages=True).texts_sha256
                == read_samples(CHATS, messages=True).texts_sha256
            )
    for table in (frame, datasets.Dataset.from_pandas(frame)):
        assert read_samples(table, prompt_column="prompt").prompts == PAIRS["prompt"]
    assert len(read_samples(datasets.Dataset.from_pandas(chats), messages=True, limit=2)) == 2


def test_fingerprints_tell_conditional_samples_from_others():
    prompted = read_samples(PAIRS, prompt_column="prompt")
    woven = [text for pair in zip(PAIRS["prompt"], PAIRS["text"], strict=True) for text in pair if text]
    fingerprints = [part.texts_sha256 for part in (prompted, read_samples(PAIRS["text"]), read_samples(woven))]
    assert len(set(fingerprints)) == 3
    chats = [[{"content": "a", "role": "user", "name": None}, {"content": "b", "role": "assistant", "name": None}]]
    same = [[user("a"), assistant("b")]]
    assert len({read_samples(part, messages=True).texts_sha256 for part in (chats, same, CHATS[:1])}) == 2
    ids = {"input_ids": [[5, 6, 7]]}
    masked = [read_samples({**ids, "labels": [labels]}) for labels in ([-100, 6, 7], [-100, -100, 7], [5, 6, 7])]
    assert len({part.ids_sha256 for part in masked}) == 3


# --- the command line


@pytest.mark.parametrize(
    ("how", "commands"),
    [("messages", ("bits", "attack")), ("prompt", ("measure", "extract"))],  # --data and --control
)
def test_commands_give_what_the_functions_give(chatml, tmp_path, capsys, how, commands):
    import json

    from memorization import CodeLengths, Memorization, cli
    from memorization.extraction import Extraction
    from memorization.membership import MembershipAudit

    model, tokenizer = chatml
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    rows = [{"messages": chat} for chat in CHATS]
    if how == "prompt":
        rows = [{"before": p, "after": t} for p, t in zip(PAIRS["prompt"], PAIRS["text"], strict=True)]
    for name, part in (("data", rows[:3]), ("control", rows[3:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    options = ["--messages"] if how == "messages" else ["--prompt-column", "before", "--text-column", "after"]
    options += [
        "--first-token",
        "uniform",
        "--quiet",
        "--target",
        tmp_path / "model",
        "--data",
        tmp_path / "data.jsonl",
    ]
    samples = read_samples(
        tmp_path / "data.jsonl",
        **({"messages": True} if how == "messages" else {"prompt_column": "before", "text_column": "after"}),
    )
    alone = compress_bits(model, samples, tokenizer=tokenizer, first_token="uniform", progress=False)

    def run(command: str, *more: object) -> object:
        out = tmp_path / command
        with pytest.raises(SystemExit) as stop:
            cli.main([str(word) for word in (command, *options, "--output", out, *more)])
        assert not stop.value.code, capsys.readouterr().err
        return load(out)

    control = ("--control", tmp_path / "control.jsonl")
    more = {"bits": (), "attack": control, "measure": ("--oracle", tmp_path / "model", *control), "extract": control}
    for command in commands:
        found = run(command, *more[command])
        if isinstance(found, CodeLengths):
            np.testing.assert_allclose(found.ideal_bits, alone.ideal_bits, atol=1e-3)
        elif isinstance(found, Memorization):
            np.testing.assert_allclose(found.target.ideal_bits, alone.ideal_bits, atol=1e-3)
        elif isinstance(found, MembershipAudit):
            expected = np.sort(-alone.ideal_bits / alone.n_tokens)
            np.testing.assert_allclose(np.sort(found.attacks["loss"].member_scores), expected, atol=1e-4)
        else:
            assert isinstance(found, Extraction)
            assert np.diff(found.member_offsets).tolist() == alone.n_tokens.tolist()


# --- what nearly says what is counted


@pytest.mark.parametrize("ignored", [-100, -100.0, np.float32(-100)])
def test_labels_that_passed_through_floats(ignored):
    data = {"input_ids": [[9, 3, 1, 2, 3]], "labels": [[ignored, ignored, 1, 2, 3]]}
    assert read_samples(data, text_column="input_ids").counted[0].tolist() == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[-1, -1, 1, 2, 3]], "are its ids and -1: what is not counted has the label -100"),
        ([["-100", "-100", 1, 2, 3]], "must be integers, the ids or -100"),
        ([[-100.0, math.nan, 1, 2, 3]], "must be the ids themselves|others must be the ids"),
        ([[-100, -100, 1, 2, 3], None], "sample 1 has no labels, and others have labels of -100"),
    ],
)
def test_labels_that_nearly_say_what_is_counted_are_refused(labels, message):
    data = {"input_ids": [[9, 3, 1, 2, 3]] * len(labels), "labels": labels}
    with pytest.raises(InputError, match=message):
        read_samples(data, text_column="input_ids")


def bytes_with_template(template: str):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={letter: k for k, letter in enumerate(alphabet)}, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("answer", ["ok", "né", "日本", "😀", "日 é"])
def test_the_last_character_of_an_answer_is_counted_whole(answer):
    tokenizer = bytes_with_template(
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}|{% endfor %}"
    )
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]
    samples = read_samples([[*turns, *turns]], messages=True)
    lengths = compress_bits(UniformModel(256), samples, tokenizer=tokenizer, progress=False)
    assert lengths.n_tokens.tolist() == lengths.n_bytes.tolist() == [2 * len(answer.encode())]


def test_a_template_without_a_generation_prompt_is_told():
    tokenizer = bytes_with_template("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    with pytest.warns(MeasurementWarning, match="the same with add_generation_prompt and without"):
        compress_bits(UniformModel(256), read_samples([chat], messages=True), tokenizer=tokenizer, progress=False)
