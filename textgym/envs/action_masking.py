"""Action masks: the tokenizer's tokens, the constraints, and EOS where these leave nothing."""

import numpy as np
import numpy.typing as npt

from textgym.batch import TextBatch
from textgym.constraints import checked_mask
from textgym.envs.components import EnvComponents
from textgym.errors import InvalidActionError

__all__ = ["ActionMasking"]

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


class ActionMasking:
    """The valid actions of an environment.

    Attributes:
        all_valid: Whether no action is ever masked, so that masks need not be computed.
        all_tokens_valid: Whether, besides, the actions write all tokens of the vocabulary.
    """

    def __init__(self, components: EnvComponents) -> None:
        self.components = components
        self.all_valid = components.constraint is None and bool(components.tokenizer.token_mask.all())
        size = components.actions.size(components.tokenizer)
        self.all_tokens_valid = self.all_valid and size == components.tokenizer.vocab_size

    def masks(self, batch: TextBatch) -> Bools:
        """Return (B, num_actions) bool, read-only, True where an action is valid.

        Raises:
            InvalidActionError: If an unfinished text has no valid action and EOS is not among the actions.
        """
        tokenizer, constraint, actions = self.components.tokenizer, self.components.constraint, self.components.actions
        tokens = np.broadcast_to(tokenizer.token_mask, (len(batch), tokenizer.vocab_size))
        if constraint is not None:
            tokens = tokens & checked_mask(constraint, batch)
        masks = actions.mask(tokens, batch)
        if constraint is not None and not masks.any(axis=1).all():
            if tokenizer.eos_token_id is not None:
                tokens[~masks.any(axis=1), tokenizer.eos_token_id] = True
                masks = actions.mask(tokens, batch)
            if (~batch.done & ~masks.any(axis=1)).any():
                raise InvalidActionError("the constraints leave no valid action, and EOS is not among the actions")
        masks = masks.view()
        masks.flags.writeable = False
        return masks

    def invalid(self, masks: Bools, rows: Integers, actions: Integers, tokens: Integers) -> Bools | None:
        """Return (n,) bool, True where an action is masked; None where none is. ``rows`` of ``masks`` are the n slots'.

        Raises:
            InvalidActionError: If an action is masked and ``on_invalid_action`` is ``"raise"``.
        """
        valid: Bools = masks[rows, actions]
        if valid.all():
            return None
        if self.components.on_invalid_action == "raise":
            token = int(tokens[~valid][0])
            raise InvalidActionError(
                f"action {actions[~valid][0]} (token {token}, {self.components.tokenizer.token_text(token)!r}) is "
                "masked in this state; sample from action_masks(), or choose on_invalid_action='terminate' or 'ignore'"
            )
        return ~valid
