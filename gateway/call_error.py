"""The one mapping of an error to what the client reads. The errors themselves are in `gateway.errors`.

Bodies have OpenAI's shape and, by one more field, Anthropic's.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import msgspec

Language = Literal["en", "ko"]


class CallError(Exception):
    """Base of all of them. The fields given are put into `en` and `ko`, the templates of its message."""

    status: ClassVar[int]
    code: ClassVar[str]
    type: ClassVar[str]
    en: ClassVar[str]
    ko: ClassVar[str]

    def __init__(self, *, param: str | None = None, retry_after_s: float | None = None, **fields: object) -> None:
        self.param = param
        self.retry_after_s = retry_after_s
        self.fields = fields
        super().__init__(self.message("en"))

    def message(self, language: Language) -> str:
        template = self.ko if language == "ko" else self.en
        return template.format(param=self.param, retry_after_s=self.whole_retry_after_s, **self.fields)

    @property
    def whole_retry_after_s(self) -> int | None:
        """Seconds for `Retry-After`, which knows whole ones only (RFC 9110, 10.2.3): rounded up, at least 1."""
        return None if self.retry_after_s is None else max(1, math.ceil(self.retry_after_s))

    def body(self, language: Language) -> bytes:
        error = {"message": self.message(language), "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"type": "error", "error": error})

    def headers(self) -> list[tuple[bytes, bytes]]:
        seconds = self.whole_retry_after_s
        return [] if seconds is None else [(b"retry-after", str(seconds).encode())]
