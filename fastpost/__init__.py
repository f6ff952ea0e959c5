"""fastpost: push folders of files over HTTP/2. The public names; each is loaded when it is first used."""

from __future__ import annotations

import importlib

#: As typing has it. To load that takes 4 ms, and a process has to be ready for Ctrl-C, and its collector set, before.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fastpost._table import Attempt as UploadResult
    from fastpost.config import Settings
    from fastpost.errors import FastpostError
    from fastpost.sources import Upload, walk
    from fastpost.tally import Tally
    from fastpost.uploader import Uploader, upload

__version__ = "0.1.0"

__all__ = ["FastpostError", "Settings", "Tally", "Upload", "UploadResult", "Uploader", "__version__", "upload", "walk"]

# Where each public name lives. Importing fastpost must not load the event loop: `fastpost --version` is to be quick.
_HOMES = {
    "FastpostError": ("fastpost.errors", "FastpostError"),
    "Settings": ("fastpost.config", "Settings"),
    "Tally": ("fastpost.tally", "Tally"),
    "Upload": ("fastpost.sources", "Upload"),
    "UploadResult": ("fastpost._table", "Attempt"),
    "Uploader": ("fastpost.uploader", "Uploader"),
    "upload": ("fastpost.uploader", "upload"),
    "walk": ("fastpost.sources", "walk"),
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastpost' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
