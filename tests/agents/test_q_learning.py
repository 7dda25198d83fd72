"""Q-learning: targets by hand, whole episodes equal to prefixes, the replay buffer, learning."""

import itertools
import math

import numpy as np
import pytest
import torch

from fixtures import EPSILON_GREEDY, ONE_SEED_AND_TWO_SLOW, make_env, small_lm, small_q_policy
from textgym_agents import LMPolicy, collect
from textgym_agents.dqn import DQN, DQNConfig
from textgym_agents.losses import expectile_loss, path_inconsistency, td_loss
from textgym_agents.policy import polyak_update
from textgym_agents.q_policy import QPolicy
from textgym_agents.replay import EpisodeReplay
from textgym_agents.returns import lambda_returns, n_step_returns
from textgym_agents.soft_q import SoftQ, SoftQConfig

LETTER_B = 1


class NoB:
    """The letter b is invalid."""

    def mask(self, batch):
        return np.tile(np.arange(8) != LETTER_B, (len(batch), 1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def q_policy(seed=0, **settings):
    """Return an exploring Q-policy with heads other than 0."""
    policy = small_q_policy(seed, **settings)
    policy.epsilon = 0.5
    for head in (policy.q_head, policy.value_head):
        if head is not None:
            torch.nn.init.normal_(head[1].weight, std=0.1, generator=generator(seed))
    return policy


def episodes_of(policy, num_episodes=6, **keywords):
    return collect(make_env(4, **keywords), policy, num_episodes, seed=0, generator=generator())


def dqn(seed=0, env=None, policy=None, **settings):
    settings = EPSILON_GREEDY | {"num_episodes": 32, "batch_size": 32, "exploration_timesteps": 1_000} | settings
    policy = small_q_policy(seed) if policy is None else policy
    return DQN(policy, make_env(32) if env is None else env, DQNConfig(seed=seed, **settings))


def soft_q(seed=0, env=None, **settings):
    settings = {"num_episodes": 32, "batch_size": 32, "learning_rate": 3e-3, "temperature": 0.02} | settings
    return SoftQ(LMPolicy(small_lm(seed)), make_env(32) if env is None else env, SoftQConfig(seed=seed, **settings))


def mean_return(agent, deterministic):
    episodes = collect(make_env(64), agent.policy, 64, seed=9, deterministic=deterministic, generator=generator())
    return episodes.returns.mean().item()


# Returns and losses


def test_pengs_q_lambda_mixes_the_next_value_with_the_next_return():
    rewards, values = torch.tensor([[1.0, 0.0, 2.0, 9.0]]), torch.tensor([[5.0, 4.0, 8.0, 9.0]])
    # t = 2: 2; t = 1: 0 + 0.5 (0.75 * 8 + 0.25 * 2) = 3.25; t = 0: 1 + 0.5 (0.75 * 4 + 0.25 * 3.25) = 2.90625
    assert lambda_returns(rewards, values, torch.tensor([3]), 0.5, 0.25).tolist() == [[2.90625, 3.25, 2.0, 0.0]]


def test_pengs_q_lambda_of_a_truncated_episode_ends_with_the_value_of_what_was_cut_off():
    rewards, values = torch.tensor([[0.0, 2.0]]), torch.tensor([[5.0, 4.0]])
    # t = 1: 2 + 0.5 * 6 = 5; t = 0: 0.5 (0.5 * 4 + 0.5 * 5) = 2.25
    assert lambda_returns(rewards, values, torch.tensor([2]), 0.5, 0.5, torch.tensor([6.0])).tolist() == [[2.25, 5.0]]


def test_n_step_returns_take_n_rewards_and_the_value_after_them():
    rewards, values = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[7.0, 8.0, 16.0]])
    # t = 0: 1 + 0.5 * 2 + 0.25 * 16 = 6; t = 1: 2 + 0.5 * 4 = 4, since the text has ended; t = 2: 4
    assert n_step_returns(rewards, values, torch.tensor([3]), 0.5, 2).tolist() == [[6.0, 4.0, 4.0]]
    # one step: 1 + 0.5 * 8, 2 + 0.5 * 16, 4
    assert n_step_returns(rewards, values, torch.tensor([3]), 0.5, 1).tolist() == [[5.0, 10.0, 4.0]]


def test_n_step_returns_of_a_truncated_episode_look_no_further_than_the_cut():
    rewards, values = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[7.0, 8.0, 16.0]])
    # t = 0: as above; t = 1: 2 + 0.5 * 4 + 0.25 * 8 = 6; t = 2: 4 + 0.5 * 8 = 8
    returns = n_step_returns(rewards, values, torch.tensor([3]), 0.5, 2, torch.tensor([8.0]))
    assert returns.tolist() == [[6.0, 6.0, 8.0]]
    cut = n_step_returns(rewards, values, torch.tensor([2]), 0.5, 5, torch.tensor([8.0]))
    assert cut.tolist() == [[1.0 + 0.5 * 2 + 0.25 * 8, 2 + 0.5 * 8, 0.0]]


def test_hubers_loss_is_linear_where_the_squared_one_is_not():
    q, targets = torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2)
    assert td_loss(q, targets).tolist() == [[0.125, 2.5]]
    assert td_loss(q, targets, "squared").tolist() == [[0.125, 4.5]]


def test_the_expectile_is_the_mean_at_a_half_and_nears_the_maximum_at_one():
    samples = torch.tensor([0.0, 0.0, 0.0, 1.0])
    for expectile, low, high in ((0.5, 0.249, 0.251), (0.99, 0.9, 1.0)):
        grid = torch.linspace(0, 1, 1001)
        losses = expectile_loss(samples[None] - grid[:, None], expectile).sum(dim=1)
        assert low < grid[losses.argmin()] < high


def test_path_inconsistency_by_hand():
    values, targets = torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 20.0]])
    log_ratios, rewards = torch.tensor([[-1.0, -2.0]]), torch.tensor([[0.0, 4.0]])
    keywords = {"temperature": 0.5, "gamma": 0.5}
    episode = values, log_ratios, rewards, targets, torch.tensor([2])
    # rewards less 0.5 log ratio: 0.5 and 5. One step: 1 - (0.5 + 0.5 * 20), 2 - 5. Whole: 1 - (0.5 + 0.5 * 5), 2 - 5
    assert path_inconsistency(*episode, **keywords, lambda_=0.0).tolist() == [[-9.5, -3.0]]
    assert path_inconsistency(*episode, **keywords, lambda_=1.0).tolist() == [[-2.0, -3.0]]
    cut = path_inconsistency(*episode, **keywords, lambda_=0.0, last_values=torch.tensor([6.0]))
    assert cut.tolist() == [[-9.5, -6.0]]


def test_path_inconsistency_is_zero_at_the_optimum_of_a_bandit_whatever_was_chosen():
    rewards, temperature = torch.tensor([0.0, 1.0]), 0.5
    value = temperature * torch.logsumexp(rewards / temperature, 0)
    log_pi = torch.log_softmax(rewards / temperature, 0)
    one = torch.ones(2, dtype=torch.int64)
    error = path_inconsistency(
        value.expand(2, 1), log_pi[:, None], rewards[:, None], torch.zeros(2, 1), one,
        temperature=temperature, gamma=1.0, lambda_=1.0,
    )  # fmt: skip
    torch.testing.assert_close(error, torch.zeros(2, 1), atol=1e-6, rtol=0)


# The Q-policy


@pytest.mark.parametrize(
    "settings", [{}, {"dueling": True}, {"q_from": "logits"}, {"q_from": "logits", "dueling": True}]
)
def test_whole_episodes_agree_with_each_prefix(settings):
    policy = q_policy(**settings)
    episodes = episodes_of(policy, time_limit="truncated")
    with torch.no_grad():
        whole = policy.evaluate(episodes, with_truncated=True).q
        prefixes = []
        for b, n in enumerate(episodes.num_steps.tolist()):
            prefixes += [(b, int(episodes.prompt_lengths[b]) + t) for t in range(n)]
        prefixes += [
            (b, int(episodes.prompt_lengths[b] + episodes.num_steps[b])) for b in episodes.truncated.nonzero()[:, 0]
        ]
        assert len(whole) == len(prefixes) > int(episodes.num_steps.sum())
        for q, (b, length) in zip(whole, prefixes, strict=True):
            state = policy.backbone.states(
                episodes.ids[b : b + 1, :length], torch.tensor([0]), torch.tensor([length - 1])
            )
            torch.testing.assert_close(policy.from_hidden(*state).q[0], q, atol=1e-5, rtol=0)


def test_acting_agrees_with_evaluating():
    policy = q_policy(dueling=True)
    episodes = episodes_of(policy, constraints=NoB())
    largest = policy.evaluate(episodes).q.amax(dim=-1)
    torch.testing.assert_close(episodes.spread(largest), episodes.values, atol=1e-5, rtol=0)


def test_dueling_advantages_have_mean_zero_over_the_valid_actions():
    policy = q_policy(dueling=True)
    episodes = episodes_of(policy, constraints=NoB())
    values = policy.evaluate(episodes).q
    _, hidden = policy.backbone.states(episodes.ids, *episodes.states())
    valid_mean = values[:, torch.arange(8) != LETTER_B].mean(dim=1)
    torch.testing.assert_close(valid_mean, policy.value_head(hidden)[:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("epsilon", "temperature"), [(0.0, 0.0), (1.0, 0.0), (0.3, 0.5), (0.0, 2.0)])
def test_invalid_tokens_are_neither_written_nor_valued(epsilon, temperature):
    policy = q_policy()
    torch.nn.init.constant_(policy.q_head[1].bias[LETTER_B : LETTER_B + 1], 100.0)
    policy.epsilon, policy.temperature = epsilon, temperature
    episodes = episodes_of(policy, 32, constraints=NoB())
    rows, columns = episodes.states()
    assert not (episodes.ids[rows, columns + 1] == LETTER_B).any()
    assert episodes.values.max() < 50
    assert (policy.evaluate(episodes).q[:, LETTER_B] == -torch.inf).all()


def test_log_probs_are_those_of_the_exploration():
    policy = q_policy()
    policy.epsilon, policy.temperature = 0.25, 0.5
    q = torch.softmax(policy.from_hidden(*policy.backbone.step(np.array([[0, 1, 8]]))).q[0] / 0.5, dim=-1).detach()
    for seed in range(5):
        choice = policy.act(np.array([[0, 1, 8]]), generator=generator(seed))
        assert choice.log_probs[0] == pytest.approx(math.log(0.75 * q[choice.actions[0]] + 0.25 / 8), abs=1e-5)


def test_epsilon_explores_uniformly_and_greedy_choices_do_not_explore():
    policy = q_policy()
    policy.epsilon = 1.0
    ids = np.tile([0, 1, 8], (4000, 1))
    counts = np.bincount(policy.act(ids, generator=generator()).actions, minlength=8)
    assert counts.min() > 400  # 500 expected, deviation 21
    best = policy.from_hidden(*policy.backbone.step(ids[:1])).q.argmax()
    assert (policy.act(ids, deterministic=True).actions == int(best)).all()


@pytest.mark.parametrize(("settings", "temperature"), [({"q_from": "logits"}, 1.0), ({"lm_prior": True}, 0.1)])
def test_untrained_it_is_the_language_model_itself(settings, temperature):
    policy, lm = small_q_policy(**settings), LMPolicy(small_lm())
    policy.temperature = temperature
    ids = np.tile([0, 1, 8], (64, 1))
    mine, its = policy.act(ids, generator=generator()), lm.act(ids, generator=generator())
    assert (mine.actions == its.actions).all()
    np.testing.assert_allclose(mine.log_probs, its.log_probs, atol=1e-5)


def test_the_prior_decides_between_tokens_of_equal_value():
    policy = small_q_policy(lm_prior=True)
    policy.temperature = 0.1
    most_likely = int(policy.backbone.step(np.array([[0, 1, 8]]))[0].argmax())
    assert policy.act(np.array([[0, 1, 8]]), deterministic=True).actions[0] == most_likely
    torch.nn.init.constant_(policy.q_head[1].bias[3:4], 5.0)
    assert policy.act(np.array([[0, 1, 8]]), deterministic=True).actions[0] == 3


def test_greedy_choices_draw_nothing():
    random = generator()
    before = random.get_state().clone()
    q_policy().act(np.array([[0, 1, 8]]), deterministic=True, generator=random)
    assert torch.equal(random.get_state(), before)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("make", [QPolicy, LMPolicy])
def test_a_diverged_model_raises(make, deterministic):
    policy, ids = make(small_lm()), np.array([[0, 1, 8]])
    policy.act(ids)
    torch.nn.init.constant_(policy.model.transformer.ln_f.weight, torch.nan)
    with pytest.raises(FloatingPointError, match="NaN"):
        policy.act(ids, deterministic=deterministic)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_a_single_q_value_that_is_nan_raises(epsilon, deterministic):
    policy = small_q_policy()
    policy.epsilon = epsilon
    torch.nn.init.constant_(policy.q_head[1].bias[5:6], torch.nan)
    with pytest.raises(FloatingPointError, match="NaN"):
        policy.act(np.array([[0, 1, 8]]), deterministic=deterministic)


def test_only_tokens_that_the_language_model_finds_plausible_are_chosen_and_count_in_the_maximum():
    model = small_lm()
    model.transformer.wte.weight.data *= 1.4  # less uniform
    policy = QPolicy(model, min_p=0.6)
    torch.nn.init.normal_(policy.q_head[1].weight, std=3.0, generator=generator())
    policy.temperature, policy.epsilon = 0.5, 0.3
    episodes = episodes_of(policy, 64)
    with torch.no_grad():
        q, preferences = policy.evaluate(episodes)
        logits, _ = policy.backbone.states(episodes.ids, *episodes.states(), episodes.prompt_lengths)
    probabilities = logits.softmax(dim=-1)
    is_plausible = probabilities >= 0.6 * probabilities.amax(dim=-1, keepdim=True)
    assert 0.2 < float(is_plausible.float().mean()) < 0.9
    assert torch.equal(preferences > -torch.inf, is_plausible)
    assert bool(is_plausible.gather(1, episodes.actions()[:, None]).all())  # with epsilon too
    assert not bool(is_plausible.gather(1, q.argmax(dim=-1, keepdim=True)).all())  # Q alone would take others
    assert bool(q.isfinite().all())


def test_min_p_is_a_fraction():
    with pytest.raises(ValueError, match=r"min_p must be from 0 to 1, got 1\.5"):
        QPolicy(small_lm(), min_p=1.5)
    with pytest.raises(ValueError, match=r"min_p .* need q_from='head'"):
        QPolicy(small_lm(), q_from="logits", min_p=0.1)


def test_without_head_gradient_the_model_under_the_head_stays_as_it_was():
    agent = dqn(policy=small_q_policy(head_gradient=False)).learn(200)
    assert torch.equal(agent.policy.model.transformer.wte.weight, small_lm().transformer.wte.weight)
    assert agent.policy.q_head[1].weight.abs().max() > 0
    assert agent.target.model.transformer.wte.weight is agent.policy.model.transformer.wte.weight


def test_a_loaded_agent_predicts_as_the_saved_one(tmp_path):
    agent = dqn(exploration_initial_eps=1.0, exploration_final_eps=0.0, initial_temperature=1.0).learn(200)
    agent.save(tmp_path)
    loaded = DQN.load(tmp_path, make_env(32))
    assert (loaded.policy.epsilon, loaded.policy.temperature) == (agent.policy.epsilon, agent.policy.temperature)
    assert loaded.target.temperature == agent.target.temperature
    observations, _ = make_env(32).reset(seed=0)
    for _ in range(3):
        assert loaded.predict(observations)[0].tolist() == agent.predict(observations)[0].tolist()


@pytest.mark.parametrize(
    "settings", [{"dueling": True, "lm_prior": True, "head_gradient": False}, {"q_from": "logits"}]
)
def test_a_saved_q_policy_comes_back(tmp_path, settings):
    policy = q_policy(**settings)
    policy.epsilon, policy.temperature = 0.1, 0.5
    policy.save_pretrained(tmp_path)
    again = QPolicy.from_pretrained(tmp_path)
    ids = np.array([[0, 1, 8]])
    mine, its = policy.act(ids, generator=generator()), again.act(ids, generator=generator())
    assert (mine.actions, mine.log_probs, mine.values) == (its.actions, its.log_probs, its.values)


def test_incompatible_settings_of_a_q_policy_raise():
    with pytest.raises(ValueError, match="unknown q_from 'logit'; did you mean 'logits'"):
        QPolicy(small_lm(), q_from="logit")
    with pytest.raises(ValueError, match="need q_from='head'"):
        QPolicy(small_lm(), q_from="logits", lm_prior=True)


# The replay


def test_the_replay_gives_back_what_was_added():
    episodes = episodes_of(LMPolicy(small_lm()), 5, constraints=NoB())
    replay = EpisodeReplay(5)
    replay.add(episodes)
    drawn = replay.sample(40, generator())
    for i in range(40):
        width, steps = int(drawn.prompt_lengths[i] + drawn.num_steps[i]), int(drawn.num_steps[i])
        same = [
            j
            for j in range(5)
            if int(episodes.prompt_lengths[j] + episodes.num_steps[j]) == width
            and torch.equal(episodes.ids[j, :width], drawn.ids[i, :width])
            and torch.equal(episodes.rewards[j, :steps], drawn.rewards[i, :steps])
            and torch.equal(episodes.log_probs[j, :steps], drawn.log_probs[i, :steps])
            and np.array_equal(episodes.action_masks[j, :steps], drawn.action_masks[i, :steps])
        ]
        assert same, i


def test_the_replay_forgets_the_oldest_and_draws_all_others_alike():
    episodes = episodes_of(LMPolicy(small_lm()), 8)
    episodes.rewards[:] = torch.arange(8.0)[:, None]
    replay = EpisodeReplay(5)
    for i in range(0, 8, 2):
        replay.add(episodes[i : i + 2])
        assert len(replay) == min(i + 2, 5)
    counts = np.bincount(replay.sample(5000, generator()).rewards[:, 0].long().numpy(), minlength=8)
    assert counts[:3].tolist() == [0, 0, 0]
    assert counts[3:].min() > 880  # 1000 expected, deviation 28


def test_the_replay_takes_more_than_it_holds_and_longer_texts_later():
    policy = LMPolicy(small_lm())
    replay = EpisodeReplay(6)
    replay.add(episodes_of(policy, 9, max_new_tokens=2))
    replay.add(episodes_of(policy, 3, max_new_tokens=6))
    assert len(replay) == 6
    drawn = replay.sample(64, generator())
    assert drawn.num_steps.max() > 2
    assert torch.isfinite(policy.evaluate(drawn).log_probs).all()


def test_a_restored_replay_goes_on_in_the_same_order(tmp_path):
    episodes = episodes_of(LMPolicy(small_lm()), 9)
    replay, again = EpisodeReplay(6), EpisodeReplay(6)
    replay.add(episodes[:4])
    replay.save(tmp_path)
    again.load(tmp_path)
    for one in (replay, again):
        one.add(episodes[4:])
    assert torch.equal(replay.sample(20, generator()).ids, again.sample(20, generator()).ids)


def test_errors_of_the_replay():
    with pytest.raises(ValueError, match="capacity must be at least 1 episode, got 0"):
        EpisodeReplay(0)
    with pytest.raises(ValueError, match="the replay is empty"):
        EpisodeReplay(1).sample(1, generator())
    replay = EpisodeReplay(8)
    replay.add(episodes_of(LMPolicy(small_lm()), 2))
    with pytest.raises(ValueError, match="with and without action masks"):
        replay.add(episodes_of(LMPolicy(small_lm()), 2, constraints=NoB()))


# DQN


def biased(policy, biases):
    """Let Q be the same in every state."""
    torch.nn.init.zeros_(policy.q_head[1].weight)
    with torch.no_grad():
        policy.q_head[1].bias.copy_(torch.tensor(biases))


@pytest.mark.parametrize(("double_q", "value"), [(True, 3.0), (False, 5.0)])
def test_double_q_takes_the_online_networks_choice_at_the_targets_word(double_q, value):
    agent = dqn(double_q=double_q, q_lambda=0.0)
    biased(agent.policy, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    biased(agent.target, [5.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    episodes = agent.collect()
    targets = agent._targets(episodes, agent.policy.evaluate(episodes))
    before_the_last = episodes.mask.clone()
    before_the_last[torch.arange(32), episodes.num_steps - 1] = False
    assert (targets[before_the_last] == value).all()
    last = targets[torch.arange(32), episodes.num_steps - 1]
    torch.testing.assert_close(last, episodes.returns)  # the reward alone: the text has ended


@pytest.mark.parametrize("double_q", [True, False])
def test_targets_take_the_best_of_the_valid_actions(double_q):
    agent = dqn(env=make_env(32, constraints=NoB()), double_q=double_q, n_steps=1)
    for network in (agent.policy, agent.target):
        biased(network, [0.0, 9.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    episodes = agent.collect()
    targets = agent._targets(episodes, agent.policy.evaluate(episodes))
    assert targets.max() == 1.0


def test_what_a_time_limit_cut_off_counts_only_where_asked_for():
    env = make_env(32, time_limit="truncated", scorer=lambda completion: 0.0)
    for bootstrap in (False, True):
        agent = dqn(env=env, bootstrap_truncated=bootstrap, q_lambda=1.0)
        biased(agent.target, [2.0] * 8)
        episodes = agent.collect()
        with_truncated = agent.policy.evaluate(episodes, with_truncated=bootstrap)
        expected = torch.where(episodes.truncated[:, None] & episodes.mask, 2.0 if bootstrap else 0.0, 0.0)
        torch.testing.assert_close(agent._targets(episodes, with_truncated), expected)


def test_whole_episode_gradients_equal_those_of_single_transitions():
    agent = dqn(policy=q_policy(dueling=True), loss_type="squared", micro_batch=3)
    episodes = episodes_of(agent.policy, 8)
    targets = agent._targets(episodes, agent.policy.evaluate(episodes))
    agent.backward(episodes, agent.loss)
    whole = {name: p.grad.clone() for name, p in agent.policy.named_parameters() if p.grad is not None}
    agent.optimizer.zero_grad()
    for b, n in enumerate(episodes.num_steps.tolist()):
        for t in range(n):
            length = int(episodes.prompt_lengths[b]) + t
            state = agent.policy.backbone.states(
                episodes.ids[b : b + 1, :length], torch.tensor([0]), torch.tensor([length - 1])
            )
            q = agent.policy.from_hidden(*state).q[0, episodes.ids[b, length]]
            ((q - targets[b, t]).square() / 2 / episodes.num_steps.sum()).backward()
    assert len(whole) > 20
    for name, parameter in agent.policy.named_parameters():
        if name in whole:
            torch.testing.assert_close(whole[name], parameter.grad, atol=1e-5, rtol=0)


def test_exploration_falls_linearly_over_all_calls_of_learn():
    rows = []
    settings = {"initial_temperature": 0.5, "num_episodes": 8, "gradient_steps": 1}
    agent = dqn(exploration_initial_eps=1.0, exploration_final_eps=0.2, **settings)
    for _ in range(2):
        agent.learn(800, callback=lambda _, metrics: rows.append(metrics))
    assert rows[0]["rollout/exploration_rate"] == 1.0
    for before, row in itertools.pairwise(rows):
        done = min(1.0, before["time/total_timesteps"] / 1_000)
        assert row["rollout/exploration_rate"] == pytest.approx(1.0 - 0.8 * done)
        assert row["rollout/temperature"] == pytest.approx(0.5 - 0.5 * done)
    assert rows[-1]["rollout/exploration_rate"] == pytest.approx(0.2)


def test_polyak_averaging_goes_tau_of_the_way_and_one_copies():
    target, online = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.constant_(target.weight, 1.0)
    torch.nn.init.constant_(online.weight, 3.0)
    polyak_update(target, online, 0.25)
    assert target.weight.item() == 1.5
    polyak_update(target, online, 1.0)
    assert target.weight.item() == 3.0


def test_a_periodic_target_changes_only_every_so_many_updates():
    agent = dqn(tau=1.0, target_update_interval=4, gradient_steps=3)
    start = agent.target.q_head[1].weight.clone()
    agent.update(agent.collect())
    assert torch.equal(agent.target.q_head[1].weight, start)
    agent.update(agent.collect())  # updates 4 to 6
    assert not torch.equal(agent.target.q_head[1].weight, start)
    assert not torch.equal(agent.target.q_head[1].weight, agent.policy.q_head[1].weight)


@pytest.mark.parametrize("seed", ONE_SEED_AND_TWO_SLOW)
def test_dqn_reaches_ninety_percent_of_the_optimum_where_chance_gets_an_eighth(seed):
    agent = dqn(seed)
    assert mean_return(agent, deterministic=True) < 0.5
    agent.learn(4_000)
    assert mean_return(agent, deterministic=True) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"dueling": True}, {"q_from": "logits"}, {"lm_prior": True}], ids=lambda s: next(iter(s))
)
def test_other_q_functions_learn_too(settings):
    config = {"initial_temperature": 0.1, "final_temperature": 0.02}
    agent = dqn(policy=small_q_policy(**settings), learning_rate=2e-3, n_steps=3, **config).learn(5_000)
    assert mean_return(agent, deterministic=True) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_soft_q_reaches_ninety_percent_of_the_optimum_even_where_it_samples(seed):
    agent = soft_q(seed)
    assert mean_return(agent, deterministic=False) < 0.25
    agent.learn(6_000)
    assert mean_return(agent, deterministic=False) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"value_from": "logits"},
        {"single_step_coef": 1.0},
        {"relative_to_start": False},
        {"gradient_steps": 1, "num_episodes": 16},
    ],
    ids=lambda s: next(iter(s)),
)
def test_soft_q_learns_in_every_form(settings):
    agent = soft_q(**settings).learn(8_000)
    assert mean_return(agent, deterministic=True) > 0.9


@pytest.mark.slow
def test_a_higher_temperature_keeps_soft_q_closer_to_where_it_started():
    kls = []
    for temperature in (0.02, 1.0):
        rows = []
        soft_q(temperature=temperature).learn(3_000, callback=lambda _, metrics: rows.append(metrics))  # noqa: B023
        kls.append(rows[-1]["train/kl_reference"])
    assert kls[1] < 0.2 * kls[0]


def test_untrained_soft_q_values_are_zero_relative_to_the_start():
    agent = soft_q(value_from="logits")
    episodes = agent.collect()
    reference = agent.consistency.reference_logits(episodes)
    for quantity in agent.consistency.evaluate(agent.policy, reference, episodes):
        torch.testing.assert_close(quantity, torch.zeros_like(quantity), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("make", [dqn, soft_q])
def test_agents_learn_where_masks_hide_the_best_letter(make):
    env = make_env(32, constraints=NoB(), scorer=lambda completion: completion.count("c") / 6)
    agent = make(env=env).learn(5_000)
    episodes = collect(env, agent.policy, 32, seed=9, deterministic=True)
    assert episodes.returns.mean() > 0.9


@pytest.mark.parametrize("make", [dqn, soft_q])
def test_the_same_seed_gives_the_same_parameters(make):
    first, again = make(env=make_env(8)).learn(300), make(env=make_env(8)).learn(300)
    for name, tensor in first.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (dqn, {"bootstrap_truncated": True, "buffer_size": 100}),
        pytest.param(dqn, {"target_update_interval": 3, "tau": 1.0}, marks=pytest.mark.slow),
        (soft_q, {"single_step_coef": 1.0, "bootstrap_truncated": True, "buffer_size": 100}),
        pytest.param(soft_q, {"relative_to_start": False, "gradient_steps": 1}, marks=pytest.mark.slow),
    ],
)
def test_saving_and_loading_in_the_middle_changes_nothing(make, settings, tmp_path):
    env = make_env(32, time_limit="truncated")
    straight = make(env=env, **settings).learn(500)
    straight.save(tmp_path)
    straight.learn(500)
    resumed = type(straight).load(tmp_path, make_env(32, time_limit="truncated"))
    assert resumed.num_timesteps < straight.num_timesteps
    resumed.learn(500)
    targets = [agent.target if make is dqn else agent.consistency.target for agent in (resumed, straight)]
    for one, other in ((resumed.policy, straight.policy), targets):
        for name, tensor in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], tensor), name


@pytest.mark.parametrize("make", [dqn, soft_q])
def test_metrics_carry_sb3s_names_and_are_the_same_at_every_update(make):
    rows = []
    make().learn(300, callback=lambda _, metrics: rows.append(metrics))
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "train/loss", "train/n_updates"} <= rows[0].keys()
    assert rows[0].keys() == rows[-1].keys()
    if make is dqn:
        assert "rollout/exploration_rate" in rows[0]


@pytest.mark.parametrize(
    ("config_class", "setting", "message"),
    [
        (DQNConfig, {"tau": 1.5}, "tau must be from 0 to 1, got 1.5"),
        (DQNConfig, {"n_steps": 0}, "n_steps must be at least 1, got 0"),
        (DQNConfig, {"loss_type": "hubber"}, "unknown loss_type 'hubber'; did you mean 'huber'"),
        (DQNConfig, {"buffer_size": 0}, "buffer_size must be at least 1, got 0"),
        (SoftQConfig, {"temperature": 0.0}, "temperature must be above 0"),
        (SoftQConfig, {"multi_step_coef": 0.0}, "nothing would be learned"),
        (SoftQConfig, {"value_from": "heads"}, "unknown value_from 'heads'; did you mean 'head'"),
    ],
)
def test_settings_out_of_range_are_refused(config_class, setting, message):
    with pytest.raises(ValueError, match=message):
        config_class(**setting)


def test_another_agents_config_is_refused():
    with pytest.raises(TypeError, match="DQN takes a DQNConfig, got SoftQConfig"):
        DQN(small_q_policy(), make_env(), SoftQConfig())


def test_a_checkpoint_of_another_agent_is_refused(tmp_path):
    dqn().learn(50).save(tmp_path)
    with pytest.raises(ValueError, match=r"is a checkpoint of DQN, not of SoftQ: call DQN\.load"):
        SoftQ.load(tmp_path, make_env(32))
