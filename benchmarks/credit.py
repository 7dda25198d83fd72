"""Which ways to credit a token agree with its advantage, on the embedded LM, before and after training.

    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python benchmarks/credit.py [--episodes 12] [--rollouts 64] [--scorers sentiment]

The truth is A_t = r_t + V(s_{t+1}) - V(s_t) by rollouts, twice and independently; the mean of the two estimates has the
reliability 2 r / (1 + r), r being their correlation (Spearman and Brown). Printed is the correlation of each method
with that mean over all tokens, divided by the root of the reliability, with a 95 % interval by resampling episodes. In
bold are the method with the highest one and those whose 95 % interval of the difference to it, over the same resampled
episodes, contains 0: the data do not tell them apart.
V and GAE are those of PPO's critic, which is fitted before training too, on episodes of the initial LM. The return is
the score everywhere.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

import textgym  # noqa: F401 (registers the environments)
from textgym_agents import PPO, Episodes, LMPolicy, PPOConfig, branch, collect
from textgym_agents.inspection import leave_one_out, prefix_credit, samples_of
from textgym_agents.returns import generalized_advantages
from textgym_agents.state_replay import replay

Floats = npt.NDArray[np.float64]
SCORERS = ("sentiment", "readability", "fluency")
NUM_TOKENS = 16
NUM_RESAMPLES = 1_000
UPDATES = 16
"""Updates of PPO between before and after, and of the critic alone before that."""


class Truth(NamedTuple):
    """Advantages of the tokens of B episodes by rollouts."""

    advantages: Floats
    """(B, T), the mean of two estimates."""
    reliability: float
    first_values: Floats
    """(B,) V(s_0)."""


def estimate_truth(env: Any, policy: LMPolicy, episodes: Episodes, num_rollouts: int) -> Truth:
    """Return the advantages by two independent sets of rollouts."""
    states, index, rewards = replay(env, episodes)
    halves, first = [], []
    for seed in (1, 2):
        values = np.append(branch(env, policy, num_rollouts, states=states, seed=seed).values, 0.0)[index]
        halves.append(rewards + values[:, 1:] - values[:, :-1])
        first.append(values[:, 0])
    mask = episodes.mask.numpy()
    correlation = float(np.corrcoef(halves[0][mask], halves[1][mask])[0, 1])
    return Truth(np.mean(halves, axis=0), 2 * correlation / (1 + correlation), np.mean(first, axis=0))


def attention(policy: LMPolicy, episodes: Episodes) -> Floats:
    """Return (B, T) attention to each token, a mean over layers, heads and the positions after it."""
    model = policy.model
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            layers = model(input_ids=episodes.ids, output_attentions=True, use_cache=False).attentions
    finally:
        model.set_attn_implementation(before)
    mean = torch.stack(layers).mean(dim=(0, 2))  # (B, W, W)
    columns = torch.arange(mean.shape[1])
    later = (columns[:, None] > columns) & (columns[:, None] < episodes.text_lengths[:, None, None])
    received = (mean * later).sum(dim=1) / later.sum(dim=1).clamp(min=1)
    return received.gather(1, episodes.positions).double().numpy()


def gradient_of_log_probs(policy: LMPolicy, episodes: Episodes) -> Floats:
    """Return (B, T) gradient x input of the log-probability of the text, by the embedding of each token."""
    model = policy.model
    embedded = model.get_input_embeddings()(episodes.ids).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, use_cache=False).logits
    log_probs = torch.log_softmax(logits[:, :-1], dim=2).gather(2, episodes.ids[:, 1:, None])[..., 0]
    columns = torch.arange(1, episodes.ids.shape[1])
    inside = (columns >= episodes.prompt_lengths[:, None]) & (columns < episodes.text_lengths[:, None])
    (gradient,) = torch.autograd.grad((log_probs * inside).sum(), embedded)
    return (gradient * embedded).sum(dim=2).gather(1, episodes.positions).detach().double().numpy()


def gradient_of_value(policy: LMPolicy, episodes: Episodes) -> Floats:
    """Return (B, T) gradient x input of V of the whole text, by the number of times that each token occurs.

    Up to a factor per text it is the token's weight, as V is a saturating function of a sum over tokens.
    """
    weights = policy.value_head.token_values.detach()
    ids = episodes.ids.gather(1, episodes.positions)
    last = policy.evaluate(episodes).values.detach().gather(1, episodes.num_steps[:, None] - 1)
    center, radius = policy.value_head.center, policy.value_head.radius
    slope = (1 - ((last - center) / radius).square()).clamp(min=0) ** 1.5  # dV/dz, with V = c + z / sqrt(1 + (z/r)^2)
    return (weights[ids] * slope).double().numpy()


def methods(agent: PPO, env: Any, episodes: Episodes, truth: Truth) -> dict[str, Floats]:
    """Return (B, T) credit by the name of each method."""
    base, policy = env.unwrapped, agent.policy
    scorer, samples = base.core.components.scorer, samples_of(env, episodes)
    with torch.no_grad():
        evaluation = policy.evaluate(episodes)
    returns = episodes.returns.double().numpy()[:, None]
    arguments = episodes.rewards, evaluation.values, episodes.num_steps, 1.0
    ones = np.ones(tuple(episodes.mask.shape))
    return {
        "leave one out": leave_one_out(scorer, episodes, base.tokenizer, samples=samples),
        "prefix difference": prefix_credit(scorer, episodes, base.tokenizer, samples=samples),
        "critic, r + V(s') - V(s)": generalized_advantages(*arguments, 0.0).double().numpy(),
        "GAE, lambda 0.95": generalized_advantages(*arguments, 0.95).double().numpy(),
        "R - V(s_0) for all (GRPO)": (returns - truth.first_values[:, None]) * ones,
        "attention x R": attention(policy, episodes) * returns,
        "gradient x input of V": gradient_of_value(policy, episodes),
        "gradient x input of log pi, x R": gradient_of_log_probs(policy, episodes) * returns,
        "surprise": -evaluation.log_probs.double().numpy(),
        "entropy": evaluation.entropies.double().numpy(),
    }


def correlations(credit: Floats, truth: Truth, mask: npt.NDArray[np.bool_]) -> Floats:
    """Return (1 + NUM_RESAMPLES,) correlations with the truth, divided by the root of its reliability.

    The first is that of the episodes, the others those of resampled ones, which are the same for all methods.
    """

    def over(rows: npt.NDArray[np.int64]) -> float:
        x, y = credit[rows][mask[rows]], truth.advantages[rows][mask[rows]]
        if truth.reliability <= 0 or x.std() == 0 or y.std() == 0:
            return float("nan")  # too few rollouts, or the same credit everywhere
        return float(np.corrcoef(x, y)[0, 1] / np.sqrt(truth.reliability))

    rng = np.random.default_rng(0)
    resampled = [over(rng.integers(len(mask), size=len(mask))) for _ in range(NUM_RESAMPLES)]
    return np.array([over(np.arange(len(mask))), *resampled])


def cells(rows: dict[str, Floats]) -> dict[str, str]:
    """Return what the table shows of the correlations of each method."""
    best = rows[max(rows, key=lambda name: np.nan_to_num(rows[name][0], nan=-np.inf))]
    shown = {}
    for name, values in rows.items():
        low, high = np.nanquantile(values[1:], (0.025, 0.975))
        is_among_best = np.nanquantile((best - values)[1:], 0.025) <= 0
        mean = f"**{values[0]:.2f}**" if is_among_best else f"{values[0]:.2f}"
        shown[name] = f"{mean} ({low:.2f} to {high:.2f})"
    return shown


def measure(agent: PPO, env: Any, num_episodes: int, num_rollouts: int, seed: int) -> tuple[Any, dict[str, str]]:
    """Return the facts of a measurement, and the cell of each method."""
    episodes = collect(env, agent.policy, num_episodes, seed=seed, generator=torch.Generator().manual_seed(seed))
    truth = estimate_truth(env.unwrapped, agent.policy, episodes, num_rollouts)
    mask = episodes.mask.numpy()
    rows = {name: correlations(credit, truth, mask) for name, credit in methods(agent, env, episodes, truth).items()}
    facts = float(episodes.returns.mean()), truth.reliability, float(truth.advantages[mask].std()), int(mask.sum())
    return facts, cells(rows)


def train(agent: PPO, num_updates: int, *, frozen: bool) -> None:
    """Train for some updates, or only fit V."""
    rates = [group["lr"] for group in agent.optimizer.param_groups]
    if frozen:
        agent.optimizer.param_groups[0]["lr"] = 0.0
    for _ in range(num_updates):
        agent.learn_from(agent.collect())
    for group, rate in zip(agent.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def print_table(columns: dict[str, tuple[Any, dict[str, str]]]) -> None:
    """Print the results as a Markdown table."""
    print("| method | " + " | ".join(columns) + " |")
    print("| --- |" + " --- |" * len(columns))
    lines: list[tuple[str, Callable[[Any], str]]] = [
        ("mean score", lambda facts: f"{facts[0]:.2f}"),
        ("standard deviation of A", lambda facts: f"{facts[2]:.3f}"),
        ("reliability of the truth", lambda facts: f"{facts[1]:.2f}"),
        ("tokens", lambda facts: f"{facts[3]}"),
    ]
    for name in next(iter(columns.values()))[1]:
        print(f"| {name} | " + " | ".join(rows[name] for _, rows in columns.values()) + " |")
    for name, shown in lines:
        print(f"| *{name}* | " + " | ".join(shown(facts) for facts, _ in columns.values()) + " |")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=12)
    parser.add_argument("--rollouts", type=int, default=64, help="of each state, in each of the two estimates")
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--scorers", nargs="+", default=list(SCORERS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    columns = {}
    for scorer in arguments.scorers:
        settings = {"scorer": scorer, "max_new_tokens": NUM_TOKENS, "autoreset_mode": "SameStep"}
        env = gym.make_vec("TextGen-v0", num_envs=arguments.episodes, **settings)
        agent = PPO(LMPolicy("tiny"), gym.make_vec("TextGen-v0", num_envs=64, **settings), PPOConfig(seed=0))
        train(agent, arguments.updates, frozen=True)
        columns[f"{scorer}, before"] = measure(agent, env, arguments.episodes, arguments.rollouts, 1)
        train(agent, arguments.updates, frozen=False)
        columns[f"{scorer}, after"] = measure(agent, env, arguments.episodes, arguments.rollouts, 2)
        print(f"{scorer}: {time.process_time() - start:.0f} s", flush=True)
    print_table(columns)


if __name__ == "__main__":
    main()
