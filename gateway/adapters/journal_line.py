"""A line of the ledger's journal: an entry as JSON behind its checksum, so that a line that is not what was written is known.

    5f1c09ab ["req_1",1763800000.0,"/v1/chat/completions",…]

Lines of version 1 were the JSON alone; they begin with its bracket and are still read. One flipped bit cannot make a line look
like one of those, since no hexadecimal digit is one bit away from a bracket.
"""

from __future__ import annotations

import re
from zlib import crc32

_DIGITS = 8
_BODY = _DIGITS + 1
_SEALED = re.compile(rb"[0-9a-f]{8} \[")
_MOST_MENDED = 4096  # bytes: each bit is tried, and a longer line takes seconds


def seal(body: bytes) -> bytes:
    """The line, its newline included."""
    return b"%08x %b\n" % (crc32(body), body)


def unseal(line: bytes) -> bytes | None:
    """The JSON in a line without its newline; None if the line is not what was written."""
    if line[:1] == b"[":
        return line
    body = line[_BODY:]
    return body if body and line[:_BODY] == b"%08x " % crc32(body) else None


def mend(line: bytes) -> tuple[list[bytes], bool]:
    """All JSON that can be had of a line that is not what was written, and whether that is all there was.

    Behind what is damaged a whole line may follow, where a newline was lost or a piece of a line was left. And one flipped bit
    can be put right: no two lines of this length with fitting checksums are less than four bits apart.
    """
    for found in _SEALED.finditer(line, 1):
        at = found.start()
        whole = unseal(line[at:])
        if whole is not None:
            before = unseal(line[: at - 1])
            return ([whole], False) if before is None else ([before, whole], True)
    newline_lost = unseal(line[:-1])
    if newline_lost is not None and line[:1] != b"[":
        return [newline_lost], True
    mended = _with_one_bit_flipped(line) if _BODY < len(line) <= _MOST_MENDED else None
    return ([], False) if mended is None else ([mended], True)


def _with_one_bit_flipped(line: bytes) -> bytes | None:
    """Where the checksum fits, if it does anywhere."""
    tried = bytearray(line)
    for at in range(len(tried)):
        was = tried[at]
        for bit in range(8):
            tried[at] = was ^ (1 << bit)
            body = unseal(bytes(tried))
            if body is not None and tried[0] != 0x5B:
                return body
        tried[at] = was
    return None
