from typing import final

from fastpost._hpack_encoder import RequestEncoder

@final
class RequestHeaders:
    def __init__(self, encoder: RequestEncoder) -> None: ...
