# SPDX-License-Identifier: Apache-2.0
"""A fleet: avatars computed on servers for robots that have no GPU, one WebSocket a robot.

The server's side is `connection` (one robot), `replica` (all robots of a process) and `serve` (Ray Serve: processes,
places, health, scaling). The robot's is `client` (a stream) with `link` (its connection) and `arrival` (its frames),
which need neither torch nor Ray. `wire` is what both speak.
"""
