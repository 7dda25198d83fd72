"""A frozen language model as SB3's features extractor: what an MLP of any algorithm reads in place of ids."""

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
    """The last hidden state of the text, (N, H) float32; the language model does not learn.

    ``PPO("MlpPolicy", env, policy_kwargs={"features_extractor_class": LMFeatures})``, and so for every algorithm. The
    actions may be anything: a subset of the tokens, or the candidates of another model.

    SB3's ``ortho_init`` overwrites every linear layer of a features extractor. This model stands outside the module
    tree, so neither that nor an optimizer, a target update or a state dict touches it; SB3's ``load`` asks for it by
    ``model`` again. Ids that are the same as a moment ago plus one cost one token, as while acting; others cost a
    forward over the text.

    Args:
        observation_space: ``Box(0, V, (L,), int64)``, or, with ``"MultiInputPolicy"``, a ``Dict`` that holds one under
            ``"ids"``, all else of which is left out. SB3 gives it.
        model: ``"tiny"``, a Hugging Face name, a local folder, a GGUF file or a loaded model. Algorithms with several
            extractors, such as DQN with its target network, load a name once for each and share a loaded model.
        **kwargs: Of ``LMBackbone``: ``dtype``, ``autocast``.

    Raises:
        TypeError: If the observation is no token window.
        ValueError: If its vocabulary is not the model's, or its window is longer than the model's positions.
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
        """Return (N, H) of (N, L) ids, which SB3 has made floats, or of a dict of such."""
        ids = observations["ids"] if isinstance(observations, dict) else observations
        if self.backbone.device != ids.device:
            self.backbone.to(ids.device)
        windows = windows_of(ids, self.backbone.vocab_size)
        if self._go_on(windows):
            hidden = self.backbone.step(windows)[1]
        else:
            hidden = hidden_states(self.backbone, TextStates.of(ids, self.backbone.vocab_size))
        self._last = windows
        return hidden.float()

    def _go_on(self, windows: npt.NDArray[np.int64]) -> bool:
        """Whether most texts are those of the call before, or go on from there: so it is while acting."""
        if self._last is None or self._last.shape != windows.shape:
            return False
        same = (self._last == windows) | (self._last == self.backbone.vocab_size)
        return bool(same.all(axis=1).mean() > 0.5)
