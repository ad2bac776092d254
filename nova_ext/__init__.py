# SPDX-License-Identifier: Apache-2.0
"""Extensions for a stock nova: what each module adds mirrors nova's own tree."""
