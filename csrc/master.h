// The remainder of an fp32 master weight: the 16 bits that its bfloat16 parameter lacks.
//
//     master's bits = (parameter's bits << 16) + remainder,  a signed 16-bit number
//
// This is invertible, as the parameter is the master rounded to nearest with ties away from zero.
// Ties to even is not invertible: 65,537 floats share an even bfloat16, and 16 bits tell 65,536
// apart.
#pragma once

#include "numerics.h"

namespace lrfused {

LRFUSED_HD float join(bfloat16 param, int16_t remainder) {
  return bit_cast<float>((uint32_t(param.bits) << 16) + uint32_t(int32_t(remainder)));
}

LRFUSED_HD void split(float master, bfloat16& param, int16_t& remainder) {
  uint32_t bits = bit_cast<uint32_t>(master);
  bits = (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc00000u : bits;  // another NaN would carry over
  const uint32_t rounded = bits + 0x8000u;
  param.bits = uint16_t(rounded >> 16);
  remainder = int16_t(uint16_t(bits));  // as a signed number it is bits - (param << 16)
}

}  // namespace lrfused
