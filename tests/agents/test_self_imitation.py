"""Self-imitation: what is kept, the step that imitates it, resume."""

import numpy as np
import torch

from fixtures import make_env, share_of_b, small_lm
from textgym_agents import GRPO, PPO, LMPolicy, collect


def agent_of(kind=GRPO, group_size=4, **settings):
    settings = {"num_episodes": 16, "kl_coef": 0.0, "n_epochs": 1, "batch_size": None, "imitation_coef": 1.0} | settings
    return kind(LMPolicy(small_lm()), make_env(16, group_size=group_size), **settings)


def episodes_of(agent, num_episodes=16):
    generator = torch.Generator().manual_seed(0)
    return collect(agent.env, agent.policy, num_episodes, seed=0, generator=generator)


def texts(episodes):
    return [tuple(ids[: int(length)]) for ids, length in zip(episodes.ids.tolist(), episodes.text_lengths, strict=True)]


def test_the_best_text_of_each_group_that_exceeds_the_others_is_kept():
    agent = agent_of()
    episodes = episodes_of(agent)
    agent.update(episodes)
    wanted = set()
    for group in np.unique(episodes.groups()):
        members = np.flatnonzero(episodes.groups() == group)
        returns = episodes.returns[members]
        if returns.max() > returns.min():
            wanted.add(texts(episodes)[members[int(returns.argmax())]])
    kept = agent.imitation.successes.sample(400, torch.Generator().manual_seed(0))
    assert len(agent.imitation.successes) == len(wanted) > 0
    assert set(texts(kept)) == wanted


def test_without_groups_every_text_above_the_mean_is_kept():
    agent = agent_of(PPO, group_size=1)
    episodes = episodes_of(agent)
    agent.update(episodes)
    assert len(agent.imitation.successes) == int((episodes.returns > episodes.returns.mean()).sum()) > 0


def test_the_step_raises_the_probability_of_what_it_imitates_whatever_the_scale_of_the_rewards():
    after = []
    for scale in (1.0, 1000.0):
        env = make_env(16, group_size=4, scorer=lambda text, scale=scale: scale * share_of_b(text))
        agent = GRPO(LMPolicy(small_lm()), env, num_episodes=16, kl_coef=0.0, imitation_coef=1.0)
        agent.imitation.update(agent, episodes_of(agent))
        kept = agent.imitation.successes.sample(64, torch.Generator().manual_seed(1))
        with torch.no_grad():
            after.append(float(agent.policy.evaluate(kept).log_probs[kept.mask].mean()))
        assert after[-1] > float(kept.log_probs[kept.mask].mean())
    assert abs(after[0] - after[1]) < 1e-4


def test_nothing_is_kept_where_all_texts_score_the_same():
    agent = GRPO(
        LMPolicy(small_lm()), make_env(16, group_size=4, scorer=lambda text: 1.0), num_episodes=16, kl_coef=0.0,
        imitation_coef=1.0,
    )  # fmt: skip
    before = [p.clone() for p in agent.policy.parameters()]
    metrics = agent.update(episodes_of(agent))
    assert metrics["train/imitation_episodes"] == 0
    assert "train/imitation_loss" not in metrics
    assert all(torch.equal(old, new) for old, new in zip(before, agent.policy.parameters(), strict=True))


def test_without_a_coefficient_nothing_is_kept_and_no_step_is_taken():
    agent = agent_of(imitation_coef=0.0)
    metrics = agent.update(episodes_of(agent))
    assert len(agent.imitation.successes) == 0
    assert agent.num_updates == 1
    assert not any("imitation" in name for name in metrics)


def test_no_more_texts_are_imitated_than_the_update_has():
    agent = agent_of()
    drawn = []
    sample = agent.imitation.successes.sample
    agent.imitation.successes.sample = lambda size, generator: drawn.append(size) or sample(size, generator)
    agent.update(episodes_of(agent))
    assert drawn == [16]
