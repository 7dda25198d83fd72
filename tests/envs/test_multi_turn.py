"""Dialogues in the environment: turns, replies, ends, rewards, and that a failing user leaves everything as it was."""

import copy

import gymnasium as gym
import numpy as np
import pytest

import textgym
from textgym.rewards import PerTurn
from textgym.testing import check_text_env
from textgym.users import Reply, ScriptedUser


class CoinUser:
    """Replies with a random word or ends the dialogue, by the episode's generator."""

    def __call__(self, batch, rngs):
        words = ["yes", "no", "perhaps so"]
        return [Reply(words[rng.integers(3)], "success" if rng.random() < 0.3 else None) for rng in rngs[: len(batch)]]


def echo(messages):
    """Repeat the agent's last turn; leave after "q"."""
    last = messages[-1]["content"]
    return None if last.endswith("q") else last


KEYWORDS = {
    "tokenizer": "char",
    "prompts": ["Hello"],
    "scorer": "length_band",
    "max_new_tokens": 12,
    "max_turns": 3,
    "max_reply_tokens": 24,
    "reply_format": "\nU: {reply}\nA:",
}


def write(env, *turns):
    """Write each text and EOS; return the steps."""
    steps = []
    for text in turns:
        for action in [*env.tokenizer.encode(text), env.eos_token_id]:
            steps.append(env.step(action))
    return steps


def test_the_contract_holds_with_a_user_that_draws_random_numbers():
    check_text_env("TextGen-v0", **(KEYWORDS | {"user": CoinUser(), "reward": "per_turn"}))


def test_the_contract_holds_with_dict_observations_and_a_stop_string():
    check_text_env("TextGen-v0", **(KEYWORDS | {"user": CoinUser(), "observation": "dict", "stop": ["e"]}))


def test_a_reply_is_written_behind_the_agents_eos_and_is_no_action():
    env = textgym.TextGenEnv(user=echo, **KEYWORDS)
    env.reset(seed=0)
    steps = write(env, "ab", "q")
    observation, _, terminated, truncated, info = steps[-1]
    assert info["completion"] == "ab\nU: ab\nA:q"
    assert info["turns"] == [
        {"role": "assistant", "content": "ab"},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "q"},
    ]
    chosen = [i for i, is_action in zip(info["completion_ids"], info["is_action"], strict=True) if is_action]
    eos = env.eos_token_id
    assert chosen == [*env.tokenizer.encode("ab"), eos, *env.tokenizer.encode("q"), eos]
    assert (info["end_reason"], terminated, truncated) == ("user_left", True, False)
    assert (observation != env.pad_token_id).sum() == len("Hello") + len(info["completion_ids"])


def test_the_last_reply_is_written_without_the_cue_for_the_agent():
    user = ScriptedUser(lambda goal, turns: Reply("Bye.", "failure" if len(turns) == 2 else None))
    env = textgym.TextGenEnv(user=user, **KEYWORDS)
    env.reset(seed=0)
    info = write(env, "a", "b")[-1][-1]
    assert info["completion"] == "a\nU: Bye.\nA:b\nU: Bye."
    assert info["end_reason"] == "failure"


def test_the_turn_budget_terminates():
    env = textgym.TextGenEnv(user=echo, **KEYWORDS)
    env.reset(seed=0)
    *_, (_, _, terminated, _, info) = write(env, "a", "b", "c")
    assert terminated
    assert info["end_reason"] == "max_turns"


def test_the_token_budget_counts_the_agents_tokens_only():
    env = textgym.TextGenEnv(user=echo, time_limit="truncated", **KEYWORDS)
    env.reset(seed=0)
    *_, (_, _, terminated, truncated, info) = write(env, "aaaaaa", "bbbb")
    assert (terminated, truncated, info["end_reason"]) == (False, True, "max_new_tokens")
    assert sum(info["is_action"]) == 12
    assert info["length"] == len(info["completion_ids"]) > 12


def test_a_stop_string_in_a_reply_of_the_user_ends_nothing():
    env = textgym.TextGenEnv(user=lambda messages: "stop", stop=["stop"], **KEYWORDS)
    env.reset(seed=0)
    assert not any(step[2] for step in write(env, "a", "b"))


def test_a_failing_user_leaves_the_step_undone_and_it_can_be_repeated():
    class Moody:
        fails = True

        def __call__(self, batch, rngs):
            drawn = [int(rng.integers(1000)) for rng in rngs]
            if self.fails:
                raise RuntimeError("not now")
            return [Reply(str(number)) for number in drawn]

    user = Moody()
    env = textgym.TextGenVectorEnv(3, user=user, **KEYWORDS)
    other = textgym.TextGenVectorEnv(3, user=CoinUser(), **KEYWORDS)
    env.reset(seed=0), other.reset(seed=0)
    env.step([1, 2, 3])
    before = copy.deepcopy(env.get_state())
    actions = [env.eos_token_id, 4, env.eos_token_id]
    with pytest.raises(RuntimeError, match="not now"):
        env.step(actions)
    after = env.get_state()
    for key in ("ids", "lengths", "steps", "rngs"):
        np.testing.assert_equal(after[key], before[key])
    np.testing.assert_equal(after["user_turns"], before["user_turns"])
    user.fails = False
    first = env.step(actions)[0]
    env.set_state(before)
    np.testing.assert_equal(env.step(actions)[0], first)


def test_a_reply_that_is_too_long_is_refused_with_its_length():
    env = textgym.TextGenEnv(user=lambda messages: "x" * 30, **KEYWORDS)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"has 37 tokens .*max_reply_tokens is 24"):
        env.step(env.eos_token_id)


def test_a_user_that_gives_too_few_replies_is_refused():
    class Silent:
        def __call__(self, batch, rngs):
            return []

    env = textgym.TextGenEnv(user=Silent(), **KEYWORDS)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="0 replies to 1 episodes"):
        env.step(env.eos_token_id)


@pytest.mark.parametrize("reward", ["per_token", "redistributed"])
def test_per_token_rewards_are_refused_with_a_user(reward):
    with pytest.raises(ValueError, match="per_turn"):
        textgym.TextGenEnv(user=echo, reward=reward, **KEYWORDS)


def test_a_tokenizer_without_eos_is_refused_with_a_user():
    class NoEos:
        def __init__(self, inner):
            self.inner = inner
            self.eos_token_id = None

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def encode(self, text):
            return self.inner.encode(text)

        def decode(self, ids):
            return self.inner.decode(ids)

    tokenizer = NoEos(textgym.TextGenEnv(tokenizer="char", prompts=["a"]).tokenizer)
    with pytest.raises(ValueError, match="no EOS"):
        textgym.TextGenEnv(user=echo, **(KEYWORDS | {"tokenizer": tokenizer}))


def test_a_reply_format_without_a_place_for_the_reply_is_refused():
    with pytest.raises(ValueError, match=r"must contain \{reply\}"):
        textgym.TextGenEnv(user=echo, **(KEYWORDS | {"reply_format": "\nUser: "}))


def test_per_turn_rewards_the_gain_of_each_turn_and_sums_to_the_final_score():
    progress = lambda batch: np.array([len(turns) / 3 for turns in batch.agent_turns])  # noqa: E731
    env = textgym.TextGenEnv(user=echo, reward="per_turn", **(KEYWORDS | {"scorer": progress}))
    env.reset(seed=0)
    rewards = [step[1] for step in write(env, "ab", "c", "d")]
    np.testing.assert_allclose(rewards, [0, 0, 1 / 3, 0, 1 / 3, 0, 1 / 3])


def test_a_turn_scorer_adds_a_reward_per_turn_to_the_final_score():
    reward = PerTurn(lambda turn: float(len(turn)), weight=0.5)
    env = textgym.TextGenEnv(user=echo, reward=reward, **(KEYWORDS | {"scorer": lambda text: 10.0}))
    env.reset(seed=0)
    rewards = [step[1] for step in write(env, "ab", "c", "d")]
    assert rewards == [0, 0, 1.0, 0, 0.5, 0, 10.5]


def test_turns_and_marks_are_the_same_in_a_vector_environment():
    single = textgym.TextGenEnv(user=echo, **KEYWORDS)
    single.reset(seed=0)
    expected = write(single, "ab", "q")[-1][-1]
    vector = gym.make_vec("TextGen-v0", num_envs=2, autoreset_mode="SameStep", user=echo, **KEYWORDS)
    vector.reset(seed=0)
    eos = single.eos_token_id
    for action in [*single.tokenizer.encode("ab"), eos, *single.tokenizer.encode("q"), eos]:
        *_, infos = vector.step([action, action])
    for key in ("completion", "is_action", "turns", "end_reason"):
        assert infos["final_info"][key][1] == expected[key]


def test_scores_are_normalised_by_the_bounds_of_their_level():
    samples = [{"prompt": "a", "level": 1}, {"prompt": "b", "level": 2}, {"prompt": "c", "level": 9}]
    bounds = {1: (0.5, 1.0), 2: (-1.0, 1.0)}
    env = textgym.TextGenEnv(
        tokenizer="char", prompts=samples, scorer=lambda text: 0.75, score_bounds=bounds, max_new_tokens=1
    )
    normalised = []
    for index in range(3):
        env.reset(options={"index": index})
        normalised.append(env.step(0)[-1].get("score_normalised"))
    np.testing.assert_equal(normalised, [0.5, 0.875, None])
