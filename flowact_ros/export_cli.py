# SPDX-License-Identifier: Apache-2.0
"""`flowact export`: the networks as ONNX files, for runtimes that are not torch.

    flowact export --out onnx                                    # all of avatar_cpu
    flowact export --out onnx --only denoiser --fill 0 1 2       # an evaluation at every fill of memory
    flowact export --out onnx --preset avatar_1b --weights runs/my_1b
    flowact export --out onnx --preset avatar_1b --weights random --only codec

Shapes are fixed: a chunk, a latent, one stream. Each file has a JSON card beside it: preset, hash of the weights,
shapes, opset, operators, and how far ONNX Runtime is from torch, which is measured before the file is kept. See
docs/export.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowact_ros.models.config import PRESETS, ConfigError, ModelConfig, preset
from flowact_ros.models.onnx_export import OPSET, ExportError, check, deviations, export, operators

if TYPE_CHECKING:
    from torch import Tensor

NETWORKS = ("codec", "denoiser")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(prog="flowact export", description=__doc__, formatter_class=raw)
    made.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="where the files go")
    made.add_argument("--preset", choices=tuple(PRESETS), default="avatar_cpu", help="default: avatar_cpu")
    made.add_argument("--weights", metavar="FOLDER", help="default: those of the package; random: untrained ones")
    made.add_argument("--only", choices=NETWORKS, help="what draws, or what makes motion (default: both)")
    made.add_argument("--fill", metavar="N", type=int, nargs="+", help="entries in memory (default: full)")
    made.add_argument("--json", action="store_true", help="print the cards as one list of objects")
    return made


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 2 bad command line."""
    options = _parser().parse_args(argv)
    config = preset(options.preset)
    if options.fill and options.only == "codec":
        print("flowact export: --fill is of the denoiser; leave --only codec out", file=sys.stderr)
        return 2
    if options.out.exists() and not options.out.is_dir():
        print(f"flowact export: --out: {options.out} is no folder", file=sys.stderr)
        return 2
    from flowact_ros.models.checkpoint import CheckpointError

    cards = []
    try:
        for card in write(config, options.out, options.weights, options.only, options.fill):
            cards.append(card)
            if not options.json:
                print(_line(card), flush=True)
    except ConfigError as error:
        print(f"flowact export: {error}", file=sys.stderr)
        return 2
    except (CheckpointError, ExportError, OSError) as error:
        print(f"flowact export: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(cards))
    return 0


def write(
    config: ModelConfig, folder: Path, weights: str | None, only: str | None, fills: list[int] | None
) -> Iterator[dict[str, Any]]:
    """Write the files of one preset, and give the card of each once it is there.

    Raises ConfigError, CheckpointError, ExportError or OSError; files that were there stay as they are then.
    """
    import onnxruntime
    import torch

    from flowact_ros.engine.onnx_parts import Part, codec_parts, denoiser_parts
    from flowact_ros.engine.provenance import weights_hash

    def one(part: Part) -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{part.name}.", dir=folder) as aside:
            path = Path(aside) / f"{part.name}.onnx"
            export(part.module, part.tensors, path, part.inputs, part.outputs)
            found = deviations(path, part.module, part.tensors, part.outputs)
            check(path, found)
            card = {
                "file": path.name,
                "preset": config.name,
                "weights": weights_hash([part.module]),
                "opset": OPSET,
                "bytes": sum(file.stat().st_size for file in path.parent.iterdir()),
                "inputs": [_described(name, x) for name, x in zip(part.inputs, part.tensors)],
                "outputs": [{"name": name, **asdict(deviation)} for name, deviation in found.items()],
                "operators": operators(path),
                "torch": torch.__version__,
                "onnxruntime": onnxruntime.__version__,
            }
            path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
            for file in sorted(path.parent.iterdir(), key=lambda file: file.suffix == ".onnx"):  # it comes last
                file.replace(folder / file.name)
        return card

    if only != "denoiser":
        yield from map(one, codec_parts(config, weights))
    if only != "codec":
        full = config.memory.long_term + 1
        yield from map(one, denoiser_parts(config, weights, fills or [full]))


def _described(name: str, tensor: Tensor) -> dict[str, Any]:
    return {"name": name, "shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def _line(card: dict[str, Any]) -> str:
    worst = max(card["outputs"], key=lambda output: output["error"] / max(output["largest"], 1e-9))
    return (
        f"{card['file']}: {card['bytes'] / 1e6:.1f} MB, {len(card['inputs'])} inputs; {worst['name']} is off by "
        f"{worst['error']:.1e} of {worst['largest']:.2g} in ONNX Runtime"
    )
