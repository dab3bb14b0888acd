"""From where the state of a decoder that was brought starts, and what is withheld where that is not known."""

from __future__ import annotations

from runtime.core.engine import Decoder
from runtime.core.values import Mark, Token

MOST_SAID = 100  # sentences, each said once


class Start:
    """Reads the `stands` of a segment's start, and counts off the bins whose values its lack spoils.

    What a marker says holds before the segment's first bin: it is used only where that bin is decoded. Otherwise a
    decoder with a state begins with what is not right, and its values are withheld until that is forgotten.

    mark: of the segment that starts with this bin, None = none does. late: that bin is not the segment's first.
    held: segments so far that began like this.
    """

    def __init__(self) -> None:
        self.mark: Mark | None = None
        self.late = False
        self.held = 0
        self._left = 0  # bins
        self._said: set[str] = set()
        self._news = ""

    def begin(self, token: Token, decoder: Decoder, *, skip: bool) -> None:
        """Give a closed bin what the marker says. decoder: decodes it; skip: it does not."""
        if (mark := self.mark) is not None:
            self._left = 0
            if mark.stands or mark.odd:
                why = self._why_not(mark, decoder, skip=skip)
                if not why:
                    token.stands = decoder.engine.layout.row(mark.stands)
                elif decoder.forgets_bins:
                    self.held, self._left = self.held + 1, decoder.forgets_bins
                    self._tell(f"{why}; values are withheld for the {self._left} bins in which the decoder forgets it")
        elif token.reset and self._left:
            self._left = decoder.forgets_bins

    def _why_not(self, mark: Mark, decoder: Decoder, *, skip: bool) -> str:
        """Why a start's `stands` cannot be used, '' = it can."""
        if mark.odd:
            return f"stands of a segment_start holds {mark.odd!r}, which is no number, so that none of it is used"
        if name := decoder.engine.layout.stranger(mark.stands):
            return f"stands of a segment_start names {name!r}, which is no output, so that none of it is used"
        if self.late:
            return "a segment_start came after its bin, so that its stands is of the past; send it ahead"
        return "the first bin of a segment was skipped after a stall, so that its stands is of the past" if skip else ""

    def taken_over(self, decoder: Decoder) -> None:
        """Another decoder has taken over, cold."""
        self._left = decoder.forgets_bins if self._left else 0

    def holds(self) -> bool:
        """Whether the values of a bin with live data, which was just decoded, are withheld. Asked once a bin."""
        held = self._left > 0
        self._left -= held
        return held

    def _tell(self, sentence: str) -> None:
        if sentence not in self._said and len(self._said) < MOST_SAID:
            self._said.add(sentence)
            self._news = sentence

    def news(self) -> str:
        """What has to be said since the last call, one sentence, or ''."""
        said, self._news = self._news, ""
        return said
