"""What an update does to each token: pushes, predicted and realized changes, and that nothing else changes."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fixtures import TOKENIZER, make_env, small_lm
from textgym.tokenizers import CharTokenizer
from textgym_agents import (
    A2C,
    DQN,
    GRPO,
    ILQL,
    PPO,
    BehaviourCloning,
    ExpertIteration,
    LMPolicy,
    QPolicy,
    Reinforce,
    SoftQ,
    collect,
)
from textgym_agents.inspection import COLUMNS, PushRecorder, inspect_update


def agent_of(agent_class, lr=3e-3, policy=None, group_size=4, env=None, **settings):
    env = make_env(8, group_size=group_size) if env is None else env
    if policy is None:
        policy = (QPolicy if agent_class is DQN else LMPolicy)(small_lm())
    if agent_class is DQN:
        settings = {
            "initial_temperature": 0.1,
            "final_temperature": 0.1,
            "exploration_initial_eps": 0.1,
            "batch_size": 16,
        } | settings
    if agent_class is PPO:
        settings = {"imitation_coef": 0.0} | settings
    if agent_class is GRPO:
        settings = {"variant": "grpo", "n_epochs": 1, "batch_size": None, "imitation_coef": 0.0} | settings
    return agent_class(policy, env, num_episodes=16, learning_rate=lr, **settings)


def steps(report, name):
    return torch.from_numpy(report.table.by_step(name))


def derivative(agent, episodes):
    """Return -dL / d log pi(a) of each token by autograd of the agent's loss through leaf logits, of one full batch."""
    found = {}
    original = agent.backward

    def evaluate(part, entropy_gradient=False):
        real = LMPolicy.evaluate(agent.policy, part)
        found["leaf"] = leaf = real.logits.detach().double().requires_grad_()
        every = torch.log_softmax(leaf, dim=-1)
        found["log_pi"] = every.gather(1, part.actions()[:, None])[:, 0]
        entropies = -(every.exp() * every).sum(dim=-1)
        return real._replace(log_probs=part.spread(found["log_pi"]), entropies=part.spread(entropies), logits=leaf)

    def backward(minibatch, loss, weights=None):
        if weights is None:
            weights = torch.full((len(minibatch), 1), 1 / int(minibatch.num_steps.sum()))
        agent.policy.evaluate = evaluate
        losses, _ = loss(minibatch)
        (losses * weights)[minibatch.mask].sum().backward()
        del agent.policy.evaluate
        gradient = found["leaf"].grad.gather(1, minibatch.actions()[:, None])[:, 0]
        found["push"] = minibatch.spread(-gradient / (1 - found["log_pi"].exp()).detach())
        return original(minibatch, loss, weights)

    agent.backward = backward
    agent.update(episodes)
    return found["push"]


CASES = [
    (Reinforce, {"ent_coef": 0.3, "kl_estimator": "k3", "kl_coef": 0.2}),
    pytest.param(A2C, {"kl_estimator": "exact", "kl_coef": 0.2}, marks=pytest.mark.slow),
    (PPO, {"n_epochs": 1, "batch_size": None, "ent_coef": 0.1, "kl_estimator": "k2", "kl_coef": 0.2}),
    (GRPO, {"kl_estimator": "k3", "kl_coef": 0.2}),
    pytest.param(GRPO, {"variant": "rloo", "kl_estimator": "k3", "ent_coef": 0.1}, marks=pytest.mark.slow),
    pytest.param(GRPO, {"variant": "dr_grpo", "kl_estimator": "k1"}, marks=pytest.mark.slow),
    (GRPO, {"variant": "dapo", "kl_estimator": "exact", "clip_range_high": 0.28}),
    (GRPO, {"variant": "gspo"}),
    (GRPO, {"variant": "cispo", "kl_estimator": "k3", "entropy_share": 0.5}),
    (PPO, {"n_epochs": 1, "batch_size": None, "branch_share": 0.5, "branch_rollouts": 2}),
]


@pytest.mark.parametrize(("agent_class", "settings"), CASES)
def test_the_push_is_the_derivative_of_the_agents_own_loss_and_the_sum_of_its_terms(agent_class, settings):
    agent = agent_of(agent_class, **settings)
    agent.learn(50)  # away from the reference
    episodes = agent.collect()
    episodes.log_probs += 0.05 * torch.randn(episodes.log_probs.shape, generator=torch.Generator().manual_seed(0))
    report = inspect_update(agent, episodes)
    push = steps(report, "push").nan_to_num()
    torch.testing.assert_close(push, derivative(agent, episodes), atol=1e-6, rtol=2e-4)
    terms = [steps(report, name).nan_to_num() for name in ("push_policy", "push_kl", "push_entropy")]
    torch.testing.assert_close(sum(terms), push)
    for term, name in zip(terms[1:], ("kl_estimator", "ent_coef"), strict=True):
        in_loss = settings.get(name, "k1") != "k1" if name == "kl_estimator" else settings.get(name, 0) > 0
        assert bool(term.any()) == in_loss


def test_the_policy_term_is_the_advantage_times_the_ratio_by_the_number_of_tokens():
    agent = agent_of(PPO, n_epochs=1, batch_size=None)
    episodes = agent.collect()
    episodes.log_probs = episodes.log_probs - 0.1
    report = inspect_update(agent, episodes)
    expected = steps(report, "advantage") * np.exp(0.1) / int(episodes.num_steps.sum())
    torch.testing.assert_close(steps(report, "push_policy"), expected, equal_nan=True, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(steps(report, "ratio")[episodes.mask].mean(), torch.tensor(1.1052), atol=1e-3, rtol=0)


def test_pushes_of_minibatches_and_epochs_reach_their_tokens():
    agent = agent_of(PPO, lr=0.0, n_epochs=2, batch_size=4, head_learning_rate=0.0)
    report = inspect_update(agent)
    push, advantage = (steps(report, name) for name in ("push", "advantage"))
    weights = (push / advantage)[~push.isnan()]
    assert (weights > 0).all()
    assert float(weights.sum()) == pytest.approx(8, rel=1e-3)  # 8 gradient steps, whose weights add up to 1
    assert report.about["gradient_steps"] == 8


def test_micro_batches_change_no_push():
    whole, parts = agent_of(GRPO), agent_of(GRPO, micro_batch=3)
    episodes = whole.collect()
    first, second = (inspect_update(agent, episodes).table.columns for agent in (whole, parts))
    for name in ("push", "push_kl", "realized_change"):
        np.testing.assert_allclose(first[name], second[name], atol=2e-6)


def test_a_token_that_is_nearly_certain_has_a_small_tabular_change():
    agent = agent_of(GRPO, kl_coef=0.0)
    episodes = agent.collect()
    report = inspect_update(agent, episodes)
    probs = torch.softmax(agent.policy.evaluate(episodes).logits.detach(), dim=-1)
    squared = (torch.nn.functional.one_hot(episodes.actions(), 8) - probs).square().sum(dim=-1)
    np.testing.assert_allclose(
        report.table.columns["tabular_change"], report.table.columns["push"] * squared.numpy(), atol=1e-7
    )


EVERY = [
    pytest.param(Reinforce, {}, marks=pytest.mark.slow),
    pytest.param(A2C, {}, marks=pytest.mark.slow),
    (PPO, {"batch_size": 8}),
    (GRPO, {}),
    pytest.param(ExpertIteration, {}, marks=pytest.mark.slow),
    pytest.param(PPO, {"branch_share": 0.3, "branch_rollouts": 2, "branch_states": "entropy"}, marks=pytest.mark.slow),
    pytest.param(GRPO, {"equal_groups": "redraw", "imitation_coef": 1.0}, marks=pytest.mark.slow),
    (DQN, {"gradient_steps": 2}),
    (SoftQ, {"batch_size": 16, "gradient_steps": 2}),
]
"""The slow ones have nothing that the others lack."""


@pytest.mark.parametrize(("agent_class", "settings"), EVERY)
def test_the_report_is_of_the_next_update_and_leaves_no_trace(agent_class, settings, tmp_path):
    agent = agent_of(agent_class, **settings)
    agent.learn(50)
    agent.save(tmp_path / "before")
    report = inspect_update(agent)
    agent.save(tmp_path / "after")
    for file in sorted((tmp_path / "before").rglob("*.*")):
        other = tmp_path / "after" / file.relative_to(tmp_path / "before")
        if file.suffix == ".safetensors":  # the order of its metadata varies
            first, second = load_file(file), load_file(other)
            assert first.keys() == second.keys()
            assert all(torch.equal(first[name], second[name]) for name in first), file
        elif file.is_file():
            assert file.read_bytes() == other.read_bytes(), file

    episodes = agent.collect()
    texts = np.concatenate([info["completion_ids"] for info in episodes.infos])
    np.testing.assert_array_equal(report.table.ids, texts)
    if agent_class is DQN:
        actions = episodes.actions()[:, None]
        before = agent.policy.evaluate(episodes).q.gather(1, actions)[:, 0].detach()
        agent.learn_from(episodes)
        change = agent.policy.evaluate(episodes).q.gather(1, actions)[:, 0].detach() - before
        np.testing.assert_array_equal(report.table.columns["realized_q_change"], change)
    else:
        before = agent.policy.evaluate(episodes).log_probs.detach()
        agent.learn_from(episodes)
        change = agent.policy.evaluate(episodes).log_probs.detach() - before
        np.testing.assert_array_equal(report.table.columns["realized_change"], change[episodes.mask])
    assert change.abs().max() > 1e-3
    assert set(report.table.columns) <= COLUMNS.keys()


def test_adapters_are_copied_and_what_they_adapt_is_not_changed():
    pytest.importorskip("peft")
    agent = agent_of(GRPO, policy=LMPolicy(small_lm(), lora=2))
    before = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
    report = inspect_update(agent)
    assert np.abs(report.table.columns["realized_change"]).max() > 1e-4
    assert all(torch.equal(tensor, before[name]) for name, tensor in agent.policy.state_dict().items())


@pytest.mark.parametrize(("agent_class", "settings"), EVERY)
def test_of_a_small_step_the_predicted_change_is_the_realized(agent_class, settings):
    takes_one_step = agent_class in (Reinforce, A2C, GRPO) and "imitation_coef" not in settings
    lr = 3e-5 if takes_one_step else 3e-6
    heads = {} if agent_class in (GRPO, ExpertIteration) else {"head_learning_rate": lr}
    report = inspect_update(agent_of(agent_class, lr=lr, **settings, **heads))
    columns = report.table.columns
    for name in ("change", "q_change"):
        if f"realized_{name}" in columns:
            predicted, realized = columns[f"predicted_{name}"], columns[f"realized_{name}"]
            size = np.abs(realized).max()
            assert size > 1e-4
            np.testing.assert_allclose(predicted, realized, atol=0.02 * size)
    assert report.about["correlation"]["predicted"] > 0.999


def test_a_small_learning_rate_clips_nothing_and_a_large_one_clips_tokens():
    settings = {"n_epochs": 4, "batch_size": None}
    small, large = (inspect_update(agent_of(PPO, lr=lr, **settings)) for lr in (1e-6, 1e-2))
    np.testing.assert_allclose(small.table.columns["ratio"], 1, atol=1e-3)
    assert not small.table.columns["clipped"].any()
    assert large.table.columns["clipped"].any()
    clipped = large.table.columns["clipped"] == 1
    assert any("clipped at ratio" in large.reasons[row] for row in np.flatnonzero(clipped))


def test_clipped_tokens_have_no_push():
    agent = agent_of(GRPO, kl_coef=0.0)
    episodes = agent.collect()
    episodes.log_probs = episodes.log_probs - 1.0  # the ratio is e
    report = inspect_update(agent, episodes)
    advantage, push, clipped = (report.table.columns[name] for name in ("advantage", "push", "clipped"))
    assert (advantage > 0).any()
    assert (push[advantage > 0] == 0).all()
    assert (clipped == (advantage > 0)).all()
    assert (push[advantage < 0] < 0).all()


def test_the_return_of_a_cut_episode_ends_with_the_value_where_the_agent_bootstraps():
    env = make_env(8, time_limit="truncated")
    for bootstraps in (True, False):
        agent = agent_of(A2C, env=env, kl_coef=0.0, gae_lambda=1.0, bootstrap_truncated=bootstraps)
        agent.learn(96)
        episodes = agent.collect()
        last = agent.policy.last_values(episodes) if bootstraps else torch.zeros(len(episodes))
        report = inspect_update(agent, episodes)
        returns = steps(report, "return_to_go")[:, 0]
        torch.testing.assert_close(returns, episodes.returns + last, atol=1e-5, rtol=0, check_dtype=False)
        assert bool(last.any()) == ("plus V" in report.about["return"]) == bootstraps


def test_a_group_without_signal_has_no_push():
    agent = agent_of(GRPO, kl_coef=0.0)
    episodes = agent.collect()
    silent = episodes.groups() == episodes.groups()[0]
    episodes.rewards[silent] = 0.0
    report = inspect_update(agent, episodes)
    push = steps(report, "push").nan_to_num()
    assert not push[silent].any()
    assert push[~silent].any()
    assert report.reasons[0] == "no signal: all returns of the group are 0.00"


def test_a_group_that_is_dropped_is_left_out_and_changes_no_other_push():
    agents = [agent_of(GRPO, kl_coef=0.0, equal_groups=choice) for choice in ("drop", "keep")]
    episodes = agents[0].collect()
    silent = episodes.groups() == episodes.groups()[0]
    episodes.rewards[:, 0] += torch.arange(16)
    episodes.rewards[silent] = 0.0
    episodes.rewards[silent, 0] = torch.arange(4) * 1e-4  # all but equal
    dropped = inspect_update(agents[0], episodes)
    push, advantage = (steps(dropped, name)[silent] for name in ("push", "advantage"))
    assert not push.nan_to_num().any()
    assert not advantage.nan_to_num().any()
    assert steps(dropped, "ratio")[silent].isnan().all()
    assert not steps(dropped, "clipped")[silent].nan_to_num().any()
    assert dropped.reasons[0] == "left out: the returns of its group all but agree"
    kept = inspect_update(agents[1], episodes[(~silent).numpy()])  # as if they had not been collected
    torch.testing.assert_close(steps(dropped, "push")[~silent], steps(kept, "push"), equal_nan=True)


def test_only_the_tokens_of_highest_entropy_are_pushed_and_the_others_are_named():
    agent = agent_of(PPO, kl_coef=0.0, n_epochs=1, entropy_share=0.25)
    report = inspect_update(agent)
    pushed = report.table.columns["push"] != 0
    assert int(pushed.sum()) == -(-len(report.table) // 4)
    left_out = "left out: its entropy is not among the highest 25 %"
    assert [reason.startswith(left_out) for reason in report.reasons] == (~pushed).tolist()
    np.testing.assert_array_equal(report.table.columns["advantage"] != 0, pushed)


@pytest.mark.parametrize(("kind", "words"), [(PPO, "A by rollouts, in the loss "), (GRPO, "by rollouts, in the loss ")])
def test_advantages_by_rollouts_are_those_of_the_loss_and_named(kind, words):
    agent = agent_of(kind, kl_coef=0.0, branch_share=0.5, branch_rollouts=2)
    episodes = agent.collect()
    tokens = agent.num_timesteps
    report = inspect_update(agent, episodes)
    assert agent.num_timesteps == tokens
    metrics = agent.learn_from(episodes)  # the same rollouts
    advantage = steps(report, "advantage")
    torch.testing.assert_close(advantage.nan_to_num().float(), episodes.advantages * episodes.mask)
    named = [words in reason for reason in report.reasons]
    assert sum(named) == int(agent.credit.last_branched.sum()) == round(metrics["train/branched_share"] * len(named))
    assert np.array(named)[agent.credit.last_branched[episodes.mask].numpy()].all()


def test_of_gspo_the_ratio_of_the_text_is_named():
    agent = agent_of(GRPO, kl_coef=0.0, variant="gspo", clip_range=0.1)
    episodes = agent.collect()
    episodes.log_probs[:, 0] -= 0.2 * episodes.num_steps  # the mean ratio of each text is exp(0.2)
    report = inspect_update(agent, episodes)
    advantage, push, clipped = (report.table.columns[name] for name in ("advantage", "push", "clipped"))
    assert (advantage > 0).any()
    np.testing.assert_array_equal(clipped == 1, advantage > 0)
    assert (push[advantage > 0] == 0).all()
    assert all(
        ("its text clipped at ratio 1.2214" in r) == (a > 0) for r, a in zip(report.reasons, advantage, strict=True)
    )


def test_the_step_of_self_imitation_is_counted_and_pushes_nothing():
    plain, imitating = (agent_of(GRPO, kl_coef=0.0, imitation_coef=coef) for coef in (0.0, 1.0))
    episodes = plain.collect()
    first, second = inspect_update(plain, episodes), inspect_update(imitating, episodes)
    assert (first.about["gradient_steps"], first.about["buffer_steps"]) == (1, 0)
    assert (second.about["gradient_steps"], second.about["buffer_steps"]) == (2, 1)
    np.testing.assert_array_equal(first.table.columns["push"], second.table.columns["push"])
    assert "1 of them on texts of a buffer, which no push contains" in str(second)
    assert "of a buffer" not in str(first)
    before = imitating.policy.evaluate(episodes).log_probs.detach()
    imitating.learn_from(episodes)
    change = imitating.policy.evaluate(episodes).log_probs.detach() - before
    np.testing.assert_array_equal(second.table.columns["realized_change"], change[episodes.mask])  # it contains it


@pytest.mark.parametrize(("variant", "depends"), [("grpo", True), ("dr_grpo", False), ("dapo", False)])
def test_the_push_per_token_shrinks_with_the_length_in_grpo_only(variant, depends):
    env = make_env(2, group_size=2)
    settings = {"variant": variant, "n_epochs": 1, "imitation_coef": 0.0}
    agent = GRPO(LMPolicy(small_lm()), env, num_episodes=2, kl_coef=0.0, **settings)
    episodes = collect(env, agent.policy, 2, seed=0, generator=agent.generator)
    episodes.num_steps = torch.tensor([1, 2])
    episodes.rewards = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    episodes.log_probs = agent.policy.evaluate(episodes).log_probs.detach()
    episodes.values = torch.zeros(2, 2)
    episodes.positions = episodes.positions[:, :2] * episodes.mask
    episodes.text_lengths = episodes.action_ends
    short, *long = inspect_update(agent, episodes).table.columns["push"]
    np.testing.assert_allclose(long, -short / (2 if depends else 1), rtol=1e-4)  # opposite advantages of one size


def test_only_the_imitated_texts_are_pushed():
    agent = agent_of(ExpertIteration, n_epochs=1)
    report = inspect_update(agent)
    pushed = np.nan_to_num(report.table.columns["push"]) > 0
    words = np.array([reason.endswith("imitated") for reason in report.reasons])
    assert pushed.any()
    assert not pushed.all()
    np.testing.assert_array_equal(pushed, words)


def test_the_push_of_q_is_toward_its_target():
    report = inspect_update(agent_of(DQN))
    total = len(report.table)
    # Q = 0 at first, so that the targets are the discounted rewards of lambda returns, within the Huber loss's range
    error = report.table.columns["push"] * total
    assert (np.abs(error) <= 1).all()
    assert (error > 0).any()
    assert any("above Q" in reason for reason in report.reasons)


def test_tokens_of_a_user_have_a_row_and_no_push():
    env = make_env(
        8, group_size=4, user=lambda batch: "ab", reply_format="{reply}g", max_turns=3, max_reply_tokens=3,
        max_new_tokens=9,
    )  # fmt: skip
    report = inspect_update(agent_of(GRPO, env=env))
    push, acted = report.table.columns["push"], report.table.action_rows
    of_user = np.setdiff1d(np.arange(len(report.table)), acted)
    assert len(of_user) > 0
    assert np.isnan(push[of_user]).all()
    assert not np.isnan(push[acted]).any()
    assert all((report.reasons[row] == "") == (row in of_user) for row in range(len(report.table)))
    str(report)


def test_a_frozen_language_model_is_pushed_and_does_not_move(tmp_path):
    policy = LMPolicy(small_lm())
    policy.backbone.requires_grad_(False)
    report = inspect_update(agent_of(Reinforce, policy=policy))
    assert report.table.columns["push"].any()
    assert not report.table.columns["realized_change"].any()
    assert np.isnan(report.about["correlation"]["predicted"])
    report.save(tmp_path / "report.html")


def test_an_offline_agent_reports_its_next_batch():
    env = make_env(8)
    data = collect(env, LMPolicy(small_lm(1)), 16, seed=0)
    agent = BehaviourCloning(LMPolicy(small_lm()), data, batch_size=8)
    report = inspect_update(agent, tokenizer=TOKENIZER)
    np.testing.assert_allclose(report.table.columns["push"], 1 / len(report.table), rtol=1e-5)


def test_printed_it_fits_80_columns_and_names_the_reason():
    text = str(inspect_update(agent_of(PPO, kl_estimator="k3", ent_coef=0.05)))
    assert max(map(len, text.splitlines())) <= 80
    assert "Pushed up" in text
    assert "Pushed down" in text
    assert text.count("return to go") == 20
    assert "Correlation with the realized change of log pi" in text


def test_control_characters_of_tokens_are_shown_and_not_printed():
    env = gym.make_vec(
        "TextGen-v0", num_envs=8, autoreset_mode="SameStep", group_size=4, tokenizer=CharTokenizer("ab\x1b\u202e\nde"),
        prompts=["a"], scorer=lambda completion: completion.count("\x1b") / 6, max_new_tokens=6, max_prompt_tokens=4,
    )  # fmt: skip
    text = str(inspect_update(agent_of(GRPO, env=env)))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "␛" in text


def test_bad_arguments_are_refused_with_one_message():
    agent = agent_of(GRPO)
    episodes = agent.collect()
    with pytest.raises(TypeError, match="inspect_update takes an agent of textgym_agents, got LMPolicy"):
        inspect_update(agent.policy)
    with pytest.raises(TypeError, match="episodes must be Episodes"):
        inspect_update(agent, 2.5)
    with pytest.raises(ValueError, match="at least 1 episode, got none"):
        inspect_update(agent, replace(episodes, ids=episodes.ids[:0]))
    for info in episodes.infos:
        info["score"] = float("nan")
    with pytest.raises(ValueError, match="the scorer failed for every one of the 16 episodes"):
        inspect_update(agent, episodes)
    offline = ILQL(small_lm(), collect(make_env(8), LMPolicy(small_lm()), 8, seed=0))
    with pytest.raises(
        TypeError, match="pushes are recorded of agents with an LMPolicy or a QPolicy, got a ILQLPolicy"
    ):
        inspect_update(offline, tokenizer=TOKENIZER)


def test_a_recorder_that_is_detached_leaves_the_agent_as_it_was():
    agent = agent_of(GRPO)
    own = {name: set(vars(part)) for name, part in (("agent", agent), ("policy", agent.policy), ("kl", agent.kl))}
    PushRecorder(agent, agent.collect()).detach()
    assert own == {n: set(vars(p)) for n, p in (("agent", agent), ("policy", agent.policy), ("kl", agent.kl))}
