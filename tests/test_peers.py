"""Ideal bits against two independent scorers, lm-eval's rolling log-likelihood and minicons, on a locally made GPT-2."""

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from memorization import compress_bits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

pytestmark = [pytest.mark.peers]

N_POSITIONS = 512
SHORT_TEXTS = [
    "a",
    "The house met and adjourned.",
    "  Leading spaces, a tab\there,\nand a line break.\n",
    "Grüße aus Köln; 東京 café – naïve ½ ✓ 🙂",
    "How many bits does it take to write down what nobody has written before?",
    "Fellow citizens of the senate and of the house of representatives: " * 3,
]
LONG_TEXT = "A model that has seen a sentence once may give it back word for word, and then count to 1,234,567. " * 12


def lm_eval_bits(
    folder: Path,
    texts: list[str],
    *,
    max_length: int | None = None,
    prefix: int | None = None,
    softmax_dtype: str | None = "float64",
) -> np.ndarray:
    """Bits of each text by lm-eval's `loglikelihood_rolling`, which gives nats and cuts long texts into disjoint windows."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    scorer = HFLM(
        pretrained=str(folder),
        device="cpu",
        dtype="float32",
        batch_size=3,
        max_length=max_length,
        prefix_token_id=prefix,
        softmax_dtype=softmax_dtype,
    )
    requests = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(texts)]
    return -np.array(scorer.loglikelihood_rolling(requests, disable_tqdm=True)) / math.log(2)


def minicons_token_bits(folder: Path, texts: list[str]) -> list[np.ndarray]:
    """Bits of each token of each text by minicons, which puts the tokenizer's BOS before the text and has no windows."""
    from minicons.scorer import IncrementalLMScorer

    rows = IncrementalLMScorer(str(folder), "cpu").token_score(texts, surprisal=True, base_two=True, bos_token=True)
    return [np.array([bits for _, bits in row[1:]]) for row in rows]  # row[0] is the BOS: nothing predicts it


def assert_same_bits(ours: np.ndarray, theirs: np.ndarray, n_tokens: np.ndarray) -> None:
    """Equal within 1e-3 bits a sample up to 256 tokens, within 1e-5 of the whole above."""
    assert ours.shape == theirs.shape == n_tokens.shape
    tolerance = np.where(n_tokens <= 256, 1e-3, 1e-5 * theirs)
    deviation = np.abs(ours - theirs)
    assert (deviation <= tolerance).all(), f"deviation {deviation}, allowed {tolerance}, tokens {n_tokens}"


@pytest.fixture(scope="module")
def gpt2_folder(bpe_tokenizer: "PreTrainedTokenizerFast", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2 of 512 positions and random weights: room for samples of 256 tokens, and for longer ones without windows."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = copy.deepcopy(bpe_tokenizer)
    tokenizer.model_max_length = N_POSITIONS
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=N_POSITIONS,
        n_embd=64,
        n_layer=2,
        n_head=4,
        initializer_range=0.2,  # far from uniform, so that a wrong position or context shows
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("gpt2-512")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def texts(bpe_tokenizer: "PreTrainedTokenizerFast") -> list[str]:
    """Texts of 1 to 256 tokens, and one that fills the model's window."""

    def begin(n_tokens: int) -> str:
        text = LONG_TEXT
        while len(bpe_tokenizer.encode(text, verbose=False)) > n_tokens:
            text = text[:-1]
        return text

    return [*SHORT_TEXTS, begin(256), begin(N_POSITIONS)]


def test_bits_equal_those_of_lm_eval(gpt2_folder: Path, texts: list[str]) -> None:
    ours = compress_bits(gpt2_folder, texts, first_token="bos", progress=False)
    assert ours.n_tokens.max() == N_POSITIONS
    assert 256 in ours.n_tokens
    assert_same_bits(ours.ideal_bits, lm_eval_bits(gpt2_folder, texts), ours.n_tokens)


def test_bits_equal_those_of_lm_eval_as_it_comes(gpt2_folder: Path, texts: list[str]) -> None:
    # Without softmax_dtype lm-eval takes torch's float32 log-softmax; with 300 tokens that is precise enough.
    ours = compress_bits(gpt2_folder, texts, first_token="bos", progress=False)
    assert_same_bits(ours.ideal_bits, lm_eval_bits(gpt2_folder, texts, softmax_dtype=None), ours.n_tokens)


def test_bits_of_a_named_first_token_equal_those_of_lm_eval(gpt2_folder: Path, texts: list[str]) -> None:
    ours = compress_bits(gpt2_folder, texts, first_token=5, progress=False)
    assert_same_bits(ours.ideal_bits, lm_eval_bits(gpt2_folder, texts, prefix=5), ours.n_tokens)
    bos = compress_bits(gpt2_folder, texts, first_token="bos", progress=False)
    assert (np.abs(ours.ideal_bits - bos.ideal_bits) > 0.1).all(), (
        "the context token must matter, or this shows nothing"
    )


@pytest.mark.parametrize("max_length", [1, 7, 64, 255, 256])
def test_windows_without_overlap_equal_lm_evals_rolling_windows(
    gpt2_folder: Path, texts: list[str], max_length: int
) -> None:
    ours = compress_bits(
        gpt2_folder, texts, first_token="bos", max_length=max_length, stride=max_length, progress=False
    )
    whole = compress_bits(gpt2_folder, texts, first_token="bos", progress=False)
    cut = ours.n_tokens > max_length
    assert cut.any()
    assert (np.abs(ours.ideal_bits - whole.ideal_bits)[cut] > 0.01).all(), "windows must matter, or this shows nothing"
    assert_same_bits(ours.ideal_bits, lm_eval_bits(gpt2_folder, texts, max_length=max_length), ours.n_tokens)


def test_windows_at_the_models_own_limit_equal_lm_evals(model_folder: Path, texts: list[str]) -> None:
    # No max_length: both find the limit of 64 positions in the model's configuration.
    ours = compress_bits(model_folder, texts, stride=64, progress=False)
    assert ours.settings["max_length"] == 64
    assert_same_bits(ours.ideal_bits, lm_eval_bits(model_folder, texts), ours.n_tokens)


def test_bits_equal_those_of_minicons(gpt2_folder: Path, texts: list[str]) -> None:
    fitting = texts[:-1]  # minicons reads BOS and all tokens, one more than what predicting them takes
    ours = compress_bits(gpt2_folder, fitting, first_token="bos", progress=False)
    theirs = minicons_token_bits(gpt2_folder, fitting)
    assert [len(bits) for bits in theirs] == ours.n_tokens.tolist()
    assert_same_bits(ours.ideal_bits, np.array([bits.sum() for bits in theirs]), ours.n_tokens)
    # Token by token as well: minicons subtracts a float32 log-sum-exp, so its last digit is about 1e-6 of a logit.
    np.testing.assert_allclose(ours.token_bits, np.concatenate(theirs), rtol=1e-5, atol=1e-4)
