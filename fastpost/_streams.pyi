from collections.abc import Callable
from typing import final

from typing_extensions import Buffer

from fastpost._hpack_encoder import RequestEncoder
from fastpost._rate_limit import RateLimit
from fastpost._sending import SendSide

RECEIVE_WINDOW: int

@final
class DataPlane(SendSide):
    goaway_code: int | None
    responses: int
    heard: float
    server: bytes | None
    def __init__(
        self,
        encoder: RequestEncoder,
        control_received: Callable[[bytes], None],
        *,
        concurrency: int,
        fair: bool = True,
        staged: bool = False,
        keep_responses: bool = False,
        body_limit: int = 1024,
        first_stream_id: int = 1,
        rate_limit: RateLimit | None = None,
    ) -> None: ...
    def receive(self, octets: Buffer, now: float) -> None: ...
    @property
    def awaits_credit(self) -> bool: ...
    @property
    def news(self) -> bool: ...
    @property
    def awaits_answers(self) -> int: ...
