"""Sampled tokens follow softmax(logits)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from textgym.lm import log_prob, sample, sampling

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


@pytest.mark.parametrize("vocab_size", [1_000, 5_000])
@pytest.mark.parametrize("valid", [0, 3, 999])
def test_the_only_valid_token_is_drawn(valid: int, vocab_size: int) -> None:
    logits = torch.full((500, vocab_size), -torch.inf)
    logits[:, valid] = -50.0
    assert (sample(logits, generator()) == valid).all()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_give_valid_tokens(uniform: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, uniform, dtype=torch.float64))
    for vocab_size in (997, 4_001, 4_096):
        logits = torch.randn(300, vocab_size, generator=generator())
        logits[:, :3] = logits[:, -70:] = -torch.inf
        tokens = sample(logits)
        assert torch.isfinite(logits.gather(1, tokens[:, None])).all()


@pytest.mark.parametrize("vocab_size", [1_000, 4_096, 5_000])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_row_without_a_distribution_gives_no_token_and_leaves_the_others_alone(vocab_size: int, value: float) -> None:
    logits = torch.randn(3, vocab_size, generator=generator())
    expected = sample(logits, generator())
    logits[1] = value
    tokens = sample(logits, generator())
    assert tokens[1] == vocab_size
    assert tokens[[0, 2]].tolist() == expected[[0, 2]].tolist()


def test_rows_are_independent() -> None:
    logits = torch.full((4, 8), -torch.inf)
    logits[range(4), [5, 0, 7, 2]] = 0.0
    assert sample(logits, generator()).tolist() == [5, 0, 7, 2]


def test_the_generator_determines_the_tokens() -> None:
    logits = torch.zeros(64, 100, dtype=torch.bfloat16)
    assert torch.equal(sample(logits, generator(1)), sample(logits, generator(1)))
    assert not torch.equal(sample(logits, generator(1)), sample(logits, generator(2)))


def induced_distribution(logits: torch.Tensor) -> np.ndarray:
    """Return the probability that `sample` draws each of V tokens: the length of its interval of uniform numbers."""
    exact = torch.softmax(logits.double(), -1).cumsum(-1)[None, :-1]
    low, high = exact - 1e-2, exact + 1e-2  # brackets of each token's upper end
    tokens = torch.arange(exact.shape[1])
    for _ in range(40):
        middle = (low + high) / 2
        later = sample(logits[None], uniform=middle.clamp(0, 1 - 2**-53)) > tokens
        low, high = torch.where(later, low, middle), torch.where(later, middle, high)
    return np.diff(np.concatenate([[0.0], high[0].clamp(0, 1).numpy(), [1.0]]))


@pytest.mark.parametrize(
    "vocab_size", [1_024, pytest.param(50_257, marks=pytest.mark.slow), pytest.param(151_936, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_the_distribution_is_softmax_at_every_size_of_vocabulary(
    vocab_size: int, dtype: torch.dtype, spread: float
) -> None:
    logits = (spread * torch.randn(vocab_size, generator=generator())).to(dtype)
    logits[::7] = -torch.inf
    exact = torch.softmax(logits.double(), -1).numpy()
    induced = induced_distribution(logits)
    assert (induced[exact > 1e-9] > 0).all()
    assert (induced[exact == 0] == 0).all()
    assert np.abs(induced - exact).sum() / 2 <= 1e-6


def test_uniform_numbers_are_drawn_finely_enough_for_rare_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    rand = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: drawn.append(rand(*args, **kwargs)) or drawn[-1])
    sample(torch.zeros(1_000, 4), generator())
    assert (drawn[0] * 2**24 % 1 != 0).float().mean() > 0.99


@pytest.mark.parametrize("vocab_size", [50, 3_000])
def test_a_device_without_float64_samples_on_the_cpu_from_fine_uniform_numbers(
    vocab_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_WITHOUT_FLOAT64", ("cpu",))
    numbers = sampling._uniform(1_000, generator(), torch.device("cpu"))
    assert numbers.dtype == torch.float64
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert (numbers * 2**24 % 1 != 0).float().mean() > 0.99
    logits = torch.randn(1_000, vocab_size, generator=generator())
    assert torch.equal(sample(logits, generator(1)), sample(logits, generator(1)))
    assert torch.equal(sample(logits, generator()), sample(logits, uniform=numbers))


def test_several_numbers_per_row_draw_as_many_tokens() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, -torch.inf]])
    tokens = sample(logits, uniform=torch.tensor([[0.2, 0.7, 0.4], [0.9, 0.1, 0.5]]))
    assert tokens.tolist() == [[0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("vocab_size", [7, 3_000])
def test_no_rows_give_no_tokens(vocab_size: int) -> None:
    logits = torch.zeros(0, vocab_size)
    assert sample(logits).shape == (0,)
    assert sample(logits, uniform=torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("vocab_size", [1_025, 1_087, 1_088, 1_089, 50_257])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_alone_gives_the_same_token_as_in_a_batch(vocab_size: int, dtype: torch.dtype) -> None:
    logits = (3 * torch.randn(16, vocab_size, generator=generator())).to(dtype)
    uniform = torch.rand(16, 200, generator=generator(1), dtype=torch.float64)
    tokens = sample(logits, uniform=uniform)
    rows = zip(logits, uniform, strict=True)
    assert torch.equal(tokens, torch.cat([sample(row[None], uniform=numbers[None]) for row, numbers in rows]))
    assert torch.equal(tokens, sample(logits.T.contiguous().T, uniform=uniform))


def test_log_prob_is_that_of_softmax() -> None:
    logits = torch.tensor([[0.0, np.log(3.0)], [-torch.inf, 7.0]])
    torch.testing.assert_close(log_prob(logits, torch.tensor([1, 1])), torch.tensor([np.log(0.75), 0.0]).float())
