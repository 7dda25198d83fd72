"""Sample tokens from logits, and their log-probabilities."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_BLOCK = 64
"""Tokens per block of the two-level search."""
_ONE_LEVEL = 1024
"""Largest vocabulary that is searched at once: there the second level costs more than it saves."""
_WITHOUT_FLOAT64 = ("mps",)
"""Device types on which torch has no float64."""


def sample(
    logits: torch.Tensor,
    generator: torch.Generator | None = None,
    *,
    uniform: torch.Tensor | None = None,
    probabilities: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draw one token per row from softmax(logits) by inverting the cumulative distribution.

    Faster than `torch.multinomial`, since it draws one uniform number per row instead of one per token. A token of
    logit minus infinity is never drawn. Uniform numbers and cumulative sums are float64: in float32 many tokens of a
    large vocabulary could not be drawn. The distribution is within 1e-6 of softmax in total variation. On a device
    without float64 (MPS) the search runs on the CPU.

    Args:
        logits: (N, V) floats. A row with NaN or plus infinity, or without a finite number, gives V, which is no token.
        generator: Source of the uniform numbers, on the device of the logits; default: torch's global one.
        uniform: (N,) uniform numbers in [0, 1) to use instead, float64, or (N, M) to draw M tokens per row; on any
            device.
        probabilities: (N, V) float32, the softmax of the logits if it is known already.

    Returns:
        (N,) int64 tokens, or (N, M), on the device of the uniform numbers.

    >>> sample(torch.tensor([[-torch.inf, 0.0, -torch.inf]]))
    tensor([1])
    """
    if uniform is None:
        uniform = _uniform(len(logits), generator, logits.device)
    weights = torch.softmax(logits, -1, dtype=torch.float32) if probabilities is None else probabilities
    if weights.device.type in _WITHOUT_FLOAT64:
        weights = weights.cpu()
    position = uniform.to(weights.device, torch.float64)
    position = position if position.ndim == 2 else position[:, None]
    if weights.shape[1] <= _ONE_LEVEL:
        tokens = _search(weights.cumsum(-1, dtype=torch.float64), position)
    else:
        tokens = _search_in_blocks(weights, position)
    return tokens.view(uniform.shape).to(uniform.device)


def log_prob(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the differentiable log-probabilities (N,) float32, in nats, of tokens (N,) int64 under logits (N, V).

    >>> log_prob(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([0.2500])
    """
    return -F.cross_entropy(logits.float(), tokens, reduction="none")


def _search(cumulated: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Return the index whose share of the total weight contains a position in [0, 1)."""
    total = cumulated[..., -1:]
    # `right` skips indices of weight zero. A product rounded up to the total would skip all.
    threshold = torch.minimum(position * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulated, threshold, right=True)


def _search_in_blocks(weights: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Do the same for weights (N, V) and positions (N, M) in two levels: the block of indices, then the index in it."""
    num_tokens = weights.shape[1]
    if padding := -num_tokens % _BLOCK:
        weights = F.pad(weights, (0, padding))
    blocks = weights.unflatten(1, (-1, _BLOCK))
    sums = blocks.sum(-1)
    cumulated = sums.cumsum(-1, dtype=torch.float64)
    block = _search(cumulated, position).clamp(max=sums.shape[1] - 1)  # NaN is beyond the last block
    # Relative to the block: its float32 sum may differ from the total inside by rounding.
    inside = 1 + (position * cumulated[:, -1:] - cumulated.gather(1, block)) / sums.gather(1, block)
    rows = torch.arange(len(weights), device=weights.device)[:, None]
    token = _search(blocks[rows, block].cumsum(-1, dtype=torch.float64), inside.clamp(0, 1)[..., None])
    return (_BLOCK * block + token[..., 0]).clamp(max=num_tokens)


def _uniform(size: int, generator: torch.Generator | None, device: torch.device) -> torch.Tensor:
    """Draw (size,) float64 numbers in [0, 1); on a device without float64, from two float32 numbers each."""
    if device.type not in _WITHOUT_FLOAT64:
        return torch.rand((size,), generator=generator, dtype=torch.float64, device=device)
    high, low = torch.rand((2, size), generator=generator, device=device).cpu().double()
    return high + low * 2**-24
