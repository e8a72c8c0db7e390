// Random values of tests, of a generator that TestSeed() seeds, and a comparison by bits.
#ifndef DOVETAIL_TESTS_TESTING_RANDOM_VALUES_H_
#define DOVETAIL_TESTS_TESTING_RANDOM_VALUES_H_

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

namespace dovetail::testing {

using Rng = std::mt19937_64;

inline int Uniform(Rng& rng, int least, int most) {
  return std::uniform_int_distribution<int>(least, most)(rng);
}

inline std::vector<float> Normal(Rng& rng, int64_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = normal(rng);
  return values;
}

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_TESTING_RANDOM_VALUES_H_
