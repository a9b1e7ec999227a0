"""SmolLM2-135M, a real model with a real tokenizer: its bits equal lm-eval's and minicons', and make sense."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from test_peers import assert_same_bits, lm_eval_bits, minicons_token_bits

from memorization import compress, compress_bits, decompress, open_model, unintended_memorization
from memorization.codec.container import unpack
from memorization.errors import FirstTokenWarning, SameModelWarning

pytestmark = [pytest.mark.smollm2]

ROOT = Path(__file__).parent.parent
CONTEXT, CONTEXT_ID = "<|endoftext|>", 0
GENESIS = (
    "In the beginning God created the heaven and the earth. "
    "And the earth was without form, and void; and darkness was upon the face of the deep."
)
INVENTED = (
    "Behind the violet tannery, Ottoline Brackwater auctioned eleven rusted sextants "
    "to a parliament of indifferent geese, and kept the receipts."
)
SHORT_TEXTS = [GENESIS, INVENTED, " yes", "Straße 12, 東京 🙂\n\n\tdef f(x): return x ** 2"]
# Prose of this kind, 300 tokens and more: above 256 the deviation that is allowed is relative.
LONG_TEXT = (
    "When a person writes a letter, the words that come first decide a good deal about those that follow. A model that "
    "has read many letters knows this, and needs few bits for the greeting, more for the name, and most for whatever "
    "happened on the fourteenth of March in the kitchen of a house which it has never seen. {}"
).format(" ".join(f"Item {i}: {i * i} jars of plum jam, {7 * i} candles, one map of Delft." for i in range(1, 14)))


@pytest.fixture(scope="session")
def example() -> ModuleType:
    """`examples/audit_smollm2.py`, imported."""
    spec = importlib.util.spec_from_file_location("audit_smollm2", ROOT / "examples" / "audit_smollm2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def smollm2(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make smollm2` makes, or the same one made here."""
    made = ROOT / "smollm2"
    if (made / "config.json").exists():
        return made
    folder: Path = example.build_smollm2(tmp_path_factory.mktemp("oracle") / "smollm2")
    return folder


def test_bits_equal_those_of_lm_eval(smollm2: Path) -> None:
    texts = [*SHORT_TEXTS, LONG_TEXT]
    ours = compress_bits(smollm2, texts, first_token=CONTEXT, progress=False)
    assert ours.n_tokens.max() > 256
    assert_same_bits(ours.ideal_bits, lm_eval_bits(smollm2, texts, prefix=CONTEXT_ID), ours.n_tokens)


def test_bits_equal_those_of_lm_eval_as_it_comes_within_its_float32_softmax(smollm2: Path) -> None:
    # Unless it is told softmax_dtype="float64", lm-eval takes torch's float32 log-softmax, which on a CPU and over
    # 49,152 tokens comes out 2e-5 bits a token too low in the mean and 4e-5 at most: 5e-3 bits on 256 tokens.
    ours = compress_bits(smollm2, SHORT_TEXTS, first_token=CONTEXT, progress=False)
    theirs = lm_eval_bits(smollm2, SHORT_TEXTS, prefix=CONTEXT_ID, softmax_dtype=None)
    assert (np.abs(ours.ideal_bits - theirs) <= 1e-4 * ours.n_tokens).all()


def test_windows_without_overlap_equal_lm_evals_rolling_windows(smollm2: Path) -> None:
    ours = compress_bits(smollm2, [LONG_TEXT], first_token=CONTEXT, max_length=128, stride=128, progress=False)
    theirs = lm_eval_bits(smollm2, [LONG_TEXT], prefix=CONTEXT_ID, max_length=128)
    assert_same_bits(ours.ideal_bits, theirs, ours.n_tokens)


def test_bits_with_the_chat_marker_as_bos_equal_those_of_lm_eval_and_minicons(smollm2: Path) -> None:
    with pytest.warns(FirstTokenWarning, match=r"'<\|im_start\|>' is the chat template's marker"):
        ours = compress_bits(smollm2, SHORT_TEXTS, progress=False)
    assert ours.settings["first_token"]["rule"] == "bos"
    assert_same_bits(ours.ideal_bits, lm_eval_bits(smollm2, SHORT_TEXTS), ours.n_tokens)
    theirs = minicons_token_bits(smollm2, SHORT_TEXTS)
    assert [len(bits) for bits in theirs] == ours.n_tokens.tolist()
    assert_same_bits(ours.ideal_bits, np.array([bits.sum() for bits in theirs]), ours.n_tokens)
    np.testing.assert_allclose(ours.token_bits, np.concatenate(theirs), rtol=1e-5, atol=1e-4)


def test_naming_the_document_separator_saves_tens_of_bits(smollm2: Path) -> None:
    with pytest.warns(FirstTokenWarning):
        marker = compress_bits(smollm2, [GENESIS], progress=False)
    separator = compress_bits(smollm2, [GENESIS], first_token=CONTEXT, progress=False)
    assert marker.n_bytes[0] == 140
    assert 20 < marker.ideal_bits[0] - separator.ideal_bits[0] < 40


def test_known_text_is_cheap_and_an_invented_sentence_is_not(smollm2: Path) -> None:
    known, invented = (
        compress_bits(smollm2, [text], first_token=CONTEXT, progress=False) for text in (GENESIS, INVENTED)
    )
    assert 0.55 < known.bits_per_byte < 0.75
    assert 1.7 < invented.bits_per_byte < 2.6
    for lengths in (known, invented):
        np.testing.assert_allclose(lengths.bits, lengths.ideal_bits, rtol=1e-3, atol=0.1)


def test_a_model_has_memorized_nothing_beyond_itself(smollm2: Path) -> None:
    with pytest.warns(SameModelWarning, match="they are one model"):
        result = unintended_memorization(
            smollm2, smollm2, [GENESIS], control=[INVENTED], first_token=CONTEXT, progress=False
        )
    assert result.bits.tolist() == result.signed_bits.tolist() == [0.0]
    assert result.control is not None
    assert result.control.bits.tolist() == [0.0]
    assert result.control.oracle.bits[0] > 2 * result.oracle.bits[0]


def test_the_example_cuts_samples_that_both_models_read_as_the_same_64_tokens(
    example: ModuleType, smollm2: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    texts = example.cut_addresses(example.CONTROL_YEARS, tokenizer)
    assert len(texts) == len(set(texts)) > 2 * example.N_SAMPLES
    assert {len(ids) for ids in tokenizer(texts).input_ids} == {64}
    assert tokenizer.batch_decode(tokenizer(texts).input_ids) == texts
    assert texts == example.cut_addresses(example.CONTROL_YEARS, tokenizer)


def test_the_example_replaces_no_folder_of_someone_else(example: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SystemExit, match="holds something else"):
        example.build_smollm2(tmp_path)
    with pytest.raises(SystemExit, match="holds something else"):
        example.refuse_what_is_not_ours(tmp_path, "training.json")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_ten_documents_are_compressed_to_their_ideal_bits_and_come_back(smollm2: Path) -> None:
    documents = [
        *SHORT_TEXTS,
        "Die Straße nach Übersee ist gesperrt; größer wird’s nicht.",
        "吾輩は猫である。名前はまだ無い。",
        "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？",
        b"import numpy as np\n\n\ndef mean(x):\n    return np.asarray(x).mean()\n",
        np.random.default_rng(0).bytes(60),
        "",
    ]
    with open_model(smollm2) as model:
        packed = compress(model, documents, first_token=CONTEXT, progress=False)
        assert decompress(model, packed, progress=False) == documents
        texts = [one.decode() if isinstance(one, bytes) else one for one in documents[:8]]
        ideal = compress_bits(model, texts, first_token=CONTEXT, progress=False).ideal_bits.sum()
    held = unpack(packed)
    assert [entry.raw for entry in held.entries] == [False] * 8 + [True] * 2
    assert len(held.stream) <= ideal / 8 + 8
    assert len(packed) <= ideal / 8 + 8 + 60 + 200
