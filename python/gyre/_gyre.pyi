import asyncio
from typing import TypeVar

__version__: str

_T = TypeVar("_T")

# The methods are those of asyncio's types, with the same signatures: the stubs inherit them.

class Future(asyncio.Future[_T]): ...
class Task(asyncio.Task[_T]): ...
