from typing import final

def spare_descriptors(first: int) -> None: ...

@final
class Folder:
    def shut(self) -> None: ...
