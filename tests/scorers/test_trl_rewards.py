"""TRL's reward functions as scorers, unchanged, and scorers as reward functions in TRL's trainer."""

import functools
import logging
import math
import pickle
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

import textgym  # noqa: F401 (registers TextGen-v0)
from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.scorers import Keywords, LengthBand, Schedule, WeightedSum, as_reward_func, as_scorer, evaluate
from textgym.scorers.functions import ColumnFunctionScorer
from textgym.tokenizers import CharTokenizer, embedded_lm_path

CHAR = CharTokenizer()
THIRD = [{"solution": r"\frac{1}{3}"}] * 2


# Scorers as reward functions; this needs no TRL -----------------------------------------------------------------------


def test_a_scorer_becomes_a_function_with_a_name():
    reward = as_reward_func(LengthBand(2, 4, unit="words"))
    assert reward(prompts=["", ""], completions=["one", "one two"]) == [0.5, 1.0]
    assert reward.__name__ == "length_band"
    assert as_reward_func("sentiment", name="mood").__name__ == "mood"
    assert as_reward_func({"length_band": 1.0}).__name__ == "weighted_sum"


def test_columns_are_metadata_and_references_are_references():
    seen = []

    def look(batch):
        seen.append((batch.prompts, batch.references, batch.metadata))
        return [0.0] * len(batch)

    as_reward_func(look)(prompts=["p", "q"], completions=["", ""], level=[1, 2], references=["r", ["s", "t"]])
    as_reward_func(look)(prompts=["p"], completions=[""], reference=["r"], answer=[None])
    as_reward_func(look)(prompts=["p"], completions=[""], references=[None])
    assert seen[0] == (["p", "q"], [("r",), ("s", "t")], [{"level": 1}, {"level": 2}])
    assert seen[1] == (["p"], [("r",)], [{"reference": "r", "answer": None}])
    assert seen[2] == (["p"], [()], [{}])


def test_chats_are_read_as_texts():
    seen = []

    def look(batch):
        seen.append((batch.prompts, batch.completions))
        return [0.0] * len(batch)

    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    said = [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "12"},
        {"role": "assistant", "content": "It is 12."},
    ]
    as_reward_func(look)(prompts=[prompt, "Hi"], completions=[said, [{"content": "yes"}]])
    assert seen == [(["Be brief.\nHi", "Hi"], ["It is 12.", "yes"])]


def test_with_the_tokenizer_a_scorer_receives_the_generated_tokens():
    ids = [[*CHAR.encode("ab"), CHAR.eos_token_id], CHAR.encode("abcd")]
    columns = {"prompts": ["Hi ", ""], "completions": ["ab", "abcd"], "completion_ids": ids}
    assert as_reward_func(LengthBand(4, 8), CHAR)(**columns) == [0.75, 1.0]
    assert as_reward_func(LengthBand(4, 8))(**columns) == [0.5, 1.0]

    def look(batch):
        assert batch.completion_ids == ids
        assert batch.prompt_lengths.tolist() == [3, 0]
        return [0.0, 0.0]

    assert as_reward_func(look, "char")(**columns) == [0.0, 0.0]


def test_none_means_not_applicable_and_failures_raise():
    def picky(completion):
        return 1 / len(completion) if completion != "skip" else None

    reward = as_reward_func(picky)
    assert reward(prompts=["", ""], completions=["ab", "skip"]) == [0.5, None]
    with pytest.raises(ScorerError, match="division by zero") as caught:
        reward(prompts=["", "", ""], completions=["ab", "", "skip"])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(ScorerError, match="gave inf"):
        as_reward_func(lambda text: math.inf)(prompts=[""], completions=["a"])


def test_the_trainers_state_moves_a_schedule():
    reward = as_reward_func(Schedule("length_band", {0.0: 0.0, 1.0: 2.0}))
    long = {"prompts": [""], "completions": ["0123456789"], "log_metric": print, "environments": None}
    halfway = SimpleNamespace(global_step=5, max_steps=10)
    assert reward(**long, trainer_state=halfway) == [1.0]
    assert reward(**long, trainer_state=SimpleNamespace(global_step=10, max_steps=10)) == [2.0]
    assert reward(**long, trainer_state=SimpleNamespace(global_step=0, max_steps=-1)) == [2.0]


def test_a_reward_function_can_be_pickled():
    reward = pickle.loads(pickle.dumps(as_reward_func({"length_band": 2.0}, "tiny", name="mine")))
    assert (reward.__name__, reward(prompts=[""], completions=["0123456789"])) == ("mine", [2.0])


def test_an_invalid_scorer_is_rejected_at_construction():
    with pytest.raises(ValueError, match="did you mean 'sentiment'"):
        as_reward_func("sentimant")


# Functions that read chats --------------------------------------------------------------------------------------------


def test_a_function_annotated_with_dicts_receives_chats():
    def annotated(completions: list[list[dict[str, str]]], prompts, **_):
        assert prompts[0] == [{"role": "user", "content": "Hi"}]
        return [float(len(chat[0]["content"])) for chat in completions]

    def quoted(completions: "typing.List[typing.List[typing.Dict]]"):  # noqa: F821
        return [float(len(chat[0]["content"])) for chat in completions]

    def bare(completions):
        return [float(len(text)) for text in completions]

    batch = TextBatch.from_texts(["abc"], prompts=["Hi"])
    assert [as_scorer(function)(batch).tolist() for function in (annotated, quoted, bare)] == [[3.0]] * 3


def test_conversational_overrides_the_annotation():
    def bare(completions, **_):
        return [len(completion) for completion in completions]

    batch = TextBatch.from_texts(["abc"])
    assert ColumnFunctionScorer(bare, conversational=True)(batch).tolist() == [1.0]
    assert ColumnFunctionScorer(bare, conversational=False)(batch).tolist() == [3.0]
    assert ColumnFunctionScorer(bare)(batch).tolist() == [3.0]


# TRL's own functions --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rewards():
    return pytest.importorskip("trl.rewards", exc_type=ImportError)


def score(function, completions, metadata=None):
    """Return the scores of a function as a scorer, ``None`` for NaN."""
    batch = TextBatch.from_texts(completions, metadata=metadata)
    return [None if np.isnan(value) else round(float(value), 6) for value in as_scorer(function)(batch)]


def test_all_functions_of_trl_are_covered(rewards):
    known = {
        *(
            "accuracy_reward",
            "get_cosine_scaled_reward",
            "get_repetition_penalty_reward",
            "get_soft_overlong_punishment",
        ),
        *("reasoning_accuracy_reward", "think_format_reward"),
    }
    assert {name for names in rewards._import_structure.values() for name in names} == known


def test_accuracy_reward(rewards):
    pytest.importorskip("math_verify")
    texts = [r"My answer is \boxed{\frac{1}{3}}", r"My answer is \boxed{\frac{1}{2}}"]
    assert score(rewards.accuracy_reward, texts, THIRD) == [1.0, 0.0]
    assert score(rewards.accuracy_reward, texts, [{"solution": ""}, THIRD[0]]) == [None, 0.0]
    with pytest.raises(ScorerError, match="needs the column 'solution'"):
        score(rewards.accuracy_reward, texts)


def test_reasoning_accuracy_reward(rewards):
    pytest.importorskip("math_verify")
    texts = [r"<think> hm </think> \boxed{\frac{1}{3}}", r"<think> hm \boxed{\frac{1}{3}}"]
    assert score(rewards.reasoning_accuracy_reward, texts, THIRD) == [1.0, 0.0]
    other = functools.partial(rewards.reasoning_accuracy_reward, reasoning_delimiters=["hm"])
    assert score(other, texts, THIRD) == [1.0, 1.0]


def test_cosine_scaled_reward_counts_the_tokens_of_the_environment(rewards):
    pytest.importorskip("math_verify")
    texts = [r"\boxed{\frac{1}{3}}", r"\boxed{\frac{1}{2}}"]  # 19 bytes
    assert score(rewards.get_cosine_scaled_reward(max_len=38), texts, THIRD) == [0.75, -0.75]


def test_think_format_reward(rewards):
    texts = ["<think>\nI think.\n</think>\nSo.", "<think>\nI think.\nSo.", ""]
    assert score(rewards.think_format_reward, texts) == [1.0, 0.0, 0.0]


def test_repetition_penalty_reward(rewards):
    assert score(rewards.get_repetition_penalty_reward(ngram_size=2), ["abcd", "aaaaa", ""]) == [0.0, -0.75, 0.0]


def test_soft_overlong_punishment(rewards):
    punish = rewards.get_soft_overlong_punishment(max_completion_len=10, soft_punish_cache=4)
    assert score(punish, ["a" * 6, "a" * 8, "a" * 11]) == [0.0, -0.5, -1.0]


def test_they_can_be_weighted_and_run_in_an_environment(rewards):
    scorers = {"format": (rewards.think_format_reward, 1.0)}
    scorers["short"] = (rewards.get_soft_overlong_punishment(max_completion_len=24, soft_punish_cache=4), 0.5)
    keywords = {"tokenizer": "char", "prompts": ["Why?"], "scorer": scorers, "max_new_tokens": 40}
    env = gym.make("TextGen-v0", **keywords)
    env.reset(seed=0)
    for token in [*CHAR.encode("<think>so</think> yes"), CHAR.eos_token_id]:  # 22 tokens
        _, reward, terminated, _, info = env.step(token)
    assert (terminated, reward) == (True, 0.75)
    assert info["scores"] == {"format": 1.0, "short": -0.5}


def test_an_unreadable_gold_answer_gives_no_score(rewards):
    pytest.importorskip("math_verify")
    batch = TextBatch.from_texts([r"\boxed{1}"], metadata=[{"solution": ""}])
    with pytest.raises(ScorerError, match="gave no score"):
        evaluate(as_scorer(rewards.accuracy_reward), batch)


# Our scorers in TRL's trainer -----------------------------------------------------------------------------------------


@pytest.fixture
def train(tmp_path):
    """Train a small model for some steps with TRL's GRPOTrainer; return its log of each step."""
    trl = pytest.importorskip("trl", exc_type=ImportError)
    datasets = pytest.importorskip("datasets")
    from textgym.lm import load_lm

    def run(table, functions, tokenizer, steps):
        config = trl.GRPOConfig(
            output_dir=str(tmp_path),
            num_generations=2,
            max_completion_length=6,
            per_device_train_batch_size=4,
            max_steps=steps,
            beta=0.0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        trainer = trl.GRPOTrainer(
            model=load_lm("tiny"),
            reward_funcs=functions,
            args=config,
            train_dataset=datasets.Dataset.from_dict(table),
            processing_class=tokenizer,
        )
        trainer.train()
        return [entry for entry in trainer.state.log_history if "reward" in entry]

    logging.disable(logging.WARNING)
    yield run
    logging.disable(logging.NOTSET)


@pytest.fixture
def tokenizer():
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(embedded_lm_path("tiny"))


@pytest.mark.filterwarnings("ignore")
def test_grpo_trainer_takes_scorers_as_reward_functions(train, tokenizer):
    batches = []

    def nothing(batch):
        batches.append((batch.prompts, batch.metadata, batch.completion_ids, batch.completions))
        return [None] * len(batch)

    keywords = Keywords(column="wanted")
    both = WeightedSum({"length": (LengthBand(4, 8), 1.0), "words": (keywords, -0.5)})
    functions = [
        as_reward_func(LengthBand(4, 8), tokenizer),
        as_reward_func(both, tokenizer, name="both"),
        as_reward_func(keywords),
        as_reward_func(nothing, tokenizer),
    ]
    prompts = ["A small dog", "The old king", "One day a boy", "In the forest"]
    table = {"prompt": prompts, "wanted": [["the"], ["a"], ["e"], ["was", "he"]]}
    steps = train(table, functions, tokenizer, steps=2)

    assert len(steps) == len(batches) == 2
    for entry, (drawn, metadata, ids, completions) in zip(steps, batches, strict=True):
        assert set(drawn) <= set(prompts)
        assert [row["wanted"] for row in metadata] == [table["wanted"][prompts.index(prompt)] for prompt in drawn]
        assert [tokenizer.decode(row, skip_special_tokens=True) for row in ids] == completions
        length = np.mean([np.clip(min(len(row) / 4, 2 - len(row) / 8), 0, 1) for row in ids])
        assert entry["rewards/length_band/mean"] == pytest.approx(length)
        words = keywords(TextBatch.from_texts(completions, metadata=metadata)).mean()
        assert entry["rewards/keywords/mean"] == pytest.approx(words)
        assert entry["rewards/both/mean"] == pytest.approx(length - 0.5 * words)
        assert entry["rewards/nothing/mean"] is None
        assert entry["reward"] == pytest.approx(2 * length + 0.5 * words)


@pytest.mark.filterwarnings("ignore")
def test_chats_go_from_the_trainer_to_a_scorer_and_back_to_trls_own_function(train, tokenizer, rewards):
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    seen = []

    def look(batch):
        seen.append((batch.prompts, batch.completions))
        return [float(len(text)) for text in batch.completions]

    theirs = rewards.get_repetition_penalty_reward(ngram_size=1)
    functions = [as_reward_func(look), rewards.think_format_reward, theirs]
    functions += [
        as_reward_func(rewards.think_format_reward, name="format"),
        as_reward_func(theirs, tokenizer, "again"),
    ]
    table = {"prompt": [[{"role": "user", "content": "A small dog"}]] * 2}
    (entry,) = train(table, functions, tokenizer, steps=1)
    ((prompts, completions),) = seen
    assert prompts == ["A small dog"] * 4
    assert entry["rewards/look/mean"] == pytest.approx(np.mean(list(map(len, completions))))
    assert entry["rewards/format/mean"] == entry["rewards/think_format_reward/mean"] == 0.0
    assert entry["rewards/again/mean"] == entry["rewards/repetition_penalty_reward/mean"]
