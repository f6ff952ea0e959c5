"""What a sample of perf was spent on, and on what one client spends more than another."""

from __future__ import annotations

import pytest

from bench.profile import KINDS, _kind, excess

KERNEL = "ffff _copy_from_iter ([kernel.kallsyms])"


@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        ([KERNEL, "7f sendmsg (/lib/libc.so.6)"], "send"),
        ([KERNEL, "7f preadv64v2 (/lib/libc.so.6)"], "files"),
        ([KERNEL, "7f __read (/lib/libc.so.6)", "7f SSL_read (/lib/libssl.so.3)"], "receive, wait"),
        # A program that calls the kernel itself.
        ([KERNEL, "ff __x64_sys_write ([kernel.kallsyms])", "4a syscall.Syscall6 (/bench/go_client)"], "send"),
        ([KERNEL, "ff ksys_write ([kernel.kallsyms])", "4a syscall.Syscall6 (/bench/go_client)"], "send"),
        ([KERNEL, "ff __x64_sys_openat ([kernel.kallsyms])", "4a syscall.Syscall6 (/bench/go_client)"], "files"),
        ([KERNEL, "ff asm_exc_page_fault ([kernel.kallsyms])", "4a main.main (/bench/go_client)"], "rest"),
        (["4a crypto/aes.gcmAesEnc (/bench/go_client)"], "encrypt"),
        (["4a vendor/golang.org/x/crypto/chacha20.xor (/bench/go_client)"], "encrypt"),
        (["4a runtime.memmove (/bench/go_client)"], "copy"),
        (["4a net/http.(*http2Framer).WriteData (/bench/go_client)"], "own code"),
        (["7f aesni_encrypt (/lib/libcrypto.so.3)"], "encrypt"),
        (["7f DataPlane_parse (/site-packages/fastpost/_streams.so)"], "own code"),
        (["7f _PyEval_EvalFrameDefault (/lib/libpython3.11.so)"], "Python"),
        (["7f __memmove_avx (/lib/libc.so.6)"], "copy"),
    ],
)
def test_a_sample_is_of_one_kind(frames: list[str], kind: str) -> None:
    assert _kind(frames) == kind


def test_what_is_spent_more_is_told_largest_first_and_crumbs_are_not() -> None:
    theirs = dict.fromkeys(KINDS, 100.0)
    ours = theirs | {"start-up": 190.0, "encrypt": 250.0, "copy": 110.0, "files": 300.0, "receive, wait": 0.0}
    assert excess(ours, theirs) == "encrypt 150 · files, receive, wait 100 · start-up 90"
    assert excess(theirs, ours) == ""
