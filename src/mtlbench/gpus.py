"""Which GPUs this process may use, without importing torch."""

import os
import subprocess


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to for one GPU each; empty where there is none.

    A variable that is set already (by a queue, by the user) is obeyed; otherwise nvidia-smi is asked.
    """
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        words = [word.strip() for word in said.split(",")]
        return [word for word in words if word and word != "-1"]
    try:
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # no driver, or one without a GPU
        return []
    return [line.strip() for line in asked.stdout.splitlines() if line.strip()]
