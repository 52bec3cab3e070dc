# SPDX-License-Identifier: Apache-2.0
"""Many streams on one device: sessions with clocks of their own share one pipeline's weights and its time."""
