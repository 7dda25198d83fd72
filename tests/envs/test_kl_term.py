"""The KL term of the reward."""

import numpy as np
import pytest
from letter_env import EOS, make_vector, started, unchanged, write

from textgym.constraints import AllowTokens


class Reference:
    """Half of the probability for the token that equals the text's length, a quarter for any other."""

    def log_probs(self, ids, lengths, actions, *, token_masks=None, active=None):
        return np.log(np.where(actions == lengths, 0.5, 0.25))


def test_the_kl_term_subtracts_the_log_ratio_of_policy_and_reference():
    env = started(kl_penalty=0.1, reference=Reference())
    env.set_log_probs(np.log(0.5))
    _, reward, *_ = env.step(7)  # after 3 tokens: a quarter
    assert reward == pytest.approx(-0.1 * np.log(2.0))
    env.set_log_probs(np.log(0.25))
    _, reward, *_ = env.step(4)  # after 4 tokens: a half
    assert reward == pytest.approx(0.1 * np.log(2.0))
    env.set_log_probs(np.log(0.75))
    _, reward, _, _, info = env.step(EOS)
    assert reward == pytest.approx(2.0 - 0.1 * np.log(3.0))
    assert info["kl"] == pytest.approx(np.log(2.0) - np.log(2.0) + np.log(3.0))
    assert info["score"] == 2.0


def test_without_log_probs_the_kl_term_is_a_cross_entropy():
    env = started(kl_penalty=0.1, reference=Reference())
    assert env.step(7)[1] == pytest.approx(-0.1 * np.log(4.0))
    _, _, _, _, info = env.step(EOS)
    assert info["kl"] == pytest.approx(2 * np.log(4.0))


def test_log_probs_hold_for_one_step():
    env = started(kl_penalty=0.1, reference=Reference())
    env.set_log_probs(np.log(0.5))
    env.step(7)
    assert env.step(7)[1] == pytest.approx(-0.1 * np.log(4.0))
    env.set_log_probs(np.log(0.5))
    env.reset()
    assert env.step(7)[1] == pytest.approx(-0.1 * np.log(4.0))


def test_the_kl_term_is_slot_by_slot_also_while_one_slot_restarts():
    envs = make_vector(2, kl_penalty=1.0, reference=Reference())
    envs.reset(seed=0)
    envs.set_log_probs(np.log([0.5, 0.25]))
    np.testing.assert_allclose(envs.step([EOS, 3])[1], [-np.log(2.0), np.log(2.0)])
    envs.set_log_probs(np.log([0.5, 0.125]))
    np.testing.assert_allclose(envs.step([3, 9])[1], [0.0, np.log(2.0)])  # slot 0 restarts
    np.testing.assert_allclose(envs.core.kl, [0.0, -2 * np.log(2.0)])


def test_an_ignored_action_costs_no_kl():
    env = started(
        kl_penalty=0.1, reference=Reference(), on_invalid_action="ignore", constraints=AllowTokens(["a", "b"])
    )
    assert write(env, "c")[1] == -1.0


class Wrong:
    """A reference that is wrong about the token 5."""

    value = np.nan

    def log_probs(self, ids, lengths, actions, **kwargs):
        return np.where(actions == 5, self.value, -1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_a_reference_that_is_no_number_is_an_error_and_the_step_is_undone(value, estimator):
    reference = Wrong()
    reference.value = value
    env = started(kl_penalty=0.1, kl_penalty_estimator=estimator, reference=reference)
    env.set_log_probs(-1.0)
    unchanged(env, ValueError, f"the KL reference gave the log-probability {value} for token 5", lambda: env.step(5))
    assert env.step(6)[1] == 0.0


@pytest.mark.parametrize("wrong", [np.nan, -np.inf, 5.0])
def test_a_log_probability_that_no_drawn_token_can_have_is_an_error_and_the_step_is_undone(wrong):
    env = started(kl_penalty=0.1, reference=Reference())
    env.set_log_probs(wrong)
    unchanged(env, ValueError, f"set_log_probs gave the log-probability {wrong} for token 5", lambda: env.step(5))


def test_log_probs_of_the_wrong_shape_are_refused():
    envs = make_vector(2)
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(1,\)"):
        envs.set_log_probs([0.0])


def test_a_clone_has_the_log_probabilities_set_in_the_original():
    envs = make_vector(2, kl_penalty=0.1, reference=Reference())
    envs.reset(seed=0)
    envs.set_log_probs([-1.0, -2.0])
    other = envs.clone()
    assert envs.step([5, 6])[1].tolist() == other.step([5, 6])[1].tolist()
    assert envs.step([5, 6])[1].tolist() == other.step([5, 6])[1].tolist()
