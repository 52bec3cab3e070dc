# SPDX-License-Identifier: Apache-2.0
"""`flowact weights`, against a real server on the loopback: what is fetched is whole and official, or not there."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowact_ros import weights_store, weights_table
from flowact_ros.cli import main
from flowact_ros.weights_store import (
    WeightsError,
    advice,
    find_audio_weights,
    folder_of,
    get,
    stored,
    verify,
)
from flowact_ros.weights_table import ENTRIES, Entry, RemoteFile

BIG = bytes(range(256)) * 12_000  # 3 MB: several blocks
SMALL = b"{}\n"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves FILES; notes what was asked for, and can break a connection after so many bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/models/big.bin": BIG, "/models/config.json": SMALL}
        self.ranges: list[str | None] = []
        self.breaks_after: int | None = None
        self.knows_ranges = True
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        data = self.server.files.get(self.path)
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if data is None:
            return self.send_error(404)
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.knows_ranges else 0
        if first >= len(data):
            return self.send_error(416)
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        self.wfile.write(data[first : self.server.breaks_after])
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def entry(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """A model of the table whose official source is our server."""
    monkeypatch.setenv("FLOWACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    hub = f"{weights_table.HUB}/models"
    files = (
        RemoteFile("big.bin", f"{hub}/big.bin", digest(BIG)),
        RemoteFile("config.json", f"{hub}/config.json"),
    )
    entry = Entry("model", "tests", "MIT", 3, files)
    monkeypatch.setitem(ENTRIES, "model", entry)
    return entry


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        status = main(["weights", *map(str, arguments)])
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_a_model_is_fetched_once(entry: Entry, server: Server) -> None:
    steps: list[tuple[str, int, int]] = []
    assert stored("model") is None
    assert get(entry, progress=lambda *step: steps.append(step)) == {"config.json": digest(SMALL)}
    folder = stored("model")
    assert folder == folder_of("model") and (folder / "big.bin").read_bytes() == BIG
    assert {path.name for path in folder.iterdir()} == {"big.bin", "config.json", "SHA256SUMS"}
    assert steps[-2:] == [("big.bin", len(BIG), len(BIG)), ("config.json", len(SMALL), len(SMALL))]
    assert verify(entry) == []
    assert get(entry) == {} and len(server.ranges) == 2


def test_a_broken_download_goes_on_where_it_stopped(entry: Entry, server: Server) -> None:
    server.breaks_after = 2_000_000
    with pytest.raises(
        WeightsError, match=r"big.bin cannot be had from 127.0.0.1 .* 2 MB are kept"
    ) as caught:
        get(entry)
    assert "\n" not in str(caught.value) and stored("model") is None
    server.breaks_after = None
    get(entry)
    assert server.ranges == [None, "bytes=2000000-", None]
    assert verify(entry) == []


def test_a_server_without_ranges_starts_again(entry: Entry, server: Server) -> None:
    server.breaks_after = 2_000_000
    with pytest.raises(WeightsError):
        get(entry)
    server.breaks_after, server.knows_ranges = None, False
    get(entry)
    assert verify(entry) == []


def test_a_whole_part_needs_nothing_more(entry: Entry) -> None:
    folder = folder_of("model")
    folder.mkdir(parents=True)
    (folder / "big.bin.part").write_bytes(BIG)
    get(entry)
    assert verify(entry) == []


def test_another_file_is_not_kept(entry: Entry, server: Server) -> None:
    server.files["/models/big.bin"] = BIG[:-1] + b"x"
    with pytest.raises(WeightsError, match="big.bin from 127.0.0.1 has SHA-256 .* the official one is"):
        get(entry)
    assert stored("model") is None and list(folder_of("model").iterdir()) == []


def test_errors_of_the_network_are_one_line(
    entry: Entry, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    del server.files["/models/big.bin"]
    with pytest.raises(WeightsError, match="127.0.0.1 answers 404"):
        get(entry)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(WeightsError, match="refused.* --from") as caught:
        get(entry)
    assert "\n" not in str(caught.value)


def test_from_a_folder_or_a_file(entry: Entry, server: Server, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "big.bin").write_bytes(BIG)
    with pytest.raises(WeightsError, match="holds no config.json; model needs big.bin, config.json"):
        get(entry, source)
    (source / "config.json").write_bytes(SMALL)
    with pytest.raises(WeightsError, match="give the folder"):
        get(entry, source / "big.bin")
    with pytest.raises(WeightsError, match="no file or folder"):
        get(entry, tmp_path / "nowhere")
    get(entry, source)
    assert verify(entry) == [] and server.ranges == []
    (source / "big.bin").write_bytes(BIG[:100])
    with pytest.raises(WeightsError, match="official one"):
        get(entry, source)
    assert stored("model") is None  # what was given is not what the folder says it is


def test_verify_sees_damage(entry: Entry) -> None:
    get(entry)
    folder = folder_of("model")
    (folder / "config.json").write_text("{} ")
    (folder / "big.bin").unlink()
    problems = verify(entry)
    assert problems[0] == "big.bin is missing" and problems[1].startswith("config.json has SHA-256")
    # Sums that were changed as well do not help a file whose official sum is known.
    (folder / "big.bin").write_bytes(b"evil")
    (folder / "SHA256SUMS").write_text(f"{digest(b'evil')}  big.bin\n")
    assert any(problem.startswith("big.bin has SHA-256") for problem in verify(entry))


def test_a_pickle_becomes_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from safetensors import safe_open

    monkeypatch.setenv("FLOWACT_CACHE", str(tmp_path / "cache"))
    checkpoint = tmp_path / "some.pt"
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": {"a": torch.ones(2, 3)}}, checkpoint)
    known = digest(checkpoint.read_bytes())
    entry = Entry(
        "pickled", "tests", "MIT", 1, (RemoteFile("some.pt", "http://x/some.pt", known),), unpickles=True
    )
    monkeypatch.setitem(ENTRIES, "pickled", entry)
    get(entry, checkpoint)
    folder = stored("pickled")
    assert folder is not None and {p.name for p in folder.iterdir()} == {"model.safetensors", "SHA256SUMS"}
    with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
        assert file.get_tensor("a").shape == (2, 3) and "n_mels" in file.metadata()["dims"]
    assert verify(entry) == []
    (folder / "model.safetensors").unlink()
    assert verify(entry) == ["model.safetensors is missing"]


def test_the_command(entry: Entry, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "list")
    assert status == 0 and "faster-whisper-tiny.en" in out and "model" in out
    status, out, _ = run(capsys, "check")
    assert status == 0 and "no models" in out
    status, out, _ = run(capsys, "check", "model")
    assert status == 1 and "flowact weights get model" in out
    status, out, err = run(capsys, "get", "model")
    assert status == 0 and str(folder_of("model")) in out
    assert f"config.json has no official SHA-256 in our table; this one has {digest(SMALL)}" in out
    assert run(capsys, "check")[:2] == (0, "model: ok\n")
    (folder_of("model") / "config.json").write_text("x")
    status, out, _ = run(capsys, "check")
    assert status == 1 and out.startswith("model: config.json has SHA-256") and len(out.splitlines()) == 1


BAD = {
    "no verb": ([], "VERB"),
    "unknown model": (["get", "nothing"], "flowact weights list"),
    "check of an unknown model": (["check", "nothing"], "flowact weights list"),
    "two models from one path": (["get", "model", "minilm", "--from", "/tmp"], "one NAME"),
    "path": (["get", "model", "--from", "/nowhere"], "/nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_command_lines(name: str, entry: Entry, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, says = BAD[name]
    status, _, err = run(capsys, *arguments)
    assert status != 0 and says in err.splitlines()[-1] and "Traceback" not in err


def test_a_folder_that_cannot_be_written(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLOWACT_CACHE", str(tmp_path / "file"))
    status, _, err = run(capsys, "get", "model")
    assert status == 1 and "cannot be kept" in err and len(err.splitlines()) == 1


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWACT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights_store.cache_dir() == tmp_path / "flowact"
    monkeypatch.setenv("FLOWACT_CACHE", "~/models")
    assert weights_store.cache_dir() == Path.home() / "models"


def test_the_table() -> None:
    for name, entry in ENTRIES.items():
        assert name == entry.name and entry.licence and entry.megabytes > 0
        for file in entry.files:
            assert file.url.startswith((weights_table.HUB, weights_table._OPENAI)) and file.url.endswith(
                file.name
            )
            assert file.sha256 == "" or (
                len(file.sha256) == 64 and set(file.sha256) <= set("0123456789abcdef")
            )
        assert not entry.unpickles or (len(entry.files) == 1 and entry.files[0].sha256)
    assert advice("faster-whisper", "base") == "flowact weights get faster-whisper-base"
    assert "tiny.en, tiny" in advice("whisper", "huge")


def test_where_an_audio_encoder_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWACT_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_audio_weights("embedded") is None
    assert find_audio_weights("whisper", "~/mine.safetensors") == tmp_path / "mine.safetensors"
    with pytest.raises(WeightsError, match="is not on this machine: flowact weights get whisper-tiny.en$"):
        find_audio_weights("whisper")
    folder = folder_of("whisper-tiny.en")
    folder.mkdir(parents=True)
    for name in ("encoder.safetensors", "SHA256SUMS"):
        (folder / name).touch()
    assert find_audio_weights("whisper") == folder / "encoder.safetensors"
