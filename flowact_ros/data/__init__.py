# SPDX-License-Identifier: Apache-2.0
"""Synthetic characters, speech with phoneme times, clips."""
