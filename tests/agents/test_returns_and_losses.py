"""Returns and losses: expected numbers worked out by hand, gradients against finite differences."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textgym_agents.losses import (
    clip_metrics,
    clipped_surrogate_loss,
    clipped_weight_loss,
    estimated_kl,
    exact_kl,
    explained_variance,
    masked_mean,
    normalized,
    path_inconsistency,
    policy_gradient_loss,
    sequence_surrogate_loss,
    td_loss,
    value_loss,
)
from textgym_agents.returns import (
    decoupled_advantages,
    discounted_returns,
    generalized_advantages,
    group_statistics,
    lambda_returns,
    leave_one_out,
    n_step_returns,
)


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
    # -2 log 0.5 = 2 log 2, and log 0.25 = -2 log 2
    losses = policy_gradient_loss(log_probs, advantages)
    assert losses.tolist() == [pytest.approx([2 * math.log(2), -2 * math.log(2)])]


def test_value_loss_by_hand_with_its_gradient():
    values = torch.tensor([[1.0, 0.0]], requires_grad=True)
    losses = value_loss(values, torch.tensor([[3.0, 4.0]]))
    losses.sum().backward()
    assert losses.tolist() == [[2.0, 8.0]]  # 4 / 2, 16 / 2
    assert values.grad.tolist() == [[-2.0, -4.0]]


def test_clipped_value_loss_takes_the_larger_error_and_stops_the_gradient_of_a_value_that_moved_too_far():
    values = torch.tensor([[2.0, 2.0]], requires_grad=True)
    losses = value_loss(values, torch.tensor([[3.0, 1.5]]), torch.tensor([[1.0, 1.0]]), 0.5)
    losses.sum().backward()
    # clipped values are 1.5: errors (1.5 - 3)^2 > (2 - 3)^2, and (1.5 - 1.5)^2 < (2 - 1.5)^2
    assert losses.tolist() == [[1.125, 0.125]]
    assert values.grad.tolist() == [[0.0, 0.5]]


def test_advantages_by_hand():
    rewards, values = torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 2.0]])
    # delta_1 = 2 + 0.5 * 8 - 2 = 4 where the value 8 follows, delta_0 = 1 + 0.5 * 2 - 4 = -2; -2 + 0.5 * 0.5 * 4 = -1
    advantages = generalized_advantages(rewards, values, torch.tensor([2]), 0.5, 0.5, torch.tensor([8.0]))
    assert advantages.tolist() == [[-1.0, 4.0]]
    # an end: delta_1 = 2 - 2 = 0
    assert generalized_advantages(rewards, values, torch.tensor([2]), 0.5, 0.5).tolist() == [[-2.0, 0.0]]


def test_advantages_ignore_what_stands_after_an_end():
    rewards, values = torch.tensor([[1.0, 9.0]]), torch.tensor([[0.5, 9.0]])
    assert generalized_advantages(rewards, values, torch.tensor([1]), 1.0, 0.9).tolist() == [[0.5, 0.0]]


@given(
    st.lists(st.tuples(st.floats(-10, 10, width=32), st.floats(-5, 5, width=32)), min_size=1, max_size=12),
    st.floats(0, 1, width=32),
    st.floats(-5, 5, width=32),
)
def test_advantages_of_lambda_one_are_returns_minus_values_and_of_lambda_zero_td_errors(steps, gamma, last):
    rewards, values = torch.tensor([[r for r, _ in steps]]), torch.tensor([[v for _, v in steps]])
    n, last = torch.tensor([len(steps)]), torch.tensor([last])
    returns = discounted_returns(rewards, n, gamma, last)
    torch.testing.assert_close(
        generalized_advantages(rewards, values, n, gamma, 1.0, last), returns - values, atol=1e-3, rtol=1e-4
    )
    following = torch.cat([values[:, 1:], last[:, None]], 1)
    torch.testing.assert_close(
        generalized_advantages(rewards, values, n, gamma, 0.0, last), rewards + gamma * following - values
    )


def test_group_statistics_by_hand():
    values = torch.tensor([[1.0, 5.0], [3.0, 7.0], [9.0, 9.0]])
    mask = torch.tensor([[True, False], [True, True], [True, True]])
    mean, deviation, count = group_statistics(values, torch.tensor([7, 7, 2]), mask)
    assert mean.tolist() == [[2.0, 7.0], [2.0, 7.0], [9.0, 9.0]]
    assert deviation.tolist() == [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    assert count.tolist() == [[2.0, 1.0], [2.0, 1.0], [1.0, 1.0]]


def test_equal_returns_of_a_group_lie_at_its_mean_exactly():
    values = torch.full((7,), 100.3)  # no binary number: a mean in float32 misses it by more than GRPO divides by
    mean, deviation, _ = group_statistics(values, torch.zeros(7, dtype=torch.int64))
    assert torch.equal(mean, values)
    assert deviation.max() < 1e-9


def test_leave_one_out_is_the_mean_of_the_others_and_zero_alone():
    assert leave_one_out(torch.tensor([1.0, 3.0, 8.0, 5.0]), torch.tensor([1, 1, 1, 0])).tolist() == [
        5.5,
        4.5,
        2.0,
        0.0,
    ]


def test_one_ratio_of_a_text_is_the_geometric_mean_of_its_tokens_and_is_clipped_as_a_whole():
    ratios = torch.tensor([[2.0, 0.5, 1.0], [1.5, 1.5, 9.0]])
    log_probs = ratios.log().requires_grad_()
    mask = torch.tensor([[True, True, True], [True, True, False]])
    advantages = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    losses = sequence_surrogate_loss(log_probs, torch.zeros(2, 3), advantages, mask, 0.2)
    # 1 of the first, since 2 * 0.5 * 1 = 1; 1.5 of the second, clipped to 1.2, times the advantage 2
    torch.testing.assert_close(losses[mask], torch.tensor([-1.0, -1.0, -1.0, -2.4, -2.4]))
    (gradient,) = torch.autograd.grad(losses[mask].sum(), log_probs)
    # each of the 3 losses moves by a third with each log-probability; the clipped text has no gradient
    torch.testing.assert_close(gradient, torch.tensor([[-1.0, -1.0, -1.0], [0.0, 0.0, 0.0]]))


def test_each_component_is_divided_by_its_own_deviation_in_its_group():
    nan = math.nan
    components = torch.tensor([[0.0, 7.0], [200.0, 7.0], [1.0, nan], [3.0, 0.0], [5.0, 0.02]])
    groups = torch.tensor([4, 4, 8, 8, 8])
    # Group 4: -1, 1 and equal ones. Group 8: deviation sqrt(8 / 3) around 3; -1 and 1, each of deviation 0.01 + 1e-4.
    first = 2 / math.sqrt(8 / 3)
    expected = torch.tensor([-1.0, 1.0, -first, -0.5 / 1.01, first + 0.5 / 1.01])
    found = decoupled_advantages(components, torch.tensor([1.0, 0.5]), groups)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    # An eighth of the deviation: a component counts by its weight, whatever its scale.
    scaled = decoupled_advantages(components * torch.tensor([1.0, 8.0]), torch.tensor([1.0, 0.5]), groups)
    torch.testing.assert_close(found, scaled, atol=1e-2, rtol=0)
    with pytest.raises(ValueError, match=r"weights \(K,\) and groups \(B,\), got \(5, 2\), \(3,\) and \(5,\)"):
        decoupled_advantages(components, torch.ones(3), groups)


def test_clipped_weights_leave_every_token_its_gradient():
    log_probs = torch.tensor([[1.5, 0.5, 1.1]]).log().requires_grad_()
    losses = clipped_weight_loss(log_probs, torch.zeros(1, 3), torch.tensor([[1.0, -1.0, 2.0]]), 0.2, 0.3)
    (gradient,) = torch.autograd.grad(losses.sum(), log_probs)
    torch.testing.assert_close(gradient, -torch.tensor([[1.3, -0.8, 2.2]]))  # -clip(w) A


def test_clipped_surrogate_by_hand_with_its_gradient():
    log_probs = torch.log(torch.tensor([[1.5, 1.5, 0.5, 1.1]])).requires_grad_()
    advantages = torch.tensor([[1.0, -1.0, -1.0, 2.0]])
    losses = clipped_surrogate_loss(log_probs, torch.zeros(1, 4), advantages, 0.2)
    losses.sum().backward()
    # min(1.5, 1.2), min(-1.5, -1.2), min(-0.5, -0.8), min(2.2, 2.2)
    assert losses.tolist() == [pytest.approx([-1.2, 1.5, 0.8, -2.2])]
    assert log_probs.grad.tolist() == [pytest.approx([0.0, 1.5, 0.0, -2.2])]
    assert clipped_surrogate_loss(log_probs, torch.zeros(1, 4), advantages, 0.2, 0.6)[0, 0].item() == pytest.approx(
        -1.5
    )


def test_kl_estimators_average_to_the_exact_kl_where_they_are_unbiased():
    logits, reference = torch.tensor([[0.3, -0.2, 1.0]]), torch.tensor([[0.0, 0.5, -0.4]])
    log_probs, ref = logits.log_softmax(1), reference.log_softmax(1)
    exact = float((log_probs.exp() * (log_probs - ref)).sum())
    assert exact_kl(logits, reference).item() == pytest.approx(exact)
    for name in ("k1", "k3"):
        mean = (log_probs.exp() * estimated_kl(name, log_probs, ref)).sum().item()
        assert mean == pytest.approx(exact, abs=1e-6), name
    assert (estimated_kl("k3", log_probs, ref) >= 0).all()
    # log 2 - log 4 = -log 2
    two, four = torch.tensor([2.0]).log(), torch.tensor([4.0]).log()
    assert estimated_kl("k1", two, four).item() == pytest.approx(-math.log(2))
    assert estimated_kl("k2", two, four).item() == pytest.approx(math.log(2) ** 2 / 2)
    assert estimated_kl("k3", two, four).item() == pytest.approx(1 - math.log(2))


def test_an_unknown_kl_estimator_raises():
    with pytest.raises(ValueError, match="unknown KL estimator 'k4'; did you mean 'k"):
        estimated_kl("k4", torch.zeros(1), torch.zeros(1))


def test_the_gradients_of_the_kl_estimators_in_a_loss():
    """Averaged over the policy's own choices: of the KL for k2, of the KL the other way round for k3, none for k1."""
    logits, reference = torch.tensor([0.3, -0.2, 1.0], requires_grad=True), torch.tensor([0.0, 0.5, -0.4])

    def gradient_in_a_loss(name):
        log_probs = logits.log_softmax(0)
        losses = estimated_kl(name, log_probs, reference.log_softmax(0))
        return torch.autograd.grad((log_probs.detach().exp() * losses).sum(), logits)[0]

    def gradient_of_the_kl(first, second):
        return torch.autograd.grad(exact_kl(first[None], second[None]).sum(), logits)[0]

    torch.testing.assert_close(gradient_in_a_loss("k1"), torch.zeros(3))
    torch.testing.assert_close(gradient_in_a_loss("k2"), gradient_of_the_kl(logits, reference))
    torch.testing.assert_close(gradient_in_a_loss("k3"), gradient_of_the_kl(reference, logits))


def test_the_exact_kl_has_finite_gradients_under_masks():
    logits = torch.tensor([[0.3, -torch.inf, 1.0]], requires_grad=True)
    kl = exact_kl(logits, torch.tensor([[0.0, -torch.inf, 0.0]]))
    kl.sum().backward()
    p = torch.softmax(torch.tensor([0.3, 1.0]), 0)
    assert kl.item() == pytest.approx(float((p * (p * 2).log()).sum()))
    assert logits.grad.isfinite().all()


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
    policy_gradient_loss(log_probs, advantages).mean().backward()
    for i in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[i] = 1e-6
        with torch.no_grad():
            slope = (expected_reward(logits + step) - expected_reward(logits - step)) / 2e-6
        assert -logits.grad[i].item() == pytest.approx(slope.item(), abs=1e-8)


# Shapes: a (B,) argument would be broadcast against (B, T) where B = T

BT, B = torch.zeros(3, 3), torch.zeros(3)
MASK, STEPS = torch.ones(3, 3, dtype=torch.bool), torch.tensor([3, 3, 3])
WRONG_SHAPES = {
    "policy gradient": lambda: policy_gradient_loss(BT, B),
    "clipped surrogate, advantages": lambda: clipped_surrogate_loss(BT, BT, B, 0.2),
    "clipped surrogate, old": lambda: clipped_surrogate_loss(BT, B, BT, 0.2),
    "clipped weight, advantages": lambda: clipped_weight_loss(BT, BT, B, 0.2),
    "sequence surrogate, mask": lambda: sequence_surrogate_loss(BT, BT, BT, B.bool(), 0.2),
    "value": lambda: value_loss(BT, B),
    "clipped value": lambda: value_loss(BT, BT, B, 0.2),
    "KL": lambda: estimated_kl("k1", BT, B),
    "exact KL": lambda: exact_kl(BT, B),
    "TD": lambda: td_loss(BT, B),
    "path": lambda: path_inconsistency(BT, BT, BT, B, STEPS, temperature=1.0, gamma=1.0, lambda_=1.0),
    "clip metrics": lambda: clip_metrics(BT, B, 0.2),
    "mean": lambda: masked_mean(B, MASK),
    "normalized": lambda: normalized(B, MASK),
    "explained variance": lambda: explained_variance(BT, B, MASK),
    "statistics": lambda: group_statistics(B, STEPS, MASK),
    "advantages": lambda: generalized_advantages(BT, B, STEPS, 1.0, 1.0),
    "lambda": lambda: lambda_returns(BT, B, STEPS, 1.0, 1.0),
    "n steps": lambda: n_step_returns(BT, B, STEPS, 1.0, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_SHAPES)
def test_unequal_shapes_are_refused_with_both_of_them(name):
    with pytest.raises(ValueError, match=r"shapes must be equal, got .*\((3, 3|3,)\), .*\((3, 3|3,)\)"):
        WRONG_SHAPES[name]()


@pytest.mark.parametrize("returns", [discounted_returns, lambda *a, **k: n_step_returns(a[0], *a, n=1, **k)])
def test_lengths_of_whole_texts_in_place_of_numbers_of_steps_are_refused(returns):
    with pytest.raises(ValueError, match=r"num_steps .*\(3,\).*T=3, .*a maximum of 5"):
        returns(BT, torch.tensor([3, 5, 4]), gamma=1.0)
    with pytest.raises(ValueError, match=r"num_steps .*\(3,\).*got shape \(2,\)"):
        returns(BT, torch.tensor([3, 3]), gamma=1.0)
    with pytest.raises(ValueError, match=r"num_steps \(3,\), last_values \(3, 1\)"):
        returns(BT, STEPS, gamma=1.0, last_values=torch.zeros(3, 1))


def test_clipping_the_value_needs_the_old_values():
    with pytest.raises(ValueError, match="clip_range needs old_values"):
        value_loss(torch.ones(1, 2), torch.ones(1, 2), clip_range=0.2)
