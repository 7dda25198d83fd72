"""Environments with a simulated user: whole episodes, and per-turn rewards."""

import pickle
from dataclasses import fields

import gymnasium as gym
import numpy as np
import pytest

from textgym import TextGenEnv, TextGenVectorEnv
from textgym.constraints import BanTokens
from textgym.errors import ScorerError
from textgym.prompts import Sample
from textgym.rewards import PerTurn, as_reward
from textgym.scorers import Scorer
from textgym.testing import check_text_env
from textgym.tokenizers import as_tokenizer
from textgym.users import LMUser, Reply, ScriptedUser

EOS = 256


def haggler(goal, agent_turns):
    if goal["wants"] in agent_turns[-1]:
        return Reply("Thank you!", "success")
    return Reply("Goodbye.", "failure") if len(agent_turns) == 3 else Reply(f"No, {goal['wants']}!")


def make(**keywords):
    settings = {
        "tokenizer": "byte", "prompts": [Sample("Sell.", ("ok",), {"wants": "tea"})], "user": ScriptedUser(haggler),
        "max_turns": 4, "max_new_tokens": 24, "max_reply_tokens": 40, "scorer": words, "reward": "per_turn",
    }  # fmt: skip
    return TextGenEnv(**settings | keywords)


def words(completion):
    return float(len(completion.split()))


def ids_of(text):
    """Return the agent's token ids; ``|`` is EOS, the end of a turn."""
    return [EOS if byte == ord("|") else byte for byte in text.encode()]


def play(env, text, seed=0, **reset):
    """Return the rewards of an episode and the last ``info``, with ``"ended"`` and ``"observation"`` added."""
    env.reset(seed=seed, **reset)
    rewards = []
    for token in ids_of(text):
        observation, reward, terminated, truncated, info = env.step(token)
        rewards.append(reward)
        if terminated or truncated:
            info |= {"ended": "terminated" if terminated else "truncated"}
            break
    return rewards, info | {"observation": observation}


def test_an_episode_continues_until_the_user_ends_it():
    _, info = play(make(), "milk?|tea!|more")
    assert (info["end_reason"], info["ended"]) == ("success", "terminated")
    assert info["completion"] == "milk?\nUser: No, tea!\nAssistant:tea!\nUser: Thank you!"
    assert info["turns"] == [
        {"role": "assistant", "content": "milk?"},
        {"role": "user", "content": "No, tea!"},
        {"role": "assistant", "content": "tea!"},
        {"role": "user", "content": "Thank you!"},
    ]
    frames = [len("\nUser: No, tea!\nAssistant:"), len("\nUser: Thank you!")]
    assert info["is_action"] == [True] * 6 + [False] * frames[0] + [True] * 5 + [False] * frames[1]
    assert info["length"] == len(info["is_action"]) == len(info["completion_ids"])
    assert bytes(token for token in info["observation"] if token < EOS).decode() == "Sell." + info["completion"]


def test_the_user_may_end_the_episode_with_a_failure_or_leave_without_a_reply():
    assert play(make(), "a|b|c|")[1]["end_reason"] == "failure"
    _, info = play(make(user=lambda messages: None), "a|b|c|")
    assert (info["end_reason"], info["completion"]) == ("user_left", "a")
    assert info["turns"] == [{"role": "assistant", "content": "a"}]


def test_max_turns_terminates_the_episode_after_the_last_reply():
    _, info = play(make(max_turns=2), "a|b|c|")
    assert (info["end_reason"], info["ended"]) == ("max_turns", "terminated")
    assert info["completion"] == "a\nUser: No, tea!\nAssistant:b\nUser: No, tea!"


def test_an_outcome_of_any_name_ends_the_episode():
    for name in ("max_turns", "eos", "", "late"):
        _, info = play(make(user=ScriptedUser(lambda goal, turns, name=name: Reply("x", name))), "a|b|")
        assert (info["end_reason"], info["completion"]) == (name, "a\nUser: x")


def test_only_the_agents_tokens_count_towards_max_new_tokens():
    _, info = play(make(max_new_tokens=4, time_limit="truncated"), "a|bcd|")
    assert (info["end_reason"], info["ended"]) == ("max_new_tokens", "truncated")
    assert info["completion"].endswith("Assistant:bc")
    _, info = play(make(max_new_tokens=4), "a|bcd|")
    assert info["ended"] == "terminated"
    _, info = play(make(max_new_tokens=4), "abc|")
    assert (info["end_reason"], info["completion"]) == ("max_new_tokens", "abc\nUser: No, tea!\nAssistant:")


def test_a_prefix_belongs_to_the_agents_first_turn():
    _, info = play(make(), "a!|", options={"index": 0, "prefix": "te"})
    assert (info["end_reason"], info["turns"][0]["content"]) == ("success", "tea!")


def test_reply_format_sets_the_text_around_a_reply():
    _, info = play(make(reply_format=" [{reply}] "), "a|tea|")
    assert info["completion"] == "a [No, tea!] tea [Thank you!"


def test_the_window_holds_all_replies():
    env = make(max_prompt_tokens=5, max_new_tokens=7, max_turns=3, max_reply_tokens=11)
    assert env.unwrapped.window == 5 + 7 + 3 * 11
    assert env.has_turns
    assert not make(user=None, reward="terminal").has_turns


class Wrong:
    """A user with fixed replies, or one that raises."""

    def __init__(self, *replies):
        self.replies = replies

    def __call__(self, batch, rngs):
        rngs[0].random()
        if isinstance(self.replies[0], Exception):
            raise self.replies[0]
        return self.replies


@pytest.mark.parametrize(
    ("user", "error", "message"),
    [
        (
            Wrong(Reply("x" * 30)),
            ValueError,
            "the user's reply .* has 48 tokens .*max_reply_tokens is 40",
        ),
        (Wrong(Reply("x"), Reply("y")), ValueError, "the user gave 2 replies to 1 episodes"),
        (Wrong("x"), TypeError, "the user gave 'x' of type str, expected a Reply"),
        (Wrong(RuntimeError("gone")), RuntimeError, "gone"),
    ],
)
def test_a_user_that_raises_leaves_the_episode_unchanged(user, error, message):
    env = make(user=user)
    env.reset(seed=0)
    env.step(ord("a"))
    before = env.get_state()
    with pytest.raises(error, match=message):
        env.step(EOS)
    np.testing.assert_equal(env.get_state(), before)
    user.replies = [Reply("fine", "success")]
    *_, info = env.step(EOS)
    assert info["completion"] == "a\nUser: fine"


def test_a_scorer_that_raises_undoes_the_reply():
    fails = [True]

    def scorer(completion):
        if fails[0]:
            raise RuntimeError("no")
        return 1.0

    env = make(scorer=scorer)
    env.reset(seed=0)
    env.step(ord("a"))
    before = env.get_state()
    with pytest.raises(ScorerError, match="no"):
        env.step(EOS)
    np.testing.assert_equal(env.get_state(), before)
    fails[0] = False
    assert env.step(EOS)[1] == 1.0


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"max_turns": 0}, "max_turns must be an integer of at least 1, got 0"),
        ({"max_reply_tokens": 0}, "max_reply_tokens must be an integer of at least 1, got 0"),
        ({"reply_format": "User:"}, r"reply_format must contain \{reply\}, got 'User:'"),
        ({"reward": "per_token", "scorer": "length_band"}, "PerToken gives per-token rewards; user replies have none"),
        ({"reward": "redistributed"}, "Redistributed gives per-token rewards"),
    ],
)
def test_settings_that_conflict_with_a_user_are_rejected(keywords, message):
    with pytest.raises(ValueError, match=message):
        make(**keywords)


class Draws:
    """A user that replies with a random number and ends the dialogue at one in four."""

    def __call__(self, batch, rngs):
        numbers = [int(rng.integers(100)) for rng in rngs]
        return [Reply(f"{number}", "left" if number % 4 == 0 else None) for number in numbers]


def test_replies_are_reproducible_by_seed():
    env = make(user=Draws())
    first, again, other = (play(env, "a|b|c|d|", seed)[1]["completion"] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("user", [Draws(), ScriptedUser(haggler)])
def test_a_snapshot_and_a_clone_continue_like_the_original(user):
    env = make(user=user)
    env.reset(seed=1)
    for token in ids_of("a|b"):
        env.step(token)
    state, twin, elsewhere = env.get_state(), env.clone(), make(user=user)
    outcomes = [finish(env), finish(twin)]
    env.set_state(state)
    elsewhere.reset(seed=9)
    elsewhere.set_state(state)
    outcomes += [finish(env), finish(elsewhere)]
    assert all(str(outcome) == str(outcomes[0]) for outcome in outcomes)
    finish(copied := pickle.loads(pickle.dumps(env)))
    assert copied.has_turns


def finish(env):
    steps = []
    if not env.core.running[0]:
        env.reset()
    for token in ids_of("|c|d|e|"):
        *step, info = env.step(token)
        steps.append((*step, info))
        if step[2] or step[3]:
            break
    return steps


def test_vector_and_single_environments_give_the_same_dialogues():
    config = make(user=Draws()).config
    settings = {field.name: getattr(config, field.name) for field in fields(config)}
    envs = TextGenVectorEnv(num_envs=4, autoreset_mode="SameStep", **settings)
    envs.reset(seed=[1, 2, 3, 4])
    returned, completions = [[] for _ in range(4)], [None] * 4
    for token in ids_of("a|b|c|d|"):
        _, rewards, terminated, truncated, info = envs.step(np.full(4, token))
        for i in [i for i in range(4) if completions[i] is None]:
            returned[i].append(float(rewards[i]))
            if terminated[i] or truncated[i]:
                completions[i] = info["final_info"]["completion"][i]
    expected = [play(TextGenEnv(**settings), "a|b|c|d|", seed) for seed in (1, 2, 3, 4)]
    assert completions == [info["completion"] for _, info in expected]
    assert returned == [rewards for rewards, _ in expected]
    assert len({len(rewards) for rewards in returned}) > 1


@pytest.mark.parametrize(
    "keywords",
    [
        {"user": Draws()},
        {"user": ScriptedUser(haggler), "reward": "terminal", "observation": "dict"},
        {"user": Draws(), "reward": PerTurn(words, 0.5), "group_size": 2},
        {"user": Draws(), "constraints": BanTokens(["b"]), "on_invalid_action": "ignore"},
        {"user": Draws(), "reward": "potential", "stop": "zz"},
    ],
)
def test_environments_with_a_user_keep_the_contract(keywords):
    config = {
        "tokenizer": "char", "prompts": [Sample("Sell.", (), {"wants": "tea"}), Sample("Go", (), {"wants": "a"})],
        "max_turns": 3, "max_new_tokens": 12, "max_reply_tokens": 40, "scorer": "length_band", "reward": "per_turn",
    }  # fmt: skip
    check_text_env("TextGen-v0", **config | keywords)


def test_a_language_model_is_the_user_of_a_whole_episode():
    user = LMUser("tiny", max_new_tokens=12)

    def made():
        return gym.make(
            "TextGen-v0", model="tiny", user=user, max_turns=3, max_reply_tokens=32, reward="per_turn",
            max_new_tokens=16, prompts=["Once there was a dog."],
        )  # fmt: skip

    text = as_tokenizer("tiny").encode(" He ran.")
    eos = as_tokenizer("tiny").eos_token_id
    completions = []
    for seed in (0, 0, 1):
        env = made()
        env.reset(seed=seed)
        rewards = 0.0
        for token in [*text, eos, *text, eos, eos]:
            *_, reward, terminated, truncated, info = env.step(token)
            rewards += reward
            if terminated or truncated:
                break
        assert info["end_reason"] == "max_turns"
        assert [turn["role"] for turn in info["turns"]] == ["assistant", "user"] * 3
        assert rewards == pytest.approx(info["score"])
        completions.append(info["completion"])
    assert completions[0] == completions[1] != completions[2]


# Per-turn rewards


def test_turn_rewards_are_score_increments_that_sum_to_the_final_score():
    rewards, info = play(make(), "a b|c|tea d|")
    # After turn 1: a b User: No, tea! Assistant: = 6 words. Turn 2 glues c to the colon and adds 4, as does turn 3.
    assert [reward for reward in rewards if reward] == [6, 4, 4]
    assert [i for i, reward in enumerate(rewards) if reward] == [3, 5, 11]
    assert sum(rewards) == info["score"] == 14


def test_an_episode_cut_off_within_a_turn_gives_the_remaining_score_at_its_end():
    rewards, info = play(make(max_new_tokens=6), "a|b c d e|")
    assert (rewards[1], sum(rewards), info["score"], info["end_reason"]) == (5, info["score"], 6, "max_new_tokens")


def test_a_turn_scorer_scores_each_turns_text_and_the_last_step_adds_the_final_score():
    rewards, info = play(make(reward=PerTurn(len, weight=0.5)), "abc|d|tea|")
    assert rewards == [0, 0, 0, 1.5, 0, 0.5, 0, 0, 0, 1.5 + info["score"]]


def test_a_turn_cut_off_by_the_budget_is_scored_too():
    rewards, info = play(make(reward=PerTurn(len), max_new_tokens=5), "ab|cdef|")
    assert rewards == [0, 0, 2, 0, 2 + info["score"]]


def test_the_turn_scorer_receives_the_turn_and_its_sample():
    seen = []

    def scorer(prompts, completions, references, wants):
        seen.append((prompts, completions, references, wants))
        return [0.0] * len(completions)

    play(make(reward=PerTurn(scorer)), "a|tea|")
    assert seen == [
        (["Sell."], ["a"], [("ok",)], ["tea"]),
        (["Sell."], ["tea"], [("ok",)], ["tea"]),
    ]


def test_a_turn_is_rewarded_once_although_invalid_actions_follow_its_end():
    for policy in ("ignore", "terminate"):
        env = make(
            reward=PerTurn(len), constraints=BanTokens(["x"]), on_invalid_action=policy, invalid_action_penalty=0.25,
        )  # fmt: skip
        rewards, _ = play(env, "ab|xx")
        assert rewards[:3] == [0, 0, 2]
        assert rewards[3:] == ([-0.25, -0.25] if policy == "ignore" else [words("ab User: No, tea! Assistant:") - 0.25])


def test_without_a_user_the_reward_comes_at_the_end():
    assert play(make(user=None), "a b|")[0] == [0, 0, 0, 2]
    assert play(make(user=None, reward=PerTurn(len)), "a b|")[0] == [0, 0, 0, 5]
    assert play(make(user=None, reward=PerTurn(len), max_new_tokens=2), "a b|")[0] == [0, 1 + 2]


def breaks_at(*sizes):
    def scorer(completion):
        if len(completion) in sizes:
            raise RuntimeError("no")
        return words(completion)

    return scorer


def test_a_turn_whose_scorer_failed_gives_0_and_the_next_one_includes_its_increment():
    first = len("a\nUser: No, tea!\nAssistant:")
    env = make(scorer=breaks_at(first), on_scorer_error="invalid")
    rewards, info = play(env, "a|tea|")
    assert rewards[:2] == [0, 0]
    assert sum(rewards) == rewards[-1] == info["score"]


def test_an_end_whose_scorer_failed_gives_0_and_keeps_earlier_rewards():
    last = len("a\nUser: No, tea!\nAssistant:tea\nUser: Thank you!")
    rewards, info = play(make(scorer=breaks_at(last), on_scorer_error="invalid"), "a|tea|")
    assert np.isnan(info["score"])
    assert rewards == [0, words("a User: No, tea! Assistant:"), 0, 0, 0, 0]


def test_a_turn_scorer_may_not_apply_and_its_errors_raise():
    rewards, info = play(make(reward=PerTurn(lambda turn: None if turn == "a" else 1.0)), "a|tea|")
    assert rewards == [0, 0, 0, 0, 0, 1 + info["score"]]
    with pytest.raises(ScorerError, match="'lambda' raised ZeroDivisionError"):
        play(make(reward=PerTurn(lambda turn: 1 / 0)), "a|")


def test_progress_reaches_the_turn_scorer():
    received = []

    class Records(Scorer):
        def __call__(self, batch):
            return np.zeros(len(batch))

        def set_progress(self, progress):
            received.append(progress)

    make(reward=PerTurn(Records())).set_progress(0.5)
    assert received == [0.5]
    assert isinstance(as_reward("per_turn"), PerTurn)
