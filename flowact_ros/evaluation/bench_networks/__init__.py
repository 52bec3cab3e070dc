# SPDX-License-Identifier: Apache-2.0
"""How fast the networks of a preset are on a device, beside what the device can do."""
