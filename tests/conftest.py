"""What every test file gets: types that are executed, no network, one thread, and a tiny model with its tokenizer."""

import os
import shutil
import time
from dataclasses import replace

# One thread a process: also in the processes that tests start, the kernels of notebooks among them. Operations this small wait
# longer for a second thread than it saves, and the other cores have tests of their own.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", NUMEXPR_NUM_THREADS="1")

import sys
from typing import TYPE_CHECKING

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

    from memorization.lab.quickstart import Quickstart

# Hugging Face's libraries read these when they are imported, which only fixtures and tests do.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TRANSFORMERS_OFFLINE="1",
    TRANSFORMERS_VERBOSITY="error",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
)
assert "huggingface_hub" not in sys.modules, "imported before it was told to stay offline"

assert "memorization" not in sys.modules, "imported before its types were hooked"
jaxtyping.install_import_hook("memorization", "beartype.beartype")

torch.set_num_threads(1)

# Derandomized, and nothing kept between runs: the same code is shown the same examples.
settings.register_profile(
    "memorization", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("memorization")

# What takes longest, first: what begins last decides how long the other processes wait. The pages of the documentation take what the
# quickstart has trained, so they come when that is done.
GIANTS = [
    "test_quickstart.py",
    "test_text_sweep.py",
    "test_docs.py",
    ".ipynb",
    "test_lab_capacity.py",
    "test_results.py",
    "test_cli_words.py",
    "test_cli.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        return next((i for i, name in enumerate(GIANTS) if item.path.name.endswith(name)), len(GIANTS))

    items.sort(key=rank)  # stable: files keep their order, and tests theirs in a file


END_OF_TEXT = "<|endoftext|>"
VOCAB_SIZE = 300
N_POSITIONS = 64
SENTENCES = [
    "The house met and adjourned, and the house met again the next day.",
    "A model that has seen a sentence once may give it back word for word.",
    "How many bits does it take to write down what nobody has written before?",
    "Fellow citizens of the senate and of the house of representatives:",
]


@pytest.fixture(autouse=True)
def _figures_are_closed() -> "Iterator[None]":
    """pyplot keeps every figure, and warns of the twenty-first."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def no_type_checker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types are executed in the tests, but not where the library is used."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def quickstart_run(tmp_path_factory: pytest.TempPathFactory) -> "tuple[Quickstart, float]":
    """The demonstration, run for real, and the CPU seconds that it took. Shared: leave its folder as it is.

    Whichever test process comes first trains. The others wait, and take the models of that run for their own.
    """
    from filelock import FileLock

    from memorization.lab.quickstart import run_quickstart

    own = tmp_path_factory.mktemp("a quickstart") / "out"
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # of the whole run
    trained, seconds = place / "quickstart-trained", place / "quickstart-trained.seconds"
    with FileLock(place / "quickstart.lock"):
        if seconds.exists():
            shutil.copytree(trained, own)
        started = time.process_time()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as where it is run
            result = run_quickstart(own, progress=False)
        if not seconds.exists():
            shutil.copytree(own, trained)
            seconds.write_text(str(time.process_time() - started))
    return replace(result, reused=()), float(seconds.read_text())


@pytest.fixture(scope="session")
def tiny_gpt2() -> "GPT2LMHeadModel":
    """GPT-2 of 300 tokens, 64 positions and random weights, in float32 and in eval mode. Shared: leave it as it is."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=N_POSITIONS,
        n_embd=32,
        n_layer=2,
        n_head=2,
        # Ten times the usual spread: next to a uniform distribution no mistake would show.
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="session")
def bpe_tokenizer() -> "PreTrainedTokenizerFast":
    """Byte-level BPE of at most 300 tokens, `<|endoftext|>` (id 0) being both BOS and EOS. Gives every text back."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        model_max_length=N_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def model_folder(
    tiny_gpt2: "GPT2LMHeadModel",
    bpe_tokenizer: "PreTrainedTokenizerFast",
    tmp_path_factory: pytest.TempPathFactory,
) -> "Path":
    """`tiny_gpt2` and `bpe_tokenizer` as save_pretrained() writes them. Shared: leave it as it is."""
    folder = tmp_path_factory.mktemp("tiny-gpt2")
    tiny_gpt2.save_pretrained(folder)
    bpe_tokenizer.save_pretrained(folder)
    return folder
