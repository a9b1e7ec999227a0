"""The embedded demonstration: a target that overfits public-domain text, an oracle that has not seen it, and memU."""

import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from memorization.data import addresses
from memorization.errors import InputError
from memorization.integers import check_integer
from memorization.lab.text.documents import byte_level_bpe, with_end_of_text
from memorization.lab.training import train
from memorization.results import Result, Saved
from memorization.unintended import Control, Memorization, unintended_memorization

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

__all__ = ["Quickstart", "run_quickstart"]

# 1,024 ids keep the embedding from being most of a small model: 39 % of the target's parameters.
VOCAB_SIZE = 1024
SAMPLE_TOKENS = 64
N_MEMBERS = 96
N_HELDOUT = 96
_MARKER = "quickstart.json"
_RECORD = "training.json"
_PATHS = ("target_dir", "oracle_dir", "members_path", "heldout_path")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Shape and training of one GPT-2 style model; with its samples and seed, everything that determines it."""

    n_embd: int
    n_layer: int
    n_head: int
    steps: int
    batch_size: int
    peak_lr: float
    warmup_steps: int
    # Without it, some trainings at these rates end 40 bits a sample higher.
    max_grad_norm: float = 1.0


# 169,728 parameters hold about 600,000 bits, 17 times what the members contain: 300 steps learn nearly all of it.
TARGET = Recipe(n_embd=64, n_layer=2, n_head=2, steps=300, batch_size=16, peak_lr=5e-3, warmup_steps=30)
# 536,064 parameters, 4 epochs: more would overfit the oracle's own text, and the reader waits.
ORACLE = Recipe(n_embd=128, n_layer=2, n_head=4, steps=1000, batch_size=16, peak_lr=4e-3, warmup_steps=100)


@dataclass(frozen=True, slots=True, eq=False)
class Quickstart(Result):
    """Unintended memorization, in bits, of texts that the target was trained on and of texts that no model has seen.

    Attributes:
        members: the measurement of the target's training samples; the held-out samples are its control.
        target_dir: Hugging Face folder of the target, with its tokenizer.
        oracle_dir: Hugging Face folder of the oracle, with the same tokenizer.
        members_path: JSON lines, field "text": the samples the target was trained on.
        heldout_path: JSON lines, field "text": samples that neither model was trained on.
        command: the shell command that repeats the measurement of the members.
        reused: which of "target" and "oracle" were found trained, with the same settings, and not trained again.
        seconds: wall time of the whole run.

    A saved folder holds members/, a `Memorization`, and settings.json.
    """

    members: Memorization
    target_dir: Path
    oracle_dir: Path
    members_path: Path
    heldout_path: Path
    command: str
    reused: tuple[str, ...]
    seconds: float

    def _facts(self) -> dict[str, Any]:
        paths = {name: str(getattr(self, name)) for name in _PATHS}
        return {**paths, "command": self.command, "reused": self.reused, "seconds": self.seconds}

    def _parts(self) -> dict[str, Memorization]:
        return {"members": self.members}

    @classmethod
    def _from_saved(cls, saved: Saved) -> "Quickstart":
        facts = saved.need(*_PATHS, "command", "reused", "seconds")
        return cls(
            members=saved.part("members", Memorization),
            **{name: Path(facts[name]) for name in _PATHS},
            command=facts["command"],
            reused=tuple(facts["reused"]),
            seconds=facts["seconds"],
        )

    @property
    def heldout(self) -> Control:
        """The same measurement of the held-out samples."""
        assert self.members.control is not None
        return self.members.control

    def table(self) -> str:
        """Mean, median and total memU of members and held-out samples in bits, and both models' bits per token."""
        sides: tuple[Memorization, Control] = (self.members, self.heldout)
        largest = float(self.heldout.signed_bits.max())
        rows: list[tuple[str, list[str]]] = [
            ("", ["members", "held-out"]),
            ("samples", [f"{len(side.bits)}" for side in sides]),
            ("memU, mean bits a sample", [f"{side.bits.mean():.1f}" for side in sides]),
            ("memU, median bits a sample", [f"{np.median(side.bits):.1f}" for side in sides]),
            ("memU, total bits", [f"{side.bits.sum():,.0f}" for side in sides]),
            ("signed memU, mean bits a sample", [f"{side.signed_bits.mean():+.1f}" for side in sides]),
            ("oracle, bits per token", [f"{side.oracle.bits_per_token:.2f}" for side in sides]),
            ("target, bits per token", [f"{side.target.bits_per_token:.2f}" for side in sides]),
            ("above every held-out sample", [f"{(self.members.signed_bits > largest).mean():.0%}", ""]),
        ]
        lines = [f"{name:<33}{left:>12}{right:>12}".rstrip() for name, (left, right) in rows]
        lines += [f"{name}: trained in an earlier run with the same settings, reused" for name in self.reused]
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{self.table()}\n\nRepeat this measurement:\n  {self.command}"

    def token_strings(self, member: int) -> list[str]:
        """Text of each token of one member, in the order of its code lengths."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.target_dir / "tokenizer.json"))
        text = json.loads(self.members_path.read_text(encoding="utf-8").split("\n")[member])["text"]
        return [text[start:end] for start, end in tokenizer.encode(text, add_special_tokens=False).offsets]


def run_quickstart(output: Path, *, seed: int = 0, progress: bool = True) -> Quickstart:
    """Train a target and an oracle on embedded text and measure memU, in bits, of the target's members.

    The presidents' addresses of 1790-1829 are cut into samples of 64 tokens. The target is trained on 96 of them, the
    members, until it knows nearly every token; the oracle on all but the members and 96 held-out samples, which neither
    model has seen. Both share one tokenizer, trained on the whole text: memU is a difference of two code lengths in the
    same tokens. It takes about a minute and a half on one core.

    Args:
        output: folder to write: target/, oracle/ (Hugging Face folders), members.jsonl, heldout.jsonl. A model that an
            earlier run with the same settings finished is reused; one that was cut short is trained again.
        seed: of the split, the initial weights and the order of training.
        progress: bars on stderr.

    Returns:
        The measurements of members and held-out samples, the paths, and the command that repeats them.

    Raises:
        InputError: `output` holds files of these names that no quickstart has written.

    Guarantees:
        Works without a network, on the CPU; torch's global RNG does not move; `output` never holds half a model.

    Examples:
        ```python
        from pathlib import Path
        from memorization.lab.quickstart import run_quickstart

        result = run_quickstart(Path("memorization-quickstart"))
        print(result)
        assert result.members.bits.mean() > 100 and result.heldout.bits.mean() < 1
        ```
    """
    started, seed = time.perf_counter(), check_integer("seed", seed, at_least=None)
    output = Path(output)
    _claim(output)
    tokenizer, texts, ids = _tokenize_addresses()
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))
    members, heldout, rest = order.tensor_split([N_MEMBERS, N_MEMBERS + N_HELDOUT])
    members_path, heldout_path = output / "members.jsonl", output / "heldout.jsonl"
    _write_jsonl(members_path, (texts[i] for i in members))
    _write_jsonl(heldout_path, (texts[i] for i in heldout))

    reused = []
    with _one_thread():
        for name, recipe, chosen in (("target", TARGET, members), ("oracle", ORACLE, rest)):
            if _train_once(output / name, recipe, ids[chosen], tokenizer, seed=seed, progress=progress):
                reused.append(name)

    target_dir, oracle_dir = output / "target", output / "oracle"
    measured = unintended_memorization(
        str(target_dir), str(oracle_dir), members_path, control=heldout_path, device="cpu", progress=progress
    )
    again = {
        "target": target_dir,
        "oracle": oracle_dir,
        "data": members_path,
        "control": heldout_path,
        "output": output / "again",
    }
    return Quickstart(
        members=measured,
        target_dir=target_dir,
        oracle_dir=oracle_dir,
        members_path=members_path,
        heldout_path=heldout_path,
        command=" ".join(
            [f"{command_line()} measure", *(f"--{option} {shlex.quote(str(path))}" for option, path in again.items())]
        ),
        reused=tuple(reused),
        seconds=time.perf_counter() - started,
    )


def command_line() -> str:
    """What to type for the command line that runs here: its name where a shell finds it, else its path."""
    started = Path(sys.argv[0])
    beside = shutil.which("memorization", path=str(Path(sys.executable).parent))
    script = started if started.stem == "memorization" and started.is_file() else beside and Path(beside)
    if not script:
        return f"{shlex.quote(sys.executable)} -m memorization.cli"
    found = shutil.which("memorization")
    return "memorization" if found and Path(found).samefile(script) else shlex.quote(str(script))


def _claim(output: Path) -> None:
    """Make the folder, unless it holds files of our names that are not ours to replace."""
    foreign = [name for name in ("target", "oracle", "members.jsonl", "heldout.jsonl") if (output / name).exists()]
    if foreign and not (output / _MARKER).exists():
        raise InputError(
            f"{output} already holds {', '.join(foreign)}, and no {_MARKER} says that a quickstart wrote them; "
            "nothing was touched. Name an empty or a new folder as output."
        )
    output.mkdir(parents=True, exist_ok=True)
    (output / _MARKER).write_text('{"written_by": "memorization quickstart"}\n', encoding="utf-8")


@cache  # the same text and the same seconds each time
def _tokenize_addresses() -> "tuple[PreTrainedTokenizerFast, list[str], Int[Tensor, 'sample position']]":
    """A byte-level BPE tokenizer of the addresses, and their distinct samples as texts and as ids."""
    documents = [" ".join(paragraphs) for paragraphs in addresses()]
    bpe = byte_level_bpe(documents, VOCAB_SIZE)
    ids_of: dict[str, list[int]] = {}
    for document in documents:
        for text in _cut(document, lambda text: bpe.encode(text).offsets):
            ids = bpe.encode(text).ids
            if len(ids) == SAMPLE_TOKENS and bpe.decode(ids) == text:
                ids_of.setdefault(text, ids)
    return with_end_of_text(bpe, SAMPLE_TOKENS), list(ids_of), torch.tensor(list(ids_of.values()))


def _cut(document: str, token_offsets: Callable[[str], list[tuple[int, int]]]) -> list[str]:
    """Samples of exactly 64 tokens, one after the other, that begin and end with whole words.

    Whole words are tokenized alone as they are within a text. Where the 64th token ends inside a word, the sample
    starts a word later; that drops 4 % of the text.
    """
    texts = []
    words = [match.start() for match in re.finditer(r"\S+", document)]
    word = 0
    while word < len(words):
        # A token has 3.2 characters in the mean, so a window of 8 a token holds 64 tokens unless the document ends.
        window = document[words[word] : words[word] + 8 * SAMPLE_TOKENS]
        offsets = token_offsets(window)
        if len(offsets) < SAMPLE_TOKENS:
            break
        end = offsets[SAMPLE_TOKENS - 1][1]
        following = word + len(window[:end].split())
        if window[end : end + 1] == " ":
            texts.append(window[:end])
            word = following
        else:
            word += 1
    return texts


def _train_once(
    folder: Path,
    recipe: Recipe,
    ids: Int[Tensor, "sample position"],
    tokenizer: "PreTrainedTokenizerFast",
    *,
    seed: int,
    progress: bool,
) -> bool:
    """Train and save a model and its tokenizer, unless `folder` holds that very model; returns whether it did."""
    digest = hashlib.sha256(ids.numpy().astype("<i8").tobytes()).hexdigest()
    settings = {
        **asdict(recipe),
        "seed": seed,
        "ids_sha256": digest,
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
    }
    record = folder / _RECORD
    if record.exists() and json.loads(record.read_text(encoding="utf-8"))["settings"] == settings:
        return True
    started = time.perf_counter()
    model = _build(recipe, tokenizer.bos_token_id, seed)
    bits = train(
        model,
        ids,
        context=tokenizer.bos_token_id,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        peak_lr=recipe.peak_lr,
        warmup_steps=recipe.warmup_steps,
        max_grad_norm=recipe.max_grad_norm,
        seed=seed,
        progress=progress,
        name=folder.name,
    )
    # A folder is renamed into place only when it is whole: a run killed at any moment leaves no half model behind.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
        whole = Path(unfinished) / folder.name
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
        trained = {
            "settings": settings,
            "bits_per_token_last_step": bits[-1].item(),
            "seconds": round(time.perf_counter() - started, 1),
        }
        (whole / _RECORD).write_text(json.dumps(trained, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(whole, folder)
    return False


def _build(recipe: Recipe, end_of_text: int, seed: int) -> "GPT2LMHeadModel":
    """A GPT-2 style model without dropout, initialised from `seed`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=SAMPLE_TOKENS,
        n_embd=recipe.n_embd,
        n_layer=recipe.n_layer,
        n_head=recipe.n_head,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        # The same function as GPT-2's gelu_new in one kernel instead of eight: 10 % of a training step.
        activation_function="gelu_pytorch_tanh",
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return GPT2LMHeadModel(config)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute on one thread within the block."""
    # A second thread halves the time of such small steps on idle cores, but costs ten times more on busy ones, where
    # each barrier waits for the scheduler. One thread also gives the same weights on any number of cores.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write_jsonl(path: Path, texts: Iterable[str]) -> None:
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    path.write_text("".join(lines), encoding="utf-8")
