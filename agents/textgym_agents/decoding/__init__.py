"""Ways of choosing tokens without training: baselines that every trained policy should be compared with.

sampling    uniformly at random; the likeliest token; softmax with temperature, top-k and top-p
beam        the likeliest whole completion that a beam finds
best_of_n   the best of n sampled completions, as the environment scores them
mcts        Monte-Carlo tree search with the policy as prior

Each has ``act``, so that ``collect(env, decoder, num_episodes).returns.mean()`` evaluates it as it evaluates a policy,
and ``predict``, so that Stable-Baselines3's ``evaluate_policy`` takes it. Beam, best-of-n and MCTS look ahead in copies
of the environment's episodes and leave the environment itself as it was.
"""

from textgym_agents.decoding.beam import BeamSearch
from textgym_agents.decoding.best_of_n import BestOfN
from textgym_agents.decoding.mcts import MCTS, MCTSConfig
from textgym_agents.decoding.sampling import Greedy, RandomPolicy, Sampling

__all__ = ["MCTS", "BeamSearch", "BestOfN", "Greedy", "MCTSConfig", "RandomPolicy", "Sampling"]
