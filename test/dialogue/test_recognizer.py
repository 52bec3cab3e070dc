# SPDX-License-Identifier: Apache-2.0
"""The backends, run for real on tiny random models; a missing package or model is one line with the remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_whisper import TOKENS, WORDS, make_ctranslate2, make_openai, make_transformers

from flowact_ros.dialogue import recognizer_faster_whisper
from flowact_ros.dialogue.recognizer import (
    BACKENDS,
    RATE,
    RecognizerConfig,
    RecognizerError,
    hypothesis,
    load_recognizer,
    repeats,
    token_limit,
)

SOUND = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    english = make_transformers(folder / "english")
    return {
        "transformers": english,
        "multilingual": make_transformers(folder / "multilingual", multilingual=True),
        "faster-whisper": make_ctranslate2(folder / "ctranslate2", english),
    }


@pytest.fixture(autouse=True)
def nothing_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWACT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("backend", ["transformers", "faster-whisper"])
def test_a_real_network_says_something(backend: str, models: dict[str, Path]) -> None:
    recognizer = load_recognizer(RecognizerConfig(backend, str(models[backend]), beam_size=2))
    found = recognizer.recognize(SOUND)
    words = found.text.split()
    assert 0 < len(words) <= TOKENS and set(words) <= set(WORDS)
    assert 0.0 < found.confidence <= 1.0 and found.final
    assert (found.start_s, found.end_s, found.locale) == (0.0, 1.0, "en")
    assert recognizer.recognize(SOUND) == found
    guess = recognizer.recognize(SOUND, final=False)
    assert not guess.final and guess.text
    nothing = recognizer.recognize(np.zeros(0, np.float32))
    assert (nothing.text, nothing.confidence, nothing.end_s) == ("", 0.0, 0.0)


@pytest.mark.parametrize(("seconds", "window"), [(1, 10.0), (7, 12.0), (26, 30.0)])
def test_the_window_is_no_wider_than_the_sound_needs(
    seconds: int, window: float, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = load_recognizer(RecognizerConfig("faster-whisper", str(models["faster-whisper"])))
    hear, windows = recognizer._hear, []

    def heard(pcm: np.ndarray, width: float, beams: int) -> tuple[str, float, float, str]:
        windows.append(width)
        return hear(pcm, width, beams)

    monkeypatch.setattr(recognizer, "_hear", heard)
    monkeypatch.setattr(recognizer_faster_whisper, "repeats", lambda text: False)
    recognizer.recognize(np.tile(SOUND, seconds))
    monkeypatch.setattr(recognizer_faster_whisper, "repeats", lambda text: True)
    recognizer.recognize(np.tile(SOUND, seconds))
    assert windows == ([window, window, 30.0] if window < 30 else [window] * 2)


@pytest.mark.parametrize("backend", ["transformers", "faster-whisper"])
@pytest.mark.parametrize(
    ("sound", "says"),
    [
        (np.zeros((2, 100), np.float32), "mono"),
        (np.zeros(100, np.int16), "int16"),
        (np.full(100, np.nan, np.float32), "NaN"),
        (np.zeros(31 * RATE, np.float32), "31.0 s"),
    ],
)
def test_sound_that_cannot_be(backend: str, sound: np.ndarray, says: str, models: dict[str, Path]) -> None:
    recognizer = load_recognizer(RecognizerConfig(backend, str(models[backend])))
    with pytest.raises(RecognizerError, match=says):
        recognizer.recognize(sound)


@pytest.mark.parametrize(("backend", "model"), [("transformers", "transformers"), ("faster-whisper",) * 2])
def test_a_model_for_english_refuses_other_languages(
    backend: str, model: str, models: dict[str, Path]
) -> None:
    with pytest.raises(RecognizerError, match="English only"):
        load_recognizer(RecognizerConfig(backend, str(models[model]), language="de"))


def test_a_multilingual_model_is_told_the_language(models: dict[str, Path]) -> None:
    model = str(models["multilingual"])
    german = load_recognizer(RecognizerConfig("transformers", model, language="de-AT"))
    assert german.recognize(SOUND).locale == "de-AT"
    any_language = load_recognizer(RecognizerConfig("transformers", model))
    assert any_language.recognize(SOUND).locale == "" and any_language.recognize(SOUND).text
    with pytest.raises(RecognizerError, match="does not know the language 'fr'"):
        load_recognizer(RecognizerConfig("transformers", model, language="fr"))


@pytest.mark.parametrize(
    ("backend", "package"),
    [("faster-whisper", "faster_whisper"), ("whisper", "whisper"), ("transformers", "transformers")],
)
def test_a_missing_package_is_one_line_with_the_remedy(
    backend: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == package else object())
    with pytest.raises(RecognizerError, match="pip install") as caught:
        load_recognizer(RecognizerConfig(backend))
    assert "\n" not in str(caught.value)


MISSING = {
    "name of the table": ("faster-whisper", "tiny.en", "flowact weights get faster-whisper-tiny.en"),
    "unknown name": ("faster-whisper", "huge", "tiny.en, tiny, base.en"),
    "folder without a model": ("faster-whisper", "FOLDER", "model.bin"),
    "broken model": ("faster-whisper", "BROKEN", "cannot be loaded"),
    "transformers, unknown name": ("transformers", "nobody/nothing", "hf download nobody/nothing"),
    "transformers, no folder": ("transformers", "/nowhere/model", "no folder /nowhere/model"),
    "transformers, empty folder": ("transformers", "FOLDER", "no speech model"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_model_is_one_line_with_the_remedy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, model, says = MISSING[name]
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "broken").mkdir()
    for file in ("model.bin", "tokenizer.json", "config.json"):
        (tmp_path / "broken" / file).write_bytes(b"{}")
    model = {"FOLDER": str(tmp_path), "BROKEN": str(tmp_path / "broken")}.get(model, model)
    with pytest.raises(RecognizerError, match=says) as caught:
        load_recognizer(RecognizerConfig(backend, model))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backend": "ears"}, "faster-whisper, whisper, transformers"),
        ({"model": " "}, "model is empty"),
        ({"language": "English please"}, "BCP 47"),
        ({"device": "gpu"}, "cpu, cuda"),
        ({"threads": 0}, "threads"),
        ({"beam_size": 11}, "beam_size"),
    ],
)
def test_bad_settings_are_named(settings: dict, says: str) -> None:
    with pytest.raises(RecognizerError, match=says):
        RecognizerConfig(**settings)


def test_what_networks_make_up_is_no_text() -> None:
    kept = hypothesis(" Good\n morning. ", -0.1, 0.9, "en", RATE, final=True)
    assert kept.text == "Good morning." and kept.confidence == pytest.approx(0.905, abs=1e-3)
    assert hypothesis("Thanks for watching!", -1.4, 0.8, "en", RATE, final=True).text == ""
    assert hypothesis("you you " * 20, -0.1, 0.0, "en", RATE, final=True).text == ""
    assert hypothesis("Hello", float("nan"), 0.0, "en", RATE, final=True).text == ""
    assert hypothesis("ha ha ha ha ha", 0.0, 0.0, "en", RATE, final=True).confidence == 1.0
    assert token_limit(0) > 0 and token_limit(30 * RATE) < 448


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("Please stop. Please stop.", True),
        ("Where is it? Tell me, tell me!", True),
        ("1,5,5", True),
        ("Please stop.", False),
        ("That that is, is.", True),
        ("Stop, please. Please go on.", False),
        ("", False),
    ],
)
def test_loops_are_noticed(text: str, again: bool) -> None:
    assert repeats(text) is again


def test_the_registry_imports_no_backend() -> None:
    code = (
        "import sys; import flowact_ros.dialogue.recognizer, flowact_ros.dialogue.recognition\n"
        "found = {'torch', 'transformers', 'faster_whisper', 'ctranslate2', 'whisper'} & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(BACKENDS) == {"faster-whisper", "whisper", "transformers"}


class Marker:
    """A pickle that leaves a file behind when it is opened carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_with_code_in_it_is_refused(tmp_path: Path) -> None:
    import torch

    from flowact_ros.dialogue.recognizer_whisper import read_checkpoint

    torch.save({"model_state_dict": {}, "dims": Marker(tmp_path / "opened")}, tmp_path / "evil.pt")
    (tmp_path / "text.pt").write_text("this is no checkpoint")
    (tmp_path / "text.safetensors").write_text("this is no checkpoint")
    for name in ("evil.pt", "text.pt", "text.safetensors"):
        with pytest.raises(RecognizerError, match="no Whisper checkpoint") as caught:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "opened").exists()


def test_openai_checkpoints_are_read_without_the_package(tmp_path: Path) -> None:
    import torch

    from flowact_ros.dialogue.recognizer_whisper import read_checkpoint

    tensors = {"encoder.conv1.weight": torch.arange(6.0).reshape(2, 3).T}
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": tensors}, tmp_path / "model.pt")
    dimensions, found = read_checkpoint(tmp_path / "model.pt")
    assert dimensions == {"n_mels": 80} and list(found) == list(tensors)
    assert torch.equal(found["encoder.conv1.weight"], tensors["encoder.conv1.weight"])


def test_whisper_speaks_where_its_package_is(tmp_path: Path) -> None:
    """It is in the extra `whisper`, which the test environment does not have: then only what needs no package runs."""
    try:
        import whisper  # noqa: F401 - is it there?
    except ImportError:
        with pytest.raises(RecognizerError, match="pip install openai-whisper"):
            load_recognizer(RecognizerConfig("whisper", str(tmp_path / "model.pt")))
        return
    recognizer = load_recognizer(
        RecognizerConfig("whisper", str(make_openai(tmp_path / "tiny.pt")), beam_size=2)
    )
    found = recognizer.recognize(SOUND)
    assert recognizer.recognize(SOUND) == found
    assert found.locale == "en" and 0.0 <= found.confidence <= 1.0 and found.end_s == 1.0
    with pytest.raises(RecognizerError, match="English only"):
        load_recognizer(RecognizerConfig("whisper", str(tmp_path / "tiny.pt"), language="de"))
    with pytest.raises(RecognizerError, match="flowact weights get whisper-base"):
        load_recognizer(RecognizerConfig("whisper", "base"))
