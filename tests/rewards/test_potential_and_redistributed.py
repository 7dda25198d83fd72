import itertools

import numpy as np
import pytest

from textgym.batch import TextBatch
from textgym.errors import ScorerError
from textgym.rewards import Potential, Terminal, as_reward, kl_penalty

WORTH = {"": 0.3, "a": 0.9, "b": -0.2, "aa": 0.8, "ab": 0.1, "ba": 0.0, "bb": -0.5}
WORTH |= {"aaa": 0.2, "aab": 0.1, "aba": 0.0, "abb": 0.4, "baa": -1.0, "bab": 1.0, "bba": 0.6, "bbb": 0.5}
"""What each text of the two-token, three-step world is worth: greedy steps towards it lead away from the best one."""


def worth(batch):
    return np.array([WORTH[text] for text in batch.completions])


def batch_of(texts, done):
    batch = TextBatch.from_texts(texts)
    batch.done = np.array(done, dtype=np.bool_)
    return batch


def rewards_of(reward, text, score=worth):
    """Step rewards of the episode that writes ``text`` token by token and is finished with its last."""
    memory = reward.start(score, batch_of([""], [False]))
    rewards = []
    for length in range(1, len(text) + 1):
        done = length == len(text)
        batch = batch_of([text[:length]], [done])
        final = score(batch) if done else np.zeros(1)
        step, memory = reward(score, batch, final, memory)
        rewards.append(step.item())
    return rewards


def test_terminal_pays_the_final_score_once():
    assert rewards_of(Terminal(), "bab") == [0.0, 0.0, 1.0]


def test_terminal_hands_back_the_arrays_that_it_was_given():
    final, memory = np.zeros(2), np.zeros(2)
    rewards, kept = Terminal()(worth, batch_of(["a", "b"], [False, False]), final, memory)
    assert rewards is final
    assert kept is memory


def test_potential_pays_each_step_for_what_it_adds():
    # Phi: "" 0.3, "b" -0.2, "ba" 0.0, and 0 for the finished "bab", whose score is 1.
    assert rewards_of(Potential(), "bab") == pytest.approx([-0.2 - 0.3, 0.0 + 0.2, 1.0 + 0.0 - 0.0])


def test_potential_discounts_the_later_text():
    assert rewards_of(Potential(gamma=0.5), "bab") == pytest.approx([0.5 * -0.2 - 0.3, 0.5 * 0.0 + 0.2, 1.0])


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_potential_telescopes_to_the_final_score_minus_that_of_the_prompt(gamma):
    for text in (text for text in WORTH if text):
        shaped = sum(gamma**t * r for t, r in enumerate(rewards_of(Potential(gamma), text)))
        plain = sum(gamma**t * r for t, r in enumerate(rewards_of(Terminal(), text)))
        assert shaped == pytest.approx(plain - WORTH[""])


@pytest.mark.parametrize("potential", [None, lambda completion: completion.count("b") * 3.0])
def test_potential_leaves_the_best_action_sequence_and_the_order_of_all_as_they_are(potential):
    sequences = ["".join(tokens) for tokens in itertools.product("ab", repeat=3)]
    plain = [sum(rewards_of(Terminal(), text)) for text in sequences]
    shaped = [sum(rewards_of(Potential(potential=potential), text)) for text in sequences]
    assert sequences[int(np.argmax(shaped))] == "bab"
    assert np.argsort(shaped).tolist() == np.argsort(plain).tolist()


def test_potential_scores_only_the_unfinished_texts():
    asked = []

    def spy(batch):
        asked.append(batch.completions)
        return worth(batch)

    batch = batch_of(["aa", "bab", "b"], [False, True, False])
    rewards, memory = Potential()(spy, batch, np.array([0.0, 1.0, 0.0]), np.array([0.9, 0.0, 0.3]))
    assert asked == [["aa", "b"]]
    assert rewards == pytest.approx([0.8 - 0.9, 1.0 + 0.0 - 0.0, -0.2 - 0.3])
    assert memory.tolist() == [0.8, 0.0, -0.2]


def test_potential_asks_no_scorer_when_all_are_finished():
    def never(batch):
        raise AssertionError("asked")

    rewards, memory = Potential()(never, batch_of(["bab"], [True]), np.array([1.0]), np.array([0.25]))
    assert rewards.tolist() == [0.75]
    assert memory.tolist() == [0.0]


def test_potential_does_not_change_the_memory_in_place():
    memory = np.array([0.3])
    Potential()(worth, batch_of(["a"], [False]), np.zeros(1), memory)
    assert memory.tolist() == [0.3]


def test_a_score_that_is_missing_counts_as_zero_in_potential():
    def missing(batch):
        return np.full(len(batch), np.nan)

    assert rewards_of(Potential(), "ab", missing) == [0.0, 0.0]


def test_potential_may_have_a_scorer_of_its_own_whose_error_is_raised():
    assert rewards_of(Potential(potential=len), "bab") == [1.0, 1.0, 1.0 - 2.0]
    with pytest.raises(ScorerError, match="raised ValueError"):
        rewards_of(Potential(potential=lambda completion: float(completion)), "bab")


@pytest.mark.parametrize("gamma", [0.0, -1.0, 1.5, float("nan")])
def test_potential_refuses_a_gamma_outside_its_range(gamma):
    with pytest.raises(ValueError, match=r"gamma must be in \(0, 1\]"):
        Potential(gamma)


def test_rewards_are_given_by_name_or_as_objects():
    assert isinstance(as_reward("terminal"), Terminal)
    assert isinstance(as_reward("potential"), Potential)
    reward = Potential(0.9)
    assert as_reward(reward) is reward


def test_an_unknown_reward_suggests_the_nearest():
    with pytest.raises(
        ValueError, match=r"unknown reward 'potental'; did you mean 'potential'\? Known: per_token, per_turn, pot"
    ):
        as_reward("potental")


@pytest.mark.parametrize("spec", [1.0, None, len, Terminal])
def test_what_is_no_reward_is_a_type_error(spec):
    with pytest.raises(TypeError, match="reward is"):
        as_reward(spec)


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


def test_kl_penalty_refuses_shapes_that_differ():
    with pytest.raises(ValueError, match=r"log_probs has shape \(1,\), reference_log_probs \(2,\)"):
        kl_penalty(1.0, np.zeros(2), np.zeros(1))
