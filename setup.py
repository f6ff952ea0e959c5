"""Builds the Cython modules; pyproject.toml holds everything else.

FASTPOST_DEBUG=1     assertions (`assert` in .pyx, and the C macro FASTPOST_DEBUG), bounds checks, -O0; C warnings fail
FASTPOST_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer: see `make sanitize`
"""

from __future__ import annotations

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("FASTPOST_DEBUG") == "1"
SANITIZE = os.environ.get("FASTPOST_SANITIZE") == "1"

macros: list[tuple[str, str | None]]
directives: dict[str, object] = {"language_level": 3}
# Cython emits helpers that a module may not use.
compile_args = ["-Wall", "-Wno-unused-function", "-fstack-protector-strong"]
link_args = ["-Wl,-z,relro,-z,now"]

if DEBUG:
    macros = [("FASTPOST_DEBUG", "1")]
    compile_args += ["-O0", "-g", "-UNDEBUG", "-Werror"]
    directives |= {"boundscheck": True, "initializedcheck": True}
else:
    macros = [("CYTHON_WITHOUT_ASSERTIONS", "1")]
    compile_args += ["-O3"]

if SANITIZE:
    # UndefinedBehaviorSanitizer only sees what the optimiser has not removed: -O1.
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    compile_args += ["-O1", "-g", "-fno-omit-frame-pointer", *sanitizers]
    link_args += sanitizers
elif not DEBUG:
    # It needs the optimiser, and hides from AddressSanitizer the calls that it replaces.
    compile_args += ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]

extensions = [
    Extension(
        "fastpost." + os.path.basename(source).removesuffix(".pyx"),
        [source],
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for source in sorted(glob("fastpost/_*.pyx"))
]

setup(
    # The generated C goes to a folder of its own for each set of directives, away from the sources.
    ext_modules=cythonize(
        extensions, build_dir="build/cython-debug" if DEBUG else "build/cython", compiler_directives=directives
    ),
    options={"build_ext": {"parallel": True}},
)
