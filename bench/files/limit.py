"""What io_uring does with files, without Python: see the C programs.

    python -m bench.files.limit write --rounds 60  1 MiB by a worker of the kernel, and by pwrite
    python -m bench.files.limit chain --rounds 11  small files by linked chains, and by calls
    python -m bench.files.limit chain-cold --rounds 3  the same with empty caches, as root

The files lie where the file cells have theirs.
"""

import argparse
import subprocess

from bench import build
from bench.files import paired

CHAIN_FILES = 500


def run_write(rounds):
    for how, title in (("over", "over what is in memory"), ("anew", "into an emptied file")):
        print(title, flush=True)
        path = str(paired.FOLDER / "limit")
        subprocess.run([build.build("limit_write"), path, str(rounds), how], check=True)


def run_chain(rounds, *cold):
    folder = paired.FOLDER / "chain"
    folder.mkdir(exist_ok=True)
    command = [build.build("limit_chain"), str(folder), str(CHAIN_FILES), str(rounds), *cold]
    subprocess.run(command, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["write", "chain", "chain-cold"])
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    paired.FOLDER.mkdir(parents=True, exist_ok=True)
    if args.what == "write":
        run_write(args.rounds)
    else:
        run_chain(args.rounds, *(["cold"] if args.what == "chain-cold" else []))


if __name__ == "__main__":
    main()
