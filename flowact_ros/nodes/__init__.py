# SPDX-License-Identifier: Apache-2.0
"""Lifecycle nodes, topic names, QoS and message conversion: the only room that imports rclpy."""
