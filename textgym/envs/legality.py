"""Which actions are legal where: the tokenizer's tokens, the constraints, and EOS where nothing else is left."""

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.constraints import checked_mask
from textgym.envs.components import EnvComponents
from textgym.errors import InvalidActionError

__all__ = ["Legality"]


class Legality:
    """Computes action masks.

    Attributes:
        all_legal: Whether every action is legal in every state, so that no mask needs to be computed.
        all_tokens_legal: Whether, besides, the actions write all tokens of the vocabulary.
    """

    def __init__(self, components: EnvComponents) -> None:
        self.components = components
        self.all_legal = components.constraint is None and bool(components.tokenizer.token_mask.all())
        self.all_tokens_legal = (
            self.all_legal and components.actions.size(components.tokenizer) == components.tokenizer.vocab_size
        )

    def masks(self, batch: TextBatch) -> npt.NDArray[np.bool_]:
        """Return (B, num_actions) bool, read-only, True where an action is legal.

        Raises:
            InvalidActionError: If an unfinished text has no legal action and there is no EOS to fall back to.
        """
        tokens = np.broadcast_to(
            self.components.tokenizer.token_mask, (len(batch), self.components.tokenizer.vocab_size)
        )
        if self.components.constraint is not None:
            tokens = tokens & checked_mask(self.components.constraint, batch)
        masks = self.components.actions.mask(tokens, batch)
        if self.components.constraint is not None and not masks.any(axis=1).all():
            masks = self._open_dead_ends(tokens, masks, batch)
        masks = masks.view()
        masks.flags.writeable = False
        return masks

    def _open_dead_ends(
        self, tokens: npt.NDArray[np.bool_], masks: npt.NDArray[np.bool_], batch: TextBatch
    ) -> npt.NDArray[np.bool_]:
        eos = self.components.tokenizer.eos_token_id
        if eos is not None:
            tokens[~masks.any(axis=1), eos] = True
            masks = self.components.actions.mask(tokens, batch)
        if (~batch.done & ~masks.any(axis=1)).any():
            raise InvalidActionError("the constraints leave no legal action, and there is no EOS to fall back to")
        return masks

    def refusal(self, action: int, token: int) -> InvalidActionError:
        """Return the error for an action that the mask forbids."""
        return InvalidActionError(
            f"action {action} (token {token}, {self.components.tokenizer.token_text(token)!r}) is masked here; sample "
            "from action_masks(), or choose on_invalid_action='terminate' or 'ignore'"
        )
