# SPDX-License-Identifier: Apache-2.0
"""Trainer and stages; rolls out through `diffusion.sampler`."""
