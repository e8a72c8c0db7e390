// Philox4x32-10: a counter-based random number generator (Salmon, Moraes, Dror, Shaw: "Parallel
// random numbers: as easy as 1, 2, 3", SC 2011).
//
// There is no state: the numbers are a function of a 128-bit counter and a 64-bit key. A token
// drawn at (seed, choice, position) is therefore the same in any batch, after any crash, on any
// worker. Pure functions, thread-safe.
#ifndef DOVETAIL_BASE_PHILOX_H_
#define DOVETAIL_BASE_PHILOX_H_

#include <array>
#include <cstdint>

namespace dovetail {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// A uniform number in [0, 1), a multiple of 2^-53: key = seed, counter = (position, choice, 0, 0),
// the first two words of the output as bits.
double PhiloxUniform(uint64_t seed, uint32_t choice, uint32_t position);

}  // namespace dovetail

#endif  // DOVETAIL_BASE_PHILOX_H_
