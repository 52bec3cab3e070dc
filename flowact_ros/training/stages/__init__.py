# SPDX-License-Identifier: Apache-2.0
"""Training stages: each draws its batches and turns them into a loss; `training.trainer` does the rest."""
