"""A reward model learns from pairs which of two stories ends well."""

import copy
import dataclasses
import json
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from textgym.batch import TextBatch
from textgym.lm import load_lm, random_lm
from textgym.scorers import BradleyTerry, PreferencePair, PreferenceSettings, read_pairs
from textgym.scorers.learned.preference_model import PreferenceModel, new_head
from textgym.testing import check_scorer
from textgym.tokenizers import CharTokenizer, as_tokenizer
from world import stable_rng, story

torch.set_num_threads(1)

PAIR = {"prompt": "It was ", "chosen": "good.", "rejected": "bad."}
SAME = {"prompt": "a", "chosen": "b", "rejected": "b"}


def world_pairs(seed, count):
    """Return pairs of a happy and a sad last sentence of stories, according to VADER, after a first sentence."""
    polarity = SentimentIntensityAnalyzer().polarity_scores
    starts, happy, sad = [], [], []
    index = 0
    while min(len(happy), len(sad)) < count:
        sentences = re.findall(r'[^.!?]+[.!?]+"?', story(seed, index))
        index += 1
        starts.append(sentences[0])
        feeling = polarity(sentences[-1])["compound"]
        if abs(feeling) >= 0.3:
            (happy if feeling > 0 else sad).append(" " + sentences[-1].strip())
    rng = stable_rng(seed, 1)
    return [PreferencePair(rng.choice(starts), *ends) for ends in zip(happy[:count], sad[:count], strict=True)]


def accuracy(scorer, pairs):
    prompts = [pair.prompt for pair in pairs]
    chosen = scorer(TextBatch.from_texts([pair.chosen for pair in pairs], prompts))
    rejected = scorer(TextBatch.from_texts([pair.rejected for pair in pairs], prompts))
    return float((chosen > rejected).mean())


def scores(scorer):
    return scorer(TextBatch.from_texts(["good.", "bad.", "", "a \ud800 b\0"], ["It was "] * 4))


def weights(scorer):
    return [*scorer._model.model.state_dict().values(), *scorer._model.head.state_dict().values()]


@pytest.fixture(scope="module")
def pairs():
    return world_pairs(1, 300)


@pytest.fixture(scope="module")
def trained():
    return BradleyTerry.train([PAIR, PAIR], PreferenceSettings(held_out=0, epochs=2))


# Learning


@pytest.mark.slow
def test_it_learns_which_stories_end_well(pairs):
    trained = BradleyTerry.train(pairs, PreferenceSettings(epochs=2, learning_rate=1e-3))
    seen = {end for pair in pairs for end in (pair.chosen, pair.rejected)}
    unseen = [pair for pair in world_pairs(2, 300) if not {pair.chosen, pair.rejected} & seen]
    assert trained.report.num_training == 270
    assert trained.report.num_held_out == 30
    assert trained.report.held_out_accuracy >= 0.85
    assert trained.report.held_out_loss < 0.5  # 0.69 at chance
    assert len(unseen) > 40
    assert accuracy(trained, unseen) >= 0.85


def test_the_mean_reward_of_the_training_texts_is_0(trained):
    good, bad = trained(TextBatch.from_texts(["good.", "bad."], ["It was "] * 2))
    assert good > 0 > bad
    assert good + bad == pytest.approx(0, abs=1e-5)


def test_a_frozen_backbone_is_unchanged_and_its_head_learns(pairs):
    model = load_lm("tiny")
    scorer = BradleyTerry.train(
        pairs, PreferenceSettings(freeze=True, epochs=20), model=model, tokenizer=as_tokenizer("tiny")
    )
    assert scorer.report.training_accuracy >= 0.85
    assert scorer.report.held_out_accuracy >= 0.7
    for name, value in scorer._model.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_a_loaded_model_is_copied_before_training():
    model = random_lm(257, window=64)
    before = copy.deepcopy(model.state_dict())
    scorer = BradleyTerry.train([PAIR], PreferenceSettings(held_out=0), model=model, tokenizer="byte")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not torch.equal(scorer._model.model.transformer.wpe.weight, model.transformer.wpe.weight)


def test_the_seed_decides_the_weights_and_no_global_generator_is_used():
    rows = [PAIR | {"prompt": f"On day {i} it was "} for i in range(12)]
    settings = PreferenceSettings(batch_size=4, epochs=1, held_out=0.25)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = BradleyTerry.train(rows, settings)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    torch.manual_seed(1)
    again = BradleyTerry.train(rows, settings)
    other = BradleyTerry.train(rows, dataclasses.replace(settings, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(again), strict=True))
    assert first.report == again.report
    assert not all(torch.equal(a, b) for a, b in zip(weights(first), weights(other), strict=True))


# Scoring


def test_it_follows_the_scorer_contract(trained):
    check_scorer(trained)


def test_threads_share_it(trained):
    batches = [TextBatch.from_texts([f"{word}."] * size) for size, word in enumerate(("good", "very bad", "sad"), 1)]
    expected = [trained(batch).tolist() for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(5):
            assert [rewards.tolist() for rewards in pool.map(trained, batches)] == expected


def test_the_reward_is_the_head_of_the_last_hidden_state():
    model, tokenizer = random_lm(8, window=32), CharTokenizer("abcdefg")
    head = new_head(32, torch.device("cpu"))
    with torch.no_grad():
        head.weight.copy_(torch.linspace(-1, 1, 32))
        head.bias.fill_(0.5)
        hidden = model.transformer(torch.tensor([[7, 0, 1, 2, 7]])).last_hidden_state[0, -1]
        expected = float(head(hidden))
    reward_model = PreferenceModel(model, tokenizer, head)
    assert reward_model.encode("ab", "c").ids == [7, 0, 1, 2, 7]
    assert reward_model.rewards([reward_model.encode("ab", "c")])[0] == pytest.approx(expected, rel=1e-5)


def test_long_texts_keep_the_end_of_the_prompt_and_the_beginning_of_the_completion():
    reward_model = PreferenceModel(random_lm(8, window=8), CharTokenizer("abcdefg"), new_head(32, torch.device("cpu")))
    assert reward_model.encode("abcdefg", "gfedcba").ids == [7, 4, 5, 6, 6, 5, 4, 7]
    assert len(reward_model.encode("a", "gfedcba").ids) == 8


def test_copies_share_the_weights_and_pickles_contain_them(trained):
    assert copy.deepcopy(trained) is trained
    np.testing.assert_array_equal(scores(pickle.loads(pickle.dumps(trained))), scores(trained))


# Files


def test_save_and_load_round_trip(trained, tmp_path):
    trained.save(tmp_path / "rewards")
    loaded = BradleyTerry.load(tmp_path / "rewards")
    np.testing.assert_array_equal(scores(loaded), scores(trained))
    assert loaded.report == trained.report
    assert loaded.settings == trained.settings
    suffixes = {file.suffix for file in (tmp_path / "rewards").rglob("*") if file.is_file()}
    assert suffixes == {".json", ".safetensors"}
    trained.save(tmp_path / "rewards")  # replaces the old one
    np.testing.assert_array_equal(scores(BradleyTerry.load(tmp_path / "rewards")), scores(trained))


def test_a_byte_level_model_is_saved_too(tmp_path):
    model = random_lm(260, window=64)
    scorer = BradleyTerry.train([PAIR], PreferenceSettings(held_out=0), model=model, tokenizer="byte")
    scorer.save(tmp_path / "rewards")
    np.testing.assert_array_equal(scores(BradleyTerry.load(tmp_path / "rewards")), scores(scorer))


def test_a_tokenizer_without_a_file_format_cannot_be_saved(tmp_path):
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    scorer = BradleyTerry.train(
        [row], PreferenceSettings(held_out=0), model=random_lm(8), tokenizer=CharTokenizer("abcdefg")
    )
    with pytest.raises(ValueError, match="CharTokenizer has no file format"):
        scorer.save(tmp_path / "rewards")
    assert not (tmp_path / "rewards").exists()


def test_a_folder_with_other_content_is_not_replaced(trained, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not a reward model, so it is not replaced"):
        trained.save(tmp_path)


def test_loading_a_folder_without_a_reward_model_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"it has no preferences\.json"):
        BradleyTerry.load(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "preferences.json").write_text("{"), r"preferences\.json is damaged"),
        (lambda folder: (folder / "preferences.json").write_text('{"format": 99}'), "has format 99, this version"),
        (lambda folder: (folder / "head.safetensors").unlink(), "is damaged: FileNotFoundError"),
        (lambda folder: (folder / "head.safetensors").write_bytes(b"no"), "is damaged: SafetensorError"),
        (lambda folder: (folder / "backbone" / "config.json").unlink(), "is damaged: ValueError: unknown model"),
        (lambda folder: (folder / "backbone" / "model.safetensors").write_bytes(b"no"), "is damaged: "),
    ],
)
def test_a_damaged_folder_is_one_clear_error(spoil, message, tmp_path):
    scorer = BradleyTerry.train(
        [PAIR], PreferenceSettings(held_out=0, epochs=1), model=random_lm(257), tokenizer="byte"
    )
    scorer.save(tmp_path / "rewards")
    spoil(tmp_path / "rewards")
    with pytest.raises(ValueError, match=message):
        BradleyTerry.load(tmp_path / "rewards")


# Pairs


def test_pairs_are_read_from_jsonl(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [PAIR | {"source": "a person"}, PAIR | {"chosen": "schön."}]
    path.write_text("\ufeff" + json.dumps(rows[0]) + "\n\n" + json.dumps(rows[1], ensure_ascii=False), "utf-8")
    assert read_pairs(path) == [PreferencePair("It was ", "good.", "bad."), PreferencePair("It was ", "schön.", "bad.")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"', r"pairs\.jsonl, line 2: got '\{\"prompt\": \"a\"', expected a JSON object"),
        ("[1, 2]", r"line 2: got list \[1, 2\], expected 'prompt', 'chosen', 'rejected'"),
        ("{}", "line 2: got the columns none, expected 'prompt', 'chosen', 'rejected'"),
        (
            '{"prompt": "a", "chosen": "b", "refused": "c"}',
            "line 2: got the columns 'prompt', 'chosen', 'refused', expected 'prompt', 'chosen', 'rejected'",
        ),
        ('{"prompt": "a", "chosen": 5, "rejected": "c"}', "line 2: 'chosen' is int 5, expected text"),
        (json.dumps(SAME), "line 2: chosen and rejected are both 'b', expected two that differ"),
        (
            '{"prompt": "a", "chosen": [{"role": "user"}], "rejected": "c"}',
            r"line 2: 'chosen' is list \[\{'role': 'user'\}\], expected text",
        ),
    ],
)
def test_a_malformed_line_is_an_error_with_its_number_and_the_expected_columns(line, message, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(PAIR) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_pairs(path)


def test_a_file_without_pairs_and_a_binary_file_are_errors(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n\n")
    with pytest.raises(ValueError, match=r"pairs\.jsonl contains no pairs"):
        read_pairs(path)
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match=r"pairs\.jsonl is not UTF-8"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: BradleyTerry.train([]), ValueError, "at least one pair, got none"),
        (lambda: BradleyTerry.train([PAIR, {"prompt": "a"}]), ValueError, "pair 1: got the columns 'prompt', expected"),
        (lambda: BradleyTerry.train(["a"]), ValueError, "pair 0: got str 'a'"),
        (
            lambda: BradleyTerry.train([PAIR, SAME]),
            ValueError,
            "pair 1: chosen and rejected are both 'b', expected two",
        ),
        (lambda: BradleyTerry.train([PreferencePair(**SAME)]), ValueError, "pair 0: chosen and rejected are both 'b'"),
        (lambda: BradleyTerry.train("no-such.jsonl"), FileNotFoundError, r"no-such\.jsonl"),
        (
            lambda: BradleyTerry.train([PAIR], {"epochs": 1}),
            TypeError,
            r"settings is {'epochs': 1} of type dict; expected PreferenceSettings\(\.\.\.\)",
        ),
        (
            lambda: BradleyTerry.train([PAIR], PreferenceSettings),
            TypeError,
            "settings is .*PreferenceSettings.* of type type; expected PreferenceSettings",
        ),
        (lambda: BradleyTerry("folder"), TypeError, r"got 'folder'; expected BradleyTerry\.load\(folder\)"),
        (lambda: BradleyTerry.train([PAIR], model="tinny"), ValueError, "did you mean 'tiny'"),
        (lambda: BradleyTerry.train([PAIR], tokenizer="byte"), TypeError, "got 'tiny' and tokenizer='byte'"),
        (lambda: BradleyTerry.train([PAIR], model=random_lm(8)), TypeError, "got a GPT2LMHeadModel and tokenizer=None"),
        (lambda: PreferenceSettings(epochs=0), ValueError, "epochs is 0, expected an integer >= 1"),
        (lambda: PreferenceSettings(batch_size=1.5), ValueError, "batch_size is 1.5, expected an integer >= 1"),
        (lambda: PreferenceSettings(learning_rate=0), ValueError, "learning_rate must be positive, got 0"),
        (lambda: PreferenceSettings(held_out=1), ValueError, r"held_out must be in \[0, 1\)"),
    ],
)
def test_invalid_training_arguments_are_rejected(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("kind", [str, Path])
def test_training_accepts_a_file_of_pairs(kind, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text((json.dumps(PAIR) + "\n") * 3, encoding="utf-8")
    settings = PreferenceSettings(held_out=0, epochs=1)
    assert BradleyTerry.train(kind(path), settings, model=random_lm(257), tokenizer="byte").report.num_training == 3


def test_a_tokenizer_needs_bos_or_eos():
    tokenizer = CharTokenizer("abcdefg")
    tokenizer.eos_token_id = None
    with pytest.raises(ValueError, match="neither a BOS nor an EOS"):
        BradleyTerry.train([PAIR], model=random_lm(8), tokenizer=tokenizer)


def test_one_pair_is_never_held_out():
    report = BradleyTerry.train(
        [PAIR], PreferenceSettings(held_out=0.9, epochs=1), model=random_lm(257), tokenizer="byte"
    ).report
    assert (report.num_training, report.num_held_out, report.held_out_accuracy) == (1, 0, None)
