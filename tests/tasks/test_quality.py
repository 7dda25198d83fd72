"""The task `quality`: the world's continuations score 1, degenerate texts little, each fault lowers its component."""

import gymnasium as gym
import numpy as np
import pytest

import textgym
from textgym import TextBatch
from textgym.scorers import Fluency
from textgym.tasks import TASKS, score_bounds, task_keywords, task_prompts
from textgym.tasks.quality import CREDIT, Completeness, StoryFluency, surprises, token_credit
from textgym.testing import check_scorer
from textgym.testing.reward_hacking import degenerate_texts
from textgym.tokenizers import as_tokenizer
from textgym_agents import LMPolicy, collect
from textgym_agents.decoding import Greedy

TASK = TASKS["quality"]
SCORER = TASK.scorer()
COMPONENTS = ("grammar", "coherence", "fluency", "novelty", "completeness")
TOKENIZER = as_tokenizer("tiny")
OPENING = "Tom and his sister Rosa went to the sea. Tom found a red boat on the beach."
STORY = "He showed it to Rosa. They put it into the water and watched it. It was a wonderful day."


def samples(level, count, first=0):
    prompts = task_prompts("quality", "eval", level)
    return [prompts[i] for i in range(first, first + count)]


def scores(pairs):
    """Return total and components of pairs of a sample and a completion, which ends with EOS."""
    prompts = [TOKENIZER.encode(sample.prompt) for sample, _ in pairs]
    ended = [[*TOKENIZER.encode(f" {text}"), TOKENIZER.eos_token_id] for _, text in pairs]
    found = SCORER.score_components(TextBatch.from_ids(TOKENIZER, prompts, ended, [sample for sample, _ in pairs]))
    return found.total, {name: found.components[name] for name in COMPONENTS}


def components_of(*texts):
    """Return the components of completions of one opening, whose reference is `STORY`."""
    sample = textgym.prompts.Sample(OPENING, (STORY,))
    return scores([(sample, text) for text in texts])[1]


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_worlds_continuations_score_one(level):
    total, _ = scores([(sample, sample.references[0]) for sample in samples(level, 50)])
    assert total.mean() > 0.999
    assert total.min() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("level", [1, 2, 3])
def test_all_of_the_worlds_held_out_continuations_score_nearly_one(level):
    total, _ = scores([(sample, sample.references[0]) for sample in samples(level, 1000)])
    assert total.mean() > 0.999
    assert total.min() > 0.8


def hacks(sample, others):
    """Return degenerate completions by name."""
    story = sample.references[0]
    num_words = len(story.split())
    safe = "It was a beautiful day."
    return degenerate_texts(sample.prompt, [story], references=[story]) | {
        "one safe sentence": safe,
        "a safe sentence again and again": " ".join([safe] * (num_words // 5)),
        "many safe sentences": " ".join(others[: num_words // 6]),
        "the first sentence": f"{story.split('. ')[0].rstrip('.')}.",
        "half of the words": " ".join(story.split()[: num_words // 2]),
        "the continuation twice": f"{story} {story}",
    }


SAFE = (
    "The sun shone on the roofs.", "It was the best day of the week.", "They laughed the whole evening.",
    "Everything seemed bright and beautiful.", "They were happy and full of hope.", "The sky was full of lights.",
    "They sat together until it was dark.", "The birds sang in the trees.", "Nothing could be better than this.",
    "She smiled at him.", "It was a day to remember.",
)  # fmt: skip


def test_degenerate_texts_score_well_below_the_worlds_continuation():
    found: dict[str, list[float]] = {}
    for level in (1, 2, 3):
        for sample in samples(level, 3):
            texts = hacks(sample, SAFE)
            for name, total in zip(texts, scores([(sample, text) for text in texts.values()])[0], strict=True):
                found.setdefault(name, []).append(total)
    means = {name: float(np.mean(column)) for name, column in found.items()}
    assert max(means.values()) < 0.5, means


def test_the_most_probable_text_of_the_early_model_is_no_optimum():
    env = gym.make_vec("TextGenQuality-v0", num_envs=12, autoreset_mode="SameStep", split="eval")
    episodes = collect(env, Greedy(LMPolicy("tiny-early")), 12, seed=0)
    assert np.mean([info["score"] for info in episodes.infos]) < 0.6


@pytest.mark.parametrize(
    ("component", "worse"),
    [
        ("grammar", "He showed it to Rosa. They puts it into the the water and watched it. It was an wonderful day."),
        ("coherence", "She showed it to Ben. They put it into the water and watched it. It was his blue boat."),
        ("fluency", "Day wonderful a was it. Showed it to Rosa he. They watched it and put it the water into."),
        ("novelty", "He showed it to Rosa. He showed it to Rosa. He showed it to Rosa. He showed it to Rosa."),
        ("novelty", OPENING),
        ("completeness", "He showed it to Rosa."),
        ("completeness", "He showed it to Rosa. They put it into the water and watched it. It was a wonderful"),
        ("completeness", " ".join([STORY, *SAFE[:5]])),
    ],
)
def test_each_fault_lowers_its_component(component, worse):
    good, bad = components_of(STORY, worse)[component]
    assert bad < 0.8 * good


def log_probs_of(text):
    return dict(zip(tokens_of(text), Fluency("tiny").token_log_probs(completed(text))[0], strict=True))


def completed(text):
    """Return a batch of one completion of `OPENING`, in tokens."""
    ids = [*TOKENIZER.encode(text), TOKENIZER.eos_token_id]
    return TextBatch.from_ids(TOKENIZER, [TOKENIZER.encode(OPENING)], [ids], [textgym.prompts.Sample(OPENING)])


def tokens_of(text):
    return [TOKENIZER.token_text(token) for token in completed(text).completion_ids[0]]


def test_fluency_is_the_mean_over_sentences_of_one_over_one_plus_surprises():
    text = " The pumpkin pumpkin sang. He pumpkin."
    found = surprises(completed(text))[0]
    first, second = found[:5], found[5:]
    assert first.sum() >= 2
    assert second.sum() >= 1
    expected = (1 / first.sum() + 1 / (1 + second.sum())) / 2  # the first surprise is free
    assert StoryFluency()(completed(text))[0] == pytest.approx(expected)


def test_a_surprise_is_a_token_of_probability_below_one_in_a_thousand():
    text = " He showed it to the pumpkin."
    expected = [nats < np.log(0.001) for nats in log_probs_of(text).values()]
    assert surprises(completed(text))[0].tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_a_text_of_another_tokenizer_is_scored_as_in_the_models_own_tokens():
    text = " The pumpkin pumpkin sang. He pumpkin."
    encoded = StoryFluency()(TextBatch.from_texts([text, ""], [OPENING] * 2))
    own = completed(text)
    own = TextBatch.from_ids(
        TOKENIZER, [own.ids[0][: own.prompt_lengths[0]]], [own.completion_ids[0][:-1]], own.samples
    )
    assert encoded.tolist() == [StoryFluency()(own)[0], 0.0]


def test_completeness_counts_words_per_word_of_the_reference():
    texts = ["a b c d.", "a b c d e f g h.", "a b c d e f g h i j.", "a b.", "a b c d", "", "a " * 12]
    batch = TextBatch.from_texts(texts, references=[["one two three four"]] * len(texts))
    np.testing.assert_allclose(Completeness()(batch), [1, 1, 0.5, 0.5, 0.5, 0, 0])
    assert np.isnan(Completeness()(TextBatch.from_texts(["a."]))[0])


def test_the_scorer_keeps_the_contract():
    check_scorer(Completeness(), references=["The dog ran home."])


@pytest.mark.slow
def test_the_fluency_of_stories_keeps_the_contract():
    check_scorer(StoryFluency())


def credit_of(text):
    """Return the credit of each token of a completion, times the number of tokens."""
    batch = completed(text)
    return token_credit(lambda texts: np.zeros(len(texts)), batch, np.zeros(1))[0] * len(batch.completion_ids[0])


def test_the_rewards_of_a_text_sum_to_its_score():
    env = textgym.TextGenEnv(id="TextGenQuality-v0", split="eval")
    env.reset(seed=0, options={"index": 1})
    info = {}
    for token in [*env.tokenizer.encode(" It was a day like any other."), env.eos_token_id]:
        *_, reward, _, _, info = env.step(token)
    assert reward == info["score"] == pytest.approx(sum(info["token_rewards"]))


def test_tokens_that_surprise_contradict_or_repeat_have_less_credit_than_others():
    text = " He showed it to Ben. His pumpkin went to the beach."
    credit = list(zip(tokens_of(text), credit_of(text), strict=True))
    assert {(" Ben", -2 * CREDIT), (" pumpkin", -CREDIT), (" it", 0.0)} <= set(credit)  # Ben surprises, too
    repeated = " Rosa found a red boat on the sand."
    assert credit_of(repeated)[4] == -2 * CREDIT  # "found a red boat" occurred, and another one surprises
    assert repeated.split()[4] == "boat"


def test_an_empty_text_has_no_credit():
    batch = TextBatch.from_ids(TOKENIZER, [TOKENIZER.encode(OPENING)], [[]], [textgym.prompts.Sample(OPENING)])
    assert token_credit(lambda texts: np.zeros(len(texts)), batch, np.zeros(1))[0].tolist() == []


def test_texts_of_another_tokenizer_have_equal_credit():
    batch = TextBatch.from_texts([" It was a day.", ""])
    values = token_credit(lambda texts: np.zeros(len(texts)), batch, np.zeros(2))
    assert [value.tolist() for value in values] == [[0.0] * 14, []]


def test_the_early_model_needs_no_other_tokenizer():
    early, late = as_tokenizer("tiny-early"), as_tokenizer("tiny")
    assert early.vocab_size == late.vocab_size
    assert all(early.token_text(i) == late.token_text(i) for i in range(late.vocab_size))


def test_the_zero_of_the_normalised_score_is_that_of_the_early_model():
    assert TASK.model == "tiny-early"
    assert sorted(score_bounds(TASK)) == [1, 2, 3]
    assert task_keywords("quality", model="tiny-early")["score_bounds"] == score_bounds(TASK)
    assert "score_bounds" not in task_keywords("qa", model="tiny-early")
