"""Prompts from a data set of reasoning-gym, which need not be installed."""

from collections.abc import Mapping
from typing import Any

from textgym.prompts.base import Sample
from textgym.prompts.lists import IndexedPrompts

__all__ = ["ReasoningGymPrompts", "reasoning_gym_sample"]


class ReasoningGymPrompts(IndexedPrompts):
    """The tasks of a data set of reasoning-gym, drawn with equal probability; one is made when it is first drawn.

    The question is the prompt, the answer the reference, and the whole entry, answer included, the metadata, from which
    :class:`textgym.scorers.ReasoningGym` scores. Most questions are longer than 32 tokens: set ``max_prompt_tokens``.

    Args:
        dataset: What ``reasoning_gym.create_dataset(name, size=..., seed=...)`` returns. Give it a seed, or the tasks
            are others in each process.

    Raises:
        ValueError: If the data set is empty.

    Source: https://github.com/open-thought/reasoning-gym
    """

    def __init__(self, dataset: Any) -> None:
        if len(dataset) == 0:
            raise ValueError("the data set is empty")
        self._dataset = dataset
        self._samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self._dataset))[index]
        sample = self._samples.get(index)
        if sample is None:
            sample = self._samples[index] = reasoning_gym_sample(self._dataset[index])
        return sample


def reasoning_gym_sample(entry: Mapping[str, Any]) -> Sample:
    """Return the sample that an entry of a data set means.

    >>> reasoning_gym_sample({"question": "2 + 3 =", "answer": "5", "metadata": {}})
    Sample(prompt='2 + 3 =', references=('5',), metadata={'question': '2 + 3 =', 'answer': '5', 'metadata': {}})
    """
    answer = entry["answer"]
    return Sample(entry["question"], () if answer is None else (str(answer),), dict(entry))
