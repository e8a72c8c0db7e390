#include "tests/bench/ceilings.h"

#include <map>

#include "base/thread_pool.h"
#include "kernels/bandwidth.h"
#include "tests/bench/instruction_rate.h"

namespace dovetail::kernels {

double ReadBandwidth() {
  static const double bytes_per_s = [] {
    ThreadPool pool(1, {});
    return MeasureReadBandwidth(&pool, int64_t{256} << 20) * 1e9;
  }();
  return bytes_per_s;
}

double Int8Products(Isa isa) {
  static std::map<Isa, double> known;
  const auto [at, fresh] = known.try_emplace(isa);
  if (fresh) at->second = Int8Peak(isa);
  return at->second;
}

double FloatProducts(Isa isa) {
  static std::map<Isa, double> known;
  const auto [at, fresh] = known.try_emplace(isa);
  if (fresh) at->second = FloatPeak(isa);
  return at->second;
}

}  // namespace dovetail::kernels
