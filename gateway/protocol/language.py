"""Which of our two languages a client reads, from its Accept-Language header (RFC 9110, 12.5.4)."""

from __future__ import annotations

from gateway.call_error import Language


def preferred(accept_language: str) -> Language:
    """`ko` if the header prefers Korean to English, else `en`. Anything unreadable counts as absent."""
    best: dict[str, float] = {}
    for part in accept_language.split(","):
        name, _, parameter = part.strip().partition(";")
        language = name.strip().lower().split("-")[0]
        best[language] = max(best.get(language, 0.0), _weight(parameter))
    return "ko" if best.get("ko", 0.0) > best.get("en", 0.0) else "en"


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    try:
        return float(value) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0
