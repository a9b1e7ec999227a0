"""Identifiers: formats that are counted, places that are found, e-values whose mean is at most 1, and what is planted."""

import hashlib
import itertools
import math
import re
import uuid
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import N_POSITIONS, VOCAB_SIZE

from memorization import IdentifierAudit, UniformModel, audit_identifiers, compress_bits, load
from memorization.errors import InputError, LossyTextError, NothingSelectedWarning
from memorization.identifiers import Format, UniformTokens
from memorization.identifiers.finding import check_drawn, find
from memorization.identifiers.formats import resolve_formats
from memorization.stats.significance import q_of_e_values, q_of_p_values


def hex_of(word: str, n: int = 40) -> str:
    return hashlib.sha256(word.encode()).hexdigest()[:n]


def audit(model, texts, format_, **options) -> IdentifierAudit:
    return audit_identifiers(model, texts, format_, progress=False, **options)


# --- formats


@pytest.mark.parametrize(
    ("name", "n_strings"),
    [
        ("hex40", 16**40),
        ("HEX8", 16**8),
        ("uuid4", 2**122),
        ("UUID4", 2**122),
        ("digits6", 10**6),
        (r"sk-[A-Za-z0-9]{20}", 62**20),
        (r"[a-c_][\d\-]x{3}\.", 4 * 11),
    ],
)
def test_strings_are_counted(name, n_strings):
    format_ = Format.of(name)
    assert format_.n_strings == n_strings
    assert format_.bits == math.log2(n_strings)


def test_the_count_is_that_of_the_pattern():
    format_ = Format.of(r"[ab]\d[x-z]")
    everything = map("".join, itertools.product("abxyz019", repeat=3))
    digits = map("".join, itertools.product("ab", "0123456789", "xyz"))
    found = {one for one in {*everything, *digits} if format_.pattern.fullmatch(one)}
    assert len(found) == format_.n_strings == 60


@pytest.mark.parametrize("name", ["hex12", "HEX12", "uuid4", "UUID4", "digits16", r"sk-[A-Z]{8}\d{2}"])
def test_draws_are_strings_of_the_format_and_uniform(name):
    (format_,) = resolve_formats(name)
    generator = np.random.default_rng(0)
    drawn = [format_.draw("x" * len(format_), generator) for _ in range(2_000)]
    assert all(format_.pattern.fullmatch(one) for one in drawn)
    assert len(set(drawn)) == len(drawn)
    for i in format_.random:
        counts = Counter(one[i] for one in drawn)
        assert set(counts) == set(format_.alphabets[i])
        k = len(counts)
        chi_square = sum((count - 2_000 / k) ** 2 / (2_000 / k) for count in counts.values())
        assert chi_square < k - 1 + 6 * math.sqrt(2 * (k - 1)), i


def test_uuids_of_python_are_of_the_format():
    texts = [f"id {uuid.UUID(int=int(hex_of(str(i), 32), 16), version=4)}" for i in range(50)]
    assert [place.found for place in find(texts, resolve_formats("uuid4")).places] == [text[3:] for text in texts]


def luhn_is_right(number: str) -> bool:
    """The other way round: doubled digits from the right, the check digit included, add up to a multiple of 10."""
    digits = [int(one) for one in number if one.isdigit()]
    return sum(sum(divmod(d * (2 if i % 2 else 1), 10)) for i, d in enumerate(reversed(digits))) % 10 == 0


@pytest.mark.parametrize("card", ["4111111111111111", "5500 0000 0000 0004", "4012-8888-8888-1881"])
def test_cards_are_found_by_their_check_digit_and_drawn_behind_their_issuer(card):
    formats = resolve_formats("card")
    (place,) = find([f"paid by {card}."], formats).places
    wrong = card[:-1] + str((int(card[-1]) + 1) % 10)
    with pytest.raises(InputError, match="no identifier of the format card"):
        find([f"paid by {wrong}."], formats)
    assert place.format.n_strings == 10**7
    generator = np.random.default_rng(0)
    drawn = {place.format.draw(card, generator) for _ in range(200)}
    assert len(drawn) == 200
    assert all(luhn_is_right(one) for one in drawn)
    assert {re.sub(r"\D", "", one)[:8] for one in drawn} == {re.sub(r"\D", "", card)[:8]}
    assert {re.sub(r"\d", "9", one) for one in drawn} == {re.sub(r"\d", "9", card)}


@pytest.mark.parametrize("phone", ["212-555-7083", "(212) 555-7083", "212.555.7083", "212 555 7083", "+12125557083"])
def test_phones_have_their_last_four_digits_drawn(phone):
    (place,) = find([f"call {phone}, please"], resolve_formats("phone")).places
    assert (place.found, place.format.n_strings) == (phone, 10**4)
    assert place.format.draw(phone, np.random.default_rng(0))[:-4] == phone[:-4]


@pytest.mark.parametrize(
    ("format_", "message"),
    [
        ("hex", r"the format 'hex' has no random character.*Name one of hex40"),
        ("", r"the format '' has no random character"),
        ("[a]{4}", r"the format '\[a\]\{4\}' has no random character"),
        (r"\d+", r"cannot be counted at '\+'.*one length whose number is known exactly"),
        (r"(ab|cd)", r"cannot be counted at '\(ab\|cd\)'"),
        (r"\d{2,4}", r"cannot be counted at '\{2,4\}'"),
        ("[^a]{4}", r"\[\^\.\.\.\] has no end"),
        ("[z-a]", r"z-a is no range"),
        (r"\w{4}", r"\\w is not known"),
        ("{4}", r"\{4\} must follow what it repeats"),
        ([], r"format must name a format \(hex40.*it is \[\]"),
        (["hex40", "tokens:4x16"], r"formats of tokens and of texts cannot be asked for in one call"),
        ("tokens:4x1", r"at least 2 ids to draw from"),
    ],
)
def test_formats_that_cannot_be_counted_are_refused(format_, message):
    with pytest.raises(InputError, match=message):
        resolve_formats(format_)


# --- places


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("commit {0}, then", True),
        ("{0}", True),
        ('"{0}"', True),
        ("0x{0}", True),
        ("git_{0}_tag", True),
        ("{0}ab", False),  # a part of a longer one
        ("f{0}", False),
        ("x{0}", False),
        ("é{0}", False),
    ],
)
def test_identifiers_begin_and_end_where_letters_and_digits_do(text, found):
    text = text.format(hex_of("a"))
    if found:
        (place,) = find([text], [Format.of("hex40")]).places
        assert text[place.start :].startswith(hex_of("a"))
    else:
        with pytest.raises(InputError, match="no identifier of the format hex40 stands in the 1 text"):
            find([text], [Format.of("hex40")])


def test_forty_digits_in_sixty_four_are_no_match_and_the_longer_of_two_formats_counts():
    text = f"sha256 {hex_of('a', 64)} sha1 {hex_of('b')}"
    assert [place.found for place in find([text], [Format.of("hex40")]).places] == [hex_of("b")]
    places = find([text], [Format.of("hex40"), Format.of("hex64")]).places
    assert [place.format.name for place in places] == ["hex64", "hex40"]
    one = str(uuid.UUID(int=int(hex_of("c", 32), 16), version=4))
    places = find([f"id {one}"], [Format.of("hex12"), Format.of("uuid4")]).places
    assert [place.found for place in places] == [one]


def test_numbers_that_go_on_behind_a_point_are_no_identifiers():
    for text in ("3.14159265", "14159265.3", "12,14159265"):
        with pytest.raises(InputError, match="no identifier"):
            find([text], [Format.of("digits8")])
    assert find(["no. 14159265."], [Format.of("digits8")]).places


def test_a_string_counts_once_where_it_stands_first():
    a, b = hex_of("a"), hex_of("b")
    found = find([f"{a} {a} {b}", f"again {b}", f"and {a}, {a}"], [Format.of("hex40")])
    assert [(place.row, place.start, place.found) for place in found.places] == [(0, 0, a), (0, 82, b)]
    assert found.n_texts == [2, 2]


def test_what_the_text_gives_away_is_left_out():
    a, b = hex_of("a"), hex_of("b")
    found = find([f"Merge {a[:8]}: {a}", f"{b.upper()} is {b}", f"{hex_of('c')} {a[:3]}"], [Format.of("hex40")])
    assert [place.found for place in found.places] == [hex_of("c")]
    assert found.n_given_away == 2
    found = find([f"Merge {a[:8]}: {a}", f"now {a}"], [Format.of("hex40")])  # given away in the first text alone
    assert [place.row for place in found.places] == [1]
    assert found.n_given_away == 0


@pytest.mark.parametrize(
    "string", ["0" * 40, "0123456789abcdef" * 2 + "01234567", "deadbeef" * 5, "f" * 39 + "0", "fedcba98" * 5]
)
def test_what_looks_like_an_example_is_left_out(string):
    found = find([f"{hex_of('a')} {string}"], [Format.of("hex40")])
    assert [place.found for place in found.places] == [hex_of("a")]
    assert found.n_made_up == 1
    with pytest.raises(InputError, match=r"but for 1 that look like examples"):
        find([string], [Format.of("hex40")])


@pytest.mark.parametrize("name", ["hex8", "hex40", "digits6", "digits16", "[01]{40}"])
def test_hardly_a_draw_looks_like_an_example(name):
    format_, generator = Format.of(name), np.random.default_rng(0)
    assert not any(format_.made_up(format_.draw("", generator)) for _ in range(5_000))


def test_strings_that_are_not_drawn_from_the_format_are_refused():
    words = [
        "house",
        "meet",
        "next",
        "that",
        "seen",
        "once",
        "give",
        "back",
        "word",
        "many",
        "bits",
        "does",
        "take",
        "down",
        "what",
        "none",
        "same",
        "read",
        "good",
        "more",
    ]
    words += [
        "time",
        "hand",
        "life",
        "week",
        "case",
        "work",
        "part",
        "even",
        "fact",
        "year",
        "home",
        "week",
        "area",
        "head",
        "side",
        "kind",
        "four",
        "week",
        "book",
        "eyes",
    ]
    with pytest.raises(
        InputError, match=r"'\[a-z\]\{4\}' fits 37 strings.* 'e' makes up .*%, and 3\.8% would be expected.*not exact"
    ):
        audit(UniformModel(256), [" ".join(words)], "[a-z]{4}", tokenizer=(list_of_bytes, text_of_bytes))
    stamps = [f"at {1_700_000_000 + 97_531 * i}" for i in range(12)]
    with pytest.raises(InputError, match=r"'digits10' fits 12 strings.*at character 1, '1' makes up 100\.0%"):
        audit(UniformModel(256), stamps, "digits10", tokenizer=(list_of_bytes, text_of_bytes))


def list_of_bytes(text: str) -> list[int]:
    return list(text.encode())


def text_of_bytes(ids) -> str:
    return bytes(ids).decode(errors="replace")


BYTES = (list_of_bytes, text_of_bytes)


# --- the e-value


def all_knowing(tokenizer, texts: list[str]):
    """The model that knows that one of these texts comes, and nothing else: no probability is left for other texts."""
    following: dict[tuple[int, ...], Counter[int]] = {}
    for text in texts:
        ids = [0, *tokenizer.encode(text)]
        for k in range(1, len(ids)):
            following.setdefault(tuple(ids[:k]), Counter())[ids[k]] += 1

    def logits(batch):
        found = torch.full((*batch.shape, VOCAB_SIZE), -40.0)
        for row, ids in enumerate(batch.tolist()):
            for k in range(len(ids)):
                for token, n in following.get(tuple(ids[: k + 1]), {}).items():
                    found[row, k, token] = math.log(n)
        return found

    return logits


TEMPLATES = [
    ("[ahe1]{3}", "and {}; the house"),
    ("[ahe1]{3}", "{} the"),
    ("[ahe1]{3}", "the  {}"),
    ("[ahe1]{3}", "é: {}, é"),
    ("-[ahe1]{3}", "met the house t{}"),
    (" [ahe]{3}", "the house{}-again"),
    ("[ahe1]{3}", "id {} and {} again"),
    (Format("given", ("t", "ho", "eu", "aeus", " se"), n_given=2), "and {} house"),
    (Format("given", ("t", "h", "e ", "ho", "eous"), n_given=1), "and then {} house"),
]


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(("format_", "frame"), TEMPLATES)
@pytest.mark.parametrize("model", ["tiny gpt2", "all-knowing"])
def test_over_all_strings_of_a_format_the_mean_e_value_is_at_most_1(model, format_, frame, tiny_gpt2, bpe_tokenizer):
    """Summed over every string, not over a sample of them: whatever tokens share with what stands around.

    The model that puts all of its probability on strings of the format must come to 1, which no lower bound of memU
    that charges too much would.
    """
    (format_,) = resolve_formats(format_)
    given = [one[0] if i < format_.n_given else one for i, one in enumerate(format_.alphabets)]
    strings = ["".join(one) for one in itertools.product(*given)]
    assert len(strings) == format_.n_strings
    texts = [frame.replace("{}", string) for string in strings]
    target = tiny_gpt2 if model == "tiny gpt2" else all_knowing(bpe_tokenizer, texts)
    found = audit(target, texts, format_, n_draws=0, first_token=0, tokenizer=bpe_tokenizer)
    assert found.found == strings
    assert np.isnan(found.e_value).sum() <= 0.1 * len(strings)
    mean = float(np.nan_to_num(found.e_value, nan=0.0).mean())
    assert 0 < mean <= 1 + 1e-5
    if model == "all-knowing":
        assert mean > 0.9


@pytest.mark.parametrize(("name", "n"), [("hex8", 5), ("hex8", 30), ("[a-z]{4}", 20), ("digits4", 200), ("[01]{8}", 9)])
def test_draws_are_not_refused(name, n):
    generator = np.random.default_rng(0)
    for _ in range(100):
        drawn = " ".join(Format.of(name).draw("", generator) for _ in range(n))
        check_drawn(find([drawn], [Format.of(name)]).places)


@pytest.fixture(scope="module")
def recitation(bpe_tokenizer):
    """A model that has learned three of four texts by heart, the tokenizer, and the texts."""
    texts = [f"The house met, id {hex_of(word, 16)} again" for word in "abcd"]
    return all_knowing(bpe_tokenizer, texts[:3]), bpe_tokenizer, texts


def test_what_a_model_knows_by_heart_is_found_and_nothing_else(recitation):
    model, tokenizer, texts = recitation
    found = audit(model, texts, "hex16", tokenizer=tokenizer, first_token=0, n_draws=2)
    assert found.signed_bits[:3] == pytest.approx(64 - math.log2(3), abs=1e-4)  # it may be any of three
    assert found.memorized().tolist() == [True, True, True, False]
    assert found.memorized(min_bits=63).tolist() == [False] * 4
    assert (found.bits[3], found.p_value[3]) == (0, 1)
    assert found.e_value[:3] == pytest.approx(2.0**64 / 3, rel=1e-3)
    assert found.rank_p_value.tolist() == [1 / 3, 1 / 3, 1 / 3, 1]
    assert found.start.tolist() == [text.index(hex_of(word, 16)) for word, text in zip("abcd", texts, strict=True)]


def test_bits_are_those_of_the_charged_tokens_in_the_whole_text(tiny_gpt2, bpe_tokenizer):
    """Given what stands before, within the text and not alone; identifiers of one text are read in one pass."""
    text = f"The house met, {hex_of('a', 8)} and {hex_of('b', 8)} again"
    found = audit(tiny_gpt2, [text], "hex8", tokenizer=bpe_tokenizer)
    lengths = compress_bits(tiny_gpt2, [text], tokenizer=bpe_tokenizer, progress=False)
    ids = bpe_tokenizer.encode(text)
    for i, word in enumerate("ab"):
        begins, ends = text.index(hex_of(word, 8)), text.index(hex_of(word, 8)) + 8
        last = next(k for k in range(len(ids)) if len(bpe_tokenizer.decode(ids[: k + 1])) >= ends)
        first = last + 1 - int(found.n_tokens[i])
        assert found.target_bits[i] == pytest.approx(lengths.token_bits[first : last + 1].sum(), abs=1e-3)
        assert begins - 1 <= len(bpe_tokenizer.decode(ids[:first])) <= begins


def test_a_text_longer_than_the_window_is_read_as_far_as_it_holds(tiny_gpt2, bpe_tokenizer):
    text = f"{'The house met and adjourned. ' * 40}id {hex_of('a', 8)} again"
    (found, cut) = (
        audit(tiny_gpt2, [text[start:]], "hex8", tokenizer=bpe_tokenizer, first_token="uniform") for start in (0, 29)
    )
    assert len(bpe_tokenizer.encode(text)) > 4 * N_POSITIONS
    assert np.isfinite(found.target_bits).all()
    assert found.target_bits[0] == pytest.approx(cut.target_bits[0], abs=1e-3)  # 29 characters earlier, nothing is read
    short = audit(
        tiny_gpt2, [text], "hex8", tokenizer=bpe_tokenizer, first_token="uniform", max_length=int(found.n_tokens[0]) + 6
    )
    assert abs(short.target_bits[0] - found.target_bits[0]) > 1e-3
    with pytest.raises(InputError, match=r"format hex64 take up to \d+ tokens, and the window holds 40"):
        audit(tiny_gpt2, [f"id {hex_of('a', 64)}"], "hex64", tokenizer=bpe_tokenizer, max_length=40)


@pytest.mark.usefixtures("no_type_checker")
def test_fresh_draws_of_an_unseen_identifier_rank_uniformly(tiny_gpt2, bpe_tokenizer):
    texts = [f"{'The house met' * (i % 2)} id {hex_of(str(i), 6)}" for i in range(120)]
    ranks = audit(tiny_gpt2, texts, "hex6", tokenizer=bpe_tokenizer, n_draws=9).rank_p_value
    counts = np.bincount((ranks * 10).round().astype(int), minlength=11)[1:]
    assert counts.sum() == 120  # none that cannot be told: one probe begins with each character
    assert ((counts - 12) ** 2 / 12).sum() < 30  # chi-square with 9 degrees of freedom: p = 0.0004


def test_all_identifiers_together_have_one_p_value(recitation, tiny_gpt2):
    _, tokenizer, _ = recitation
    unseen = [f"The house met, id {hex_of(str(i), 16)} again" for i in range(40)]
    # A seed for each: with one seed all would be compared with the same draws.
    p_values = [
        audit(tiny_gpt2, unseen[i : i + 5], "hex16", tokenizer=tokenizer, seed=i).set_p_value() for i in range(0, 40, 5)
    ]
    assert min(p_values) > 0.01
    assert max(p_values) > 0.3
    texts = [f"met {hex_of(str(i), 16)}" for i in range(12)]
    found = audit(all_knowing(tokenizer, texts), texts, "hex16", tokenizer=tokenizer, first_token=0)
    assert found.set_p_value() == pytest.approx(2.0**-12, abs=6e-4)
    assert found.gain_bits > 100
    assert math.isnan(audit(tiny_gpt2, unseen[:3], "hex16", tokenizer=tokenizer, n_draws=0).set_p_value())


def test_documents_have_the_mean_of_their_e_values(recitation):
    model, tokenizer, texts = recitation
    found = audit(
        model, [texts[0], f"{texts[3]}, {hex_of('e', 16)}", texts[0]], "hex16", tokenizer=tokenizer, first_token=0
    )
    documents = found.documents()
    assert documents["sample"].tolist() == [0, 1]
    assert documents["n_identifiers"].tolist() == [1, 2]
    assert documents["e_value"].tolist() == pytest.approx([found.e_value[0], found.e_value[1:].mean()])
    assert found.n_texts.tolist() == [2, 1, 1]
    assert documents["q_value"][0] < 1e-10


def test_selection_by_e_values_and_by_p_values():
    """Against both procedures as they are written, for any values."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        log2_e = generator.normal(0, 6, size=12)
        p_values = generator.uniform(size=12) ** 3
        for level in (0.01, 0.05, 0.3):
            order = np.argsort(-log2_e)
            k = max((k for k in range(1, 13) if 2 ** log2_e[order[k - 1]] >= 12 / (k * level)), default=0)
            assert set(np.flatnonzero(q_of_e_values(log2_e) <= level)) == set(order[:k])
            order = np.argsort(p_values)
            k = max((k for k in range(1, 13) if p_values[order[k - 1]] <= k * level / 12), default=0)
            assert set(np.flatnonzero(q_of_p_values(p_values) <= level)) == set(order[:k])
    assert q_of_e_values(np.array([np.nan, 2_000.0])).tolist() == [1, 0]


def test_none_selected_of_short_strings_or_few_draws_is_not_none_memorized():
    """Canaries of 4 bits that are known by heart: e-values of 16 select none of twelve, and ranks of 3 draws neither."""
    rng = np.random.default_rng(0)
    canaries = [[k % 16, (k + 1) % 16] for k in range(12)]
    counts = lambda ids: 20 * torch.nn.functional.one_hot((ids + 1) % 16, 16).float()  # noqa: E731
    known = audit(counts, canaries, "tokens:1x16", n_draws=19, first_token=3)
    assert (known.bits > 3.9).sum() == 12
    with pytest.warns(
        NothingSelectedWarning, match=r"at most 2\^4, .* so none can be selected at FDR 5 %; audit fewer"
    ):
        assert not known.memorized().any()
    assert "cannot tell which: an e-value is at most 2^4" in repr(known)
    unknown = audit(UniformModel(16), canaries, "tokens:1x16", n_draws=19, first_token=3)
    with pytest.warns(
        NothingSelectedWarning, match="ranks among 19 draws never select fewer than 12 .* n_draws=239 to"
    ):
        assert not unknown.memorized(by="rank").any()
    long = audit(UniformModel(16), rng.integers(16, size=(12, 8)).tolist(), "tokens:8x16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not long.memorized().any()
    assert "0 of 12 memorized at FDR 5 %" in repr(long)


def test_none_selected_by_e_values_that_are_in_debt_is_no_finding(no_type_checker):
    """A model that expects other ids in their place: whatever it knew of a canary, its e-value would be below 1."""
    canaries = np.random.default_rng(1).integers(16, size=(12, 8))

    def elsewhere(ids):
        logits = torch.zeros(*ids.shape, 32)
        logits[..., 16:] = 8.0
        return logits

    found = audit(elsewhere, canaries.tolist(), "tokens:8x16", n_draws=19, first_token=3)
    assert found.signed_bits.max() < -80
    with pytest.warns(NothingSelectedWarning, match="9. bits must be memorized before an e-value sees any. Ranks"):
        assert not found.memorized().any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not found.memorized(fdr=0.9, by="rank").any()


def test_canaries_of_token_ids(no_type_checker):
    counts = lambda ids: 20 * torch.nn.functional.one_hot((ids + 1) % 16, 16).float()  # noqa: E731
    canaries = [[9, 9, 3, 4, 5, 6], [1, 2, 3, 9, 2, 11], [3, 4, 5, 6], [0, 15, 0, 1, 2]]
    found = audit(counts, canaries, UniformTokens(16, 4), n_draws=3)
    assert found.found == ["3 4 5 6", "3 9 2 11", "15 0 1 2"]
    assert (found.n_texts.tolist(), found.start.tolist()) == ([2, 1, 1], [2, 2, 1])
    per_token = math.log2(1 + 15 * math.exp(-20))
    assert found.target_bits[1:].tolist() == pytest.approx(
        [3 * 20 / math.log(2) + 4 * per_token, 20 / math.log(2) + 4 * per_token], rel=1e-4
    )
    assert audit(UniformModel(16), canaries, "tokens:4x16").signed_bits.tolist() == [0, 0, 0]
    with pytest.raises(
        InputError, match=r"sample 1 does not end in 4 ids of \[0, 12\), as the format tokens:4x12 says"
    ):
        audit(UniformModel(16), [[1, 2, 3, 4], [1, 2, 3, 12]], "tokens:4x12")
    with pytest.raises(InputError, match=r"drawn from 32 ids, and .* has 16"):
        audit(UniformModel(16), [[1, 2, 3, 4]], "tokens:4x32")
    with pytest.raises(InputError, match=r"is of token ids, and the samples are texts"):
        audit(UniformModel(256), ["one"], "tokens:4x16", tokenizer=BYTES)
    with pytest.raises(InputError, match=r"looked for in texts, and the samples are token ids.*tokens:16x512"):
        audit(UniformModel(16), [[1, 2, 3, 4]], "hex8")


# --- bad input


def test_what_cannot_be_measured_is_refused_in_a_sentence(bpe_tokenizer, tiny_gpt2):
    text = f"id {hex_of('a')}"
    with pytest.raises(InputError, match=r"no identifier of the format uuid4 stands in the 1 text\. It must begin"):
        audit(tiny_gpt2, [text], "uuid4", tokenizer=bpe_tokenizer)
    with pytest.raises(InputError, match=r"no tokenizer is at hand"):
        audit(tiny_gpt2, [text], "hex40")
    with pytest.raises(InputError, match=r'first_token="skip" leaves a token out'):
        audit(tiny_gpt2, [text], "hex40", tokenizer=bpe_tokenizer, first_token="skip")
    with pytest.raises(InputError, match=r"n_draws must be an integer of at least 0; it is -1"):
        audit(tiny_gpt2, [text], "hex40", tokenizer=bpe_tokenizer, n_draws=-1)
    with pytest.raises(InputError, match=r"max_length=65 is more than the 64 positions"):
        audit(tiny_gpt2, [text], "hex40", tokenizer=bpe_tokenizer, max_length=65)
    with pytest.raises(InputError, match=r"samples is empty"):
        audit(tiny_gpt2, [], "hex40", tokenizer=bpe_tokenizer)
    found = audit(tiny_gpt2, [text], "hex40", tokenizer=bpe_tokenizer, n_draws=0)
    with pytest.raises(InputError, match=r"no fresh draws to rank among"):
        found.memorized(by="rank")
    with pytest.raises(InputError, match=r"fdr must be a number between 0 and 1.*it is 1.5"):
        found.memorized(1.5)
    with pytest.raises(InputError, match=r"a rank among 1 draw is no p-value below 1/2.*n_draws=19 at the least"):
        audit(tiny_gpt2, [text], "hex40", tokenizer=bpe_tokenizer).memorized(by="rank")


def test_texts_that_the_tokenizer_does_not_give_back(tiny_gpt2):
    capitals = (lambda text: list(text.lower().encode()), text_of_bytes)
    texts = [f"id {hex_of('a')}", f"ID {hex_of('b')}"]
    with pytest.raises(LossyTextError, match=r"1 of 2 texts do not survive the tokenizer.*sample 1"):
        audit(UniformModel(256), texts, "hex40", tokenizer=capitals)
    found = audit(UniformModel(256), texts, "hex40", tokenizer=capitals, on_lossy_text="skip")
    assert found.found == [hex_of("a")]
    assert found.signed_bits == pytest.approx([160 - 40 * 8])
    assert "left out" in repr(found)


# --- the result


def test_a_result_is_saved_loaded_and_drawn(recitation, tmp_path):
    model, tokenizer, texts = recitation
    texts = [*texts, f"0x{'0' * 16}", f"{hex_of('f', 9)}: {hex_of('f', 16)}"]
    found = audit(model, texts, "hex16", tokenizer=tokenizer, first_token=0, n_draws=2)
    found.save(tmp_path / "one")
    back = load(tmp_path / "one")
    assert isinstance(back, IdentifierAudit)
    assert repr(back) == repr(found)
    assert (back.draw_bits == found.draw_bits).all()
    assert back.to_pandas().equals(found.to_pandas())
    back.save(tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    shown = repr(found)
    assert "3 of 4 memorized at FDR 5 %, 3 of them by at least 20 bits" in shown
    assert "made up      1 " in shown
    assert "given away   1 " in shown
    assert not [string for string in found.found if string in shown]  # they may be secrets
    axes = found.plot()
    assert sum(patch.get_height() for patch in axes.patches) == pytest.approx(8)  # 4 identifiers, and draws for 4


def test_the_same_seed_gives_the_same_draws(tiny_gpt2, bpe_tokenizer):
    one, two, other = (
        audit(tiny_gpt2, [f"id {hex_of('a', 8)}"], "hex8", tokenizer=bpe_tokenizer, n_draws=3, seed=seed).draw_bits
        for seed in (0, 0, 1)
    )
    assert (one == two).all()
    assert (one != other).all()


def test_fresh_draws_are_not_the_canaries_that_a_user_drew_with_the_same_seed():
    drawn = []

    def model(ids):
        drawn.extend(map(tuple, ids.tolist()))
        return torch.zeros(*ids.shape, 512)

    canaries = np.random.default_rng(0).integers(512, size=(8, 6))
    audit(model, canaries.tolist(), "tokens:6x512", n_draws=4)
    runs = {ids[k : k + 3] for ids in drawn for k in range(len(ids) - 2)}
    own = {tuple(ids[k : k + 3]) for ids in canaries.tolist() for k in range(4)}
    probes = np.random.default_rng(0).integers(512, size=(8 * 4 + 8, 6)).tolist()
    assert not [ids for ids in probes[8:] if tuple(ids[:3]) in runs]
    assert own & runs  # the canaries themselves were read


def test_the_command(model_folder, tmp_path, capsys):
    from memorization import cli

    data = tmp_path / "data.txt"
    data.write_text("\n".join([*(f"The house met, id {hex_of(word)}" for word in "abc"), "no. 4917362058174093"]))
    arguments = ["--target", model_folder, "--data", data, "--format", "hex40", "--draws", 2, "--quiet"]
    for more, n, code in (
        ([], 3, 0),
        (["--overwrite", "--format", "digits16"], 4, 0),
        (["--overwrite", "--format", "\\w"], 4, 2),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main([str(one) for one in ("identifiers", *arguments, "--output", tmp_path / "out", *more)])
        assert stop.value.code == code
        said = capsys.readouterr()
        assert code or f"IdentifierAudit of {n} identifiers" in said.out
        assert len(IdentifierAudit.load(tmp_path / "out")) == n
    assert "the format '\\\\w'" in said.err
    assert (tmp_path / "out" / "identifiers.png").stat().st_size > 10_000
