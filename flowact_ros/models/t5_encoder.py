# SPDX-License-Identifier: Apache-2.0
"""Text backend `t5`: the encoder of a T5 from a local folder, for presets whose port is a row of tokens.

Large instructions are rare and cached by string, so it runs as it comes from transformers, in bfloat16 on a GPU. Its
tokens are cut or filled to as many as the preset reads; places behind the end of a text are zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from flowact_ros.models.checkpoint import CheckpointError
from flowact_ros.models.text_encoder import check_texts, unit_rms


class T5TextEncoder(nn.Module):
    """Texts -> float32 [B, tokens, width] on `device`, tokens of unit RMS; see `text_encoder.TextEncoder`.

    folder: holds config.json, the weights as safetensors (in shards with their index, where they are large) and the
    tokenizer's files; whether it is T5 large or XXL is read from it. A decoder in it is not loaded.
    Raises CheckpointError, one line, when transformers or a file is missing, or the folder holds something else.
    """

    def __init__(self, folder: Path | str, tokens: int, device: torch.device | str = "cpu") -> None:
        super().__init__()
        folder = Path(folder).expanduser()
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"{folder / 'config.json'} is missing: give the folder of a T5 (safetensors, config.json and tokenizer)"
            )
        if not list(folder.glob("*.safetensors")):
            raise CheckpointError(f"{folder} holds no *.safetensors: other files of weights are not read")
        try:
            from transformers import AutoTokenizer, T5EncoderModel
        except ImportError:
            raise CheckpointError("text backend 't5' needs transformers: pip install transformers") from None
        dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            self.model = T5EncoderModel.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, dtype=dtype
            )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # transformers raises many kinds for a damaged folder; all mean the same here
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{folder} could not be loaded as a T5: {reason}") from error
        self.model = self.model.to(device).eval().requires_grad_(False)
        self.port = (tokens, int(self.model.config.d_model))

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        batch = self.tokenizer(
            check_texts(texts), padding="max_length", truncation=True, max_length=self.port[0], return_tensors="pt"
        ).to(self.model.device)
        mask = batch["attention_mask"]
        hidden = self.model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        return unit_rms(hidden) * mask[..., None]
