from collections import deque
from typing import final

from fastpost._table import Attempt

@final
class Line:
    attempts: deque[Attempt]
    def extend(self, attempts: list[Attempt]) -> None: ...
    def withdraw(self, kept: int) -> list[Attempt]: ...
