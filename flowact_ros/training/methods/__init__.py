# SPDX-License-Identifier: Apache-2.0
"""One training stage a file."""
