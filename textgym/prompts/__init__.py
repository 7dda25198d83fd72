"""Where an episode starts: prompts from lists, files, data sets and generators."""

from textgym.prompts.base import PromptSource, Sample, as_sample
from textgym.prompts.curriculum import Curriculum
from textgym.prompts.encoding import PromptEncoder
from textgym.prompts.files import FilePrompts
from textgym.prompts.generators import GeneratorPrompts
from textgym.prompts.hf_datasets import DatasetPrompts
from textgym.prompts.lists import IndexedPrompts, ListPrompts, SubsetPrompts
from textgym.prompts.reasoning_gym import ReasoningGymPrompts
from textgym.prompts.resolve import as_prompts, builtin_prompts
from textgym.prompts.splits import train_eval_split

__all__ = [
    "Curriculum",
    "DatasetPrompts",
    "FilePrompts",
    "GeneratorPrompts",
    "IndexedPrompts",
    "ListPrompts",
    "PromptEncoder",
    "PromptSource",
    "ReasoningGymPrompts",
    "Sample",
    "SubsetPrompts",
    "as_prompts",
    "as_sample",
    "builtin_prompts",
    "train_eval_split",
]
