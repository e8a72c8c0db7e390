#include "base/process_token.h"

#include <random>

namespace dovetail {

uint64_t ProcessToken() {
  static const uint64_t token = [] {
    std::random_device random;
    return uint64_t{random()} << 32 | random();
  }();
  return token;
}

}  // namespace dovetail
