"""Files: gyre.open and its one-shots against aiofiles, AnyIO, plain threads and blocking calls."""
