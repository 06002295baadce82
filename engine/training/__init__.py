"""Everything that learns from data; needs the `train` extra."""

import os

# PyTorch's OpenMP threads spin while they wait for work, by default. On a machine with anything else to do they then
# take the cores that the others need to get there: five times slower was measured. Read once, when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
