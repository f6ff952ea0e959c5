from typing import final

@final
class ControlFrames: ...
