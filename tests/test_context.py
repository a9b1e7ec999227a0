"""What stands before the first token: FirstToken, and integers of any library wherever one is meant."""

import math

import numpy as np
import pytest
import torch

from memorization import CodeLengths, UniformModel, compress_bits, unintended_memorization
from memorization.errors import InputError
from memorization.extraction import extract
from memorization.integers import as_integer, check_integer
from memorization.measure.context import FirstToken, resolve_first_token
from memorization.results import describe_first_token


@pytest.mark.parametrize("asked", ["auto", "bos", "uniform", "skip", "<|endoftext|>", 3])
def test_a_first_token_is_what_its_record_says(asked, bpe_tokenizer):
    first = resolve_first_token(asked, bpe_tokenizer)
    assert first.record()["charge"] == first.charge
    assert FirstToken.from_record(first.record()) == first
    assert first.asked == asked
    assert (first.id is None) == (first.rule in ("uniform", "skip"))


def test_a_first_token_in_words():
    assert (
        describe_first_token(FirstToken("bos", "bos", 0, "<s>").record())
        == "bos: given '<s>' (id 0), which is not coded"
    )
    assert describe_first_token(FirstToken(7, "token", 7, None).record()) == "given id 7, which is not coded"


def test_an_id_outside_the_tokenizer_has_no_name(bpe_tokenizer):
    """It is refused later, by its place, not by whatever the tokenizer makes of it."""
    for token_id in (-1, 10**12):
        assert resolve_first_token(token_id, bpe_tokenizer).token is None


NUMBERS = [np.int64(2), np.uint8(2), np.array(2), torch.tensor(2)]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: type(number).__name__)
def test_integers_of_other_libraries(number):
    assert as_integer(number) == 2
    assert check_integer("n", number, at_least=2) == 2
    with pytest.raises(InputError, match=r"^n must be an integer of at least 3; it is 2\.$"):
        check_integer("n", number, at_least=3)


@pytest.mark.parametrize("other", [True, np.bool_(True), torch.tensor(True), 2.0, np.float64(2), "2", None, [2]])
def test_what_is_no_integer(other):
    assert as_integer(other) is None
    with pytest.raises(InputError, match=r"^n must be None or an integer of at least 1; it is .*\.$"):
        check_integer("n", other, besides="None")


@pytest.mark.usefixtures("no_type_checker")
def test_numpy_options_measure_save_and_load(tmp_path):
    """All of them: with numpy's integers in the settings, save would leave a folder without settings.json."""
    samples = [[1, 2, 3, 4, 5], [3, 4]]
    options = {"batch_size": 2, "max_length": 4, "stride": 3, "limit": 2, "first_token": 5}
    plain = compress_bits(UniformModel(16), samples, progress=False, **options)
    numpy = {name: np.int64(value) for name, value in options.items()}
    found = compress_bits(UniformModel(16), samples, progress=False, **numpy)
    found.save(tmp_path / "lengths")
    assert CodeLengths.load(tmp_path / "lengths").settings == found.settings == plain.settings
    assert found.ideal_bits.tolist() == [5 * math.log2(16), 2 * math.log2(16)]

    memorized = unintended_memorization(UniformModel(16), UniformModel(16), samples, progress=False, **numpy)
    memorized.save(tmp_path / "memU")

    del numpy["max_length"], numpy["stride"]
    extraction = extract(
        UniformModel(16), samples, prefix_tokens=[np.int64(1)], suffix_tokens=np.int64(1), progress=False, **numpy
    )
    extraction.save(tmp_path / "extraction")
