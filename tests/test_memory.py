"""Freed memory stays with the process: the system clears no page a second time."""

import platform
import subprocess
import sys

import pytest

from mtlbench import memory

FAULTS = """
import resource, sys
import torch
from mtlbench import memory
if sys.argv[1] == "kept":
    assert memory.keep_freed()
for k in range(16):
    if k == 6:  # by then the heap has room for both
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2**24), torch.ones(2**24)]
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_pages_are_not_asked_for_again():
    given_back, kept = faults("given back"), faults("kept")
    assert given_back > 10 * 2 * 2**26 // 2**21  # each of ten times, even with pages of 2 MB
    assert kept < given_back / 20


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_freed() is False
