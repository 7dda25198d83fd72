"""From an SB3 model, or the zip that SB3 saved, to a plain Hugging Face folder."""

import json
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file
from transformers import AutoConfig, AutoModelForCausalLM

from textgym_agents.sb3.on_policy import LMActorCriticPolicy

__all__ = ["export_hf"]


def export_hf(model: BaseAlgorithm | str | Path, folder: str | Path) -> None:
    """Write the language model that SB3 trained, with its tokenizer where that is known.

    ``AutoModelForCausalLM.from_pretrained(folder)`` loads the model, ``LMPolicy.from_pretrained(folder)`` the value
    head with it, for our own agents. Low-rank adapters become part of the weights. A zip holds all that is needed: what
    training started from need not be there any more. To go on with SB3 then, export and name the folder:
    ``PPO.load(path, env, custom_objects={"policy_kwargs": {"model": folder}})``.

    Reading a zip unpickles parts of it, as SB3's ``load`` does: export only what you trust.

    Args:
        model: An algorithm with an ``LMActorCriticPolicy``, or the path of its zip.
        folder: Made if it is not there; files of the same names are replaced.

    Raises:
        TypeError: If the policy is another, such as Q-values, which are no language model.
        FileNotFoundError: If there is no such zip.
        ValueError: If the file is not what an algorithm of SB3 saved, or is cut off.
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
        raise TypeError(f"only an LMActorCriticPolicy holds a language model that writes, got {policy_class.__name__}")


def _policy_of(path: Path) -> Any:
    """Build the policy of a zip around an empty model of the same configuration, and put the saved weights into it."""
    if not path.exists() and path.suffix == "":
        path = path.with_suffix(".zip")
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}")
    data, parameters, _ = load_from_zip_file(path, device="cpu")
    if data is None or "policy" not in parameters:
        raise ValueError(f"{path} is not what an algorithm of Stable-Baselines3 saved")
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
    model.config._name_or_path = extra["source"]  # where the tokenizer lies
    return model
