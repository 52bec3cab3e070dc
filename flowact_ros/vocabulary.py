# SPDX-License-Identifier: Apache-2.0
"""Words that topics, records, planners, data and models share, each once, in the order of the messages' constants.

Nothing of flowact_msgs is imported here: `nodes/convert.py` translates, and a test compares the two.
"""

from __future__ import annotations

# What the avatar does (Instruction, AvatarState, ChunkRecord): the number of a behaviour is its place.
IDLE, LISTENING, THINKING, SPEAKING, REACTING = "idle", "listening", "thinking", "speaking", "reacting"
BEHAVIOURS = (IDLE, LISTENING, THINKING, SPEAKING, REACTING)

# How soon an instruction counts (Instruction): from URGENT on, frames made ahead are dropped and made again.
PRIORITY_NORMAL, PRIORITY_URGENT = 0, 200

# Samples of a run of audio (AudioChunk): 16-bit integers of full scale 32768, or floats of full scale 1; little endian.
S16LE, F32LE = "S16LE", "F32LE"
AUDIO_ENCODINGS = (S16LE, F32LE)

# Of so many frames one is drawn: divisors of a latent's four.
DRAW_EVERY = (1, 2, 4)

# What turns the speech into features for the denoiser: the encoder of the package, or Whisper's own.
EMBEDDED, WHISPER = "embedded", "whisper"
KOKORO = "kokoro"  # its model and its speech backend
AUDIO_ENCODERS = (EMBEDDED, WHISPER)
