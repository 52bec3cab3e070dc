# SPDX-License-Identifier: Apache-2.0
"""FlowAct for ROS 2: a living face for screen-based social robots."""

__version__ = "0.1.0"
