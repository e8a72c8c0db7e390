#include "coordinator/http/random_id.h"

#include <cstdint>
#include <random>

namespace dovetail::coordinator {

std::string RandomId() {
  static constexpr char kAlphabet[] = "0123456789abcdefghijklmnopqrstuvwxyz";
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    return std::mt19937_64((static_cast<uint64_t>(device()) << 32) ^ device());
  }();
  std::string id(24, '0');
  std::uniform_int_distribution<int> pick(0, 35);
  for (char& c : id) c = kAlphabet[pick(generator)];
  return id;
}

}  // namespace dovetail::coordinator
