#define KERNEL baseline
#include "kernels.inc"
