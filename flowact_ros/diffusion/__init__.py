# SPDX-License-Identifier: Apache-2.0
"""Schedule, sampler, memory and key-value cache: the one rollout that training and the live stream share."""
