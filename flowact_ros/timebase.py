# SPDX-License-Identifier: Apache-2.0
"""The one clock arithmetic of the stream: frames, latents and samples as exact integers of each other."""

from __future__ import annotations

FRAME_RATE = 25  # video frames per second of content time
SAMPLE_RATE = 24_000  # [Hz] audio that leaves with the frames, mono
INPUT_RATES = (8_000, 192_000)  # [Hz] least and greatest of sound that comes in: files, topics, microphones alike
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE  # 960
FRAMES_PER_LATENT = 4  # temporal stride of the VAE: latent k holds frames 4k .. 4k+3
SAMPLES_PER_LATENT = SAMPLES_PER_FRAME * FRAMES_PER_LATENT  # 3840 = 160 ms

ENCODER_RATE = 16_000  # [Hz] what Whisper-type encoders hear
ENCODER_SAMPLES_PER_FRAME = ENCODER_RATE // FRAME_RATE  # 640: one feature a frame (paper: 25 features/s)
FEATURE_DIM = 384  # width of the audio port (Whisper tiny) and of the text port (MiniLM)
