#!/usr/bin/env python3
"""Measures Snug beside llama.cpp on the same files and threads, in alternation, and prints a Markdown table.

The peer is built from the source archive of PyPI's llama-cpp-python, outside the tree. --peer adds another
llama-bench (ik_llama.cpp's, which knows -gp where the other has -d).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field, replace
from pathlib import Path

VERSION = "0.3.36"
ROOT = Path(__file__).resolve().parent.parent
SNUG = ROOT / "build/release/snug"
MODELS = Path(os.environ.get("SNUG_MODELS") or Path.home() / ".cache/snug/models")
PEERS = Path(os.environ.get("SNUG_PEERS") or Path.home() / ".cache/snug/peers")
# What the head in bit planes reads depends on the text: greedy rows are the mean of these prompts.
PROMPTS = ["The history of the lighthouse begins in", "def read_config(path):", "To bake bread at home you need"]
GEMMA, QWEN = "gemma-3-270m-q4_k_m.gguf", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"


def own_text():
    """The project's documentation and sources, which deep rows hold."""
    path = PEERS / "own_text.txt"
    files = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "src").rglob("*.cc"))
    path.write_text("\n".join(f.read_text() for f in files if "tables" not in f.name)[:400_000])
    return path


def say(text):
    print(text, file=sys.stderr, flush=True)


def build_peer():
    program = PEERS / "llama.cpp/bin/llama-bench"
    if program.exists() and program.with_name("llama-batched-bench").exists():
        return program
    say(f"building llama.cpp of llama-cpp-python {VERSION}")
    PEERS.mkdir(parents=True, exist_ok=True)
    if not list(PEERS.glob("llama_cpp_python-*.tar.gz")):
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--dest", PEERS,
                        f"llama-cpp-python=={VERSION}"], check=True, stdout=sys.stderr)
    archive = next(PEERS.glob("llama_cpp_python-*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(PEERS)
    source = next(PEERS.glob("llama_cpp_python-*/vendor/llama.cpp"))
    build = PEERS / "llama.cpp"
    subprocess.run(["cmake", "-S", source, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON",
                    "-DLLAMA_CURL=OFF", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF",
                    "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF"], check=True, stdout=sys.stderr)
    subprocess.run(["cmake", "--build", build, "--target", "llama-bench", "llama-batched-bench"], check=True,
                   stdout=sys.stderr)
    return program


@dataclass
class Row:
    """One line of the table: what runs, and on which model."""
    label: str
    model: str
    # prefill, decode (of made-up tokens), greedy (answers to PROMPTS), parallel, lookup, or deep: prefill of `depth`
    # tokens and decode of n after it
    kind: str
    n: int
    depth: int = 0
    kv: str = "f16"
    flags: list = field(default_factory=list)  # Snug's alone
    long: bool = False

    def peer_command(self, program, threads, fa):
        model = str(MODELS / self.model)
        if self.kind in ("parallel", "deep"):
            batched = Path(program).with_name("llama-batched-bench")
            prompt, sequences = (1, self.depth) if self.kind == "parallel" else (self.depth, 1)
            context = sequences * (prompt + self.n) + 64
            return [str(batched), "-m", model, "-t", str(threads), "-c", str(context), "-b", "512", "-npp", str(prompt), "-ntg",
                    str(self.n), "-npl", str(sequences), "-fa", "on" if fa == "1" else "off", "-ctk", self.kv, "-ctv",
                    self.kv, "--output-format", "jsonl"]
        command = [str(program), "-m", model, "-t", str(threads), "-fa", fa, "-r", "1", "-o", "json", "-ctk", self.kv, "-ctv",
                   self.kv]
        if self.kind == "prefill":
            return command + ["-p", str(self.n), "-n", "0"]
        if self.kind == "lookup":
            return command + ["-p", "0", "-n", "64"]
        return command + ["-p", "0", "-n", str(self.n)]

    def snug_commands(self, threads):
        """One, or those whose rates the row is the mean of."""
        model = str(MODELS / self.model)
        common = ["-t", str(threads), "--kv", self.kv, "--json", "--memory", "8GiB"] + self.flags
        if self.kind == "lookup":
            return [[str(SNUG), "run", model, "-f", str(ROOT / "bench/data/rename.txt"), "-c", "4096", "-n", str(self.n),
                     "--temp", "0"] + common]
        if self.kind == "greedy":
            return [[str(SNUG), "run", model, "-p", prompt, "-n", str(self.n), "--temp", "0", "--ignore-eos"] + common
                    for prompt in PROMPTS]
        test = {"prefill": ["-p", str(self.n), "-n", "0"],
                "decode": ["-p", "0", "-n", str(self.n)],
                "deep": ["-p", "0", "-n", str(self.n), "-d", str(self.depth), "-f", str(own_text())],
                "parallel": ["-p", "0", "-n", str(self.n), "--parallel", str(self.depth)]}[self.kind]
        return [[str(SNUG), "bench", model, "-r", "1"] + test + common]


def peer_rates(row, program, threads, fa):
    """Tokens per second, for deep rows of prefill and of decode; zeros where the peer cannot run the row."""
    none = [0.0, 0.0] if row.kind == "deep" else [0.0]
    try:
        result = subprocess.run(row.peer_command(program, threads, fa), capture_output=True, text=True)
    except FileNotFoundError:
        return none
    if result.returncode != 0:
        return none
    if row.kind in ("parallel", "deep"):
        lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
        if not lines:
            return none
        return [lines[-1]["speed_pp"], lines[-1]["speed_tg"]] if row.kind == "deep" else [lines[-1]["speed_tg"]]
    return [json.loads(result.stdout)[-1]["avg_ts"]]


def snug_rates(row, threads):
    """The same of Snug, with the share of the bandwidth measured beside it, and the tokens of a lookup row."""
    outs = []
    for command in row.snug_commands(threads):
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed: {result.stdout}{result.stderr}")
        outs.append(json.loads(result.stdout))
    out = outs[0]
    if row.kind == "greedy":
        return {"tps": [statistics.mean(o["timings"]["decode_tps"] for o in outs)], "share": 0}
    if row.kind == "lookup":
        return {"tps": [out["timings"]["decode_tps"]], "share": 0, "tokens": out["tokens"]}
    rows = out["rows"][-2:] if row.kind == "deep" else out["rows"][-1:]
    return {"tps": [r["tps"] for r in rows], "share": rows[-1]["share_of_limit"]}


LOOKUP = ["--speculate", "lookup"]
ROWS = [
    Row("Qwen prefill 512", QWEN, "prefill", 512),
    Row("Qwen decode", QWEN, "decode", 64),
    Row("Gemma prefill 512", GEMMA, "prefill", 512),
    Row("Gemma decode, full head", GEMMA, "greedy", 64, flags=["--no-plane-head"]),
    Row("Gemma decode, plane-split head", GEMMA, "greedy", 64),
    Row("Qwen re-writing a file, lookup", QWEN, "lookup", 1400, flags=LOOKUP, long=True),
    Row("Qwen, 8 sequences", QWEN, "parallel", 32, 8, long=True),
    Row("Gemma at 8192", GEMMA, "deep", 64, 8192, long=True),
    Row("Qwen prefill 2048", QWEN, "prefill", 2048, long=True),
    Row("Qwen prefill 2048, q8_0 cache", QWEN, "prefill", 2048, kv="q8_0", long=True),
    Row("Qwen prefill 2048, q4_0 cache", QWEN, "prefill", 2048, kv="q4_0", long=True),
    Row("Qwen at 8192", QWEN, "deep", 32, 8192, long=True),
    Row("Gemma at 32000", GEMMA, "deep", 64, 32000, long=True),
    Row("Qwen at 8192, q8_0 cache", QWEN, "deep", 32, 8192, kv="q8_0", long=True),
]


def measure(row, peers, args):
    """All runs of a row, in alternation."""
    ours, theirs, fa = [], {p: [] for p in peers}, {}
    for _ in range(args.repeat or (args.long_repeat if row.long else 5)):
        ours.append(snug_rates(row, args.threads))
        for name, program in peers.items():
            if name in fa:
                theirs[name].append(peer_rates(row, program, args.threads, fa[name]))
                continue
            # Flash attention on or off, whichever is faster on a short row; long rows have it on.
            rates = {"1": peer_rates(row, program, args.threads, "1")}
            if not row.long:
                rates["0"] = peer_rates(row, program, args.threads, "0")
            fa[name] = max(rates, key=rates.get)
            theirs[name].append(rates[fa[name]])
    return ours, theirs


def print_row(label, ours, theirs, share):
    mine = statistics.median(ours)
    cells = []
    for rates in theirs.values():
        rate = statistics.median(rates)
        cells += [f"{rate:.1f}" if rate else "-", f"{mine / rate:.2f}" if rate else "-"]
    print(f"| {label} | {mine:.1f} | {100 * (max(ours) - min(ours)) / mine:.0f} % | {f'{100 * share:.0f} %' if share else '-'} | "
          + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="short rows only")
    parser.add_argument("--peer", action="append", default=[], help="another llama-bench")
    parser.add_argument("--rows", default="", help="only rows whose label contains this")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-r", "--repeat", type=int, default=0, help="0: 5 for short rows, --long-repeat for long ones")
    parser.add_argument("--long-repeat", type=int, default=3)
    args = parser.parse_args()
    peers = {"llama.cpp": build_peer()}
    for p in args.peer:
        peers[Path(p).resolve().parent.parent.parent.name] = Path(p)
    print("| tokens/s | Snug | spread | of limit | " + " | ".join(f"{p} | times" for p in peers) + " |")
    print("|---" * (4 + 2 * len(peers)) + "|", flush=True)
    results = []
    for row in [r for r in ROWS if args.rows in r.label and not (args.quick and r.long)]:
        if not (MODELS / row.model).exists():
            say(f"{row.model} is absent: {row.label} skipped")
            continue
        ours, theirs = measure(row, peers, args)
        share = statistics.median(o["share"] for o in ours)
        labels = [row.label]
        if row.kind == "deep":
            name, rest = row.label.split(" at ")
            labels = [f"{name} prefill {rest}", f"{name} decode at {rest}"]
        for i, label in enumerate(labels):
            last = i + 1 == len(labels)
            print_row(label, [o["tps"][i] for o in ours], {p: [r[i] for r in t] for p, t in theirs.items()}, share if last else 0)
        if row.kind == "lookup":
            plain = snug_rates(replace(row, flags=[]), args.threads)
            same = all(o["tokens"] == plain["tokens"] for o in ours)
            say(f"{row.label}: {plain['tps'][0]:.1f} tokens/s without; the same tokens: {'yes' if same else 'NO'}")
        results.append({"work": row.label, "snug": [o["tps"] for o in ours], "peers": theirs})
        (ROOT / "build/bench.json").write_text(json.dumps(results, indent=1) + "\n")
    say(f"every measurement: {ROOT / 'build/bench.json'}")


main()
