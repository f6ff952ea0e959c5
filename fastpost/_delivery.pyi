from typing import final

@final
class Delivery:
    sent: int
    carried: int
    arrived: int
    arrived_at: float
