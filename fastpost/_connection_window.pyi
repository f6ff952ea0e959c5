from typing import final

@final
class ConnectionWindow:
    available: int
    largest: int
    closed_for: float
    far: bool
