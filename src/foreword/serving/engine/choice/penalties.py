"""Make tokens that were said before less likely, as transformers and OpenAI define it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foreword.serving.contract import Sampling


class Seen:
    """The tokens that one answer and its prompt hold."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self.everywhere = np.unique(np.array(prompt, dtype=np.int64))
        """Tokens of the prompt, and of the answer where they are new; each once."""
        self._known = set(prompt)
        self.said: Counter[int] = Counter()
        """How often the answer has each token."""

    def add(self, token: int) -> None:
        self.said[token] += 1
        if token not in self._known:
            self._known.add(token)
            self.everywhere = np.append(self.everywhere, token)


def penalize(scores: NDArray[np.float32], seen: Seen, sampling: Sampling) -> None:
    """Lower the scores `[vocab]` of one row in place.

    Repetition (Keskar et al. 2019, as in transformers): a score above zero is divided by the
    penalty, one below is multiplied by it. Presence and frequency (OpenAI): taken off once for
    having been said in the answer, and once more for each time.
    """
    if sampling.repetition_penalty != 1.0:
        old = scores[seen.everywhere]
        by = np.float32(sampling.repetition_penalty)
        scores[seen.everywhere] = np.where(old < 0, old * by, old / by)
    if seen.said and (sampling.presence_penalty or sampling.frequency_penalty):
        times = np.array(list(seen.said.values()), dtype=np.float32)
        less = np.float32(sampling.presence_penalty) + sampling.frequency_penalty * times
        scores[list(seen.said)] -= less
