"""Episodes written to files as rows of JSON lines or Parquet, during training or at once."""

import base64
import io
import json
import warnings
import weakref
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import orjson
import torch
from typing_extensions import Self

from textgym.tokenizers import Tokenizer, fingerprint
from textgym_agents.callbacks import Callback
from textgym_agents.config import check_count
from textgym_agents.episodes import Episodes, EpisodeStart
from textgym_agents.reading import INFO_COLUMNS, SCHEMA, Row, import_pyarrow, parsed_json, read_episodes
from textgym_agents.token_stats import EpisodeStats

__all__ = ["EpisodeRecorder", "append_whole", "read_episodes"]


class EpisodeRecorder(Callback):
    """Writes episodes to a file, one per row, for ``read_episodes`` and other programs.

    | column | type | meaning |
    | --- | --- | --- |
    | ``schema`` | text | ``"textgym.episode/1"``, name and version of these columns |
    | ``vocabulary`` | text | ``textgym.tokenizers.fingerprint`` of the tokenizer; null if unknown |
    | ``update`` | int | number of the update among those recorded, from 1; null outside of training |
    | ``prompt_ids`` | list of int | tokens of the prompt |
    | ``completion_ids`` | list of int, C | tokens after the prompt |
    | ``tokens`` | list of text, C | ``token_text`` of each of these tokens; null without a tokenizer |
    | ``is_action`` | list of bool, C | True for the T actions, False for a user's tokens; null if all are actions |
    | ``rewards`` | list of float, T | reward of each step |
    | ``log_probs`` | list of float, T | log pi(a|s) of the acting policy, in nats; null if unknown |
    | ``values`` | list of float, T | V(s) of the acting policy; 0 if it has none |
    | ``entropies`` | list of float, T | entropy of pi(.|s), in nats |
    | ``ranks`` | list of int, T | 1 + the number of tokens more probable than the chosen one |
    | ``mask_sizes`` | list of int, T | number of valid tokens |
    | ``alternative_ids`` | T lists of K int | the K most probable tokens; null where fewer have a probability |
    | ``alternative_log_probs`` | T lists of K float | their log-probabilities |
    | ``truncated`` | bool | whether the episode was truncated |
    | ``action_masks`` | bytes, base64 in JSON | (T, ceil(V / 8)) packed bits; null if all actions were valid |
    | ``prompt``, ``completion``, ``end_reason`` | text | as in ``info`` |
    | ``score``, ``scores`` | float, object | as in ``info``, total and by component; null for NaN |
    | ``group``, ``kl``, ``scorer_error`` | int, float, text | as in ``info``; null if absent |
    | ``turns`` | list of objects | as in ``info``: ``role`` and ``content`` of each; null if there is no user |
    | ``references`` | list of text | references of the sample; null if unknown |
    | ``metadata`` | object, a JSON text in Parquet | metadata of the sample; null if JSON cannot hold it exactly |
    | ``prefix_length`` | int | tokens at the end of ``prompt_ids`` that count as the start of the completion |
    | ``rng`` | text | JSON of the generator's state at the start, for a simulated user; null without one |

    Log-probabilities, entropies, ranks and alternatives are those of the distribution that sampled, after mask and
    temperature; the four columns from ``entropies`` on are null where ``collect`` was not given ``num_alternatives``.
    Numbers are the shortest decimals of float32, which reading restores exactly.

    As a callback of ``learn`` it writes the episodes of each update to JSON lines; ``write`` takes episodes directly.
    Each write leaves complete lines on disk: a program that is killed loses the episodes of the update under way. A
    Parquet file is readable only once it is complete, so training is not recorded in one; to convert a recording,
    ``with EpisodeRecorder("run.parquet") as recorder: recorder.write(read_episodes("run.jsonl"))``. It is complete
    after ``close``, a ``with`` block or the exit of the program. Lone surrogates, which UTF-8 cannot encode, are
    escaped.

    Args:
        path: File name ending in ``.jsonl`` or, with the extra ``parquet``, in ``.parquet``.
        append: Append to the file if it exists; JSON lines only. A last line that is cut off is removed with a warning.
        num_alternatives: K, what the rollouts of ``learn`` record of the distribution of each token: its entropy, the
            rank of the token and the K most probable ones. None records none of them.

    Raises:
        ValueError: If the suffix is unknown, ``append`` is True for Parquet, or ``num_alternatives`` is negative.
        FileExistsError: If the file exists and ``append`` is False.
        ImportError: If pyarrow is needed but not installed.

    >>> import tempfile, gymnasium, textgym
    >>> from textgym_agents import LMPolicy, collect, read_episodes
    >>> env = gymnasium.make_vec("TextGen-v0", num_envs=2, max_new_tokens=4)
    >>> path = Path(tempfile.mkdtemp(), "episodes.jsonl")
    >>> EpisodeRecorder(path).write(collect(env, LMPolicy("tiny"), 2, seed=0, num_alternatives=3))
    >>> read_episodes(path).stats.alternative_ids.shape
    torch.Size([2, 4, 3])
    """

    def __init__(self, path: str | PathLike[str], *, append: bool = False, num_alternatives: int | None = 0) -> None:
        if num_alternatives is not None:
            check_count("num_alternatives", num_alternatives, least=0)
        self.num_alternatives = num_alternatives
        self.path = Path(path)
        if self.path.exists() and not append:
            raise FileExistsError(f"{self.path} already exists; choose another file or set append=True")
        self._file: _JsonLines | _Parquet
        if self.path.suffix == ".jsonl":
            self._file = _JsonLines(self.path, append)
        elif self.path.suffix == ".parquet":
            self._file = _Parquet(self.path, append)
        else:
            raise ValueError(f"episodes are written to .jsonl or .parquet, got {self.path.name!r}")
        self._update = self._file.last_update
        self._setting_before: int | None = None

    def write(self, episodes: Episodes) -> None:
        """Write episodes; raises a ValueError if the file is Parquet and closed."""
        self._file.write(_lines(episodes))

    def close(self) -> None:
        """Complete a Parquet file; has no effect on JSON lines or when called again."""
        self._file.close()

    def on_training_start(self, agent: Any) -> None:
        """Let the agent's rollouts record; raises a ValueError if the file is Parquet."""
        if isinstance(self._file, _Parquet):
            raise ValueError(
                f"training cannot be recorded in {self.path.name}: a Parquet file is readable only once it is "
                "complete, so all would be lost if the program is killed. Record in a .jsonl file and convert it: "
                "EpisodeRecorder('run.parquet').write(read_episodes('run.jsonl'))"
            )
        self._setting_before = getattr(agent, "num_alternatives", None)
        if self.num_alternatives is not None:
            agent.num_alternatives = max(self.num_alternatives, self._setting_before or 0)

    def on_rollout_end(self, agent: Any, episodes: Episodes) -> None:
        """Write the episodes of an update."""
        self._update += 1
        self._file.write(_lines(episodes, self._update))

    def on_training_end(self, agent: Any) -> None:
        """Restore what the agent's rollouts record."""
        agent.num_alternatives = self._setting_before

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def append_whole(file: io.FileIO, data: bytes) -> None:
    """Append all data to an unbuffered file, or none if writing fails."""
    start, rest = file.seek(0, io.SEEK_END), memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except BaseException:
        file.truncate(start)
        raise


class _JsonLines:
    """Writer of JSON lines."""

    def __init__(self, path: Path, append: bool) -> None:
        path.touch(exist_ok=append)
        self._path = path
        self.last_update = _prepare_to_append(path) if append else 0

    def write(self, lines: list[bytes]) -> None:
        with self._path.open("ab", buffering=0) as file:
            append_whole(file, b"".join(lines))

    def close(self) -> None:
        """Do nothing: the file is complete after each write."""


def _prepare_to_append(path: Path) -> int:
    """Make the last line complete, or remove it if it is cut off; return the number of the last update, or 0."""
    with path.open("rb+") as file:
        start = end = file.seek(0, io.SEEK_END)
        line = b""
        while start and b"\n" not in line[:-1]:
            start = max(0, start - 2**16)
            file.seek(start)
            line = file.read(end - start)
        line = line[line[:-1].rfind(b"\n") + 1 :]
        try:
            row = parsed_json(line) if line else None
        except ValueError:
            row = None
            if not line.endswith(b"\n"):
                warnings.warn(f"the last line of {path} is cut off and is removed", stacklevel=4)
                file.truncate(end - len(line))
                return _prepare_to_append(path)
        if line and not line.endswith(b"\n"):
            file.write(b"\n")
    update = row.get("update") if isinstance(row, dict) else None
    return update if isinstance(update, int) else 0


class _Parquet:
    """Writer of Parquet, a row group per write; ``close`` writes the footer, without which the file is unreadable."""

    last_update = 0

    def __init__(self, path: Path, append: bool) -> None:
        self._arrow, parquet = import_pyarrow()
        if append:
            raise ValueError("append=True needs a .jsonl file: Parquet files cannot be appended to")
        self._schema = _parquet_schema(self._arrow)
        self._file = path.open("xb")
        self._writer = parquet.ParquetWriter(self._file, self._schema, write_page_checksum=True)
        weakref.finalize(self, _complete, self._writer, self._file)  # at the latest when the program ends

    def write(self, lines: list[bytes]) -> None:
        if self._file.closed:
            raise ValueError("this Parquet file is closed and cannot be appended to; use .jsonl or another file")
        rows = [orjson.loads(line) for line in lines]
        for row in rows:
            if row["metadata"] is not None:
                row["metadata"] = json.dumps(row["metadata"], ensure_ascii=False)
            if row["action_masks"] is not None:
                row["action_masks"] = base64.b64decode(row["action_masks"])
        self._writer.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema))

    def close(self) -> None:
        _complete(self._writer, self._file)


def _complete(writer: Any, file: io.BufferedWriter) -> None:
    writer.close()
    file.close()


def _parquet_schema(arrow: Any) -> Any:
    floats, ids, text = arrow.list_(arrow.float32()), arrow.list_(arrow.int64()), arrow.string()
    return arrow.schema(
        {
            "schema": text,
            "vocabulary": text,
            "update": arrow.int64(),
            "prompt_ids": ids,
            "completion_ids": ids,
            "tokens": arrow.list_(text),
            "is_action": arrow.list_(arrow.bool_()),
            "rewards": floats,
            "log_probs": floats,
            "values": floats,
            "entropies": floats,
            "ranks": ids,
            "mask_sizes": ids,
            "alternative_ids": arrow.list_(ids),
            "alternative_log_probs": arrow.list_(floats),
            "truncated": arrow.bool_(),
            "action_masks": arrow.binary(),
            "prompt": text,
            "completion": text,
            "score": arrow.float64(),
            "scores": arrow.map_(text, arrow.float64()),
            "group": arrow.int64(),
            "end_reason": text,
            "kl": arrow.float64(),
            "scorer_error": text,
            "turns": arrow.list_(arrow.struct({"role": text, "content": text})),
            "references": arrow.list_(text),
            "metadata": text,
            "prefix_length": arrow.int64(),
            "rng": text,
        }
    )


def _lines(episodes: Episodes, update: int | None = None) -> list[bytes]:
    """Return B episodes as lines of JSON.

    Args:
        episodes: B episodes.
        update: Number of the update they were collected for, if that is not in their infos.
    """
    starts, ends, steps = (x.tolist() for x in (episodes.prompt_lengths, episodes.text_lengths, episodes.num_steps))
    ids, rewards, log_probs, values = map(
        np.ascontiguousarray, (episodes.ids, episodes.rewards, episodes.log_probs, episodes.values)
    )
    unknown, truncated = episodes.log_probs.isnan().any(dim=1).tolist(), episodes.truncated.tolist()
    vocabulary, texts, masks = episodes.vocabulary, episodes.texts, episodes.action_masks
    if episodes.tokenizer is not None:
        vocabulary, texts = fingerprint(episodes.tokenizer), _texts(episodes.ids, episodes.tokenizer)
    stats = _stats_columns(episodes.stats, steps)
    lines = []
    for b, (start, end, size) in enumerate(zip(starts, ends, steps, strict=True)):
        info, completion = episodes.infos[b], ids[b, start:end]
        is_action = None
        if size < end - start:
            is_action = np.zeros(end - start, dtype=np.bool_)
            is_action[episodes.positions[b, :size].numpy() - start] = True
        row = {
            "schema": SCHEMA,
            "vocabulary": vocabulary,
            "update": info.get("update", update),
            "prompt_ids": ids[b, :start],
            "completion_ids": completion,
            "tokens": None if texts is None else [texts.get(i, "") for i in completion.tolist()],
            "is_action": is_action,
            "rewards": rewards[b, :size],
            "log_probs": None if unknown[b] else log_probs[b, :size],
            "values": values[b, :size],
            **stats[b],
            "truncated": truncated[b],
            "action_masks": None if masks is None else base64.b64encode(masks[b, :size].tobytes()).decode(),
            **{name: info.get(name) for name in INFO_COLUMNS},
            **_start_columns(None if episodes.starts is None else episodes.starts[b]),
        }
        try:
            lines.append(_encoded(row))
        except TypeError:  # lone surrogates
            lines.append(_encoded(_escaped(row)))
    return lines


def _encoded(row: Row) -> bytes:
    """Return a line of JSON, arrays as the shortest decimals that restore them, NaN and infinities as null."""
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _texts(ids: torch.Tensor, tokenizer: Tokenizer) -> dict[int, str]:
    """Return the text of each id."""
    return {i: _escaped(tokenizer.token_text(i)) for i in ids.unique().tolist()}


def _stats_columns(stats: EpisodeStats | None, steps: list[int]) -> list[Row]:
    """Return the statistics of each episode, None where it has no records."""
    nothing: Row = dict.fromkeys(EpisodeStats._fields)
    if stats is None:
        return [nothing] * len(steps)
    arrays = {name: np.ascontiguousarray(x) for name, x in stats._asdict().items() if 0 not in x.shape}
    known = ~stats.entropies.isnan().any(dim=1)
    rows = [
        {**nothing, **{name: array[b, :size] for name, array in arrays.items()}} if has_records else nothing
        for b, (size, has_records) in enumerate(zip(steps, known.tolist(), strict=True))
    ]
    is_missing = stats.alternative_ids == -1
    for b in (is_missing.flatten(1).any(dim=1) & known).nonzero()[:, 0].tolist():
        ids = rows[b]["alternative_ids"].tolist()
        rows[b]["alternative_ids"] = [[None if i == -1 else i for i in step] for step in ids]
    return rows


def _start_columns(start: EpisodeStart | None) -> Row:
    """Return what the episode started from; references and metadata are None unless JSON can hold them exactly."""
    if start is None:
        return dict.fromkeys(("references", "metadata", "prefix_length", "rng"))
    return {
        "references": _if_exact(list(start.sample.references)),
        "metadata": _if_exact(dict(start.sample.metadata)),
        "prefix_length": start.prefix_length,
        "rng": None if start.rng_state is None else json.dumps(start.rng_state),
    }


def _if_exact(value: Any) -> Any:
    """Return a value, or None if JSON does not hold it exactly; integers of more than 64 bits are not."""
    try:
        return value if orjson.loads(_encoded(value)) == value else None
    except (TypeError, ValueError):  # ValueError: an array, which has no single truth value
        return None


def _escaped(value: Any) -> Any:
    """Return a value whose lone surrogates, which UTF-8 cannot encode, are escaped."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(part) for key, part in value.items()}
    return [_escaped(part) for part in value] if isinstance(value, list) else value
