"""Every estimator against the exact one: expected updates over all texts of a small MDP, weighted by probability."""

import math
from itertools import combinations_with_replacement
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch

from textgym.lm import random_lm
from textgym.probes import solve
from textgym.rewards import Potential
from textgym.tokenizers import CharTokenizer
from textgym_agents import A2C, GRPO, PPO, A2CConfig, GRPOConfig, LMPolicy, PPOConfig, Reinforce, ReinforceConfig
from textgym_agents.episodes import Episodes
from textgym_agents.losses import estimated_kl, exact_kl, path_inconsistency, policy_gradient_loss, value_loss
from textgym_agents.policy import ActionOutput, Evaluation, choose
from textgym_agents.returns import discounted_returns, generalized_advantages, lambda_returns, n_step_returns

BUDGET = 3
KEYWORDS = {
    "tokenizer": CharTokenizer("ab"), "prompts": ["a", "ba"], "max_prompt_tokens": 2, "max_new_tokens": BUDGET,
    "time_limit": "terminated", "scorer": lambda text: math.sin(len(text) + 5 * text.count("a") + 9 * text.find("b")),
    "reward": Potential(),
}  # fmt: skip


def make(num_envs=1, **keywords):
    return gym.make_vec("TextGen-v0", num_envs=num_envs, autoreset_mode="SameStep", **KEYWORDS | keywords)


class Table(LMPolicy):
    """A policy with one float64 logit per state and action, whose V is exact."""

    def __init__(self, env, gamma=1.0, seed=0):
        super().__init__(random_lm(3, window=8, width=16, num_layers=1))
        self.states = solve(env)
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(self.states.policy.shape, generator=generator, dtype=torch.float64)
        self.table = torch.nn.Parameter(table)
        self.solution = solve(env, self.logits, gamma=gamma)

    def logits(self, ids):
        return self.table[self.states.index(ids)]

    def act(self, ids, action_masks=None, *, generator=None, **_):
        """Texts that have ended are no states, and their actions are not used."""
        rows = [self.states._by_ids.get(row.tobytes(), 0) for row in ids]
        actions, log_probs, _ = choose(self.table.detach()[rows].float(), generator=generator)
        return ActionOutput(actions, log_probs, np.zeros(len(ids), dtype=np.float32))

    def frozen_copy(self):
        return LMPolicy(self.backbone)  # a reference that no test here uses

    def states_and_actions(self, episodes):
        if "states" in episodes.infos[0]:
            return (torch.tensor([info[name] for info in episodes.infos]) for name in ("states", "actions"))
        rows, columns = episodes.states()  # from a buffer, which stores no infos
        windows = torch.full((len(rows), self.states.ids.shape[1]), 3)
        for window, row, column in zip(windows, rows, columns, strict=True):
            window[: column + 1] = episodes.ids[row, : column + 1]
        states, actions = torch.zeros(2, *episodes.mask.shape, dtype=torch.int64)
        states[episodes.mask] = torch.from_numpy(self.states.index(windows.numpy()))
        actions[episodes.mask] = episodes.actions()
        return states, actions

    def evaluate(self, episodes, *, entropy_gradient=False):
        states, actions = self.states_and_actions(episodes)
        log_probs = self.table.log_softmax(-1)[states, actions] * episodes.mask
        values = torch.from_numpy(self.solution.values)[states] * episodes.mask
        every = self.table.log_softmax(-1).detach()[states]
        entropies = -(every.exp() * every).sum(dim=-1) * episodes.mask
        return Evaluation(log_probs, entropies, values, self.table[states][episodes.mask])


def texts_of(policy):
    """Return all texts: (prompt, states, actions, probability)."""
    solution = policy.solution
    following = {(p, a): s for s, (p, a) in enumerate(zip(solution.parents, solution.actions, strict=True))}
    todo = [(s, [s], [], solution.probs[s]) for s in np.flatnonzero(solution.parents < 0)]
    texts = []
    while todo:
        prompt, states, actions, probability = todo.pop()
        for action in range(3):
            path = (prompt, states, [*actions, action], probability * solution.policy[states[-1], action])
            following_state = following.get((states[-1], action))
            if following_state is None:
                texts.append(path)
            else:
                todo.append((prompt, [*states, following_state], *path[2:]))
    assert sum(text[3] for text in texts) == pytest.approx(1)
    return texts


def episodes_of(policy, texts):
    """Return texts, of one group, as episodes with float64 rewards and exact values."""
    solution = policy.solution
    num_steps = torch.tensor([len(text[2]) for text in texts])
    mask = torch.arange(BUDGET) < num_steps[:, None]
    states, actions = (
        np.array([row + [0] * (BUDGET - len(row)) for row in column])
        for column in zip(*((t[1], t[2]) for t in texts), strict=True)
    )
    ids = np.zeros((len(texts), 2 + BUDGET), dtype=np.int64)
    prompt_lengths = (solution.ids[[text[0] for text in texts]] < 3).sum(axis=1)
    for row, (text, length) in enumerate(zip(texts, prompt_lengths, strict=True)):
        written = [*solution.ids[text[0], :length], *text[2]]
        ids[row, : len(written)] = written
    episodes = Episodes(
        ids=torch.from_numpy(ids),
        prompt_lengths=torch.from_numpy(prompt_lengths),
        num_steps=num_steps,
        rewards=torch.from_numpy(solution.rewards[states, actions]) * mask,
        log_probs=torch.zeros(mask.shape, dtype=torch.float64),
        values=torch.from_numpy(solution.values[states]) * mask,
        truncated=torch.zeros(len(texts), dtype=torch.bool),
        action_masks=None,
        infos=[
            {"states": row.tolist(), "actions": chosen.tolist()} for row, chosen in zip(states, actions, strict=True)
        ],
    )
    episodes.log_probs = policy.evaluate(episodes).log_probs.detach()
    return episodes


def step_of(agent, episodes):
    """Return the change of the table by one update, with plain gradient ascent of rate 1."""
    before = agent.policy.table.detach().clone()
    agent.optimizer = torch.optim.SGD([agent.policy.table], lr=1.0)
    agent.update(episodes)
    step = agent.policy.table.detach() - before
    with torch.no_grad():
        agent.policy.table.copy_(before)
    return step


SINGLE = {
    "reinforce": (Reinforce, ReinforceConfig, {"baseline": "none"}),
    "reinforce, V": (Reinforce, ReinforceConfig, {"baseline": "value"}),
    "reinforce, moving average": (Reinforce, ReinforceConfig, {"baseline": "moving_average"}),
    "a2c, lambda 0": (A2C, A2CConfig, {"gae_lambda": 0.0}),
    "a2c, lambda 0.5": (A2C, A2CConfig, {"gae_lambda": 0.5}),
    "a2c, lambda 1": (A2C, A2CConfig, {"gae_lambda": 1.0}),
    "ppo, first step": (PPO, PPOConfig, {"n_epochs": 1, "batch_size": None, "imitation_coef": 0.0}),
}


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize(("agent", "config", "settings"), SINGLE.values(), ids=SINGLE)
def test_the_expected_step_of_single_texts_is_the_exact_gradient(agent, config, settings, gamma):
    env = make(reward=Potential(gamma=gamma))
    policy = Table(env, gamma)
    constant = {"kl_coef": 0.0, "normalize_advantage": False, "max_grad_norm": math.inf, "num_episodes": 1}
    agent = agent(policy, env, config(gamma=gamma, **constant, **settings))
    expected = torch.zeros_like(policy.table)
    for text in texts_of(policy):
        agent.moving_average = 0.3  # of earlier updates
        # An update is a mean over the tokens of its batch: of a single text, over the text's own.
        expected += text[3] * len(text[2]) * step_of(agent, episodes_of(policy, [text]))
    exact = policy.solution.policy_gradient() / gamma ** policy.solution.steps[:, None]  # agents leave out gamma^t
    np.testing.assert_allclose(expected, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_with_an_entropy_share_the_step_is_that_of_the_states_of_highest_entropy(share):
    env = make()
    policy = Table(env)
    settings = {"kl_coef": 0.0, "max_grad_norm": math.inf, "n_epochs": 1, "batch_size": None, "imitation_coef": 0.0}
    episodes = episodes_of(policy, texts_of(policy))
    whole, part = (step_of(PPO(policy, env, entropy_share=s, **settings), episodes) for s in (1.0, share))
    entropies = -(policy.solution.policy * np.log(policy.solution.policy)).sum(axis=1)
    visited = np.array([info["states"] for info in episodes.infos])[episodes.mask.numpy()]
    threshold = np.sort(entropies[visited])[-math.ceil(share * len(visited))]
    expected = np.where((entropies >= threshold)[:, None], whole, 0.0)
    np.testing.assert_allclose(part, expected, rtol=0, atol=1e-12)
    assert 0 < (part == 0).all(dim=1).sum() < len(entropies)


def groups_of(policy, size):
    """Yield groups of texts to one prompt, each with its probability."""
    texts = texts_of(policy)
    for prompt in {text[0] for text in texts}:
        share = policy.solution.probs[prompt]
        own = [(*text[:3], text[3] / share) for text in texts if text[0] == prompt]
        for group in combinations_with_replacement(range(len(own)), size):
            orders = math.factorial(size) / math.prod(math.factorial(group.count(i)) for i in set(group))
            yield [own[i] for i in group], share * orders * math.prod(own[i][3] for i in group)


def expected_group_step(agent, size, scale=lambda texts: 1.0):
    expected = torch.zeros_like(agent.policy.table)
    for texts, probability in groups_of(agent.policy, size):
        step = step_of(agent, episodes_of(agent.policy, texts))
        expected += probability * scale(texts) * step
    return expected


ROLLOUTS = {"branch_rollouts": 512, "branch_budget": 10**6}


@pytest.mark.parametrize(("share", "gamma"), [(1.0, 0.9), pytest.param(0.5, 1.0, marks=pytest.mark.slow)])
def test_the_expected_step_with_advantages_by_rollouts_is_the_exact_gradient_within_their_error(share, gamma):
    env = make(reward=Potential(gamma=gamma))
    policy = Table(env, gamma)
    constant = {"kl_coef": 0.0, "normalize_advantage": False, "max_grad_norm": math.inf, "num_episodes": 1}
    # With lambda = 0 and the exact V the other advantages are exact.
    settings = {"branch_share": share, "gae_lambda": 0.0, "n_epochs": 1, "batch_size": None} | ROLLOUTS
    settings["imitation_coef"] = 0.0
    agent = PPO(policy, env, PPOConfig(gamma=gamma, **constant, **settings))
    expected = torch.zeros_like(policy.table)
    for text in texts_of(policy):
        episodes = episodes_of(policy, [text])
        if share == 1:
            episodes.values += 5.0  # V is not used
        expected += text[3] * len(text[2]) * step_of(agent, episodes)
    exact = policy.solution.policy_gradient() / gamma ** policy.solution.steps[:, None]  # agents leave out gamma^t
    np.testing.assert_allclose(expected, exact, rtol=0, atol=0.012)
    assert np.abs(exact).max() > 0.1


def mean_over_tokens_to_sum_over_texts(texts):
    return sum(len(text[2]) for text in texts) / len(texts)


def grpo(policy, env, size, **settings):
    constant = {
        "variant": "grpo", "kl_coef": 0.0, "max_grad_norm": math.inf, "num_episodes": size, "n_epochs": 1,
        "batch_size": None, "imitation_coef": 0.0,
    }  # fmt: skip
    return GRPO(policy, env, GRPOConfig(**constant | settings))


GROUPS_OF_3 = pytest.param(True, 3, marks=pytest.mark.slow)


@pytest.mark.parametrize(("return_to_go", "size"), [(False, 2), (True, 2), GROUPS_OF_3])
@pytest.mark.parametrize("variant", ["rloo", "dr_grpo"])
def test_the_expected_step_of_groups_is_the_exact_gradient(variant, return_to_go, size):
    env = make(group_size=size)
    policy = Table(env)
    agent = grpo(policy, env, size, variant=variant, return_to_go=return_to_go)
    if variant == "rloo":
        expected = expected_group_step(agent, size, mean_over_tokens_to_sum_over_texts)
    else:  # a constant divisor, and the group's mean holds the text itself, which takes 1/n of the gradient
        expected = expected_group_step(agent, size) * BUDGET * size / (size - 1)
    np.testing.assert_allclose(expected, policy.solution.policy_gradient(), rtol=0, atol=1e-8)


def test_the_expected_step_with_the_others_as_baseline_is_the_exact_gradient():
    env = make(group_size=2)
    policy = Table(env)
    settings = {"kl_coef": 0.0, "normalize_advantage": False, "max_grad_norm": math.inf, "num_episodes": 2}
    agent = Reinforce(policy, env, ReinforceConfig(baseline="leave_one_out", **settings))
    expected = expected_group_step(agent, 2, mean_over_tokens_to_sum_over_texts)
    np.testing.assert_allclose(expected, policy.solution.policy_gradient(), rtol=0, atol=1e-8)


@pytest.mark.slow
def test_so_is_that_of_groups_whose_advantages_are_by_rollouts():
    env = make(group_size=2)
    policy = Table(env)
    agent = grpo(policy, env, 2, variant="rloo", branch_share=1.0, **ROLLOUTS | {"branch_rollouts": 32})
    expected = expected_group_step(agent, 2, mean_over_tokens_to_sum_over_texts)
    np.testing.assert_allclose(expected, policy.solution.policy_gradient(), rtol=0, atol=0.012)


@pytest.mark.parametrize(("variant", "same"), [("gspo", "grpo"), pytest.param("cispo", "dapo", marks=pytest.mark.slow)])
def test_the_expected_first_step_of_other_ratios_is_that_of_the_same_mean(variant, same):
    env = make(group_size=2)
    steps = [expected_group_step(grpo(Table(env), env, 2, variant=name), 2) for name in (variant, same)]
    np.testing.assert_allclose(*steps, rtol=0, atol=1e-12)
    assert float(steps[0].abs().max()) > 1e-3


COMPONENTS = {"a": lambda text: math.sin(7 * len(text) + text.count("a")), "b": lambda text: 0.01 * text.count("b")}
"""The second one varies little."""


def gradient_of_own_score(policy, size, advantage):
    """Return the gradient of E[f(y) / |y|], f(y) being the mean over all groups of ``size`` that hold the text y.

    ``advantage`` maps the (size,) indices of the texts of groups, (size, M), to the (M,) advantages of the first text.
    """
    text_scores = {}
    for prompt in np.flatnonzero(policy.solution.parents < 0):
        own = [text for text in texts_of(policy) if text[0] == prompt]
        probabilities = np.array([text[3] for text in own]) / policy.solution.probs[prompt]
        for i, text in enumerate(own):
            others = np.array(np.meshgrid(*[range(len(own))] * (size - 1))).reshape(size - 1, -1)
            advantages = advantage(own, np.vstack([np.full(others.shape[1], i), others]))
            text_scores[(prompt, *text[2])] = probabilities[others].prod(axis=0) @ advantages / len(text[2])
    starts = {tuple(policy.solution.ids[state]): state for state in np.flatnonzero(policy.solution.parents < 0)}

    def scorer(batch):
        keys = []
        for row, size, ids in zip(batch.ids, batch.prompt_lengths, batch.completion_ids, strict=True):
            start = tuple(np.where(np.arange(len(row)) < size, row, 3))
            keys.append((starts[start], *ids))
        return np.array([text_scores.get(key, 0.0) for key in keys])

    return solve(make(reward="terminal", scorer=scorer), policy.logits).policy_gradient()


def of_group(values):
    """Return (size, M) values minus the mean, divided by the deviation, of each column."""
    return (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-4)


@pytest.mark.slow
def test_the_expected_step_of_grpo_is_the_gradient_of_a_score_of_its_own():
    size = 3
    env = make(group_size=size, reward="terminal")
    policy = Table(env)

    def advantage(texts, groups):
        returns = np.array([policy.solution.rewards[text[1], text[2]].sum() for text in texts])
        return of_group(returns[groups])[0]

    step = expected_group_step(grpo(policy, env, size), size)
    np.testing.assert_allclose(step, gradient_of_own_score(policy, size, advantage), rtol=0, atol=1e-8)
    # The angle to the gradient of the expected return, as documented.
    step, exact = step.numpy().ravel(), policy.solution.policy_gradient().ravel()
    angle = math.degrees(math.acos(step @ exact / np.linalg.norm(step) / np.linalg.norm(exact)))
    assert f"{angle:.1f} degrees" in GRPO.__doc__


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_with_normalized_components_it_is_that_of_another_score(size):
    weights = {"a": 1.0, "b": 2.0}
    scorer = {name: (COMPONENTS[name], weight) for name, weight in weights.items()}
    env = make(group_size=size, reward="terminal", scorer=scorer)
    policy = Table(env)
    values = {}  # of each component, by state and last action
    for name, component in COMPONENTS.items():
        values[name] = solve(make(reward="terminal", scorer=component), policy.logits).rewards
    agent = grpo(policy, env, size, normalize_components=True)

    def scores(text, name):
        return values[name][text[1][-1], text[2][-1]]

    def advantage(texts, groups):
        parts = [
            weight * of_group(np.array([scores(text, name) for text in texts])[groups])
            for name, weight in weights.items()
        ]
        summed = sum(parts)
        return ((summed - summed.mean(axis=0)) / (summed.std(axis=0) + 1e-8))[0]  # the batch is one group

    expected = torch.zeros_like(policy.table)
    for texts, probability in groups_of(policy, size):
        episodes = episodes_of(policy, texts)
        for info, text in zip(episodes.infos, texts, strict=True):
            info["scores"] = {name: scores(text, name) for name in weights}
        expected += probability * step_of(agent, episodes)
    wanted = gradient_of_own_score(policy, size, advantage)
    np.testing.assert_allclose(expected, wanted, rtol=0, atol=1e-8)
    assert np.abs(wanted).max() > 1e-2


def test_the_step_of_self_imitation_is_the_gradient_of_the_log_probability_of_the_better_text():
    env = make(group_size=2)
    policy = Table(env)
    texts = texts_of(policy)
    returns = [float(policy.solution.rewards[text[1], text[2]].sum()) for text in texts]
    checked = 0
    for text, score in zip(texts, returns, strict=True):
        other, least = min(zip(texts, returns, strict=True), key=lambda pair: (pair[0][0] != text[0], pair[1]))
        if score - least < 1e-3:
            continue
        agent = grpo(policy, env, 2, imitation_coef=0.5, imitation_batch_size=4)
        agent.optimizer = torch.optim.SGD([policy.table], lr=1.0)
        before, episodes = policy.table.detach().clone(), episodes_of(policy, [other, text])
        agent.imitation.update(agent, episodes)
        step = policy.table.detach() - before
        with torch.no_grad():
            policy.table.copy_(before)
        # Of two returns the better one is one deviation above their mean. The buffer holds only its text.
        log_prob = policy.evaluate(episodes[1:]).log_probs.sum() / len(text[2])
        (gradient,) = torch.autograd.grad(0.5 * log_prob, policy.table)
        torch.testing.assert_close(step, gradient, atol=1e-6, rtol=0)
        checked += 1
    assert checked > 20


def test_the_expected_step_with_a_kl_reward_is_the_exact_gradient_of_the_penalised_return():
    reference = torch.randn(3, generator=torch.Generator().manual_seed(5), dtype=torch.float64).log_softmax(-1)
    model = SimpleNamespace(log_probs=lambda ids, lengths, actions, **_: reference.numpy()[actions])
    policy = Table(make())
    penalised = solve(make(kl_penalty=0.2, reference=model), policy.logits)
    expected = torch.zeros_like(policy.table)
    for text in texts_of(policy):
        episodes = episodes_of(policy, [text])
        penalty = estimated_kl("k1", episodes.log_probs, reference[torch.tensor([episodes.infos[0]["actions"]])])
        returns = discounted_returns(episodes.rewards - 0.2 * penalty, episodes.num_steps, 1.0)
        loss = policy_gradient_loss(policy.evaluate(episodes).log_probs, returns).sum()
        expected -= text[3] * torch.autograd.grad(loss, policy.table)[0]
    np.testing.assert_allclose(expected, penalised.policy_gradient(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_expected_gradient_of_a_kl_in_the_loss_is_that_of_an_exact_kl(estimator):
    generator = torch.Generator().manual_seed(0)
    logits, reference = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    log_probs = logits.log_softmax(-1)
    loss = (log_probs.exp().detach() * estimated_kl(estimator, log_probs, reference.log_softmax(-1))).sum()
    # k2: KL(pi || ref). k3: the other way round, KL(ref || pi).
    exact = exact_kl(logits, reference) if estimator == "k2" else exact_kl(reference, logits)
    gradients = [torch.autograd.grad(one, logits, retain_graph=True)[0] for one in (loss, exact.sum())]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)


# Critics --------------------------------------------------------------------------------------------------------------

TARGETS = {
    "returns": lambda r, v, n, gamma: discounted_returns(r, n, gamma),
    "lambda returns": lambda r, v, n, gamma: lambda_returns(r, v, n, gamma, 0.7),
    "2-step returns": lambda r, v, n, gamma: n_step_returns(r, v, n, gamma, 2),
    "advantages plus V": lambda r, v, n, gamma: generalized_advantages(r, v, n, gamma, 0.7) + v,
}


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_expected_targets_of_the_exact_critic_are_the_exact_q_values(targets, gamma):
    policy = Table(make(), gamma)
    texts = texts_of(policy)
    episodes = episodes_of(policy, texts)
    found = targets(episodes.rewards, episodes.values, episodes.num_steps, gamma)
    total, weight = np.zeros_like(policy.solution.rewards), np.zeros_like(policy.solution.rewards)
    for row, (_, states, actions, probability) in zip(found.tolist(), texts, strict=True):
        np.add.at(total, (states, actions), probability * np.array(row[: len(states)]))
        np.add.at(weight, (states, actions), probability)
    np.testing.assert_allclose(total / weight, policy.solution.q_values, rtol=0, atol=1e-12)


def test_the_exact_v_is_where_the_expected_gradient_of_the_value_loss_vanishes():
    policy = Table(make())
    texts = texts_of(policy)
    episodes = episodes_of(policy, texts)
    values = torch.tensor(policy.solution.values, requires_grad=True)
    states = torch.tensor([info["states"] for info in episodes.infos])
    losses = value_loss(values[states], discounted_returns(episodes.rewards, episodes.num_steps, 1.0))
    probabilities = torch.tensor([text[3] for text in texts])[:, None]
    (gradient,) = torch.autograd.grad((losses * episodes.mask * probabilities).sum(), values)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_one_step_and_lambda_targets_of_the_exact_optimum_are_its_q_values(gamma, lambda_):
    """Off the optimal policy only lambda = 0 is unbiased: Peng's Q(lambda) follows whatever was written."""
    policy = Table(make(), gamma)
    optimum = solve(make(), gamma=gamma)
    for text in texts_of(policy):
        greedy = all(optimum.policy[s, a] > 0 for s, a in zip(text[1][1:], text[2][1:], strict=True))
        episodes = episodes_of(policy, [text])
        values = torch.from_numpy(optimum.values[episodes.infos[0]["states"]])[None] * episodes.mask
        found = lambda_returns(episodes.rewards, values, episodes.num_steps, gamma, lambda_)
        if greedy or lambda_ == 0:
            exact = optimum.q_values[text[1], text[2]]
            np.testing.assert_allclose(found[0, : len(exact)], exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("relative", [True, False])
def test_path_inconsistency_is_zero_at_the_exact_soft_optimum_also_off_policy(relative, lambda_):
    temperature = 0.3
    generator = torch.Generator().manual_seed(5)
    log_reference = torch.randn(3, generator=generator, dtype=torch.float64).log_softmax(-1) * relative
    model = SimpleNamespace(log_probs=lambda ids, lengths, actions, **_: log_reference.numpy()[actions])
    optimum = solve(make(kl_penalty=temperature, reference=model))
    policy = Table(make())
    texts = texts_of(policy)
    episodes = episodes_of(policy, texts)
    states = torch.tensor([info["states"] for info in episodes.infos])
    actions = torch.tensor([info["actions"] for info in episodes.infos])
    values = torch.from_numpy(optimum.values)[states] * episodes.mask
    log_ratios = torch.from_numpy(np.log(optimum.policy))[states, actions] - log_reference[actions]
    error = path_inconsistency(
        values, log_ratios, episodes.rewards, values, episodes.num_steps,
        temperature=temperature, gamma=1.0, lambda_=lambda_,
    )  # fmt: skip
    torch.testing.assert_close(error, torch.zeros_like(error), atol=1e-12, rtol=0)
