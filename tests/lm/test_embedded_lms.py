"""The language models inside the package: whole words as tokens, all other text as bytes, loading by name."""

import functools
import re

import gymnasium as gym
import numpy as np
import pytest
import tokenizers
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from embedded_lm_corpus import EOS, document
from embedded_lm_report import HELD_OUT_START
from textgym.lm import load_lm
from textgym.tokenizers import EMBEDDED_LMS, as_tokenizer, embedded_lm_path
from textgym_agents import LMPolicy
from textgym_agents.rollout import collect

TOKENIZER = as_tokenizer("tiny")
LIBRARY = tokenizers.Tokenizer.from_file(str(embedded_lm_path("tiny") / "tokenizer.json"))
VOCABULARY = LIBRARY.get_vocab()
BYTES = range(1, 257)
"""Ids of the single bytes; id 0 is the end-of-text token, the ids after them are whole words and marks."""
WORD = re.compile(r""" ?([^\W\d_]+|'s|\d+|[.,:;!?"'-]+)""")
MAX_MEGABYTES = {"tiny": 5, "tiny-early": 2}
FOREIGN = {
    "french": "L'été où Noël naquit, ç'a été une fête à Saint-Étienne: ÀÂÇÈÉÊËÎÏÔŒÙÛÜŸ ûïœæ",
    "emoji": "The dog 🐶 ran 👩\u200d🚀 home 👍🏽.",
    "chinese": "猫坐在垫子上。It slept.",
    "control characters": "a\0b\x07\x1b[31m\x7f\r\n\t\u2028\ufeff",
    "unknown words": "Quizzical zyzzyvas  jumped_over 1234567890 xylophones!?!",
}


@functools.cache
def parts():
    return [part for text in documents() for part in text.split(EOS)]


@functools.cache
def documents():
    return [document(1, HELD_OUT_START + index) for index in range(3000)]


def pieces(text: str) -> list[str]:
    """Return the words and marks of a text, with the space before them, in the byte alphabet of the vocabulary."""
    return [piece for piece, _ in LIBRARY.pre_tokenizer.pre_tokenize_str(text)]


@pytest.fixture(scope="module")
def known_ids() -> set[int]:
    """Return the ids that occur in the held-out documents."""
    return {i for part in parts() for i in LIBRARY.encode(part).ids}


@pytest.fixture(scope="module")
def stories() -> list[list[int]]:
    """Return the ids of 40 stories of `tiny` that continue the openings of the package, at temperature 1."""
    env = gym.make_vec("TextGen-v0", num_envs=40, max_new_tokens=150, scorer=len, autoreset_mode="SameStep")
    episodes = collect(env, LMPolicy("tiny"), 40, seed=0, generator=torch.Generator().manual_seed(0))
    return [ids[:length].tolist() for ids, length in zip(episodes.ids, episodes.text_lengths, strict=True)]


# Words ----------------------------------------------------------------------------------------------------------------


def test_each_word_and_mark_of_held_out_documents_is_one_token():
    for part in parts():
        ids = LIBRARY.encode(part).ids
        assert [LIBRARY.id_to_token(i) for i in ids] == pieces(part)
        assert ids == TOKENIZER.encode(part)
        assert TOKENIZER.decode(ids) == part


def test_the_only_bytes_in_held_out_documents_are_words_and_marks_of_one_character(known_ids):
    singles = {piece for part in parts() for piece in pieces(part) if len(piece) == 1}
    assert {LIBRARY.id_to_token(i) for i in known_ids.intersection(BYTES)} == singles


def test_each_token_that_is_not_a_byte_is_a_whole_word_mark_or_number(known_ids):
    entries = [TOKENIZER.decode([i]) for i in range(BYTES.stop, TOKENIZER.vocab_size)]
    assert TOKENIZER.encode(EOS) == [TOKENIZER.eos_token_id] == [0]
    assert len(set(entries)) == len(entries) > 2000
    for entry in entries:
        assert WORD.fullmatch(entry), entry
    # Letters alone could be a part of a word: nearly all entries are words of these documents, the others are rarer.
    assert len([i for i in known_ids if i not in BYTES]) > 0.9 * len(entries)


def test_the_bytes_are_all_256():
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    assert {LIBRARY.id_to_token(i) for i in BYTES} == set(alphabet)
    assert len(alphabet) == len(BYTES) == 256


def test_sampled_stories_consist_of_whole_words(stories, known_ids):
    # So no word is misspelt: bytes, the only other tokens, occur as words and marks of one character alone.
    for ids in stories:
        assert {i for i in ids if i in BYTES} <= known_ids, TOKENIZER.decode(ids)


def test_sampled_words_stand_apart(stories):
    # Nothing but training keeps a token without a space, such as the first word of a line, from following a letter.
    words = [word for ids in stories for word in re.findall(r"[^\W\d_]+", TOKENIZER.decode(ids))]
    known = {TOKENIZER.decode([i]).strip() for i in range(1, TOKENIZER.vocab_size)}
    joined = [word for word in words if word not in known]
    assert len(joined) <= len(words) / 1000, joined


# Text outside the vocabulary ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMBEDDED_LMS)
@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_other_text_is_encoded_in_bytes_and_decoded_exactly(name, text):
    tokenizer = as_tokenizer(name)
    ids = tokenizer.encode(text)
    assert set(ids).intersection(BYTES)
    assert tokenizer.decode(ids) == text
    assert LIBRARY.decode(ids) == text


def test_each_byte_outside_the_vocabulary_is_one_token():
    text = "\u732b\U0001f436ŝ"
    assert [LIBRARY.id_to_token(i) for i in TOKENIZER.encode(text)] == list("".join(pieces(text)))
    assert len(TOKENIZER.encode(text)) == len(text.encode()) == 9


def test_a_lone_surrogate_is_encoded_as_the_replacement_character():
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud83d b\udc36")) == "a\ufffd b\ufffd"


@pytest.mark.parametrize("name", EMBEDDED_LMS)
@pytest.mark.parametrize("text", [*FOREIGN.values(), "half \ud83d"], ids=[*FOREIGN, "lone surrogate"])
def test_an_environment_and_a_policy_take_other_text(name, text):
    env = gym.make_vec(
        "TextGen-v0", num_envs=2, model=name, prompts=[text], scorer=len, max_prompt_tokens=128, max_new_tokens=64
    )
    policy, tokenizer = LMPolicy(name), as_tokenizer(name)
    generator = torch.Generator().manual_seed(0)
    ids, _ = env.reset(seed=0)
    for token in [*tokenizer.encode(FOREIGN["emoji"]), tokenizer.eos_token_id]:
        output = policy.act(ids, generator=generator)
        assert env.action_space.contains(output.actions)
        assert np.isfinite(output.log_probs).all()
        ids, rewards, terminated, _, info = env.step(np.full(2, token))
    assert terminated.all()
    assert list(info["completion"]) == 2 * [FOREIGN["emoji"]]
    assert rewards.tolist() == 2 * [len(FOREIGN["emoji"])]


# Files and names ------------------------------------------------------------------------------------------------------


def test_both_models_have_the_same_tokenizer():
    for file in ("tokenizer.json", "tokenizer_config.json"):
        one, other = ((embedded_lm_path(name) / file).read_bytes() for name in EMBEDDED_LMS)
        assert one == other


@pytest.mark.parametrize("name", EMBEDDED_LMS)
def test_a_model_loads_by_name_and_with_plain_transformers(name):
    folder = embedded_lm_path(name)
    model, own = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False), load_lm(name)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    assert len(tokenizer) == as_tokenizer(name).vocab_size == own.config.vocab_size == model.config.vocab_size
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == own.config.eos_token_id == own.config.bos_token_id == 0
    for text in (*FOREIGN.values(), document(1, HELD_OUT_START)):
        ids = tokenizer(text)["input_ids"]
        assert ids == as_tokenizer(name).encode(text)
        assert tokenizer.decode(ids) == text
    ids = torch.tensor([TOKENIZER.encode("The dog ran home.")])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ids).logits, own(ids).logits)


@pytest.mark.parametrize("name", EMBEDDED_LMS)
def test_the_weights_are_small(name):
    assert (embedded_lm_path(name) / "model.safetensors").stat().st_size <= MAX_MEGABYTES[name] * 1e6


def test_the_early_model_is_the_smaller_one():
    tiny, early = (load_lm(name).num_parameters() for name in ("tiny", "tiny-early"))
    assert 1e6 <= tiny <= 3e6
    assert early < tiny


@pytest.mark.parametrize("load", [load_lm, as_tokenizer])
@pytest.mark.parametrize(
    ("name", "meant"), [("tinny", "tiny"), ("tiny-erly", "tiny-early"), ("tiny_early", "tiny-early")]
)
def test_an_unknown_name_suggests_the_nearest_model_and_lists_both(load, name, meant):
    with pytest.raises(ValueError, match=rf"'{name}'; did you mean '{meant}'\? Known: .*tiny, tiny-early\."):
        load(name)
