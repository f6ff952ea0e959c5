from typing import final

from typing_extensions import Buffer

@final
class GatherList(Buffer):
    pending: int
    serial: int
    def __init__(self, arena: int = 262144) -> None: ...
    def take(self) -> bytes: ...
