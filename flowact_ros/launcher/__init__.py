# SPDX-License-Identifier: Apache-2.0
"""Processes without ROS: the supervisor, which nodes are brought up with what, and the doctor."""
