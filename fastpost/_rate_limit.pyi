from typing import final

@final
class RateLimit:
    def __init__(self, octets_per_second: int) -> None: ...
