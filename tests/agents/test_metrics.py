"""Metrics of an update: means over all its gradient steps, explained variance, documented keys."""

import re

import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import explained_variance as sb3_explained_variance

from fixtures import ROOT, make_env, share_of_b, small_lm, small_q_policy
from textgym.scorers import Scorer
from textgym_agents import (
    A2C,
    DQN,
    GRPO,
    ILQL,
    PPO,
    A2CConfig,
    Agent,
    BehaviourCloning,
    DQNConfig,
    Evaluate,
    ExpertIteration,
    ExpertIterationConfig,
    ILQLConfig,
    ILQLPolicy,
    LMPolicy,
    OfflineSoftQ,
    PPOConfig,
    Reinforce,
    ReinforceConfig,
    SoftQ,
    SoftQConfig,
)
from textgym_agents.inspection import Alarms
from textgym_agents.returns import discounted_returns, generalized_advantages

STEPS = {"num_episodes": 16, "batch_size": 4, "n_epochs": 3, "imitation_coef": 0.0}
SEVERAL_STEPS = {
    "PPO": lambda: PPO(LMPolicy(small_lm()), make_env(), **STEPS),
    "GRPO": lambda: GRPO(LMPolicy(small_lm()), make_env(group_size=4), **STEPS),
    "ExpertIteration": lambda: ExpertIteration(
        LMPolicy(small_lm()), make_env(), ExpertIterationConfig(num_episodes=16, batch_size=2, n_epochs=3)
    ),
    "DQN": lambda: DQN(small_q_policy(), make_env(), DQNConfig(num_episodes=16, gradient_steps=5)),
    "SoftQ": lambda: SoftQ(LMPolicy(small_lm()), make_env(), SoftQConfig(num_episodes=16, gradient_steps=5)),
}


def update(agent):
    return agent.learn_from(agent.collect())


@pytest.mark.parametrize("name", SEVERAL_STEPS)
def test_metrics_are_means_over_all_gradient_steps_of_the_update(name):
    agent = SEVERAL_STEPS[name]()
    losses, norms = [], []
    backward, step = agent.backward, agent.optimizer_step
    agent.backward = lambda *args: losses.append(backward(*args)) or losses[-1]
    agent.optimizer_step = lambda: norms.append(step()) or norms[-1]
    metrics = update(agent)
    assert len(losses) == len(norms) >= 5
    for key, rows in (("train/loss", losses), ("train/grad_norm", norms)):
        assert metrics[key] == pytest.approx(sum(row[key] for row in rows) / len(rows))
        assert metrics[key] != pytest.approx(rows[-1][key])


def test_approx_kl_is_the_mean_over_minibatches_of_which_the_first_is_zero():
    settings = {"num_episodes": 16, "batch_size": None, "imitation_coef": 0.0}
    agent = PPO(LMPolicy(small_lm()), make_env(), n_epochs=2, **settings)
    episodes = agent.collect()
    metrics = agent.update(episodes)
    first = PPO(LMPolicy(small_lm()), make_env(), n_epochs=1, **settings)
    assert first.update(first.collect())["train/approx_kl"] == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():  # after the first step
        log_ratios = first.policy.evaluate(episodes).log_probs - episodes.log_probs
        second = (log_ratios.exp() - 1 - log_ratios)[episodes.mask].mean()
    assert metrics["train/approx_kl"] == pytest.approx(second.item() / 2, rel=1e-4)


def test_the_target_kl_is_looked_at_before_the_step_of_every_minibatch():
    settings = {"batch_size": 4, "n_epochs": 4, "learning_rate": 1e-2, "target_kl": 1e-4}
    agent = PPO(LMPolicy(small_lm()), make_env(), num_episodes=16, kl_coef=0.0, imitation_coef=0.0, **settings)
    metrics = update(agent)
    assert agent.num_updates == 1  # the second minibatch stops, which is of the first epoch
    assert metrics["train/approx_kl"] > 1.5e-4 / 2


@pytest.mark.parametrize(("algorithm", "config"), [(A2C, A2CConfig), (PPO, PPOConfig)])
def test_the_explained_variance_is_that_of_sb3_and_the_other_does_not_hide_that_v_is_noise(algorithm, config):
    agent = algorithm(LMPolicy(small_lm()), make_env(), config(num_episodes=64, gae_lambda=0.5, kl_coef=0.0))
    episodes = agent.collect()
    episodes.values = torch.randn(64, 1, generator=torch.Generator().manual_seed(0)) * episodes.mask  # noise
    metrics = agent.update(episodes)
    mask, gamma = episodes.mask, agent.config.gamma
    advantages = generalized_advantages(episodes.rewards, episodes.values, episodes.num_steps, gamma, 0.5)
    returns = discounted_returns(episodes.rewards, episodes.num_steps, gamma)[mask].numpy()
    values, targets = episodes.values[mask].numpy(), (advantages + episodes.values)[mask].numpy()
    assert metrics["train/explained_variance"] == pytest.approx(sb3_explained_variance(values, targets), abs=1e-5)
    assert metrics["train/explained_variance_mc"] == pytest.approx(sb3_explained_variance(values, returns), rel=1e-5)
    assert metrics["train/explained_variance_mc"] < 0 < 0.25 < metrics["train/explained_variance"]


class Ranged(Scorer):
    """The share of the letter b, with the range that statistics of Q need."""

    score_range = (0.0, 1.0)

    def __call__(self, batch):
        return np.array([share_of_b(text) for text in batch.completions])


def test_the_documentation_has_a_row_for_every_metric_and_no_other():
    data = SEVERAL_STEPS["PPO"]().collect()
    held_out = make_env(scorer=Ranged())
    settings = {"samples_per_prompt": 2, "deterministic": False, "success_score": 0.5, "pass_at": (2,)}
    failing = {"scorer": {"one": (len, 1.0), "two": (fails_once(), 1.0)}, "on_scorer_error": "invalid"}
    agents = [make() for make in SEVERAL_STEPS.values()]
    agents += [
        A2C(LMPolicy(small_lm()), make_env(**failing)),
        DQN(small_q_policy(), make_env(scorer=Ranged()), num_episodes=16),
        Reinforce(LMPolicy(small_lm()), make_env(), ReinforceConfig(num_episodes=16)),
        Reinforce(LMPolicy(small_lm()), make_env(), num_episodes=16, baseline="value"),
        BehaviourCloning(LMPolicy(small_lm()), data, batch_size=16),
        OfflineSoftQ(LMPolicy(small_lm()), data, batch_size=16),
        ILQL(ILQLPolicy(small_lm()), data, ILQLConfig(batch_size=16)),
        PPO(LMPolicy(small_lm()), make_env(), num_episodes=16, imitation_coef=1.0, branch_share=0.1),
        GRPO(LMPolicy(small_lm()), make_env(group_size=4), num_episodes=16, entropy_share=0.5, equal_groups="drop"),
    ]
    assert {type(agent) for agent in agents} == set(concrete(Agent))
    metrics = set()
    for agent in agents:
        callbacks = [Evaluate(held_out, 1, num_episodes=6, **settings), Alarms(None)]
        agent.learn(1, callback=[*callbacks, lambda _, row: metrics.update(row)])
    failing = Evaluate(make_env(**{**failing, "scorer": fails_once()}), 1)
    metrics |= failing.evaluate(LMPolicy(small_lm())).keys()
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([a-z]+/[^`]+)` \|", page, re.MULTILINE)
    assert len(documented) == len(set(documented))
    families = {r"rollout/score/.+": "rollout/score/<component>", r"eval/pass_at_\d+": "eval/pass_at_<k>"}
    for pattern, family in families.items():
        members = {name for name in metrics if re.fullmatch(pattern, name)}
        assert members
        metrics = metrics - members | {family}
    assert set(documented) == metrics


def concrete(base):
    """Yield the agents of the package."""
    for each in base.__subclasses__():
        if each.__module__.startswith("textgym_agents.") and "config_class" in vars(each):
            yield each
        yield from concrete(each)


def fails_once():
    calls = []

    def score(completion):
        calls.append(completion)
        if len(calls) == 1:
            raise RuntimeError("no")
        return 0.0

    return score
