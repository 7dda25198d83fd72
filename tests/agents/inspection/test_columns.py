"""Columns of reports against independent computations."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from fixtures import make_env, small_lm
from textgym.constraints import MinNewTokens
from textgym_agents import (
    DQN,
    ILQL,
    PPO,
    Episodes,
    ILQLPolicy,
    LMPolicy,
    QPolicy,
    Reinforce,
    SoftQ,
    collect,
)
from textgym_agents.inspection import inspect

VALUES = ("value", "td_error", "gae_advantage", "return_to_go")


def written(num_episodes=6, policy=None, **keywords):
    """Return an environment, a policy and its episodes."""
    env, policy = make_env(**keywords), policy or LMPolicy(small_lm())
    return env, policy, collect(env, policy, num_episodes, seed=3, generator=torch.Generator().manual_seed(3))


def log_softmax_by_hand(model, ids):
    """Return the log-probabilities of all next tokens after one text, by one plain forward and a loop."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1].double().tolist()
    largest = max(logits)
    total = largest + math.log(sum(math.exp(x - largest) for x in logits))
    return [x - total for x in logits]


def test_every_token_compares_with_the_reference_as_a_loop_over_the_vocabulary_does():
    env, policy, episodes = written()
    before = LMPolicy(small_lm(1))
    report = inspect(policy, episodes, env=env, reference=before, num_alternatives=3)
    for b, episode in enumerate(report.episodes):
        ids = episodes.ids[b].tolist()
        for t, token in enumerate(episode.tokens):
            place = int(episodes.positions[b, t])
            own, old = (log_softmax_by_hand(model, ids[:place]) for model in (policy.model, before.model))
            assert token.id == ids[place]
            best = sorted(range(8), key=lambda i, own=own: -own[i])
            assert token.log_prob == pytest.approx(own[token.id], abs=1e-5)
            assert token.log_prob_after == pytest.approx(own[token.id], abs=1e-5)
            assert token.log_prob_before == pytest.approx(old[token.id], abs=1e-5)
            assert token.rank == best.index(token.id) + 1
            assert token.rank_before == sorted(old, reverse=True).index(old[token.id]) + 1
            assert token.entropy == pytest.approx(-sum(p * math.exp(p) for p in own), abs=1e-5)
            assert token.entropy_before == pytest.approx(-sum(p * math.exp(p) for p in old), abs=1e-5)
            assert token.top_ids.tolist() == best[:3]
            assert token.top_log_probs == pytest.approx([own[i] for i in best[:3]], abs=1e-5)
            assert token.top_log_probs_before == pytest.approx([old[i] for i in best[:3]], abs=1e-5)
            assert token.kl == pytest.approx(
                sum(math.exp(p) * (p - q) for p, q in zip(own, old, strict=True)), abs=1e-5
            )
            assert token.kl_k1 == pytest.approx(own[token.id] - old[token.id], abs=1e-5)
            assert token.ratio == pytest.approx(1, abs=1e-5)
    assert {i for row in report.table.columns["top_ids"] for i in row} <= report.table.texts.keys()


def test_gae_and_returns_are_those_of_stable_baselines3_on_the_penalized_rewards():
    agent = PPO(small_lm(), make_env(), num_episodes=8, kl_coef=0.1, gamma=0.9, gae_lambda=0.8, learning_rate=1e-2)
    agent.learn(96)
    episodes = agent.collect()
    report = inspect(agent, episodes)
    assert report.about["return"] == "score minus 0.1 x KL to the reference"
    before = agent.kl.reference.evaluate(episodes).log_probs
    rewards = episodes.rewards - 0.1 * (episodes.log_probs - before)
    assert (episodes.log_probs - before).abs().max() > 0.01
    for b, episode in enumerate(report.episodes):
        size = int(episodes.num_steps[b])
        buffer = RolloutBuffer(size, spaces.Box(0, 1, (1,)), spaces.Discrete(8), gae_lambda=0.8, gamma=0.9)
        for t in range(size):
            value = episodes.values[b, t : t + 1]
            buffer.add(np.zeros((1, 1)), np.zeros((1, 1)), rewards[b, t].numpy(), np.array([t == 0]), value, value)
        buffer.compute_returns_and_advantage(torch.zeros(1), np.array([True]))
        advantages = buffer.advantages[:, 0]
        assert episode.column("gae_advantage") == pytest.approx(advantages, abs=1e-5)
        nexts = np.append(episodes.values[b, 1:size].numpy(), 0.0)
        errors = rewards[b, :size].numpy() + 0.9 * nexts - episodes.values[b, :size].numpy()
        assert episode.column("td_error") == pytest.approx(errors, abs=1e-5)
        total = 0.0
        for t in reversed(range(size)):
            total = float(rewards[b, t]) + 0.9 * total
            assert episode.tokens[t].return_to_go == pytest.approx(total, abs=1e-5)


def test_a_penalty_in_the_loss_is_in_no_return():
    agent = PPO(small_lm(), make_env(), num_episodes=8, kl_coef=0.1, kl_estimator="k3", learning_rate=1e-2).learn(96)
    episodes = agent.collect()
    report = inspect(agent, episodes)
    assert report.about["return"] == "score"
    assert "kl" in report.table.columns
    for b, episode in enumerate(report.episodes):
        assert episode.tokens[0].return_to_go == pytest.approx(float(episodes.returns[b]), abs=1e-5)


def test_the_environments_penalty_is_named_and_not_subtracted_twice():
    env, policy, episodes = written(kl_penalty=0.2, reference=small_lm(1))
    report = inspect(policy, episodes, env=env)
    assert report.about["return"] == "score minus 0.2 x KL to the reference, as the environment rewards it"
    starts = [episode.tokens[0].return_to_go for episode in report.episodes]
    assert starts == pytest.approx(episodes.returns.tolist(), abs=1e-5)


def test_the_clip_is_active_exactly_where_ppos_loss_has_no_gradient():
    agent = PPO(small_lm(), make_env(), num_episodes=16, batch_size=4, n_epochs=6, learning_rate=1e-2, kl_coef=0.0)
    agent.learn(96)
    episodes = agent.episodes
    report = inspect(agent, episodes)
    log_probs = agent.policy.evaluate(episodes).log_probs.detach().requires_grad_()
    ratio = (log_probs - episodes.log_probs).exp()
    surrogate = torch.minimum(ratio * episodes.advantages, ratio.clamp(0.8, 1.2) * episodes.advantages)
    (gradient,) = torch.autograd.grad(surrogate[episodes.mask].sum(), log_probs)
    expected = ((gradient == 0) & (episodes.advantages != 0))[episodes.mask].numpy()
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(report.table.columns["clipped"], expected)
    assert report.table.columns["ratio"] == pytest.approx(ratio[episodes.mask].detach().numpy(), abs=1e-4)


def test_q_values_of_dqn_are_those_of_its_head():
    agent = DQN(QPolicy(small_lm(), q_from="logits"), make_env(), num_episodes=8, initial_temperature=0.5).learn(96)
    episodes = agent.collect()
    report = inspect(agent, episodes)
    policy = agent.policy
    for b, episode in enumerate(report.episodes):
        for t, token in enumerate(episode.tokens):
            with torch.no_grad():
                ids = episodes.ids[b : b + 1, : int(episodes.positions[b, t])]
                q = policy.model(input_ids=ids).logits[0, -1]
            assert token.q_value == pytest.approx(float(q[token.id]), abs=1e-4)
            assert token.max_q == pytest.approx(float(q.max()), abs=1e-4)
            soft = policy.temperature * math.log(sum(math.exp(x / policy.temperature) for x in q.tolist()))
            assert token.soft_value == pytest.approx(soft, abs=1e-4)
    assert "gae_advantage" not in report.table.columns
    assert report.about["return"] == "score"


@pytest.mark.parametrize("value_from", ["head", "logits"])
@pytest.mark.parametrize("relative", [True, False])
def test_q_of_soft_q_learning_is_consistent_with_its_policy(value_from, relative):
    agent = SoftQ(
        small_lm(), make_env(), num_episodes=8, temperature=0.3, value_from=value_from, relative_to_start=relative,
        learning_rate=1e-2,
    ).learn(96)  # fmt: skip
    episodes = agent.collect()
    report = inspect(agent, episodes)
    log_ratios, values, _ = agent.consistency.evaluate(
        agent.policy, agent.consistency.reference_logits(episodes), episodes
    )
    assert report.table.by_step("soft_value")[episodes.mask] == pytest.approx(
        values.detach()[episodes.mask].numpy(), abs=1e-4
    )
    q = (values + 0.3 * log_ratios).detach()[episodes.mask].numpy()
    assert report.table.columns["q_value"] == pytest.approx(q, abs=1e-4)
    assert report.about["return"] == "score minus 0.3 x " + ("KL to the reference" if relative else "log pi")
    assert ("kl" in report.table.columns) == relative


def test_q_of_ilql_is_the_minimum_of_its_target_heads():
    env, _, episodes = written(8)
    agent = ILQL(ILQLPolicy(small_lm()), episodes, batch_size=8, learning_rate=1e-2).learn(96)
    report = inspect(agent, episodes, env=env)
    heads = agent.policy.evaluate(episodes)
    q = heads.target_q.gather(1, episodes.actions()[:, None])[:, 0]
    assert report.table.columns["q_value"] == pytest.approx(q.numpy(), abs=1e-5)
    acting = torch.log_softmax(heads.logits, 1) + agent.policy.beta * (heads.target_q - heads.values[:, None])
    expected = torch.log_softmax(acting, 1).gather(1, episodes.actions()[:, None])[:, 0].detach()
    assert report.table.columns["log_prob_after"] == pytest.approx(expected.numpy(), abs=1e-4)


def test_the_biography_of_a_token_has_a_column_for_each_checkpoint(tmp_path):
    env, policy, episodes = written()
    other = LMPolicy(small_lm(1))
    other.save_pretrained(tmp_path / "second")
    report = inspect(policy, episodes, env=env, checkpoints={"first": policy, "second": tmp_path / "second"})
    assert report.about["checkpoints"] == ["first", "second"]
    column = report.table.columns["biography"]
    for k, each in enumerate((policy, other)):
        with torch.no_grad():
            expected = each.evaluate(episodes).log_probs[episodes.mask]
        assert column[:, k] == pytest.approx(expected.numpy(), abs=1e-5)


def test_invalid_tokens_have_no_rank_no_alternative_and_no_kl():
    env, policy, episodes = written(constraints=[MinNewTokens(6)])
    report = inspect(policy, episodes, env=env, reference=LMPolicy(small_lm(1)), num_alternatives=8)
    ends = report.table.columns["top_ids"] == 7  # EOS is invalid in all states
    assert not ends.any()
    assert (report.table.columns["top_ids"][:, 7] == -1).all()
    assert np.isfinite(report.table.columns["kl"]).all()
    assert (report.table.columns["mask_size"] == 7).all()


def test_a_cut_episode_is_bootstrapped_only_where_the_agent_does():
    env = make_env(time_limit="truncated")
    settings = {"num_episodes": 8, "kl_coef": 0.0, "learning_rate": 1e-2}
    for bootstraps in (True, False):
        agent = PPO(LMPolicy(small_lm()), env, bootstrap_truncated=bootstraps, **settings).learn(96)
        episodes = agent.collect()
        report = inspect(agent, episodes)
        last = agent.policy.last_values(episodes) if bootstraps else torch.zeros(len(episodes))
        assert bool(last.any()) == bootstraps
        for b, episode in enumerate(report.episodes):
            expected = float(episodes.returns[b] + last[b])
            assert episode.tokens[0].return_to_go == pytest.approx(expected, abs=1e-4)
        assert ("plus V where the time limit cuts (not in rollouts)" in report.about["return"]) == bootstraps


def test_the_return_without_a_time_limit_that_truncates_names_no_value_after_it():
    agent = PPO(LMPolicy(small_lm()), make_env(), bootstrap_truncated=True, num_episodes=8, kl_coef=0.0)
    assert inspect(agent, 4).about["return"] == "score"


def test_without_a_value_function_its_columns_are_absent():
    env, policy, episodes = written()
    report = inspect(policy, episodes, env=env)
    assert not {"value", "td_error", "gae_advantage", "kl", "q_value"} & report.table.columns.keys()
    agent = Reinforce(small_lm(), make_env(), num_episodes=8, baseline="none", kl_coef=0.0).learn(48)
    with pytest.raises(ValueError, match="'gae_advantage' needs a policy with V"):
        inspect(agent, agent.episodes, columns=["gae_advantage"])


def test_parts_of_the_episodes_give_the_columns_of_all(monkeypatch):
    env, policy, episodes = written(32)
    whole = inspect(policy, episodes, env=env, reference=LMPolicy(small_lm(1)))
    monkeypatch.setattr("textgym_agents.inspection.columns._LOGITS", 8 * 20)  # about 20 states, 3 episodes
    parts = inspect(policy, episodes, env=env, reference=LMPolicy(small_lm(1)))
    assert whole.table.columns.keys() == parts.table.columns.keys()
    for name, column in whole.table.columns.items():
        np.testing.assert_allclose(parts.table.columns[name], column, atol=1e-5, err_msg=name)


def test_tokens_of_a_user_have_no_numbers_of_actions():
    ids = torch.tensor([[0, 1, 2, 3, 4]])
    steps = {"rewards": torch.tensor([[0.0, 1.0]]), "values": torch.zeros(1, 2)}
    episodes = Episodes(
        ids=ids, prompt_lengths=torch.tensor([1]), num_steps=torch.tensor([2]), truncated=torch.tensor([False]),
        log_probs=torch.full((1, 2), torch.nan), action_masks=None, infos=[{}], positions=torch.tensor([[1, 3]]),
        text_lengths=torch.tensor([5]), **steps,
    )  # fmt: skip
    report = inspect(LMPolicy(small_lm()), episodes, env=make_env())
    tokens = report.episodes[0].tokens
    assert [token.text for token in tokens] == ["b", "c", "d", "e"]
    assert [math.isnan(token.rank) for token in tokens] == [False, True, False, True]
    assert tokens[1].top_ids.tolist() == [-1] * 5
    assert "ratio" not in report.table.columns  # the log-probabilities of the policy that acted are not known
    assert report.infos[0]["completion"] == "bcde"
