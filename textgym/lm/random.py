"""A language model that knows nothing: small, for small vocabularies, and there at once."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

HEAD_WIDTH = 16


def random_lm(
    vocab_size: int, *, window: int = 64, width: int = 32, num_layers: int = 2, seed: int = 0
) -> GPT2LMHeadModel:
    """Make a GPT-2 with random weights, in eval mode and without dropout, such as a probe's policy starts from.

    Args:
        vocab_size: V, ids; the last one is BOS and EOS, as in textgym's own tokenizers.
        window: Positions, in tokens: the longest text.
        width: Of the hidden states, a multiple of 16, which is the width of a head.
        num_layers: Number of layers.
        seed: Decides the weights. torch's global generator is left as it was.

    Raises:
        ValueError: If a size is less than 1 or ``width`` no multiple of 16.

    >>> random_lm(5)(torch.tensor([[0, 1, 2]])).logits.shape
    torch.Size([1, 3, 5])
    """
    for name, value in (("vocab_size", vocab_size), ("window", window), ("width", width), ("num_layers", num_layers)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
    if width % HEAD_WIDTH:
        raise ValueError(f"width must be a multiple of {HEAD_WIDTH}, got {width!r}")
    config = GPT2Config(
        vocab_size=int(vocab_size),  # of Gymnasium, which counts in np.int64
        n_positions=window,
        n_embd=width,
        n_layer=num_layers,
        n_head=width // HEAD_WIDTH,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=int(vocab_size) - 1,
        eos_token_id=int(vocab_size) - 1,
    )
    # torch.manual_seed would seed every accelerator too, which fork_rng then had to put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return GPT2LMHeadModel(config).eval()
