"""What code made a run: hashes, commit, versions. Imports nothing of what it describes."""

import functools
import hashlib
import inspect
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent
_LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "segmentation-models-pytorch",
    "numpy",
    "scipy",
    "hydra-core",
    "omegaconf",
)


def _hash(files: list[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


@functools.cache
def source_hash() -> str:
    """Sixteen hexadecimal digits: the hash of every .py file of the package, as it was at the first call."""
    return _hash(sorted(_PACKAGE.rglob("*.py")), _PACKAGE)


def hash_of(*things: Any) -> str:
    """The hash of the files in which the classes of these objects are written: a method and a hybrid's parts."""
    files = {inspect.getfile(type(thing)) for thing in things}
    digests = {hashlib.sha256(Path(path).read_bytes()).digest() for path in files}
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:16]


@functools.cache
def git_state() -> dict[str, Any]:
    """{"commit", "dirty"} of the checkout that the package is in; None for both outside of one.

    Dirty: a file of the package or of conf/ is changed, or not committed at all.
    """
    conf = _PACKAGE.parents[1] / "conf"
    try:
        _git("ls-files", "--error-unmatch", "__init__.py")  # a package installed in somebody's checkout is not of it
        commit = _git("rev-parse", "HEAD").strip()
        dirty = bool(_git("status", "--porcelain", "--", ".", *([str(conf)] if conf.is_dir() else [])))
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": dirty}


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=_PACKAGE, check=True, capture_output=True, text=True).stdout


def versions() -> dict[str, str | None]:
    """The versions of Python, mtlbench and the libraries that make numbers; cuda and cudnn where torch is in use."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("mtlbench", *_LIBRARIES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch"] = torch.__version__
        found["cuda"] = torch.version.cuda
        found["cudnn"] = str(torch.backends.cudnn.version()) if torch.backends.cudnn.is_available() else None
    return found


def load() -> float | None:
    """Processes that ran or wanted to, a core of this machine, in its last minute; None where that is not known.

    Well above 1 it says that seconds measured here were shared with something else.
    """
    if not hasattr(os, "getloadavg"):
        return None
    return round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)
