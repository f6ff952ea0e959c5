from typing import final

@final
class InboundBuffer:
    def __init__(self, max_frame_size: int = 16384) -> None: ...
