# SPDX-License-Identifier: Apache-2.0
"""The page a robot's screen shows, and its small server."""
