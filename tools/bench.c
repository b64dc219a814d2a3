/* bench.c - calomu bench */
#include "calomu_tool.h"
int verb_bench(int argc, char **argv) { (void)argc; (void)argv; return 2; }
