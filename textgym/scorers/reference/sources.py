"""What scorers of summaries have in common: the text that is summed up."""

from textgym.batch import TextBatch

__all__ = ["sources_of"]


def sources_of(batch: TextBatch, column: str | None) -> list[str]:
    """Return, for each episode, the text in the metadata column ``column``, the prompt where a sample has none.

    Raises:
        TypeError: If something else than a text stands there.

    >>> sources_of(TextBatch.from_texts(["", ""], prompts=["A.", "B."], metadata=[{"source": "C."}, {}]), "source")
    ['C.', 'B.']
    """
    sources = []
    for sample in batch.samples:
        source = None if column is None else sample.metadata.get(column)
        source = sample.prompt if source is None else source
        if not isinstance(source, str):
            raise TypeError(f"the column {column!r} of a sample is {source!r:.80}, expected the source as a text")
        sources.append(source)
    return sources
