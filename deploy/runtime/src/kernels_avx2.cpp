#define KERNEL avx2
#include "kernels.inc"
