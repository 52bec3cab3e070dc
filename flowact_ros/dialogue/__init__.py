# SPDX-License-Identifier: Apache-2.0
"""Hearing, planning, speaking: small protocols with backends."""
