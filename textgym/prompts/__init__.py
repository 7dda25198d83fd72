"""Prompt sources, the starting points of episodes: lists, files, data sets, generators, weights and curricula."""

from textgym.prompts.base import IndexedPrompts, PromptSource, Sample, as_sample
from textgym.prompts.curriculum import Curriculum
from textgym.prompts.data import DatasetPrompts, FilePrompts, ReasoningGymPrompts
from textgym.prompts.encoding import PromptEncoder
from textgym.prompts.resolve import as_prompts, builtin_prompts
from textgym.prompts.sources import GeneratorPrompts, ListPrompts, SubsetPrompts, train_eval_split
from textgym.prompts.weighted import PrioritizedPrompts, WeightedPrompts

__all__ = [
    "Curriculum",
    "DatasetPrompts",
    "FilePrompts",
    "GeneratorPrompts",
    "IndexedPrompts",
    "ListPrompts",
    "PrioritizedPrompts",
    "PromptEncoder",
    "PromptSource",
    "ReasoningGymPrompts",
    "Sample",
    "SubsetPrompts",
    "WeightedPrompts",
    "as_prompts",
    "as_sample",
    "builtin_prompts",
    "train_eval_split",
]
