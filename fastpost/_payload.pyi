from typing import final

PERIOD: int

@final
class Payload:
    period: int
    def __init__(self, period: int = ...) -> None: ...
    def excerpt(self, start: int, size: int) -> Excerpt: ...

@final
class Excerpt:
    start: int
    size: int
    def octets(self, offset: int, length: int) -> bytes: ...
