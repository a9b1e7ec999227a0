"""What tells a builder from another one, and what is said of builders that are a little wrong."""

import subprocess
import sys
import threading
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from memorization import capacity_bits_per_param
from memorization.errors import InputError, ModelError, NotCausalError
from memorization.lab import cells
from memorization.lab.architectures import Architecture
from memorization.lab.architectures.architecture import NAMES
from memorization.lab.architectures.named import builder_named
from memorization.lab.builders import build_seeded, known_builder
from memorization.lab.canaries import canary_dose_response
from memorization.lab.random_tokens import random_tokens
from memorization.lab.text import text_sweep

V, S = 16, 8
ACTIVATION, SCALE = torch.tanh, 1.0


class Net(nn.Module):
    """Reads two globals; its parts can be replaced by what is otherwise and by what only looks otherwise."""

    def __init__(self, vocab_size: int, seq_len: int, width: int = 6) -> None:
        super().__init__()
        self.embed, self.mix, self.head = (
            nn.Embedding(vocab_size, width),
            nn.Linear(width, width),
            nn.Linear(width, vocab_size),
        )
        nn.init.normal_(self.head.weight, std=0.5 * SCALE)

    def forward(self, ids):
        return self.head(ACTIVATION(self.mix(self.embed(ids))))


def build(vocab_size: int, seq_len: int) -> nn.Module:
    return Net(vocab_size, seq_len)


class Renamed(nn.Module):
    """The same as Net, in other words."""

    def __init__(self, vocab_size: int, seq_len: int) -> None:
        super().__init__()
        table, inner, outer = nn.Embedding(vocab_size, 6), nn.Linear(6, 6), nn.Linear(6, vocab_size)
        nn.init.normal_(outer.weight, std=0.5)
        self.layers = nn.Sequential(table, inner, nn.Tanh(), outer)

    def forward(self, token_ids):
        """What a reader sees differs; what is computed does not."""
        return self.layers(token_ids)


def identity(builder, name: str = "build") -> str:
    """As of a builder of this name."""
    return name + known_builder(builder, V, S).identity[-13:]


@pytest.mark.parametrize(
    "change",
    [
        {"ACTIVATION": torch.relu},
        {"ACTIVATION": lambda x: x},
        {"ACTIVATION": lambda x: torch.tanh(1.01 * x)},
        {"ACTIVATION": lambda x: torch.tanh(x.detach())},  # the same logits, other gradients
        {"SCALE": 2.0},
        {"SCALE": 1.01},
    ],
    ids=["relu", "none", "a hundredth", "detached", "initial weights", "a hundredth of them"],
)
def test_a_global_that_changes_what_is_computed_changes_the_identity(change, monkeypatch):
    before = identity(build)
    for name, value in change.items():
        monkeypatch.setattr(sys.modules[__name__], name, value)
    assert identity(build) != before


def frozen(vocab_size: int, seq_len: int) -> nn.Module:
    model = Net(vocab_size, seq_len)
    model.embed.requires_grad_(False)
    return model


class Forward(Net):
    """Another forward of the same parts."""

    def forward(self, ids):
        return super().forward(ids) + self.mix.weight.sum()  # the same softmax; the logits are others


class InTraining(Net):
    """Another function in training mode only."""

    def forward(self, ids):
        return super().forward(ids) * (0.5 if self.training else 1.0)


@pytest.mark.parametrize("other", [frozen, Forward, InTraining, partial(Net, width=7)])
def test_another_class_shape_or_freezing_changes_the_identity(other):
    assert identity(other) != identity(build)


def test_a_cosmetic_change_does_not():
    assert identity(Renamed) == identity(build) == identity(lambda vocab_size, seq_len: Net(vocab_size, seq_len))


def test_a_head_of_zeros_hides_nothing(monkeypatch):
    """All logits are 0 at the start, whatever lies below the head."""
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 0.0)
    before = identity(build)
    monkeypatch.setattr(sys.modules[__name__], "ACTIVATION", torch.relu)
    assert identity(build) != before


@pytest.mark.parametrize("name", NAMES)
def test_architectures_are_known_by_their_repr_and_by_what_they_compute(name):
    one = known_builder(Architecture(name, width=8), V, S).identity
    assert one.startswith(f"Architecture('{name}', layers=1, width=8")
    assert one == known_builder(Architecture(name, width=8), V, S).identity
    assert one[-12:] != known_builder(Architecture(name, layers=2, width=8), V, S).identity[-12:]


def test_rounding_changes_no_identity():
    """Weights moved by what float32 rounds, as another machine's would be: of 100 models at most 2 come out otherwise."""

    def moved(width: int, by: float):
        def builder(vocab_size: int, seq_len: int) -> nn.Module:
            model = Architecture("gpt2", width=width, heads=1)(vocab_size, seq_len)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(
                        1 + by * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(width))
                    )
            return model

        return builder

    widths = range(4, 24)
    n_others = sum(identity(moved(width, 1e-7)) != identity(moved(width, 0.0)) for width in widths)
    assert n_others <= 1
    assert all(identity(moved(width, 1e-2)) != identity(moved(width, 0.0)) for width in widths)


def test_an_identity_is_the_same_in_another_process():
    code = f"""
from memorization.lab.architectures import Architecture
from memorization.lab.builders import known_builder
print(known_builder(Architecture("llama", width=8), {V}, {S}).identity)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == known_builder(Architecture("llama", width=8), V, S).identity


def test_looking_leaves_everything_as_it_was():
    """A frozen base that all models share, the global generator, and modes."""
    base = nn.Sequential(nn.Embedding(V, 4), nn.BatchNorm1d(S, track_running_stats=True)).requires_grad_(False)
    base[1].eval()

    class Adapted(nn.Module):
        def __init__(self, vocab_size: int, seq_len: int) -> None:
            super().__init__()
            self.base, self.head = base, nn.Linear(4, vocab_size)

        def forward(self, ids):
            return self.head(self.base[0](ids))

    before = {name: value.clone() for name, value in base.state_dict().items()}
    generator = torch.get_rng_state()
    known_builder(Adapted, V, S)
    assert torch.equal(torch.get_rng_state(), generator)
    assert (base.training, base[1].training) == (True, False)
    for name, value in base.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_store_does_not_hand_back_runs_of_a_model_that_has_changed(tmp_path, monkeypatch):
    options = {
        "vocab_size": V,
        "seq_len": S,
        "n_samples": [100],
        "steps": 8,
        "seeds": [0],
        "peak_lr": 0.05,
        "progress": False,
    }

    def bits() -> float:
        with pytest.warns(UserWarning, match="lower bound"):
            return capacity_bits_per_param(build, **options, store=tmp_path).bits_per_param

    tanh = bits()
    monkeypatch.setattr(sys.modules[__name__], "ACTIVATION", lambda x: 0 * x)
    changed = bits()
    assert changed != tanh
    with pytest.warns(UserWarning, match="lower bound"):
        assert changed == capacity_bits_per_param(build, **options).bits_per_param
    monkeypatch.setattr(sys.modules[__name__], "ACTIVATION", torch.tanh)
    monkeypatch.setattr(cells, "train_stack", lambda *_, **__: pytest.fail("the runs of before are there"))
    assert bits() == tanh


# --- builders that are a little wrong

ONE = Net(V, S)


class Returns(nn.Module):
    """Net, with its logits in something else."""

    def __init__(self, wrap) -> None:
        super().__init__()
        self.net, self.wrap = Net(V, S), wrap

    def forward(self, ids):
        return self.wrap(self.net(ids))


class Short(Net):
    """A table of fewer positions than a sample has tokens."""

    def __init__(self, vocab_size: int, seq_len: int) -> None:
        super().__init__(vocab_size, seq_len)
        self.positions = nn.Embedding(seq_len - 1, vocab_size)

    def forward(self, ids):
        return super().forward(ids) + self.positions(torch.arange(ids.shape[1]))


class SeesTheFuture(Net):
    def forward(self, ids):
        logits = super().forward(ids)
        return logits + logits.mean(1, keepdim=True)


def fails(vocab_size: int, seq_len: int) -> nn.Module:
    raise KeyError("hidden_size")


WRONG = [
    (
        ONE,
        "a model, Net, came in place of a builder; .*Pass the function that makes it: lambda vocab_size, seq_len: Net",
    ),
    (lambda v, s: ONE, "returns the same model each time, or models that share trainable parameters"),
    (
        lambda: ONE,
        r"failed when it was called with \(16, 8\): TypeError: .*takes 0 positional arguments but 2 were given",
    ),
    (fails, r"the builder fails failed when it was called with \(16, 8\): KeyError: 'hidden_size'"),
    (lambda v, s: torch.zeros(2), "returned a Tensor; a builder is a function of"),
    (lambda v, s: None, "returned a NoneType; a builder is a function of"),
    (
        Short,
        "the model of builder Short failed on 2 x 8 token ids below 16: IndexError: .*Has it positions for 8 tokens",
    ),
    (lambda v, s: Net(v + 1, s), r"to logits of shape \(2, 8, 16\); their shape is \(2, 8, 17\)"),
    (lambda v, s: Net(v - 1, s), r"to logits of shape \(2, 8, 16\); their shape is \(2, 8, 15\)"),
    (lambda v, s: Returns(lambda x: x.argmax(-1)), r"their shape is \(2, 8\)"),
    (lambda v, s: Returns(lambda x: x > 0), "they are torch.bool, and must be floating-point"),
    (lambda v, s: Returns(lambda x: "logits"), "it returned a str. Return the logits alone"),
    (lambda v, s: Returns(lambda x: None), "it returned a NoneType. Return the logits alone"),
    (SeesTheFuture, "the builder's model cannot be measured: SeesTheFuture is not causal"),
    (lambda v, s: nn.Sequential(Net(v, s), nn.Dropout(0.5)), "set its dropout to 0"),
    (lambda v, s: Net(v, s).requires_grad_(False), "has no trainable parameter"),
]


@pytest.mark.parametrize(("builder", "message"), WRONG)
def test_a_builder_that_is_a_little_wrong_is_told_so_before_anything_is_trained(builder, message, monkeypatch):
    """By capacity, sweeps of text and canaries alike, each in a whole sentence."""
    monkeypatch.setattr(cells, "train_stack", lambda *_, **__: pytest.fail("trained"))
    calls = [
        lambda: capacity_bits_per_param(
            builder, vocab_size=V, seq_len=S, n_samples=[100], steps=4, peak_lr=0.01, progress=False
        ),
        lambda: canary_dose_response(
            builder, random_tokens(20, S, V, seed=0), vocab_size=V, repetitions=[1], progress=False
        ),
        lambda: text_sweep(
            builder,
            random_tokens(200, S, V, seed=0),
            vocab_size=V,
            seq_len=S,
            n_samples=[16],
            n_test=16,
            steps=4,
            prefix_tokens=[4],
            progress=False,
        ),
    ]
    for call in calls:
        with pytest.raises(ModelError, match=message) as caught:
            call()
        assert str(caught.value).rstrip().endswith((".", "?", "(...)."))
    if builder is SeesTheFuture:
        assert caught.type is NotCausalError


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("given", [None, 3, "gpt2", [], [build, 3], {"gpt2": build}])
def test_what_is_no_builder_at_all(given):
    with pytest.raises(
        InputError, match=r"build_model (must be a function of \(vocab_size, seq_len\)|is an empty list)"
    ):
        capacity_bits_per_param(given, vocab_size=V, seq_len=S, progress=False)


def test_what_is_legal():
    for builder in (build, Net, partial(Net, width=3), lambda v, s: Returns(lambda x: SimpleNamespace(logits=x))):
        assert known_builder(builder, V, S).params.total > 0
    model = build_seeded(build, V, S, 0)
    assert model(torch.zeros(1, S, dtype=torch.int64)).isfinite().all()


# --- what models return, and builders by name


@pytest.mark.parametrize(
    "pack", [lambda logits: {"logits": logits}, lambda logits: (logits, None)], ids=["dict", "tuple"]
)
def test_logits_may_come_packed(pack):
    class Packed(nn.Module):
        def __init__(self, vocab_size, seq_len):
            super().__init__()
            self.model = Architecture("gpt2", width=4)(vocab_size, seq_len)

        def forward(self, ids):
            return pack(self.model(ids))

    known = known_builder(Packed, 8, 5)
    model = build_seeded(known.build, 8, 5, 0)
    ids = torch.randint(8, (2, 5))
    expected = build_seeded(Packed, 8, 5, 0).model(ids)
    assert torch.equal(model(ids), expected)
    assert known.params == known_builder(Architecture("gpt2", width=4), 8, 5).params
    assert known.name.endswith("Packed")


FILE = """
from dataclasses import dataclass
from torch import nn
from memorization.lab.architectures import Architecture

def build(vocab_size, seq_len, width=4):
    return Architecture("gpt2", width=width)(vocab_size, seq_len)

@dataclass
class Builder:
    width: int

    def __call__(self, vocab_size, seq_len):
        return build(vocab_size, seq_len, self.width)

number = 3
"""


def test_builders_by_name(tmp_path):
    place = tmp_path / "mine.py"
    place.write_text(FILE, encoding="utf-8")
    four, six = (known_builder(Architecture("gpt2", width=width), 8, 5).params for width in (4, 6))
    assert known_builder(builder_named(f"{place}:build", {}), 8, 5).params == four
    assert known_builder(builder_named(f"{place}:build", {"width": 6}), 8, 5).params == six
    assert known_builder(builder_named(f"{place}:Builder", {"width": 6}), 8, 5).params == six
    free = builder_named("memorization.lab.architectures:FreeLogits", {})
    assert known_builder(free, 8, 5).params.total == 40


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("{}:", {}, "a builder is named file.py:function or package.module:Builder; "),
        ("{}:bild", {}, "mine.py has no bild; what can be called there: dataclass, Architecture, build, Builder[.]$"),
        ("{}:number", {}, "mine.py:number is a int; a builder is a function of"),
        ("{}:build", {"depth": 2}, r"cannot be called with two numbers, depth=: got an unexpected keyword"),
        ("{}:Builder", {}, r"cannot be called with nothing: missing a required argument: 'width'"),
        (
            "no.such.module:build",
            {},
            "no.such.module cannot be imported: ModuleNotFoundError: No module named 'no'[.]$",
        ),
        ("nowhere.py:build", {}, "nowhere.py cannot be imported: FileNotFoundError: "),
    ],
)
def test_names_that_name_no_builder(name, arguments, message, tmp_path):
    place = tmp_path / "mine.py"
    place.write_text(FILE, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        builder_named(name.format(place), arguments)


def test_a_file_that_does_not_import_is_one_line(tmp_path):
    place = tmp_path / "broken.py"
    place.write_text("import torch\ndef build(:\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"broken.py cannot be imported: SyntaxError: [^\n]+[.]$"):
        builder_named(f"{place}:build", {})


def test_a_builder_may_build_another_model():
    """A frozen base that is made when first needed: a seed inside another, in one thread."""

    def build(vocab_size: int, seq_len: int) -> nn.Module:
        inner.append(build_seeded(Net, vocab_size, seq_len, seed=7))
        return Net(vocab_size, seq_len)

    inner: list[nn.Module] = []
    outer: list[nn.Module] = []
    thread = threading.Thread(target=lambda: outer.append(build_seeded(build, V, S, 0)), daemon=True)
    thread.start()
    thread.join(20)
    assert outer, "it waits for itself"
    for built, seed in ((inner[0], 7), (outer[0], 0)):
        assert torch.equal(built.head.weight, build_seeded(Net, V, S, seed).head.weight)
