"""Builds the wheel, installs it without its dependencies beside this environment's, and trains from another folder.

Run by `make wheel-check`: a wheel without conf/, or a package that only works from its checkout, fails here.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*words: object, **keys: object) -> None:
    print("$", *words, flush=True)
    subprocess.run([str(word) for word in words], check=True, **keys)  # type: ignore[call-overload]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist", ROOT)
        (wheel,) = (folder / "dist").glob("*.whl")
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        (site,) = (folder / "venv").glob("lib/python*/site-packages")
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
        # the dependencies of this environment, after the wheel's own package; not its editable mtlbench
        (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        where = "import mtlbench.config as c; print(c.CONF)"
        conf = subprocess.run(
            [python, "-c", where], cwd=elsewhere, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()
        if not Path(conf).is_relative_to(site):
            sys.exit(f"conf/ was found at {conf}, outside the installed wheel")
        words = ["experiment=mgda_multidigits", "epochs=1", "machine.threads=1"]
        run(python, "-m", "mtlbench.train", *words, "method=imtl", cwd=elsewhere, env=environment)
        run(folder / "venv" / "bin" / "mtlbench-train", *words, "method=equal", cwd=elsewhere, env=environment)
        records = [json.loads(path.read_text()) for path in (elsewhere / "runs").glob("*/record.json")]
        methods = sorted(record["method"] for record in records)
        if methods != ["equal", "imtl"]:
            sys.exit(f"expected records of equal and imtl, found {methods}")
    print("the wheel trains from another folder")


if __name__ == "__main__":
    main()
