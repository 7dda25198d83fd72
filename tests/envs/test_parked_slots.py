"""``reset(options={"num_episodes": B})`` in every vector interface: slots without an episode are parked."""

import pickle

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded

from fixtures import make_env, small_lm
from textgym import TextGenVecEnv, TextGenVectorEnv
from textgym.constraints import AllowTokens
from textgym.prompts import Curriculum, ListPrompts
from textgym.testing.traces import check_same
from textgym.tokenizers import CharTokenizer
from textgym_agents import LMPolicy, collect

CHAR = CharTokenizer()
EOS = CHAR.eos_token_id
MODES = ["SameStep", "NextStep", "Disabled"]
INTERFACES = [*MODES, "sb3"]
KEYWORDS = {"tokenizer": "char", "prompts": ["Hi ", "Hello ", "So "], "max_new_tokens": 6, "scorer": len}


def make(interface, num_envs=4, **keywords):
    if interface == "sb3":
        pytest.importorskip("stable_baselines3")
        return TextGenVecEnv(num_envs, **KEYWORDS | keywords)
    return TextGenVectorEnv(num_envs, autoreset_mode=interface, **KEYWORDS | keywords)


def reset(env, num_episodes=None, seed=None):
    options = {} if num_episodes is None else {"num_episodes": num_episodes}
    if isinstance(env, TextGenVectorEnv):
        return env.reset(seed=seed, options=options)[0]
    env.seed(seed)
    env.set_options(options)
    return env.reset()


def step(env, actions):
    """Return the observations, rewards, ends and ended texts of a step, and reset by hand where nothing else does."""
    if not isinstance(env, TextGenVectorEnv):
        observations, rewards, done, infos = env.step(np.array(actions))
        return observations, rewards, done, [infos[i]["completion"] for i in np.flatnonzero(done)]
    observations, rewards, terminated, truncated, infos = env.step(np.array(actions))
    done = terminated | truncated
    texts = [infos.get("final_info", infos)["completion"][i] for i in np.flatnonzero(done)]
    if env.autoreset_mode.value == "Disabled" and done.any():
        observations, _ = env.reset(options={"reset_mask": done})
    return observations, rewards, done, texts


def play(env, seed=0):
    """Step until no slot is running; return the ended texts by slot."""
    rng, texts = np.random.default_rng(seed), [[] for _ in range(env.num_envs)]
    while True:
        actions = np.where(rng.random(env.num_envs) < 0.2, EOS, rng.integers(1, 90, env.num_envs))
        try:
            _, _, done, ended = step(env, actions)
        except ResetNeeded:
            return texts
        for slot, text in zip(np.flatnonzero(done), ended, strict=True):
            texts[slot].append(text)


class Counted:
    """A scorer, a curriculum and a prompt source in which everything that is asked for is counted."""

    def __init__(self):
        self.num_scored = self.num_drawn = 0
        counted = self

        class Drawn(ListPrompts):
            def draw(self, rng):
                counted.num_drawn += 1
                return super().draw(rng)

        self.curriculum = Curriculum([Drawn(["a", "cab"])], success_score=2.0)

    def __call__(self, batch):
        self.num_scored += len(batch)
        return np.zeros(len(batch))


@pytest.mark.parametrize("mode", MODES)
def test_as_many_prompts_are_drawn_and_texts_scored_and_observed_as_episodes_are_collected(mode):
    counted = Counted()
    env = make_env(num_envs=64, mode=mode, scorer=counted, prompts=counted.curriculum)
    episodes = collect(env, LMPolicy(small_lm()), 80, seed=0, generator=torch.Generator().manual_seed(0))
    assert len(episodes) == 80
    assert (counted.num_scored, counted.curriculum.num_observed, counted.num_drawn) == (80, 80, 80)


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_interface_starts_that_many_episodes_and_then_none(interface):
    counted = Counted()
    env = make(interface, 8, scorer=counted, prompts=counted.curriculum)
    reset(env, num_episodes=19, seed=0)
    assert sum(len(texts) for texts in play(env)) == 19
    assert (counted.num_scored, counted.curriculum.num_observed, counted.num_drawn) == (19, 19, 19)
    assert not env.running.any()


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_parked_slot_keeps_its_last_observation_whatever_its_action_and_gets_no_reward_and_no_end(interface):
    env = make(interface, 3)
    reset(env, num_episodes=3, seed=0)
    step(env, [5, 6, 7])
    last, rewards, done, _ = step(env, [EOS, 6, 7])
    assert (rewards.tolist(), done.tolist()) == ([1.0, 0.0, 0.0], [True, False, False])
    assert last[0].tolist()[:-1].count(EOS) == 1
    assert env.running.tolist() == [False, True, True]
    for action in (5, EOS, 10**6):
        observations, rewards, done, _ = step(env, [action, 6, 7])
        np.testing.assert_array_equal(observations[0], last[0])
        assert (rewards[0], done[0], env.running[0]) == (0.0, False, False)
        assert (observations[1:] != last[1:]).any()


@pytest.mark.parametrize("interface", INTERFACES)
def test_with_fewer_episodes_than_slots_the_first_slots_run(interface):
    env = make(interface, 4)
    observations = reset(env, num_episodes=2, seed=0)
    assert env.running.tolist() == [True, True, False, False]
    assert (observations[2:] == observations[0]).all()  # a text like any other, not an empty one
    assert [len(texts) for texts in play(env)] == [1, 1, 0, 0]


@pytest.mark.parametrize("interface", INTERFACES)
def test_the_episodes_are_those_of_an_environment_without_a_limit(interface):
    limited, unlimited = make(interface, 4), make(interface, 4)
    reset(limited, num_episodes=11, seed=3)
    reset(unlimited, seed=3)
    played = [[] for _ in range(4)]
    for _ in range(40):
        actions = np.array([5, 6, EOS, 7])
        if not limited.running.any():
            break
        _, _, done, texts = step(limited, actions)
        _, _, all_done, all_texts = step(unlimited, actions)
        ended = dict(zip(np.flatnonzero(all_done), all_texts, strict=True))
        for slot, text in zip(np.flatnonzero(done), texts, strict=True):
            assert ended[slot] == text
            played[slot].append(text)
    assert sum(map(len, played)) == 11


@pytest.mark.parametrize("interface", INTERFACES)
def test_when_all_slots_are_parked_a_step_needs_a_reset_and_a_plain_reset_removes_the_limit(interface):
    env = make(interface, 2)
    reset(env, num_episodes=2, seed=0)
    step(env, [EOS, EOS])
    with pytest.raises(ResetNeeded, match="all num_episodes episodes have ended"):
        step(env, [5, 5])
    reset(env)
    for _ in range(10):
        step(env, [EOS, EOS])
    step(env, [5, 5])  # NEXT_STEP resets here
    assert env.running.all()


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("copied", ["clone", "pickle", "snapshot"])
def test_clones_pickles_and_snapshots_are_parked_as_the_original(interface, copied):
    env = make(interface, 4, scorer="length_band")
    reset(env, num_episodes=7, seed=0)
    for _ in range(3):
        step(env, [EOS, 5, 6, EOS])
    if copied == "clone":
        other = env.clone()
    elif copied == "pickle":
        other = pickle.loads(pickle.dumps(env))
    else:
        other = make(interface, 4, scorer="length_band")
        other.set_state(pickle.loads(pickle.dumps(env.get_state())))
    assert play(other) == play(env)
    check_same(env.get_state(), other.get_state(), "state")


@pytest.mark.parametrize("interface", INTERFACES)
def test_an_adaptive_kl_coefficient_ignores_parked_slots(interface):
    class Reference:
        def log_probs(self, ids, lengths, actions, **kwargs):
            return np.full(len(actions), -1.0)

    def coefficients(num_envs, actions):
        env = make(
            interface, num_envs, kl_penalty=0.1, kl_penalty_target=0.5, kl_penalty_horizon=2, reference=Reference()
        )
        reset(env, num_episodes=2, seed=0)
        for row in actions:
            env.set_log_probs(np.zeros(num_envs))
            step(env, row)
            yield env.get_training_state()["kl_penalty"]

    rows = [[5, EOS, 7, EOS], [5, 6, EOS, 8], [EOS, 6, 7, 8]]
    assert list(coefficients(4, rows)) == list(coefficients(2, [row[:2] for row in rows]))


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_text_may_be_parked_where_no_action_is_valid(interface):
    env = make(interface, 3, constraints=AllowTokens(["a"]), step_info=["action_mask"])
    a = CHAR.encode("a")[0]
    reset(env, num_episodes=3, seed=0)
    step(env, [EOS, a, a])
    _, rewards, done, _ = step(env, [a + 1, EOS, a])
    assert (rewards.tolist(), done.tolist()) == ([0.0, 1.0, 0.0], [False, True, False])


@pytest.mark.parametrize("interface", INTERFACES)
def test_groups_are_assigned_until_no_episode_is_left(interface):
    env = make(interface, 3, group_size=2, prompts=[f"{i} " for i in range(100)])
    reset(env, num_episodes=7, seed=0)
    assert sum(len(texts) for texts in play(env)) == 7
    assert env.core.groups.max() == 4


@pytest.mark.parametrize("number", [0, -1, 2.5, True, "3"])
@pytest.mark.parametrize("interface", INTERFACES)
def test_a_number_of_episodes_that_is_none_is_refused(interface, number):
    env = make(interface)
    reset(env, seed=0)
    before = env.get_state()
    with pytest.raises(ValueError, match="num_episodes must be an integer of at least 1"):
        reset(env, num_episodes=number)
    check_same(before, env.get_state(), "state")


def test_the_number_of_episodes_counts_from_a_reset_of_all_slots():
    env = make("Disabled")
    reset(env, seed=0)
    with pytest.raises(ValueError, match="cannot be combined with reset_mask"):
        env.reset(options={"num_episodes": 3, "reset_mask": np.array([True, False, False, False])})
    env = make("sb3")
    env.set_options([{"num_episodes": 3}, {}, {}, {}])
    with pytest.raises(ValueError, match="num_episodes must be the same"):
        env.reset()


def masked(slots, **options):
    return {"reset_mask": np.isin(np.arange(3), slots), **options}


def test_a_masked_reset_that_asks_for_more_than_the_episodes_that_are_left_is_refused():
    env = make("Disabled", 3)
    env.reset(seed=0, options={"num_episodes": 3})
    env.step([EOS, 5, 5])
    for keywords in (
        {"options": masked([1])},
        {"options": masked([0, 1])},
        {"options": masked([0], prompt="So ")},
        {"options": masked([0]), "seed": 4},
    ):
        before = env.get_state()
        with pytest.raises(ValueError, match=r"0 of num_episodes are left, reset_mask .* [12]"):
            env.reset(**keywords)
        check_same(before, env.get_state(), "state")
    env.reset(options=masked([0]))  # an ended slot is parked, as other modes park it
    assert (env.running.tolist(), env.parked.tolist()) == ([False, True, True], [True, False, False])


def test_a_masked_reset_may_restart_a_running_slot_while_episodes_are_left():
    env = make("Disabled", 3)
    env.reset(seed=0, options={"num_episodes": 4})
    env.step([EOS, 5, 5])
    observations, _ = env.reset(options=masked([1], prompt="So "))
    assert env.tokenizer.decode(observations[1][:3].tolist()) == "So "
    env.reset(options=masked([0]))
    assert (env.running.tolist(), env.parked.tolist()) == ([False, True, True], [True, False, False])


@pytest.mark.parametrize("interface", INTERFACES)
def test_parked_differs_from_waiting_for_a_reset(interface):
    env = make(interface, 3)
    assert env.parked.tolist() == [False] * 3
    reset(env, num_episodes=2, seed=0)
    assert env.parked.tolist() == [False, False, True]
    parked = env.get_attr("parked")
    assert [bool(one) for one in parked] == [False, False, True]
    env.parked[:] = True  # a copy
    assert env.parked.tolist() == [False, False, True]
    reset(env)
    assert env.parked.tolist() == [False] * 3


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_limit_in_the_middle_of_episodes_parks_those_that_were_running(interface):
    env = make(interface, 4)
    reset(env, seed=0)
    step(env, [5, 6, 7, 8])
    reset(env, num_episodes=2, seed=0)
    assert env.running.tolist() == [True, True, False, False]
    assert env.parked.tolist() == [False, False, True, True]
    assert sum(map(len, play(env))) == 2
