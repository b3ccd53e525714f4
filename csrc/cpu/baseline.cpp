// The loops for any CPU of the architecture.
#include <algorithm>
#include <type_traits>

#include "isa.h"

#define LRFUSED_ISA baseline
// clang-format off: each of them needs the ones before it
#include "update.inc"
#include "square_sum.inc"
#include "dispatch.inc"
// clang-format on
