# SPDX-License-Identifier: Apache-2.0
"""Metrics, experiments, benchmark and reports."""
