# SPDX-License-Identifier: Apache-2.0
"""One avatar on several GPUs: the denoiser's tokens are split over processes, the decoder has a process of its own.

Rank 0 is the process that has the stream; it starts the others (`ranks`). They remember nothing of the stream: every
evaluation of the denoiser is sent to them (`split`), every latent to the decoder (`decoder`), so that rewinds, cuts and
snapshots are rank 0's alone. `build` puts it together.
"""
