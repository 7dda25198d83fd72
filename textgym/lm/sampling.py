"""Drawing tokens from logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def sample(
    logits: torch.Tensor, generator: torch.Generator | None = None, *, uniform: torch.Tensor | None = None
) -> torch.Tensor:
    """Draw one token per row from softmax(logits), by inverting the cumulative distribution.

    One uniform number and one search per row cost less than `torch.multinomial`, which draws a number per token. A
    token of logit minus infinity is never drawn. Sums and uniform numbers are float64: in float32 the sum's rounding
    and the number's 24 bits would leave many tokens of a large vocabulary undrawable. So the distribution is within
    1e-6 of softmax in total variation, the rounding of the exponentials.

    Args:
        logits: (N, V) floats; at least one per row must be finite, none may be NaN or plus infinity.
        generator: Source of the uniform numbers, on the device of the logits; torch's global one by default.
        uniform: (N,) uniform numbers in [0, 1), on the device of the logits, drawn already, or (N, M) for M tokens per
            row; give float64. None draws N.

    Returns:
        (N,) int64 tokens, or (N, M).

    >>> sample(torch.tensor([[-torch.inf, 0.0, -torch.inf]]))
    tensor([1])
    """
    cumulated = torch.softmax(logits, -1, dtype=torch.float32).cumsum(-1, dtype=torch.float64)
    total = cumulated[:, -1:]
    if uniform is None:
        uniform = torch.rand((len(total),), generator=generator, dtype=total.dtype, device=total.device)
    # `right` steps over tokens of weight zero. A product rounded up to the total would step over all.
    threshold = torch.minimum(uniform.view(len(total), -1) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulated, threshold, right=True).view(uniform.shape)


def log_prob(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return log p of each row's token in nats, for logits (N, V) and tokens (N,) int64: (N,) float32, with gradients.

    >>> log_prob(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([0.2500])
    """
    return -F.cross_entropy(logits.float(), tokens, reduction="none")
