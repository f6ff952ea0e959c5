from fastpost._payload import Excerpt

class Upload:
    file: bytes
    name: bytes
    size: int
    content_type: str | None
    follow: bool
    content: Excerpt | None
    due: float
    def __init__(
        self,
        file: bytes,
        name: bytes,
        size: int = -1,
        content_type: str | None = None,
        follow: bool = True,
        content: Excerpt | None = None,
        due: float = 0.0,
    ) -> None: ...

def known_octets(uploads: list[Upload]) -> int: ...

class Listing:
    def __init__(self, descend: bool) -> None: ...
    @property
    def pending(self) -> bool: ...
    def push(self, path: bytes, cut: int) -> None: ...
    def read(
        self, most: int, folders: int
    ) -> tuple[list[Upload], list[bytes], list[bytes], list[tuple[bytes, int]], int]: ...
    def close(self) -> None: ...
