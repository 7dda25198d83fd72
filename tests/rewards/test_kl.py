"""The KL penalty."""

import numpy as np
import pytest

from textgym.rewards import kl_penalty


def test_kl_penalty_is_the_difference_of_log_probabilities():
    penalty = kl_penalty(0.5, np.log([0.25, 0.5, 1.0]), np.log([0.5, 0.5, 0.25]))
    assert penalty == pytest.approx([0.5 * np.log(2), 0.0, -0.5 * np.log(4)])
    assert penalty.dtype == np.float64


def test_kl_penalty_without_the_policys_log_probabilities_is_the_cross_entropy():
    assert kl_penalty(2.0, np.log([0.25, 1.0])) == pytest.approx([2 * np.log(4), 0.0])


def test_an_entropy_bonus_turns_the_cross_entropy_into_the_kl():
    policy, reference = np.array([0.8, 0.2]), np.array([0.4, 0.6])
    kl = np.sum(policy * np.log(policy / reference))
    entropy = -np.sum(policy * np.log(policy))
    assert np.sum(policy * kl_penalty(0.3, np.log(reference))) - 0.3 * entropy == pytest.approx(0.3 * kl)


def test_kl_penalty_rejects_shapes_that_differ():
    with pytest.raises(ValueError, match=r"log_probs has shape \(1,\), reference_log_probs \(2,\)"):
        kl_penalty(1.0, np.zeros(2), np.zeros(1))
