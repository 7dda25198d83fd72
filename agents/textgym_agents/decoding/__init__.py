"""Decoders: choosing tokens without training, as baselines for trained policies.

base        the base class, and simulation of an environment's episodes for look-ahead
sampling    uniform, greedy, and temperature, top-k and top-p sampling
planning    whole completions planned ahead: beam search and best-of-n
mcts        Monte-Carlo tree search with the policy as prior

Each has ``act``, so that ``collect(env, decoder, num_episodes).returns.mean()`` evaluates it like a policy, and
``predict``, so that Stable-Baselines3's ``evaluate_policy`` accepts it. Beam search, best-of-n and MCTS look ahead in
copies of the environment's episodes; the environment itself does not change.
"""

from textgym_agents.decoding.mcts import MCTS, MCTSConfig
from textgym_agents.decoding.planning import BeamSearch, BestOfN
from textgym_agents.decoding.sampling import Greedy, RandomPolicy, Sampling

__all__ = ["MCTS", "BeamSearch", "BestOfN", "Greedy", "MCTSConfig", "RandomPolicy", "Sampling"]
