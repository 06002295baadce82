"""The numeric hot path: numpy and numba only, no I/O, no configuration, no import of the engine.

Every kernel is compiled for the dtypes that it documents when its module is imported (and cached on disk), releases
the GIL, accepts read-only arrays (memory-mapped tables, `np.frombuffer` of a network reply) and never reads outside
its inputs. fastmath is limited to `reassoc` and `contract`: the flags that assume no NaN or infinity stay out.
"""
