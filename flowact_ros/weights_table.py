# SPDX-License-Identifier: Apache-2.0
"""Where models that people use with the avatar come from: official addresses, and the SHA-256 of what is there.

A file without a known SHA-256 says so when it is fetched, and the one it got is kept for `flowact weights check`.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowact_ros.vocabulary import KOKORO

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
# In float16 one sentence in ten comes out as NaN on CPUs.
KOKORO_MODEL = "model.onnx"
_KOKORO = "8fbea51ea711f2af382e88c833d9e288c6dc82ce5e98421ea61c058ce21a34cb"
#: English voices: American and British (a, b), women and men (f, m).
KOKORO_VOICES = {
    "af_alloy": "c4a6b876047fd7fb472edf4ebd63cfac7c3b958a7cae7c106e8f038ca6308c45",
    "af_aoede": "4a004c33430762e2461eedb2013fad808ef4ab3121f5300f554476caf58d8361",
    "af_bella": "f69d836209b78eb8c66e75e3cda491e26ea838a3674257e9d4e5703cbaf55c8b",
    "af_heart": "d583ccff3cdca2f7fae535cb998ac07e9fcb90f09737b9a41fa2734ec44a8f0b",
    "af_jessica": "a240a5e3c15b43563d6e923bdca8ef5613a23471d9b77653694012435df23bd8",
    "af_kore": "9be5221b6a941c04b561959b8ff0b06e809444dcc4ab7e75a7b23606f691819e",
    "af_nicole": "cd2191ab31b914ed7b318416b0e4440fdf392ddad9106a060819aa600a64f59a",
    "af_nova": "18778272caa0d0eebaea251c35fd635f038434f9eee5e691d02a174bd328414f",
    "af_river": "00a2bcf82b1d86e8f19902ede58c65ccf6c0e43b44b7d74fad54e5d8933c9c30",
    "af_sarah": "4409fbc125afabacc615d94db5398d847006a737b0247d6892b7a9a0007a2f0a",
    "af_sky": "4435255c9744f3f31659e0d714ab7689bf65d9e77ec1cce060f083912614f0b9",
    "am_adam": "162b035ed91cfc48b6046982184c645f72edcdd1b82843347f605d7bf7b15716",
    "am_echo": "3968b92c3c4cd1c4416dbded36c13eaa388a90d5788d02a13e4d781f5f8cf3c3",
    "am_eric": "e8b5be17edd1e3636901ce7598baafe2dc8dd8ff707a0c23bf9e461add7e2832",
    "am_fenrir": "c27989f741f7ee34d273a39d8a595cc0837d35f5ced9a29b7cc162614616df43",
    "am_liam": "52403be32fd047c6a44517cb0bcd6b134f2a18baa73e70ef41651e0eab921ade",
    "am_michael": "1d1f21dd8da39c30705cd4c75d039d265e9bc4a2a93ed09bc9e1b1225eb95ba1",
    "am_onyx": "da5d135b424164916d75a68ffb4c2abce3d7d5ccc82dd1ee6cf447ce286145e6",
    "am_puck": "fcf73c989033e9233e0b98713eca600c8c74dcc1614b37009d5450ff4a2274a0",
    "am_santa": "61150cf726ab6c5ed7a99f90a304f91f5a72c00c592e89ec94e5df11c319227a",
    "bf_alice": "08afa6ba24da61ea5e8efa139e5aadc938d83f0a6da5a900adaf763ac1da5573",
    "bf_emma": "669fe0647f9dd04fcab92f1439a40eeb4c8b4ab1f82e4996fe3d918ce4a63b73",
    "bf_isabella": "3754352c4aaa46d17f27654ab7518d65b62ad6163a0f55a5f4330c2da2c4e94f",
    "bf_lily": "5e0ee32ebe64a467124976b14e69590746f1c4ce41a12b587a50c862edfea335",
    "bm_daniel": "6b3194bbceffb746733cbc22c8f593dd44e401a71d53895a2dca891bc595a1e8",
    "bm_fable": "f889083196807b4adb15e9204252165f503b8d33d3982e681c52443c49d798f1",
    "bm_george": "c4b235a4c1f2cd3b939fed08b899ce9385638b763f7b73a59616c4fc9bd6c9bc",
    "bm_lewis": "b8f671cef828c30e66fdf0b0756a76bba58f6bb3398cbbf27058642acbcedb97",
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
    base = f"{HUB}/onnx-community/Kokoro-82M-v1.0-ONNX/resolve/main"
    voices = [RemoteFile(f"{v}.bin", f"{base}/voices/{v}.bin", sha256) for v, sha256 in KOKORO_VOICES.items()]
    model = RemoteFile(KOKORO_MODEL, f"{base}/onnx/{KOKORO_MODEL}", _KOKORO)
    found.append(Entry(KOKORO, "speech synthesizer kokoro", "Apache-2.0", 340, (model, *voices)))
    return found


ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _entries()}
