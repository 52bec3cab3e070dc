# SPDX-License-Identifier: Apache-2.0
"""The folder of downloaded models: fetched from where `weights_table` says, checked by SHA-256, never half there.

Each model has a folder of its own under `$FLOWACT_CACHE/weights` (by default `~/.cache/flowact/weights`). Its file
`SHA256SUMS`, in the format of the program sha256sum, is written last: a model without it is not there. Files whose
format is a pickle are opened once, in a child process with `weights_only`, and kept as safetensors.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from flowact_ros.vocabulary import WHISPER
from flowact_ros.weights_table import ENTRIES, HUB, Entry, RemoteFile

SUMS = "SHA256SUMS"
MODEL = "model.safetensors"  # what a pickle becomes
ENCODER = "encoder.safetensors"  # the part of it that the avatar's audio backend `whisper` loads
AVATARS = "whisper-tiny.en"  # the model that it is a part of
TIMEOUT_S = 30.0  # without a byte
_BLOCK = 1 << 20

# The dimensions go into the safetensors' own header, as JSON.
_CHILD = """
import json, sys, torch
from safetensors.torch import save_file
state = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
tensors = {name: tensor.contiguous() for name, tensor in state["model_state_dict"].items()}
save_file(tensors, sys.argv[2], metadata={"dims": json.dumps(state["dims"])})
"""

Progress = Callable[[str, int, int], None]  # (file, bytes there, bytes of it all or 0 if unknown)


class WeightsError(RuntimeError):
    """A model cannot be fetched, or what is there is not the model: one line with what to do."""


def cache_dir() -> Path:
    """`$FLOWACT_CACHE`, or `flowact` in the user's folder of caches."""
    if given := os.environ.get("FLOWACT_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowact"


def folder_of(name: str) -> Path:
    """Where a model of the table is, or would be."""
    return cache_dir() / "weights" / name


def stored(name: str) -> Path | None:
    """The folder of a model that is there as a whole."""
    folder = folder_of(name)
    return folder if name in ENTRIES and (folder / SUMS).is_file() else None


def find_audio_weights(backend: str, path: Path | str | None = None) -> Path | None:
    """Weights of an audio backend: `path` where one is given, of `whisper` those that `flowact weights get` brought.

    None: those that were installed with the package. Raises WeightsError with how to get those that lack.
    """
    if path:
        return Path(path).expanduser()
    if backend != WHISPER:
        return None
    folder = stored(AVATARS)
    if folder is None or not (folder / ENCODER).is_file():
        raise WeightsError(f"whisper's encoder is not on this machine: flowact weights get {AVATARS}")
    return folder / ENCODER


def advice(kind: str, model: str) -> str:
    """How a person gets a model that a program of the kind `faster-whisper`, say, lacks: the end of an error line."""
    if f"{kind}-{model}" in ENTRIES:
        return f"flowact weights get {kind}-{model}"
    known = [
        entry.name.removeprefix(f"{kind}-") for entry in ENTRIES.values() if entry.name.startswith(f"{kind}-")
    ]
    return f"give the path of one, or one of {', '.join(known)} (`flowact weights list`)"


def find_entry(name: str) -> Entry:
    """Raises WeightsError for a name that the table does not have."""
    if name not in ENTRIES:
        raise WeightsError(f"there is no model {name!r}; `flowact weights list` shows those that there are")
    return ENTRIES[name]


def get(entry: Entry, source: Path | None = None, progress: Progress = lambda *_: None) -> dict[str, str]:
    """Fetches a model, or takes it over from a local file or folder; what is there already is not fetched again.

    Returns the SHA-256 of every file that had no known one. Raises WeightsError.
    """
    if source is None and stored(entry.name):
        return {}
    folder = folder_of(entry.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SUMS).unlink(missing_ok=True)
        unknown = {}
        for file in entry.files:
            found = _fetch(file, folder, _local(file, entry, source) if source else None, progress)
            if not file.sha256:
                unknown[file.name] = found
        if entry.unpickles:
            _keep_tensors(folder, entry.files[0])
        names = sorted(path.name for path in folder.iterdir() if path.suffix != ".part")
        part = folder / f"{SUMS}.part"
        part.write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names))
        part.replace(folder / SUMS)
    except OSError as error:
        raise WeightsError(f"{entry.name} cannot be kept in {folder}: {error.strerror or error}") from error
    return unknown


def verify(entry: Entry) -> list[str]:
    """What is wrong with a stored model, one line each: files that are missing or changed."""
    folder, problems, sums = folder_of(entry.name), [], {}
    for line in (folder / SUMS).read_text().splitlines():
        digest, _, name = line.partition("  ")
        sums[name] = digest
    wanted = {MODEL} if entry.unpickles else {file.name for file in entry.files}
    official = {} if entry.unpickles else {file.name: file.sha256 for file in entry.files if file.sha256}
    for name in sorted(wanted | set(sums)):
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
            continue
        found, expected = sha256(path), official.get(name) or sums.get(name, "")
        if found != expected:
            problems.append(f"{name} has SHA-256 {found[:16]}…, expected {expected[:16]}…")
    return problems


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def unpickle(source: Path, target: Path, timeout: float = 300.0) -> Path:
    """The tensors of OpenAI's checkpoint `source` as safetensors: opened in a child process, with `weights_only`.

    Raises WeightsError for a file that is no such checkpoint.
    """
    command = [sys.executable, "-I", "-c", _CHILD, str(source), str(target)]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise WeightsError(f"{source.name} could not be read within {timeout:.0f} s") from None
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise WeightsError(f"{source.name} is no Whisper checkpoint: {reason}")
    return target


def _keep_tensors(folder: Path, pickle: RemoteFile) -> None:
    """Replaces the pickle by its tensors; of tiny.en the avatar's own encoder is made as well."""
    path = folder / pickle.name
    part = unpickle(path, folder / f"{MODEL}.part")
    if pickle.name == "tiny.en.pt":
        from flowact_ros.models.checkpoint import CheckpointError
        from flowact_ros.models.convert_whisper import convert

        try:
            convert(path, folder / ENCODER, expected=pickle.sha256)
        except CheckpointError as error:
            raise WeightsError(str(error)) from error
    part.replace(folder / MODEL)
    path.unlink()


def _local(file: RemoteFile, entry: Entry, source: Path) -> Path:
    """The file in the folder `source`, or `source` itself where the model is one file. Raises WeightsError."""
    if source.is_dir():
        found = source / file.name
        if not found.is_file():
            wanted = ", ".join(file.name for file in entry.files)
            raise WeightsError(f"{source} holds no {file.name}; {entry.name} needs {wanted}")
        return found
    if not source.is_file():
        raise WeightsError(f"--from: there is no file or folder {source}")
    if len(entry.files) > 1:
        wanted = ", ".join(file.name for file in entry.files)
        raise WeightsError(f"--from: {entry.name} is several files: give the folder that holds {wanted}")
    return source


def _fetch(file: RemoteFile, folder: Path, local: Path | None, progress: Progress) -> str:
    """Brings one file into the folder under its name, and returns its SHA-256. Raises WeightsError, OSError."""
    target, part = folder / file.name, folder / f"{file.name}.part"
    if local is None and target.is_file() and file.sha256 and sha256(target) == file.sha256:
        return file.sha256
    if local is not None:
        shutil.copyfile(local, part)
    else:
        if not file.sha256:
            part.unlink(missing_ok=True)  # nothing could tell whether the two halves are of one file
        _download(file, part, progress)
    found = sha256(part)
    if file.sha256 and found != file.sha256:
        part.unlink()
        origin = local or urlsplit(_address(file)).hostname
        raise WeightsError(
            f"{file.name} from {origin} has SHA-256 {found[:16]}…, the official one is {file.sha256[:16]}…: "
            "it is damaged or another file, and was not kept"
        )
    part.replace(target)
    return found


def _address(file: RemoteFile) -> str:
    """Where the file is fetched: HF_ENDPOINT names a mirror of the hub, as for the hub's own programs."""
    mirror = os.environ.get("HF_ENDPOINT")
    return file.url.replace(HUB, mirror.rstrip("/")) if mirror else file.url


def _download(file: RemoteFile, part: Path, progress: Progress) -> None:
    """Into `part`, on from what is there of it. Raises WeightsError."""
    url = _address(file)
    host = urlsplit(url).hostname
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "flowact", **({"Range": f"bytes={have}-"} if have else {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            if response.status != 206:
                have = 0  # the server sends it from the beginning
            length = int(response.headers.get("Content-Length") or 0)
            total = have + length if length else 0
            with part.open("ab" if have else "wb") as out:
                while block := response.read(_BLOCK):
                    out.write(block)
                    have += len(block)
                    progress(file.name, have, total)
        if total and have < total:
            raise http.client.IncompleteRead(b"", total - have)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            return  # there is nothing after what is there: its SHA-256 says whether it is all
        raise WeightsError(f"{host} answers {error.code} {error.reason} for {url}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        kept = f"; {have / 1e6:.0f} MB are kept and it goes on from there" if have and file.sha256 else ""
        raise WeightsError(
            f"{file.name} cannot be had from {host} ({reason}){kept}: try again with a network, or bring the file "
            "by other means and give it with --from"
        ) from error
