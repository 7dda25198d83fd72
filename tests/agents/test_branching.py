"""Values by rollouts: equal to dynamic programming, with honest standard errors, and without a trace."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from fixtures import TOKENIZER, make_env, quick_but, share_of_b, slow_but, small_lm
from textgym import TextGenVecEnv
from textgym.actions import Subset
from textgym.constraints import MinNewTokens
from textgym.errors import InvalidActionError
from textgym.lm import random_lm
from textgym.probes import solve
from textgym.prompts import Curriculum, ListPrompts
from textgym.rewards import Potential
from textgym.scorers import Novelty
from textgym.testing.traces import check_same
from textgym.tokenizers import CharTokenizer
from textgym.users import Reply, User
from textgym_agents import PPO, LMPolicy, QPolicy, branch, collect, episode_states
from textgym_agents.decoding import MCTS, BeamSearch, BestOfN, Greedy, MCTSConfig, RandomPolicy, Sampling

SMALL_MDP = {
    "tokenizer": CharTokenizer("ab"), "prompts": ["a", "ba"], "max_prompt_tokens": 2, "max_new_tokens": 3,
    "scorer": lambda text: math.sin(len(text) + 5 * text.count("a") + 9 * text.find("b")),
}  # fmt: skip
SETTINGS = {
    "terminal": ({}, 1.0),
    "discounted": ({}, 0.7),
    "potential": ({"reward": Potential(gamma=0.9)}, 0.9),
    "truncated": ({"time_limit": "truncated"}, 1.0),
    "masks": ({"constraints": [MinNewTokens(2)]}, 1.0),
    "k1": ({"kl_penalty": 0.3, "reference": random_lm(3, seed=5)}, 1.0),
    "k3": ({"kl_penalty": 0.3, "reference": random_lm(3, seed=5), "kl_penalty_estimator": "k3"}, 0.9),
}
DECODERS = {
    "random": lambda policy, env: RandomPolicy(8),
    "greedy": lambda policy, env: Greedy(policy),
    "sampling": lambda policy, env: Sampling(policy, temperature=0.7, top_k=4),
    "q": lambda policy, env: q_policy(),
    "beam": lambda policy, env: BeamSearch(policy, env, 3),
    "best of n": lambda policy, env: BestOfN(policy, env, 4),
    "mcts": lambda policy, env: MCTS(policy, env, MCTSConfig(num_simulations=8, top_k=4)),
    "greedy mcts": lambda policy, env: Greedy(MCTS(policy, env, MCTSConfig(num_simulations=8, top_k=4))),
}


def q_policy():
    policy = QPolicy(small_lm(1), q_from="logits")
    policy.temperature, policy.epsilon = 1.0, 0.1
    return policy


@pytest.fixture(scope="module")
def policy():
    return LMPolicy(small_lm())


def sharp_lm(num_tokens):
    """Return a random LM whose tokens have unequal probabilities, none of them so rare that standard errors are off."""
    model = random_lm(num_tokens)
    with torch.no_grad():
        model.lm_head.weight *= 3
    return model


def solved(name):
    """Return a policy, an environment with one sub-environment in each state of the MDP, the solution, and gamma."""
    keywords, gamma = SETTINGS[name]
    policy = LMPolicy(sharp_lm(3))
    solution = solve(gym.make("TextGen-v0", **SMALL_MDP | keywords), policy, gamma=gamma)
    pad = 3
    texts = [row[row != pad].tolist() for row in solution.ids]
    roots = np.arange(len(texts))
    while (solution.parents[roots] >= 0).any():
        roots = np.where(solution.parents[roots] >= 0, solution.parents[roots], roots)
    env = gym.make_vec("TextGen-v0", num_envs=len(texts), **SMALL_MDP | keywords)
    prompts = [texts[root] for root in roots]
    prefixes = [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]
    env.reset(options={"prompt_ids": prompts, "prefix_ids": prefixes})
    assert (env.unwrapped.core.ids == solution.ids).all()
    return policy, env, solution, gamma


def check_exact(estimate, standard_errors, exact):
    """Assert that no estimate is off by more than 4 standard errors, and their mean square is near 1."""
    error, rounding = np.abs(estimate - exact), 1e-5 * (1 + np.abs(exact))
    assert (error <= 4 * standard_errors + rounding).all()
    random = standard_errors > rounding
    assert random.sum() >= 6
    assert 0.4 < ((error[random] / standard_errors[random]) ** 2).mean() < 2.0


# Against dynamic programming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_values_of_all_states_are_those_of_dynamic_programming(name):
    policy, env, solution, gamma = solved(name)
    result = branch(env, policy, 400, gamma=gamma)
    assert len(solution.values) >= 10
    check_exact(result.values, result.standard_errors, solution.values)


@pytest.mark.parametrize("name", slow_but(SETTINGS, "potential", "masks"))
def test_q_values_of_all_valid_actions_are_those_of_dynamic_programming(name):
    policy, env, solution, gamma = solved(name)
    if not solution.action_masks.all():
        best = solution.action_masks.argmax(axis=1)
        result = branch(env, policy, 400, actions=best, gamma=gamma)
        check_exact(result.values, result.standard_errors, solution.q_values[np.arange(len(best)), best])
        return
    actions = np.tile(np.arange(3), (len(solution.values), 1))
    result = branch(env, policy, 400, actions=actions, gamma=gamma)
    assert result.returns.shape == (*actions.shape, 400)
    check_exact(result.values, result.standard_errors, solution.q_values)
    mean_advantage = (solution.policy * (result.values - solution.values[:, None])).sum(axis=1)
    deviation = np.sqrt((solution.policy**2 * result.standard_errors**2).sum(axis=1))
    assert (np.abs(mean_advantage) <= 4 * deviation + 1e-5).all()


@pytest.mark.parametrize(
    "probe",
    quick_but(["ProbeCopy-v0", "ProbeStop-v0", "ProbeReverse-v0", "ProbeMemory-v0"], "ProbeStop-v0", "ProbeReverse-v0"),
)
def test_the_value_of_a_probe_is_the_exact_one(probe):
    env = gym.make(probe)
    env.reset(seed=0)
    policy = LMPolicy(sharp_lm(env.action_space.n))
    solution = solve(env, policy)
    result = branch(env, policy, 2000)
    state = (solution.ids == env.unwrapped.core.ids).all(axis=1) & (solution.steps == 0)
    assert state.sum() == 1
    assert abs(result.values[0] - solution.values[state][0]) < 4 * result.standard_errors[0] + 1e-6


def test_intervals_of_two_standard_errors_cover_the_exact_value_as_often_as_they_should():
    policy, env, solution, _ = solved("terminal")
    covered = []
    for seed in range(20):
        result = branch(env, policy, 100, seed=seed)
        random = result.standard_errors > 1e-5
        covered += (np.abs(result.values - solution.values) <= 1.96 * result.standard_errors)[random].tolist()
    assert 0.91 < np.mean(covered) < 0.98


def test_the_standard_error_is_that_of_the_mean_return(policy):
    env = make_env(4)
    env.reset(seed=0)
    result = branch(env, policy, 64)
    assert result.returns.shape == (4, 64)
    assert np.allclose(result.values, result.returns.mean(axis=1))
    assert np.allclose(result.standard_errors, result.returns.std(axis=1, ddof=1) / 8)


def test_equal_returns_have_the_standard_error_zero_and_their_exact_value(policy):
    env = make_env(4, scorer=lambda text: 0.1)
    env.reset(seed=0)
    result = branch(env, policy, 7)
    assert result.standard_errors.tolist() == [0.0] * 4
    assert result.values.tolist() == [0.1] * 4


def test_infinite_returns_have_an_infinite_value_and_no_standard_error(policy):
    class ImpossibleFirst:
        def log_probs(self, ids, lengths, actions, *, token_masks=None, active=None):
            return np.where(actions == 0, -np.inf, -1.0)

    env = make_env(2, kl_penalty=0.1, reference=ImpossibleFirst())
    env.reset(seed=0)
    result = branch(env, policy, 64, actions=[0, 7])
    assert result.values[0] == -np.inf
    assert np.isnan(result.standard_errors[0])
    assert np.isfinite(result.values[1])
    assert result.standard_errors[1] == 0


# Every state of an episode ---------------------------------------------------------------------------------------


def played(policy, **keywords):
    """Return an environment at the start of an episode, and the ids of a completion."""
    env = make_env(1, prompts=["cab"], **keywords)
    completion = collect(env, policy, 1, seed=4, generator=torch.Generator().manual_seed(3)).infos[0]["completion_ids"]
    env.reset(seed=4)
    return env, completion


def test_advantages_of_an_episode_add_up_to_its_return_minus_the_first_value(policy):
    env, completion = played(policy, reward="potential")
    states, rewards = episode_states(env, completion)
    assert len(states) == len(completion) + 1
    values = branch(env, policy, 32, states=states).values
    assert values[-1] == 0
    advantages = rewards + values[1:] - values[:-1]
    assert abs(advantages.sum() - (rewards.sum() - values[0])) < 1e-9


def test_q_of_a_deterministic_policy_is_the_reward_plus_the_discounted_next_value(policy):
    env, completion = played(policy, reward="potential")
    greedy, gamma = Greedy(policy), 0.8
    states, rewards = episode_states(env, completion)
    values = branch(env, greedy, 2, states=states, gamma=gamma).values
    result = branch(env, greedy, 2, states=states[:-1], actions=completion, gamma=gamma)
    assert np.allclose(result.values, rewards + gamma * values[1:], atol=1e-12)
    assert (result.standard_errors == 0).all()


def test_states_of_an_episode_are_those_that_the_environment_visits(policy):
    env, completion = played(policy, kl_penalty=0.1, reference=small_lm(1))
    log_probs = np.full(len(completion), -0.5)
    states, rewards = episode_states(env, completion, log_probs=log_probs)
    for t, action in enumerate(completion):
        check_same(env.unwrapped.get_state()["ids"], states[t]["ids"], "ids")
        env.unwrapped.set_log_probs(log_probs[t : t + 1])
        _, reward, *_ = env.step([action])
        assert reward[0] == pytest.approx(rewards[t])
    assert not states[-1]["running"][0]


def test_states_in_one_call_have_the_values_that_they_have_one_by_one(policy):
    env, completion = played(policy)
    states, _ = episode_states(env, completion)
    together = branch(env, policy, 200, states=states)
    alone = [branch(env, policy, 200, states=state, seed=7 + t) for t, state in enumerate(states)]
    values = np.array([result.values[0] for result in alone])
    errors = np.hypot(together.standard_errors, [result.standard_errors[0] for result in alone])
    assert (np.abs(together.values - values) <= 4 * errors + 1e-12).all()
    greedy = [branch(env, Greedy(policy), 2, states=state).values[0] for state in states]
    assert branch(env, Greedy(policy), 2, states=states).values.tolist() == greedy


def test_snapshots_of_different_numbers_of_environments_form_one_batch(policy):
    small, large = make_env(2), make_env(3)
    small.reset(seed=0)
    large.reset(seed=1)
    snapshots = [small.unwrapped.get_state(), large.unwrapped.get_state()]
    values = branch(small, Greedy(policy), 2, states=snapshots).values
    assert values.tolist() == [v for env in (small, large) for v in branch(env, Greedy(policy), 2).values]


def test_discounted_advantages_add_up_to_the_discounted_return_minus_the_first_value(policy):
    env, completion = played(policy, reward="potential")
    states, rewards = episode_states(env, completion)
    values = branch(env, policy, 8, states=states, gamma=0.8).values
    discounts = 0.8 ** np.arange(len(rewards))
    advantages = rewards + 0.8 * values[1:] - values[:-1]
    assert abs((discounts * advantages).sum() - ((discounts * rewards).sum() - values[0])) < 1e-9


@pytest.mark.parametrize("actions", [None, [[1, 2], [3, 7], [0, 0]]])
def test_the_texts_of_the_rollouts_are_those_that_have_the_returns(policy, actions):
    env = make_env(3)
    env.reset(seed=0)
    starts, pad = env.unwrapped.core.ids, env.unwrapped.pad_token_id
    result = branch(env, policy, 6, actions=actions, num_slots=4, return_ids=True)
    assert result.ids.shape == (*result.returns.shape, env.unwrapped.window)
    plain = branch(env, policy, 6, actions=actions, num_slots=4)
    assert plain.ids is None
    assert (plain.returns == result.returns).all()
    for index in np.ndindex(*result.returns.shape):
        text = result.ids[index][result.ids[index] != pad].tolist()
        start = starts[index[0]][starts[index[0]] != pad].tolist()
        assert text[: len(start)] == start
        if actions is not None:
            assert text[len(start)] == actions[index[0]][index[1]]
        assert result.returns[index] == share_of_b(TOKENIZER.decode(text[len(start) :]))


def test_the_text_of_an_ended_episode_is_its_own(policy):
    env = make_env(2, mode="Disabled")
    env.reset(seed=0)
    env.step([7, 0])
    result = branch(env, policy, 2, return_ids=True)
    assert (result.ids[0] == env.unwrapped.core.ids[0]).all()


@pytest.mark.parametrize("num_slots", [1, 5, 1000])
def test_any_number_of_slots_plays_every_rollout(policy, num_slots):
    env = make_env(3)
    env.reset(seed=0)
    greedy = branch(env, Greedy(policy), 4, num_slots=num_slots)
    assert greedy.returns.shape == (3, 4)
    assert (greedy.returns == branch(env, Greedy(policy), 4).returns).all()
    sampled, other = branch(env, policy, 32, num_slots=num_slots), branch(env, policy, 32)
    assert (np.abs(sampled.values - other.values) < 4 * np.hypot(sampled.standard_errors, other.standard_errors)).all()


def test_ended_episodes_are_worth_nothing_and_are_not_played(policy):
    env = make_env(4, mode="Disabled", max_new_tokens=2)
    env.reset(seed=0)
    env.step([7, 1, 1, 7])
    result = branch(env, RandomPolicy(8), 32)
    assert result.values[[0, 3]].tolist() == result.standard_errors[[0, 3]].tolist() == [0, 0]
    assert (result.returns[[0, 3]] == 0).all()
    assert (result.values[[1, 2]] > 0).all()
    single = gym.make("TextGen-v0", tokenizer=TOKENIZER, prompts=["a"], scorer=share_of_b, max_new_tokens=2)
    single.reset(seed=0)
    single.step(7)
    assert branch(single, policy, 8).returns.tolist() == [[0] * 8]


# Policies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", quick_but(DECODERS, "mcts", "greedy mcts"))
def test_the_value_is_the_mean_return_of_every_kind_of_policy(policy, name):
    env = make_env(16, prompts=["cab"], max_new_tokens=3, scorer=lambda text: text.count("b") - text.count("d"))
    env.reset(seed=0)
    decoder = DECODERS[name](policy, env)
    result = branch(env, decoder, 8)
    mean, error = result.returns.mean(), result.returns.std() / math.sqrt(result.returns.size)
    generator = torch.Generator().manual_seed(5)
    returns = collect(env, decoder, 128, seed=1, generator=generator).returns.double().numpy()
    assert abs(mean - returns.mean()) <= 4 * np.hypot(error, returns.std() / math.sqrt(128)) + 1e-9


def test_q_values_with_a_kl_penalty_need_the_log_probabilities_of_given_actions(policy):
    env = make_env(2, kl_penalty=0.1, reference=small_lm(1))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="log-probabilities, which RandomPolicy does not give"):
        branch(env, RandomPolicy(8), 4, actions=[0, 1])
    assert branch(env, RandomPolicy(8), 4).values.shape == (2,)
    assert branch(env, q_policy(), 4, actions=[0, 1]).values.shape == (2,)


def test_log_probabilities_of_given_actions_are_those_of_acting(policy):
    ids = np.array([[2, 0, 1, 8, 8]] * 50)
    masks = np.repeat(np.arange(8)[None] < 5, 50, axis=0)
    for acting in (policy, q_policy()):
        output = acting.act(ids, masks, generator=torch.Generator().manual_seed(0))
        assert np.allclose(acting.action_log_probs(ids, output.actions, masks), output.log_probs, atol=1e-6)
    assert policy.action_log_probs(ids[:1], np.array([6]), masks[:1])[0] == -np.inf


# Dialogues -------------------------------------------------------------------------------------------------------


class CoinUser(User):
    """Replies a or b with equal probability and ends the dialogue."""

    def __call__(self, batch, rngs):
        return [Reply("ab"[rng.integers(2)], "done") for rng in rngs]


def reply_is_b(prompts, completions, **columns):
    return [float(completion.endswith("b")) for completion in completions]


def test_the_expectation_is_over_the_users_replies_too(policy):
    env = make_env(1, user=CoinUser(), max_turns=1, max_reply_tokens=4, reply_format="{reply}", scorer=reply_is_b)
    env.reset(seed=0)
    result = branch(env, policy, 400, actions=[TOKENIZER.eos_token_id])
    assert set(result.returns.ravel()) == {0.0, 1.0}
    assert abs(result.values[0] - 0.5) < 4 * result.standard_errors[0]
    states, rewards = episode_states(env, [TOKENIZER.eos_token_id])
    assert rewards == env.step([TOKENIZER.eos_token_id])[1]
    assert not states[-1]["running"][0]


def test_the_agents_tokens_of_a_dialogue_lead_through_its_states(policy):
    env = make_env(2, user=CoinUser(), max_turns=3, max_reply_tokens=4, reply_format="{reply}", scorer=reply_is_b)
    infos = collect(env, policy, 2, seed=5, generator=torch.Generator().manual_seed(1)).infos
    env.reset(seed=5)
    for i, info in enumerate(infos):
        ids, is_action = np.array(info["completion_ids"]), np.array(info["is_action"])
        states, rewards = episode_states(env, ids[is_action], env_index=i)
        last = states[-1]
        assert last["ids"][0, last["prompt_lengths"][0] : last["lengths"][0]].tolist() == ids.tolist()
        assert rewards.sum() == info["score"]


def test_the_dialogue_task_is_branched_at_every_position():
    policy = LMPolicy("tiny")
    env = gym.make("TextGenDialogue-v0")
    env.reset(seed=0)
    tokens = env.unwrapped.tokenizer.encode(" Hello!")
    states, _ = episode_states(env, tokens)
    result = branch(env, policy, 4, states=states)
    assert result.values.shape == (len(tokens) + 1,)
    assert ((result.values >= 0) & (result.values <= 1)).all()


# No trace --------------------------------------------------------------------------------------------------------


def test_the_seed_decides(policy):
    env = make_env(4)
    env.reset(seed=0)
    first, again, other = (branch(env, policy, 16, seed=seed).returns for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("name", quick_but(DECODERS, "mcts", "greedy mcts"))
@pytest.mark.parametrize("interface", ["single", "SameStep", "NextStep", "Disabled", "sb3"])
def test_environment_scorers_prompts_and_generators_stay_as_they_are(policy, interface, name):
    def make():
        keywords = {
            "tokenizer": TOKENIZER, "max_prompt_tokens": 4, "max_new_tokens": 4, "scorer": Novelty(n=1),
            "prompts": Curriculum([ListPrompts(["a"]), ListPrompts(["b"])], patience=2, success_score=0.1),
            "kl_penalty": 0.1, "kl_penalty_target": 0.01, "kl_penalty_horizon": 4, "reference": small_lm(1),
        }  # fmt: skip
        if interface == "single":
            env = gym.make("TextGen-v0", **keywords)
        elif interface == "sb3":
            env = TextGenVecEnv(2, **keywords)
        else:
            env = gym.make_vec("TextGen-v0", num_envs=2, autoreset_mode=interface, **keywords)
        env.seed(0) if interface == "sb3" else None
        env.reset() if interface == "sb3" else env.reset(seed=0)
        return env

    def traces(env):
        base = getattr(env, "unwrapped", env)
        return base.get_state(), base.get_training_state()

    def step(env):
        action = 1 if interface == "single" else np.array([1, 2])
        return env.step(action)

    env, twin = make(), make()
    step(env), step(twin)
    decoder = DECODERS[name](policy, env)
    own = decoder.generator.get_state() if hasattr(decoder, "generator") else torch.zeros(0)
    before, numpy_state, torch_state = traces(env), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    branch(env, decoder, 3)
    check_same(before, traces(env), "state")
    check_same(numpy_state, np.random.get_state(), "numpy's generator")  # noqa: NPY002
    assert torch.equal(torch_state, torch.get_rng_state())
    assert not hasattr(decoder, "generator") or torch.equal(own, decoder.generator.get_state())
    for _ in range(2):
        check_same(step(twin), step(env), "step", tolerance=1e-6)
    check_same(traces(twin), traces(env), "state after further steps", tolerance=1e-6)


def test_an_adaptive_kl_coefficient_keeps_its_value_in_rollouts(policy):
    settings = {"kl_penalty": 0.1, "reference": small_lm(1), "scorer": lambda text: 0.0}
    fixed, adaptive = make_env(4, **settings), make_env(4, **settings, kl_penalty_target=1e-3, kl_penalty_horizon=1)
    for env in (fixed, adaptive):
        env.reset(seed=0)
    assert (branch(fixed, policy, 64).returns == branch(adaptive, policy, 64).returns).all()


# Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_rollouts": 1}, ValueError, "num_rollouts must be at least 2, got 1"),
        ({"num_rollouts": 2.5}, TypeError, "num_rollouts must be an integer, got 2.5"),
        ({"num_slots": 0}, ValueError, "num_slots must be at least 1, got 0"),
        ({"gamma": 1.5}, ValueError, "gamma must be from 0 to 1, got 1.5"),
        ({"gamma": "1"}, TypeError, "gamma must be a number, got '1'"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"seed": None}, TypeError, "seed must be an integer, got None"),
        ({"seed": True}, TypeError, "seed must be an integer, got True"),
        ({"states": []}, ValueError, "at least one snapshot, got none"),
        ({"states": np.zeros((2, 3))}, TypeError, r"snapshots of env.get_state\(\), got ndarray"),
        ({"states": make_env(1, max_new_tokens=9).unwrapped.get_state()}, ValueError, "up to 13 tokens.* window is 10"),
        ({"states": make_env(1).unwrapped.get_state()}, ValueError, r"before its first reset: call env.reset\(\)"),
        ({"actions": [1]}, ValueError, r"\(M, K\) for M = 2 states, got shape \(1,\)"),
        ({"actions": [[], []]}, ValueError, r"got shape \(2, 0\)"),
        ({"actions": [0.5, 1.0]}, TypeError, "actions must be integers, got float64"),
        ({"actions": [3, 8]}, ValueError, r"actions \[8.* are outside Discrete\(8\)"),
        ({"policy": "tiny"}, TypeError, "policy must have a method act, got str"),
        ({"policy": RandomPolicy(9)}, ValueError, "the environment has 8 actions, the model a vocabulary of 9"),
        ({"env": 3}, TypeError, "needs an environment of the TextGen family, got int"),
        ({"env": make_env(2, actions=Subset(["a"]))}, ValueError, "needs actions='vocabulary'"),
    ],
)
def test_wrong_arguments_raise(policy, arguments, error, message):
    env = make_env(2)
    env.reset(seed=0)
    with pytest.raises(error, match=message):
        branch(**{"env": env, "policy": policy, "num_rollouts": 4} | arguments)


@pytest.mark.parametrize("tokenizer", [CharTokenizer("ab"), CharTokenizer("abcdefghijkl")])
def test_states_of_another_vocabulary_raise(policy, tokenizer):
    env = make_env(1)
    other = gym.make("TextGen-v0", tokenizer=tokenizer, prompts=["ab"], max_prompt_tokens=4, max_new_tokens=6)
    env.reset(seed=0)
    other.reset(seed=0)
    assert other.unwrapped.window == env.unwrapped.window
    with pytest.raises(ValueError, match="ids of another vocabulary"):
        branch(env, policy, 2, states=other.unwrapped.get_state())


def test_states_with_and_without_a_user_do_not_mix(policy):
    dialogue = make_env(1, user=CoinUser(), max_turns=1, max_reply_tokens=4, max_new_tokens=2, reply_format="{reply}")
    plain = make_env(1, max_new_tokens=dialogue.unwrapped.window - 4)
    assert plain.unwrapped.window == dialogue.unwrapped.window
    plain.reset(seed=0)
    dialogue.reset(seed=0)
    with pytest.raises(ValueError, match=r"of an environment with user=\.\.\., this one is without it"):
        branch(plain, policy, 2, states=dialogue.unwrapped.get_state())
    with pytest.raises(ValueError, match=r"of an environment without user=\.\.\., this one is with it"):
        branch(dialogue, policy, 2, states=plain.unwrapped.get_state())


def test_an_agent_in_place_of_its_policy_raises():
    agent = PPO(LMPolicy(small_lm()), make_env(2))
    with pytest.raises(TypeError, match=r"got PPO; of an agent, give agent\.policy"):
        branch(agent.env, agent, 4)


def test_actions_in_an_ended_episode_raise(policy):
    env = make_env(2, mode="Disabled")
    env.reset(seed=0)
    env.step([0, 7])
    with pytest.raises(ValueError, match="state 1 is that of an ended episode"):
        branch(env, policy, 4, actions=[0, 0])


def test_a_masked_first_action_raises_and_changes_nothing(policy):
    env = make_env(2, constraints=[MinNewTokens(2)])
    env.reset(seed=0)
    before = env.unwrapped.get_state()
    with pytest.raises(InvalidActionError):
        branch(env, policy, 4, actions=[0, 7])
    check_same(before, env.unwrapped.get_state(), "state")
    assert branch(env, policy, 4, actions=[0, 6]).values.shape == (2,)


def test_wrong_actions_of_an_episode_raise():
    env = make_env(2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="ended after 2 of 3 actions"):
        episode_states(env, [0, 7, 0])
    with pytest.raises(ValueError, match=r"shape \(T,\), got \(1, 1\)"):
        episode_states(env, [[0]])
    for env_index in (2, -1, 0.5):
        with pytest.raises(ValueError, match=f"env_index must be an integer from 0 to 1, got {env_index}"):
            episode_states(env, [0], env_index=env_index)
    penalised = make_env(1, kl_penalty=0.1, reference=small_lm(1))
    penalised.reset(seed=0)
    with pytest.raises(ValueError, match="contain a KL penalty: give log_probs"):
        episode_states(penalised, [0])
    with pytest.raises(ValueError, match=r"shape of the actions, \(2,\), got \(1,\)"):
        episode_states(env, [0, 0], log_probs=[0.0])
    with pytest.raises(TypeError, match="needs an environment of the TextGen family, got str"):
        episode_states("TextGen-v0", [0])
