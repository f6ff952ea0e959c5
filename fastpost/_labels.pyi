from collections.abc import Callable, Mapping

from fastpost.forms import Form
from fastpost.media_types import Fields

class Labels:
    folders: Mapping[bytes, bytes] | None
    types: Mapping[bytes, Fields | None]
    form: Form | None
    def __init__(
        self,
        *,
        fill: Callable[[bytes], bytes],
        folders: Mapping[bytes, bytes] | None,
        before: bytes,
        after: bytes,
        as_is: bytes,
        escape: Callable[[bytes], bytes],
        types: Mapping[bytes, Fields | None],
        guess: Callable[[bytes], Fields],
        unknown: Fields,
        declare: Callable[[str], Fields],
        declared: Fields | None = None,
        form: Form | None = None,
    ) -> None: ...
    def request_path(self, name: bytes) -> bytes: ...
    def content_fields(self, name: bytes, content_type: str | None = None) -> Fields: ...
