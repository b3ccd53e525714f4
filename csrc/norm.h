// The norm of all gradients: a sum of squares in fp64, in one fixed order.
//
// sum(x) keeps 128 partial sums. Partial sum j adds x[j], x[j + 128], x[j + 256], ... in this
// order, beginning with 0; then j adds partial sum j + w, for w = 64, 32, ..., 1, and partial sum 0
// is the sum. A tensor's squares, in memory order, are summed in pieces of 4096, the pieces' sums
// are summed, and then the tensors' sums, in the order of the parameters. A parameter without a
// gradient has the sum 0. The square of a number of up to 32 bits is exact in fp64.
#pragma once

#include "numerics.h"

namespace lrfused {

constexpr int64_t kPartialSums = 128;
constexpr int64_t kPiece = 4096;

// Add up the partial sums.
LRFUSED_HD double fold(double* sums) {
  for (int64_t w = kPartialSums / 2; w > 0; w /= 2)
    for (int64_t j = 0; j < w; ++j) sums[j] += sums[j + w];
  return sums[0];
}

LRFUSED_HD double ordered_sum(const double* x, int64_t n) {
  if (n == 1) return x[0];
  double sums[kPartialSums] = {};
  for (int64_t i = 0; i < n; ++i) sums[i % kPartialSums] += x[i];
  return fold(sums);
}

// Return the factor that clips gradients of this norm; a NaN stays one, as in torch.
LRFUSED_HD double clip_coefficient(double norm, double max_norm) {
  const double c = max_norm / (norm + 1e-6);
  return c > 1 ? 1 : c;
}

}  // namespace lrfused
