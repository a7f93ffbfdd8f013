"""Targets that a model with an encoder and a decoder writes after sources: in batches, with a cache, or by beam search.

As models/generation.py has it, a row's text depends on its source, its seed and the options alone, in fp32. Sources are padded on
the right and read once. Of the model's generation_config only the tokens that end a text are read; its length penalty, its
minimum or tokens that are forced would make another distribution. Beams are ranked by the mean log-probability of their tokens.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, LogitsProcessorList

from mangakd.core.errors import UserError
from mangakd.models.generation import (
    TOKENS,
    Sampling,
    Writer,
    Written,
    in_batches,
    padded,
    positions_of,
    writing,
)

START = 1  # token before the text, with which the decoder begins


class Seq2SeqWriter(Writer):
    """`write(model, sources, …)` as of a language model, where the prompts are sources with their end.

    longest: of a source and its text together, in tokens.
    """

    def beams(
        self, model: Any, sources: Sequence[Sequence[int]], beams: int, best: int, max_new_tokens: int,
        tokens: int = TOKENS, advance: Callable[[int], object] = lambda rows: None, longest: int | None = None,
        min_new_tokens: int = 0,
    ) -> list[list[Written]]:  # fmt: skip
        """For each source the `best` texts of a search with `beams` beams, the best one first; texts may be alike.

        Other arguments as in `write`; each beam counts as a row. Raises UserError for more texts than beams.
        """
        if not 1 <= best <= beams:
            raise UserError(f"best={best} must be a whole number from 1 to the number of beams, {beams}.")
        most, positions = self._rooms(model, sources, max_new_tokens, longest or sys.maxsize)
        texts: list[list[Written]] = [[]] * len(sources)
        with writing(model):
            for rows in in_batches([len(source) for source in sources], most, tokens // beams, positions):
                ids = self._generate(
                    model, padded([sources[i] for i in rows], self.pad, left=False),
                    LogitsProcessorList(self._rules(min_new_tokens, START)), max_new_tokens=max(most[i] for i in rows),
                    num_beams=beams, num_return_sequences=best,
                )  # fmt: skip
                new = ids[:, START:].tolist()
                for place, i in enumerate(rows):
                    own = new[place * best : (place + 1) * best]
                    texts[i] = [self._until_stop(text[: most[i]]) for text in own]
                advance(len(rows))
        return texts

    def _rooms(self, model: Any, prompts: Sequence[Sequence[int]], new: int, longest: int) -> tuple[list[int], int]:
        """A target has positions of its own, and as many as the source."""
        positions, lengths = positions_of(model), [len(source) for source in prompts]
        if wrong := [length for length in lengths if not 0 < length <= positions or length >= longest]:
            what = f"a source of {wrong[0]} tokens does not fit into {min(longest - 1, positions)}"
            raise UserError(
                f"{what if wrong[0] else 'a source is empty'}, so that nothing can be written after it. Shorten the source, or "
                "leave the row out."
            )
        return [min(new, positions, longest - length) for length in lengths], sys.maxsize

    def _generate(
        self, model: Any, inputs: Mapping[str, Any], processors: LogitsProcessorList, **options: Any
    ) -> Tensor:
        # transformers 5.5 would make a cache of as many layers as T5's encoder has, and fail where its decoder has more.
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        start = model.config.decoder_start_token_id
        return super()._generate(
            model, {**inputs, "past_key_values": cache}, processors, decoder_start_token_id=start, **options
        )

    def _batch(
        self, model: Any, prompts: list[Sequence[int]], sampling: Sampling, seeds: list[int], most: int
    ) -> list[list[int]]:
        processors = self._choice(sampling, seeds, START, most)
        ids = self._generate(model, padded(prompts, self.pad, left=False), processors, max_new_tokens=most)
        new: list[list[int]] = ids[:, START:].tolist()
        return new
