from typing import final

@final
class Envelope:
    length: int
    def __init__(self, before: bytes, after: bytes) -> None: ...
