# SPDX-License-Identifier: Apache-2.0
"""Trainer, methods and losses; rolls out through `engine.sampler`."""
