"""Data sets of reasoning-gym as prompts, and their verifiers as scorers."""

import pickle

import gymnasium as gym
import numpy as np
import pytest

import textgym  # noqa: F401 (registers TextGen-v0)
from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.prompts import GeneratorPrompts, ReasoningGymPrompts, as_prompts, train_eval_split
from textgym.scorers import Checker, MathAnswer, NumericAnswer, ReasoningGym, as_reward_func, evaluate
from textgym.testing import check_scorer

ENTRY = {"question": "2 * 4 =", "answer": "8", "metadata": {"level": 1}}


class Tasks:
    """A fake data set with reasoning-gym's interface."""

    def __init__(self, size=3):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"question": f"{index} + 1 =", "answer": str(index + 1), "metadata": {}}

    def score_answer(self, answer, entry):
        if answer == "boom":
            raise ValueError("cannot be read")
        return 1.0 if answer == entry["answer"] else 0.0 if answer is None else 7.0 if answer == "seven" else 0.01


def score(scorer, *completions, entry=ENTRY):
    return scorer(TextBatch.from_texts(completions, metadata=[entry] * len(completions))).tolist()


# Without the package --------------------------------------------------------------------------------------------------


def test_the_answer_is_the_stripped_completion():
    assert score(ReasoningGym(Tasks()), "8", " 8\n", "9", "") == [1.0, 1.0, 0.01, 0.01]


def test_the_answer_follows_the_last_marker():
    scorer = ReasoningGym(Tasks(), marker="####")
    assert score(scorer, "#### 9, no #### 8", "8", "8 ####", "") == [1.0, 0.0, 0.01, 0.0]


def test_the_answer_is_inside_the_last_tag():
    scorer = ReasoningGym(Tasks(), tag="answer")
    texts = ("<answer>9</answer> or <answer> 8 </answer>!", "<answer>8", "8</answer>", "</answer>8<answer>", "8")
    assert score(scorer, *texts) == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert score(scorer, "<answer>9 <answer>8</answer>", "<answer>8</answer> <answer>") == [1.0, 1.0]


def test_a_sample_without_an_entry_has_no_score():
    batch = TextBatch.from_texts(["8", "8", "8"], metadata=[ENTRY, {}, {"answer": "8"}])
    np.testing.assert_array_equal(ReasoningGym(Tasks())(batch), [1.0, np.nan, np.nan])


def test_scores_are_clipped_and_the_entry_is_unchanged():
    entry = dict(ENTRY)
    assert score(ReasoningGym(Tasks()), "seven", entry=entry) == [1.0]
    assert entry == ENTRY


def test_a_text_that_the_verifier_rejects_fails_alone():
    batch = TextBatch.from_texts(["8", "boom", "9"], metadata=[ENTRY] * 3)
    scores = evaluate(ReasoningGym(Tasks()), batch, on_error=0.0)
    assert scores.total.tolist() == [1.0, 0.0, 0.01]
    assert scores.failed.tolist() == [False, True, False]
    message = "scorer 'reasoning_gym' raised ValueError: cannot be read, for the completion 'boom'"
    with pytest.raises(ScorerError, match=message) as caught:
        evaluate(ReasoningGym(Tasks()), batch)
    assert caught.value.completions == ("boom",)
    with pytest.raises(ScorerError, match=message) as caught:
        ReasoningGym(Tasks())(batch)
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_scorer_satisfies_the_contract():
    check_scorer(ReasoningGym(Tasks(), tag="answer"), metadata=ENTRY)


def test_invalid_arguments_are_rejected():
    with pytest.raises(TypeError, match="dataset is 'chain_sum' of type str, which has no score_answer"):
        ReasoningGym("chain_sum")
    with pytest.raises(ValueError, match="marker is blank: ' '"):
        ReasoningGym(Tasks(), marker=" ")
    with pytest.raises(ValueError, match="tag is blank"):
        ReasoningGym(Tasks(), tag="")
    with pytest.raises(ValueError, match="a marker or a tag, not both"):
        ReasoningGym(Tasks(), marker="####", tag="answer")


def test_an_entry_becomes_one_cached_sample():
    prompts = as_prompts(Tasks())
    assert isinstance(prompts, ReasoningGymPrompts)
    assert (len(prompts), prompts[1].prompt, prompts[1].references) == (3, "1 + 1 =", ("2",))
    assert prompts[1].metadata == Tasks()[1]
    assert prompts[1] is prompts[-2]
    drawn = [prompts.draw(rng).prompt for rng in [np.random.default_rng(3)] for _ in range(40)]
    assert set(drawn) == {"0 + 1 =", "1 + 1 =", "2 + 1 ="}
    train, held_out = train_eval_split(prompts, eval_share=0.3)
    assert (len(train), len(held_out)) == (2, 1)
    with pytest.raises(IndexError):
        prompts[3]


def test_an_entry_may_have_no_answer():
    class Open(Tasks):
        def __getitem__(self, index):
            return {"question": "Solve it.", "answer": None, "metadata": {}}

    sample = as_prompts(Open())[0]
    assert (sample.references, sample.metadata["answer"]) == ((), None)


def test_an_empty_data_set_is_rejected():
    with pytest.raises(ValueError, match="the data set is empty"):
        as_prompts(Tasks(size=0))
    with pytest.raises(TypeError, match="of type type; expected a list of prompts"):
        as_prompts(Tasks)


# With it --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain_sum():
    reasoning_gym = pytest.importorskip("reasoning_gym")
    return reasoning_gym.create_dataset("chain_sum", size=20, seed=1)


def test_a_data_set_gives_prompts_and_scorer_of_an_environment(chain_sum):
    keywords = {"prompts": chain_sum, "tokenizer": "char", "max_prompt_tokens": 200, "max_new_tokens": 16}
    env = gym.make("TextGen-v0", scorer=ReasoningGym(chain_sum), **keywords)
    tokenizer = env.unwrapped.tokenizer
    for index in (0, 7):
        entry = chain_sum[index]
        for answer, expected in ((entry["answer"], 1.0), (entry["answer"] + "?", None), ("no", 0.0)):
            env.reset(options={"index": index})
            for token in [*tokenizer.encode(answer), tokenizer.eos_token_id]:
                _, reward, terminated, _, info = env.step(token)
            size = len(entry["answer"])
            assert terminated
            assert reward == (size / (size + 1) if expected is None else expected)
            assert info["prompt"] == entry["question"]


def test_tasks_are_reproducible_by_seed(chain_sum):
    envs = [gym.make("TextGen-v0", prompts=chain_sum, tokenizer="char", max_prompt_tokens=200) for _ in range(2)]
    first, second = ([env.reset(seed=s)[0].tolist() for s in range(5)] for env in envs)
    assert first == second
    assert len({tuple(row) for row in first}) > 1


def test_other_scorers_can_use_the_references(chain_sum):
    sample = as_prompts(chain_sum)[3]
    texts = [f"It is {sample.references[0]}", "It is 0.5"]
    batch = TextBatch.from_texts(texts, references=[sample.references] * 2, metadata=[sample.metadata] * 2)
    assert NumericAnswer()(batch).tolist() == [1.0, 0.0]
    pytest.importorskip("math_verify")
    assert MathAnswer()(batch).tolist() == [1.0, 0.0]


def test_an_endless_data_set_is_drawn_in_order(chain_sum):
    from reasoning_gym.dataset import ReseedingDataset

    endless = ReseedingDataset(chain_sum, chunk_size=2)
    prompts = as_prompts(endless)
    assert isinstance(prompts, GeneratorPrompts)
    samples = [prompts.draw(np.random.default_rng(0)) for _ in range(3)]
    assert [sample.prompt for sample in samples[:2]] == [chain_sum[0]["question"], chain_sum[1]["question"]]
    assert score(ReasoningGym(endless), samples[2].references[0], entry=samples[2].metadata) == [1.0]


def test_a_composite_data_set():
    pytest.importorskip("reasoning_gym")
    from reasoning_gym.composite import DatasetSpec
    from reasoning_gym.factory import create_dataset

    parts = [DatasetSpec("chain_sum", 1, {}), DatasetSpec("leg_counting", 1, {})]
    mixed = create_dataset("composite", seed=2, size=10, datasets=parts)
    prompts, scorer = as_prompts(mixed), ReasoningGym(mixed)
    assert len({sample.metadata["metadata"]["source_dataset"] for sample in map(prompts.__getitem__, range(10))}) == 2
    assert [score(scorer, prompts[i].references[0], entry=prompts[i].metadata) for i in range(10)] == [[1.0]] * 10


def test_the_documented_weaknesses_of_some_verifiers():
    reasoning_gym = pytest.importorskip("reasoning_gym")

    def score_of(name, answer):
        data = reasoning_gym.create_dataset(name, size=1, seed=1)
        return score(ReasoningGym(data), answer, entry=data[0])[0]

    assert 0 < score_of("power_function", "a") <= 0.05
    assert 0 < score_of("palindrome_generation", "a") <= 0.05
    assert score_of("countdown", "") == 0.01
    assert 0 < score_of("spell_backward", "aaaa") < 0.5
    assert score_of("game_of_life_halting", "a") == 1.0
    with pytest.raises(ScorerError, match="raised ValueError: invalid literal"):
        score_of("prime_factorization", "a")


def test_a_verifier_can_run_in_its_own_process(chain_sum):
    checker = Checker(ReasoningGym(chain_sum).score, time_limit=30)
    try:
        assert score(checker, chain_sum[0]["answer"], "no", entry=chain_sum[0]) == [1.0, 0.0]
    finally:
        checker.close()


def test_scorer_and_reward_function_can_be_pickled(chain_sum):
    scorer = pickle.loads(pickle.dumps(ReasoningGym(chain_sum, tag="answer")))
    entry = chain_sum[0]
    assert score(scorer, f"<answer>{entry['answer']}</answer>", entry=entry) == [1.0]
    columns = {key: [value] for key, value in entry.items()}
    assert as_reward_func(ReasoningGym(chain_sum))([entry["question"]], [entry["answer"]], **columns) == [1.0]
