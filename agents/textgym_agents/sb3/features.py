"""A frozen language model as SB3's features extractor."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs

from textgym_agents.backbone import LMBackbone
from textgym_agents.sb3.base import TextStates, check_window, hidden_states, windows_of

__all__ = ["LMFeatures"]


class LMFeatures(BaseFeaturesExtractor):
    """Features extractor: the last hidden state of the text under a frozen language model, (N, H) float32.

    ``PPO("MlpPolicy", env, policy_kwargs={"features_extractor_class": LMFeatures})``, likewise for every algorithm.
    Actions are arbitrary: all tokens, a subset, or the candidates of another model.

    SB3's ``ortho_init`` overwrites every linear layer of a features extractor. The model is therefore kept outside the
    module tree, out of reach of initialisation, optimizer, target updates and state dicts; SB3's ``load`` makes it from
    ``model`` again. Texts that continue those of the previous call cost one token each, others a full forward.

    Args:
        observation_space: ``Box(0, V, (L,), int64)``, or, with ``"MultiInputPolicy"``, a ``Dict`` with one under
            ``"ids"``, whose other entries are ignored; set by SB3.
        model: ``"tiny"``, a Hugging Face name, a local folder, a GGUF file or a loaded model. Algorithms with several
            extractors, such as DQN with its target network, load a name once per extractor but share a loaded model.
        **kwargs: Keywords of ``LMBackbone``: ``dtype``, ``autocast``.

    Raises:
        TypeError: If the observation contains no token window.
        ValueError: If the vocabularies differ, or the window is longer than the model's positions.
    """

    def __init__(self, observation_space: spaces.Space[Any], model: Any = "tiny", **kwargs: Any) -> None:
        backbone = LMBackbone(model, **kwargs)
        super().__init__(observation_space, features_dim=backbone.hidden_size)
        check_window(observation_space, backbone)
        self._outside = (backbone,)  # a tuple hides it from the module tree
        self._last: npt.NDArray[np.int64] | None = None

    @property
    def backbone(self) -> LMBackbone:
        """The language model."""
        return self._outside[0]

    @torch.no_grad()
    def forward(self, observations: PyTorchObs) -> torch.Tensor:
        """Return (N, H) features of (N, L) ids, which SB3 converts to floats, or of a dict with ``"ids"``."""
        ids = observations["ids"] if isinstance(observations, dict) else observations
        if self.backbone.device != ids.device:
            self.backbone.to(ids.device)
        windows = windows_of(ids, self.backbone.vocab_size)
        if self._continues(windows):
            hidden = self.backbone.step(windows)[1]
        else:
            hidden = hidden_states(self.backbone, TextStates.of(ids, self.backbone.vocab_size))
        self._last = windows
        return hidden.float()

    def _continues(self, windows: npt.NDArray[np.int64]) -> bool:
        """Return whether most texts equal or continue those of the previous call, as while acting."""
        if self._last is None or self._last.shape != windows.shape:
            return False
        same = (self._last == windows) | (self._last == self.backbone.vocab_size)
        return bool(same.all(axis=1).mean() > 0.5)
