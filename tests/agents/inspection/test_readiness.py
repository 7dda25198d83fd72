"""Preflight: an agent with a failure gets its finding, one that is ready gets none, and nothing changes."""

import itertools
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as LibraryTokenizer
from transformers import PreTrainedTokenizerFast

from fixtures import TOKENIZER, make_env, share_of_b, small_lm, small_q_policy
from textgym.constraints import BanTokens
from textgym.scorers import RunningNormalization
from textgym.testing.traces import check_same
from textgym.tokenizers import ChatTemplate
from textgym.tokenizers.resolve import embedded_lm_path
from textgym_agents import DQN, GRPO, ILQL, PPO, BehaviourCloning, LMPolicy, Reinforce, SoftQ
from textgym_agents.inspection import preflight

EOS = TOKENIZER.eos_token_id
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}<assistant>"


def agent_of(algorithm=Reinforce, policy=None, *, num_envs=16, settings=None, **env):
    policy = LMPolicy(small_lm()) if policy is None else policy
    return algorithm(policy, make_env(num_envs, **env), num_episodes=16, **settings or {})


def failing(completion):
    raise ValueError("no text pleases")


def without_g(completion):
    if "g" in completion:
        raise ValueError("no g, please")
    return share_of_b(completion)


def policy_with(value):
    policy = LMPolicy(small_lm(), value_function="linear")
    with torch.no_grad():
        next(value(policy).parameters()).fill_(math.nan)
    return policy


class Hot(LMPolicy):
    """Acts at a temperature of 2, which the update does not know of."""

    def action_preferences(self, ids, logits, hidden, valid):
        logits, _, values = super().action_preferences(ids, logits, hidden, valid)
        return logits / 2, logits / 2, values


def frozen():
    policy = LMPolicy(small_lm())
    return policy.requires_grad_(False)


def without_eos():
    """Return a language model that never writes EOS, though it may."""
    model = small_lm()
    with torch.no_grad():
        model.transformer.wte.weight[EOS] = 0
        model.transformer.ln_f.weight.fill_(40.0)
    return LMPolicy(model)


def chat_tokenizer():
    library = LibraryTokenizer.from_file(str(embedded_lm_path("tiny") / "tokenizer.json"))
    return PreTrainedTokenizerFast(
        tokenizer_object=library, bos_token="<|endoftext|>", eos_token="<|endoftext|>", chat_template=TEMPLATE
    )


def chat_agent(render):
    prompts = [render(text) for text in ("Hello there.", "How are you?")]
    env = {"tokenizer": chat_tokenizer(), "prompts": prompts, "scorer": "sentiment", "max_prompt_tokens": 64}
    return agent_of(policy=LMPolicy("tiny"), max_new_tokens=12, **env)


FINDINGS = {
    "weights of NaN": (("not_finite", True), lambda: agent_of(policy=policy_with(lambda p: p.model))),
    "values of NaN": (("not_finite", True), lambda: agent_of(policy=policy_with(lambda p: p.value_head))),
    "a learning rate of 0": (("learning_rate", True), lambda: agent_of(settings={"learning_rate": 0.0})),
    "no trained weight": (("learning_rate", True), lambda: agent_of(GRPO, frozen(), group_size=4)),
    "a scorer that raises": (("scorer_failure", True), lambda: agent_of(scorer=failing)),
    "a scorer that fails": (("scorer_failure", True), lambda: agent_of(scorer=failing, on_scorer_error=0.5)),
    "a scorer that fails at times": (
        ("scorer_failure", False),
        lambda: agent_of(scorer=without_g, on_scorer_error="invalid"),
    ),
    "a constant scorer": (("constant_return", True), lambda: agent_of(scorer=lambda text: 0.5)),
    "a constant scorer and a critic": (("value_targets", False), lambda: agent_of(PPO, scorer=lambda text: 0.5)),
    "groups without spread": (
        ("flat_groups", True),
        lambda: agent_of(GRPO, group_size=4, scorer=lambda completions, prompts: [len(p) / 4 for p in prompts]),
    ),
    "most groups without spread": (
        ("flat_groups", False),
        lambda: agent_of(GRPO, group_size=2, scorer=lambda text: float(text.startswith("b"))),
    ),
    "a budget that is too small": (("truncated", False), lambda: agent_of(max_new_tokens=1, policy=without_eos())),
    "a time limit that truncates": (
        ("truncated", False),
        lambda: agent_of(policy=without_eos(), time_limit="truncated"),
    ),
    "an EOS that is masked": (("end", False), lambda: agent_of(constraints=BanTokens([EOS]))),
    "an EOS that never comes": (("end", False), lambda: agent_of(policy=without_eos())),
    "a reference that is masked": (
        ("masked_reference", False),
        lambda: agent_of(
            prompts=[{"prompt": "ab", "references": "bad"}], constraints=BanTokens(TOKENIZER.encode("d"))
        ),
    ),
    "a reference that is too long": (
        ("masked_reference", False),
        lambda: agent_of(prompts=[{"prompt": "ab", "references": "abcdefg"}]),
    ),
    "a reference of other characters": (
        ("masked_reference", False),
        lambda: agent_of(prompts=[{"prompt": "ab", "references": "xyz"}]),
    ),
    "a temperature of acting only": (("log_probs", False), lambda: agent_of(policy=Hot(small_lm()))),
    "a chat model with plain prompts": (("chat_template", False), lambda: chat_agent(str)),
}  # fmt: skip


@pytest.mark.parametrize("failure", FINDINGS)
def test_a_failure_is_found_before_the_training(failure):
    expected, make = FINDINGS[failure]
    findings = preflight(make())
    assert expected in [(finding.name, finding.is_fatal) for finding in findings]
    assert all(finding.advice.endswith(".") and finding.message for finding in findings)


READY = {
    "Reinforce": lambda: agent_of(),
    "PPO": lambda: agent_of(PPO),
    "GRPO": lambda: agent_of(GRPO, group_size=4),
    "DQN": lambda: agent_of(DQN, small_q_policy()),
    "SoftQ": lambda: agent_of(SoftQ),
    "references": lambda: agent_of(
        prompts=[{"prompt": "ab", "references": "bad"}], constraints=BanTokens(TOKENIZER.encode("g"))
    ),
    "wrong answers only at times": lambda: agent_of(GRPO, group_size=8, scorer=lambda text: float("b" in text)),
    "chat": lambda: chat_agent(ChatTemplate(chat_tokenizer()).prompt),
}


@pytest.mark.parametrize("setting", READY)
def test_an_agent_that_is_ready_has_no_finding(setting):
    findings = preflight(READY[setting]())
    if setting == "chat":  # whose model writes to the end of the budget
        assert "chat_template" not in [finding.name for finding in findings]
    else:
        assert findings == []
        assert str(findings).startswith("preflight of 16 episodes of ")


def state_of(agent):
    env = agent.env.unwrapped
    return {
        "weights": [parameter.detach().clone().numpy() for parameter in agent.policy.parameters()],
        "gradients": [parameter.grad is None for parameter in agent.policy.parameters()],
        "optimizer": [
            value.detach().clone().numpy() for state in agent.optimizer.state.values() for value in state.values()
        ],
        "generators": [g.get_state().numpy() for g in (agent.generator, agent._prediction_generator)],
        "counters": [agent.num_timesteps, agent.num_updates, agent.planned_timesteps, agent.episodes is None],
        "env": env.get_state(),
        "training": env.get_training_state(),
        "global": [torch.get_rng_state().numpy(), np.random.get_state()[1].tolist()],  # noqa: NPY002
        "modes": [module.training for module in agent.policy.modules()],
    }


@pytest.mark.parametrize("kl_penalty", [0.0, 0.1])
def test_a_preflight_changes_nothing(kl_penalty):
    def make():
        env = {"scorer": RunningNormalization(share_of_b), "kl_penalty": kl_penalty, "model": small_lm()}
        return agent_of(settings={"kl_coef": 0.0}, **env | ({"kl_penalty_target": 0.1} if kl_penalty else {}))

    agent, plain = make(), make()
    agent.learn(100)
    plain.learn(100)
    before = state_of(agent)
    assert agent.env.unwrapped.get_training_state()["scorers"][0]["count"] > 0
    assert preflight(agent) == []
    check_same(before, state_of(agent), "state")
    agent.learn(100)
    plain.learn(100)
    check_same(state_of(plain), state_of(agent), "state")


def test_a_preflight_before_the_first_reset_leaves_the_training_as_it_would_be():
    agent, plain = agent_of(PPO), agent_of(PPO)
    preflight(agent)
    agent.learn(200)
    plain.learn(200)
    check_same(state_of(plain), state_of(agent), "state")


def test_an_offline_agent_is_tried_on_its_data():
    data = agent_of().collect()
    assert preflight(ILQL(small_lm(), data, batch_size=8)) == []
    assert preflight(BehaviourCloning(LMPolicy(small_lm()), data, batch_size=8)) == []
    constant = agent_of(scorer=lambda text: 0.5).collect()
    assert [f.name for f in preflight(ILQL(small_lm(), constant))] == ["constant_return", "value_targets"]


def test_findings_print_one_per_line_fatal_ones_first():
    findings = preflight(agent_of(policy=without_eos(), scorer=lambda text: 0.5, settings={"learning_rate": 0.0}))
    lines = str(findings).splitlines()
    assert lines[0] == f"preflight of 16 episodes of 96 tokens: {len(findings)} findings"
    assert [line.partition(",")[0] for line in lines[1:]] == ["cannot learn"] * 2 + ["check"] * 3
    assert len(lines) == len(findings) + 1


def test_prompts_of_an_iterator_are_left_alone():
    prompts = itertools.cycle(["a", "b"])
    agent = agent_of(prompts=prompts)
    with pytest.raises(ValueError, match="the prompts are an iterator, which the batch of a preflight would use up"):
        preflight(agent)
    assert next(prompts) == "a"


def test_what_is_no_agent_is_an_error():
    with pytest.raises(TypeError, match="preflight tries an agent of textgym, got LMPolicy"):
        preflight(LMPolicy(small_lm()))
    with pytest.raises(ValueError, match="num_episodes must be at least 1, got 0"):
        preflight(agent_of(), 0)
