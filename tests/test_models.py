"""Any causal language model: ideal bits equal an unpadded float64 log-softmax of the same model's own logits."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from memorization import compress_bits

VOCAB = 97
LENGTHS = (2, 3, 100, 7, 31, 64, 65, 2, 50, 99)
SMALL = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2}
# Ten times the usual spread of weights, so that the distributions are far from uniform and a mistake shows.
ATTENTION = {
    **SMALL,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}


def build(name: str) -> nn.Module:
    import transformers as hf

    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    grouped = {**ATTENTION, "num_key_value_heads": 1, **special}
    configs = {
        "GPT2LMHeadModel": lambda: hf.GPT2Config(
            vocab_size=VOCAB, n_positions=128, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3, **special
        ),
        "LlamaForCausalLM": lambda: hf.LlamaConfig(**grouped),
        "Qwen3ForCausalLM": lambda: hf.Qwen3Config(**grouped, head_dim=16),
        "GPTNeoXForCausalLM": lambda: hf.GPTNeoXConfig(**ATTENTION, **special),
        "CohereForCausalLM": lambda: hf.CohereConfig(**grouped, logit_scale=0.25),
        "Gemma2ForCausalLM": lambda: hf.Gemma2Config(
            **grouped, head_dim=16, sliding_window=16, final_logit_softcapping=5.0, attn_logit_softcapping=5.0
        ),
        "MixtralForCausalLM": lambda: hf.MixtralConfig(**grouped, num_local_experts=4, num_experts_per_tok=2),
        "MambaForCausalLM": lambda: hf.MambaConfig(**SMALL, state_size=4, initializer_range=0.3, **special),
        "RwkvForCausalLM": lambda: hf.RwkvConfig(**SMALL, context_length=128, attention_hidden_size=32, **special),
    }
    return getattr(hf, name)(configs[name]())


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 24)
        self.lstm = nn.LSTM(24, 24, num_layers=2, batch_first=True, dropout=0.3)
        self.head = nn.Linear(24, VOCAB)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.7)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(ids))[0])


def plain_callable(ids: Tensor) -> Tensor:
    """Counts of the tokens so far, in the logits."""
    counts = nn.functional.one_hot(ids, VOCAB).float().cumsum(dim=1)
    return 2.0 * torch.log1p(counts) + 3.0 * torch.sin(
        counts @ torch.arange(VOCAB * VOCAB).float().reshape(VOCAB, VOCAB)
    )


TRANSFORMERS = [
    "GPT2LMHeadModel",
    "LlamaForCausalLM",
    "Qwen3ForCausalLM",
    "GPTNeoXForCausalLM",
    "CohereForCausalLM",
    "Gemma2ForCausalLM",
    "MixtralForCausalLM",
    "MambaForCausalLM",
    "RwkvForCausalLM",
]


@pytest.fixture(scope="module", params=[*TRANSFORMERS, "LSTM", "callable"])
def model(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if request.param == "callable":
            return plain_callable
        return Recurrent().train() if request.param == "LSTM" else build(request.param).train()


def reference_bits(model, context: list[int], ids: list[int]) -> np.ndarray:
    """One sample, not padded, by itself; the softmax in float64."""
    if isinstance(model, nn.Module):
        model.eval()
    with torch.no_grad():
        output = model(torch.tensor([[*context, *ids]]))
    log_p = getattr(output, "logits", output)[0].double().log_softmax(-1)
    text = [*context, *ids]
    return np.array([-float(log_p[p - 1, text[p]]) / np.log(2) for p in range(1, len(text))])


@pytest.mark.kernels
@pytest.mark.parametrize("first_token", ["skip", 5])
def test_ideal_bits_are_those_of_the_models_own_logits(model, first_token):
    rng = np.random.default_rng(0)
    samples = [rng.integers(0, VOCAB, n).tolist() for n in LENGTHS]
    modules = list(model.train().modules()) if isinstance(model, nn.Module) else []
    lengths = compress_bits(model, samples, first_token=first_token, batch_size=4)
    assert all(module.training for module in modules)
    context = [] if first_token == "skip" else [first_token]
    for i, sample in enumerate(samples):
        expected = reference_bits(model, context, sample)
        own = lengths.token_bits[lengths.token_offsets[i] : lengths.token_offsets[i + 1]]
        np.testing.assert_allclose(own, expected, atol=2e-4)
        assert lengths.ideal_bits[i] == pytest.approx(expected.sum(), abs=1e-3)
        assert lengths.bits[i] == pytest.approx(expected.sum(), rel=1e-3, abs=0.1 + 1e-4 * len(expected))
    # Far from the uniform distribution: a model that ignored its input would not pass for this one.
    assert lengths.token_bits.std() > 0.3


def test_what_is_recorded(model):
    record = compress_bits(model, [[1, 2, 3]]).settings["model"]
    assert record["vocab_size"] == VOCAB
    if isinstance(model, nn.Module):
        distinct = {p.data_ptr(): p.numel() for p in model.parameters()}
        assert record["n_params"] == sum(distinct.values())
        assert 0 < record["n_non_embedding_params"] <= record["n_params"] - VOCAB * 24
        assert record["dtype"] == "float32"
        assert record["class"] == type(model).__name__
    else:
        assert record["n_params"] is None
        assert record["fingerprint"] is None
        assert record["name"] == "plain_callable"


def test_the_output_head_counts_as_an_embedding():
    """Untied: token embeddings and the output head, V d each, are left out; an LSTM's head has no such name."""
    llama = build("LlamaForCausalLM")
    assert not llama.config.tie_word_embeddings
    record = compress_bits(llama, [[1, 2]]).settings["model"]
    assert record["n_params"] - record["n_non_embedding_params"] == 2 * VOCAB * 32
    gpt2 = build("GPT2LMHeadModel")
    assert gpt2.config.tie_word_embeddings
    record = compress_bits(gpt2, [[1, 2]]).settings["model"]
    assert record["n_params"] - record["n_non_embedding_params"] == (VOCAB + 128) * 32


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "GPTNeoXForCausalLM", "RwkvForCausalLM", "MambaForCausalLM"])
def test_position_limits(name):
    """What the configuration says, under whatever name; Mamba has no limit."""
    settings = compress_bits(build(name), [[1, 2]]).settings
    assert settings["max_length"] == (None if name == "MambaForCausalLM" else 128)
