"""Tokens are drawn as softmax says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from textgym.lm import log_prob, sample

torch.set_num_threads(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_frequencies_are_probabilities() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, -torch.inf, 1.0, -3.0, -torch.inf])
    num_draws = 200_000
    counts = sample(logits.expand(num_draws, -1), generator()).bincount(minlength=len(logits))
    probabilities = torch.softmax(logits, -1)
    deviation = (num_draws * probabilities * (1 - probabilities)).sqrt()
    assert ((counts - num_draws * probabilities).abs() <= 4 * deviation).all()


@pytest.mark.parametrize("legal", [0, 3, 999])
def test_the_only_legal_token_is_drawn(legal: int) -> None:
    logits = torch.full((500, 1000), -torch.inf)
    logits[:, legal] = -50.0
    assert (sample(logits, generator()) == legal).all()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval_stay_inside(uniform: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, uniform))
    logits = torch.randn(300, 997, generator=generator())
    logits[:, :3] = logits[:, -3:] = -torch.inf
    tokens = sample(logits)
    assert torch.isfinite(logits.gather(1, tokens[:, None])).all()


def test_rows_are_drawn_for_themselves() -> None:
    logits = torch.full((4, 8), -torch.inf)
    logits[range(4), [5, 0, 7, 2]] = 0.0
    assert sample(logits, generator()).tolist() == [5, 0, 7, 2]


def test_the_generator_decides() -> None:
    logits = torch.zeros(64, 100, dtype=torch.bfloat16)
    assert torch.equal(sample(logits, generator(1)), sample(logits, generator(1)))
    assert not torch.equal(sample(logits, generator(1)), sample(logits, generator(2)))


def test_log_prob_is_that_of_softmax() -> None:
    logits = torch.tensor([[0.0, np.log(3.0)], [-torch.inf, 7.0]])
    torch.testing.assert_close(log_prob(logits, torch.tensor([1, 1])), torch.tensor([np.log(0.75), 0.0]).float())
