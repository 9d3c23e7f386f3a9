"""The `service_tier` of requests: which tier a word of OpenAI's, of Anthropic's or of our own means, and how it is echoed."""

from __future__ import annotations

from typing import Literal

from gateway.policy.limits import Tier

Word = Literal["auto", "default", "flex", "priority", "scale", "standard_only", "standard", "reserved", "paid", "free", "batch"]
HEADER = b"x-daemun-service-tier"

_ASKED = {
    "default": Tier.PAID,
    "standard": Tier.PAID,
    "standard_only": Tier.PAID,
    "priority": Tier.RESERVED,
    "scale": Tier.RESERVED,
    "flex": Tier.BATCH,
    "reserved": Tier.RESERVED,
    "paid": Tier.PAID,
    "free": Tier.FREE,
    "batch": Tier.BATCH,
}
_RANK = {tier: rank for rank, tier in enumerate(Tier)}
_OWN_WORDS = frozenset(tier.value for tier in Tier)
_OPENAIS_WORD = {Tier.RESERVED: "priority", Tier.PAID: "default", Tier.FREE: "default", Tier.BATCH: "flex"}
_UNSAID = b'"service_tier":null'


def used(asked: str | None, own: Tier) -> Tier:
    """The tier of a call whose key is of the tier `own`: the one asked for, but never a better one than the key's."""
    tier = own if asked is None else _ASKED.get(asked, own)
    return tier if _RANK[tier] > _RANK[own] else own


def word(tier: Tier, asked: str | None) -> str:
    """The tier in the client's own vocabulary: ours if it asked in ours, else OpenAI's, which strict clients insist on."""
    return tier.value if asked in _OWN_WORDS else _OPENAIS_WORD[tier]


def engines_word(tier: Tier) -> str:
    """One that the engine accepts, and repeats in its answer where its API has the field (/v1/responses)."""
    return _OPENAIS_WORD[tier]


def echoed(body: bytes, word: str) -> bytes:
    """A whole answer with the tier where the engine left it open.

    As bytes: in a text the quotes would be escaped, so this can only be the field itself, which stands behind the choices.
    """
    before, found, after = body.rpartition(_UNSAID)
    return b"".join((before, b'"service_tier":"', word.encode(), b'"', after)) if found else body
