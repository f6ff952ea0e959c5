"""A picture of the page of a real benchmark, for those who read about it.

    python -m bench.screenshot

Measures the embedded server in a sweep, and draws docs/bench-page.png: the part of its page that compares settings.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench import chromium
from bench.measure import ROOT

PNG: Final = ROOT / "docs" / "bench-page.png"
_SWEEP: Final = ("-c", "1,10,50,100,200,400", "--duration", "5s")
#: Of the window, in CSS pixels.
_WIDTH: Final = 1040
#: Of the picture, to keep it below 200 kB.
_SCALE: Final = 0.85
#: Where the picture ends: below what all measurements have in common, before each in detail.
_END: Final = "document.querySelectorAll('.charts')[1].getBoundingClientRect().bottom"


def main() -> int:
    """Measure and draw."""
    with tempfile.TemporaryDirectory() as name:
        page = Path(name) / "page.html"
        subprocess.run([sys.executable, "-m", "fastpost", "bench", "-q", *_SWEEP, "--html", page], check=True)
        with chromium.running(Path(name) / "profile") as browser:
            browser.open(page, _WIDTH)
            PNG.write_bytes(browser.png({"x": 0, "y": 0, "width": _WIDTH, "height": browser.value(_END) + 16}, _SCALE))
    print(f"{PNG.relative_to(ROOT)}: {PNG.stat().st_size:,} octets")
    return 0


if __name__ == "__main__":
    sys.exit(main())
