# SPDX-License-Identifier: Apache-2.0
"""Training stages, a file each: what is trained, on what batches, by which loss."""
