# SPDX-License-Identifier: Apache-2.0
"""Codecs: pictures to latents and back, behind one seam. `motion` names what a latent of the embedded codec holds."""
