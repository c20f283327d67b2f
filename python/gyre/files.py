"""Async files: gyre.open(), the file types it makes, and calls that do one whole thing.

Everything here runs on gyre's loop and raises RuntimeError on another.
"""

from __future__ import annotations

from ._file_buffered import BufferedFile
from ._file_once import (
    copy_file,
    read_file,
    read_many,
    stat,
    stat_many,
    write_file,
)
from ._file_open import Opening, aligned_buffer, open
from ._file_raw import DirectFile, RawFile
from ._file_registered import RegisteredBuffers
from ._file_text import TextFile

__all__ = [
    "BufferedFile",
    "DirectFile",
    "Opening",
    "RawFile",
    "RegisteredBuffers",
    "TextFile",
    "aligned_buffer",
    "copy_file",
    "open",
    "read_file",
    "read_many",
    "stat",
    "stat_many",
    "write_file",
]
