from typing import final

from fastpost._gather import GatherList

@final
class RequestContent:
    def __init__(self, gather: GatherList, staged: bool) -> None: ...
