"""What the benchmarks share: running commands in turn, and medians."""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
DEBNIX = REPOSITORY / "tests/debnix"


def arguments(description):
    """A parser with the options that each benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    stowage = os.environ.get("STOWAGE")
    parser.add_argument("--stowage", default=stowage, required=not stowage, help="the binary; default: $STOWAGE")
    parser.add_argument("--set", default="large", help="debnix's set; default: large")
    parser.add_argument("--index", default="/var/cache/debnix/packages.json", help="debnix's index")
    parser.add_argument("--runs", type=int, default=15, help="how often; default: 15")
    return parser


def build_set(name, index):
    """The store path of debnix's set NAME, and all that it needs."""
    command = ["nix-build", DEBNIX, "--arg", "index", index, "-A", f"sets.{name}", "--no-out-link"]
    profile = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    command = ["nix-store", "--query", "--requisites", profile]
    return profile, subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def run(command, environment=None, pipe=False):
    """Runs a command, and tells its seconds, its peak memory in MB, and the seconds of
    all processors that it took.

    Its standard output goes to /dev/null, or through a pipe to one who reads it.
    """
    with open(os.devnull, "wb") as null, tempfile.TemporaryFile() as errors:
        reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=null) if pipe else None
        start = time.perf_counter()
        child = subprocess.Popen(
            command,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=reader.stdin if reader else null,
            stderr=errors,
        )
        if reader:
            reader.stdin.close()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if reader:
            reader.wait()
        seconds = time.perf_counter() - start
        if child.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"{command[0]} failed:\n{errors.read().decode()[-2000:]}")
    return seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def in_turn(runs, measures):
    """Runs each measure once for nothing, then all in turn; tells of each what
    `run` tells."""
    results = {name: [] for name in measures}
    for turn in range(runs + 1):
        for name, measure in measures.items():
            result = measure()
            if turn > 0:
                results[name].append(result)
    return results


def report(results, size=None):
    """Prints medians; returns those of the seconds."""
    medians = {}
    print(f"{'':24} {'median':>9} {'min':>9} {'max':>9} {'CPU':>9} {'MB/s':>7} {'peak MB':>8}")
    for name, samples in results.items():
        seconds = [sample[0] for sample in samples]
        medians[name] = statistics.median(seconds)
        rate = f"{size / 1e6 / medians[name]:.0f}" if size else ""
        processors = statistics.median(sample[2] for sample in samples)
        memory = max(sample[1] for sample in samples)
        print(
            f"{name:24} {medians[name]:7.3f} s {min(seconds):7.3f} s {max(seconds):7.3f} s {processors:7.3f} s {rate:>7} {memory:8.1f}"
        )
    return medians
