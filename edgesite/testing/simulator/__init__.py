"""The simulator: the real modules on virtual machines, from one seed.

    python -m edgesite.testing.simulator --seeds 200      run worlds 0 to 199
    python -m edgesite.testing.simulator --seed 17 -v     replay one, with its trace

A world (``worlds/``) is a scenario with machines, a client that works on them, a plan of faults drawn from the seed, and invariants.
Machines have a clock, a network, a disk and processes; each process runs the same code as the program does, but its `Context`
leads here. Time is virtual: it jumps to the next timer when nothing can run. The same seed gives the same run, bit by bit.
"""
