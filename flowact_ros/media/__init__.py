# SPDX-License-Identifier: Apache-2.0
"""Thin wrappers over libraries for wav, mp4, jpeg and resampling."""
