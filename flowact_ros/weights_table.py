# SPDX-License-Identifier: Apache-2.0
"""Where models that people use with the avatar come from: official addresses, and the SHA-256 of what is there.

A file without a known SHA-256 says so when it is fetched, and the one it got is kept for `flowact weights check`.
"""

from __future__ import annotations

from dataclasses import dataclass

HUB = "https://huggingface.co"
_OPENAI = "https://openaipublic.azureedge.net/main/whisper/models"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a model."""

    name: str
    url: str
    sha256: str = ""  # empty: not known


@dataclass(frozen=True)
class Entry:
    """One model. unpickles: its one file is a pickle of tensors, which is kept as safetensors."""

    name: str
    purpose: str
    licence: str
    megabytes: int
    files: tuple[RemoteFile, ...]
    unpickles: bool = False


def _hub(repository: str, revision: str, files: dict[str, str]) -> tuple[RemoteFile, ...]:
    base = f"{HUB}/{repository}/resolve/{revision}"
    return tuple(RemoteFile(name, f"{base}/{name}", sha256) for name, sha256 in files.items())


_MULTILINGUAL = {
    "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
    "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
}
_ENGLISH = {
    "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
}
# Model: megabytes, revision, SHA-256 of config.json and of model.bin.
_FASTER_WHISPER = {
    "tiny.en": (
        78,
        "0d3d19a32d3338f10357c0889762bd8d64bbdeba",
        "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "tiny": (
        78,
        "d90ca5fe260221311c53c58e660288d3deb8d356",
        "a73a28cdfe1c43ccc7202fa333d1f89c202477271407ae9a7f19afa52039cac8",
        "dcb76c6586fc06cbdac6dd21f14cfd129cc4cdd9dce19bf4ffa62e59cbe6e6d1",
    ),
    "base.en": (
        148,
        "3d3d5dee26484f91867d81cb899cfcf72b96be6c",
        "f3bc3821e9fc76a27bae538e11ae5b677dcdd352b4600429ce7951d398569aeb",
        "2a166925539a16005f14ff328359f9b9adb9dc4fb631bb3b227526862e93e2ef",
    ),
    "base": (
        148,
        "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
        "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
    "small.en": (
        486,
        "d1d751a5f8271d482d14ca55d9e2deeebbae577f",
        "666a9605530ac1f61fa8177f3702b4dacec9966749e42610839fcc32661d5fae",
        "62b2a45b05ee59acb4a5341b33ee35e041395d378d418a18acfe4c9e768ee37a",
    ),
    "small": (
        486,
        "536b0662742c02347bc0e980a01041f333bce120",
        "",
        "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671",
    ),
}
# OpenAI publishes each file under its own SHA-256.
_WHISPER = {
    "tiny.en": (76, "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03"),
    "tiny": (76, "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9"),
    "base.en": (145, "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead"),
    "base": (145, "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e"),
    "small.en": (484, "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872"),
    "small": (484, "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794"),
}


def _entries() -> list[Entry]:
    found = []
    for model, (size, revision, config, weights) in _FASTER_WHISPER.items():
        common = _ENGLISH if model.endswith(".en") else _MULTILINGUAL
        files = {"config.json": config, "model.bin": weights, **common}
        files = _hub(f"Systran/faster-whisper-{model}", revision, files)
        found.append(Entry(f"faster-whisper-{model}", "recogniser faster-whisper", "MIT", size, files))
    for model, (size, sha256) in _WHISPER.items():
        files = (RemoteFile(f"{model}.pt", f"{_OPENAI}/{sha256}/{model}.pt", sha256),)
        found.append(Entry(f"whisper-{model}", "recogniser whisper", "MIT", size, files, unpickles=True))
    minilm = {
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "",
        "special_tokens_map.json": "",
        "vocab.txt": "",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    }
    revision = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
    files = _hub("sentence-transformers/all-MiniLM-L6-v2", revision, minilm)
    found.append(Entry("minilm", "text encoder minilm", "Apache-2.0", 91, files))
    name, sha256 = (
        "qwen2.5-0.5b-instruct-q4_k_m.gguf",
        "74a4da8c9fdbcd15bd1f6d01d621410d31c6fc00986f5eb687824e7b93d7a9db",
    )
    files = _hub("Qwen/Qwen2.5-0.5B-Instruct-GGUF", "main", {name: sha256})
    found.append(Entry("qwen2.5-0.5b-instruct", "planner: language model", "Apache-2.0", 491, files))
    files = _hub("HuggingFaceTB/SmolLM2-135M-Instruct-GGUF", "main", {"smollm2-135m-instruct-q8_0.gguf": ""})
    found.append(Entry("smollm2-135m-instruct", "planner: language model", "Apache-2.0", 145, files))
    return found


ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _entries()}
