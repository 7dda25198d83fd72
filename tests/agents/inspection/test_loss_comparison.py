"""One batch through five losses: their pushes are those of the agents, and differ for the reasons that are given."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fixtures import TOKENIZER, make_env, small_lm, small_q_policy
from textgym_agents import GRPO, LMPolicy, collect
from textgym_agents.inspection import COLUMNS, compare_losses, inspect_update

ONE_STEP = {"n_epochs": 1, "batch_size": None, "imitation_coef": 0.0}
LOSSES = ("reinforce", "ppo", "grpo", "dr_grpo", "dapo")


def batch(policy, group_size=4, **keywords):
    env = make_env(8, group_size=group_size, **keywords)
    generator = torch.Generator().manual_seed(0)
    return collect(env, policy, 16, seed=0, generator=generator)


def compared(policy, episodes, **keywords):
    report = compare_losses(policy, episodes, tokenizer=TOKENIZER, **keywords)
    return report, {name: report.table.columns[f"push_{name}"] for name in LOSSES}


@pytest.mark.parametrize("variant", ["grpo", "dr_grpo", "dapo"])
def test_a_column_is_the_push_of_that_agents_update_in_units_of_its_mean(variant):
    policy = LMPolicy(small_lm())
    episodes = batch(policy)
    _, pushes = compared(policy, episodes)
    agent = GRPO(policy, make_env(8, group_size=4), num_episodes=16, kl_coef=0.0, variant=variant, **ONE_STEP)
    expected = inspect_update(agent, episodes).table.columns["push"]
    np.testing.assert_allclose(pushes[variant], expected / np.abs(expected).mean(), rtol=1e-4, atol=1e-6)
    assert np.abs(pushes[variant]).mean() == pytest.approx(1, rel=1e-5)


def test_the_policy_and_the_episodes_are_not_changed():
    policy = LMPolicy(small_lm())
    episodes = batch(policy)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    infos = [dict(info) for info in episodes.infos]
    report, _ = compared(policy, episodes, reference=LMPolicy(small_lm(1)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    assert episodes.advantages is None
    assert episodes.reference_log_probs is None
    assert infos == episodes.infos
    assert "evaluate_states" not in vars(policy)
    assert set(report.table.columns) <= COLUMNS.keys()


def test_a_group_of_equal_returns_is_pushed_only_by_losses_with_a_value():
    policy = LMPolicy(small_lm())
    episodes = batch(policy)
    silent = episodes.groups() == episodes.groups()[0]
    episodes.rewards[silent] = 0.0
    report, pushes = compared(policy, episodes)
    rows = np.concatenate([np.arange(len(report.table))[report.table.rows(b)] for b in silent.nonzero()[:, 0].tolist()])
    for name in LOSSES:
        assert pushes[name][rows].any() == (name in ("reinforce", "ppo"))
    assert all("no signal in GRPO, Dr. GRPO, DAPO" in report.reasons[row] for row in rows)


def test_dapo_clips_rising_probabilities_later():
    policy = LMPolicy(small_lm())
    episodes = batch(policy)
    episodes.log_probs = episodes.log_probs - float(np.log(1.25))
    report, pushes = compared(policy, episodes)
    up = np.nan_to_num(pushes["dapo"]) > 0
    assert up.any()
    for name in ("grpo", "dr_grpo"):
        assert not pushes[name][up].any()
    assert (pushes["reinforce"] != 0).all()  # without a ratio there is nothing to clip
    assert all("clipped at ratio 1.25 in" in report.reasons[row] for row in np.flatnonzero(up))
    assert not any("DAPO" in report.reasons[row].partition("clipped")[2] for row in np.flatnonzero(up))


def test_grpo_differs_from_dapo_by_the_length_and_dapo_from_dr_grpo_by_the_deviation():
    policy = LMPolicy(small_lm())
    episodes = batch(policy)
    report, pushes = compared(policy, episodes)
    rows = episodes.mask.nonzero()[:, 0]
    lengths = episodes.num_steps[rows].numpy()
    pushed = pushes["dr_grpo"] != 0
    assert len(np.unique(lengths[pushed])) > 1
    pushes = {name: push[pushed] for name, push in pushes.items()}
    by_length = pushes["grpo"] / pushes["dapo"] * lengths[pushed]
    np.testing.assert_allclose(by_length, by_length[0], rtol=1e-4)
    groups = episodes.groups()
    deviation = torch.stack([episodes.returns[groups == group].std(correction=0) for group in groups])[rows].numpy()
    by_deviation = pushes["dapo"] / pushes["dr_grpo"] * (deviation[pushed] + 1e-4)
    np.testing.assert_allclose(by_deviation, by_deviation[0], rtol=1e-3)
    words = " ".join(report.reasons)
    assert "GRPO divides by the length, here" in words
    assert "divide by the deviation" in words


def test_a_reference_adds_its_kl_penalty_where_the_papers_have_one():
    policy = LMPolicy(small_lm())
    episodes = batch(policy)
    (_, without), (_, with_kl) = compared(policy, episodes), compared(policy, episodes, reference=LMPolicy(small_lm(1)))
    for name in LOSSES:
        assert np.array_equal(without[name], with_kl[name]) == (name in ("dr_grpo", "dapo"))


def test_printed_it_fits_80_columns():
    policy = LMPolicy(small_lm())
    text = str(compared(policy, batch(policy))[0])
    assert max(map(len, text.splitlines())) <= 80
    assert "REINFORCE" in text
    assert text.count("return ") == 10


def test_bad_arguments_are_refused_with_one_message():
    policy = LMPolicy(small_lm())
    episodes = batch(policy)
    with pytest.raises(TypeError, match="policy must be an LMPolicy, got QPolicy"):
        compare_losses(small_q_policy(), episodes)
    with pytest.raises(TypeError, match="reference must be an LMPolicy, got str"):
        compare_losses(policy, episodes, "tiny")
    with pytest.raises(ValueError, match="tokenizer of the episodes is not known"):
        compare_losses(policy, episodes)
    with pytest.raises(ValueError, match="at least 2 scored episodes of one prompt, got 1"):
        compare_losses(policy, episodes[:1], tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="vocabulary ends at 7"):
        compare_losses(policy, replace(episodes, ids=episodes.ids + 1), tokenizer=TOKENIZER)
