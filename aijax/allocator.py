"""How the C library of a process treats the memory that a program on a CPU frees.

XLA allocates the temporary arrays of a program anew at every run. glibc gives blocks as large as these back to the
system at once, which clears and maps every page of them again at the next run: for a small vision transformer that is a
fifth of the time of a training step.

What is kept may lie in pieces. An aligned array leaves a few bytes before and after it, which glibc (2.36) puts on a
list of small pieces for the thread; where something that stays takes them, the place of the array is too small for it
at the next run, and the process grows by all of it once more (2075 MB in place of 1312 for the ViT of
`benchmarks/vit.py` at 32 x 32). Without such lists this did not happen; pages of 2 MB save time beside. Both can be
asked for only before a process starts:

    GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.malloc.hugetlb=1 aijax run CONFIG
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""Parameters of mallopt, see its manual page."""


def keep_freed_memory() -> bool:
    """Returns whether the process keeps from now on what it frees, for what it allocates next.

    It is to be called before the first array is made: memory of threads that have allocated before is not kept. The
    process then holds the most memory that it ever needed, and its threads share one heap. Only glibc knows of it;
    elsewhere nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # one arena, that grows at its end, of which nothing is mapped apart and nothing given back
    return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1)])
