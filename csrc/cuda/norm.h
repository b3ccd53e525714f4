// The norm of all gradients, in ../norm.h's order: the work of one lane of a warp.
//
// A warp takes a piece of 4096 elements, and each lane has four of the 128 partial sums. If the
// gradient's address is a multiple of four elements, lane l has the partial sums 4 l to 4 l + 3 and
// reads their elements at once; else it has l, l + 32, l + 64 and l + 96, and reads single elements
// beside the other lanes'. The warp then folds the 128, pair by pair in the same order.
#pragma once

#include "../norm.h"
#include "launch.h"
#include "vector.h"

namespace lrfused::cuda {

constexpr int kRow = int(kPartialSums);           // elements that a warp reads at once
constexpr int kSumsPerLane = kRow / int(kLanes);  // of a lane

LRFUSED_HD int64_t pieces_of(int64_t numel) {
  return numel <= kPiece ? 1 : (numel + kPiece - 1) / kPiece;  // one, too, of no elements
}

// Return the index of lane's k-th partial sum among the 128.
template <bool Wide>
LRFUSED_HD int place_of(int64_t lane, int k) {
  return Wide ? kSumsPerLane * int(lane) + k : int(kLanes) * k + int(lane);
}

template <class T, bool Wide>
LRFUSED_HD Vector<T, kSumsPerLane> row_of(uint64_t at, int64_t lane) {
  constexpr int count = int(sizeof(T)) * kSumsPerLane / 4;
  if constexpr (Wide) {
    return elements<T, kSumsPerLane>(load<count>(at + lane * (kSumsPerLane * sizeof(T))));
  } else {
    Vector<T, kSumsPerLane> row;
    LRFUSED_UNROLLED
    for (int k = 0; k < kSumsPerLane; ++k)
      row.x[k] = load_one<T>(at + place_of<Wide>(lane, k) * sizeof(T));
    return row;
  }
}

// Add the square of a gradient of T, unscaled in R.
template <class R, class T>
LRFUSED_HD void add_square(double& sum, T grad, opmath_t<R> scale) {
  const double d = rn<R>(scale * static_cast<opmath_t<R>>(widen(grad)));
  if constexpr (sizeof(R) == 8)
    sum += d * d;
  else
    sum = fma<true>(d, d, sum);  // the square is exact
}

// Add the squares of n elements, at most a piece, to lane's sums, which begin with 0.
template <class T, class R, bool Wide>
LRFUSED_HD void add_squares(uint64_t at, int64_t n, opmath_t<R> scale, int64_t lane,
                            double (&sums)[kSumsPerLane]) {
  // Rows in flight: 128 bytes of a lane, or 32 registers of single elements.
  constexpr int kAhead = sizeof(T) == 2 && !Wide ? 8 : 32 / int(sizeof(T));
  int left = int(n);
  LRFUSED_ROLLED
  for (; left >= kAhead * kRow; left -= kAhead * kRow) {
    Vector<T, kSumsPerLane> rows[kAhead];
    LRFUSED_UNROLLED
    for (int i = 0; i < kAhead; ++i) rows[i] = row_of<T, Wide>(at + i * kRow * sizeof(T), lane);
    LRFUSED_UNROLLED
    for (int i = 0; i < kAhead; ++i) LRFUSED_UNROLLED
    for (int k = 0; k < kSumsPerLane; ++k) add_square<R>(sums[k], rows[i].x[k], scale);
    at += kAhead * kRow * sizeof(T);
  }
  constexpr int kLast = 4 * kSumsPerLane;  // elements in flight
  LRFUSED_ROLLED
  for (; left > 0; left -= kLast / kSumsPerLane * kRow) {
    T x[kLast] = {};
    LRFUSED_UNROLLED
    for (int i = 0; i < kLast; ++i) {
      const int j = i / kSumsPerLane * kRow + place_of<Wide>(lane, i % kSumsPerLane);
      if (j < left) x[i] = load_one<T>(at + j * sizeof(T));
    }
    LRFUSED_UNROLLED
    for (int i = 0; i < kLast; ++i)
      if (i / kSumsPerLane * kRow + place_of<Wide>(lane, i % kSumsPerLane) < left)
        add_square<R>(sums[i % kSumsPerLane], x[i], scale);
    at += kLast / kSumsPerLane * kRow * sizeof(T);
  }
}

template <class T, class R>
LRFUSED_HD bool add_piece(const Gradient& g, int64_t piece, double inv_scale, int64_t lane,
                          double (&sums)[kSumsPerLane]) {
  const int64_t begin = piece * kPiece, left = int64_t(g.numel) - begin;
  const int64_t n = left < kPiece ? left : kPiece;
  const uint64_t at = g.address + begin * sizeof(T);
  const auto scale = static_cast<opmath_t<R>>(inv_scale);
  constexpr int64_t kBytes =
      kSumsPerLane * sizeof(T) < kVector ? kSumsPerLane * sizeof(T) : kVector;
  const bool wide = g.address % kBytes == 0;
  if (wide)
    add_squares<T, R, true>(at, n, scale, lane, sums);
  else
    add_squares<T, R, false>(at, n, scale, lane, sums);
  return wide;
}

// Make lane's sums of a piece; return whether they are 4 l to 4 l + 3.
LRFUSED_HD bool add_piece(const Gradient& g, int64_t piece, double inv_scale, int64_t lane,
                          double (&sums)[kSumsPerLane]) {
  switch (DType(g.dtype)) {
    case DType::float32:
      return add_piece<float, float>(g, piece, inv_scale, lane, sums);
    case DType::float64:
      return add_piece<double, double>(g, piece, inv_scale, lane, sums);
    case DType::bfloat16:
      return g.single ? add_piece<bfloat16, float>(g, piece, inv_scale, lane, sums)
                      : add_piece<bfloat16, bfloat16>(g, piece, inv_scale, lane, sums);
    default:
      return g.single ? add_piece<float16, float>(g, piece, inv_scale, lane, sums)
                      : add_piece<float16, float16>(g, piece, inv_scale, lane, sums);
  }
}

// Load a number that another block has written since this kernel began.
LRFUSED_HD double fresh(const double* x) {
#if defined(__CUDA_ARCH__)
  return __ldcg(x);
#else
  return *x;
#endif
}

// Add n numbers to lane's sums l, l + 32, l + 64 and l + 96, which begin with 0.
LRFUSED_HD void add_numbers(const double* x, int64_t n, int64_t lane,
                            double (&sums)[kSumsPerLane]) {
  constexpr int kAhead = 8 * kSumsPerLane;
  LRFUSED_ROLLED
  for (; n > 0; n -= kAhead * kLanes) {
    double ahead[kAhead] = {};  // adding 0 changes no sum, as none is -0
    LRFUSED_UNROLLED
    for (int i = 0; i < kAhead; ++i)
      if (i * kLanes + lane < n) ahead[i] = fresh(x + i * kLanes + lane);
    LRFUSED_UNROLLED
    for (int i = 0; i < kAhead; ++i) sums[i % kSumsPerLane] += ahead[i];
    x += kAhead * kLanes;
  }
}

// Fold a warp's 128 partial sums into one, in lane 0. A V is one number in each lane; down(v, w) is
// the number of the lane w further on.
template <class V, class Down>
LRFUSED_HD V fold(V (&sums)[kSumsPerLane], bool wide, const Down& down) {
  // If a lane has neighbouring sums, pairs at a distance of kSumsPerLane or more are in two lanes.
  if (!wide) {
    sums[0] = sums[0] + sums[2];
    sums[1] = sums[1] + sums[3];
    sums[0] = sums[0] + sums[1];
  }
  LRFUSED_UNROLLED
  for (int w = int(kLanes) / 2; w > 0; w /= 2) {
    sums[0] = sums[0] + down(sums[0], w);
    if (!wide) continue;
    LRFUSED_UNROLLED
    for (int k = 1; k < kSumsPerLane; ++k) sums[k] = sums[k] + down(sums[k], w);
  }
  if (wide) {
    sums[0] = sums[0] + sums[2];
    sums[1] = sums[1] + sums[3];
    sums[0] = sums[0] + sums[1];
  }
  return sums[0];
}

LRFUSED_HD double root(double x) {
#if defined(__CUDA_ARCH__)
  return __dsqrt_rn(x);
#else
  return std::sqrt(x);
#endif
}

// Return the norm and the clipping coefficient, given the sum of all squares.
LRFUSED_HD Clip clip_of(double sum, double max_norm) {
  const double norm = root(sum);
  return {norm, clip_coefficient(norm, max_norm)};
}

// Return the NaNs that stand for a norm that was not taken.
LRFUSED_HD Clip not_taken() {
  const double nan = bit_cast<double>(uint64_t(0x7ff8) << 48);
  return {nan, nan};
}

}  // namespace lrfused::cuda
