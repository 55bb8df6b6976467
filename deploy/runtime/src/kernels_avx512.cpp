#define KERNEL avx512
#include "kernels.inc"
