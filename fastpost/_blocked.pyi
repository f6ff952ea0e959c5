from typing import final

@final
class BlockedTime:
    since: float
    def seconds(self) -> dict[str, float]: ...
    def stalled_on_disk(self, elapsed: float) -> None: ...
