# SPDX-License-Identifier: Apache-2.0
"""`flowact data`: render training material.

    flowact data snippets --count 1500 --out runs/data/snippets     # 8 frames of many characters, for the VAE
    flowact data clips --count 100 --seconds 10 --out runs/data/clips   # talking clips with sound, for the denoiser
    flowact data motion --count 3000 --seconds 12 --out runs/data/motion   # movement and sound alone, for the denoiser
    flowact data motion --audio-encoder whisper --out runs/data/motion_whisper   # the same, heard by Whisper
    flowact data motion --kokoro --out runs/data/motion_kokoro   # spoken by Kokoro's voices
    flowact data latents --vae runs/spatial --count 2000 --seconds 12 --out runs/data/latents   # for a spatial preset
    flowact data latents --preset avatar_1b --vae FOLDER --audio-encoder whisper --audio-path large.safetensors \\
        --text-encoder t5 --text-path FOLDER --out runs/data/latents_1b
    flowact data characters --out flowact_ros/weights/characters    # reference pictures of the named characters
    flowact data prepare talks/*.mp4 --out runs/data/mine           # your own footage; it has options of its own

All are deterministic for `--seed` and go on where they stopped: what is there is not made again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from flowact_ros.data.augment import missing_voices
from flowact_ros.data.characters import (
    NAMED,
    Identity,
    feature_boxes,
    identity_from_seed,
    mouth_opening,
    neutral_picture,
    render,
)
from flowact_ros.data.poses import random_movement
from flowact_ros.data.splits import SPLITS
from flowact_ros.data.store import BOX_NAMES, write_clip
from flowact_ros.dialogue.speech import SynthesizerError
from flowact_ros.models.checkpoint import CheckpointError
from flowact_ros.models.config import ModelConfig, SchedulerConfig, preset, video_of
from flowact_ros.timebase import FRAMES_PER_LATENT
from flowact_ros.vocabulary import AUDIO_ENCODERS, EMBEDDED, WHISPER
from flowact_ros.weights_store import WeightsError, find_audio_weights

if TYPE_CHECKING:  # what makes performances needs a speech synthesiser
    from flowact_ros.data.performances import Embed, Encode

SNIPPET_FRAMES = 8
SNIPPET_SEED = 1_000_000  # training snippets show characters from here on
# snippets of the other splits show characters from here on, which no training clip does
HELDOUT_SNIPPET_SEED = 5_000_000
LARGEST_NUMBER = (
    HELDOUT_SNIPPET_SEED - SNIPPET_SEED - 1
)  # the next training snippet would show a held-out character
LONGEST = 600.0  # seconds of a clip, all of whose frames are held in memory: 20 MB a second of 512 pixels


def picture_arrays(identity: Identity, controls: torch.Tensor, size: int) -> dict[str, np.ndarray]:
    """Frames, feature boxes, true mouth opening and controls, as `store` keeps them."""
    boxes = feature_boxes(identity, controls, size)
    return {
        "frames": render(identity, controls, size=size).cpu().numpy(),
        "boxes": np.stack([boxes[name].cpu().numpy() for name in BOX_NAMES], 1).astype(np.float32),
        "opening": mouth_opening(identity, controls).cpu().numpy().astype(np.float32),
        "controls": controls.numpy(),
    }


def render_snippet(seed: int, split: str, size: int, path: Path) -> None:
    """Eight frames of a random movement; a third of the training ones show the named characters."""
    rng = np.random.default_rng(seed)
    if split != "train":
        identity = identity_from_seed(HELDOUT_SNIPPET_SEED + seed)
    elif rng.random() < 0.35:
        identity = NAMED[sorted(NAMED)[rng.integers(len(NAMED))]]
    else:
        identity = identity_from_seed(SNIPPET_SEED + seed)
    arrays = picture_arrays(identity, random_movement(rng, SNIPPET_FRAMES), size)
    write_clip(path, arrays, {"seed": seed, "split": split, "frames": SNIPPET_FRAMES, "size": size})


def render_clip(seed: int, split: str, seconds: float, size: int, path: Path, *, jpeg: bool = False) -> None:
    """A performance with sound, as `data.clips` draws it for `seed`."""
    from flowact_ros.data.clips import make_performance  # needs a speech synthesiser; snippets do not

    spec = make_performance(seed, split, seconds)
    performance = spec.performance
    controls = torch.as_tensor(performance.controls, dtype=torch.float32)
    arrays = picture_arrays(spec.identity, controls, size)
    arrays["pcm"] = np.asarray(performance.pcm, dtype=np.float16)
    arrays["behaviour"] = np.asarray(performance.behaviour, dtype=np.int8)
    info = {
        "seed": seed,
        "split": split,
        "frames": len(controls),
        "size": size,
        "identity": spec.character,
        "voice": str(spec.voice),
        "instruction": [(int(first), text) for first, text in performance.instruction],
    }
    write_clip(path, arrays, info, jpeg=jpeg)


@torch.no_grad()
def make_motion(
    first: int, count: int, split: str, seconds: float, out: Path, heard_by: str = EMBEDDED, of_kokoro: bool = False
) -> int:
    """Write performances without pictures (`data.performances`); `out` is a folder that exists."""
    from flowact_ros.data.performances import check_encoder, write_performances

    check_encoder(out, heard_by)
    encode, embed = encoders(heard_by)
    write_performances(
        out, first, count, split, seconds, encode, lambda text: embed(text)[0], heard_by, of_kokoro
    )
    return 0


@torch.no_grad()
def make_latents(args: argparse.Namespace) -> int:
    """Write clips as latents of a VAE (`data.latents`); `--out` is a folder that exists."""
    from flowact_ros.data.latents import Writer

    config = preset(args.preset)
    given = (args.audio_encoder, args.audio_path, args.text_encoder, args.text_path, config)
    writer = Writer(args.out, args.vae, video_of(config), lambda: encoders(*given), args.audio_encoder)
    writer.write(args.seed, args.count, args.split, args.seconds)
    return 0


def encoders(
    heard_by: str, audio_path: Path | None = None, read_by: str = EMBEDDED, text_path: Path | None = None,
    config: ModelConfig | None = None,
) -> tuple[Encode, Embed]:  # fmt: skip
    """What hears the sound of clips and what reads their texts (`[tokens, D]` each), of the sizes of `config`.

    Whisper's features depend on where its window ends: it hears in steps of whole chunks, as a stream in full swing.
    Raises ConfigError for encoders of other sizes.
    """
    from flowact_ros.engine.audio_window import AudioWindow
    from flowact_ros.models.audio_encoder import load_audio_encoder
    from flowact_ros.models.ports import check_ports
    from flowact_ros.models.precision import best_dtype
    from flowact_ros.models.text_encoder import load_text_encoder

    hearing = load_audio_encoder(heard_by, find_audio_weights(heard_by, audio_path))
    encoder = load_text_encoder(read_by, text_path, tokens=config.dit.text_tokens if config else 1)
    if config is not None:
        check_ports(config, hearing, encoder, heard_by, read_by)
    window = AudioWindow(hearing)
    whisper = heard_by == WHISPER
    step = FRAMES_PER_LATENT * SchedulerConfig().chunk_latents if whisper else None

    def encode(pcm: np.ndarray) -> np.ndarray:
        # In bfloat16, Whisper's features are off by 2 to 6 % of their spread, and take half the time.
        with torch.autocast("cpu", torch.bfloat16, enabled=whisper and best_dtype("cpu") == torch.bfloat16):
            return window.whole_features(np.asarray(pcm, np.float32), step).float().numpy()

    def embed(text: str) -> np.ndarray:
        return encoder.encode([text])[0].float().numpy()

    return encode, embed


def draw_characters(out: Path, size: int) -> int:
    """Write the neutral picture of every named character as `out/NAME.png`; `out` is a folder that exists."""
    from PIL import Image

    for name, identity in NAMED.items():
        Image.fromarray(neutral_picture(identity, size)).save(out / f"{name}.png", optimize=True)
        print(out / f"{name}.png")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed on the way, 2 what cannot be made as asked for or not here, each with one line."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["prepare"]:
        from flowact_ros.data.footage import main as prepare

        return prepare(argv[1:])
    args = _parser().parse_args(argv)
    try:
        _check(args)
        return _make(args)
    except ModuleNotFoundError as error:
        print(f"flowact data: {error}; `make setup-dev` installs what is needed", file=sys.stderr)
        return 2
    # sizes and lengths, voices that are not installed, an encoder whose weights are not here or damaged
    except (ValueError, SynthesizerError, WeightsError, CheckpointError) as error:
        print(f"flowact data: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"flowact data: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowact data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("snippets", "clips", "motion", "latents", "characters"))
    parser.add_argument("--out", type=Path, required=True, help="folder that receives one sub-folder a clip")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--seed", type=int, default=0, help="number of the first clip")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--size", type=int, default=512, help="canvas side in pixels")
    parser.add_argument(
        "--jpeg", action="store_true", help="keep the frames of clips as JPEG, 40 times smaller"
    )
    parser.add_argument(
        "--audio-encoder", choices=AUDIO_ENCODERS, default=EMBEDDED,
        help="who hears `motion` and `latents`; whisper needs the weights of `flowact weights get whisper-tiny.en`",
    )  # fmt: skip
    parser.add_argument(
        "--kokoro", action="store_true",
        help="of `motion`: Kokoro's voices speak, which `flowact weights get kokoro` brings",
    )  # fmt: skip
    parser.add_argument(
        "--vae", type=Path, metavar="FOLDER", help="of `latents`: where `flowact train export-vae` wrote the VAE"
    )
    parser.add_argument(
        "--preset", default="avatar_spatial_debug",
        help="of `latents`: whose picture size and VAE (default: avatar_spatial_debug)",
    )  # fmt: skip
    parser.add_argument("--audio-path", type=Path, metavar="FILE", help="of `latents`: weights of that encoder")
    parser.add_argument(
        "--text-encoder", choices=("embedded", "minilm", "t5"), default=EMBEDDED,
        help="of `latents`: who reads the texts",
    )  # fmt: skip
    parser.add_argument("--text-path", type=Path, metavar="FOLDER", help="of `latents`: where that encoder lies")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def _check(args: argparse.Namespace) -> None:
    """Raises ValueError for options that cannot be carried out; the renderer itself knows its sizes."""
    if args.count < 1:
        raise ValueError(f"--count is {args.count}; it must be 1 or more")
    first, last = args.seed, args.seed + args.count - 1
    if first < 0 or last > LARGEST_NUMBER:
        raise ValueError(
            f"--seed and --count ask for clips {first} .. {last}; they must lie in 0 .. {LARGEST_NUMBER}"
        )
    if not 0.4 <= args.seconds <= LONGEST:
        raise ValueError(f"--seconds is {args.seconds:g}; it must lie in 0.4 .. {LONGEST:g}")
    if not 1 <= args.threads <= 64:
        raise ValueError(f"--threads is {args.threads}; it must lie in 1 .. 64")
    if args.kokoro and args.kind != "motion":
        raise ValueError(f"--kokoro is for motion; {args.kind} have the other voices")
    if args.kind == "latents" and args.vae is None:
        raise ValueError("latents need --vae, the folder where `flowact train export-vae` wrote the VAE")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {args.out} cannot be a folder: {error.strerror}") from None


def _make(args: argparse.Namespace) -> int:
    torch.set_num_threads(args.threads)
    if args.kind == "characters":
        return draw_characters(args.out, args.size)
    if args.kind != "snippets" and not args.kokoro and (missing := missing_voices(args.split)):
        others = ", ".join(missing)
        print(f"hibari speaks for {others}: apt-get install flite espeak-ng for other voices", flush=True)
    if args.kind == "motion":
        return make_motion(
            args.seed, args.count, args.split, args.seconds, args.out, args.audio_encoder, args.kokoro
        )
    if args.kind == "latents":
        return make_latents(args)
    for number in range(args.seed, args.seed + args.count):
        path = args.out / f"{number:07d}"
        if (path / "clip.json").exists():
            continue
        if args.kind == "snippets":
            render_snippet(number, args.split, args.size, path)
        else:
            render_clip(number, args.split, args.seconds, args.size, path, jpeg=args.jpeg)
        print(f"{number - args.seed + 1}/{args.count} {path}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
