# SPDX-License-Identifier: Apache-2.0
"""The live stream: schedule, sampler, memory, timeline, pacing, session. Knows no ROS."""
