"""How the demo model is marked: a reply is right when it is the trained answer, word for word.

Pure: no client, no model. Unicode form and white space are forgiven, nothing else.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """One question with the answer wanted and the answer got."""

    question: str
    wanted: str
    got: str

    @property
    def right(self) -> bool:
        return canonical(self.got) == canonical(self.wanted)


@dataclass(frozen=True)
class Score:
    """A set of replies against an aim (the share that must be right, 0 to 1)."""

    name: str
    replies: Sequence[Reply]
    aim: float

    @property
    def right(self) -> int:
        return sum(reply.right for reply in self.replies)

    @property
    def share(self) -> float:
        """Share of right replies, 0 to 1; nothing asked is nothing right."""
        return self.right / len(self.replies) if self.replies else 0.0

    @property
    def met(self) -> bool:
        return self.share >= self.aim

    def wrong(self) -> list[Reply]:
        return [reply for reply in self.replies if not reply.right]

    def line(self) -> str:
        """The figure as it is printed and quoted."""
        return f"{self.name}: {self.right} of {len(self.replies)} right ({self.share * 100:.1f} %), aim {self.aim * 100:.0f} %"


def canonical(text: str) -> str:
    """The text in Unicode NFC with every run of white space as one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())
