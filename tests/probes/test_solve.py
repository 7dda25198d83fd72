"""The exact solution of small text MDPs: against stepping through every text, known optima and finite differences."""

import zlib

import gymnasium as gym
import numpy as np
import pytest
import torch

import textgym
from textgym.actions import Subset
from textgym.constraints import MinNewTokens, NoRepeatNGram
from textgym.probes import solve
from textgym.rewards import PerTurn, Potential
from textgym.scorers import LengthBand, RunningNormalization, Scorer, SelfBLEU
from textgym.tokenizers import CharTokenizer
from textgym.users import Reply

KEYWORDS = {
    "tokenizer": CharTokenizer("ab"), "prompts": ["a", "ba"], "max_prompt_tokens": 2, "max_new_tokens": 3,
    "time_limit": "terminated", "scorer": lambda text: zlib.crc32(text.encode()) % 97 / 97,
}  # fmt: skip


def make(**keywords):
    return gym.make("TextGen-v0", **KEYWORDS | keywords)


def logits_of(ids, num_actions=3):
    """An arbitrary policy: logits from -1 to 1 that depend on every token."""
    rows = [np.random.default_rng(zlib.crc32(row.tobytes())).uniform(-1, 1, num_actions) for row in ids]
    return np.array(rows)


def played(keywords, gamma=1.0):
    """Return the expected return of `logits_of`, from one episode of a single environment per text."""
    env = make(**keywords).unwrapped
    prompts = keywords.get("prompts", KEYWORDS["prompts"])
    total = 0.0
    for index in range(len(prompts)):
        todo = [((), 1.0)]
        while todo:
            actions, probability = todo.pop()
            observation, _ = env.reset(options={"index": index})
            value, done = 0.0, False
            for t, action in enumerate(actions):
                logits = np.where(env.action_masks(), logits_of(observation[None], env.num_actions)[0], -np.inf)
                env.set_log_probs(float(logits[action] - np.log(np.exp(logits).sum())))
                observation, reward, terminated, truncated, _ = env.step(action)
                value += gamma**t * reward
                done = terminated or truncated
            if done:
                total += probability * value / len(prompts)
                continue
            valid = env.action_masks()
            weights = np.where(valid, np.exp(logits_of(observation[None], env.num_actions)[0]), 0)
            todo += [((*actions, a), probability * weights[a] / weights.sum()) for a in np.flatnonzero(valid)]
    return total


class Reference:
    """A language model that prefers the first tokens."""

    def log_probs(self, ids, lengths, actions, *, token_masks=None, active=None):
        logits = np.array([0.5, 0.0, -0.5])
        return (logits - np.log(np.exp(logits).sum()))[actions]


def answers(messages):
    return None if "bb" in messages[-1]["content"] else "ab"


SETTINGS = {
    "terminal": {},
    "truncated": {"time_limit": "truncated"},
    "potential": {"reward": Potential(gamma=0.9)},
    "per token": {"scorer": LengthBand(2, 2), "reward": "per_token"},
    "redistributed": {"reward": "redistributed"},
    "stop string": {"stop": "ab"},
    "stop function": {"stop": lambda text: len(text) == 2},
    "constraints": {"constraints": [MinNewTokens(2), NoRepeatNGram(2)]},
    "subset": {"actions": Subset(["b", "a"])},
    "kl": {"kl_penalty": 0.3, "reference": Reference()},
    "kl of k3": {"kl_penalty": 0.3, "kl_penalty_estimator": "k3", "reference": Reference()},
    "user": {"user": answers, "max_turns": 2, "max_reply_tokens": 4, "reply_format": "{reply}", "reward": PerTurn()},
    "hidden samples": {
        "prompts": [{"prompt": "a", "references": ["ab"]}, {"prompt": "a", "references": ["ba"]}, {"prompt": "b"}],
        "scorer": lambda completions, references, **_: [
            float(bool(refs) and text == refs[0]) + 0.1 * len(text)
            for text, refs in zip(completions, references, strict=True)
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("gamma", [1.0, 0.8])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_value_equals_that_of_stepping_through_every_text(settings, gamma):
    env = make(**settings)
    solution = solve(env, lambda ids: logits_of(ids, env.unwrapped.num_actions), gamma=gamma)
    assert solution.expected_return == pytest.approx(played(settings, gamma), abs=1e-12)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_arrays_satisfy_bellmans_equations(settings):
    env = make(**settings)
    optimal = settings.get("kl_penalty_estimator") != "k3"
    for policy in (lambda ids: logits_of(ids, env.unwrapped.num_actions), None)[: 1 + optimal]:
        found = solve(env, policy, gamma=0.9)
        following = np.zeros_like(found.rewards)
        later = found.parents >= 0
        following[found.parents[later], found.actions[later]] = (found.probs * found.values)[later]
        q = np.where(found.action_masks, found.rewards + 0.9 * following, -np.inf)
        np.testing.assert_allclose(found.q_values, q, atol=1e-12)
        np.testing.assert_allclose(found.policy.sum(axis=1), 1.0)
        assert (found.policy[~found.action_masks] == 0).all()
        if policy is not None:
            np.testing.assert_allclose((found.policy * found.advantages).sum(axis=1), 0, atol=1e-12)
        elif "kl_penalty" not in settings:
            np.testing.assert_allclose(found.values, q.max(axis=1))
        np.testing.assert_array_equal(found.index(found.ids), np.arange(len(found.ids)))


def test_no_policy_exceeds_the_optimum_of_the_kl_term():
    env = make(**SETTINGS["kl"])
    optimum = solve(env)
    log_policy = torch.from_numpy(np.log(optimum.policy)).requires_grad_()
    attained = solve(env, lambda ids: log_policy[optimum.index(ids)])
    assert attained.expected_return == pytest.approx(optimum.expected_return, abs=1e-12)
    np.testing.assert_allclose(attained.policy_gradient(), 0, atol=1e-12)
    for scale in (0.5, 1.5):
        other = solve(env, lambda ids, scale=scale: scale * log_policy.detach()[optimum.index(ids)])
        assert other.expected_return < optimum.expected_return - 1e-4


@pytest.mark.parametrize("name", ["potential", "constraints", "subset", "kl", "user", "hidden samples"])
def test_the_policy_gradient_is_that_of_finite_differences(name):
    env, gamma = make(**SETTINGS[name]), 0.9
    num_actions = env.unwrapped.num_actions
    features = torch.randn(8, num_actions, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.zeros(8, num_actions, dtype=torch.float64, requires_grad=True)

    def policy(ids):
        inputs = torch.from_numpy(np.sin(np.arange(1, 9) * ids.dot(4 ** np.arange(ids.shape[1])[:, None])))
        return inputs @ weights + torch.tanh(inputs @ features)

    (gradient,) = solve(env, policy, gamma=gamma).policy_gradient([weights])
    for place in np.random.default_rng(0).integers([8, num_actions], size=(5, 2)).tolist():
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weights[tuple(place)] += step
            values.append(solve(env, policy, gamma=gamma).expected_return)
            with torch.no_grad():
                weights[tuple(place)] -= step
        assert gradient[tuple(place)] == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-8)


def test_the_visits_of_a_step_sum_to_the_share_of_episodes_that_reach_it():
    solution = solve(make(), lambda ids: np.zeros((len(ids), 3)))
    shares = np.bincount(solution.steps, solution.visits)
    np.testing.assert_allclose(shares, [1, 2 / 3, 4 / 9])
    assert solution.probs.tolist() == [0.5, 0.5] + [1.0] * 12


def test_masks_that_depend_on_the_sample_identify_it():
    class Only:
        def mask(self, batch):
            mask = np.ones((len(batch), 3), dtype=np.bool_)
            for row, data in enumerate(batch.metadata):
                mask[row, data["banned"]] = False
            return mask

    prompts = [{"prompt": "a", "banned": banned, "wanted": "ba"[banned]} for banned in (0, 1)]
    scorer = lambda completions, wanted, **_: [float(a == b) for a, b in zip(completions, wanted, strict=True)]  # noqa: E731
    settings = {"prompts": prompts, "scorer": scorer, "max_new_tokens": 1}
    assert solve(make(**settings)).expected_return == 0.5
    solution = solve(make(**settings, constraints=Only()))
    assert solution.expected_return == 1.0
    assert len(solution.ids) == 2
    with pytest.raises(KeyError, match="exactly one state"):
        solution.index(solution.ids)


def test_every_interface_has_the_same_solution():
    pytest.importorskip("stable_baselines3")
    envs = [make(), gym.make_vec("TextGen-v0", num_envs=3, **KEYWORDS), textgym.TextGenVecEnv(2, **KEYWORDS)]
    assert len({solve(env, logits_of).expected_return for env in envs}) == 1


def test_the_environment_is_unchanged():
    env = make(kl_penalty=0.1, kl_penalty_target=0.5, reference=Reference()).unwrapped
    env.reset(seed=3)
    env.step(0)
    before, training = repr(env.get_state()), env.get_training_state()
    solve(env, logits_of)
    assert (repr(env.get_state()), env.get_training_state()) == (before, training)


def test_no_scorer_learns_from_the_texts():
    class Remembers(Scorer):
        num_observed = 0

        def __call__(self, batch):
            return np.full(len(batch), 0.5)

        def observe(self, batch, scores):
            self.num_observed += len(batch)

    scorer = Remembers()
    assert solve(make(scorer=scorer)).expected_return == 0.5
    assert scorer.num_observed == 0


def test_a_policy_of_textgym_agents_is_solved_with_its_own_gradient():
    from textgym.lm import random_lm
    from textgym_agents import LMPolicy

    policy, env = LMPolicy(random_lm(3)), make()
    solution = solve(env, policy)
    chosen = policy.act(solution.ids, deterministic=True)
    np.testing.assert_allclose(np.exp(chosen.log_probs), solution.policy.max(axis=1), atol=1e-6)
    weight = policy.model.transformer.wte.weight
    (gradient,) = solution.policy_gradient([weight])
    names, parameters = zip(*policy.named_parameters(), strict=True)
    every = dict(zip(names, solution.policy_gradient(parameters), strict=True))
    assert (every["value_head.token_values"] == 0).all()
    assert torch.equal(every["backbone.model.transformer.wte.weight"], gradient)
    before = solution.expected_return
    with torch.no_grad():
        weight += 1e-2 * gradient / gradient.norm()
    rise = solve(env, policy).expected_return - before
    assert rise == pytest.approx(1e-2 * float(gradient.norm()), rel=0.05)


class Noisy:
    def __call__(self, batch):
        return np.random.default_rng().random(len(batch))


class FirstOfABatch:
    def __call__(self, batch):
        return (np.arange(len(batch)) == 0).astype(float)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"prompts": lambda rng: "a"}, TypeError, "GeneratorPrompts cannot be enumerated; pass a list"),
        ({"scorer": RunningNormalization(LengthBand(2, 2))}, ValueError, "is not deterministic"),
        ({"scorer": Noisy()}, ValueError, "another reward when repeated"),
        ({"scorer": FirstOfABatch()}, ValueError, "another reward when repeated"),
        ({"reward": Potential(potential=SelfBLEU())}, ValueError, "the scorer 'self_bleu' is not deterministic"),
        (
            {"kl_penalty": 0.1, "kl_penalty_estimator": "k3", "reference": Reference()},
            ValueError,
            "give a policy, or use k1",
        ),
        (
            {"max_new_tokens": 12},
            ValueError,
            "more than max_transitions=1000 pairs of a text and an action within 8 steps",
        ),
    ],
)
def test_an_environment_without_exact_solution_raises(settings, error, message):
    with pytest.raises(error, match=message):
        solve(make(**settings), max_transitions=1000)


def test_a_random_user_raises():
    class Draws:
        def __call__(self, batch, rngs):
            return [Reply("ab" if rng.random() < 0.5 else "b") for rng in rngs]

    with pytest.raises(ValueError, match="the user is random"):
        solve(make(user=Draws(), max_reply_tokens=4, reply_format="{reply}"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((gym.make("CartPole-v1"),), TypeError, "an environment of the TextGen family, got CartPoleEnv"),
        ((make(), 3), TypeError, r"policy must be f\(ids\) -> logits or have evaluate_states, got int"),
        ((make(), torch.nn.Module()), TypeError, "Module has neither evaluate_states nor forward"),
        (
            (make(), lambda ids: np.full((len(ids), 3), np.nan)),
            ValueError,
            "returned NaN or infinite logits for 2 of 2 states",
        ),
        ((make(), lambda ids: np.zeros(3)), ValueError, r"logits of shape \(3,\) for \(2, 3\) states and actions"),
    ],
)
def test_invalid_arguments_raise(arguments, error, message):
    with pytest.raises(error, match=message):
        solve(*arguments)
    with pytest.raises(ValueError, match=r"gamma must be from 0 to 1, got 1\.1"):
        solve(make(), gamma=1.1)
    with pytest.raises(ValueError, match="returns tensors with gradients"):
        solve(make(), logits_of).policy_gradient([torch.zeros(1)])
