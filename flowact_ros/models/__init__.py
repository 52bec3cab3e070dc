# SPDX-License-Identifier: Apache-2.0
"""The networks, as functions of tensors."""
