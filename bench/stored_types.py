#!/usr/bin/env python3
"""Measures every stored type beside llama.cpp: Qwen 2.5 1.5B, requantized to that type alone by llama.cpp's own
quantizer, prefill of 512 and decode on both, in alternation. Prints a Markdown table.

    python3 bench/stored_types.py [--types Q4_0,Q6_K] [-r 3] [--keep]

Files are made beside the peer, one at a time, and removed again unless --keep. MXFP4, which the quantizer gives to
experts only, has its row in snug_kernel_bench.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SNUG = ROOT / "build/release/snug"
MODELS = Path(os.environ.get("SNUG_MODELS") or Path.home() / ".cache/snug/models")
PEERS = Path(os.environ.get("SNUG_PEERS") or Path.home() / ".cache/snug/peers")
QWEN = MODELS / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
TYPES = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS",
         "TQ1_0", "TQ2_0"]
# The quantizer knows some types by the names of mixes; --pure makes them one type.
MIXES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}


def requantize(kind):
    """Row sizes that a type cannot take get the quantizer's own fallback, the same for both programs."""
    path = PEERS / "types" / f"qwen-{kind.lower()}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        subprocess.run([PEERS / "llama.cpp/bin/llama-quantize", "--allow-requantize", "--pure", QWEN, part,
                        MIXES.get(kind, kind)], check=True, capture_output=True)
        part.rename(path)
    return path


def snug_rates(path, threads):
    rates = []
    for test in (["-p", "512", "-n", "0"], ["-p", "0", "-n", "32"]):
        out = subprocess.run([SNUG, "bench", path, "-r", "1", "-t", str(threads), "--memory", "12GiB", "--json"] + test,
                             check=True, capture_output=True, text=True)
        rates.append(json.loads(out.stdout)["rows"][-1]["tps"])
    return rates


def peer_rates(path, threads):
    out = subprocess.run([PEERS / "llama.cpp/bin/llama-bench", "-m", path, "-t", str(threads), "-r", "1", "-fa", "1", "-o",
                          "json", "-p", "512", "-n", "32"], check=True, capture_output=True, text=True)
    return [row["avg_ts"] for row in json.loads(out.stdout)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-r", "--repeat", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="leave the requantized files")
    parser.add_argument("--only-make", action="store_true", help="make the files and measure nothing")
    args = parser.parse_args()
    if not QWEN.exists():
        sys.exit(f"{QWEN} is absent: run scripts/fetch_model.py qwen")
    print("| type | prefill 512 | llama.cpp | times | decode | llama.cpp | times |\n|---|---|---|---|---|---|---|", flush=True)
    for kind in args.types.split(","):
        path = requantize(kind)
        if args.only_make:
            continue
        ours, theirs = [], []
        for _ in range(args.repeat):
            ours.append(snug_rates(path, args.threads))
            theirs.append(peer_rates(path, args.threads))
        cells = []
        for i in range(2):
            mine, peer = (statistics.median(r[i] for r in rates) for rates in (ours, theirs))
            cells.append(f"{mine:.1f} | {peer:.1f} | {mine / peer:.2f}")
        print(f"| {kind} | " + " | ".join(cells) + " |", flush=True)
        if not args.keep:
            path.unlink()


main()
