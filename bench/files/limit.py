"""What the way to a worker of the kernel's and back costs a write of 1 MiB, without Python.

    python -m bench.files.limit --rounds 60

The file lies where the file cells have theirs.
"""

import argparse
import subprocess

from bench import build
from bench.files import paired


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    program = build.build("limit_write")
    paired.FOLDER.mkdir(parents=True, exist_ok=True)
    for how, title in (("over", "over what is in memory"), ("anew", "into an emptied file")):
        print(title, flush=True)
        command = [program, str(paired.FOLDER / "limit"), str(args.rounds), how]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
