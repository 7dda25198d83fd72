"""Returns and losses: expected numbers worked out by hand, gradients against finite differences."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textgym_agents.losses import baseline_loss, explained_variance, masked_mean, normalized, policy_gradient_loss
from textgym_agents.returns import discounted_returns


def test_terminated_episode_sums_its_discounted_rewards():
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    # 1 + 0.5 * 2 + 0.25 * 4 = 3, then 2 + 0.5 * 4 = 4, then 4
    assert discounted_returns(rewards, torch.tensor([3]), 0.5).tolist() == [[3.0, 4.0, 4.0]]


def test_truncated_episode_bootstraps_with_the_value():
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    # the last reward becomes 4 + 0.5 * 8 = 8, so 2 + 0.5 * 8 = 6 and 1 + 0.5 * 6 = 4
    assert discounted_returns(rewards, torch.tensor([3]), 0.5, torch.tensor([8.0])).tolist() == [[4.0, 6.0, 8.0]]


def test_what_stands_after_an_episodes_end_does_not_count():
    rewards = torch.tensor([[1.0, 1.0, 7.0], [1.0, 1.0, 7.0]])
    returns = discounted_returns(rewards, torch.tensor([1, 3]), 1.0, torch.tensor([2.0, 0.0]))
    assert returns.tolist() == [[3.0, 0.0, 0.0], [9.0, 8.0, 7.0]]


@given(
    st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=12),
    st.floats(0, 1, width=32),
    st.floats(-5, 5, width=32),
)
def test_returns_follow_their_definition(rewards, gamma, last_value):
    n = len(rewards)
    returns = discounted_returns(torch.tensor([rewards]), torch.tensor([n]), gamma, torch.tensor([last_value]))
    for t in range(n):
        expected = sum(gamma ** (k - t) * rewards[k] for k in range(t, n)) + gamma ** (n - t) * last_value
        assert returns[0, t].item() == pytest.approx(expected, abs=1e-3)


def test_masked_mean_ignores_padding():
    assert masked_mean(torch.tensor([[2.0, 4.0], [6.0, 99.0]]), torch.tensor([[True, True], [True, False]])) == 4.0


def test_normalized_advantages_have_mean_zero_and_deviation_one():
    mask = torch.tensor([[True, True, False]])
    values = normalized(torch.tensor([[1.0, 3.0, 50.0]]), mask)  # mean 2, deviation 1
    assert values[0, :2].tolist() == pytest.approx([-1.0, 1.0])


def test_equal_advantages_normalize_to_zero():
    for value in (0.0, 0.1, 0.3, -0.7):  # 0.3 is no binary number: a mean in float32 misses it
        values = normalized(torch.full((64, 31), value), torch.ones(64, 31, dtype=torch.bool))
        assert values.dtype == torch.float32
        assert values.abs().max() < 1e-6


def test_policy_gradient_loss_by_hand():
    log_probs = torch.log(torch.tensor([[0.5, 0.25]]))
    advantages = torch.tensor([[2.0, -1.0]])
    # -(2 log 0.5 - log 0.25) / 2 = -(2 log 0.5 - 2 log 0.5) / 2 = 0
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert policy_gradient_loss(log_probs, advantages, mask).item() == pytest.approx(0.0)
    # -(2 log 0.5) = 2 log 2
    assert policy_gradient_loss(log_probs, advantages, mask & (advantages > 0)).item() == pytest.approx(2 * math.log(2))


def test_baseline_loss_by_hand_and_without_gradient_through_the_returns():
    values = torch.tensor([[1.0, 0.0]], requires_grad=True)
    returns = torch.tensor([[3.0, 4.0]], requires_grad=True)
    loss = baseline_loss(values, returns, torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 5.0  # (4 + 16) / 2 / 2
    assert values.grad.tolist() == [[-1.0, -2.0]]
    assert returns.grad is None


def test_explained_variance_is_one_for_a_perfect_baseline_and_zero_for_a_constant():
    returns, mask = torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3, dtype=torch.bool)
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(torch.full_like(returns, 5.0), returns, mask) == 0.0
    assert math.isnan(explained_variance(returns, torch.ones_like(returns), mask))


def test_policy_gradient_equals_finite_differences_on_a_two_armed_bandit():
    rewards = torch.tensor([1.0, -0.5], dtype=torch.float64)
    logits = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)

    def expected_reward(at):
        return (torch.softmax(at, 0) * rewards).sum()

    # Both arms once, each weighted by its probability: the expectation that sampling estimates.
    probabilities = torch.softmax(logits, 0).detach()
    advantages = (2 * probabilities * rewards)[:, None]
    log_probs = torch.log_softmax(logits, 0)[:, None]
    policy_gradient_loss(log_probs, advantages, torch.ones(2, 1, dtype=torch.bool)).backward()
    for i in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[i] = 1e-6
        with torch.no_grad():
            slope = (expected_reward(logits + step) - expected_reward(logits - step)) / 2e-6
        assert -logits.grad[i].item() == pytest.approx(slope.item(), abs=1e-8)
