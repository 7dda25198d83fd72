"""Export of SB3 models and zips to Hugging Face folders."""

import json
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file
from transformers import AutoConfig, AutoModelForCausalLM

from textgym_agents.sb3.on_policy import LMActorCriticPolicy

__all__ = ["export_hf"]


def export_hf(model: BaseAlgorithm | str | Path, folder: str | Path) -> None:
    """Save the language model of an SB3 algorithm as a Hugging Face folder, with its tokenizer if known.

    ``AutoModelForCausalLM.from_pretrained(folder)`` loads the model, ``LMPolicy.from_pretrained(folder)`` also the
    value head. Low-rank adapters are merged into the weights. A zip is self-contained: the initial model is not needed.
    To continue with SB3 without it: ``PPO.load(path, env, custom_objects={"policy_kwargs": {"model": folder}})``.

    Reading a zip unpickles parts of it, as SB3's ``load`` does: export only files that you trust.

    Args:
        model: An algorithm with an ``LMActorCriticPolicy``, or the path of its zip.
        folder: Created if it does not exist; files of the same names are replaced.

    Raises:
        TypeError: If the policy is not an ``LMActorCriticPolicy``.
        FileNotFoundError: If there is no such zip.
        ValueError: If the file is not a complete zip of an SB3 algorithm.
    """
    if isinstance(model, BaseAlgorithm):
        _check(type(model.policy))
        policy: Any = model.policy
    else:
        policy = _policy_of(Path(model))
    has_adapters = any(".lora_" in name for name, _ in policy.lm.named_parameters())
    lm = policy.lm.merged() if has_adapters else policy.lm
    lm.save_pretrained(folder)


def _check(policy_class: type) -> None:
    if not issubclass(policy_class, LMActorCriticPolicy):
        raise TypeError(f"export_hf needs an LMActorCriticPolicy, got {policy_class.__name__}")


def _policy_of(path: Path) -> Any:
    """Build the policy around a model of the saved configuration and load the saved weights."""
    if not path.exists() and path.suffix == "":
        path = path.with_suffix(".zip")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    data, parameters, _ = load_from_zip_file(path, device="cpu")
    if data is None or "policy" not in parameters:
        raise ValueError(f"{path} is not a file that an algorithm of Stable-Baselines3 saved")
    state: Any = parameters["policy"]
    _check(data["policy_class"])
    model = _empty_model(state["_extra_state"]).to(next(v.dtype for k, v in state.items() if "backbone.model" in k))
    kwargs = data["policy_kwargs"] | {"model": model}
    policy = data["policy_class"](data["observation_space"], data["action_space"], lambda _: 0.0, **kwargs)
    policy.load_state_dict(state)
    return policy


def _empty_model(extra: dict[str, str]) -> Any:
    config = json.loads(extra["config"])
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), trust_remote_code=False)
    model.config._name_or_path = extra["source"]  # the folder or name with the tokenizer
    return model
