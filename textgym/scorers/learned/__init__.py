"""Learned measures of quality: reward models, preference models, LLM judges."""
