# SPDX-License-Identifier: Apache-2.0
"""Experiments: settings compared over seeds. Each one is a sub-command of `flowact eval`."""
