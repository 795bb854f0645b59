"""How long `import vesalius` and `vesalius --help` take, as whole processes.

python bench/startup.py [runs]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

VESALIUS = Path(sys.executable).parent / "vesalius"
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import vesalius'": [sys.executable, "-c", "import vesalius"],
    "vesalius --help": [str(VESALIUS), "--help"],
    "vesalius predict --help": [str(VESALIUS), "predict", "--help"],
}


def seconds(command: list[str], runs: int) -> list[float]:
    """Wall-clock seconds of each run, after one that fills the disk's cache."""
    taken = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    return taken[1:]


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(f"{'process':<30} {'median s':>9} {'best s':>7}   ({runs} runs)")
    for name, command in COMMANDS.items():
        taken = seconds(command, runs)
        print(f"{name:<30} {statistics.median(taken):>9.2f} {min(taken):>7.2f}")


if __name__ == "__main__":
    main()
